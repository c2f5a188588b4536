//! The views that hold the broker's own state, and the one verb by which they change: apply a record.

use sluice_model::{LogOffset, RecordView, TopicName};

use crate::{
    codec::{In, Out},
    documents::Documents,
    error::Result,
    groups::Groups,
    halves::Halves,
    leases::Leases,
    offsets::Offsets,
    system::{AUTO_CREATE_TOPIC, OPEN_TOPICS, SELF_TEST_TOPIC, SYSTEM, reply_topic},
    timers::Timers,
    topics::{Permission, Topic, Topics},
};

/// Everything the broker knows besides queues, all of it derived from the log.
pub struct State {
    pub topics: Topics,
    pub groups: Groups,
    pub offsets: Offsets,
    pub documents: Documents,
    pub halves: Halves,
    pub timers: Timers,
    pub leases: Leases,
    /// Records below this offset have been applied. The writer applies what it stages at once; the same record met
    /// again behind the disk is passed over.
    applied: LogOffset,
    transaction_timeout_ms: i64,
}

/// Form of the snapshot. Form 1 is one without timers and leases; a checkpoint of any other form is refused.
const SNAPSHOT_FORM: u32 = 2;

impl State {
    pub fn new(transaction_timeout_ms: i64, cluster: &str, broker: &str) -> Self {
        let mut state = Self {
            topics: Topics::default(),
            groups: Groups::default(),
            offsets: Offsets::default(),
            documents: Documents::default(),
            halves: Halves::default(),
            timers: Timers::default(),
            leases: Leases::default(),
            applied: LogOffset(0),
            transaction_timeout_ms,
        };
        state.build_in(cluster, broker);
        state
    }

    /// Topics that are there without anybody making them.
    fn build_in(&mut self, cluster: &str, broker: &str) {
        let replies = reply_topic(cluster);
        let names = OPEN_TOPICS.into_iter().chain([SELF_TEST_TOPIC, cluster, broker, &replies]);
        for name in names.filter_map(|name| TopicName::parse(name).ok()) {
            let auto = name.as_str() == AUTO_CREATE_TOPIC;
            let permission = if auto { Permission(7) } else { Permission::READ_WRITE };
            self.topics.build_in(Topic { permission, ..Topic::new(name, if auto { 8 } else { 1 }) });
        }
        for name in SYSTEM.all() {
            let queues = match name {
                name if *name == SYSTEM.schedule => crate::schedule::LEVELS_MS.len() as u32,
                name if *name == SYSTEM.timers => crate::timers::SLOTS,
                _ => 1,
            };
            self.topics.build_in(Topic::new(name.clone(), queues));
        }
    }

    /// Whether the record at `at` is behind this state already.
    pub fn has_applied(&self, at: LogOffset) -> bool {
        at < self.applied
    }

    /// Applies one record; records of users' topics change nothing here. A record met twice counts once.
    pub fn apply(&mut self, record: &RecordView<'_>) -> Result<()> {
        if self.has_applied(record.log_offset()) {
            return Ok(());
        }
        self.applied = record.log_offset().plus(1);
        let (topic, system) = (record.topic(), &*SYSTEM);
        if topic == system.topics.as_str() {
            if let Some(gone) = self.topics.apply(record)? {
                self.offsets.forget_topic(&gone);
                self.leases.forget_topic(&gone);
            }
        } else if topic == system.groups.as_str() {
            if let Some(gone) = self.groups.apply(record)? {
                self.offsets.forget_group(&gone);
                self.leases.forget_group(&gone);
            }
        } else if topic == system.offsets.as_str() {
            self.offsets.apply(record)?;
        } else if topic == system.documents.as_str() {
            self.documents.apply(record)?;
        } else if topic == system.half.as_str() {
            self.halves.apply_half(record, self.transaction_timeout_ms)?;
        } else if topic == system.half_op.as_str() {
            self.halves.apply_decision(record)?;
        } else if topic == system.timer_op.as_str() {
            self.timers.apply(record)?;
        } else if topic == system.leases.as_str() {
            // Popped is consumed as far as the position goes: what is not acknowledged comes again under its lease.
            self.leases.apply(record)?.into_iter().for_each(|position| self.offsets.recorded(position));
        }
        Ok(())
    }

    /// The oldest place in the log that the state still points into.
    pub fn oldest_pin(&self) -> Option<LogOffset> {
        [self.documents.oldest(), self.halves.oldest()].into_iter().flatten().min()
    }

    pub fn snapshot(&self) -> Result<Vec<u8>> {
        let mut out = Out::default();
        out.u32(SNAPSHOT_FORM).u64(self.applied.0);
        self.topics.snapshot(&mut out)?;
        self.groups.snapshot(&mut out)?;
        self.offsets.snapshot(&mut out);
        self.documents.snapshot(&mut out);
        self.halves.snapshot(&mut out);
        self.timers.snapshot(&mut out);
        self.leases.snapshot(&mut out);
        Ok(out.0)
    }

    /// Takes over a snapshot; to be called on a new state.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<()> {
        let mut from = In::new(snapshot);
        let form = from.u32()?;
        if !(1..=SNAPSHOT_FORM).contains(&form) {
            return Err(crate::Error::invalid("checkpoint", format!("expected a snapshot of form 1 or 2, got {form}")));
        }
        self.applied = LogOffset(from.u64()?);
        self.topics.restore(&mut from)?;
        self.groups.restore(&mut from)?;
        self.offsets.restore(&mut from)?;
        self.documents.restore(&mut from)?;
        self.halves.restore(&mut from)?;
        if form > 1 {
            self.timers.restore(&mut from)?;
            self.leases.restore(&mut from)?;
        }
        Ok(())
    }
}
