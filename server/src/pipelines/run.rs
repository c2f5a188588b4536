//! A running pipeline: one thread that turns the stages of all its queues in turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use sluice_broker::Token;
use sluice_model::{QueueId, TopicName};
use sluice_runtime::{Counters, Plan, Stage, StatePlan, Turn};

use super::{
    queue::{Input, Output},
    spec::Checked,
    state::{Place, States},
};
use crate::{clock, failure::Result, observer::Logs, shell::Shell};

/// Marks the tokens of pipelines among those of pulls.
const TOKENS: u64 = 1 << 63;
/// Records of one turn.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 1024 * 1024;
/// Longest sleep of an idle pipeline: new queues and lost wakes are found by then.
const IDLE: Duration = Duration::from_millis(500);

/// What a pipeline does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Running,
    Paused,
    /// With the reason.
    Stopped(String),
}

/// How one queue of a pipeline stands.
#[derive(Clone, Debug)]
pub struct QueueStatus {
    pub queue: QueueId,
    /// Offset that is read next.
    pub position: u64,
    /// Messages not read yet.
    pub lag: u64,
    pub counters: Counters,
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

/// A handle on the thread of a running pipeline. Dropping it stops the thread and waits for it.
pub struct Running {
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    queues: Arc<Mutex<Vec<QueueStatus>>>,
    states: Option<Arc<States>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Opens a stage a queue and starts the thread; fails when a plugin does not start.
    pub fn start(shell: Shell, checked: Checked, id: u32, logs: Arc<Logs>, place: &Place) -> Result<Self> {
        let (bell, stop) = (Arc::new(Bell::default()), checked.stopping.clone());
        let queues = Arc::new(Mutex::new(Vec::new()));
        let keeps =
            checked.keeps_state.then(|| States::open(shell.clone(), place, checked.state_memory)).transpose()?;
        let states = keeps.map(Arc::new);
        let state_topic = states.is_some().then(|| place.topic.clone());
        let its_states = states.clone();
        let stages = Vec::new();
        let mut work =
            Work { shell, checked, id, logs, stages, queues: queues.clone(), states: its_states, state_topic };
        work.open_queues()?;
        let (its_bell, its_stop) = (bell.clone(), stop.clone());
        let name = format!("pipeline {}", work.checked.spec.name);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || work.run(&its_bell, &its_stop))
            .map_err(|error| crate::failure::Failure::new(sluice_model::Kind::Busy, error.to_string()))?;
        Ok(Self { bell, stop, queues, states, thread: Some(thread) })
    }

    /// Has the thread stop behind the unit at hand; dropping the handle waits for that.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
    }

    pub fn wake(&self) {
        self.bell.ring();
    }

    pub fn queues(&self) -> Vec<QueueStatus> {
        self.queues.lock().clone()
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

struct Work {
    shell: Shell,
    checked: Checked,
    id: u32,
    logs: Arc<Logs>,
    stages: Vec<Queue>,
    queues: Arc<Mutex<Vec<QueueStatus>>>,
    states: Option<Arc<States>>,
    /// The topic that holds the changes of the state.
    state_topic: Option<TopicName>,
}

/// One queue of the source with its stage.
struct Queue {
    input: Input,
    output: Output,
    stage: Stage,
    next: Next,
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

impl Work {
    /// Opens a stage for every queue of the source that has none; a topic may have got more.
    fn open_queues(&mut self) -> Result<()> {
        let Ok(topic) = self.shell.reader.topic(&self.checked.topic) else { return Ok(()) };
        let count = topic.read_queues.max(topic.write_queues);
        if let Some(states) = self.states.as_ref().filter(|_| self.stages.len() < count as usize) {
            states.make_room(count)?;
        }
        for queue in (self.stages.len() as u32..count).map(QueueId) {
            let input = Input::new(&self.shell, &self.checked, queue);
            let mut output = Output::new(self.shell.clone(), &self.checked, queue, self.state_topic.clone());
            let lateness = self.checked.lateness;
            let partition = self.states.as_ref().map(|states| states.open_queue(queue, count)).transpose()?;
            let plan = Plan {
                pipeline: self.checked.spec.name.clone(),
                queue: queue.0,
                input_topic: self.checked.topic.to_string(),
                sinks: self.checked.spec.sinks.clone(),
                steps: self.checked.steps.clone(),
                policy: self.checked.policy.clone(),
                limits: self.checked.limits.clone(),
                batch_records: BATCH_RECORDS,
                batch_bytes: BATCH_BYTES,
                observer: self.logs.clone(),
                state: partition.map(|partition| StatePlan { partition, lateness }),
            };
            let stage = Stage::open(plan, &mut output)
                .map_err(|error| crate::failure::Failure::invalid("steps", error.to_string()))?;
            self.stages.push(Queue { input, output, stage, next: Next::Turn });
        }
        Ok(())
    }

    fn run(mut self, bell: &Bell, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            let mut busy = false;
            for at in 0..self.stages.len() {
                busy |= self.turn(at, stop);
            }
            self.publish();
            if !busy && !stop.load(Ordering::Acquire) {
                self.sleep(bell);
                if let Err(failure) = self.open_queues() {
                    tracing::warn!(pipeline = %self.checked.spec.name, %failure, "a new queue cannot be served");
                }
            }
        }
        self.publish();
        self.stages.into_iter().for_each(|of| of.stage.close(&of.output));
    }

    /// One turn of one queue, if it is its time; answers whether there may be more to do at once.
    fn turn(&mut self, at: usize, stop: &AtomicBool) -> bool {
        let Some(Queue { input, output, stage, next }) = self.stages.get_mut(at) else { return false };
        let due = match next {
            Next::Turn | Next::Idle => true,
            Next::Wait(until) => *until <= Instant::now(),
            Next::Never(_) => false,
        };
        if !due || stop.load(Ordering::Acquire) {
            return false;
        }
        let turn = stage.turn(input, output, now_ms());
        // Whoever sees that nothing is left to read sees what came of it as well.
        if matches!(turn, Turn::Progressed { .. })
            && output.lag() == 0
            && let Err(failure) = output.settle()
        {
            tracing::debug!(pipeline = %self.checked.spec.name, %failure, "what a stage made is not on disk yet");
        }
        *next = match turn {
            Turn::Idle => Next::Idle,
            Turn::Progressed { wait: None, .. } => Next::Turn,
            Turn::Progressed { wait: Some(wait), .. } | Turn::Wait(wait) => Next::Wait(Instant::now() + wait),
            Turn::Stopped(reason) => {
                tracing::error!(pipeline = %self.checked.spec.name, queue = %output.id(), reason, "a stage stopped");
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
        self.shell.reader.stop_waiting(&self.checked.topic, token);
    }

    fn token(&self) -> Token {
        Token(TOKENS | u64::from(self.id))
    }

    fn publish(&self) {
        let status = self.stages.iter().map(|of| QueueStatus {
            queue: of.output.id(),
            position: of.stage.position(),
            lag: of.output.lag(),
            counters: of.stage.counters(),
            stopped: match &of.next {
                Next::Never(reason) => Some(reason.clone()),
                _ => None,
            },
        });
        *self.queues.lock() = status.collect();
    }
}
