//! One queue of a pipeline's source, as the runtime's ports see it, and where a pipeline begins in it.

mod input;
mod message;
mod output;

use sluice_broker::{Position, Reader};
use sluice_model::{Kind, QueueId, QueueOffset, TopicName};
use sluice_runtime::ports::PortError;

pub(super) use input::{Input, to_record};
pub use message::later_id;
pub(super) use message::{FAILURE_KEYS, Origin, TIMER_KEY, check, dead_letter, outgoing};
pub(super) use output::{Output, ROOM};

use super::spec::{Checked, Start};
use crate::{
    failure::{Failure, Result},
    shell::Shell,
};

/// Where a pipeline begins in the queues of its source in which it has no position. When it has one in another, they are newer than it is, and all
/// that is in them is for it.
pub fn start_of(reader: &Reader, checked: &Checked) -> Start {
    let known = reader.offsets_of(&checked.group).iter().any(|position| position.topic == checked.topic);
    if known { Start::Earliest } else { checked.start }
}

/// The offset of a start in one queue.
pub fn first(
    reader: &Reader,
    topic: &TopicName,
    queue: QueueId,
    start: Start,
) -> std::result::Result<QueueOffset, PortError> {
    let (min, max) = reader.bounds(topic, queue);
    match start {
        Start::Earliest => Ok(min),
        Start::Latest => Ok(max),
        Start::At(time) => reader
            .offset_at_time(topic, queue, time, sluice_broker::Boundary::Lower)
            .map_err(|error| trouble(&error.into())),
    }
}

/// Where a pipeline begins that is to begin anew, in every queue of its source.
pub fn first_positions(shell: &Shell, checked: &Checked, start: Start) -> Result<Vec<Position>> {
    positions(shell, checked, |queue| first(&shell.reader, &checked.topic, queue, start))
}

/// Where a pipeline stands in every queue of its source, or begins where it is new.
pub fn standing(shell: &Shell, checked: &Checked) -> Result<Vec<Position>> {
    let reader = &shell.reader;
    let start = start_of(reader, checked);
    positions(shell, checked, |queue| match reader.offset(&checked.group, &checked.topic, queue) {
        Some(known) => Ok(known),
        None => first(reader, &checked.topic, queue, start),
    })
}

fn positions(
    shell: &Shell,
    checked: &Checked,
    at: impl Fn(QueueId) -> std::result::Result<QueueOffset, PortError>,
) -> Result<Vec<Position>> {
    let topic = shell.reader.topic(&checked.topic)?;
    let position = |queue| {
        let offset = at(queue).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        Ok(Position { group: checked.group.clone(), topic: checked.topic.clone(), queue, offset })
    };
    (0..topic.read_queues.max(topic.write_queues)).map(QueueId).map(position).collect()
}

/// What passes is tried again; what does not stops the stage.
pub fn trouble(failure: &Failure) -> PortError {
    match failure.kind {
        Kind::Busy | Kind::Full | Kind::Timeout => PortError::Busy(failure.text.clone()),
        _ => PortError::Failed(failure.text.clone()),
    }
}
