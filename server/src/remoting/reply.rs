//! Answers to messages: handed on to the client that waits for one. They are not stored.

use std::time::Duration;

use sluice_model::key;
use sluice_protocol::{
    Response, ResponseCode, reply,
    request::{PushReply, SendMessage},
};
use sluice_transport::{Responder, Session};

use super::Door;
use crate::clock;

/// How long the client that waits may take to take the answer.
const PATIENCE: Duration = Duration::from_secs(3);

impl Door {
    pub(super) fn send_reply(&self, session: &Session, request: SendMessage, responder: Responder) {
        let refuse = |text: String| Response::error(ResponseCode::SystemError, text);
        let Some(client) = request.properties.get(key::REPLY_TO_CLIENT).map(str::to_owned) else {
            let text = format!("properties: expected {}, the client that waits for the answer", key::REPLY_TO_CLIENT);
            return responder.send(refuse(text));
        };
        let waiting = self.parts.shell.reader.members(|members| members.producer_session(&client));
        let Some(waiting) = waiting.and_then(|id| self.parts.sessions.get(id)) else {
            return responder.send(refuse(format!("client {client:?}, which waits for the answer, is not connected")));
        };
        let queue = sluice_model::QueueId(u32::try_from(request.queue).unwrap_or(0));
        let push = match self.push_reply(session, request) {
            Ok(push) => push.encode(),
            Err(error) => return responder.send(refuse(format!("properties: {error}"))),
        };
        let answer = waiting.invoke(push, PATIENCE);
        tokio::spawn(async move {
            responder.send(match answer.await {
                Ok(taken) if taken.header.code == i32::from(ResponseCode::Success) => {
                    // As Apache answers: the client wants an id, and nothing was stored that has one.
                    let reply = reply::SendReply {
                        message_id: "0".to_owned(),
                        queue,
                        offset: Default::default(),
                        transaction_id: None,
                        region: Some(super::send::REGION.to_owned()),
                        trace: Some("true".to_owned()),
                        recall_handle: None,
                    };
                    Response::ok().with_ext(reply.encode())
                }
                Ok(refused) => {
                    refuse(format!("client {client:?} did not take the answer: code {}", refused.header.code))
                }
                Err(error) => refuse(format!("client {client:?} did not take the answer: {error}")),
            });
        });
    }

    fn push_reply(&self, session: &Session, request: SendMessage) -> Result<PushReply, sluice_model::Error> {
        let now = clock::now();
        let properties = request.properties.with(key::REPLY_PUSHED_AT, &now.to_string())?;
        Ok(PushReply {
            group: request.group,
            topic: request.topic,
            default_topic: request.default_topic,
            default_topic_queues: request.default_topic_queues,
            queue: request.queue,
            sys_flag: request.sys_flag.0,
            born_at: request.born_at,
            flag: request.flag,
            properties: Some(properties.as_str().to_owned()),
            reconsume_times: Some(request.reconsume_times),
            unit_mode: request.unit_mode,
            born_host: session.peer().to_string(),
            store_host: self.parts.shell.reader.config().advertised.to_string(),
            stored_at: now,
            body: request.body,
        })
    }
}
