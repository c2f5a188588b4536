use sluice_model::{RecordView, TopicName};

/// Everything derived from the log that storage knows nothing about; the broker's state.
pub trait Views {
    /// Takes in one record. Called once for each record in the order of the log, while running and at a start alike,
    /// when the record's queue and keys are there. A failure ends the use of the log: the same record would fail again.
    fn apply(&mut self, record: &RecordView<'_>) -> Result<Applied, String>;

    /// Writes down the state, for [`Self::restore`].
    fn snapshot(&self, out: &mut Vec<u8>);

    /// Takes over a state as it was written down. Called at most once, before anything is applied.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;
}

/// What a record asks of storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Nothing,
    /// The topic is deleted: its queues go, and begin at 0 again should it come back.
    DeleteTopic(TopicName),
}
