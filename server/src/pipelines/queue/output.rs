//! Where a stage writes, and how far it came.

use sluice_broker::{Broker, Position, Reader, StageUnit, Token};
use sluice_model::{GroupName, QueueId, QueueOffset, TopicName, limits};
use sluice_runtime::{
    Batch, Record,
    ports::{PortError, Portion, Progress, Room, Sink, Unfit, Unit},
};

use super::{
    Checked, Start, first,
    message::{self, Origin, dead_letter, outgoing},
    trouble,
};
use crate::{clock, pipelines::state::States, priority, shell::Shell};

/// The most that a turn makes: its outputs, its dead letters and what goes with them are one unit. Entries that expire, and timers that
/// are taken out, are part of the change of the state besides.
pub const ROOM: Room = Room {
    outputs: limits::UNIT_RECORDS - Batch::MAX_RECORDS as usize - 3,
    bytes: 8 * limits::BODY_LEN,
    state: limits::SYSTEM_BODY_LEN - 4 * 1024 * 1024,
};

/// Where a stage writes, and how far it came.
pub struct Output {
    shell: Shell,
    group: GroupName,
    topic: TopicName,
    queue: QueueId,
    start: Start,
    sinks: Vec<TopicName>,
    dead_letters: TopicName,
    /// The topic that holds the changes of the stage's state, if it has one.
    state: Option<TopicName>,
    /// Where the last committed unit ended.
    position: QueueOffset,
}

impl Output {
    /// `start` is that of [`start_of`].
    pub fn new(shell: Shell, checked: &Checked, queue: QueueId, start: Start, state: Option<TopicName>) -> Self {
        Self {
            shell,
            state,
            group: checked.group.clone(),
            topic: checked.topic.clone(),
            queue,
            start,
            sinks: checked.sinks.clone(),
            dead_letters: TopicName::dead_letter_of(&checked.group),
            position: QueueOffset(0),
        }
    }

    pub fn id(&self) -> QueueId {
        self.queue
    }

    /// Messages of the source that were not read yet.
    pub fn lag(&self) -> u64 {
        self.shell.reader.bounds(&self.topic, self.queue).1.0.saturating_sub(self.position.0)
    }

    /// Asks to be woken under `token` by the next message; `false` when one is there already.
    pub fn wait(&self, token: Token) -> bool {
        self.shell.reader.wait(&self.topic, self.queue, self.position, token)
    }

    fn reader(&self) -> &Reader {
        &self.shell.reader
    }
}

impl Progress for Output {
    fn load(&mut self) -> Result<u64, PortError> {
        let known = self.reader().offset(&self.group, &self.topic, self.queue);
        self.position = match known {
            Some(known) => known,
            None => {
                let first = first(self.reader(), &self.topic, self.queue, self.start)?;
                let position =
                    Position { group: self.group.clone(), topic: self.topic.clone(), queue: self.queue, offset: first };
                self.reader().commit_offset(position).map_err(|error| trouble(&error.into()))?;
                first
            }
        };
        Ok(self.position.0)
    }
}

impl Sink for Output {
    fn commit(&mut self, unit: Unit) -> Result<(), PortError> {
        let mut seen = None;
        let mut outputs = Vec::with_capacity(unit.outputs.len() + unit.dead_letters.len());
        for out in unit.outputs {
            outputs.push(outgoing(&self.group, &self.sinks, self.queue, &out, &mut seen)?);
        }
        for dead in &unit.dead_letters {
            let (offset, tries) = (dead.record.offset, dead.tries);
            let origin = Origin { topic: self.topic.to_string(), queue: self.queue, offset, tries };
            outputs.push(dead_letter(self.dead_letters.clone(), dead, &origin)?);
        }
        let next = QueueOffset(unit.position);
        let staged = StageUnit {
            group: self.group.clone(),
            topic: self.topic.clone(),
            queue: self.queue,
            from: self.position,
            next,
            outputs,
            state: self.state.clone().zip(unit.state).map(|(topic, change)| (topic, self.queue, change)),
            document: None,
        };
        let with_dead_letters = !unit.dead_letters.is_empty();
        let group = self.group.clone();
        // A crash before it is on disk takes outputs, state and position together: the records are read again.
        let commit = move |broker: &mut Broker, now| {
            if with_dead_letters {
                broker.dead_letter_topic(&group, now)?;
            }
            broker.commit_stage(staged, now)
        };
        let committed = priority::upright(|| self.shell.ask_blocking_async(commit));
        committed.map_err(|failure| trouble(&failure))?;
        self.position = next;
        Ok(())
    }

    fn room(&self) -> Room {
        ROOM
    }

    fn portion(&mut self) -> Portion {
        self.shell.portion()
    }

    fn check(&self, record: &Record) -> Result<(), Unfit> {
        message::check(record)
    }

    fn durable_changes(&self) -> u64 {
        let durable = |topic| priority::upright(|| States::durable(self.reader(), topic, self.queue));
        self.state.as_ref().map_or(0, durable)
    }

    fn fading_changes(&self) -> u64 {
        let now = clock::now();
        let fading = |topic| States::fading(self.reader(), topic, self.queue, &self.shell.retention, now);
        self.state.as_ref().map_or(0, |topic| priority::upright(|| fading(topic)))
    }

    fn settle(&mut self) -> Result<(), PortError> {
        priority::upright(|| self.shell.ask_blocking(|_, _| Ok(()))).map_err(|failure| trouble(&failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::tests;

    #[test]
    fn what_a_turn_is_to_make_depends_on_what_others_send_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let shell = tests::start(dir.path());
        tests::make(&shell, sluice_broker::Durability::Async);
        let (group, topic) = (GroupName::parse("pipeline-p").unwrap(), tests::topic());
        let mut output = Output {
            shell: shell.standing_back(),
            dead_letters: TopicName::dead_letter_of(&group),
            group,
            topic,
            queue: QueueId(0),
            start: Start::Earliest,
            sinks: Vec::new(),
            state: None,
            position: QueueOffset(0),
        };
        let send = |shell: &Shell, count| {
            (0..count).for_each(|n: u32| shell.send(tests::one(n.to_string()), |sent, _| drop(sent.unwrap())));
        };
        send(&output.shell, 300);
        assert_eq!(output.portion(), Portion::default(), "nobody else sends");
        send(&shell, 300);
        let beside = output.portion();
        assert!((beside.outputs, beside.bytes < Portion::default().bytes) == (600, true), "{beside:?}");
        assert!(output.portion().outputs < 100);
        shell.work();
        shell.stop();
    }
}
