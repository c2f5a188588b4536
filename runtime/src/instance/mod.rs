mod alone;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Instance as WasmInstance;
use wasmtime::{PoolConcurrencyLimitError, Store, StoreContextMut, Trap, UpdateDeadline, WasmBacktrace};

use crate::batch::Batch;
use crate::bindings::exports::sluice::plugin as exports;
use crate::bindings::sluice::plugin::types as wit;
use crate::error::{Error, Failure, RefusalCode};
use crate::grants::NotNow;
use crate::host::{Context, DeadlineReached, Silent, State};
use crate::keep;
use crate::limits::Limits;
use crate::output::{self, Output, Verdict};
use crate::plugin::{Plugin, Program, Setup};
use crate::state::{self, Partition, Timer};
use crate::watch::Watch;

const MAX_STACK_LINES: usize = 16;
/// Bytes of a function's name in a stack.
const MAX_SYMBOL: usize = 4096;
/// Resources of the host that an instance may hold at a time: outputs, and clocks to wait for.
const MAX_HANDLES: usize = 1024;

/// A message whose producer did not say whether its transaction stands.
#[derive(Clone, Debug, Default)]
pub struct HalfMessage {
    pub transaction_id: String,
    pub topic: String,
    pub producer_group: String,
    pub key: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Producer's time, milliseconds since 1970.
    pub born_at: u64,
    pub attempt: u32,
    pub max_attempts: u32,
    /// Time of this check, milliseconds since 1970: what the plugin sees as now.
    pub now: u64,
}

/// What a checker says of a half message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Commit,
    /// With the reason.
    Rollback(String),
    Unknown,
    AskAgainAfter(Duration),
}

/// Longest wait that a checker may ask for; a longer one is shortened to it.
const MAX_ASK_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// A running plugin: one store of its own. After a [`Failure`] that [`Instance::is_dead`] confirms it is of no more use.
pub struct Instance {
    plugin: Plugin,
    store: Store<State>,
    filter: Option<exports::filter::Guest>,
    transform: Option<exports::transform::Guest>,
    process: Option<exports::process::Guest>,
    check: Option<exports::check_transaction::Guest>,
    /// A processor's name among those that keep state.
    keeps_as: String,
    dead: bool,
}

impl Instance {
    pub(crate) fn start(plugin: Plugin, setup: Setup, values: &[(String, String)]) -> Result<Instance, Error> {
        let program = &plugin.program;
        let name = plugin.manifest().name.clone();
        let keeps_as = setup.keeps_as.unwrap_or_else(|| name.clone());
        let watch = Watch::new(program.runtime.shared.ticker.clock());
        let mut state = State::new(program.digest.clone(), setup.context, setup.limits, setup.observer, watch);
        state.keep.lateness = setup.lateness;
        let mut store = new_store(program, state);
        let deadline = program.runtime.shared.config.start_deadline;
        let started = call(program, &mut store, deadline, |store| {
            let instance = program.pre.instantiate(&mut *store)?;
            let guest = program.exports.plugin.load(&mut *store, &instance)?;
            let values: Vec<(&str, &str)> = values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            Ok((instance, guest.call_configure(&mut *store, &values)?))
        });
        let (instance, answer) = match started {
            Ok(started) => started,
            Err(e) if e.is::<PoolConcurrencyLimitError>() => {
                return Err(Error::Full(program.runtime.shared.config.instances));
            }
            Err(e) => return Err(Error::Start { plugin: name, failure: explain(&store, deadline, &e) }),
        };
        if let Err(reason) = answer {
            return Err(Error::Configure { plugin: name, reason: output::short(reason, 4096) });
        }
        let loaded = load(program, &mut store, &instance);
        let Roles { filter, transform, process, check } =
            loaded.map_err(|e| Error::Start { plugin: name, failure: Failure::Nonsense(format!("{e:#}")) })?;
        store.data_mut().grants = setup.grants;
        Ok(Instance { plugin, store, filter, transform, process, check, keeps_as, dead: false })
    }

    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Whether an earlier failure ended it.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Bytes of its linear memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.store.data().memory.size
    }

    /// Asks a filter which records it keeps.
    ///
    /// # Errors
    /// A [`Failure`]; [`Failure::Nonsense`] as well if the plugin is no filter.
    pub fn filter(&mut self, batch: &Batch) -> Result<Verdict, Failure> {
        let Some(guest) = self.filter.take() else {
            return Err(Failure::Nonsense("this plugin is no filter".into()));
        };
        let answer = self.call_batch(batch, |store| guest.call_matches(store, batch.as_wit()));
        self.filter = Some(guest);
        let verdict = answer?.map_err(as_fault)?;
        output::check_verdict(verdict, batch.len()).map_err(Failure::Nonsense)
    }

    /// Asks a transformer for its output. `outputs` is how many outputs there are.
    ///
    /// # Errors
    /// A [`Failure`]; [`Failure::Nonsense`] as well if the plugin is no transformer.
    pub fn transform(&mut self, batch: &Batch, outputs: usize) -> Result<Output, Failure> {
        let Some(guest) = self.transform.take() else {
            return Err(Failure::Nonsense("this plugin is no transformer".into()));
        };
        let answer = self.call_batch(batch, |store| guest.call_apply(store, batch.as_wit()));
        self.transform = Some(guest);
        let raw = answer?.map_err(as_fault)?;
        let limits = &self.store.data().limits;
        output::check_output(raw, batch.len(), outputs, limits)
    }

    /// Lets a processor handle records. What it writes goes to the partition, which is away for so long.
    ///
    /// # Errors
    /// A [`Failure`]. Then, and when a record is named in the answer as failed, nothing of what the call wrote stays.
    pub(crate) fn process(
        &mut self,
        batch: &Batch,
        outputs: usize,
        home: &mut Option<Box<Partition>>,
    ) -> Result<Output, Failure> {
        let (count, deadline) = (batch.len(), self.store.data().limits.deadline);
        self.with_state(home, batch.newest(), |instance, guest| {
            let answer =
                instance.call(deadline, batch.time(), batch.seed(), |store| guest.call_apply(store, batch.as_wit()))?;
            let raw = answer.map_err(as_fault)?;
            output::check_output(raw, count, outputs, &instance.store.data().limits)
        })
    }

    /// Tells a processor that timers are due.
    ///
    /// # Errors
    /// As [`Instance::process`].
    pub(crate) fn on_timers(
        &mut self,
        due: &[Timer],
        now: u64,
        outputs: usize,
        home: &mut Option<Box<Partition>>,
    ) -> Result<Output, Failure> {
        let timers: Vec<_> = due.iter().map(keep::to_param).collect();
        let deadline = self.store.data().limits.deadline;
        // What a clock brings is no newer than what came before it.
        self.with_state(home, 0, |instance, guest| {
            instance.store.data_mut().keep.fired_at = Some(now);
            let answer = instance.call(deadline, now, now, |store| guest.call_on_timers(store, &timers))?;
            let raw = answer.map_err(as_fault)?;
            output::check_output(raw, due.len(), outputs, &instance.store.data().limits)
        })
    }

    /// Calls a processor with its state at hand. The call stands as a whole, and has seen records up to `newest`, or leaves no trace.
    fn with_state(
        &mut self,
        home: &mut Option<Box<Partition>>,
        newest: u64,
        call: impl FnOnce(&mut Self, &exports::process::Guest) -> Result<Output, Failure>,
    ) -> Result<Output, Failure> {
        let guest = self.process.take().ok_or_else(no_processor)?;
        let Some(mut partition) = home.take() else {
            self.process = Some(guest);
            return Err(Failure::State("it is away".into()));
        };
        if self.store.data().keep.stores.is_empty() {
            let declared = self.plugin.manifest().stores.iter().map(|store| {
                let number = partition.store(&state::store_name(&self.keeps_as, &store.name));
                (store.name.clone(), number)
            });
            let stores = declared.collect();
            let keep = &mut self.store.data_mut().keep;
            keep.stores = stores;
            keep.timers = partition.store(&state::timers_name(&self.keeps_as));
            keep.clock = partition.store(&state::clock_name(&self.keeps_as));
        }
        let mark = partition.begin_call();
        partition.watched_by(Some(self.store.data().watch.clone()));
        self.store.data_mut().keep.partition = Some(partition);
        let answer = call(self, &guest);
        self.process = Some(guest);
        let keep = &mut self.store.data_mut().keep;
        let Some(mut partition) = keep.partition.take() else {
            return Err(Failure::State("it is away".into()));
        };
        keep.fired_at = None;
        partition.watched_by(None);
        let stands = answer.as_ref().is_ok_and(|output| output.failed.is_empty());
        let settled = if stands { partition.advance(keep.clock, newest) } else { partition.take_back(mark) };
        *home = Some(partition);
        settled.map_err(|problem| Failure::State(problem.to_string()))?;
        answer
    }

    /// Asks a checker about a half message.
    ///
    /// # Errors
    /// A [`Failure`]; [`Failure::Check`] with the plugin's own words.
    pub fn check(&mut self, message: &HalfMessage) -> Result<Decision, Failure> {
        let Some(guest) = self.check.take() else {
            return Err(Failure::Nonsense("this plugin is no transaction checker".into()));
        };
        let headers: Vec<(&str, &str)> = message.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let half = exports::check_transaction::HalfMessage {
            transaction_id: &message.transaction_id,
            topic: &message.topic,
            producer_group: &message.producer_group,
            key: message.key.as_deref(),
            headers: &headers,
            body: &message.body,
            born_at: message.born_at,
            attempt: message.attempt,
            max_attempts: message.max_attempts,
        };
        let deadline = self.store.data().limits.check_deadline;
        let seed = message.now ^ u64::from(message.attempt);
        let answer = self.call(deadline, message.now, seed, |store| guest.call_check(store, half));
        self.check = Some(guest);
        use exports::check_transaction::Decision as Raw;
        match answer? {
            Ok(Raw::Commit) => Ok(Decision::Commit),
            Ok(Raw::Rollback(reason)) => Ok(Decision::Rollback(output::short(reason, 1024))),
            Ok(Raw::Unknown) => Ok(Decision::Unknown),
            Ok(Raw::AskAgainAfter(ms)) => Ok(Decision::AskAgainAfter(Duration::from_millis(ms).min(MAX_ASK_AGAIN))),
            Err(reason) => Err(Failure::Check(output::short(reason, 1024))),
        }
    }

    fn call_batch<R>(
        &mut self,
        batch: &Batch,
        f: impl FnOnce(&mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        let deadline = self.store.data().limits.deadline;
        self.call(deadline, batch.time(), batch.seed(), f)
    }

    fn call<R>(
        &mut self,
        deadline: Duration,
        now: u64,
        seed: u64,
        f: impl FnOnce(&mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        if self.dead {
            return Err(Failure::Dead);
        }
        let state = self.store.data_mut();
        state.now = now;
        state.wasi.seed(seed);
        let result = call(&self.plugin.program, &mut self.store, deadline, f);
        self.store.data_mut().audit_lookups();
        result.map_err(|e| {
            self.dead = true;
            explain(&self.store, deadline, &e)
        })
    }
}

fn no_processor() -> Failure {
    Failure::Nonsense("this plugin is no processor".into())
}

fn as_fault(fault: wit::Fault) -> Failure {
    let wit::Fault { action, code, reason } = fault;
    Failure::Fault { action, code: output::short(code, 64), reason: output::short(reason, 1024) }
}

struct Roles {
    filter: Option<exports::filter::Guest>,
    transform: Option<exports::transform::Guest>,
    process: Option<exports::process::Guest>,
    check: Option<exports::check_transaction::Guest>,
}

fn load(program: &Program, store: &mut Store<State>, instance: &WasmInstance) -> wasmtime::Result<Roles> {
    let exports = &program.exports;
    Ok(Roles {
        filter: exports.filter.as_ref().map(|e| e.load(&mut *store, instance)).transpose()?,
        transform: exports.transform.as_ref().map(|e| e.load(&mut *store, instance)).transpose()?,
        process: exports.process.as_ref().map(|e| e.load(&mut *store, instance)).transpose()?,
        check: exports.check.as_ref().map(|e| e.load(&mut *store, instance)).transpose()?,
    })
}

/// Instantiates with nothing granted and asks the plugin for its manifest.
pub(crate) fn describe(program: &Program) -> Result<wit::Manifest, (RefusalCode, String)> {
    let limits = Limits { memory: program.runtime.shared.config.memory, ..Limits::default() };
    let watch = Watch::new(program.runtime.shared.ticker.clock());
    let state = State::new(program.digest.clone(), Context::default(), limits, Arc::new(Silent), watch);
    let mut store = new_store(program, state);
    let deadline = program.runtime.shared.config.start_deadline;
    let instance = call(program, &mut store, deadline, |store| program.pre.instantiate(store))
        .map_err(|e| (RefusalCode::Instantiate, format!("does not instantiate: {}", explain(&store, deadline, &e))))?;
    let guest =
        program.exports.plugin.load(&mut store, &instance).map_err(|e| (RefusalCode::ExportType, format!("{e:#}")))?;
    load(program, &mut store, &instance).map_err(|e| (RefusalCode::ExportType, format!("{e:#}")))?;
    call(program, &mut store, deadline, |store| guest.call_describe(store))
        .map_err(|e| (RefusalCode::Describe, format!("describe: {}", explain(&store, deadline, &e))))
}

fn new_store(program: &Program, state: State) -> Store<State> {
    let output = usize::try_from(state.limits.output).unwrap_or(usize::MAX);
    let mut store = Store::new(&program.runtime.shared.engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(output);
    store.set_max_component_handles(MAX_HANDLES);
    store.epoch_deadline_callback(on_tick);
    store
}

/// The guest notices that the ticks it was given are over.
fn on_tick(store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    store.data().watch.next_look().map(UpdateDeadline::Continue).ok_or_else(|| DeadlineReached.into())
}

fn call<R>(
    program: &Program,
    store: &mut Store<State>,
    deadline: Duration,
    f: impl FnOnce(&mut Store<State>) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    let _ticking = program.runtime.shared.ticker.calling();
    store.data_mut().begin();
    let first_half = store.data().watch.begin(deadline);
    store.set_epoch_deadline(first_half);
    f(store)
}

fn explain(store: &Store<State>, deadline: Duration, error: &wasmtime::Error) -> Failure {
    let state = store.data();
    if let Some(problem) = &state.keep.broken {
        return Failure::State(problem.clone());
    }
    if error.is::<DeadlineReached>() {
        return Failure::Deadline { limit: deadline };
    }
    if let Some(NotNow(reason)) = error.downcast_ref() {
        return Failure::Unavailable(reason.clone());
    }
    if state.keep.too_much {
        return Failure::TooMuch { limit: state.limits.output };
    }
    let text = format!("{:#}", error.root_cause());
    if text.contains("hostcall fuel") || text.contains("too much data is being copied") {
        return Failure::TooMuch { limit: state.limits.output };
    }
    if state.memory.refused {
        return Failure::Memory { limit: state.limits.memory };
    }
    let message = match (&state.panic, error.downcast_ref::<Trap>()) {
        (Some(panic), _) => panic.clone(),
        (None, Some(trap)) => trap.to_string(),
        (None, None) => output::short(text, 1024),
    };
    Failure::Trap { message, stack: stack(error) }
}

fn stack(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let names = trace.frames().iter().filter_map(|frame| frame.func_name());
    names.take(MAX_STACK_LINES).map(|name| output::short(name.to_owned(), MAX_SYMBOL)).collect()
}
