//! POP consumption: the broker hands messages out for a time, and who does not acknowledge them in time loses them.
//!
//! Source: Apache RocketMQ `PopMessageRequestHeader`, `AckMessageRequestHeader`, `ChangeInvisibleTimeRequestHeader`,
//! `NotificationRequestHeader`, `PollingInfoRequestHeader`, `ExtraInfoUtil`.

use std::{borrow::Cow, fmt};

use sluice_model::{GroupName, QueueId, QueueOffset, Timestamp, TopicName};

use crate::{
    body::{AssignmentQueryBody, BatchAckBody, RequestModeBody},
    field::{Wire, requests},
};

/// What a consumer shows to speak of a message that it popped (`extraInfo`, property `POP_CK`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Where the pop began in the queue.
    pub start: QueueOffset,
    pub popped_at: Timestamp,
    pub invisible_ms: i64,
    /// 999 for an ordered pop; says nothing otherwise.
    pub revive_queue: i32,
    pub retry: RetryFlag,
    pub broker: String,
    pub queue: QueueId,
    pub offset: QueueOffset,
}

/// Which topic a popped message is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryFlag {
    /// The topic itself.
    Normal,
    /// The group's retry topic for it (`%RETRY%group_topic`).
    Retry,
    /// The same in its newer form (`%RETRY%group+topic`), which Sluice does not hand out.
    RetryPlus,
}

impl RetryFlag {
    /// The digit on the wire.
    pub fn digit(self) -> char {
        match self {
            Self::Normal => '0',
            Self::Retry => '1',
            Self::RetryPlus => '2',
        }
    }

    /// Reads the digit on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Normal, Self::Retry, Self::RetryPlus].into_iter().find(|flag| text.chars().eq([flag.digit()]))
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, popped_at, invisible_ms, revive_queue, retry, broker, queue, offset } = self;
        write!(f, "{start} {popped_at} {invisible_ms} {revive_queue} {} {broker} {queue} {offset}", retry.digit())
    }
}

impl Wire for Handle {
    const EXPECTED: &'static str = "a receipt handle of 8 or 9 parts";

    fn read(text: &str) -> Option<Self> {
        // A ninth part, the offset in the log, comes with handles of the gRPC proxy.
        let mut parts = text.split(' ');
        let handle = Self {
            start: QueueOffset::read(parts.next()?)?,
            popped_at: Timestamp::read(parts.next()?)?,
            invisible_ms: i64::read(parts.next()?)?,
            revive_queue: i32::read(parts.next()?)?,
            retry: RetryFlag::parse(parts.next()?)?,
            broker: parts.next()?.to_owned(),
            queue: QueueId::read(parts.next()?)?,
            offset: QueueOffset::read(parts.next()?)?,
        };
        (parts.count() <= 1).then_some(handle)
    }

    fn write(&self) -> Cow<'_, str> {
        self.to_string().into()
    }
}

requests! {
    /// Messages for a time.
    PopMessage = PopMessage {
        group: GroupName = must "consumerGroup",
        topic: TopicName = must "topic",
        /// Negative: any queue.
        queue: i32 = must "queueId",
        max_messages: i32 = must "maxMsgNums",
        /// How long the messages stay hidden, ms.
        invisible_ms: i64 = must "invisibleTime",
        /// How long the broker may wait for messages, ms.
        poll_ms: i64 = must "pollTime",
        born_at: Timestamp = or(Timestamp(0)) "bornTime",
        /// Where a new group begins: 0 at the first message, 1 at the end.
        init_mode: i32 = must "initMode",
        /// `TAG` or `SQL92`; `None` means `TAG`.
        expression_type: Option<String> = may "expType",
        /// `None`: everything.
        expression: Option<String> = may "exp",
        order: bool = or(false) "order",
        /// Names the try, so that an ordered pop may be asked again.
        attempt: Option<String> = may "attemptId",
    }

    /// A popped message is consumed.
    AckMessage = AckMessage {
        group: GroupName = must "consumerGroup",
        /// The topic that the message is of, which may be a retry topic.
        topic: TopicName = must "topic",
        queue: i32 = must "queueId",
        handle: Handle = must "extraInfo",
        offset: QueueOffset = must "offset",
    }

    /// Several popped messages are consumed.
    BatchAck = BatchAck (body: BatchAckBody) {}

    /// A popped message is to stay hidden for another time from now on.
    ChangeInvisible = ChangeInvisible {
        group: GroupName = must "consumerGroup",
        /// The topic that the message is of, which may be a retry topic.
        topic: TopicName = must "topic",
        queue: i32 = must "queueId",
        handle: Handle = must "extraInfo",
        offset: QueueOffset = must "offset",
        /// Ms; 0: it comes again at once.
        invisible_ms: i64 = must "invisibleTime",
    }

    /// Tell when there is something to pop.
    Notification = Notification {
        group: GroupName = must "consumerGroup",
        topic: TopicName = must "topic",
        /// Negative: any queue.
        queue: i32 = must "queueId",
        /// How long the broker may wait for messages, ms.
        poll_ms: i64 = must "pollTime",
        born_at: Timestamp = or(Timestamp(0)) "bornTime",
        order: bool = or(false) "order",
        attempt: Option<String> = may "attemptId",
    }

    /// How many pops wait.
    PollingCount = PollingCount {
        group: GroupName = must "consumerGroup",
        topic: TopicName = must "topic",
        /// Negative: those for any queue.
        queue: i32 = must "queueId",
    }

    /// Which queues of a topic a client is to consume, and how.
    QueryAssignment = QueryAssignment (body: AssignmentQueryBody) {}

    /// How a group is to consume a topic.
    SetRequestMode = SetRequestMode (body: RequestModeBody) {}
}
