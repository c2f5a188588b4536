//! Every numeric limit of the platform that is not a matter of configuration.

/// Longest name of a user's topic, bytes (Apache RocketMQ `TopicValidator`).
pub const TOPIC_NAME_LEN: usize = 127;
/// Longest name of a topic derived from a group (`%RETRY%`, `%DLQ%`), bytes.
pub const DERIVED_TOPIC_NAME_LEN: usize = 255;
/// Longest name of a group, bytes: what still fits behind `%RETRY%`.
pub const GROUP_NAME_LEN: usize = DERIVED_TOPIC_NAME_LEN - "%RETRY%".len();
/// Largest body of a client's message, bytes (`maxMessageSize`).
pub const BODY_LEN: usize = 4 * 1024 * 1024;
/// Largest property string of a client's message, bytes: its length is an i16 on disk, and the store adds its own.
pub const PROPERTIES_LEN: usize = 32_767 - record_suffix();
/// Largest body of a system record (a plugin's component, a pipeline), bytes.
pub const SYSTEM_BODY_LEN: usize = 16 * 1024 * 1024;
/// Largest stored record, bytes.
pub const RECORD_LEN: usize = SYSTEM_BODY_LEN + 64 * 1024;
/// Most records in one unit.
pub const UNIT_RECORDS: usize = 9_999;
/// Most queues of one topic.
pub const TOPIC_QUEUES: u32 = 1_024;
/// Largest remoting frame, bytes (`com.rocketmq.remoting.frameMaxLength`).
pub const FRAME_LEN: usize = 16 * 1024 * 1024;
/// Most messages in one client batch.
pub const BATCH_MESSAGES: usize = 4_096;
/// Most messages in one answer to a pull (`pullBatchMaxMessageCount`).
pub const PULL_MESSAGES: u32 = 160;
/// Most bytes in one answer to a pull.
pub const PULL_BYTES: usize = 4 * 1024 * 1024;
/// Most messages in one answer to a pop (Apache RocketMQ `PopMessageProcessor`).
pub const POP_MESSAGES: u32 = 32;
/// Longest time that a popped message stays hidden, ms: 12 hours.
pub const INVISIBLE_MS: i64 = 12 * 60 * 60 * 1_000;
/// Most messages of one queue that one group has popped and not acknowledged.
pub const LEASED_OF_QUEUE: usize = 20_000;
/// Most messages of a broker that are popped and not acknowledged.
pub const LEASED: usize = 1_000_000;
/// Most messages acknowledged by one request.
pub const ACKED_MESSAGES: usize = 65_536;
/// Most requests of one connection that wait for messages.
pub const HELD_OF_CONNECTION: usize = 16_384;
/// Most requests of one consumer group that wait for messages.
pub const HELD_OF_GROUP: usize = 65_536;
/// Most requests of a broker that wait for messages.
pub const HELD: usize = 262_144;
/// Most messages in one answer to a query by key.
pub const QUERY_MESSAGES: usize = 64;

const fn record_suffix() -> usize {
    crate::record::SUFFIX_LEN
}

const _: () = assert!(RECORD_LEN < i32::MAX as usize);
const _: () = assert!(PROPERTIES_LEN + record_suffix() <= i16::MAX as usize);
const _: () = assert!(BODY_LEN < SYSTEM_BODY_LEN);
