//! What plugins log: kept for a while per pipeline, and passed on to the server's own log.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;
use sluice_runtime::{Level, LogLine, Observation, Observer};

use crate::clock;

/// Lines kept of each pipeline.
const LINES_LIMIT: usize = 1_000;

/// A line that a plugin wrote.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Ms since 1970.
    pub at: i64,
    pub level: &'static str,
    pub step: String,
    pub queue: u32,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// The newest lines of one pipeline's or binding's plugins.
#[derive(Default)]
pub struct Logs {
    lines: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    newest: VecDeque<Line>,
    /// Lines ever written.
    count: u64,
}

impl Logs {
    /// The newest `max` lines, the oldest first.
    pub fn newest(&self, max: usize) -> Vec<Line> {
        let kept = self.lines.lock();
        kept.newest.iter().skip(kept.newest.len().saturating_sub(max)).cloned().collect()
    }

    /// How many lines were ever written, and those behind the first `seen` that are still kept, the oldest first.
    pub fn after(&self, seen: u64) -> (u64, Vec<Line>) {
        let kept = self.lines.lock();
        let fresh = usize::try_from(kept.count.saturating_sub(seen)).unwrap_or(usize::MAX);
        let skip = kept.newest.len().saturating_sub(fresh);
        (kept.count, kept.newest.iter().skip(skip).cloned().collect())
    }
}

impl Observer for Logs {
    fn enabled(&self, level: Level) -> bool {
        matches!(level, Level::Info | Level::Warn | Level::Error)
    }

    fn log(&self, line: &LogLine<'_>) {
        let (pipeline, step) = (line.context.pipeline.as_str(), line.context.step.as_str());
        match line.level {
            Level::Error | Level::Warn => tracing::warn!(pipeline, step, "plugin: {}", line.message),
            _ => tracing::info!(pipeline, step, "plugin: {}", line.message),
        }
        let mut kept = self.lines.lock();
        if kept.newest.len() == LINES_LIMIT {
            kept.newest.pop_front();
        }
        kept.count += 1;
        kept.newest.push_back(Line {
            at: clock::now().0,
            level: level_text(line.level),
            step: step.to_owned(),
            queue: line.context.queue,
            message: line.message.to_owned(),
            fields: line.fields.to_vec(),
        });
    }

    fn metric(&self, observation: &Observation<'_>) {
        let (pipeline, step) = (observation.context.pipeline.as_str(), observation.context.step.as_str());
        tracing::debug!(pipeline, step, name = observation.name, value = observation.value, "plugin metric");
    }
}

fn level_text(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
