//! The words of Sluice as types: names that carry their proof, offsets that cannot be mixed up, and the one byte layout
//! that storage and protocol share (a stored message is also what a consumer receives).
//!
//! This room knows no files, sockets, JSON, async or request codes.

mod error;
mod host;
pub mod limits;
mod message;
mod message_id;
mod name;
mod position;
mod properties;
pub mod record;
mod sys_flag;
mod tag;

pub use error::{Error, Kind};
pub use host::Host;
pub use message::Message;
pub use message_id::MessageId;
pub use name::{GroupName, TopicName};
pub use position::{LogOffset, QueueId, QueueOffset, Timestamp};
pub use properties::{Properties, key};
pub use record::RecordView;
pub use sys_flag::{Compression, SysFlag, Transaction};
pub use tag::{TagCode, java_hash};
