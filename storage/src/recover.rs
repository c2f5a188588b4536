//! Opening a log: the same records, applied in the same way, from the newest checkpoint to the last whole unit.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use sluice_model::{LogOffset, RecordView, Timestamp, TopicName};

use crate::{
    Appender, Applier, Checkpointer, Config, Disk, Error, Reader, Syncer, Views,
    checkpoint::{Checkpoint, QueueMark, STATE_DIR, Slots},
    handles::Handles,
    keys::Keys,
    mark::Mark,
    queue::{QUEUE_DIR, Queue, topic_dir},
    queues::Queues,
    repair::{Repair, is_sound},
    run::{Extent, RUN_DIR, Run},
    scan::{End, scan},
    segment::{LOG_DIR, Segment, parse_name},
    shared::Shared,
    tail,
    watermarks::Watermarks,
};

/// An open log: one appender, one syncer, one applier, one checkpointer, any number of readers.
pub struct Opened {
    pub appender: Appender,
    pub syncer: Syncer,
    pub applier: Applier,
    pub checkpointer: Checkpointer,
    pub reader: Reader,
    pub recovery: Recovery,
}

/// What was found when the log was opened, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The checkpoint that the start began with; `None` when everything was rebuilt from the log.
    pub checkpoint: Option<LogOffset>,
    /// Where the log begins and ends.
    pub start: LogOffset,
    pub end: LogOffset,
    /// When the newest record was stored.
    pub newest: Timestamp,
    /// Records applied after the checkpoint.
    pub replayed_records: u64,
    /// Bytes of a torn end that were cut off; none of them was ever durable.
    pub cut_bytes: u64,
    /// Damaged or missing consume queues and runs of the key index that were built again.
    pub repaired_queues: usize,
    pub repaired_runs: usize,
}

impl Recovery {
    /// Whether the log was closed with a checkpoint at its end.
    pub fn is_clean(&self) -> bool {
        self.replayed_records == 0 && self.cut_bytes == 0 && self.repaired_queues == 0 && self.repaired_runs == 0
    }
}

/// Opens the log in a directory, makes one if there is none, and brings `views` up to its end.
///
/// What was never durable is cut off. Fails with [`Error::Hole`] when something that was durable is missing or damaged,
/// and changes nothing of the log then.
pub fn open(disk: Arc<dyn Disk>, config: Config, views: &mut dyn Views) -> Result<Opened, Error> {
    config.check()?;
    for dir in [LOG_DIR, QUEUE_DIR, RUN_DIR, STATE_DIR] {
        disk.create_dir(dir).map_err(|error| Error::io("create", dir, error))?;
    }
    disk.sync_dir("").map_err(|error| Error::io("sync", "the directory", error))?;
    let mark = Mark::open(&*disk)?;
    let mut slots = Checkpoint::load(&*disk)?;
    let newest = slots.newest.take();
    let found = newest.as_ref().map(|checkpoint| checkpoint.offset);
    let floor = mark.offset().max(found.unwrap_or_default());
    let segments = find_segments(&*disk, &config, floor)?;
    let start = LogOffset(segments.front().map_or(0, |first| first.base));
    let checkpoint = match newest {
        Some(newest) => {
            views.restore(&newest.snapshot).map_err(|what| Error::View { at: newest.offset.0, what })?;
            newest
        }
        None => blank_checkpoint(&slots, start)?,
    };
    if checkpoint.offset < start {
        let what = format!("the log begins behind the checkpoint, which is at {}", checkpoint.offset);
        return Err(Error::Hole { file: Segment::path_of(start.0), offset: 0, what, durable: floor.0 });
    }
    let older = slots.older.unwrap_or(start).max(start);
    Start { disk, config, mark, checkpoint, start, older, floor }.run(segments, found, views)
}

/// With no checkpoint at all, everything is rebuilt from the log, if the log is whole.
fn blank_checkpoint(slots: &Slots, start: LogOffset) -> Result<Checkpoint, Error> {
    if let (Some(file), true) = (slots.damaged.first(), start > LogOffset(0)) {
        let what = format!("no checkpoint can be read, and the log itself begins at {start} only");
        return Err(Error::Corrupt { file: file.clone(), offset: 0, what });
    }
    Ok(Checkpoint { offset: start, keys_to: start, ..Checkpoint::default() })
}

/// The segments in order; the first one is made when there is none.
fn find_segments(disk: &dyn Disk, config: &Config, floor: LogOffset) -> Result<VecDeque<Arc<Segment>>, Error> {
    let names = disk.list(LOG_DIR).map_err(|error| Error::io("list", LOG_DIR, error))?;
    let mut bases: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    bases.sort_unstable();
    let hole = |base: u64, offset: u64, what: &str| Error::Hole {
        file: Segment::path_of(base),
        offset,
        what: what.to_owned(),
        durable: floor.0,
    };
    if bases.is_empty() {
        if floor > LogOffset(0) {
            return Err(hole(0, 0, "the log has no files"));
        }
        return Ok([Arc::new(Segment::create(disk, 0, config.segment_len)?)].into());
    }
    let mut segments = VecDeque::with_capacity(bases.len());
    for (n, base) in bases.iter().enumerate() {
        let path = Segment::path_of(*base);
        let failed = |error| Error::io("open", &path, error);
        let file = disk.open(&path).map_err(failed)?;
        let present = file.len().map_err(failed)?;
        match bases.get(n + 1) {
            Some(next) if *base + present == *next => {
                segments.push_back(Arc::new(Segment { base: *base, len: present, path, file }));
            }
            Some(_) => return Err(hole(*base, present, "the file does not end where the next one begins")),
            // The newest file may have been made and not filled when the power went.
            None if present >= config.segment_len => {
                segments.push_back(Arc::new(Segment { base: *base, len: present, path, file }));
            }
            None => segments.push_back(Arc::new(Segment::create(disk, *base, config.segment_len)?)),
        }
    }
    Ok(segments)
}

/// What a start begins with.
struct Start {
    disk: Arc<dyn Disk>,
    config: Config,
    mark: Mark,
    checkpoint: Checkpoint,
    start: LogOffset,
    older: LogOffset,
    /// What was durable once.
    floor: LogOffset,
}

impl Start {
    fn run(
        self,
        segments: VecDeque<Arc<Segment>>,
        found: Option<LogOffset>,
        views: &mut dyn Views,
    ) -> Result<Opened, Error> {
        let Self { disk, config, mark, checkpoint, start, older, floor } = self;
        let handles = Arc::new(Handles::new(disk.clone(), config.open_files));
        let (restored, queues) = restore_queues(&checkpoint, &handles);
        let (keys, gaps) = restore_keys(&*disk, &checkpoint, start, &handles);
        let marks = Watermarks::new(start.0, older.0, checkpoint.offset.0, checkpoint.offset.0);
        let durable = mark.offset();
        let shared = Arc::new(Shared::new(disk, config, marks, segments, (queues, keys, handles)));
        let mut applier = Applier::new(shared.clone(), &checkpoint);
        let mut recovery = Recovery { checkpoint: found, start, ..Recovery::default() };

        let end = replay(&shared, &mut applier, &checkpoint, views, &mut recovery)?;
        recovery.end = end.offset;
        end.check(&shared, floor)?;
        let segment = end.settle(&shared, durable, &mut recovery)?;
        recovery.newest = applier.last_stored_at();
        shared.marks.publish_appended(recovery.end.0);
        shared.marks.publish_durable(recovery.end.0);
        shared.marks.publish_readable(recovery.end.0);

        let reader = Reader { shared: shared.clone() };
        repair(&shared, &reader, restored, gaps, checkpoint.offset, &mut recovery)?;
        remove_leftovers(&shared);
        let appender = Appender::new(shared.clone(), segment, applier.last_stored_at(), applier.ends());
        let checkpointer = Checkpointer::new(shared.clone(), mark, checkpoint.sequence);
        Ok(Opened { appender, syncer: Syncer { shared }, applier, checkpointer, reader, recovery })
    }
}

fn restore_queues(checkpoint: &Checkpoint, handles: &Arc<Handles>) -> (Vec<(Arc<Queue>, QueueMark)>, Queues) {
    let queues = Queues::default();
    let restore = |mark: &QueueMark| {
        let name = (mark.topic.clone(), mark.queue);
        let queue = Arc::new(Queue::new(name, mark.born, (mark.min, mark.end), handles.clone()));
        queues.insert(queue.clone());
        (queue, mark.clone())
    };
    (checkpoint.queues.iter().map(restore).collect(), queues)
}

/// The index of the checkpoint, and the extents of runs that are missing or damaged.
fn restore_keys(
    disk: &dyn Disk,
    checkpoint: &Checkpoint,
    start: LogOffset,
    handles: &Arc<Handles>,
) -> (Keys, Vec<Extent>) {
    let (mut runs, mut gaps) = (Vec::new(), Vec::new());
    let mut unchecked = CHECKED_BYTES;
    for extent in checkpoint.runs.iter().rev().filter(|extent| extent.to > start.0) {
        let run = Run::open(disk, handles.new_owner(), *extent).filter(|run| {
            let len = extent.count.saturating_mul(16);
            let check = len <= unchecked;
            unchecked = unchecked.saturating_sub(len);
            !check || run.is_sound(handles)
        });
        match run {
            Some(run) => runs.push(Arc::new(run)),
            None => gaps.push(Extent { from: extent.from.max(start.0), ..*extent }),
        }
    }
    runs.reverse();
    gaps.reverse();
    let keys_to = checkpoint.keys_to.max(start).min(checkpoint.offset);
    (Keys::new(handles.clone(), runs, keys_to), gaps)
}

/// Bytes of the newest runs of the key index whose checksums are computed at a start.
const CHECKED_BYTES: u64 = 64 << 20;

/// Records after which a start gives up when their queue entries and keys cannot be written.
const UNWRITTEN_RECORDS: u64 = 4_000_000;

/// Where the records of the log end, and why.
struct LogEnd {
    offset: LogOffset,
    /// Number of the segment in which that is; the count of segments when the last one is full.
    segment: usize,
    what: String,
}

/// Applies everything behind the checkpoint.
fn replay(
    shared: &Shared,
    applier: &mut Applier,
    checkpoint: &Checkpoint,
    views: &mut dyn Views,
    recovery: &mut Recovery,
) -> Result<LogEnd, Error> {
    let segments: Vec<Arc<Segment>> = shared.segments.read().iter().cloned().collect();
    let keys_from = shared.keys.unwritten_from();
    let first = segments.iter().rposition(|segment| segment.base <= keys_from.0).unwrap_or(0);
    for (n, segment) in segments.iter().enumerate().skip(first) {
        let end = scan(segment, &mut |records: &[RecordView<'_>]| {
            for record in records {
                if record.log_offset() >= checkpoint.offset {
                    applier.dispatch(record, views)?;
                    recovery.replayed_records += 1;
                } else if record.log_offset() >= keys_from {
                    shared.keys.add(record);
                }
            }
            applier.write_blocks();
            // On a full disk entries and keys gather in memory.
            if recovery.replayed_records > UNWRITTEN_RECORDS { shared.room() } else { Ok(()) }
        })?;
        if let End::Broken { position, what } = end {
            return Ok(LogEnd { offset: LogOffset(segment.base + position), segment: n, what });
        }
        applier.skip_to(segment.end());
    }
    let end = segments.last().map_or(0, |last| last.end());
    Ok(LogEnd { offset: LogOffset(end), segment: segments.len(), what: "the log ends here".to_owned() })
}

impl LogEnd {
    /// Refuses an end that is a hole: before what was durable once, or with records in segments behind it, which are
    /// written only after everything before them is durable.
    fn check(&self, shared: &Shared, floor: LogOffset) -> Result<(), Error> {
        let segments = shared.segments.read();
        let hole = |what: String| {
            let segment = segments.get(self.segment).or(segments.back());
            let file = segment.map_or_else(|| LOG_DIR.to_owned(), |segment| segment.path.clone());
            let offset = segment.map_or(0, |segment| self.offset.0 - segment.base);
            Err(Error::Hole { file, offset, what, durable: floor.0 })
        };
        for later in segments.iter().skip(self.segment + 1) {
            if tail::has_data(later)? {
                return hole(format!("{}, but {} has records", self.what, later.path));
            }
        }
        if self.offset < floor { hole(self.what.clone()) } else { Ok(()) }
    }

    /// Makes this the durable end of the log; returns the segment that goes on.
    fn settle(&self, shared: &Shared, durable: LogOffset, recovery: &mut Recovery) -> Result<Arc<Segment>, Error> {
        let mut segments = shared.segments.write();
        let Some(segment) = segments.get(self.segment).cloned() else {
            let next = Arc::new(Segment::create(&*shared.disk, self.offset.0, shared.config.segment_len)?);
            if let Some(last) = segments.back() {
                tail::rewrite(last, durable.0.saturating_sub(last.base), last.len)?;
            }
            segments.push_back(next.clone());
            return Ok(next);
        };
        let position = segment.position(self.offset);
        recovery.cut_bytes = tail::cut(&segment, position)?;
        tail::rewrite(&segment, durable.0.saturating_sub(segment.base).min(position), position)?;
        tail::drop_behind(&*shared.disk, &mut segments, self.segment + 1)?;
        Ok(segment)
    }
}

/// Checks the queues of the checkpoint that are still there, and builds again what is not sound.
fn repair(
    shared: &Shared,
    reader: &Reader,
    restored: Vec<(Arc<Queue>, QueueMark)>,
    gaps: Vec<Extent>,
    to: LogOffset,
    recovery: &mut Recovery,
) -> Result<(), Error> {
    let is_there = |queue: &Arc<Queue>| {
        shared.queues.get(queue.topic.as_str(), queue.id).is_some_and(|there| Arc::ptr_eq(&there, queue))
    };
    let mut damaged = Vec::new();
    for (queue, mark) in restored.into_iter().filter(|(queue, _)| is_there(queue)) {
        if is_sound(&queue, &mark, reader) {
            queue.cut_front(&*shared.disk, reader.start());
        } else {
            damaged.push((queue, mark));
        }
    }
    recovery.repaired_queues = damaged.len();
    recovery.repaired_runs = gaps.len();
    Repair::new(damaged, gaps, to).run(shared)
}

/// Removes files of queues and runs that are not in use. What cannot be removed does no harm.
fn remove_leftovers(shared: &Shared) {
    let disk = &*shared.disk;
    for name in disk.list(QUEUE_DIR).unwrap_or_default() {
        let queues = TopicName::parse(&name).map(|topic| (shared.queues.of(&topic), topic_dir(&topic)));
        let Ok((queues, dir)) = queues else { continue };
        if queues.is_empty() {
            let _ = disk.remove_dir_all(&dir);
            continue;
        }
        for name in disk.list(&dir).unwrap_or_default() {
            if !queues.iter().any(|queue| queue.id.to_string() == name) {
                let _ = disk.remove_dir_all(&format!("{dir}/{name}"));
            }
        }
    }
    let runs: HashSet<String> = shared.keys.runs().iter().map(|run| run.extent.path()).collect();
    for name in disk.list(RUN_DIR).unwrap_or_default() {
        let path = format!("{RUN_DIR}/{name}");
        if !runs.contains(&path) {
            let _ = disk.remove(&path);
        }
    }
}
