//! How groups consume topics (by pull or by POP), and which queues each member gets.
//!
//! Source: Apache RocketMQ `QueryAssignmentProcessor`, `AllocateMessageQueueAveragely`,
//! `AllocateMessageQueueAveragelyByCircle`.

use std::collections::{BTreeMap, BTreeSet};

use sluice_broker::{Permission, Reader, is_system};
use sluice_model::{GroupName, Kind, TopicName};
use sluice_protocol::{
    Response,
    body::{
        AssignedQueue, Assignment, AssignmentQueryBody, AssignmentsBody, MessageModel, RequestMode, RequestModeBody,
    },
    request::{QueryAssignment, SetRequestMode},
};
use sluice_transport::Responder;

use super::{Door, answer, failed};
use crate::{
    failure::{Failure, Result},
    server::Parts,
};

/// Kind of the documents that say how a group consumes a topic.
const DOCUMENT: &str = "request-mode";
/// In place of a queue: any of a broker's.
const ANY_QUEUE: i32 = -1;

impl Door {
    /// Records how a group is to consume a topic. Members find out with their next question for their part.
    pub(super) fn set_request_mode(&self, request: SetRequestMode, responder: Responder) {
        let body = request.body;
        let name = match self.mode_name(&body) {
            Ok(name) => name,
            Err(failure) => return responder.send(failed(&failure)),
        };
        let verb = move |broker: &mut sluice_broker::Broker, now| {
            broker.put_document(DOCUMENT, &name, body.mode.as_str(), body.to_json().into(), now).map(drop)
        };
        self.parts.shell.call(verb, |result| responder.send(answer(result.map(|()| Response::ok()))));
    }

    fn mode_name(&self, body: &RequestModeBody) -> Result<String> {
        let (topic, group) = (TopicName::parse(&body.topic)?, GroupName::parse(&body.consumer_group)?);
        if topic.is_retry() || is_system(topic.as_str()) {
            return Err(Failure::new(Kind::Denied, format!("topic {topic:?} is consumed by pull only")));
        }
        self.parts.shell.reader.topic(&topic)?;
        if !self.parts.shell.reader.knows_group(&group) {
            return Err(Failure::not_found("group", &group));
        }
        Ok(name_of(&topic, &group))
    }

    pub(super) fn query_assignment(&self, request: QueryAssignment, responder: Responder) {
        let parts = self.parts.clone();
        tokio::spawn(async move {
            let assignments = assignments(&parts, &request.body).await;
            responder.send(answer(assignments.map(|assignments| {
                let body = AssignmentsBody { message_queue_assignments: assignments };
                Response::ok().with_body(body.to_json())
            })));
        });
    }
}

/// A queue of a topic, wherever it is: broker and number, in the order in which they are shared out.
type Place = (String, i32);

/// `None` when a client is to keep what it has: the topic, the group's members or the strategy are not known.
async fn assignments(parts: &Parts, query: &AssignmentQueryBody) -> Result<Option<Vec<Assignment>>> {
    let (topic, group) = (TopicName::parse(&query.topic)?, GroupName::parse(&query.consumer_group)?);
    let reader = &parts.shell.reader;
    let mode = request_mode(reader, &topic, &group)?;
    let Some(queues) = places(parts, &topic).await else { return Ok(None) };
    let members =
        reader.members(|members| members.group(&group).map(|group| group.members.keys().cloned().collect::<Vec<_>>()));
    let assigned = match (query.message_model, members) {
        (MessageModel::Broadcasting, _) => Some(queues),
        (MessageModel::Clustering, None) => None,
        (MessageModel::Clustering, Some(members)) => {
            let share = (mode.mode == RequestMode::Pop).then(|| usize::try_from(mode.pop_share_queue_num).unwrap_or(0));
            if share.is_some_and(|share| share == 0 || share + 1 >= members.len()) {
                let brokers: BTreeSet<String> = queues.into_iter().map(|(broker, _)| broker).collect();
                Some(brokers.into_iter().map(|broker| (broker, ANY_QUEUE)).collect())
            } else {
                let part = part(&query.strategy_name, &members, &query.client_id, queues.len(), share.unwrap_or(0));
                part.map(|part| part.into_iter().filter_map(|at| queues.get(at).cloned()).collect())
            }
        }
    };
    let assignment = |(broker_name, queue_id): Place| Assignment {
        message_queue: AssignedQueue { broker_name, queue_id, topic: topic.to_string() },
        mode: mode.mode,
    };
    Ok(assigned.map(|queues| queues.into_iter().map(assignment).collect()))
}

/// The readable queues of a topic: this broker's, and those of other brokers as the name servers know them. `None` when
/// nobody knows the topic.
async fn places(parts: &Parts, topic: &TopicName) -> Option<Vec<Place>> {
    let own = &parts.shell.reader.config().name;
    let route = parts.registrar.route(topic).await;
    let known = parts.shell.reader.topic(topic).ok();
    if route.is_none() && known.is_none() {
        return None;
    }
    let others =
        route.map(|route| route.queues).unwrap_or_default().into_iter().filter(|queues| queues.broker_name != *own);
    let mut counts: BTreeMap<String, u32> = others
        .filter(|queues| Permission(queues.perm).readable())
        .map(|queues| (queues.broker_name, queues.read_queue_nums))
        .collect();
    if let Some(known) = known.filter(|known| known.permission.readable()) {
        counts.insert(own.clone(), known.read_queues);
    }
    let queues = counts.into_iter().flat_map(|(broker, count)| (0..count).map(move |queue| (broker.clone(), queue)));
    Some(queues.map(|(broker, queue)| (broker, i32::try_from(queue).unwrap_or(i32::MAX))).collect())
}

/// What was recorded, or by pull.
fn request_mode(reader: &Reader, topic: &TopicName, group: &GroupName) -> Result<RequestModeBody> {
    if let Some((_, body)) = reader.document(DOCUMENT, &name_of(topic, group))? {
        return RequestModeBody::from_json(&body)
            .map_err(|error| Failure::new(Kind::Corrupt, format!("the recorded request mode: {error}")));
    }
    Ok(RequestModeBody {
        topic: topic.to_string(),
        consumer_group: group.to_string(),
        mode: RequestMode::Pull,
        pop_share_queue_num: 0,
    })
}

fn name_of(topic: &TopicName, group: &GroupName) -> String {
    format!("{topic}@{group}")
}

/// The queues of a member and of the `share` members behind it; `None` for an unknown strategy.
fn part(strategy: &str, members: &[String], client: &str, queues: usize, share: usize) -> Option<Vec<usize>> {
    let allot = match strategy {
        "AVG" => by_blocks,
        "AVG_BY_CIRCLE" => by_turns,
        _ => return None,
    };
    let Some(at) = members.iter().position(|member| member == client) else { return Some(Vec::new()) };
    // More members than queues share them one by one, so that nobody is left out.
    if share > 0 && members.len() > queues {
        return Some(if queues > 0 { vec![at % queues] } else { Vec::new() });
    }
    let whose = (at..=at + share).map(|member| member % members.len());
    Some(whose.flat_map(|member| allot(member, members.len(), queues)).collect())
}

/// Neighbouring queues; the first members get one more when they cannot be shared out evenly.
fn by_blocks(member: usize, members: usize, queues: usize) -> Vec<usize> {
    let (each, more) = (queues / members, queues % members);
    let start = member * each + member.min(more);
    (start..start + each + usize::from(member < more)).collect()
}

/// One queue each in turn.
fn by_turns(member: usize, members: usize, queues: usize) -> Vec<usize> {
    (member..queues).step_by(members).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_one_member_and_shared_ones_have_more() {
        let members = ["a", "b", "c"].map(str::to_owned);
        let of = |strategy, client, queues, share| part(strategy, &members, client, queues, share);
        assert_eq!(of("AVG", "a", 8, 0), Some(vec![0, 1, 2]));
        assert_eq!(of("AVG", "c", 8, 0), Some(vec![6, 7]));
        assert_eq!(of("AVG", "c", 2, 0), Some(vec![]));
        assert_eq!(of("AVG_BY_CIRCLE", "b", 8, 0), Some(vec![1, 4, 7]));
        assert_eq!(of("AVG", "c", 6, 1), Some(vec![4, 5, 0, 1]));
        assert_eq!(of("AVG", "c", 2, 1), Some(vec![0]));
        assert_eq!(of("AVG", "x", 2, 0), Some(vec![]));
        assert_eq!(of("CONFIG", "a", 2, 0), None);
    }
}
