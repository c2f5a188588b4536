//! Offsets of queues and of consumer groups.

use sluice_model::{GroupName, QueueId, QueueOffset, Timestamp, TopicName};

use crate::field::requests;

requests! {
    /// A group is to stand where another stands.
    CloneOffsets = CloneOffsets {
        from: GroupName = must "srcGroup",
        to: GroupName = must "destGroup",
        /// All topics of the first group when there is none.
        topic: Option<String> = may "topic",
    }

    /// How far a group has consumed a queue.
    QueryConsumerOffset = QueryConsumerOffset {
        group: GroupName = must "consumerGroup",
        topic: TopicName = must "topic",
        queue: QueueId = must "queueId",
        /// Whether an unknown offset may be answered as 0; `None`: the broker decides.
        zero_if_unknown: Option<bool> = may "setZeroIfNotFound",
    }

    /// A group has consumed a queue up to here.
    UpdateConsumerOffset = UpdateConsumerOffset {
        group: GroupName = must "consumerGroup",
        topic: TopicName = must "topic",
        queue: QueueId = must "queueId",
        offset: QueueOffset = must "commitOffset",
    }

    /// The offset at a time.
    SearchOffset = SearchOffset {
        topic: TopicName = must "topic",
        queue: QueueId = must "queueId",
        time: Timestamp = must "timestamp",
        /// `LOWER` (the default) or `UPPER`.
        boundary: Option<String> = may "boundaryType",
    }

    /// The offset behind a queue's last message.
    MaxOffset = MaxOffset {
        topic: TopicName = must "topic",
        queue: QueueId = must "queueId",
    }

    /// The offset of a queue's first message.
    MinOffset = MinOffset {
        topic: TopicName = must "topic",
        queue: QueueId = must "queueId",
    }

    /// When a queue's first message was stored.
    EarliestStoreTime = EarliestStoreTime {
        topic: TopicName = must "topic",
        queue: QueueId = must "queueId",
    }

    /// The offsets of all groups.
    AllConsumerOffsets = AllConsumerOffsets {}

    /// Move a group's offsets of a topic to a time or an offset.
    ResetOffset = ResetOffset {
        topic: TopicName = must "topic",
        group: GroupName = must "group",
        time: Timestamp = must "timestamp",
        force: bool = must "isForce",
        /// Negative: every queue.
        queue: i32 = or(-1) "queueId",
        offset: Option<i64> = may "offset",
    }
}
