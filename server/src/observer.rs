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
    lines: Mutex<VecDeque<Line>>,
}

impl Logs {
    /// The newest `max` lines, the oldest first.
    pub fn newest(&self, max: usize) -> Vec<Line> {
        let lines = self.lines.lock();
        lines.iter().skip(lines.len().saturating_sub(max)).cloned().collect()
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
        let mut lines = self.lines.lock();
        if lines.len() == LINES_LIMIT {
            lines.pop_front();
        }
        lines.push_back(Line {
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
