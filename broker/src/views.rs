//! The broker's state as the log drives it: restored from a checkpoint, then fed every record, at start-up as while
//! running.

use sluice_model::{RecordView, TopicName};
use sluice_storage::{Applied, Views};

use crate::{broker::Shared, system::SYSTEM};

pub(crate) struct LogViews<'a> {
    shared: &'a Shared,
    /// A snapshot taken for the checkpoint that is being written.
    taken: Vec<u8>,
}

impl<'a> LogViews<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, taken: Vec::new() }
    }

    pub fn taken(shared: &'a Shared, snapshot: Vec<u8>) -> Self {
        Self { shared, taken: snapshot }
    }
}

impl Views for LogViews<'_> {
    fn apply(&mut self, record: &RecordView<'_>) -> Result<Applied, String> {
        if !SYSTEM.may_hold_state(record.topic()) {
            return Ok(Applied::Nothing);
        }
        // What the writer staged it has applied already; the state passes over what it has seen.
        self.shared.state.write().apply(record).map_err(|error| error.to_string())?;
        Ok(deleted_topic(record).map_or(Applied::Nothing, Applied::DeleteTopic))
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.taken);
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let restored = self.shared.state.write().restore(snapshot);
        restored.map_err(|error| error.to_string())
    }
}

fn deleted_topic(record: &RecordView<'_>) -> Option<TopicName> {
    let name = (record.topic() == SYSTEM.topics.as_str()).then(|| record.property("deleted"))??;
    TopicName::parse(name).ok()
}
