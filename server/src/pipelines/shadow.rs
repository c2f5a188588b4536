//! A version that is tried beside the live one: both run over the records of the source, on a thread of their own, and nothing of what
//! they make is kept. The live pipeline does not notice.

use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_model::{Kind, QueueId, Timestamp};
use sluice_runtime::{
    Compared, Counters, Difference, Fate, Observer, Record, Silent, Sinks,
    ports::{Outgoing, PortError, Source},
    state::{Engine, Shared},
};

use super::{
    queue::{Input, ROOM, check, first, start_of},
    run::{not_opened, plan},
    share::{Share, Taken},
    spec::{Checked, Start, parse_start},
    state::{self, Place, States},
};
use crate::{
    clock,
    failure::{Failure, Result},
    observer::{Line, Logs},
    priority::{REST_LIMIT, Standing},
    shell::Shell,
};

/// Records that are compared at once.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 1024 * 1024;
/// Differences that are kept to be looked at: the first ones, since what follows may be of their making.
const EXAMPLES_LIMIT: usize = 20;
/// Outputs that each of them shows, and bytes of each part.
const EXAMPLE_OUTPUTS: usize = 4;
const EXAMPLE_BYTES: usize = 1_024;
/// Lines of the candidate that a report shows.
const LOG_LINES: usize = 100;
/// How often an idle shadow looks for new records.
const LOOK: Duration = Duration::from_millis(100);

/// Largest file of what a live version keeps that is copied for a shadow, bytes: the pipeline stands meanwhile.
const COPY_LIMIT: u64 = 256 * 1024 * 1024;

/// Two versions of a pipeline, and where they begin.
pub(super) struct Pair {
    pub live: Checked,
    pub candidate: Checked,
    /// Where they begin to read; where the live pipeline stands when left out.
    start: Option<Start>,
    kept: Option<Kept>,
    live_file: File,
    candidate_file: File,
}

/// What both versions begin with, when one of them keeps anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// What the live version keeps.
    Copied,
    Empty,
}

/// Where one side keeps what it keeps: gone when the comparison ends.
struct File(Place);

impl Drop for File {
    fn drop(&mut self) {
        self.0.remove_file();
    }
}

impl Pair {
    /// Copies what the live version keeps, whose file must not be open, if both are to begin where it stands and it is not too large.
    pub fn new(live: Checked, candidate: Checked, start: Option<&str>, place: &Place) -> Result<Self> {
        let start = start.map(|text| parse_start("start", text)).transpose()?;
        let size = std::fs::metadata(&place.file).map_or(0, |file| file.len());
        let copied = start.is_none() && live.keeps_state && size <= COPY_LIMIT;
        let file = |checked: &Checked, side: &str| {
            let file = File(Place { topic: place.topic.clone(), file: place.beside(side) });
            file.0.remove_file();
            if copied && checked.keeps_state && size > 0 {
                std::fs::copy(&place.file, &file.0.file).map_err(|error| not_copied(&error))?;
            }
            Ok::<_, Failure>(file)
        };
        let (live_file, candidate_file) = (file(&live, "live")?, file(&candidate, "candidate")?);
        let keeps = live.keeps_state || candidate.keeps_state;
        let kept = keeps.then_some(if copied { Kept::Copied } else { Kept::Empty });
        Ok(Self { live, candidate, start, kept, live_file, candidate_file })
    }
}

fn not_copied(error: &std::io::Error) -> Failure {
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let text = format!("what the live version keeps cannot be copied: {error}");
    Failure::new(if full { Kind::Full } else { Kind::Internal }, text)
}

/// What was compared so far.
#[derive(Clone, Debug)]
pub struct Report {
    pub since: Timestamp,
    /// What both began with; `None`: neither keeps anything.
    pub kept: Option<Kept>,
    /// Records that became the same in both, and those that did not.
    pub same: u64,
    pub different: u64,
    /// Of all queues together.
    pub live: Counters,
    pub candidate: Counters,
    pub queues: Vec<ShadowQueue>,
    pub examples: Vec<Example>,
    /// What the candidate's plugins logged lately.
    pub logs: Vec<Line>,
}

/// How far the comparison of one queue came.
#[derive(Clone, Debug)]
pub struct ShadowQueue {
    pub queue: QueueId,
    pub from: u64,
    pub position: u64,
    pub lag: u64,
    /// Why it goes no further, when it does not.
    pub stopped: Option<String>,
}

/// A record that became something else.
#[derive(Clone, Debug)]
pub struct Example {
    pub queue: QueueId,
    /// Of the record in its queue.
    pub offset: u64,
    pub live: Became,
    pub candidate: Became,
}

/// What a record became, as much of it as is worth keeping.
#[derive(Clone, Debug)]
pub struct Became {
    /// How many records, and the first of them, with the beginnings of their values and headers.
    pub count: usize,
    pub outputs: Vec<Outgoing>,
    /// The step that failed on it, the code and the reason.
    pub failed: Option<(String, String, String)>,
}

impl From<Fate> for Became {
    fn from(fate: Fate) -> Self {
        let brief = |bytes: &Bytes| Bytes::copy_from_slice(&bytes[..bytes.len().min(EXAMPLE_BYTES)]);
        let outputs = fate.outputs.iter().take(EXAMPLE_OUTPUTS).map(|out| {
            let Record { key, tag, headers, value, .. } = &out.record;
            let record = Record {
                key: key.as_ref().map(brief),
                tag: brief(tag),
                headers: brief(headers),
                value: brief(value),
                unreadable: None,
                ..out.record
            };
            Outgoing { record, sink: out.sink }
        });
        Self {
            count: fate.outputs.len(),
            outputs: outputs.collect(),
            failed: fate.failed.map(|dead| (dead.step, dead.code, dead.reason)),
        }
    }
}

/// A handle on the thread of a comparison. Dropping it stops the thread and waits for it.
pub(super) struct Shadow {
    stop: Option<mpsc::Sender<()>>,
    report: Arc<Mutex<Report>>,
    logs: Arc<Logs>,
    thread: Option<JoinHandle<()>>,
}

impl Shadow {
    /// Starts both versions. The live pipeline must be open, so that the log has all that it keeps, and must not have begun.
    ///
    /// Fails when a plugin does not start.
    pub fn start(shell: &Shell, share: &Arc<Share>, pair: Pair) -> Result<Self> {
        let logs = Arc::new(Logs::default());
        let report = Report {
            since: clock::now(),
            kept: pair.kept,
            same: 0,
            different: 0,
            live: Counters::default(),
            candidate: Counters::default(),
            queues: Vec::new(),
            examples: Vec::new(),
            logs: Vec::new(),
        };
        let report = Arc::new(Mutex::new(report));
        let name = format!("shadow {}", pair.live.spec.name);
        let work = Work::open(shell, share, pair, &logs, report.clone())?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || work.run(&stopped))
            .map_err(|error| Failure::new(Kind::Busy, error.to_string()))?;
        Ok(Self { stop: Some(stop), report, logs, thread: Some(thread) })
    }

    pub fn report(&self) -> Report {
        Report { logs: self.logs.lines.newest(LOG_LINES), ..self.report.lock().clone() }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.stop.take();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a comparison panicked");
        }
    }
}

struct Work {
    queues: Vec<Queue>,
    report: Arc<Mutex<Report>>,
    /// The files of what is kept.
    _files: [File; 2],
    _instances: Taken,
}

/// What one version keeps.
enum Side {
    Nothing,
    /// As the log has it.
    Copied(States),
    Empty(Arc<Engine>),
}

impl Side {
    fn open(shell: &Shell, checked: &Checked, file: &File, kept: Option<Kept>) -> Result<Self> {
        match kept.filter(|_| checked.keeps_state) {
            None => Ok(Self::Nothing),
            Some(Kept::Copied) => Ok(Self::Copied(States::open(shell.clone(), &file.0, checked.state_memory)?)),
            Some(Kept::Empty) => Ok(Self::Empty(state::engine(&file.0.file)?)),
        }
    }

    /// What it keeps of one of so many queues.
    fn partition(&self, checked: &Checked, queue: QueueId, count: u32) -> Result<Option<Shared>> {
        Ok(match self {
            Self::Nothing => None,
            Self::Copied(states) => Some(states.open_queue(queue, count)?),
            Self::Empty(engine) => {
                let memory = checked.state_memory / count.max(1) as usize;
                Some(state::alone(engine.clone(), queue, memory)?)
            }
        })
    }
}

/// One queue of the source.
struct Queue {
    id: QueueId,
    input: Input,
    shadow: sluice_runtime::Shadow,
    from: u64,
    /// What was read and is not compared yet, with the position behind it.
    read: Option<(Vec<Record>, u64)>,
    /// Not to be turned before.
    wait: Option<Instant>,
    stopped: Option<String>,
}

impl Work {
    fn open(
        shell: &Shell,
        share: &Arc<Share>,
        pair: Pair,
        logs: &Arc<Logs>,
        report: Arc<Mutex<Report>>,
    ) -> Result<Self> {
        let Pair { live, candidate, start, kept, live_file, candidate_file } = pair;
        let reader = &shell.reader;
        let topic = reader.topic(&live.topic)?;
        let count = topic.read_queues.max(topic.write_queues);
        let each = live.steps.len() + candidate.steps.len();
        let instances = share.take(&live.spec.name, count as usize * each)?;
        // Behind what is staged still, what the log says of positions and of what is kept is of one moment.
        shell.ask_blocking(|_, _| Ok(()))?;
        let live_side = Side::open(shell, &live, &live_file, kept)?;
        let candidate_side = Side::open(shell, &candidate, &candidate_file, kept)?;
        let new = start.unwrap_or_else(|| start_of(reader, &live));
        let mut queues = Vec::with_capacity(count as usize);
        for id in (0..count).map(QueueId) {
            let known = reader.offset(&live.group, &live.topic, id).filter(|_| start.is_none());
            let from = match known {
                Some(known) => known,
                None => first(reader, &live.topic, id, new)
                    .map_err(|error| Failure::new(Kind::Internal, error.to_string()))?,
            };
            let plan = |checked: &Checked, side: &Side, observer: Arc<dyn Observer>| {
                Ok::<_, Failure>(plan(checked, id, observer, side.partition(checked, id, count)?))
            };
            // What the live version logs is logged by the live pipeline.
            let plans = (plan(&live, &live_side, Arc::new(Silent))?, plan(&candidate, &candidate_side, logs.clone())?);
            let sinks = Sinks { room: ROOM, check };
            let shadow = sluice_runtime::Shadow::open(plans.0, plans.1, from.0, sinks);
            let shadow = shadow.map_err(|error| not_opened(&error))?;
            let input = Input::of_all_values(shell, &live, id);
            queues.push(Queue { id, input, shadow, from: from.0, read: None, wait: None, stopped: None });
        }
        let work = Self { queues, report, _files: [live_file, candidate_file], _instances: instances };
        work.publish(Vec::new(), 0);
        Ok(work)
    }

    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        let mut standing = Standing::back();
        loop {
            let (mut busy, wasted) = (false, self.wasted());
            for at in 0..self.queues.len() {
                if matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Disconnected)) {
                    return;
                }
                busy |= self.turn(at);
            }
            let wasted = self.wasted().saturating_sub(wasted);
            standing.wasted(wasted);
            let rest = standing.rest(wasted, REST_LIMIT);
            let rest = if busy { rest } else { rest.max(LOOK) };
            if !matches!(stopped.recv_timeout(rest), Err(mpsc::RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }

    /// Processor time of calls that came to nothing.
    fn wasted(&self) -> Duration {
        self.queues.iter().map(|of| of.shadow.wasted()).sum()
    }

    /// Compares some records of one queue; answers whether there may be more at once.
    fn turn(&mut self, at: usize) -> bool {
        let Some(queue) = self.queues.get_mut(at) else { return false };
        let waits = queue.wait.is_some_and(|until| until > Instant::now());
        if waits || queue.stopped.is_some() {
            return false;
        }
        let (records, next) = match queue.read.take().map_or_else(|| queue.read(), Ok) {
            Ok(read) => read,
            Err(PortError::Busy(_)) => return false,
            Err(PortError::Failed(reason)) => {
                queue.stopped = Some(reason);
                return false;
            }
        };
        if next == queue.shadow.position() {
            return false;
        }
        let id = queue.id;
        match queue.shadow.turn(&records, next, u64::try_from(clock::now().0).unwrap_or(0)) {
            Compared::On { records: count, differences } => {
                queue.wait = None;
                queue.read = (queue.shadow.position() < next).then_some((records, next));
                self.publish(differences.into_iter().map(|difference| (id, difference)).collect(), count);
                true
            }
            Compared::Wait(wait) => {
                queue.wait = Some(Instant::now() + wait);
                queue.read = Some((records, next));
                false
            }
            Compared::Stopped(reason) => {
                queue.stopped = Some(reason);
                self.publish(Vec::new(), 0);
                false
            }
        }
    }

    /// Adds what was compared, `count` records, to the report.
    fn publish(&self, differences: Vec<(QueueId, Difference)>, count: u64) {
        let mut report = self.report.lock();
        // Timers may differ where no record was.
        let different = differences.len() as u64;
        report.different += different;
        report.same += count.saturating_sub(different);
        let room = EXAMPLES_LIMIT - report.examples.len();
        let examples = differences.into_iter().take(room).map(|(queue, Difference { offset, live, candidate })| {
            Example { queue, offset, live: live.into(), candidate: candidate.into() }
        });
        report.examples.extend(examples);
        let counters: Vec<(Counters, Counters)> = self.queues.iter().map(|of| of.shadow.counters()).collect();
        report.live = counters.iter().map(|(live, _)| *live).sum();
        report.candidate = counters.iter().map(|(_, candidate)| *candidate).sum();
        report.queues = self.queues.iter().map(|of| of.status()).collect();
    }
}

impl Queue {
    fn read(&mut self) -> std::result::Result<(Vec<Record>, u64), PortError> {
        let mut records = Vec::new();
        let next = self.input.read(self.shadow.position(), BATCH_RECORDS, BATCH_BYTES, &mut records);
        next.map(|next| (records, next))
    }

    fn status(&self) -> ShadowQueue {
        let position = self.shadow.position();
        let lag = self.input.end().saturating_sub(position);
        ShadowQueue { queue: self.id, from: self.from, position, lag, stopped: self.stopped.clone() }
    }
}
