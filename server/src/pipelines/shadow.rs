//! A version that is tried beside the live one: both run over the records of the source, on a thread of their own, and nothing of what
//! they make is kept. The live pipeline does not notice.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_model::{Kind, QueueId, Timestamp};
use sluice_runtime::{
    Compared, Counters, Difference, Fate, Observer, Record, Silent,
    ports::{Outgoing, Source},
    state::Engine,
};

use super::{
    queue::{Input, first},
    run::{not_opened, plan},
    spec::{Checked, parse_start},
    state::{self, Place},
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

/// Two versions of a pipeline.
pub(super) struct Pair {
    pub live: Checked,
    pub candidate: Checked,
}

/// What was compared so far.
#[derive(Clone, Debug)]
pub struct Report {
    pub since: Timestamp,
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
    /// Starts both versions, with nothing kept, where the live pipeline stands or where `start` says.
    ///
    /// Fails when a plugin does not start.
    pub fn start(shell: &Shell, pair: Pair, start: Option<&str>, place: &Place) -> Result<Self> {
        let logs = Arc::new(Logs::default());
        let report = Report {
            since: clock::now(),
            same: 0,
            different: 0,
            live: Counters::default(),
            candidate: Counters::default(),
            queues: Vec::new(),
            examples: Vec::new(),
            logs: Vec::new(),
        };
        let report = Arc::new(Mutex::new(report));
        let work = Work::open(shell.clone(), &pair, start, &logs, place, report.clone())?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("shadow {}", pair.live.spec.name))
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
    shell: Shell,
    queues: Vec<Queue>,
    report: Arc<Mutex<Report>>,
    /// The files of what is kept: gone when the comparison ends.
    files: Vec<PathBuf>,
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
        shell: Shell,
        pair: &Pair,
        start: Option<&str>,
        logs: &Arc<Logs>,
        place: &Place,
        report: Arc<Mutex<Report>>,
    ) -> Result<Self> {
        let start = start.map(|text| parse_start("start", text)).transpose()?;
        let topic = shell.reader.topic(&pair.live.topic)?;
        let count = topic.read_queues.max(topic.write_queues);
        let mut work = Self { shell, queues: Vec::new(), report, files: Vec::new() };
        let live = work.side(&pair.live, place, "live")?;
        let candidate = work.side(&pair.candidate, place, "candidate")?;
        for id in (0..count).map(QueueId) {
            let reader = &work.shell.reader;
            let known = reader.offset(&pair.live.group, &pair.live.topic, id).filter(|_| start.is_none());
            let from = match known {
                Some(known) => known,
                None => first(reader, &pair.live.topic, id, start.unwrap_or(pair.live.start))
                    .map_err(|error| Failure::new(Kind::Internal, error.to_string()))?,
            };
            let plan = |checked: &Checked, engine: &Option<Arc<Engine>>, observer: Arc<dyn Observer>| {
                let memory = checked.state_memory / count.max(1) as usize;
                let partition = engine.clone().map(|engine| state::alone(engine, id, memory)).transpose()?;
                Ok::<_, Failure>(plan(checked, id, observer, partition))
            };
            // What the live version logs is logged by the live pipeline.
            let live = plan(&pair.live, &live, Arc::new(Silent))?;
            let candidate = plan(&pair.candidate, &candidate, logs.clone())?;
            let shadow = sluice_runtime::Shadow::open(live, candidate, from.0).map_err(|error| not_opened(&error))?;
            let input = Input::new(&work.shell, &pair.live, id);
            work.queues.push(Queue { id, input, shadow, from: from.0, read: None, wait: None, stopped: None });
        }
        work.publish(Vec::new(), 0);
        Ok(work)
    }

    /// An empty file for what one version keeps, if it keeps anything.
    fn side(&mut self, checked: &Checked, place: &Place, side: &str) -> Result<Option<Arc<Engine>>> {
        if !checked.keeps_state {
            return Ok(None);
        }
        let file = place.beside(side);
        state::remove(&file);
        let engine = state::engine(&file)?;
        self.files.push(file);
        Ok(Some(engine))
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
            Err(reason) => {
                queue.stopped = Some(reason);
                return false;
            }
        };
        if next == queue.shadow.position() {
            return false;
        }
        let (id, count) = (queue.id, records.len() as u64);
        match queue.shadow.run(&records, next, u64::try_from(clock::now().0).unwrap_or(0)) {
            Compared::Whole(differences) => {
                queue.wait = None;
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

impl Drop for Work {
    fn drop(&mut self) {
        self.queues.clear();
        self.files.iter().for_each(|file| state::remove(file));
    }
}

impl Queue {
    fn read(&mut self) -> std::result::Result<(Vec<Record>, u64), String> {
        let mut records = Vec::new();
        let next = self.input.read(self.shadow.position(), BATCH_RECORDS, BATCH_BYTES, &mut records);
        next.map(|next| (records, next)).map_err(|error| error.to_string())
    }

    fn status(&self) -> ShadowQueue {
        let position = self.shadow.position();
        let lag = self.input.end().saturating_sub(position);
        ShadowQueue { queue: self.id, from: self.from, position, lag, stopped: self.stopped.clone() }
    }
}
