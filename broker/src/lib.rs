//! The broker: the owner of the log and of everything derived from it.
//!
//! Synchronous: no sockets, no tasks, no clock (time is an argument). Four handles share one broker:
//!
//! - [`Broker`], the one writer: verbs stage records, [`Broker::write`] puts them into the log;
//! - [`Applier`], the one owner of the disk's side: makes what was written durable, then visible;
//! - [`Checkpointer`], which brings what the start-up needs to the disk, beside all that;
//! - [`Reader`], for everybody else, cheap to clone: fetches, positions, members.
//!
//! What the broker wants done outside it asks for as an [`Effect`].

mod admin;
mod append;
mod applier;
mod back;
mod broker;
mod codec;
mod config;
mod documents;
mod error;
mod filter;
mod groups;
mod halves;
mod leases;
mod locks;
mod members;
mod offsets;
mod open;
mod pop;
mod reader;
mod schedule;
mod sql;
mod stage;
mod state;
mod system;
mod timers;
mod topics;
mod transaction;
mod unique;
mod views;
mod waiters;

pub use append::{Send, Sent, check_batch};
pub use applier::Applier;
pub use back::Back;
pub use broker::{Broker, Effect};
pub use config::Config;
pub use documents::Document;
pub use error::{Error, Result};
pub use filter::Filter;
pub use groups::Group;
pub use halves::Half;
pub use members::{
    Changed, ConsumeModel, ConsumeType, ConsumerGroup, Heartbeat, Joined, Member, Members, SessionId, Subscription,
};
pub use offsets::Position;
pub use open::{Opened, open};
pub use pop::{Ahead, Leased, Pop, Popped, PoppedQueue, Seen};
pub use reader::{Fetch, FetchStatus, Fetched, Reader};
pub use schedule::LEVELS_MS;
/// Storage's own words that callers of the broker need.
pub use sluice_storage::{
    Boundary, Checkpointer, Config as StoreConfig, Disk, Draft, RealDisk, Recovery, Retention, Written,
};
pub use sql::{Expression, Incomparable};
pub use stage::StageUnit;
pub use system::{AUTO_CREATE_TOPIC, SYSTEM, is_state_topic, is_system, reply_topic, state_topic};
pub use timers::LONGEST_DELAY_MS;
pub use topics::{Durability, Permission, Topic, TopicKind, kind_text, parse_kind};
pub use transaction::{Decided, Decider, HalfCheck, Verdict};
pub use waiters::{Token, Wait};
