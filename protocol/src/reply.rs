//! Headers of answers.

use sluice_model::{QueueId, QueueOffset, Timestamp};

use crate::{Ext, FieldError, field::fields, request::RetryFlag};

macro_rules! replies {
    ($($name:ident),*) => {$(
        impl $name {
            pub fn encode(&self) -> Ext {
                self.to_ext()
            }

            /// Reads the header of an answer; fails with the name of a missing or malformed field.
            pub fn decode(ext: &Ext) -> Result<Self, FieldError> {
                Self::from_ext(ext)
            }
        }
    )*};
}

fields! {
    /// Where a message was stored.
    SendReply {
        /// Address and log position; for a batch, several separated by commas.
        message_id: String = must "msgId",
        queue: QueueId = must "queueId",
        /// Offset in the queue; of a batch, the first.
        offset: QueueOffset = must "queueOffset",
        transaction_id: Option<String> = may "transactionId",
        region: Option<String> = may "MSG_REGION",
        trace: Option<String> = may "TRACE_ON",
        /// By which the message can be taken back until it is due.
        recall_handle: Option<String> = may "recallHandle",
    }

    /// What a message was that was taken back.
    RecallReply {
        /// Its unique key.
        message_id: String = must "msgId",
    }

    /// What goes with the messages of a pull, whether there are any or not.
    PullReply {
        /// Id of the broker to be asked next; 0 is the master.
        suggested_broker: i64 = must "suggestWhichBrokerId",
        next_offset: i64 = must "nextBeginOffset",
        min_offset: i64 = must "minOffset",
        max_offset: i64 = must "maxOffset",
        topic_sys_flag: Option<i32> = may "topicSysFlag",
        group_sys_flag: Option<i32> = may "groupSysFlag",
    }

    /// What goes with the messages of a pop, whether there are any or not.
    PopReply {
        popped_at: Timestamp = must "popTime",
        invisible_ms: i64 = must "invisibleTime",
        /// Part of the handle; 999 for an ordered pop.
        revive_queue: i32 = must "reviveQid",
        /// Messages that are left.
        rest: u64 = must "restNum",
        /// Where the pop began in each queue.
        starts: Option<String> = may "startOffsetInfo",
        /// Which messages of each queue there are.
        offsets: Option<String> = may "msgOffsetInfo",
        /// How often the messages of each queue failed, for an ordered pop.
        failures: Option<String> = may "orderCountInfo",
    }

    /// Until when a popped message is held now: part of its new handle.
    HeldReply {
        popped_at: Timestamp = must "popTime",
        invisible_ms: i64 = must "invisibleTime",
        revive_queue: i32 = must "reviveQid",
    }

    /// Whether there is something to pop.
    NotificationReply {
        has_message: bool = must "hasMsg",
        /// Too many wait already.
        full: bool = or(false) "pollingFull",
    }

    /// How many pops wait.
    PollingReply {
        count: i32 = must "pollingNum",
    }

    /// An offset.
    OffsetReply {
        offset: i64 = must "offset",
    }

    /// A time.
    TimeReply {
        time: Timestamp = must "timestamp",
    }

    /// How far the index goes that answered a query by key.
    QueryReply {
        indexed_until: Timestamp = must "indexLastUpdateTimestamp",
        indexed_offset: i64 = must "indexLastUpdatePhyoffset",
    }

    /// What the broker can do and whether it has to learn the client's subscriptions again.
    HeartbeatReply {
        heartbeat_with_fingerprint: bool = or(false) "IS_SUPPORT_HEART_BEAT_V2",
        subscription_changed: bool = or(false) "IS_SUB_CHANGE",
    }

    /// Version of a broker's configuration, as text.
    ConfigReply {
        version: String = must "version",
    }

    /// How many topics there are, whatever the page shows.
    TopicPageReply {
        total: i32 = must "totalTopicNum",
    }

    /// How many groups there are, whatever the page shows.
    GroupPageReply {
        total: i32 = must "totalGroupNum",
    }

    /// Addresses of the master, for a replica that registered.
    RegisterReply {
        ha_address: Option<String> = may "haServerAddr",
        master_address: Option<String> = may "masterAddr",
    }

    /// Whether the name server's picture of a broker is out of date.
    DataVersionReply {
        changed: bool = must "changed",
    }

    /// A configuration value.
    KvReply {
        value: Option<String> = may "value",
    }

    /// How many topics lost the permission to write.
    WipeWriteReply {
        count: i32 = must "wipeTopicCount",
    }

    /// How many topics got the permission to write.
    AddWriteReply {
        count: i32 = must "addTopicCount",
    }
}

replies!(
    SendReply,
    RecallReply,
    PullReply,
    PopReply,
    HeldReply,
    NotificationReply,
    PollingReply,
    OffsetReply,
    TimeReply,
    QueryReply,
    HeartbeatReply,
    ConfigReply,
    TopicPageReply,
    GroupPageReply,
    RegisterReply,
    DataVersionReply,
    KvReply,
    WipeWriteReply,
    AddWriteReply
);

/// Messages of one queue in the answer to a pop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoppedQueue {
    pub retry: RetryFlag,
    pub queue: QueueId,
    /// Where the pop began.
    pub start: QueueOffset,
    /// In the order in which the messages stand in the body.
    pub offsets: Vec<QueueOffset>,
    /// Those of them that were popped in order before, and how often they failed.
    pub failures: Vec<(QueueOffset, u32)>,
}

impl PopReply {
    /// The same with what was popped. No queue may stand there twice: the client refuses such an answer.
    ///
    /// Source: Apache RocketMQ `ExtraInfoUtil.buildStartOffsetInfo`, `buildMsgOffsetInfo`,
    /// `buildQueueOffsetOrderCountInfo`.
    pub fn with_queues(self, queues: &[PoppedQueue]) -> Self {
        let joined = |tail: fn(&PoppedQueue) -> String| {
            let entries = queues.iter().map(|of| format!("{} {} {}", of.retry.digit(), of.queue, tail(of)));
            (!queues.is_empty()).then(|| entries.collect::<Vec<_>>().join(";"))
        };
        let listed = |of: &PoppedQueue| of.offsets.iter().map(QueueOffset::to_string).collect::<Vec<_>>().join(",");
        let failed = queues.iter().flat_map(|of| {
            let (flag, queue) = (of.retry.digit(), of.queue);
            of.failures.iter().map(move |(offset, count)| format!("{flag} qo{queue}%{offset} {count}"))
        });
        let failed = failed.collect::<Vec<_>>();
        let failures = (!failed.is_empty()).then(|| failed.join(";"));
        Self { starts: joined(|of| of.start.to_string()), offsets: joined(listed), failures, ..self }
    }
}
