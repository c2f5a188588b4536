//! What a stage needs of its host: a source, a place to commit to, and where it stood; and what a plugin may be granted of it. All of them
//! may block their thread.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::batch::Record;
use crate::host::Context;

/// Why a port could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Try again soon: nothing was done.
    #[error("busy: {0}")]
    Busy(String),
    /// Trying again does not help.
    #[error("{0}")]
    Failed(String),
}

/// Reads one queue.
pub trait Source {
    /// Appends up to `max_records` records from offset `position` on to `into`, in offset order, and stops early after `max_bytes`. Gives the
    /// position to read from next, which may pass over records that the pipeline does not want. Never waits for new records.
    ///
    /// # Errors
    /// [`PortError`].
    fn read(
        &mut self,
        position: u64,
        max_records: usize,
        max_bytes: usize,
        into: &mut Vec<Record>,
    ) -> Result<u64, PortError>;
}

/// The changes of one queue's state, as they stand in the log, numbered from 0.
pub trait Changelog {
    /// Number of the first change that the log still holds, and the number behind the last one that is on its disk.
    ///
    /// # Errors
    /// [`PortError`].
    fn bounds(&self) -> Result<(u64, u64), PortError>;

    /// Some changes from this number on, in order; at least one when it is within the bounds.
    ///
    /// # Errors
    /// [`PortError`].
    fn read(&mut self, from: u64) -> Result<Vec<Bytes>, PortError>;
}

/// Where the stage stood.
pub trait Progress {
    /// The position of the last committed unit, or where a new stage starts.
    ///
    /// # Errors
    /// [`PortError`].
    fn load(&mut self) -> Result<u64, PortError>;
}

/// Takes what a turn made.
pub trait Sink {
    /// Makes the outputs, the dead letters, the change of the state and the new position real together, or none of them.
    ///
    /// # Errors
    /// [`PortError`]; then nothing of the unit was committed and the stage will make it again.
    fn commit(&mut self, unit: Unit) -> Result<(), PortError>;

    /// How much one unit takes.
    fn room(&self) -> Room {
        Room::default()
    }

    /// How much the next turn is to make, asked once for each.
    fn portion(&mut self) -> Portion {
        Portion::default()
    }

    /// Whether a record that a plugin made can be stored in a sink.
    ///
    /// # Errors
    /// Why not, as it is to stand in the dead letter.
    fn check(&self, _record: &Record) -> Result<(), Unfit> {
        Ok(())
    }

    /// How many changes of the state are on the log's disk; the file of a state must never be ahead of them. 0 where there is no state.
    fn durable_changes(&self) -> u64;

    /// The log lets go of the changes of the state before this one before long: what came of them is to be written to it again.
    fn fading_changes(&self) -> u64 {
        0
    }

    /// Waits until everything that was committed is on the log's disk. A stage asks for it when its state is to be written to its file, not
    /// after each unit.
    ///
    /// # Errors
    /// [`PortError`].
    fn settle(&mut self) -> Result<(), PortError> {
        Ok(())
    }
}

/// How much a unit takes besides a dead letter for each of its records. A turn that makes more ends before the record that is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub outputs: usize,
    /// Of all outputs together.
    pub bytes: usize,
    /// Of the change of the state.
    pub state: usize,
}

impl Default for Room {
    /// As much as there is memory.
    fn default() -> Self {
        Self { outputs: usize::MAX, bytes: usize::MAX, state: usize::MAX }
    }
}

/// Why no message can be made of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// What is too large, and how large it may be.
    TooLarge(String),
    /// What headers no message can have.
    Headers(String),
}

impl Unfit {
    /// The code that the record's dead letter has.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too-large",
            Self::Headers(_) => "bad-headers",
        }
    }

    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::TooLarge(reason) | Self::Headers(reason) => reason,
        }
    }
}

/// About how much a turn makes, unless a single record makes more: whoever else writes waits for a whole unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Dead letters among them.
    pub outputs: u64,
    /// Of all of these together, and of what processors write to their state.
    pub bytes: u64,
}

impl Default for Portion {
    /// 1,024 outputs and 2 MiB.
    fn default() -> Self {
        Self { outputs: 1_024, bytes: 2 * 1024 * 1024 }
    }
}

/// What stands or falls together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    pub outputs: Vec<Outgoing>,
    pub dead_letters: Vec<DeadLetter>,
    /// Where the source is read next.
    pub position: u64,
    /// The next change of the queue's state, if there is one.
    pub state: Option<Bytes>,
}

/// A record on its way to a sink. Its offset, times and, unless the plugins changed them, all of its bytes are the source record's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub record: Record,
    /// Which of the pipeline's sinks.
    pub sink: usize,
}

/// A source record that a plugin failed on for good, or a timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// As it was read, with its offset in the source queue. For a timer, its key and nothing else; the offset is that of the next record.
    pub record: Record,
    /// The timer's name, if it is one.
    pub timer: Option<String>,
    pub queue: u32,
    pub code: String,
    pub reason: String,
    pub step: String,
    /// Lower-case hexadecimal SHA-256 of the plugin.
    pub digest: String,
    /// Times it was tried.
    pub tries: u32,
}

/// A plugin's prefilter, evaluated outside of it.
pub trait Prefilter: Send + Sync {
    /// Whether the record is to enter the plugin.
    fn wants(&self, record: &Record) -> bool;
}

/// Reads messages of a topic by key.
pub trait Lookup: Send + Sync {
    /// The newest messages with this key, newest first, at most `limit` (1 to 100). The runtime has already checked that the topic is
    /// granted.
    ///
    /// # Errors
    /// [`PortError`], whose text the plugin gets.
    fn by_key(&self, topic: &str, key: &str, limit: u32) -> Result<Vec<Hit>, PortError>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    pub queue: u32,
    pub offset: u64,
    /// Broker's time, milliseconds since 1970.
    pub stored_at: u64,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Gives plugins their secrets.
pub trait Secrets: Send + Sync {
    /// The value as it is now. The runtime has already checked that it is granted, and asks until an
    /// instance has it.
    ///
    /// # Errors
    /// [`PortError`], whose text the plugin gets.
    fn read(&self, name: &str) -> Result<Secret, PortError>;
}

/// A text that is shown to nobody but the plugin that it was granted to.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Sends requests to other servers.
pub trait Http: Send + Sync {
    /// Sends one request to its URL, and nowhere else: a redirect is an answer like others. The runtime has already checked that the URL and
    /// the method are granted. Takes no longer than `within`, from looking up the server's name to the last byte of the answer.
    ///
    /// # Errors
    /// [`PortError::Failed`], whose text the plugin gets; also when the answer is larger than [`HttpResponse`] may be, of which no more is
    /// read then. [`PortError::Busy`] when nothing is to be sent now: the plugin's call ends, and is made again later.
    fn send(&self, request: &HttpRequest, within: Duration) -> Result<HttpResponse, PortError>;
}

#[derive(Clone, Default, PartialEq, Eq)]
pub struct HttpRequest {
    pub method: String,
    /// In its normal form.
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl fmt::Debug for HttpRequest {
    /// Query, header values and body may hold what is nobody else's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.url.split('?').next().unwrap_or_default();
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "HttpRequest({} {place}, headers {names:?}, {} bytes)", self.method, self.body.len())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpResponse {
    pub status: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// Most bytes of a body.
    pub const MAX_BODY: usize = 1024 * 1024;
    pub const MAX_HEADERS: usize = 64;
    /// Most bytes of all headers together.
    pub const MAX_HEADER_BYTES: usize = 16 * 1024;
}

/// Hears what plugins do with what they were granted, on the thread that calls them.
pub trait Audit: Send + Sync {
    fn used(&self, context: &Context, of: &Use<'_>);
}

/// One use of what was granted. Of the requests and secrets of one call that came to nothing, the first 16 are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use<'a> {
    Request {
        method: &'a str,
        /// Without its query; empty when it is none.
        url: &'a str,
        /// The answer's status, or why there is none.
        outcome: Result<u16, &'a str>,
        took: Duration,
        /// Bytes of the request's body.
        sent: u64,
        /// Bytes of the answer's body.
        received: u64,
    },
    /// That an instance got it, which is once; or that it was not to be had, with the reason.
    Secret { name: &'a str, outcome: Result<(), &'a str> },
    /// Look-ups of one call into the plugin, and how many of them were refused.
    Lookups { count: u32, refused: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!("{:?}", Some(Secret::new("hunter2".into())));
        assert_eq!(shown, "Some(Secret(hidden))");
        let request = HttpRequest {
            method: "GET".into(),
            url: "https://a/b?key=hunter2".into(),
            headers: vec![("authorization".into(), "hunter2".into())],
            body: b"hunter2".to_vec(),
        };
        assert_eq!(format!("{request:?}"), "HttpRequest(GET https://a/b, headers [\"authorization\"], 7 bytes)");
    }
}
