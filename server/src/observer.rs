//! What plugins say: lines and measurements, kept for a while per pipeline or binding, and passed on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use sluice_runtime::{Level, LogLine, Observation, Observer};

use crate::{clock, log_topic::Outbox, measures::Measures, ring::Ring};

/// Lines kept of each pipeline.
const LINES_LIMIT: usize = 1_000;
/// Lines of one pipeline that go on to the server's own log, in each [`TELL_TIME`]: its plugins are not to fill it.
const TELL_LINES: u32 = 20;
const TELL_TIME: Duration = Duration::from_secs(1);

/// A line that a plugin wrote.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Ms since 1970.
    pub at: i64,
    pub level: &'static str,
    pub step: String,
    pub queue: u32,
    /// Lower-case hexadecimal SHA-256 of the plugin.
    pub plugin: String,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// What one pipeline's or binding's plugins say: their newest lines, and what they measure.
pub struct Logs {
    /// Lines below it are not kept.
    least: Level,
    pub lines: Arc<Ring<Line>>,
    told: Mutex<Told>,
    pub measures: Measures,
    /// On their way to a topic, where there is one.
    pub outbox: Option<Arc<Outbox>>,
}

/// What went on to the server's own log lately.
#[derive(Default)]
struct Told {
    since: Option<Instant>,
    lines: u32,
    /// Lines that did not.
    held_back: u64,
}

impl Default for Logs {
    fn default() -> Self {
        Self::new(Level::Info, None)
    }
}

impl Logs {
    pub fn new(least: Level, outbox: Option<Arc<Outbox>>) -> Self {
        let lines = Arc::new(Ring::new(LINES_LIMIT));
        Self { least, lines, told: Mutex::default(), measures: Measures::default(), outbox }
    }

    /// Those of a pipeline's next version, which goes on with the lines of this one.
    pub fn followed_by(&self, least: Level, outbox: Option<Arc<Outbox>>) -> Self {
        Self { lines: self.lines.clone(), ..Self::new(least, outbox) }
    }
}

impl Observer for Logs {
    fn enabled(&self, level: Level) -> bool {
        level as u8 >= self.least as u8
    }

    fn log(&self, line: &LogLine<'_>) {
        let (pipeline, step) = (line.context.pipeline.as_str(), line.context.step.as_str());
        let own = Line {
            at: clock::now().0,
            level: level_text(line.level),
            step: step.to_owned(),
            queue: line.context.queue,
            plugin: line.plugin.to_owned(),
            message: line.message.to_owned(),
            fields: line.fields.to_vec(),
        };
        if let Some(outbox) = &self.outbox {
            outbox.push(own.clone());
        }
        self.lines.push(own);
        let tell = self.told.lock().tells(Instant::now());
        let Some(held_back) = tell else { return };
        if held_back > 0 {
            tracing::warn!(pipeline, "plugins wrote {held_back} more lines than are told here");
        }
        match line.level {
            Level::Error | Level::Warn => tracing::warn!(pipeline, step, "plugin: {}", line.message),
            Level::Info => tracing::info!(pipeline, step, "plugin: {}", line.message),
            Level::Debug | Level::Trace => tracing::debug!(pipeline, step, "plugin: {}", line.message),
        }
    }

    fn metric(&self, observation: &Observation<'_>) {
        self.measures.take(observation);
    }
}

impl Told {
    /// Whether a line may go on, with how many were held back before it.
    fn tells(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= TELL_TIME) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == TELL_LINES {
            self.held_back += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.held_back))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_part_and_what_was_held_back_is_told_later() {
        let (mut told, now) = (Told::default(), Instant::now());
        let went = (0..100).filter(|_| told.tells(now).is_some()).count();
        assert_eq!(went, TELL_LINES as usize);
        assert_eq!(told.tells(now + TELL_TIME), Some(80));
        assert_eq!(told.tells(now + TELL_TIME), Some(0));
    }
}
