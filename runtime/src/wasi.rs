//! The few WASI 0.2 interfaces that other toolchains' components import.
//!
//! Output goes to the plugin's log, clocks answer the batch's time, randomness is seeded by the batch, and there are no files, no
//! arguments and no environment. Anything else that these interfaces declare traps when it is called; other interfaces are refused
//! at upload.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime::{Engine, Result, StoreContextMut, bail};

use crate::host::{Level, State};

const KNOWN: [&str; 19] = [
    "cli/environment",
    "cli/exit",
    "cli/stdin",
    "cli/stdout",
    "cli/stderr",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "cli/terminal-stderr",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "filesystem/preopens",
    "filesystem/types",
    "io/error",
    "io/poll",
    "io/streams",
    "random/random",
    "random/insecure-seed",
];
const INSECURE: &str = "random/insecure";
/// A line of output is logged when it ends or reaches this many bytes.
const MAX_LINE: usize = 4096;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
/// Largest request for random bytes.
const MAX_RANDOM: u64 = 1 << 20;

/// `wasi:cli/stdout@0.2.6` to `cli/stdout`, if it is one of ours.
fn known(import: &str) -> Option<&str> {
    let (name, version) = import.strip_prefix("wasi:")?.split_once('@')?;
    let ours = version.starts_with("0.2.") && (KNOWN.contains(&name) || name == INSECURE);
    ours.then_some(name)
}

pub(crate) fn is_known(import: &str) -> bool {
    known(import).is_some()
}

/// The WASI side of one instance.
#[derive(Default)]
pub(crate) struct Wasi {
    out: Vec<u8>,
    err: Vec<u8>,
    random: u64,
}

impl Wasi {
    pub(crate) fn seed(&mut self, seed: u64) {
        self.random = seed;
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl State {
    fn print(&mut self, stream: u32, bytes: &[u8]) {
        let mut line = std::mem::take(self.unfinished(stream));
        let mut rest = bytes;
        // Past the deadline nobody reads on: the guest ends as soon as it goes on.
        while !rest.is_empty() && !self.watch.is_over() {
            let room = &rest[..rest.len().min(MAX_LINE - line.len())];
            let end = room.iter().position(|b| *b == b'\n');
            let taken = end.map_or(room.len(), |end| end + 1);
            line.extend_from_slice(&room[..taken]);
            rest = &rest[taken..];
            if end.is_some() || line.len() == MAX_LINE {
                self.print_line(stream, &line);
                line.clear();
            }
        }
        *self.unfinished(stream) = line;
    }

    /// What was printed since the last end of a line.
    fn unfinished(&mut self, stream: u32) -> &mut Vec<u8> {
        if stream == STDERR { &mut self.wasi.err } else { &mut self.wasi.out }
    }

    fn print_line(&mut self, stream: u32, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if stream == STDERR && text.contains("panicked at") {
            self.panic = Some(crate::output::short(text.to_owned(), 1024));
        }
        let level = if stream == STDERR { Level::Warn } else { Level::Info };
        self.log(level, text, &[]);
    }
}

struct OutputStream;
struct InputStream;
struct IoError;
struct Pollable;
struct Descriptor;
struct DirectoryStream;
struct TerminalInput;
struct TerminalOutput;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

type Ctx<'a> = StoreContextMut<'a, State>;
type Stream<T> = std::result::Result<T, StreamError>;

pub(crate) fn add_to_linker(linker: &mut Linker<State>, component: &Component, engine: &Engine) -> Result<()> {
    let mut any = false;
    for (import, extern_) in component.component_type().imports(engine) {
        let Some(name) = known(import) else { continue };
        any = true;
        let ComponentItem::ComponentInstance(instance) = &extern_.ty else { continue };
        let has = |item: &str| instance.exports(engine).any(|(export, _)| export == item);
        let mut linked = linker.instance(import)?;
        resources(&mut linked, &has)?;
        add(&mut linked, name, &has)?;
    }
    // What is not answered above is denied when it is called. Imports outside WASI were refused before.
    if any { linker.define_unknown_imports_as_traps(component) } else { Ok(()) }
}

fn add(i: &mut LinkerInstance<'_, State>, name: &str, has: &dyn Fn(&str) -> bool) -> Result<()> {
    match name {
        "cli/environment" => {
            i.func_wrap("get-environment", |_: Ctx<'_>, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
            i.func_wrap("get-arguments", |_: Ctx<'_>, (): ()| Ok((Vec::<String>::new(),)))?;
            i.func_wrap("initial-cwd", |_: Ctx<'_>, (): ()| Ok((None::<String>,)))
        }
        "cli/exit" => i.func_wrap("exit", |_: Ctx<'_>, (_,): (std::result::Result<(), ()>,)| -> Result<()> {
            bail!("the plugin called exit")
        }),
        "cli/stdin" => i.func_wrap("get-stdin", |_: Ctx<'_>, (): ()| Ok((Resource::<InputStream>::new_own(0),))),
        "cli/stdout" => {
            i.func_wrap("get-stdout", |_: Ctx<'_>, (): ()| Ok((Resource::<OutputStream>::new_own(STDOUT),)))
        }
        "cli/stderr" => {
            i.func_wrap("get-stderr", |_: Ctx<'_>, (): ()| Ok((Resource::<OutputStream>::new_own(STDERR),)))
        }
        "cli/terminal-input" | "cli/terminal-output" | "filesystem/types" => Ok(()),
        "cli/terminal-stdin" => no_terminal::<TerminalInput>(i, "get-terminal-stdin"),
        "cli/terminal-stdout" => no_terminal::<TerminalOutput>(i, "get-terminal-stdout"),
        "cli/terminal-stderr" => no_terminal::<TerminalOutput>(i, "get-terminal-stderr"),
        "clocks/monotonic-clock" => monotonic_clock(i, has),
        "clocks/wall-clock" => wall_clock(i),
        "filesystem/preopens" => {
            i.func_wrap("get-directories", |_: Ctx<'_>, (): ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),)))
        }
        "io/error" => i.func_wrap("[method]error.to-debug-string", |_: Ctx<'_>, (_,): (Resource<IoError>,)| {
            Ok(("closed".to_owned(),))
        }),
        "io/poll" => poll(i, has),
        "io/streams" => streams(i, has),
        "random/random" | "random/insecure" => random(i, name),
        _ => i.func_wrap("insecure-seed", |mut cx: Ctx<'_>, (): ()| {
            let wasi = &mut cx.data_mut().wasi;
            Ok(((wasi.next_random(), wasi.next_random()),))
        }),
    }
}

/// Every interface that mentions a resource exports it again, so each must be given the same type.
fn resources(i: &mut LinkerInstance<'_, State>, has: &dyn Fn(&str) -> bool) -> Result<()> {
    let types = [
        ("error", ResourceType::host::<IoError>()),
        ("pollable", ResourceType::host::<Pollable>()),
        ("input-stream", ResourceType::host::<InputStream>()),
        ("output-stream", ResourceType::host::<OutputStream>()),
        ("descriptor", ResourceType::host::<Descriptor>()),
        ("directory-entry-stream", ResourceType::host::<DirectoryStream>()),
        ("terminal-input", ResourceType::host::<TerminalInput>()),
        ("terminal-output", ResourceType::host::<TerminalOutput>()),
    ];
    for (name, ty) in types {
        if has(name) {
            i.resource(name, ty, |_, _| Ok(()))?;
        }
    }
    Ok(())
}

fn no_terminal<T: 'static>(i: &mut LinkerInstance<'_, State>, name: &str) -> Result<()> {
    i.func_wrap(name, |_: Ctx<'_>, (): ()| Ok((None::<Resource<T>>,)))
}

fn monotonic_clock(i: &mut LinkerInstance<'_, State>, has: &dyn Fn(&str) -> bool) -> Result<()> {
    i.func_wrap("now", |cx: Ctx<'_>, (): ()| Ok((cx.data().now.saturating_mul(1_000_000),)))?;
    i.func_wrap("resolution", |_: Ctx<'_>, (): ()| Ok((1_000_000_u64,)))?;
    // Time stands still during a batch, so waiting for it is over at once.
    for name in ["subscribe-instant", "subscribe-duration"] {
        if has(name) {
            i.func_wrap(name, |_: Ctx<'_>, (_,): (u64,)| Ok((Resource::<Pollable>::new_own(0),)))?;
        }
    }
    Ok(())
}

fn wall_clock(i: &mut LinkerInstance<'_, State>) -> Result<()> {
    i.func_wrap("now", |cx: Ctx<'_>, (): ()| {
        let now = cx.data().now;
        Ok((Datetime { seconds: now / 1000, nanoseconds: (now % 1000) as u32 * 1_000_000 },))
    })?;
    i.func_wrap("resolution", |_: Ctx<'_>, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },)))
}

fn poll(i: &mut LinkerInstance<'_, State>, has: &dyn Fn(&str) -> bool) -> Result<()> {
    if has("[method]pollable.ready") {
        i.func_wrap("[method]pollable.ready", |_: Ctx<'_>, (_,): (Resource<Pollable>,)| Ok((true,)))?;
    }
    if has("[method]pollable.block") {
        i.func_wrap("[method]pollable.block", |_: Ctx<'_>, (_,): (Resource<Pollable>,)| Ok(()))?;
    }
    if has("poll") {
        i.func_wrap("poll", |_: Ctx<'_>, (list,): (Vec<Resource<Pollable>>,)| {
            Ok(((0..u32::try_from(list.len())?).collect::<Vec<u32>>(),))
        })?;
    }
    Ok(())
}

fn streams(i: &mut LinkerInstance<'_, State>, has: &dyn Fn(&str) -> bool) -> Result<()> {
    for read in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        if has(read) {
            i.func_wrap(read, |_: Ctx<'_>, (_, _): (Resource<InputStream>, u64)| -> Result<(Stream<Vec<u8>>,)> {
                Ok((Err(StreamError::Closed),))
            })?;
        }
    }
    i.func_wrap("[method]output-stream.check-write", |_: Ctx<'_>, (_,): (Resource<OutputStream>,)| {
        Ok((Stream::<u64>::Ok(MAX_LINE as u64),))
    })?;
    for write in ["[method]output-stream.write", "[method]output-stream.blocking-write-and-flush"] {
        i.func_wrap(write, |mut cx: Ctx<'_>, (stream, bytes): (Resource<OutputStream>, Vec<u8>)| {
            cx.data_mut().print(stream.rep(), &bytes);
            Ok((Stream::<()>::Ok(()),))
        })?;
    }
    for flush in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        i.func_wrap(flush, |_: Ctx<'_>, (_,): (Resource<OutputStream>,)| Ok((Stream::<()>::Ok(()),)))?;
    }
    for subscribe in ["[method]output-stream.subscribe", "[method]input-stream.subscribe"] {
        if subscribe.contains("output") {
            i.func_wrap(subscribe, |_: Ctx<'_>, (_,): (Resource<OutputStream>,)| {
                Ok((Resource::<Pollable>::new_own(0),))
            })?;
        } else if has(subscribe) {
            i.func_wrap(subscribe, |_: Ctx<'_>, (_,): (Resource<InputStream>,)| {
                Ok((Resource::<Pollable>::new_own(0),))
            })?;
        }
    }
    Ok(())
}

fn random(i: &mut LinkerInstance<'_, State>, interface: &str) -> Result<()> {
    let prefix = if interface == INSECURE { "get-insecure-random" } else { "get-random" };
    i.func_wrap(&format!("{prefix}-bytes"), |mut cx: Ctx<'_>, (len,): (u64,)| {
        if len > MAX_RANDOM {
            bail!("the plugin asked for {len} random bytes; at most {MAX_RANDOM} are given at once");
        }
        let wasi = &mut cx.data_mut().wasi;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            bytes.extend_from_slice(&wasi.next_random().to_le_bytes());
        }
        bytes.truncate(usize::try_from(len)?);
        Ok((bytes,))
    })?;
    i.func_wrap(&format!("{prefix}-u64"), |mut cx: Ctx<'_>, (): ()| Ok((cx.data_mut().wasi.next_random(),)))
}
