//! The broker's own topics: where its state is recorded, and those that Apache RocketMQ's clients know by name.

use std::sync::LazyLock;

use sluice_model::TopicName;

/// Topics that record the broker's own state; nobody else may write them.
pub struct SystemTopics {
    pub topics: TopicName,
    pub groups: TopicName,
    pub offsets: TopicName,
    pub documents: TopicName,
    /// Half messages wait here (Apache RocketMQ `TopicValidator.RMQ_SYS_TRANS_HALF_TOPIC`).
    pub half: TopicName,
    /// Decisions about half messages.
    pub half_op: TopicName,
    /// Half messages that nobody could decide.
    pub half_expired: TopicName,
    /// Delayed messages wait here, one queue a level.
    pub schedule: TopicName,
    /// Messages for a time wait here, one queue a slot (Apache RocketMQ `TimerMessageStore.TIMER_TOPIC`).
    pub timers: TopicName,
    /// What became of them.
    pub timer_op: TopicName,
    /// Which messages are popped, acknowledged and held longer.
    pub leases: TopicName,
}

pub static SYSTEM: LazyLock<SystemTopics> = LazyLock::new(|| SystemTopics {
    topics: named("rmq_sys_SLUICE_TOPICS"),
    groups: named("rmq_sys_SLUICE_GROUPS"),
    offsets: named("rmq_sys_SLUICE_OFFSETS"),
    documents: named("rmq_sys_SLUICE_DOCUMENTS"),
    half: named("RMQ_SYS_TRANS_HALF_TOPIC"),
    half_op: named("RMQ_SYS_TRANS_OP_HALF_TOPIC"),
    half_expired: named("TRANS_CHECK_MAX_TIME_TOPIC"),
    schedule: named("SCHEDULE_TOPIC_XXXX"),
    timers: named("rmq_sys_wheel_timer"),
    timer_op: named("rmq_sys_SLUICE_TIMER_OP"),
    leases: named("rmq_sys_SLUICE_LEASES"),
});

/// Topics that hold the changes of pipelines' states begin with this.
const STATE_PREFIX: &str = "rmq_sys_SLUICE_STATE_";

/// The topic that holds the changes of a pipeline's state.
///
/// Fails when the name is too long.
pub fn state_topic(pipeline: &str) -> Result<TopicName, sluice_model::Error> {
    TopicName::parse(&format!("{STATE_PREFIX}{pipeline}"))
}

/// Whether a topic holds the changes of a pipeline's state.
pub fn is_state_topic(topic: &TopicName) -> bool {
    topic.as_str().starts_with(STATE_PREFIX)
}

/// The topic whose settings an automatically made topic takes over.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Topics that clients and tools expect on every broker and may use.
pub const OPEN_TOPICS: [&str; 4] = [AUTO_CREATE_TOPIC, "BenchmarkTest", "RMQ_SYS_TRACE_TOPIC", "OFFSET_MOVED_EVENT"];
/// Where tools send to find out whether the broker answers.
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";

/// The topic that answers to messages are sent to; they go to who waits for them, and are not stored.
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}_REPLY_TOPIC")
}

impl SystemTopics {
    /// Topics that no client may send to (Apache RocketMQ `TopicValidator.isNotAllowedSendTopic`, and our own).
    pub fn is_closed(&self, topic: &str) -> bool {
        self.all().iter().any(|closed| closed.as_str() == topic)
            || topic.starts_with(STATE_PREFIX)
            || topic == SELF_TEST_TOPIC
            || topic == "OFFSET_MOVED_EVENT"
    }

    /// Topics whose records change the broker's own state.
    pub(crate) fn holds_state(&self, topic: &TopicName) -> bool {
        [
            &self.topics,
            &self.groups,
            &self.offsets,
            &self.documents,
            &self.half,
            &self.half_op,
            &self.timer_op,
            &self.leases,
        ]
        .contains(&topic)
    }

    /// A quick look at a name: `false` means that its records change nothing in the state.
    pub(crate) fn may_hold_state(&self, topic: &str) -> bool {
        topic.starts_with("rmq_sys_") || topic.starts_with("RMQ_SYS_")
    }

    pub fn all(&self) -> [&TopicName; 11] {
        [
            &self.topics,
            &self.groups,
            &self.offsets,
            &self.documents,
            &self.half,
            &self.half_op,
            &self.half_expired,
            &self.schedule,
            &self.timers,
            &self.timer_op,
            &self.leases,
        ]
    }
}

/// Whether a topic belongs to the broker or to Apache RocketMQ's own tools rather than to a user.
pub fn is_system(topic: &str) -> bool {
    SYSTEM.all().iter().any(|own| own.as_str() == topic)
        || OPEN_TOPICS.contains(&topic)
        || topic == SELF_TEST_TOPIC
        || topic.starts_with("rmq_sys_")
}

#[allow(clippy::expect_used, reason = "the names are constants, and a test makes them all")]
fn named(name: &str) -> TopicName {
    TopicName::parse(name).expect("a valid constant name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_name_is_a_valid_topic() {
        assert_eq!(SYSTEM.all().len(), 11);
        assert!(SYSTEM.is_closed("SCHEDULE_TOPIC_XXXX") && !SYSTEM.is_closed("TBW102") && is_system("TBW102"));
    }
}
