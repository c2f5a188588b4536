//! The log of a broker and what is found by it: segments, consume queues, key index, checkpoints, recovery, retention.
//!
//! [`open`] gives five ends of one log, each for a thread of its own: the [`Appender`] stages and writes records, the
//! [`Syncer`] makes them durable, the [`Applier`] puts durable records into queues, key index and the broker's
//! [`Views`], the [`Checkpointer`] makes those durable now and then, and any number of [`Reader`]s read what was applied.
//! They meet in five watermarks only:
//! `appended >= durable >= readable >= checkpoint >= start`.
//!
//! The log is the one truth; everything else is rebuilt from it when it is missing or damaged. This room knows neither
//! what topics mean, nor the wire, nor the time. The format of the files and the rules of recovery: `README.md`.

mod appender;
mod applier;
mod bytes;
mod checkpoint;
mod checkpointer;
mod config;
mod disk;
mod error;
pub mod fake;
mod handles;
mod keys;
mod map;
mod mark;
mod queue;
mod queues;
mod reader;
mod real;
mod recover;
mod repair;
mod retain;
mod run;
mod scan;
mod segment;
mod shared;
mod syncer;
mod tail;
mod views;
mod watermarks;

pub use appender::{Appender, Placements, Written};
pub use applier::Applier;
pub use checkpointer::{Checkpointer, Draft};
pub use config::Config;
pub use disk::{Disk, File};
pub use error::Error;
pub use queue::Entry;
pub use reader::{Boundary, Reader};
pub use real::RealDisk;
pub use recover::{Opened, Recovery, open};
pub use retain::Retention;
pub use syncer::Syncer;
pub use views::{Applied, Views};
