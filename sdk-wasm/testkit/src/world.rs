use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use sluice_runtime::ports::{Hit, Lookup, PortError};
use sluice_runtime::{Level, LogLine, Observation, Observer};

/// Topics that a checker may look into.
#[derive(Clone, Debug, Default)]
pub struct Topics(Vec<(String, String, Hit)>);

impl Topics {
    /// Adds a message; later ones are newer.
    #[must_use]
    pub fn message(mut self, topic: &str, key: &str, body: &str) -> Topics {
        let offset = self.0.len() as u64;
        let hit = Hit { offset, body: Bytes::copy_from_slice(body.as_bytes()), ..Hit::default() };
        self.0.push((topic.to_owned(), key.to_owned(), hit));
        self
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(|(topic, _, _)| topic.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Lookup for Topics {
    fn by_key(&self, topic: &str, key: &str, limit: u32) -> Result<Vec<Hit>, PortError> {
        let newest_first = self.0.iter().rev().filter(|(t, k, _)| t == topic && k == key);
        Ok(newest_first.map(|(_, _, hit)| hit.clone()).take(limit as usize).collect())
    }
}

/// Keeps what a plugin logs and measures.
#[derive(Debug, Default)]
pub struct Journal {
    lines: Mutex<Vec<String>>,
}

impl Journal {
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, line: String) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Observer for Journal {
    fn enabled(&self, _: Level) -> bool {
        true
    }

    fn log(&self, line: &LogLine<'_>) {
        let fields: String = line.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        self.add(format!("{}{fields}", line.message));
    }

    fn metric(&self, observation: &Observation<'_>) {
        self.add(format!("{} {}", observation.name, observation.value));
    }
}
