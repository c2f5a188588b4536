//! Fetching messages: by queue and offset, by key, by place in the log.

use sluice_model::{GroupName, LogOffset, QueueId, Timestamp, TopicName};

use crate::{
    FieldError, Frame, RequestCode,
    field::{fields, requests},
};

/// The request also commits `commit_offset`.
const COMMIT: i32 = 1;
/// The broker may hold the request until a message comes.
const SUSPEND: i32 = 2;
/// The subscription stands in the request.
const SUBSCRIPTION: i32 = 4;
const CLASS_FILTER: i32 = 8;

fields! {
    PullHeader {
        group: GroupName = must "consumerGroup",
        topic: TopicName = must "topic",
        queue: QueueId = must "queueId",
        /// Negative offsets are answered with the queue's bounds.
        offset: i64 = must "queueOffset",
        max_messages: i32 = must "maxMsgNums",
        sys_flag: i32 = must "sysFlag",
        commit_offset: i64 = must "commitOffset",
        suspend_ms: i64 = must "suspendTimeoutMillis",
        subscription: Option<String> = may "subscription",
        sub_version: i64 = must "subVersion",
        expression_type: Option<String> = may "expressionType",
        max_bytes: Option<i32> = may "maxMsgBytes",
    }
}

/// Messages of one queue from an offset on (codes 11 and 361).
///
/// Source: Apache RocketMQ `PullMessageRequestHeader`, `PullSysFlag`.
#[derive(Clone, Debug, PartialEq)]
pub struct PullMessage {
    pub group: GroupName,
    pub topic: TopicName,
    pub queue: QueueId,
    /// First offset wanted. Clients may send a negative one; it is below every queue.
    pub offset: i64,
    pub max_messages: i32,
    pub max_bytes: Option<i32>,
    /// Consumption has come to here; `None`: nothing to commit.
    pub commit: Option<i64>,
    /// How long the broker may wait for messages, ms; `None`: not at all.
    pub suspend_ms: Option<i64>,
    /// What is wanted, when the request says so itself; otherwise the group's heartbeat did.
    pub subscription: Option<String>,
    /// `TAG` or `SQL92`; `None` means `TAG`.
    pub expression_type: Option<String>,
    pub sub_version: i64,
    /// The (dead) class filter was asked for.
    pub class_filter: bool,
    /// Sent by a client that rebalances by itself and keeps no heartbeat subscription.
    pub lite: bool,
}

impl PullMessage {
    /// Reads the header's fields.
    pub fn decode(frame: &Frame) -> Result<Self, FieldError> {
        let header = PullHeader::from_ext(&frame.header.ext)?;
        let has = |bit: i32| header.sys_flag & bit != 0;
        Ok(Self {
            commit: has(COMMIT).then_some(header.commit_offset),
            suspend_ms: has(SUSPEND).then_some(header.suspend_ms),
            // An absent text with the bit set is an empty one, which means everything.
            subscription: has(SUBSCRIPTION).then(|| header.subscription.unwrap_or_default()),
            class_filter: has(CLASS_FILTER),
            group: header.group,
            topic: header.topic,
            queue: header.queue,
            offset: header.offset,
            max_messages: header.max_messages,
            max_bytes: header.max_bytes,
            expression_type: header.expression_type,
            sub_version: header.sub_version,
            lite: RequestCode::from(frame.header.code) == RequestCode::LitePull,
        })
    }

    /// The frame to be sent.
    pub fn encode(&self) -> Frame {
        let bit = |set: bool, bit: i32| if set { bit } else { 0 };
        let header = PullHeader {
            group: self.group.clone(),
            topic: self.topic.clone(),
            queue: self.queue,
            offset: self.offset,
            max_messages: self.max_messages,
            sys_flag: bit(self.commit.is_some(), COMMIT)
                | bit(self.suspend_ms.is_some(), SUSPEND)
                | bit(self.subscription.is_some(), SUBSCRIPTION)
                | bit(self.class_filter, CLASS_FILTER),
            commit_offset: self.commit.unwrap_or(0),
            suspend_ms: self.suspend_ms.unwrap_or(0),
            subscription: self.subscription.clone(),
            sub_version: self.sub_version,
            expression_type: self.expression_type.clone(),
            max_bytes: self.max_bytes,
        };
        let code = if self.lite { RequestCode::LitePull } else { RequestCode::PullMessage };
        Frame::request(code, header.to_ext(), bytes::Bytes::new())
    }
}

requests! {
    /// Messages by key, newest first.
    QueryMessage = QueryMessage {
        topic: TopicName = must "topic",
        key: String = must "key",
        max_messages: i32 = must "maxNum",
        begin: Timestamp = must "beginTimestamp",
        end: Timestamp = must "endTimestamp",
        /// The key is a message's unique id.
        unique: bool = or(false) "_UNIQUE_KEY_QUERY",
    }

    /// One message by its place in the log.
    ViewMessage = ViewMessage {
        topic: Option<String> = may "topic",
        offset: LogOffset = must "offset",
    }
}
