//! The upload gate. Every check that can fail later is made here.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload};
use wasmtime::component::{Component, InstancePre};

use crate::bindings::exports::sluice::plugin as exports;
use crate::bounds;
use crate::engine::Runtime;
use crate::error::{Refusal, RefusalCode};
use crate::host::State;
use crate::instance;
use crate::limits::Compilers;
use crate::manifest::{Manifest, Report, Role};
use crate::packages;
use crate::plugin::{Exports, Plugin, Program};
use crate::rewrite;
use crate::wasi;

const CONTRACT: &str = "sluice:plugin/";
const VERSION: &str = "@0.3.0";
/// Interfaces of the contract that the host provides.
const GRANTED: [&str; 9] = ["types", "log", "metrics", "context", "state", "timers", "lookup", "secrets", "http"];
/// Uploads compiled at the same time.
const MAX_COMPILING: usize = 4;
/// How often a host is told that an upload is still being compiled.
const COMPILE_TICK: Duration = Duration::from_secs(1);
/// The compiler is recursive here and there.
const COMPILE_STACK: usize = 16 * 1024 * 1024;
const HOW: &str = "build it for wasm32-unknown-unknown with the guest SDK, or with any toolchain that makes components";

pub(crate) fn admit(runtime: &Runtime, hint: &str, bytes: &[u8]) -> Result<(Plugin, Report), Refusal> {
    let limit = runtime.shared.config.component;
    if bytes.len() as u64 > limit {
        let message = format!("{hint}: {} bytes, but a component may have at most {limit}", bytes.len());
        return Err(Refusal::new(RefusalCode::TooLarge, message));
    }
    let (its, name, bytes) = (runtime.clone(), hint.to_owned(), bytes.to_vec());
    on_compiler(runtime, hint, move || examine(&its, &name, bytes))
}

fn examine(runtime: &Runtime, hint: &str, bytes: Vec<u8>) -> Result<(Plugin, Report), Refusal> {
    let (digest, size) = (Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect::<String>(), bytes.len());
    let start = Instant::now();
    let component = compile(runtime, hint, bytes)?;
    let compile_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let imports = check_imports(runtime, hint, &component)?;
    let roles = check_roles(runtime, hint, &component)?;
    let pre = link(runtime, hint, &component)?;
    let exports = find_exports(hint, &pre, &roles)?;
    let mut program = Program {
        runtime: runtime.clone(),
        pre,
        exports,
        digest: digest.clone(),
        roles: roles.clone(),
        manifest: None,
    };
    let raw =
        instance::describe(&program).map_err(|(code, failure)| Refusal::new(code, format!("{hint}: {failure}")))?;
    let manifest =
        Manifest::check(raw).map_err(|e| Refusal::new(RefusalCode::Manifest, format!("{hint}: its manifest: {e}")))?;
    if !manifest.stores.is_empty() && !roles.contains(&Role::Process) {
        let message = format!("{hint}: its manifest: stores: only a plugin with the role process may have some");
        return Err(Refusal::new(RefusalCode::Manifest, message));
    }
    program.manifest = Some(manifest.clone());
    let plugin = Plugin { program: Arc::new(program) };
    Ok((plugin, Report { digest, roles, imports, size: size as u64, compile_ms, manifest }))
}

/// Makes it a component and compiles it.
fn compile(runtime: &Runtime, hint: &str, bytes: Vec<u8>) -> Result<Component, Refusal> {
    let refuse = |text: String| Refusal::new(RefusalCode::Invalid, format!("{hint}: does not compile: {text}"));
    bounds::check(&bytes).map_err(refuse)?;
    let bytes = rewrite::component(&as_component(hint, bytes)?).map_err(|e| refuse(format!("{e:#}")))?;
    Component::new(&runtime.shared.engine, bytes).map_err(|e| refuse(format!("{e:#}")))
}

/// A component as it is, or a core module with its component type made into one.
fn as_component(hint: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let refuse = |code, text: String| Err(Refusal::new(code, format!("{hint}: {text}")));
    if !bytes.starts_with(b"\0asm") {
        return refuse(RefusalCode::NotWasm, format!("not WebAssembly: it does not start with \\0asm; {HOW}"));
    }
    let encoding = match Parser::new(0).parse_all(&bytes).next() {
        Some(Ok(Payload::Version { encoding, .. })) => encoding,
        Some(Err(e)) => return refuse(RefusalCode::Invalid, format!("not valid WebAssembly: {e}")),
        _ => return refuse(RefusalCode::Invalid, "not valid WebAssembly: no header".into()),
    };
    if encoding == Encoding::Component {
        return Ok(bytes);
    }
    if !has_component_type(&bytes) {
        return refuse(
            RefusalCode::CoreModule,
            format!("a core module without a component type, not a component; {HOW}"),
        );
    }
    if let Err(problem) = packages::check(&bytes) {
        return refuse(RefusalCode::NotAComponent, format!("the core module cannot be made a component: {problem}"));
    }
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|mut encoder| encoder.encode());
    encoded.or_else(|e| {
        let text = format!("{e:#}");
        let hint = if text.contains("wasi_snapshot_preview1") {
            "; build for wasm32-unknown-unknown or wasm32-wasip2"
        } else {
            ""
        };
        refuse(RefusalCode::NotAComponent, format!("the core module cannot be made a component: {text}{hint}"))
    })
}

fn has_component_type(module: &[u8]) -> bool {
    Parser::new(0)
        .parse_all(module)
        .any(|payload| matches!(payload, Ok(Payload::CustomSection(section)) if section.name().starts_with("component-type")))
}

/// Where uploads are compiled: how many there are now, those that nobody waits for any more among them.
pub(crate) struct CompilePool {
    threads: ThreadPool,
    running: Mutex<usize>,
    freed: Condvar,
}

impl CompilePool {
    pub(crate) fn open(compilers: Compilers) -> Result<Self, ThreadPoolBuildError> {
        let threads = ThreadPoolBuilder::new()
            .num_threads(compilers.threads)
            .thread_name(|number| format!("compiler {number}"))
            .stack_size(COMPILE_STACK)
            .start_handler(move |_| (compilers.begin)())
            .exit_handler(move |_| (compilers.end)())
            // Whoever waits for what panicked finds that nobody will answer.
            .panic_handler(|_| ())
            .build()?;
        Ok(Self { threads, running: Mutex::default(), freed: Condvar::default() })
    }
}

/// One of the uploads that are compiled at the same time.
struct Compiling(Arc<CompilePool>);

impl Compiling {
    /// Waits until there is room.
    fn begin(pool: &Arc<CompilePool>, until: Instant) -> Option<Self> {
        let mut running = pool.running.lock();
        let full = |running: &mut usize| *running >= MAX_COMPILING;
        if pool.freed.wait_while_until(&mut running, full, until).timed_out() {
            return None;
        }
        *running += 1;
        Some(Self(Arc::clone(pool)))
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.freed.notify_one();
    }
}

/// Does what an upload needs on threads of their own: one made to compile for ever, or to break the compiler, costs the caller only the
/// timeout.
fn on_compiler<T: Send + 'static>(
    runtime: &Runtime,
    hint: &str,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let refuse = |code, text: String| Err(Refusal::new(code, format!("{hint}: {text}")));
    let (timeout, waiting) = (runtime.shared.config.compile_timeout, runtime.shared.config.compilers.waiting);
    let began = Instant::now();
    let until = began + timeout;
    let Some(compiling) = Compiling::begin(&runtime.shared.compile_pool, until) else {
        let seconds = timeout.as_secs();
        let text =
            format!("{MAX_COMPILING} others are being compiled, and none was done within {seconds} s; try again later");
        return refuse(RefusalCode::CompileTimeout, text);
    };
    waiting(Duration::ZERO);
    let (send, receive) = mpsc::sync_channel(1);
    runtime.shared.compile_pool.threads.spawn(move || {
        let done = work();
        drop(compiling);
        // The receiver may have stopped waiting; then nobody wants the result.
        let _ = send.send(done);
    });
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match receive.recv_timeout(left.min(COMPILE_TICK)) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Disconnected) => {
                return refuse(RefusalCode::Invalid, "the compiler broke down on it".into());
            }
            Err(RecvTimeoutError::Timeout) if left > COMPILE_TICK => waiting(began.elapsed()),
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("compiling took longer than {} s", timeout.as_secs());
                return refuse(RefusalCode::CompileTimeout, text);
            }
        }
    }
}

fn check_imports(runtime: &Runtime, hint: &str, component: &Component) -> Result<Vec<String>, Refusal> {
    let engine = &runtime.shared.engine;
    let names: Vec<String> = component.component_type().imports(engine).map(|(name, _)| name.to_owned()).collect();
    let granted =
        |name: &str| GRANTED.iter().any(|known| name == format!("{CONTRACT}{known}{VERSION}")) || wasi::is_known(name);
    let unknown: Vec<&str> = names.iter().map(String::as_str).filter(|name| !granted(name)).collect();
    if unknown.is_empty() {
        return Ok(names);
    }
    if let Some(other) = unknown.iter().find(|name| name.starts_with(CONTRACT)) {
        let message = format!(
            "{hint}: imports {other}, but this broker speaks {CONTRACT}*{VERSION}; build it with the SDK of this release"
        );
        return Err(Refusal::new(RefusalCode::ContractVersion, message));
    }
    let message = format!(
        "{hint}: imports {}, which no plugin is granted. Granted are sluice:plugin/{{{}}}{VERSION} and wasi:{{cli, io, clocks, random, \
         filesystem}}@0.2, without files",
        unknown.join(", "),
        GRANTED.join(", ")
    );
    Err(Refusal::new(RefusalCode::UnknownImport, message))
}

fn check_roles(runtime: &Runtime, hint: &str, component: &Component) -> Result<Vec<Role>, Refusal> {
    let engine = &runtime.shared.engine;
    let names: Vec<String> = component.component_type().exports(engine).map(|(name, _)| name.to_owned()).collect();
    let exported = |name: &str| names.iter().any(|n| *n == format!("{CONTRACT}{name}{VERSION}"));
    let other = names.iter().find(|name| name.starts_with(CONTRACT) && !name.ends_with(VERSION));
    if let Some(other) = other {
        let message = format!(
            "{hint}: exports {other}, but this broker speaks {CONTRACT}*{VERSION}; build it with the SDK of this release"
        );
        return Err(Refusal::new(RefusalCode::ContractVersion, message));
    }
    let all = [Role::Filter, Role::Transform, Role::Process, Role::CheckTransaction];
    let roles: Vec<Role> = all.into_iter().filter(|role| exported(role.as_str())).collect();
    if !exported("plugin") || roles.is_empty() {
        let has = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let message = format!(
            "{hint}: a plugin exports {CONTRACT}plugin{VERSION} and at least one of filter, transform, process, check-transaction; this one exports {has}"
        );
        return Err(Refusal::new(RefusalCode::NoRole, message));
    }
    Ok(roles)
}

fn link(runtime: &Runtime, hint: &str, component: &Component) -> Result<InstancePre<State>, Refusal> {
    let pre = runtime.linker(component).and_then(|linker| linker.instantiate_pre(component));
    pre.map_err(|e| Refusal::new(RefusalCode::ImportType, format!("{hint}: does not link: {e:#}")))
}

fn find_exports(hint: &str, pre: &InstancePre<State>, roles: &[Role]) -> Result<Exports, Refusal> {
    let refuse = |e: wasmtime::Error| Refusal::new(RefusalCode::ExportType, format!("{hint}: {e:#}"));
    let has = |role: Role| roles.contains(&role).then_some(());
    Ok(Exports {
        plugin: exports::plugin::GuestIndices::new(pre).map_err(refuse)?,
        filter: has(Role::Filter).map(|()| exports::filter::GuestIndices::new(pre)).transpose().map_err(refuse)?,
        transform: has(Role::Transform)
            .map(|()| exports::transform::GuestIndices::new(pre))
            .transpose()
            .map_err(refuse)?,
        process: has(Role::Process).map(|()| exports::process::GuestIndices::new(pre)).transpose().map_err(refuse)?,
        check: has(Role::CheckTransaction)
            .map(|()| exports::check_transaction::GuestIndices::new(pre))
            .transpose()
            .map_err(refuse)?,
    })
}
