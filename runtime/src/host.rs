//! What a plugin may ask of its host, and the state of one instance.

use std::sync::Arc;

use wasmtime::component::{Linker, WasmList, WasmStr};
use wasmtime::{ResourceLimiter, Result, StoreContextMut, bail};

use crate::bindings::sluice::plugin::{context, metrics};
use crate::grants::{Grants, Uses};
use crate::keep::Keep;
use crate::limits::Limits;
use crate::output::short;
use crate::wasi::Wasi;
use crate::watch::Watch;

pub use crate::bindings::sluice::plugin::log::Level;
pub use crate::bindings::sluice::plugin::metrics::Kind as MetricKind;

const MAX_METRICS: usize = 64;
const MAX_FIELDS: usize = 32;
/// Bytes kept of what a plugin says when it panics.
const MAX_PANIC: usize = 1024;

/// Where a plugin runs, as it may see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Name of the pipeline, or of the group whose filter or checker this is.
    pub pipeline: String,
    pub step: String,
    pub queue: u32,
    pub input_topic: String,
    /// The pipeline's sinks, by output.
    pub output_topics: Vec<String>,
}

/// A line that a plugin wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine<'a> {
    pub context: &'a Context,
    /// Lower-case hexadecimal SHA-256 of the plugin.
    pub plugin: &'a str,
    pub level: Level,
    pub message: &'a str,
    pub fields: &'a [(String, String)],
}

/// A value that a plugin measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation<'a> {
    pub context: &'a Context,
    pub name: &'a str,
    pub kind: MetricKind,
    pub value: f64,
}

/// Hears what plugins log and measure, on the thread that calls them.
pub trait Observer: Send + Sync {
    fn enabled(&self, level: Level) -> bool;
    fn log(&self, line: &LogLine<'_>);
    fn metric(&self, observation: &Observation<'_>);
}

/// Hears nothing.
pub struct Silent;

impl Observer for Silent {
    fn enabled(&self, _: Level) -> bool {
        false
    }
    fn log(&self, _: &LogLine<'_>) {}
    fn metric(&self, _: &Observation<'_>) {}
}

/// Marks the error of a call that ran too long.
#[derive(Debug, thiserror::Error)]
#[error("deadline")]
pub(crate) struct DeadlineReached;

pub(crate) struct Memory {
    pub(crate) limit: u64,
    /// Bytes that it has.
    pub(crate) size: u64,
    pub(crate) refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let fits = desired as u64 <= self.limit;
        self.refused |= !fits;
        if fits {
            self.size = desired as u64;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        Ok(desired <= 100_000)
    }
}

/// Everything that belongs to one instance.
pub(crate) struct State {
    pub(crate) context: Context,
    /// Digest of the plugin.
    plugin: String,
    pub(crate) limits: Limits,
    pub(crate) memory: Memory,
    pub(crate) now: u64,
    pub(crate) watch: Watch,
    /// The last panic message, which the SDK logs before it traps.
    pub(crate) panic: Option<String>,
    pub(crate) wasi: Wasi,
    pub(crate) keep: Keep,
    /// Nothing until the plugin is configured.
    pub(crate) grants: Grants,
    pub(crate) uses: Uses,
    observer: Arc<dyn Observer>,
    lines: u32,
    metrics: Vec<(String, MetricKind)>,
}

impl State {
    pub(crate) fn new(
        plugin: String,
        context: Context,
        limits: Limits,
        observer: Arc<dyn Observer>,
        watch: Watch,
    ) -> State {
        State {
            memory: Memory { limit: limits.memory, size: 0, refused: false },
            context,
            plugin,
            limits,
            now: 0,
            watch,
            panic: None,
            wasi: Wasi::default(),
            keep: Keep::default(),
            grants: Grants::default(),
            uses: Uses::default(),
            observer,
            lines: 0,
            metrics: Vec::new(),
        }
    }

    /// Resets what is counted for each call.
    pub(crate) fn begin(&mut self) {
        self.memory.refused = false;
        self.panic = None;
        self.lines = 0;
        self.uses.begin();
    }

    pub(crate) fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        if !self.observer.enabled(level) {
            return;
        }
        self.lines += 1;
        let limit = self.limits.log_lines;
        if self.lines > limit.saturating_add(1) {
            return;
        }
        if self.lines > limit {
            let text = format!("more than {limit} lines in one call, the rest is dropped");
            return self.observer.log(&self.line(Level::Warn, &text, &[]));
        }
        let (message, fields) = cut(message, fields, self.limits.log_line);
        self.observer.log(&self.line(level, message, fields));
    }

    fn line<'a>(&'a self, level: Level, message: &'a str, fields: &'a [(String, String)]) -> LogLine<'a> {
        LogLine { context: &self.context, plugin: &self.plugin, level, message, fields }
    }
}

/// Shortens a line to its limit: the message first, then fields from the end.
fn cut<'a>(message: &'a str, fields: &'a [(String, String)], limit: usize) -> (&'a str, &'a [(String, String)]) {
    let mut end = message.len().min(limit);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut room = limit - end;
    let fits = |(name, value): &&(String, String)| {
        let size = name.len() + value.len();
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    let kept = fields.iter().take(MAX_FIELDS).take_while(fits).count();
    (&message[..end], &fields[..kept])
}

/// The log as plugins reach it. Not generated, so that a line is read in place and what is cut off is never copied.
pub(crate) fn add_log_to_linker(linker: &mut Linker<State>) -> Result<()> {
    let mut log = linker.instance("sluice:plugin/log@0.3.0")?;
    log.func_wrap("enabled", |cx: StoreContextMut<'_, State>, (level,): (Level,)| {
        Ok((cx.data().observer.enabled(level),))
    })?;
    log.func_wrap("write", write_line)
}

type Fields = WasmList<(WasmStr, WasmStr)>;

fn write_line(mut cx: StoreContextMut<'_, State>, (level, message, fields): (Level, WasmStr, Fields)) -> Result<()> {
    let pairs = fields.iter(&mut cx)?.take(MAX_FIELDS).collect::<Result<Vec<_>>>()?;
    let message = beginning(&cx, &message)?;
    let mut fields = Vec::with_capacity(pairs.len());
    for (name, value) in &pairs {
        fields.push((beginning(&cx, name)?, beginning(&cx, value)?));
    }
    let state = cx.data_mut();
    if let Some((_, place)) = fields.iter().find(|(name, _)| name == "panic") {
        state.panic = Some(short(format!("{message} at {place}"), MAX_PANIC));
    }
    state.log(level, &message, &fields);
    Ok(())
}

/// As much of a text as a line may have, and a little more if there is more.
fn beginning(cx: &StoreContextMut<'_, State>, text: &WasmStr) -> Result<String> {
    let most = cx.data().limits.log_line.max(MAX_PANIC) + 4;
    let text = text.to_str(cx)?;
    Ok(text[..text.floor_char_boundary(most)].to_owned())
}

impl metrics::Host for State {
    fn register(&mut self, name: String, kind: MetricKind) -> Result<std::result::Result<u32, String>> {
        let fine = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !fine {
            return Ok(Err(format!(
                "metric {:?}: expected 1 to 64 lower-case letters, digits and `_`",
                short(name, 64)
            )));
        }
        let known = self.metrics.iter().position(|(other, _)| *other == name);
        let index = match known {
            Some(index) if self.metrics[index].1 != kind => {
                return Ok(Err(format!("metric {name} is registered with another kind")));
            }
            Some(index) => index,
            None if self.metrics.len() == MAX_METRICS => return Ok(Err(format!("at most {MAX_METRICS} metrics"))),
            None => {
                self.metrics.push((name, kind));
                self.metrics.len() - 1
            }
        };
        Ok(u32::try_from(index).map_err(|e| e.to_string()))
    }

    fn observe(&mut self, id: u32, value: f64) -> Result<()> {
        let Some((name, kind)) = self.metrics.get(id as usize) else {
            bail!("metrics.observe: {id} was not registered");
        };
        self.observer.metric(&Observation { context: &self.context, name, kind: *kind, value });
        Ok(())
    }
}

impl context::Host for State {
    fn get(&mut self) -> Result<context::Info> {
        let Context { pipeline, step, queue, input_topic, output_topics } = self.context.clone();
        Ok(context::Info { pipeline, step, queue, input_topic, output_topics })
    }

    fn now(&mut self) -> Result<u64> {
        Ok(self.now)
    }
}

impl crate::bindings::sluice::plugin::types::Host for State {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let fields = [("name".to_owned(), "x".repeat(20))];
        assert_eq!(cut("grün", &fields, 3), ("gr", &fields[..0]));
        assert_eq!(cut("short", &fields, 100), ("short", &fields[..]));
    }
}
