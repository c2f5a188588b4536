//! Runs dead letters again: through their own pipeline's plugins to its own sinks, past everybody else who reads the source.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sluice_broker::{Fetch, Filter, StageUnit};
use sluice_model::{Kind, LogOffset, MessageId, Properties, QueueId, QueueOffset, RecordView, TopicName, limits};
use sluice_runtime::{
    Begin, Given, Plan, Policy, Record, Stage, Then, Turn,
    ports::{PortError, Portion, Room, Sink, Unfit, Unit},
};

use super::{super::Pipelines, DeadLetters, KIND, Marks};
use crate::{
    failure::{Failure, Result},
    observer::Logs,
    pipelines::{
        queue::{self, FAILURE_KEYS, Origin, ROOM, TIMER_KEY, dead_letter, outgoing, to_record, trouble},
        run::{Versions, plan},
        state::States,
    },
};

/// Most ids of one request.
pub const IDS_LIMIT: usize = 1_000;
/// Most letters that one request replays.
const REPLAY_LIMIT: u64 = 10_000;
/// Longest time of one request.
const REPLAY_TIME: Duration = Duration::from_secs(30);
/// How long a replay waits for a change of a pipeline.
const PATIENCE: Duration = Duration::from_secs(5);
/// Records of one turn: with every output that they may have, they are still one unit.
const BATCH_RECORDS: usize = 100;
const BATCH_BYTES: usize = 1024 * 1024;

/// Which letters are to be replayed.
#[derive(Clone, Debug)]
pub enum Which {
    /// All that wait; with a code, those that failed with it.
    All { code: Option<String> },
    /// These, whether they are dealt with or not when `again` says so.
    Ids { ids: Vec<String>, again: bool },
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Replay {
    pub which: Which,
    /// A version to run in the place of the pipeline's own of that plugin.
    pub plugin: Option<String>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub replayed: u64,
    pub sent: u64,
    /// Failed again.
    pub dead_lettered: u64,
    /// Wait now, with those that failed again.
    pub left: u64,
    /// Why it ended before everything was done.
    pub stopped: Option<String>,
}

impl Pipelines {
    /// The dead letters of a pipeline; fails with `NotFound`.
    pub fn dead_letters(&self, name: &str) -> Result<DeadLetters> {
        self.stored(name)?;
        DeadLetters::new(self.shell.clone(), name)
    }

    /// Runs dead letters of a pipeline again, as long as `go_on` says so.
    ///
    /// A letter of a pipeline that keeps something is run with what is kept of the queue that it came from, as it stands now, and what it
    /// changes there is in the unit as well.
    ///
    /// Fails with `Conflict` when the pipeline keeps something and does not run, or when a letter that is named is dealt with already.
    pub fn replay(&self, name: &str, replay: &Replay, go_on: impl Fn() -> bool) -> Result<Replayed> {
        self.stored(name)?;
        let _turn = self.dealing.turn(name)?;
        let Pinned { versions, logs, states } = self.pinned_with_states(name, replay.plugin.as_deref())?;
        let mut letters = self.dead_letters(name)?;
        letters.shell = letters.shell.standing_back();
        let until = Instant::now() + REPLAY_TIME;
        let marks = letters.begin()?;
        let mut run = Run { letters: &letters, versions: &versions, logs, states, marks, done: Replayed::default() };
        let go_on = || go_on() && Instant::now() < until;
        match &replay.which {
            Which::All { code } => run.all(code.as_deref(), &go_on)?,
            Which::Ids { ids, again } => run.these(letters.find(ids, *again)?, &go_on)?,
        }
        Ok(Replayed { left: letters.left()?, ..run.done })
    }

    /// What a pipeline runs, and what that keeps, at one moment: what one version made is not kept by the next. A change that comes later
    /// closes what is kept, and with it the replay ends.
    fn pinned_with_states(&self, name: &str, plugin: Option<&str>) -> Result<Pinned> {
        let text = || format!("pipeline \"{name}\" is being changed");
        let changing = self.changing.try_lock_for(PATIENCE);
        let _changing = changing.ok_or_else(|| Failure::new(Kind::Busy, text()))?;
        let (versions, logs) = self.pinned(name, plugin)?;
        let keeps_state = versions.all().any(|of| of.keeps_state);
        let states = keeps_state.then(|| self.states(name)).transpose()?;
        Ok(Pinned { versions, logs, states })
    }
}

/// What a pipeline runs.
struct Pinned {
    versions: Versions,
    logs: Arc<Logs>,
    /// What it keeps, if it does.
    states: Option<Arc<States>>,
}

/// A dead letter that is to be run again.
struct Letter {
    /// The message as it was, with the letter's own offset.
    record: Record,
    origin: Origin,
}

impl DeadLetters {
    /// The marks, which every queue's position agrees with: units begin from it.
    fn begin(&self) -> Result<Marks> {
        let marks = self.marks()?;
        let known = self.queues().map(|queue| self.position(queue).map(|position| position.0));
        if !known.eq(marks.0.iter().map(|dealt| Some(dealt.position()))) {
            self.put_marks(&marks)?;
        }
        Ok(marks)
    }

    /// The letters with these ids, in their order.
    pub(super) fn letters_with(&self, ids: &[String]) -> Result<Vec<(QueueId, QueueOffset, Bytes)>> {
        let letter = |(at, id): (usize, &String)| {
            let field = format!("ids[{at}]");
            let place = MessageId::parse(id)
                .map_err(|error| Failure::invalid(&field, format!("{field}: {error}, the id of a dead letter")))?
                .log_offset;
            self.letter_at(place).ok_or_else(|| {
                let text = format!("{field}: {id} is no dead letter of pipeline \"{}\"", self.pipeline);
                Failure { field: Some(field), ..Failure::new(Kind::NotFound, text) }
            })
        };
        ids.iter().enumerate().map(letter).collect()
    }

    /// The letters with these ids that can be replayed, by queue and offset.
    fn find(&self, ids: &[String], again: bool) -> Result<BTreeMap<(QueueId, u64), Bytes>> {
        let marks = self.marks()?;
        let mut found = BTreeMap::new();
        for ((at, id), (queue, offset, record)) in ids.iter().enumerate().zip(self.letters_with(ids)?) {
            let field = format!("ids[{at}]");
            if !again && marks.holds(queue, offset) {
                let text = format!("{field}: {id} was replayed or purged already; `again` replays it all the same");
                return Err(Failure { field: Some(field), ..Failure::new(Kind::Conflict, text) });
            }
            if RecordView::parse(&record)?.property(TIMER_KEY).is_some() {
                let text = format!("{field}: {id} is of a timer, no message of the source that could run again");
                return Err(Failure { field: Some(field), ..Failure::new(Kind::Conflict, text) });
            }
            found.insert((queue, offset.0), record);
        }
        Ok(found)
    }

    pub(super) fn too_scattered() -> Failure {
        let text = "too many dead letters between those that were dealt with wait still; replay or purge them first";
        Failure::new(Kind::Conflict, text)
    }

    fn letter_at(&self, place: LogOffset) -> Option<(QueueId, QueueOffset, Bytes)> {
        let record = self.reader().record_at(place).ok()?;
        let view = RecordView::parse(&record).ok().filter(|view| view.topic() == self.topic.as_str())?;
        let (queue, offset) = (view.queue(), view.queue_offset());
        // What retention took, or a deletion of the topic, may still stand in the log.
        (self.reader().log_offset(&self.topic, queue, offset) == Some(place)).then(|| (queue, offset, record.clone()))
    }
}

fn letter(record: &Bytes) -> Result<Letter> {
    let view = RecordView::parse(record)?;
    let number = |name| view.property(name).and_then(|text| text.parse::<u64>().ok());
    let [.., topic, queue, offset, tries] = FAILURE_KEYS;
    let origin = Origin {
        // What somebody else sent to the topic was read nowhere else.
        topic: view.property(topic).unwrap_or(view.topic()).to_owned(),
        queue: QueueId(number(queue).and_then(|queue| u32::try_from(queue).ok()).unwrap_or(view.queue().0)),
        offset: number(offset).unwrap_or(view.queue_offset().0),
        tries: number(tries).and_then(|tries| u32::try_from(tries).ok()).unwrap_or(0),
    };
    let own = view.own_properties().filter(|(name, _)| !FAILURE_KEYS.contains(name));
    let headers = Bytes::copy_from_slice(Properties::from_pairs(own)?.as_bytes());
    let record = to_record(&view, record).map_err(|error| Failure::new(Kind::Corrupt, error.to_string()))?;
    Ok(Letter { record: Record { headers, ..record }, origin })
}

/// One replay.
struct Run<'a> {
    letters: &'a DeadLetters,
    /// What runs a letter is what runs in the queue that it came from.
    versions: &'a Versions,
    logs: Arc<Logs>,
    /// What the pipeline keeps, if it does.
    states: Option<Arc<States>>,
    marks: Marks,
    done: Replayed,
}

/// The stages of one queue of dead letters, by the queue that the letters came from.
type Stages = BTreeMap<QueueId, Stage>;

impl Run<'_> {
    /// Letters that wait now, in order. Those that fail again are behind them, and are not met.
    fn all(&mut self, code: Option<&str>, go_on: &dyn Fn() -> bool) -> Result<()> {
        for queue in self.letters.queues() {
            let end = self.letters.end(queue);
            let mut at = self.marks.next_open(queue, QueueOffset(0)).0;
            let mut stages = Stages::new();
            while at < end && self.goes_on(go_on) {
                let (chosen, next) = self.read(queue, at, end, code)?;
                if !chosen.is_empty() {
                    self.run(queue, &mut stages, chosen, go_on)?;
                }
                at = self.marks.next_open(queue, QueueOffset(next)).0;
            }
        }
        Ok(())
    }

    fn these(&mut self, found: BTreeMap<(QueueId, u64), Bytes>, go_on: &dyn Fn() -> bool) -> Result<()> {
        let mut by_queue: BTreeMap<QueueId, VecDeque<Bytes>> = BTreeMap::new();
        for ((queue, _), record) in found {
            by_queue.entry(queue).or_default().push_back(record);
        }
        for (queue, mut records) in by_queue {
            let mut stages = Stages::new();
            while !records.is_empty() && self.goes_on(go_on) {
                let mut bytes = 0;
                let mut chosen = VecDeque::new();
                while chosen.len() < BATCH_RECORDS
                    && bytes < BATCH_BYTES
                    && let Some(record) = records.pop_front()
                {
                    let letter = letter(&record)?;
                    bytes += letter.record.size();
                    chosen.push_back(letter);
                }
                self.run(queue, &mut stages, chosen, go_on)?;
            }
        }
        Ok(())
    }

    /// Whether there is more to be done; if not, it is noted why.
    fn goes_on(&mut self, go_on: &dyn Fn() -> bool) -> bool {
        if self.done.stopped.is_none() && self.done.replayed >= REPLAY_LIMIT {
            self.done.stopped = Some(format!("one request replays {REPLAY_LIMIT} dead letters; ask again for more"));
        } else if self.done.stopped.is_none() && !go_on() {
            self.done.stopped = Some("it took too long for one request, or the server stops; ask again".to_owned());
        }
        self.done.stopped.is_none()
    }

    /// Some letters from `at` on that wait, and where to go on.
    fn read(&self, queue: QueueId, at: u64, end: u64, code: Option<&str>) -> Result<(VecDeque<Letter>, u64)> {
        let fetch = Fetch {
            topic: self.letters.topic.clone(),
            queue,
            from: QueueOffset(at),
            max_messages: BATCH_RECORDS as u32,
            max_bytes: BATCH_BYTES.min(limits::PULL_BYTES),
            filter: Filter::All,
        };
        let fetched = self.letters.reader().fetch(&fetch)?;
        let (mut chosen, mut bytes) = (VecDeque::new(), 0);
        for piece in &fetched.records {
            let mut from = 0;
            while from < piece.len() {
                let view = RecordView::parse(&piece[from..])?;
                let record = piece.slice(from..from + view.bytes().len());
                from += record.len();
                let offset = view.queue_offset();
                let wanted = code.is_none_or(|code| view.property(FAILURE_KEYS[0]) == Some(code));
                if wanted && view.property(TIMER_KEY).is_none() && offset.0 < end && !self.marks.holds(queue, offset) {
                    // What was compressed counts with what it becomes.
                    if bytes >= BATCH_BYTES {
                        return Ok((chosen, offset.0));
                    }
                    let letter = letter(&record)?;
                    bytes += letter.record.size();
                    chosen.push_back(letter);
                }
            }
        }
        // A queue that was shortened meanwhile has nothing more.
        let next = if fetched.next.0 > at { fetched.next.0 } else { end };
        Ok((chosen, next))
    }

    /// Runs some letters of one queue through the chain, those from one queue of the source after those from another.
    fn run(
        &mut self,
        queue: QueueId,
        stages: &mut Stages,
        letters: VecDeque<Letter>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut by_source: BTreeMap<QueueId, Vec<Letter>> = BTreeMap::new();
        for letter in letters {
            by_source.entry(letter.origin.queue).or_default().push(letter);
        }
        for (source, letters) in by_source {
            let (Some(first), Some(last)) = (letters.first(), letters.last()) else { continue };
            let (begin, end) = (first.record.offset, last.record.offset + 1);
            let stage = match stages.entry(source) {
                Entry::Occupied(stage) => stage.into_mut(),
                Entry::Vacant(place) => place.insert(self.open(source, begin)?),
            };
            let (records, origins): (Vec<Record>, BTreeMap<u64, Origin>) =
                letters.into_iter().map(|Letter { record, origin }| (record.clone(), (record.offset, origin))).unzip();
            let state = self.states.as_ref().map(|states| (states.topic.clone(), source));
            let marks = self.marks.clone();
            let sinks = &self.versions.of(source)?.sinks;
            let mut outbox = Outbox { letters: self.letters, sinks, queue, state, marks, origins };
            let before = stage.counters();
            while stage.position() < end && self.goes_on(go_on) {
                // Timers are the pipeline's own business: at this time none is due.
                match stage.turn(&mut Given { records: &records, next: end }, &mut outbox, 0) {
                    Turn::Progressed { .. } => {}
                    Turn::Wait(wait) => std::thread::sleep(wait),
                    Turn::Idle => break,
                    Turn::Stopped(reason) => self.done.stopped = Some(reason),
                }
            }
            self.marks = outbox.marks;
            let after = stage.counters();
            self.done.replayed += after.read - before.read;
            self.done.sent += after.sent - before.sent;
            self.done.dead_lettered += after.dead_lettered - before.dead_lettered;
        }
        Ok(())
    }

    /// The chain for letters that came from a queue of the source.
    fn open(&self, source: QueueId, begin: u64) -> Result<Stage> {
        let partition = self.states.as_ref().map(|states| states.partition(source)).transpose()?;
        let plan = Plan {
            // Whoever replays is the one who tries again.
            policy: Policy { retries: 0, backoff: Duration::ZERO, then: Then::DeadLetter },
            batch_records: BATCH_RECORDS,
            batch_bytes: BATCH_BYTES,
            ..plan(self.versions.of(source)?, source, self.logs.clone(), partition)
        };
        Stage::open(plan, &mut Begin(begin))
            .map_err(|error| Failure::not_started(&error, |text| Failure::new(Kind::Conflict, text)))
    }
}

/// Where a replay writes.
struct Outbox<'a> {
    letters: &'a DeadLetters,
    sinks: &'a [TopicName],
    queue: QueueId,
    /// Where the changes of what is kept are held.
    state: Option<(TopicName, QueueId)>,
    marks: Marks,
    /// Of the letters that are not done with.
    origins: BTreeMap<u64, Origin>,
}

impl Outbox<'_> {
    fn origin(&self, offset: u64) -> std::result::Result<&Origin, PortError> {
        self.origins.get(&offset).ok_or_else(|| PortError::Failed(format!("offset {offset} was not asked for")))
    }
}

impl Sink for Outbox<'_> {
    fn commit(&mut self, unit: Unit) -> std::result::Result<(), PortError> {
        let (mut seen, mut outputs) = (None, Vec::with_capacity(unit.outputs.len() + unit.dead_letters.len()));
        for out in &unit.outputs {
            let queue = self.origin(out.record.offset)?.queue;
            outputs.push(outgoing(&self.letters.of, self.sinks, queue, out, &mut seen)?);
        }
        for dead in &unit.dead_letters {
            let before = self.origin(dead.record.offset)?;
            let origin = Origin { tries: before.tries.saturating_add(dead.tries), ..before.clone() };
            outputs.push(dead_letter(self.letters.topic.clone(), dead, &origin)?);
        }
        let mut marks = self.marks.clone();
        let Some(dealt) = marks.0.get_mut(self.queue.0 as usize) else {
            return Err(PortError::Failed(format!("queue {} of the dead letters is gone", self.queue)));
        };
        let from = QueueOffset(dealt.position());
        dealt.add(self.origins.range(..unit.position).map(|(offset, _)| (*offset, offset + 1)));
        if dealt.is_full() {
            return Err(PortError::Failed(DeadLetters::too_scattered().text));
        }
        let next = QueueOffset(dealt.position());
        let document = marks.document().map_err(|failure| trouble(&failure))?;
        let staged = StageUnit {
            group: self.letters.group.clone(),
            topic: self.letters.topic.clone(),
            queue: self.queue,
            from,
            next,
            outputs,
            state: self.state.clone().zip(unit.state).map(|((topic, queue), change)| (topic, queue, change)),
            document: Some((KIND, self.letters.pipeline.clone(), document)),
        };
        let (of, with_dead_letters) = (self.letters.of.clone(), !unit.dead_letters.is_empty());
        let committed = self.letters.shell.ask_blocking(move |broker, now| {
            if with_dead_letters {
                broker.dead_letter_topic(&of, now)?;
            }
            broker.commit_stage(staged, now)
        });
        committed.map_err(|failure| trouble(&failure))?;
        self.marks = marks;
        self.origins = self.origins.split_off(&unit.position);
        Ok(())
    }

    fn room(&self) -> Room {
        ROOM
    }

    fn portion(&mut self) -> Portion {
        self.letters.shell.portion()
    }

    fn check(&self, record: &Record) -> std::result::Result<(), Unfit> {
        queue::check(record)
    }

    fn durable_changes(&self) -> u64 {
        let durable = |(topic, queue): &(TopicName, QueueId)| States::durable(self.letters.reader(), topic, *queue);
        self.state.as_ref().map_or(0, durable)
    }
}
