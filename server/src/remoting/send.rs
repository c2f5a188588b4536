//! Sending, sending back, ending a transaction.

use std::borrow::Cow;

use bytes::Bytes;
use sluice_broker::{Back, Decider, Send, Sent, Verdict, check_batch};
use sluice_model::{Host, Message, Properties, QueueId, Timestamp, TopicName, Transaction, key};
use sluice_protocol::{
    Response, batch, reply,
    request::{EndTransaction, SendBack, SendMessage},
};
use sluice_transport::{Responder, Session};

use super::{Door, answer, failed, recall};
use crate::{
    clock,
    failure::{Failure, Result},
};

/// `commitOrRollback` of a producer's decision.
const COMMIT: i32 = 8;
const ROLLBACK: i32 = 12;

pub(super) const REGION: &str = "DefaultRegion";

impl Door {
    pub(super) fn send(&self, session: &Session, request: SendMessage, responder: Responder) {
        let group = request.group.clone();
        let prepared = request.sys_flag.transaction() == Transaction::Prepared;
        let send = match to_send(session, &self.parts.shell.reader.config().cluster, request) {
            Ok(send) => send,
            Err(failure) => return responder.send(failed(&failure)),
        };
        if let Err(failure) = self.parts.flow.send(session.id(), &group, send.messages.len()) {
            return responder.send(failed(&failure));
        }
        let metrics = self.parts.metrics.clone();
        let timed = timed(&send).map(|topic| (topic, self.parts.shell.reader.config().name.clone()));
        let (count, bytes) = (send.messages.len(), send.messages.iter().map(|message| message.body.len()).sum());
        self.parts.ingresses.send(&self.parts.shell, session.id(), send, move |result, few| {
            if result.is_ok() {
                metrics.put(count, bytes);
            }
            let response = answer(result.map(|sent| stored(sent, prepared, timed)));
            if few { responder.send_here(response) } else { responder.send(response) }
        });
    }

    pub(super) fn send_back(&self, request: SendBack, responder: Responder) {
        let back = Back {
            group: request.group,
            at: request.offset,
            delay_level: request.delay_level,
            max_reconsume_times: request.max_reconsume_times.and_then(|times| u32::try_from(times).ok()),
        };
        let verb = move |broker: &mut sluice_broker::Broker, now| broker.send_back(back, now);
        self.parts.shell.call(verb, |result| responder.send(answer(result.map(|_| Response::ok()))));
    }

    pub(super) fn end_transaction(&self, request: EndTransaction, responder: Responder) {
        let verdict = match request.decision {
            COMMIT => Verdict::Commit,
            ROLLBACK => Verdict::Rollback,
            // Not known yet: the broker will ask.
            0 => return responder.send(Response::ok()),
            other => {
                let text = format!("commitOrRollback: expected 0, {COMMIT} or {ROLLBACK}, got {other}");
                return responder.send(failed(&Failure::invalid("commitOrRollback", text)));
            }
        };
        let group = request.group.clone();
        let ids = [request.transaction_id, request.message_id];
        let verb = move |broker: &mut sluice_broker::Broker, now| {
            let named: Vec<&str> = ids.iter().flatten().map(String::as_str).collect();
            broker.decide(&group, request.half_offset, request.log_offset, &named, (verdict, Decider::Producer), now)
        };
        self.parts.shell.call(verb, move |result| {
            if let Err(failure) = &result {
                tracing::debug!(group = %request.group, half = %request.half_offset, %failure, "a decision came to nothing");
            }
            responder.send(answer(result.map(|()| Response::ok())));
        });
    }
}

fn to_send(session: &Session, cluster: &str, request: SendMessage) -> Result<Send> {
    let born_host = Host(session.peer());
    let message = |flag, properties: Properties, body: Bytes| Message {
        topic: request.topic.clone(),
        queue: QueueId(0),
        flag,
        sys_flag: request.sys_flag,
        born_at: request.born_at,
        born_host,
        reconsume_times: request.reconsume_times,
        prepared_at: 0,
        properties,
        body,
    };
    let messages = if request.batch {
        refuse_delay(&request.properties)?;
        let items = batch::decode(request.body.clone()).map_err(|error| Failure::invalid("body", error.to_string()))?;
        check_batch(items.len())?;
        items.iter().enumerate().try_for_each(|(at, item)| check_pairs(at, &item.properties))?;
        items.into_iter().map(|item| message(item.flag, item.properties, item.body)).collect()
    } else {
        let properties = with_place(to_our_clock(request.properties.clone())?, cluster)?;
        vec![message(request.flag, properties, request.body.clone())]
    };
    let template = TopicName::parse(&request.default_topic).ok();
    Ok(Send {
        messages,
        // Any negative number means any queue.
        queue: u32::try_from(request.queue).ok().map(QueueId),
        template: template.map(|topic| (topic, u32::try_from(request.default_topic_queues).unwrap_or(0))),
        max_reconsume_times: request.max_reconsume_times.and_then(|times| u32::try_from(times).ok()),
    })
}

/// The topic of a message that asks for a time.
fn timed(send: &Send) -> Option<TopicName> {
    let [message] = send.messages.as_slice() else { return None };
    let keys = [key::TIMER_DELAY_SECONDS, key::TIMER_DELAY_MS, key::TIMER_DELIVER_MS];
    message.properties.iter().any(|(key, _)| keys.contains(&key)).then(|| message.topic.clone())
}

/// What is sent alone is checked while its place is added; what comes in a batch is stored as it came.
fn check_pairs(at: usize, properties: &Properties) -> Result<()> {
    properties.check().map_err(|error| {
        let failure = Failure::from(error);
        Failure { text: format!("message {at} of the batch: {failure}"), ..failure }
    })
}

/// The properties that stand for a batch as a whole; those of its messages are the broker's to judge.
fn refuse_delay(properties: &Properties) -> Result<()> {
    let level = properties.get(key::DELAY).map(str::parse::<i32>);
    if level.is_some_and(|level| level != Ok(0)) {
        return Err(Failure::invalid("properties", "expected no delay in a batch of messages"));
    }
    Ok(())
}

/// The region for consumers that trace; the cluster's name for those who answer, to make up the topic of answers.
fn with_place(properties: Properties, cluster: &str) -> Result<Properties> {
    let region = (key::REGION, Some(Cow::Borrowed(REGION)));
    let cluster = (key::CLUSTER, Some(Cow::Borrowed(cluster)));
    let waits = properties.get(key::REPLY_TO_CLIENT).is_some();
    let placed = if waits { properties.changed(&[region, cluster]) } else { properties.changed(&[region]) };
    Ok(placed.map_err(sluice_broker::Error::from)?)
}

/// A message that names a time names the wall clock's.
fn to_our_clock(properties: Properties) -> Result<Properties> {
    let wall = properties.get(key::TIMER_DELIVER_MS).and_then(|text| text.parse().ok()).map(Timestamp);
    let Some(wall) = wall.filter(|_| clock::lead_ms() > 0) else { return Ok(properties) };
    let ours = wall.plus_ms(clock::lead_ms()).to_string();
    Ok(properties.with(key::TIMER_DELIVER_MS, &ours).map_err(sluice_broker::Error::from)?)
}

fn stored(sent: Sent, prepared: bool, timed: Option<(TopicName, String)>) -> Response {
    let mut message_id = String::with_capacity(33 * sent.ids.len());
    for (at, id) in sent.ids.iter().enumerate() {
        if at > 0 {
            message_id.push(',');
        }
        message_id.push_str(&id.to_string());
    }
    let recall_handle = timed.zip(sent.due);
    let recall_handle =
        recall_handle.map(|((topic, broker), due)| recall::handle(topic.as_str(), &broker, due, &sent.unique_key));
    let reply = reply::SendReply {
        recall_handle,
        message_id,
        queue: sent.queue,
        offset: sent.queue_offset,
        transaction_id: prepared.then_some(sent.unique_key),
        region: Some(REGION.to_owned()),
        trace: Some("true".to_owned()),
    };
    Response::ok().with_ext(reply.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        Properties::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn a_message_says_where_it_was_sent_to() {
        let plain = with_place(properties(&[("a", "1"), (key::REGION, "elsewhere")]), "c").unwrap();
        assert_eq!(plain, properties(&[("a", "1"), (key::REGION, REGION)]));
        let asking = with_place(properties(&[(key::REPLY_TO_CLIENT, "me")]), "c").unwrap();
        assert_eq!(asking, properties(&[(key::REPLY_TO_CLIENT, "me"), (key::REGION, REGION), (key::CLUSTER, "c")]));
    }

    #[test]
    fn a_batch_is_not_delayed_as_a_whole() {
        for taken in [&[][..], &[(key::DELAY, "0")], &[(key::WAIT, "true")]] {
            refuse_delay(&properties(taken)).unwrap();
        }
        for refused in ["1", "18", "soon"] {
            refuse_delay(&properties(&[(key::DELAY, refused)])).unwrap_err();
        }
    }
}
