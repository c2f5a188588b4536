//! A running pipeline: one thread that turns the stages of all its queues in turn.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use sluice_broker::{Reader, Token};
use sluice_model::{Kind, QueueId, TopicName};
use sluice_runtime::{
    Begin, Counters, Error, Observer, Plan, Stage, StatePlan, StepStatus, Turn,
    ports::{Progress, Sink},
    state::Shared,
};

use super::{
    queue::{Input, Output, start_of},
    revision::Offsets,
    share::{Share, Taken},
    spec::{Checked, Start},
    state::{Place, States},
};
use crate::{
    audit::Holding,
    clock,
    failure::{Failure, Result},
    log_topic::LogTopic,
    observer::Logs,
    priority::{self, Courtesy, REST_LIMIT, Standing as Priority},
    shell::Shell,
};

/// Marks the tokens of pipelines among those of pulls.
const TOKENS: u64 = 1 << 63;
/// Longest sleep of an idle pipeline, so that lost wakes are found by then; how often one looks for new queues.
const IDLE: Duration = Duration::from_millis(500);
/// Longest time until a queue is tried again that could not be served; it doubles from [`IDLE`].
const UNSERVED: Duration = Duration::from_secs(5);

/// What a pipeline does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Running,
    Paused,
    /// With the reason.
    Stopped(String),
}

/// Which version runs where.
pub struct Versions {
    pub live: Checked,
    pub canary: Option<Canary>,
}

/// Another version in the place of the live one.
pub struct Canary {
    pub queues: Vec<u32>,
    pub revision: u64,
    /// Or why it does not run: then its queues stand, since what the live version would read there was not left to it.
    pub checked: Result<Checked>,
}

impl Versions {
    /// What runs in a queue; fails when that does not run.
    pub fn of(&self, queue: QueueId) -> Result<&Checked> {
        match self.canary_of(queue) {
            Some(canary) => canary.checked.as_ref().map_err(Failure::clone),
            None => Ok(&self.live),
        }
    }

    fn canary_of(&self, queue: QueueId) -> Option<&Canary> {
        self.canary.as_ref().filter(|canary| canary.queues.contains(&queue.0))
    }

    /// Why the canary does not run, when it does not.
    pub fn refused(&self) -> Option<&Failure> {
        self.canary.as_ref().and_then(|canary| canary.checked.as_ref().err())
    }

    /// What their plugins are granted.
    pub fn holdings(&self) -> Vec<Holding> {
        self.all().flat_map(|of| of.holdings.clone()).collect()
    }

    /// Those that run.
    pub fn all(&self) -> impl Iterator<Item = &Checked> {
        std::iter::once(&self.live).chain(self.canary.iter().filter_map(|canary| canary.checked.as_ref().ok()))
    }
}

/// How one queue of a pipeline stands.
#[derive(Clone, Debug)]
pub struct QueueStatus {
    pub queue: QueueId,
    /// Number of the revision that runs there.
    pub revision: u64,
    /// Offset that is read next.
    pub position: u64,
    /// Messages not read yet, as of when it was asked for.
    pub lag: u64,
    /// Messages that retention took before they were read, since the stage was started.
    pub lost: u64,
    pub counters: Counters,
    pub steps: Vec<StepStatus>,
    /// Why it stands still, when it does.
    pub stopped: Option<String>,
}

/// Wakes a sleeping pipeline.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    sound: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock() = true;
        self.sound.notify_one();
    }

    fn sleep(&self, most: Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.sound.wait_for(&mut rung, most);
        }
        *rung = false;
    }
}

/// What becomes of a pipeline of which a queue cannot be served when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// It is not opened.
    Refuse,
    /// The queue stands until it can be; the others are served.
    Wait,
}

/// A handle on the thread of a running pipeline. Dropping it stops the thread and waits for it.
pub struct Running {
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    /// It may begin.
    go: Arc<AtomicBool>,
    /// Tells the requests of its plugins that they are to end.
    stopping: Vec<Arc<AtomicBool>>,
    queues: Arc<Mutex<Vec<QueueStatus>>>,
    failure: Arc<OnceLock<Failure>>,
    reader: Reader,
    /// What it reads.
    topic: TopicName,
    states: Option<Arc<States>>,
    thread: Option<JoinHandle<()>>,
    /// Ends after the thread, whose lines it sends.
    _log_topic: Option<LogTopic>,
}

impl Running {
    /// Opens a stage a queue and starts the thread, which reads nothing before [`Self::go`].
    ///
    /// `from` says where stages begin whose positions are to be written down by then; without it each begins where its own is.
    pub fn open(
        (shell, share): (Shell, Arc<Share>),
        versions: Versions,
        (id, logs): (u32, Arc<Logs>),
        place: &Place,
        from: &Offsets,
        unserved: Unserved,
    ) -> Result<Self> {
        let bell = Arc::new(Bell::default());
        let (stop, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (queues, failure) = (Arc::new(Mutex::new(Vec::new())), Arc::new(OnceLock::new()));
        let stopping = versions.all().map(|of| of.stopping.clone()).collect();
        let memory = versions.all().filter(|of| of.keeps_state).map(|of| of.state_memory).max();
        let keeps = memory.map(|memory| States::open(shell.clone(), place, memory)).transpose()?;
        let states = keeps.map(Arc::new);
        let state_topic = states.is_some().then(|| place.topic.clone());
        let its_states = states.clone();
        let log_topic = versions
            .live
            .log_topic
            .clone()
            .zip(logs.outbox.clone())
            .map(|(topic, outbox)| LogTopic::start(shell.clone(), &versions.live.spec.name, topic, outbox));
        let log_topic = log_topic.transpose()?;
        let (reader, topic) = (shell.reader.clone(), versions.live.topic.clone());
        let mut work = Work {
            shell: shell.standing_back(),
            share,
            versions,
            id,
            logs,
            stages: Vec::new(),
            standing: Vec::new(),
            courtesy: Courtesy::default(),
            queues: queues.clone(),
            failure: failure.clone(),
            states: its_states,
            state_topic,
        };
        work.open_queues(from, unserved)?;
        work.publish();
        let (its_bell, its_stop, its_go) = (bell.clone(), stop.clone(), go.clone());
        let name = format!("pipeline {}", work.name());
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                while !its_go.load(Ordering::Acquire) && !its_stop.load(Ordering::Acquire) {
                    its_bell.sleep(IDLE);
                }
                work.run(&its_bell, &its_stop);
            })
            .map_err(|error| Failure::new(Kind::Busy, error.to_string()))?;
        let thread = Some(thread);
        Ok(Self { bell, stop, go, stopping, queues, failure, reader, topic, states, thread, _log_topic: log_topic })
    }

    /// Lets the thread begin.
    pub fn go(&self) {
        self.go.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Has the thread stop behind the unit at hand; dropping the handle waits for that.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.stopping.iter().for_each(|stopping| stopping.store(true, Ordering::Release));
        self.bell.ring();
    }

    pub fn wake(&self) {
        self.bell.ring();
    }

    pub fn queues(&self) -> Vec<QueueStatus> {
        let mut queues = self.queues.lock().clone();
        for of in &mut queues {
            of.lag = self.reader.bounds(&self.topic, of.queue).1.0.saturating_sub(of.position);
        }
        queues
    }

    /// Whether its thread ended though nobody stopped it: it panicked.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Why its thread ended, if it is to be opened anew.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// What its processors keep; `None`: it has none.
    pub fn states(&self) -> Option<Arc<States>> {
        self.states.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a pipeline panicked");
        }
    }
}

/// The pipeline that a token belongs to.
pub(super) fn pipeline_of(token: Token) -> Option<u32> {
    (token.0 & TOKENS != 0).then_some((token.0 & !TOKENS) as u32)
}

/// What the stage of one queue runs.
pub(super) fn plan(checked: &Checked, queue: QueueId, observer: Arc<dyn Observer>, partition: Option<Shared>) -> Plan {
    let lateness = checked.lateness;
    Plan {
        pipeline: checked.spec.name.clone(),
        queue: queue.0,
        input_topic: checked.topic.to_string(),
        sinks: checked.spec.sinks.clone(),
        steps: checked.steps.clone(),
        policy: checked.policy.clone(),
        limits: checked.limits.clone(),
        batch_records: Plan::BATCH_RECORDS,
        batch_bytes: Plan::BATCH_BYTES,
        observer,
        state: partition.map(|partition| StatePlan { partition, lateness }),
    }
}

/// Why a stage does not open.
pub(super) fn not_opened(error: &Error) -> Failure {
    Failure::not_started(error, |text| Failure::invalid("steps", text))
}

struct Work {
    shell: Shell,
    share: Arc<Share>,
    versions: Versions,
    id: u32,
    logs: Arc<Logs>,
    stages: Vec<Queue>,
    standing: Vec<Standing>,
    courtesy: Courtesy,
    queues: Arc<Mutex<Vec<QueueStatus>>>,
    failure: Arc<OnceLock<Failure>>,
    states: Option<Arc<States>>,
    /// The topic that holds the changes of the state.
    state_topic: Option<TopicName>,
}

/// One queue of the source with its stage.
struct Queue {
    input: Input,
    output: Output,
    stage: Stage,
    revision: u64,
    next: Next,
    _instances: Taken,
}

/// A queue of the source that is not served.
struct Standing {
    queue: QueueId,
    position: u64,
    revision: u64,
    reason: String,
    /// When it is tried again, and how long that took last; never where the version does not run.
    again: Option<(Instant, Duration)>,
}

impl Standing {
    fn is_due(&self) -> bool {
        self.again.is_some_and(|(at, _)| at <= Instant::now())
    }
}

/// What to do with a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    Turn,
    Idle,
    Wait(Instant),
    Never(String),
}

fn now_ms() -> u64 {
    u64::try_from(clock::now().0).unwrap_or(0)
}

/// Does nothing for so long, or until it is to stop.
fn rest(bell: &Bell, stop: &AtomicBool, time: Duration) {
    let until = Instant::now() + time;
    while !stop.load(Ordering::Acquire)
        && let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        bell.sleep(left);
    }
}

impl Work {
    fn name(&self) -> &str {
        &self.versions.live.spec.name
    }

    /// Opens a stage for every queue of the source that has none and is not to wait longer; a topic may have got more. `from` is that of
    /// [`Running::open`].
    fn open_queues(&mut self, from: &Offsets, unserved: Unserved) -> Result<()> {
        let Ok(topic) = self.shell.reader.topic(&self.versions.live.topic) else { return Ok(()) };
        let count = topic.read_queues.max(topic.write_queues);
        // One that came since the positions were taken is new to what is opened: it is opened behind them.
        let last = if from.is_empty() { count } else { count.min(from.len() as u32) };
        let waits = |of: &Standing| !of.is_due();
        let served = |queue: QueueId| {
            let stands = self.standing.iter().any(|of| of.queue == queue && waits(of));
            stands || self.stages.iter().any(|of| of.output.id() == queue)
        };
        let missing: Vec<QueueId> = (0..last).map(QueueId).filter(|queue| !served(*queue)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let start = start_of(&self.shell.reader, &self.versions.live);
        let room = self.states.as_ref().map_or(Ok(()), |states| states.make_room(count));
        for queue in missing {
            if let Some(Canary { revision, checked: Err(failure), .. }) = self.versions.canary_of(queue) {
                let (revision, reason) = (*revision, failure.text.clone());
                self.stand(queue, start, revision, reason, None)?;
                continue;
            }
            let opened = self.has_room(queue, &room).and_then(|()| self.open_queue(queue, count, start, from));
            match (opened, unserved) {
                (Ok(stage), _) => {
                    self.standing.retain(|of| of.queue != queue);
                    self.stages.push(stage);
                }
                (Err(failure), Unserved::Refuse) => return Err(failure),
                (Err(failure), Unserved::Wait) => self.wait(queue, start, failure.text)?,
            }
        }
        Ok(())
    }

    /// Whether there is a place for the changes of a queue's state, where one was to be made for all of them.
    fn has_room(&self, queue: QueueId, made: &Result<()>) -> Result<()> {
        let (Some(states), Err(_)) = (&self.states, made) else { return Ok(()) };
        if self.shell.reader.topic(&states.topic).is_ok_and(|topic| queue.0 < topic.write_queues) {
            // What was staged before is in the log, from which the state is read.
            return self.shell.ask_blocking(|_, _| Ok(()));
        }
        made.clone()
    }

    fn open_queue(&self, queue: QueueId, count: u32, start: Start, from: &Offsets) -> Result<Queue> {
        let checked = self.versions.of(queue)?;
        let instances = self.share.take(self.name(), checked.steps.len())?;
        let input = Input::new(&self.shell, checked, queue);
        let mut output = Output::new(self.shell.clone(), checked, queue, start, self.state_topic.clone());
        let partition = self.states.as_ref().map(|states| states.open_queue(queue, count)).transpose()?;
        let plan = plan(checked, queue, self.logs.clone(), partition.clone());
        let mut begin = from.get(&queue.0).map(|from| Begin(*from));
        let progress: &mut dyn Progress = begin.as_mut().map_or(&mut output, |begin| begin);
        let stage = Stage::open(plan, progress).map_err(|error| not_opened(&error))?;
        if let Some((states, partition)) = self.states.as_ref().zip(partition) {
            states.share(queue, partition);
        }
        Ok(Queue { input, output, stage, revision: checked.revision, next: Next::Turn, _instances: instances })
    }

    /// A queue that cannot be served now is tried again after a while.
    fn wait(&mut self, queue: QueueId, start: Start, reason: String) -> Result<()> {
        if let Some(known) = self.standing.iter_mut().find(|of| of.queue == queue) {
            let wait = known.again.map_or(IDLE, |(_, wait)| (wait * 2).min(UNSERVED));
            known.again = Some((Instant::now() + wait, wait));
            if known.reason != reason {
                tracing::warn!(pipeline = self.versions.live.spec.name, %queue, reason, "a queue is still not served");
                known.reason = reason;
            }
            return Ok(());
        }
        tracing::warn!(pipeline = self.name(), %queue, reason, "a queue cannot be served");
        let revision = self.versions.of(queue).map_or(0, |checked| checked.revision);
        self.stand(queue, start, revision, reason, Some((Instant::now() + IDLE, IDLE)))
    }

    fn stand(
        &mut self,
        queue: QueueId,
        start: Start,
        revision: u64,
        reason: String,
        again: Option<(Instant, Duration)>,
    ) -> Result<()> {
        let mut output = Output::new(self.shell.clone(), &self.versions.live, queue, start, None);
        let position = output.load().map_err(|error| not_opened(&error.into()))?;
        self.standing.push(Standing { queue, position, revision, reason, again });
        Ok(())
    }

    fn run(mut self, bell: &Bell, stop: &AtomicBool) {
        let mut standing = Priority::back();
        // Positions may have been written down since the stages were opened. What never began leaves none behind.
        for Queue { output, next, .. } in self.stages.iter_mut().filter(|_| !stop.load(Ordering::Acquire)) {
            if let Err(error) = output.load() {
                *next = Next::Never(error.to_string());
            }
        }
        let (mut looked, mut told) = (Instant::now(), None);
        while !stop.load(Ordering::Acquire) && !self.has_failed() {
            let mut busy = false;
            for at in 0..self.stages.len() {
                let before = self.wasted(at);
                busy |= self.turn(at, stop);
                let wasted = self.wasted(at).saturating_sub(before);
                standing.wasted(wasted);
                if !wasted.is_zero() {
                    self.publish();
                    rest(bell, stop, standing.rest(wasted, REST_LIMIT));
                }
            }
            self.publish();
            if !busy && !stop.load(Ordering::Acquire) {
                self.sleep(bell);
            }
            // Under load as well.
            if looked.elapsed() >= IDLE {
                looked = Instant::now();
                let failed = self.open_queues(&Offsets::new(), Unserved::Wait).err().map(|failure| failure.text);
                if let Some(reason) = failed.as_ref().filter(|_| failed != told) {
                    tracing::warn!(pipeline = self.name(), reason, "it cannot be told where a new queue begins");
                }
                told = failed;
            }
        }
        self.publish();
        if self.has_failed() {
            let stopped = self.queues.lock().iter().find_map(|queue| queue.stopped.clone());
            let reason = stopped.unwrap_or_else(|| "the state's file cannot be read or written".to_owned());
            let _ = self.failure.set(Failure::new(Kind::Unavailable, reason));
        }
        for Queue { stage, mut output, .. } in self.stages {
            stage.close(&mut output);
        }
        // Whoever looks into the state holds on to it, and must not hold on to its file.
        self.states.iter().for_each(|states| states.close());
    }

    /// Whether the state's file, which all queues have together, failed. It can be opened anew when all have let go of it.
    fn has_failed(&self) -> bool {
        self.states.as_ref().is_some_and(|states| states.have_failed())
    }

    /// Processor time of one queue's calls that came to nothing.
    fn wasted(&self, at: usize) -> Duration {
        self.stages.get(at).map_or(Duration::ZERO, |of| of.stage.wasted())
    }

    /// One turn of one queue, if it is its time; answers whether there may be more to do at once.
    fn turn(&mut self, at: usize, stop: &AtomicBool) -> bool {
        let pipeline = &self.versions.live.spec.name;
        let Some(Queue { input, output, stage, next, .. }) = self.stages.get_mut(at) else { return false };
        let due = match next {
            Next::Turn | Next::Idle => true,
            Next::Wait(until) => *until <= Instant::now(),
            Next::Never(_) => false,
        };
        if !due || stop.load(Ordering::Acquire) {
            return false;
        }
        let turn = if self.courtesy.gives_way() && self.shell.has_others() {
            let before = stage.counters();
            let turn = priority::aside(|| stage.turn(input, output, now_ms()));
            let Counters { busy, cpu, .. } = stage.counters();
            self.courtesy.worked(busy.saturating_sub(before.busy), cpu.saturating_sub(before.cpu));
            turn
        } else {
            stage.turn(input, output, now_ms())
        };
        // Whoever sees that nothing is left to read sees what came of it as well.
        if matches!(turn, Turn::Progressed { .. })
            && output.lag() == 0
            && let Err(problem) = output.settle()
        {
            tracing::debug!(pipeline, %problem, "what a stage made is not on disk yet");
        }
        *next = match turn {
            Turn::Idle => Next::Idle,
            Turn::Progressed { wait: None, .. } => Next::Turn,
            Turn::Progressed { wait: Some(wait), .. } | Turn::Wait(wait) => Next::Wait(Instant::now() + wait),
            Turn::Stopped(reason) => {
                tracing::error!(pipeline, queue = %output.id(), reason, "a stage stopped");
                // Without its file there is nowhere to save it to.
                if !self.states.as_ref().is_some_and(|states| states.have_failed()) {
                    stage.save(output);
                }
                Next::Never(reason)
            }
        };
        *next == Next::Turn
    }

    /// Sleeps until a message comes, a wait is over, or the handle says so.
    fn sleep(&self, bell: &Bell) {
        let token = self.token();
        let mut most = IDLE;
        for queue in &self.stages {
            match &queue.next {
                Next::Idle if !queue.output.wait(token) => return self.stop_waiting(token),
                Next::Wait(until) => most = most.min(until.saturating_duration_since(Instant::now())),
                _ => {}
            }
            if let (Next::Idle, Some(due)) = (&queue.next, queue.stage.next_timer()) {
                most = most.min(Duration::from_millis(due.saturating_sub(now_ms())));
            }
        }
        bell.sleep(most);
        self.stop_waiting(token);
    }

    fn stop_waiting(&self, token: Token) {
        self.shell.reader.stop_waiting(&self.versions.live.topic, token);
    }

    fn token(&self) -> Token {
        Token(TOKENS | u64::from(self.id))
    }

    fn publish(&self) {
        // What is left to read is counted when somebody asks.
        let stages = self.stages.iter().map(|of| QueueStatus {
            queue: of.output.id(),
            revision: of.revision,
            position: of.stage.position(),
            lag: 0,
            lost: of.input.lost(),
            counters: of.stage.counters(),
            steps: of.stage.steps(),
            stopped: match &of.next {
                Next::Never(reason) => Some(reason.clone()),
                _ => None,
            },
        });
        let standing = self.standing.iter().map(|of| QueueStatus {
            queue: of.queue,
            revision: of.revision,
            position: of.position,
            lag: 0,
            lost: 0,
            counters: Counters::default(),
            steps: Vec::new(),
            stopped: Some(of.reason.clone()),
        });
        let mut status: Vec<QueueStatus> = stages.chain(standing).collect();
        status.sort_by_key(|of| of.queue);
        *self.queues.lock() = status;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One whose thread ended: by a failure, or else it panicked.
    pub(in super::super) fn ended(shell: &Shell, failure: Option<Failure>) -> Running {
        let panics = failure.is_none();
        let thread = std::thread::spawn(move || assert!(!panics, "as a test wants it"));
        while !thread.is_finished() {
            std::thread::yield_now();
        }
        Running {
            bell: Arc::default(),
            stop: Arc::default(),
            go: Arc::default(),
            stopping: Vec::new(),
            queues: Arc::default(),
            failure: Arc::new(failure.map_or_else(OnceLock::new, OnceLock::from)),
            reader: shell.reader.clone(),
            topic: TopicName::parse("in").unwrap(),
            states: None,
            thread: Some(thread),
            _log_topic: None,
        }
    }
}
