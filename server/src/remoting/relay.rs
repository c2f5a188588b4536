//! What administrators ask of a consumer: the broker asks it in their place.

use std::time::Duration;

use sluice_model::{GroupName, MessageId};
use sluice_protocol::{
    Frame, Response, ResponseCode,
    request::{ConsumeDirectly, ConsumerRunning},
};
use sluice_transport::{Error, Responder};

use super::{Door, failed};
use crate::failure::Failure;

/// How long a consumer may take. Apache's tools wait longer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Door {
    /// What a consumer has in hand, in its own words.
    pub(super) fn consumer_running(&self, request: ConsumerRunning, responder: Responder) {
        self.ask_consumer(&request.group, &request.client_id, request.encode(), responder);
    }

    /// Has a consumer consume one stored message now.
    pub(super) fn consume_directly(&self, mut request: ConsumeDirectly, responder: Responder) {
        let place = match request.message_id.as_deref().map(MessageId::parse) {
            Some(Ok(id)) => id.log_offset,
            _ => {
                let text =
                    format!("msgId: expected the id that names a place in the log, got {:?}", request.message_id);
                return responder.send(failed(&Failure::invalid("msgId", text)));
            }
        };
        match self.parts.shell.reader.record_at(place) {
            Ok(record) => request.body = record,
            Err(error) => return responder.send(failed(&error.into())),
        }
        request.broker = Some(self.parts.shell.reader.config().name.clone());
        let client = request.client_id.clone().unwrap_or_default();
        self.ask_consumer(&request.group, &client, request.encode(), responder);
    }

    fn ask_consumer(&self, group: &GroupName, client: &str, request: Frame, responder: Responder) {
        let session = self.parts.shell.reader.members(|members| members.consumer_session(group, client));
        let Some(session) = session.and_then(|id| self.parts.sessions.get(id)) else {
            let text = format!("clientId: {client:?} is no connected member of group {group:?}");
            return responder.send(Response::error(ResponseCode::SystemError, text));
        };
        let (answer, client) = (session.invoke(request, PATIENCE), client.to_owned());
        tokio::spawn(async move {
            responder.send(match answer.await {
                Ok(answer) => Response {
                    code: answer.header.code.into(),
                    remark: answer.header.remark,
                    ext: answer.header.ext,
                    body: answer.body.into(),
                },
                Err(late @ Error::Timeout { .. }) => {
                    Response::error(ResponseCode::ConsumeMessageTimeout, format!("consumer {client:?}: {late}"))
                }
                Err(error) => Response::error(ResponseCode::SystemError, format!("consumer {client:?}: {error}")),
            });
        });
    }
}
