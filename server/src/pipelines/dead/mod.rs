//! The dead letters of a pipeline: which of them wait, and what became of the others.
//!
//! A letter is dealt with when it was replayed or purged; it stays in its topic, as every message of a log does. How far they are
//! dealt with is a position of a group, so that it goes when the topic goes; what is dealt with beyond it is a document. Both change
//! in one unit with what came of the letters.

mod dealing;
mod dealt;
mod groups;
mod purge;
mod replay;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_broker::{Position, Reader};
use sluice_model::{GroupName, Kind, QueueId, QueueOffset, TopicName};

pub(super) use dealing::Dealing;
pub use groups::ErrorGroup;
pub use purge::Purge;
pub use replay::{IDS_LIMIT, Replay, Which};

use crate::{
    failure::{Failure, Result},
    shell::Shell,
};
use dealt::Dealt;

/// Kind of the documents that say which letters are dealt with beyond the position, by pipeline.
const KIND: &str = "dead-letters";

/// The dead letters of one pipeline.
#[derive(Clone)]
pub struct DeadLetters {
    shell: Shell,
    pipeline: String,
    pub topic: TopicName,
    /// The pipeline's own group, whose dead letters they are.
    of: GroupName,
    /// The group under which it is kept how far they are dealt with.
    group: GroupName,
}

/// Which letters are dealt with, by queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(Vec<Dealt>);

/// What a document of [`KIND`] holds: stretches from and to, by queue.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    beyond: Vec<Vec<(u64, u64)>>,
}

impl Marks {
    fn of(&self, queue: QueueId) -> Option<&Dealt> {
        self.0.get(queue.0 as usize)
    }

    /// The first offset from `from` on that is not dealt with.
    pub fn next_open(&self, queue: QueueId, from: QueueOffset) -> QueueOffset {
        self.of(queue).map_or(from, |dealt| QueueOffset(dealt.next_open(from.0)))
    }

    pub fn holds(&self, queue: QueueId, offset: QueueOffset) -> bool {
        self.of(queue).is_some_and(|dealt| dealt.holds(offset.0))
    }

    fn document(&self) -> Result<Bytes> {
        let stored = Stored { beyond: self.0.iter().map(Dealt::beyond).collect() };
        let body = serde_json::to_vec(&stored).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        Ok(body.into())
    }
}

impl DeadLetters {
    pub(super) fn new(shell: Shell, pipeline: &str) -> Result<Self> {
        let of = GroupName::parse(&format!("pipeline-{pipeline}"))?;
        // No pipeline can have a bar in its name, so no pipeline's own group is this one.
        let group = GroupName::parse(&format!("pipeline-{pipeline}|dlq"))?;
        Ok(Self { shell, pipeline: pipeline.to_owned(), topic: TopicName::dead_letter_of(&of), of, group })
    }

    fn reader(&self) -> &Reader {
        &self.shell.reader
    }

    /// The queues of their topic; none before the first dead letter.
    fn queues(&self) -> impl Iterator<Item = QueueId> + use<> {
        let queues = self.reader().topic(&self.topic).map_or(0, |topic| topic.read_queues.max(topic.write_queues));
        (0..queues).map(QueueId)
    }

    fn position(&self, queue: QueueId) -> Option<QueueOffset> {
        self.reader().offset(&self.group, &self.topic, queue)
    }

    /// Offset behind the last letter.
    fn end(&self, queue: QueueId) -> u64 {
        self.reader().bounds(&self.topic, queue).1.0
    }

    pub fn marks(&self) -> Result<Marks> {
        let stored = match self.reader().document(KIND, &self.pipeline)? {
            Some((_, body)) => serde_json::from_slice::<Stored>(&body).map_err(|error| self.broken(&error))?,
            None => Stored::default(),
        };
        let dealt = self.queues().map(|queue| {
            let min = self.reader().bounds(&self.topic, queue).0.0;
            // Without a position the topic is another one than that which the document is about.
            let Some(position) = self.position(queue) else { return Dealt::new(min, []) };
            let beyond = stored.beyond.get(queue.0 as usize).into_iter().flatten();
            Dealt::new(position.0.max(min), beyond.copied())
        });
        Ok(Marks(dealt.collect()))
    }

    fn broken(&self, error: &serde_json::Error) -> Failure {
        let text = format!("what is known of the dead letters of \"{}\" cannot be read: {error}", self.pipeline);
        Failure::new(Kind::Corrupt, text)
    }

    /// How many are not dealt with.
    fn left(&self) -> Result<u64> {
        let marks = self.marks()?;
        Ok(self.queues().zip(&marks.0).map(|(queue, dealt)| dealt.open_before(self.end(queue))).sum())
    }

    /// Sets the position of every queue, and what is dealt with beyond.
    fn put_marks(&self, marks: &Marks) -> Result<()> {
        let position = |(queue, dealt): (usize, &Dealt)| Position {
            group: self.group.clone(),
            topic: self.topic.clone(),
            queue: QueueId(queue as u32),
            offset: QueueOffset(dealt.position()),
        };
        let positions: Vec<Position> = marks.0.iter().enumerate().map(position).collect();
        let (name, body) = (self.pipeline.clone(), marks.document()?);
        self.shell.ask_blocking(move |broker, now| broker.put_document_at((KIND, &name), body, &positions, now))?;
        Ok(())
    }
}
