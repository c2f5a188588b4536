//! The other half of writing: what was written becomes durable, visible, and wakes whoever waited for it.

use std::sync::Arc;

use sluice_model::{
    LogOffset, RecordView, Timestamp, TopicName,
    record::{self, Peek},
};
use sluice_storage::{Draft, Retention, Syncer, Written};

use crate::{
    broker::{Effect, Shared},
    error::Result,
    reader::Reader,
    state::State,
    views::LogViews,
    waiters::Token,
};

/// Owner of the disk's side of the views. Not `Clone`: there is one, beside the one [`crate::Broker`].
pub struct Applier {
    store: sluice_storage::Applier,
    syncer: Syncer,
    shared: Arc<Shared>,
    reader: Reader,
    woken: Vec<Token>,
}

impl Applier {
    pub(crate) fn new(store: sluice_storage::Applier, syncer: Syncer, shared: Arc<Shared>, reader: Reader) -> Self {
        Self { store, syncer, shared, reader, woken: Vec::new() }
    }

    /// Brings everything written so far to the disk. The first failure is final: the log takes nothing more.
    pub fn sync(&self) -> Result<LogOffset> {
        Ok(self.syncer.sync()?)
    }

    /// Makes a durable batch visible and answers with what follows from it.
    pub fn apply(&mut self, written: &Written, effects: &mut Vec<Effect>) -> Result<()> {
        self.store.apply(written, &mut LogViews::new(&self.shared))?;
        self.wake(written);
        effects.extend(self.woken.drain(..).map(Effect::Wake));
        Ok(())
    }

    /// Looks for waiting fetches only now that the batch can be read: one that registered a moment ago either saw the
    /// batch or is found here.
    fn wake(&mut self, written: &Written) {
        let mut waiters = self.shared.waiters.lock();
        let mut rest = written.bytes.as_slice();
        while !waiters.is_empty() && !rest.is_empty() {
            let step = match record::peek(rest) {
                Peek::Record { size } => {
                    if let Ok(record) = RecordView::parse(rest) {
                        waiters.arrived(record.topic(), record.queue(), record.queue_offset(), &mut self.woken);
                    }
                    size
                }
                Peek::Blank { .. } => record::BLANK_LEN,
                Peek::Nothing | Peek::Garbage => return,
            };
            rest = rest.get(step..).unwrap_or_default();
        }
    }

    /// Writes what had no room on the disk before, so that the log takes messages again when there is room.
    pub fn retry(&mut self) -> Result<()> {
        Ok(self.store.retry()?)
    }

    /// Whether enough was applied since the last checkpoint, and no draft of another is out.
    pub fn checkpoint_due(&self) -> bool {
        self.store.checkpoint_due()
    }

    /// How far messages are visible.
    pub fn applied(&self) -> LogOffset {
        self.store.applied()
    }

    /// Whether the draft of a checkpoint is out.
    pub fn is_drafted(&self) -> bool {
        self.store.is_drafted()
    }

    /// Drafts a checkpoint for the [`Checkpointer`](sluice_storage::Checkpointer): start-up needs to read only what comes
    /// after it.
    ///
    /// The state may be ahead of what was applied here, but never of the disk: what it has seen is made durable first.
    /// While the writer has staged changes of the state and not written them there is none, and the checkpoint stays due;
    /// nor while another draft is out.
    pub fn draft(&mut self) -> Result<Option<Draft>> {
        if self.is_drafted() {
            return Ok(None);
        }
        let Some(snapshot) = self.durable(State::snapshot)? else { return Ok(None) };
        Ok(Some(self.store.draft(&LogViews::taken(&self.shared, snapshot?))?))
    }

    /// What `look` sees of the state, with all of that state on the disk; `None` while some of it is staged only.
    fn durable<T>(&self, look: impl FnOnce(&State) -> T) -> Result<Option<T>> {
        let seen = {
            let state = self.shared.state.read();
            if state.has_applied(self.reader.store().appended()) {
                return Ok(None);
            }
            look(&state)
        };
        self.sync()?;
        Ok(Some(seen))
    }

    /// Deletes whole old segments, none that anything still points into; answers with the log's new start.
    ///
    /// A change that no longer points into a segment counts once it is on the disk; while one is staged only, or the draft
    /// of a checkpoint is out, nothing is deleted. A topic that keeps its messages for longer than the policy has it keeps
    /// everybody's, since they share the log; a policy of size keeps none.
    pub fn retain(&mut self, now: Timestamp, policy: &Retention) -> Result<LogOffset> {
        // Before the state is looked at: the position of the delayed messages is part of it.
        let delayed = self.reader.oldest_delayed().unwrap_or(LogOffset(u64::MAX));
        let Some(pin) = self.durable(State::oldest_pin)? else { return Ok(self.reader.store().start()) };
        let pin = pin.unwrap_or(LogOffset(u64::MAX)).min(delayed);
        let longest = self.retentions().into_iter().map(|(_, ms)| ms).max().unwrap_or_default();
        let policy = Retention { max_age_ms: policy.max_age_ms.map(|ms| ms.max(longest)), ..*policy };
        Ok(self.store.retain(now, &policy, pin)?)
    }

    /// Has the queues of each topic that keeps its messages for a time of its own begin behind what is older. Fails with the
    /// last of the topics' errors; the other topics are done.
    pub fn expire(&mut self, now: Timestamp) -> Result<()> {
        let mut outcome = Ok(());
        for (topic, ms) in self.retentions() {
            outcome = self.store.expire(&topic, now.plus_ms(-ms)).and(outcome);
        }
        Ok(outcome?)
    }

    fn retentions(&self) -> Vec<(TopicName, i64)> {
        let state = self.shared.state.read();
        let topics = state.topics.iter();
        topics.filter_map(|topic| Some((topic.name.clone(), topic.retention_ms?))).collect()
    }
}
