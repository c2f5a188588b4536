//! Clients' presence: heartbeats, membership, locks, and how far groups have come.

use sluice_broker::{ConsumeModel, ConsumeType, Heartbeat, Joined, Position, Subscription};
use sluice_model::{GroupName, QueueId, QueueOffset, TopicName};
use sluice_protocol::{
    Frame, Response, ResponseCode, body, reply,
    request::{
        self, CheckClientConfig, ConsumerList, LockQueues, QueryConsumerOffset, ResetOffset, UnlockQueues,
        UnregisterClient, UpdateConsumerOffset,
    },
};
use sluice_transport::{Responder, Session};

use super::{Door, answer, failed, pull::parse_filter, sessions};
use crate::{
    clock,
    failure::{Failure, Result},
};

impl Door {
    pub(super) fn heartbeat(
        &self,
        session: &Session,
        frame: &Frame,
        request: request::Heartbeat,
        responder: Responder,
    ) {
        let heartbeat = match to_heartbeat(session, frame, request.body) {
            Ok(heartbeat) => heartbeat,
            Err(failure) => return responder.send(failed(&failure)),
        };
        let groups: Vec<GroupName> = heartbeat.consumers.iter().map(|joined| joined.group.clone()).collect();
        let changed = self.parts.shell.reader.heartbeat(sessions::id(session), heartbeat, clock::now());
        self.parts.sessions.tell(changed);
        // A pipeline's group has no settings: whoever reads under its name makes none.
        let is_unknown =
            |group: &GroupName| !self.parts.shell.reader.knows_group(group) && !self.parts.is_pipelines(group.as_str());
        let unknown: Vec<GroupName> = groups.into_iter().filter(is_unknown).collect();
        let reply = reply::HeartbeatReply { heartbeat_with_fingerprint: true, subscription_changed: true };
        let response = Response::ok().with_ext(reply.encode());
        if unknown.is_empty() {
            return responder.send(response);
        }
        // The group's retry topic must have a route before its members look for one.
        let verb = move |broker: &mut sluice_broker::Broker, now| {
            unknown.iter().try_for_each(|group| broker.ensure_group(group, now).map(drop))
        };
        self.parts.shell.call(verb, |result| responder.send(answer(result.map(|()| response))));
    }

    pub(super) fn unregister_client(&self, request: UnregisterClient) -> Response {
        let (producer, consumer) = (request.producer_group.as_ref(), request.consumer_group.as_ref());
        let changed = self.parts.shell.reader.leave(&request.client_id, producer, consumer);
        self.parts.sessions.tell(changed);
        Response::ok()
    }

    pub(super) fn consumer_list(&self, request: ConsumerList) -> Response {
        let consumers = self.parts.shell.reader.members(|members| {
            members.group(&request.group).map(|group| group.members.keys().cloned().collect::<Vec<_>>())
        });
        match consumers {
            Some(consumers) => Response::ok().with_body(body::ConsumerListBody { consumers }.to_json()),
            // What Apache answers: clients take it as "no members".
            None => Response::error(ResponseCode::SystemError, format!("group {:?} has no member", request.group)),
        }
    }

    pub(super) fn check_client_config(&self, request: CheckClientConfig) -> Response {
        let subscription = request.body.subscription;
        let checked = parse_filter(&subscription.sub_string, Some(&subscription.expression_type));
        answer(checked.map(|_| Response::ok()))
    }

    pub(super) fn lock_queues(&self, request: LockQueues) -> Response {
        answer(to_queues(&request.body).map(|(group, queues)| {
            let locked = self.parts.shell.reader.lock_queues(&group, &request.body.client_id, queues, clock::now());
            let broker = &self.parts.shell.reader.config().name;
            let locked = locked.into_iter().map(|(topic, queue)| body::QueueRef::new(topic.as_str(), broker, queue));
            Response::ok().with_body(body::LockedBody { locked: locked.collect() }.to_json())
        }))
    }

    pub(super) fn unlock_queues(&self, request: UnlockQueues) -> Response {
        answer(to_queues(&request.body).map(|(group, queues)| {
            self.parts.shell.reader.unlock_queues(&group, &request.body.client_id, &queues);
            Response::ok()
        }))
    }

    pub(super) fn query_consumer_offset(&self, request: QueryConsumerOffset) -> Response {
        let reader = &self.parts.shell.reader;
        if let Err(error) = reader.check_queue(&request.topic, request.queue) {
            return failed(&error.into());
        }
        let (_, max) = reader.bounds(&request.topic, request.queue);
        let offset = match reader.offset(&request.group, &request.topic, request.queue) {
            // Behind the log's start there is nothing; the pull that follows says where it begins.
            Some(offset) => offset.min(max),
            // A group that is new to a queue whose first message is still young begins there, as with Apache.
            None if request.zero_if_unknown != Some(false) && reader.is_young(&request.topic, request.queue) => {
                QueueOffset(0)
            }
            None => {
                let text = format!("group {:?} has no offset in this queue", request.group);
                return Response::error(ResponseCode::QueryNotFound, text);
            }
        };
        offset_response(offset)
    }

    pub(super) fn update_consumer_offset(&self, request: UpdateConsumerOffset) -> Response {
        let UpdateConsumerOffset { group, topic, queue, offset } = request;
        let committed = self.parts.not_pipelines(&group).and_then(|()| {
            let position = Position { group, topic, queue, offset };
            Ok(self.parts.shell.reader.commit_offset(position)?)
        });
        answer(committed.map(|()| Response::ok()))
    }

    /// Moves a group to a time or an offset; connected members go on from there with their next pull.
    pub(super) fn reset_offset(&self, request: ResetOffset) -> Response {
        answer(self.reset(&request).map(|offsets| {
            Response::ok().with_body(body::ResetOffsetBody { offsets: body::QueueTable(offsets) }.to_json())
        }))
    }

    pub(crate) fn reset(&self, request: &ResetOffset) -> Result<Vec<(body::QueueRef, i64)>> {
        self.parts.not_pipelines(&request.group)?;
        let reader = &self.parts.shell.reader;
        let topic = reader.topic(&request.topic)?;
        if !reader.knows_group(&request.group) {
            return Err(Failure::not_found("group", &request.group));
        }
        let queues = match u32::try_from(request.queue) {
            Ok(queue) => queue..queue + 1,
            Err(_) => 0..topic.read_queues,
        };
        let mut moved = Vec::new();
        for queue in queues.map(QueueId) {
            let offset = self.reset_target(request, queue)?;
            let position = Position { group: request.group.clone(), topic: request.topic.clone(), queue, offset };
            reader.commit_offset(position)?;
            let queue = body::QueueRef::new(request.topic.as_str(), &reader.config().name, queue);
            moved.push((queue, super::query::signed(offset)));
        }
        self.tell_reset(request, &moved);
        Ok(moved)
    }

    fn reset_target(&self, request: &ResetOffset, queue: QueueId) -> Result<QueueOffset> {
        let reader = &self.parts.shell.reader;
        let (min, max) = reader.bounds(&request.topic, queue);
        if let Some(offset) = request.offset.and_then(|offset| u64::try_from(offset).ok()) {
            return Ok(QueueOffset(offset).clamp(min, max));
        }
        if request.time.0 < 0 {
            return Ok(max);
        }
        let boundary = sluice_broker::Boundary::Lower;
        Ok(reader.offset_at_time(&request.topic, queue, request.time, boundary)?.clamp(min, max))
    }

    /// Tells connected members, which else would write their old offset over the new one.
    fn tell_reset(&self, request: &ResetOffset, moved: &[(body::QueueRef, i64)]) {
        let members = self.parts.shell.reader.members(|members| {
            members.group(&request.group).map(|group| group.members.values().map(|m| m.session).collect::<Vec<_>>())
        });
        let notice = request::ResetConsumer {
            topic: request.topic.to_string(),
            group: request.group.clone(),
            time: request.time,
            force: request.force,
            body: body::ResetOffsetBody { offsets: body::QueueTable(moved.to_vec()) },
        };
        for session in members.unwrap_or_default().into_iter().filter_map(|id| self.parts.sessions.get(id)) {
            sessions::notify(&session, notice.encode());
        }
    }

    pub(super) fn clone_offsets(&self, request: request::CloneOffsets) -> Response {
        if let Err(failure) = self.parts.not_pipelines(&request.to) {
            return failed(&failure);
        }
        let reader = &self.parts.shell.reader;
        let wanted = request.topic.filter(|topic| !topic.is_empty());
        let positions = reader.offsets_of(&request.from);
        let positions =
            positions.into_iter().filter(|known| wanted.as_deref().is_none_or(|topic| known.topic.as_str() == topic));
        let moved = positions.map(|known| reader.commit_offset(Position { group: request.to.clone(), ..known }));
        match moved.collect::<sluice_broker::Result<Vec<()>>>() {
            Ok(_) => Response::ok(),
            Err(error) => failed(&error.into()),
        }
    }

    pub(super) fn all_consumer_offsets(&self) -> Response {
        let reader = &self.parts.shell.reader;
        let mut table = body::ConsumerOffsetsBody::default();
        for position in reader.groups_with_offsets().iter().flat_map(|group| reader.offsets_of(group)) {
            let of = table.offsets.entry(format!("{}@{}", position.topic, position.group)).or_default();
            of.insert(position.queue.0, super::query::signed(position.offset));
        }
        Response::ok().with_body(table.to_json())
    }
}

pub(super) fn offset_response(offset: QueueOffset) -> Response {
    Response::ok().with_ext(reply::OffsetReply { offset: super::query::signed(offset) }.encode())
}

fn to_queues(body: &body::LockBody) -> Result<(GroupName, Vec<(TopicName, QueueId)>)> {
    let group = GroupName::parse(&body.consumer_group)?;
    let queues = body.mq_set.iter().map(|queue| Ok((TopicName::parse(&queue.topic)?, queue.queue())));
    Ok((group, queues.collect::<Result<_>>()?))
}

fn to_heartbeat(session: &Session, frame: &Frame, body: body::HeartbeatBody) -> Result<Heartbeat> {
    if body.client_id.is_empty() {
        return Err(Failure::invalid("clientID", "clientID: expected the client's id, got nothing"));
    }
    // Clients without a producer still list Apache's internal one.
    let producers = body.producers.iter().map(|producer| Ok(GroupName::parse(&producer.group_name)?));
    let consumers = body.consumers.into_iter().map(|consumer| to_joined(consumer, body.without_sub));
    Ok(Heartbeat {
        client: body.client_id,
        address: session.peer().to_string(),
        language: frame.header.language.name().to_owned(),
        version: frame.header.version,
        producers: producers.collect::<Result<_>>()?,
        consumers: consumers.collect::<Result<_>>()?,
    })
}

fn to_joined(consumer: body::HeartbeatConsumer, without_subscriptions: bool) -> Result<Joined> {
    let subscriptions = consumer.subscriptions.into_iter().map(to_subscription).collect::<Result<Vec<_>>>()?;
    Ok(Joined {
        group: GroupName::parse(&consumer.group_name)?,
        model: match consumer.message_model {
            body::MessageModel::Broadcasting => ConsumeModel::Broadcasting,
            body::MessageModel::Clustering => ConsumeModel::Clustering,
        },
        consume_type: match consumer.consume_type {
            body::ConsumeType::Actively => ConsumeType::Pull,
            body::ConsumeType::Passively => ConsumeType::Push,
            body::ConsumeType::Pop => ConsumeType::Pop,
        },
        consume_from: consumer.consume_from_where.as_str().to_owned(),
        subscriptions: (!without_subscriptions).then_some(subscriptions),
    })
}

fn to_subscription(subscription: body::Subscription) -> Result<Subscription> {
    let filter = if subscription.class_filter_mode {
        return Err(Failure::invalid("subscription", "subscription: expected tags or a condition, got a class filter"));
    } else {
        // Refused, it would take the client's other groups with it. Apache keeps it too, and refuses the pulls.
        parse_filter(&subscription.sub_string, Some(&subscription.expression_type)).map_err(|failure| failure.text)
    };
    Ok(Subscription {
        topic: TopicName::parse(&subscription.topic)?,
        expression: subscription.sub_string,
        language: subscription.expression_type,
        filter,
        version: subscription.sub_version,
    })
}
