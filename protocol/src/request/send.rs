//! Sending, sending back and ending a transaction.

use bytes::Bytes;
use sluice_model::{GroupName, LogOffset, Properties, QueueOffset, SysFlag, Timestamp, TopicName};

use crate::{
    Ext, FieldError, Frame, RequestCode,
    field::{Wire, parse, put, put_some, requests},
};

/// A message or a batch of messages to be stored (codes 10, 310 and 320).
///
/// Source: Apache RocketMQ `SendMessageRequestHeader`, `SendMessageRequestHeaderV2`.
#[derive(Clone, Debug, PartialEq)]
pub struct SendMessage {
    pub group: GroupName,
    pub topic: TopicName,
    /// The topic from which a missing one is to inherit.
    pub default_topic: String,
    /// How many queues a missing topic is to have.
    pub default_topic_queues: i32,
    /// Negative: any queue.
    pub queue: i32,
    pub sys_flag: SysFlag,
    pub born_at: Timestamp,
    /// The client's own flag, opaque to the broker.
    pub flag: i32,
    pub properties: Properties,
    pub reconsume_times: i32,
    pub unit_mode: bool,
    pub max_reconsume_times: Option<i32>,
    /// The body is a batch, see [`crate::batch`].
    pub batch: bool,
    /// Name of the broker that is meant, when the client says so.
    pub broker: Option<String>,
    pub body: Bytes,
}

#[derive(Default)]
struct Seen<'a> {
    group: Option<&'a str>,
    topic: Option<&'a str>,
    default_topic: Option<&'a str>,
    default_topic_queues: Option<&'a str>,
    queue: Option<&'a str>,
    sys_flag: Option<&'a str>,
    born_at: Option<&'a str>,
    flag: Option<&'a str>,
    properties: Option<&'a str>,
    reconsume_times: Option<&'a str>,
    unit_mode: Option<&'a str>,
    max_reconsume_times: Option<&'a str>,
    batch: Option<&'a str>,
    broker: Option<&'a str>,
}

impl<'a> Seen<'a> {
    /// Both spellings are taken whatever the code: the Go client sends batches with long names. They share no name.
    fn of(ext: &'a Ext) -> Self {
        let mut seen = Self::default();
        for (key, value) in ext.iter() {
            let field = match key {
                "a" | "producerGroup" => &mut seen.group,
                "b" | "topic" => &mut seen.topic,
                "c" | "defaultTopic" => &mut seen.default_topic,
                "d" | "defaultTopicQueueNums" => &mut seen.default_topic_queues,
                "e" | "queueId" => &mut seen.queue,
                "f" | "sysFlag" => &mut seen.sys_flag,
                "g" | "bornTimestamp" => &mut seen.born_at,
                "h" | "flag" => &mut seen.flag,
                "i" | "properties" => &mut seen.properties,
                "j" | "reconsumeTimes" => &mut seen.reconsume_times,
                "k" | "unitMode" => &mut seen.unit_mode,
                "l" | "maxReconsumeTimes" => &mut seen.max_reconsume_times,
                "m" | "batch" => &mut seen.batch,
                "n" | "bname" => &mut seen.broker,
                _ => continue,
            };
            field.get_or_insert(value);
        }
        seen
    }
}

fn must<T: Wire>(key: &'static str, text: Option<&str>) -> Result<T, FieldError> {
    parse(key, text.ok_or_else(|| FieldError::missing(key, T::EXPECTED))?)
}

fn may<T: Wire>(key: &'static str, text: Option<&str>) -> Result<Option<T>, FieldError> {
    text.filter(|text| !text.is_empty()).map(|text| parse(key, text)).transpose()
}

impl SendMessage {
    /// Reads the header's fields and takes the body.
    pub fn decode(frame: &Frame) -> Result<Self, FieldError> {
        let seen = Seen::of(&frame.header.ext);
        let batch: Option<bool> = may("batch", seen.batch)?;
        let properties = Properties::parse(seen.properties.unwrap_or_default().to_owned());
        Ok(Self {
            group: must("producerGroup", seen.group)?,
            topic: must("topic", seen.topic)?,
            default_topic: must("defaultTopic", seen.default_topic)?,
            default_topic_queues: must("defaultTopicQueueNums", seen.default_topic_queues)?,
            queue: must("queueId", seen.queue)?,
            sys_flag: SysFlag(must("sysFlag", seen.sys_flag)?),
            born_at: must("bornTimestamp", seen.born_at)?,
            flag: must("flag", seen.flag)?,
            properties: properties.map_err(|problem| FieldError::new("properties", problem.to_string()))?,
            reconsume_times: may("reconsumeTimes", seen.reconsume_times)?.unwrap_or(0),
            unit_mode: may("unitMode", seen.unit_mode)?.unwrap_or(false),
            max_reconsume_times: may("maxReconsumeTimes", seen.max_reconsume_times)?,
            batch: batch.unwrap_or(false) || RequestCode::from(frame.header.code) == RequestCode::SendBatch,
            broker: may("bname", seen.broker)?,
            body: frame.body.clone(),
        })
    }

    /// The frame to be sent, with short names (310, or 320 for a batch).
    pub fn encode(&self) -> Frame {
        let mut ext = Ext::with_capacity(160 + self.properties.as_bytes().len(), 14);
        ext.push_str("a", self.group.as_str());
        ext.push_str("b", self.topic.as_str());
        ext.push_str("c", &self.default_topic);
        put(&mut ext, "d", &self.default_topic_queues);
        put(&mut ext, "e", &self.queue);
        put(&mut ext, "f", &self.sys_flag.0);
        put(&mut ext, "g", &self.born_at);
        put(&mut ext, "h", &self.flag);
        ext.push_str("i", self.properties.as_str());
        put(&mut ext, "j", &self.reconsume_times);
        put(&mut ext, "k", &self.unit_mode);
        put_some(&mut ext, "l", &self.max_reconsume_times);
        put(&mut ext, "m", &self.batch);
        put_some(&mut ext, "n", &self.broker);
        let code = if self.batch { RequestCode::SendBatch } else { RequestCode::SendMessageShort };
        Frame::request(code, ext, self.body.clone())
    }
}

/// An answer to a message whose sender waits for it (codes 324 and 325); fields and body as of any message.
#[derive(Clone, Debug, PartialEq)]
pub struct SendReply(pub SendMessage);

impl SendReply {
    /// Reads the header's fields and takes the body.
    pub fn decode(frame: &Frame) -> Result<Self, FieldError> {
        SendMessage::decode(frame).map(Self)
    }
}

requests! {
    /// The broker hands an answer on to the client that waits for it. Source: Apache RocketMQ `ReplyMessageRequestHeader`.
    PushReply = PushReply (body: Bytes) {
        group: GroupName = must "producerGroup",
        topic: TopicName = must "topic",
        default_topic: String = must "defaultTopic",
        default_topic_queues: i32 = must "defaultTopicQueueNums",
        queue: i32 = must "queueId",
        sys_flag: i32 = must "sysFlag",
        born_at: Timestamp = must "bornTimestamp",
        flag: i32 = must "flag",
        /// As in a stored message.
        properties: Option<String> = may "properties",
        reconsume_times: Option<i32> = may "reconsumeTimes",
        unit_mode: bool = or(false) "unitMode",
        /// Address of who answered, `ip:port`.
        born_host: String = must "bornHost",
        /// Address of the broker, `ip:port`.
        store_host: String = must "storeHost",
        stored_at: Timestamp = must "storeTimestamp",
    }

    /// A consumer failed on a message and wants it again later.
    SendBack = SendBack {
        /// Where the message stands in the broker's log.
        offset: LogOffset = must "offset",
        group: GroupName = must "group",
        /// 0: the broker decides; negative: to the dead letters at once.
        delay_level: i32 = must "delayLevel",
        origin_message_id: Option<String> = may "originMsgId",
        origin_topic: Option<String> = may "originTopic",
        unit_mode: bool = or(false) "unitMode",
        max_reconsume_times: Option<i32> = may "maxReconsumeTimes",
    }

    /// A producer's decision about a half message.
    EndTransaction = EndTransaction {
        topic: Option<String> = may "topic",
        group: GroupName = must "producerGroup",
        /// Offset in the queue of half messages, as the answer to the send said.
        half_offset: QueueOffset = must "tranStateTableOffset",
        /// Where the half message stands in the log.
        log_offset: LogOffset = must "commitLogOffset",
        /// 0 not known yet, 8 commit, 12 rollback.
        decision: i32 = must "commitOrRollback",
        /// The decision answers the broker's question.
        from_check: bool = or(false) "fromTransactionCheck",
        message_id: Option<String> = may "msgId",
        transaction_id: Option<String> = may "transactionId",
    }

    /// A producer takes back a message that is not due yet.
    RecallMessage = RecallMessage {
        group: Option<String> = may "producerGroup",
        topic: TopicName = must "topic",
        /// From the answer to the send.
        handle: String = must "recallHandle",
    }

    /// The broker asks a producer about a half message; the body is the message as a stored record.
    CheckTransaction = CheckTransaction (body: Bytes) {
        topic: Option<String> = may "topic",
        half_offset: QueueOffset = must "tranStateTableOffset",
        log_offset: LogOffset = must "commitLogOffset",
        message_id: Option<String> = may "msgId",
        transaction_id: Option<String> = may "transactionId",
        /// Address and log position of the half message as text.
        stored_id: Option<String> = may "offsetMsgId",
        broker: Option<String> = may "bname",
    }
}
