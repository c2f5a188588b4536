//! POP consumption: handing messages out for a time, and what their holders say of them.
//!
//! Codes and checks follow Apache RocketMQ `PopMessageProcessor`, `AckMessageProcessor`, `ChangeInvisibleTimeProcessor` and
//! `NotificationProcessor`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_broker::{Ahead, Broker, Filter, Leased, Pop, Popped, Seen, SessionId, Wait};
use sluice_model::{GroupName, Kind, QueueId, QueueOffset, Timestamp, TopicName, limits};
use sluice_protocol::{
    Body, Response, ResponseCode, body, reply,
    request::{AckMessage, BatchAck, ChangeInvisible, Notification, PollingCount, PopMessage, RetryFlag},
};
use sluice_transport::{Responder, Session};
use tokio::sync::oneshot;

use super::{
    Door, answer, failed,
    pull::{HOLD_LIMIT, parse_filter},
};
use crate::{
    clock,
    failure::{Failure, Result},
    server::Parts,
};

/// `initMode` of a group that begins at the first message.
const FROM_START: i32 = 0;
/// The part of a handle that tells what was popped in order (Apache RocketMQ `KeyBuilder.POP_ORDER_REVIVE_QUEUE`).
const IN_ORDER: i32 = 999;
/// Time before another try at what another pop took just now.
const AGAIN: Duration = Duration::from_millis(1);

/// A pop that may wait for messages.
pub(super) struct WaitingPop {
    pub pop: Arc<Pop>,
    /// Nothing is taken: the client wants to know only.
    pub notice: bool,
    pub responder: Responder,
    pub session: u64,
    pub until: Instant,
}

impl Door {
    pub(super) fn pop(&self, session: &Session, request: PopMessage, responder: Responder) {
        match self.to_pop(&request) {
            Ok(pop) => self.start_pop(session, pop, false, request.poll_ms, responder),
            Err(failure) => responder.send(failed(&failure)),
        }
    }

    pub(super) fn notification(&self, session: &Session, request: Notification, responder: Responder) {
        let pop = self.may_pop(&request.group, &request.topic).map(|()| Pop {
            group: request.group,
            topic: request.topic,
            queue: to_queue(request.queue),
            max_messages: 1,
            invisible_ms: 1,
            filter: Filter::All,
            from_start: true,
            order: request.order,
        });
        match pop {
            Ok(pop) => self.start_pop(session, pop, true, request.poll_ms, responder),
            Err(failure) => responder.send(failed(&failure)),
        }
    }

    fn start_pop(&self, session: &Session, pop: Pop, notice: bool, poll_ms: i64, responder: Responder) {
        let wait = Duration::from_millis(poll_ms.max(0).unsigned_abs()).min(HOLD_LIMIT);
        let until = Instant::now() + wait;
        let held = WaitingPop { pop: Arc::new(pop), notice, responder, session: session.id(), until };
        if self.parts.flow.may_receive(&held.pop.group).is_err() {
            let response = nothing(&held, ResponseCode::PollingFull);
            return held.responder.send(response);
        }
        self.serve_pop(held);
    }

    pub(super) fn serve_pop(&self, held: WaitingPop) {
        tokio::spawn(serve(self.parts.clone(), held));
    }

    fn to_pop(&self, request: &PopMessage) -> Result<Pop> {
        // A pop moves the group's position.
        self.parts.not_pipelines(&request.group)?;
        self.may_pop(&request.group, &request.topic)?;
        let filter = match request.expression.as_deref() {
            None => Filter::All,
            Some(expression) => parse_filter(expression, request.expression_type.as_deref())?,
        };
        Ok(Pop {
            group: request.group.clone(),
            topic: request.topic.clone(),
            queue: to_queue(request.queue),
            max_messages: u32::try_from(request.max_messages).unwrap_or(0),
            invisible_ms: request.invisible_ms,
            filter,
            from_start: request.init_mode == FROM_START,
            order: request.order,
        })
    }

    fn may_pop(&self, group: &GroupName, topic: &TopicName) -> Result<()> {
        let reader = &self.parts.shell.reader;
        if !reader.topic(topic)?.permission.readable() {
            return Err(Failure::new(Kind::Denied, format!("topic {topic:?} may not be read")));
        }
        if !reader.knows_group(group) {
            return Err(Failure::not_found("group", group));
        }
        if !reader.group(group).enabled {
            return Err(Failure::new(Kind::Denied, format!("group {group:?} may not consume: it is disabled")));
        }
        Ok(())
    }

    pub(super) fn ack(&self, request: AckMessage, responder: Responder) {
        let AckMessage { group, topic, queue, handle, offset } = request;
        let leased = match self.to_leased(group, topic, queue, offset, handle.popped_at) {
            Ok(leased) => leased,
            Err(refused) => return responder.send(*refused),
        };
        let verb = move |broker: &mut Broker, now| broker.ack(&[leased], now);
        self.parts.shell.call(verb, |result| {
            responder.send(answer(result.map(|count| if count > 0 { Response::ok() } else { not_held() })));
        });
    }

    pub(super) fn batch_ack(&self, request: BatchAck, responder: Responder) {
        if request.body.acks.is_empty() {
            return responder.send(Response::error(ResponseCode::NoMessage, "acks: expected some, got none"));
        }
        let leased = match self.to_all_leased(&request.body.acks) {
            Ok(leased) => leased,
            Err(refused) => return responder.send(*refused),
        };
        let verb = move |broker: &mut Broker, now| broker.ack(&leased, now);
        // What is held no longer is passed over, as with Apache: the answer has no place for it.
        self.parts.shell.call(verb, |result| responder.send(answer(result.map(|_| Response::ok()))));
    }

    fn to_all_leased(&self, acks: &[body::AckEntry]) -> std::result::Result<Vec<Leased>, Box<Response>> {
        let refuse = |failure: Failure| Box::new(failed(&failure));
        let mut all = Vec::new();
        let mut count = 0;
        for entry in acks {
            let group = GroupName::parse(&entry.group).map_err(|error| refuse(error.into()))?;
            let topic = TopicName::parse(&entry.topic).map_err(|error| refuse(error.into()))?;
            let topic = match RetryFlag::parse(&entry.retry) {
                Some(RetryFlag::Normal) => topic,
                Some(RetryFlag::Retry) => {
                    TopicName::pop_retry_of(&group, &topic).map_err(|error| refuse(error.into()))?
                }
                _ => return Err(refuse(Failure::invalid("r", format!("r: expected 0 or 1, got {:?}", entry.retry)))),
            };
            let queue = self.check_queue(&topic, entry.queue)?;
            let offsets: Vec<QueueOffset> = entry.bits.iter().map(|bit| QueueOffset(entry.start).plus(bit)).collect();
            count += offsets.len();
            if count > limits::ACKED_MESSAGES {
                let text = format!("acks: expected at most {} messages", limits::ACKED_MESSAGES);
                return Err(refuse(Failure::invalid("acks", text)));
            }
            all.push(Leased { group, topic, queue, offsets, taken_at: Timestamp(entry.popped_at) });
        }
        Ok(all)
    }

    pub(super) fn change_invisible(&self, request: ChangeInvisible, responder: Responder) {
        let ChangeInvisible { group, topic, queue, handle, offset, invisible_ms } = request;
        let leased = match self.to_leased(group, topic, queue, offset, handle.popped_at) {
            Ok(leased) => leased,
            Err(refused) => return responder.send(not_kept(*refused)),
        };
        let verb = move |broker: &mut Broker, now| Ok((broker.keep(&leased, invisible_ms, now)?, now));
        self.parts.shell.call(verb, move |result| {
            let held = |now| reply::HeldReply { popped_at: now, invisible_ms, revive_queue: handle.revive_queue };
            responder.send(match result {
                Ok((0, _)) => not_kept(not_held()),
                Ok((_, now)) => Response::ok().with_ext(held(now).encode()),
                Err(failure) => not_kept(failed(&failure)),
            });
        });
    }

    /// Fails with 17 for an unknown topic, 13 for a bad queue and 208 for an offset that is not in the queue.
    fn to_leased(
        &self,
        group: GroupName,
        topic: TopicName,
        queue: i32,
        offset: QueueOffset,
        taken_at: Timestamp,
    ) -> std::result::Result<Leased, Box<Response>> {
        let queue = self.check_queue(&topic, queue)?;
        let (min, max) = self.parts.shell.reader.bounds(&topic, queue);
        if offset < min || offset >= max {
            let text = format!("offset: expected {min} to {max}, got {offset}");
            return Err(Box::new(Response::error(ResponseCode::NoMessage, text)));
        }
        Ok(Leased { group, topic, queue, offsets: vec![offset], taken_at })
    }

    fn check_queue(&self, topic: &TopicName, queue: i32) -> std::result::Result<QueueId, Box<Response>> {
        let reader = &self.parts.shell.reader;
        let known = reader.topic(topic).map_err(|error| Box::new(failed(&error.into())))?;
        let queues = known.read_queues.max(known.write_queues);
        match u32::try_from(queue) {
            Ok(queue) if queue < queues => Ok(QueueId(queue)),
            _ => {
                let text = format!("queueId: expected 0 to {} for topic {topic:?}, got {queue}", queues - 1);
                Err(Box::new(Response::error(ResponseCode::MessageIllegal, text)))
            }
        }
    }

    pub(super) fn polling_count(&self, request: &PollingCount) -> Response {
        let queue = to_queue(request.queue);
        let count = self
            .parts
            .pulls
            .count_pops(|pop| pop.group == request.group && pop.topic == request.topic && pop.queue == queue);
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        Response::ok().with_ext(reply::PollingReply { count }.encode())
    }
}

/// Takes messages until there are some or the time is up; in between it may be held.
async fn serve(parts: Parts, mut held: WaitingPop) {
    loop {
        // Nobody would acknowledge what is taken for a client that is gone.
        if parts.sessions.get(SessionId(held.session)).is_none() {
            return;
        }
        match attempt(&parts, &held).await {
            Err(failure) => return held.responder.send(failed(&failure)),
            Ok(Some(response)) => return held.responder.send(response),
            Ok(None) => {}
        }
        if held.until <= Instant::now() {
            let response = nothing(&held, ResponseCode::PollingTimeout);
            return held.responder.send(response);
        }
        match parts.pulls.hold_pop(&parts.shell.reader, held) {
            None => return,
            Some((back, Wait::Full)) => {
                let response = nothing(&back, ResponseCode::PollingFull);
                return back.responder.send(response);
            }
            Some((back, _)) => held = back,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The answer, if there is one by now.
async fn attempt(parts: &Parts, held: &WaitingPop) -> Result<Option<Response>> {
    while parts.shell.reader.can_pop(&held.pop)? {
        if held.notice {
            let reply = reply::NotificationReply { has_message: true, full: false };
            return Ok(Some(Response::ok().with_ext(reply.encode())));
        }
        let seen = match look_ahead(parts, &held.pop).await {
            Err(failure) if failure.kind == Kind::Busy => return Ok(Some(nothing(held, ResponseCode::PollingFull))),
            seen => seen?,
        };
        let pop = held.pop.clone();
        let popped = parts.shell.ask_async(move |broker, now| broker.pop_seen(&pop, seen.as_deref(), now)).await?;
        if !popped.queues.is_empty() {
            let count = popped.queues.iter().map(|queue| queue.offsets.len()).sum();
            parts.metrics.get(&held.pop.group, count);
            parts.flow.received(&held.pop.group, count);
            return Ok(Some(found(popped, &held.pop)));
        }
        // Nothing of it matched: go on behind it.
        if !popped.more || held.until <= Instant::now() {
            break;
        }
    }
    Ok(None)
}

/// What the group's filter keeps of what a pop would find; `None` when the group has no filter.
async fn look_ahead(parts: &Parts, pop: &Pop) -> Result<Option<Vec<Seen>>> {
    if !parts.filters.filters(&pop.group, &pop.topic) {
        return Ok(None);
    }
    let mut asked = Vec::new();
    for Ahead { queue, from, found } in parts.shell.reader.look_ahead(pop, parts.pulls.turn())? {
        let (answer, kept) = oneshot::channel();
        parts.filters.look(&pop.group, &pop.topic, queue, found, move |kept| drop(answer.send(kept)));
        asked.push((queue, from, kept));
    }
    let mut seen = Vec::with_capacity(asked.len());
    for (queue, from, kept) in asked {
        let gone = || Err(Failure::new(Kind::Unavailable, "the plugins here are being stopped"));
        let kept = kept.await.unwrap_or_else(|_| gone())?;
        seen.push(Seen { queue, from, next: kept.found.next, kept: kept.offsets });
    }
    Ok(Some(seen))
}

fn found(popped: Popped, pop: &Pop) -> Response {
    let queues = popped.queues.into_iter().map(|of| reply::PoppedQueue {
        retry: if of.retry { RetryFlag::Retry } else { RetryFlag::Normal },
        queue: of.queue,
        start: of.start,
        offsets: of.offsets,
        failures: of.failures,
    });
    let header = header(popped.taken_at, pop, popped.rest).with_queues(&queues.collect::<Vec<_>>());
    Response {
        code: ResponseCode::Success,
        remark: Some("FOUND".to_owned()),
        ext: header.encode(),
        body: popped.records.into_iter().collect::<Body>(),
    }
}

/// The answer when the time is up, or may not even begin. Clients read the header of a pop's answer whatever its code.
fn nothing(held: &WaitingPop, code: ResponseCode) -> Response {
    if held.notice {
        let reply = reply::NotificationReply { has_message: false, full: code == ResponseCode::PollingFull };
        return Response::ok().with_ext(reply.encode());
    }
    let header = header(clock::now(), &held.pop, 0);
    Response { ext: header.encode(), ..Response::error(code, "NO_MESSAGE_IN_QUEUE") }
}

fn header(popped_at: Timestamp, pop: &Pop, rest: u64) -> reply::PopReply {
    reply::PopReply {
        popped_at,
        invisible_ms: pop.invisible_ms,
        revive_queue: if pop.order { IN_ORDER } else { 0 },
        rest,
        starts: None,
        offsets: None,
        failures: None,
    }
}

fn not_held() -> Response {
    Response::error(
        ResponseCode::NoMessage,
        "the message is not held under this handle: it was acknowledged, or its time was up and it comes again",
    )
}

/// Clients read the header of this answer whatever its code.
fn not_kept(refused: Response) -> Response {
    let nothing = reply::HeldReply { popped_at: Timestamp(0), invisible_ms: 0, revive_queue: 0 };
    refused.with_ext(nothing.encode())
}

/// Any negative number means any queue.
fn to_queue(queue: i32) -> Option<QueueId> {
    u32::try_from(queue).ok().map(QueueId)
}
