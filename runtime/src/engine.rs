use std::sync::Arc;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::sluice::plugin as imports;
use crate::error::{Error, Refusal};
use crate::gate::{self, CompilePool};
use crate::host::{self, State};
use crate::limits::Config;
use crate::manifest::Report;
use crate::plugin::Plugin;
use crate::ticker::Ticker;

/// Memory of a freed instance that stays resident for the next one, bytes.
const KEEP_RESIDENT: usize = 256 * 1024;

/// Core instances, and tables, of one component: its module, and those that join it to its imports.
const CORE_INSTANCES: u32 = 4;

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) config: Config,
    pub(crate) ticker: Ticker,
    pub(crate) compile_pool: Arc<CompilePool>,
}

/// The engine that compiles and runs plugins. Cloning gives another handle; the last one stops its thread.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) shared: Arc<Shared>,
}

impl Runtime {
    /// Starts the engine and its tick thread.
    ///
    /// # Errors
    /// [`Error::Engine`] if the address space for [`Config::instances`] is not to be had.
    pub fn new(config: Config) -> Result<Runtime, Error> {
        let engine = Engine::new(&settings(&config)).map_err(|e| Error::Engine(format!("{e:#}")))?;
        let ticking = engine.clone();
        let ticker = Ticker::start(move || ticking.increment_epoch()).map_err(|e| Error::Engine(e.to_string()))?;
        let compile_pool = CompilePool::open(config.compilers).map_err(|e| Error::Engine(e.to_string()))?;
        Ok(Runtime { shared: Arc::new(Shared { engine, config, ticker, compile_pool: Arc::new(compile_pool) }) })
    }

    /// The upload gate: compiles and checks a component, or a core module that carries its component type. What is accepted here
    /// starts; a config can still be refused, see [`Plugin::check_config`].
    ///
    /// `name_hint` names the upload in messages. Takes as long as the compilation, so call it off the hot threads.
    ///
    /// # Errors
    /// A [`Refusal`] with a stable code and what the author can do.
    pub fn load(&self, name_hint: &str, bytes: &[u8]) -> Result<(Plugin, Report), Refusal> {
        gate::admit(self, name_hint, bytes)
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn linker(&self, component: &Component) -> wasmtime::Result<Linker<State>> {
        let mut linker = Linker::new(&self.shared.engine);
        host::add_log_to_linker(&mut linker)?;
        imports::metrics::add_to_linker::<_, HasSelf<_>>(&mut linker, |s: &mut State| s)?;
        imports::context::add_to_linker::<_, HasSelf<_>>(&mut linker, |s: &mut State| s)?;
        imports::state::add_to_linker::<_, HasSelf<_>>(&mut linker, |s: &mut State| s)?;
        imports::timers::add_to_linker::<_, HasSelf<_>>(&mut linker, |s: &mut State| s)?;
        imports::lookup::add_to_linker::<_, HasSelf<_>>(&mut linker, |s: &mut State| s)?;
        imports::secrets::add_to_linker::<_, HasSelf<_>>(&mut linker, |s: &mut State| s)?;
        imports::http::add_to_linker::<_, HasSelf<_>>(&mut linker, |s: &mut State| s)?;
        crate::wasi::add_to_linker(&mut linker, component, &self.shared.engine)?;
        Ok(linker)
    }
}

fn settings(config: &Config) -> wasmtime::Config {
    let mut c = wasmtime::Config::new();
    // Concurrency support makes every call several times dearer; the contract is synchronous.
    c.concurrency_support(false)
        .wasm_component_model(true)
        .epoch_interruption(true)
        .wasm_memory64(false)
        // There is one memory for a component; `rewrite` relies on it.
        .wasm_multi_memory(false)
        .memory_init_cow(true)
        // A stack is told by its functions' names; places in them would make modules an eighth larger, and traps slower.
        .generate_address_map(false);
    let instances = config.instances;
    let core = instances.saturating_mul(CORE_INSTANCES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(core)
        .total_memories(instances)
        .total_tables(core)
        // Else one instance could take what many others are to have.
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_tables_per_component(CORE_INSTANCES)
        .max_memories_per_component(1)
        .max_memory_size(usize::try_from(config.memory).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(16 * 1024)
        .pagemap_scan(Enabled::Auto);
    c.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    c
}
