//! Taking back a message that is not due yet, by the handle that the answer to its send named.
//!
//! A handle is base64 (URL) of `v1 topic broker due key`. Source: Apache RocketMQ `RecallMessageHandle`.

use base64::{Engine, engine::general_purpose::URL_SAFE};
use sluice_model::Timestamp;
use sluice_protocol::{Response, ResponseCode, reply, request::RecallMessage};
use sluice_transport::Responder;

use super::{Door, answer};

const VERSION: &str = "v1";

pub(super) fn handle(topic: &str, broker: &str, due: Timestamp, unique_key: &str) -> String {
    URL_SAFE.encode(format!("{VERSION} {topic} {broker} {due} {unique_key}"))
}

/// Topic, broker, time and key that a handle names.
fn parse(handle: &str) -> Option<(String, String, Timestamp, String)> {
    let text = String::from_utf8(URL_SAFE.decode(handle).ok()?).ok()?;
    let mut words = text.split(' ');
    let (version, topic, broker) = (words.next()?, words.next()?, words.next()?);
    let (due, key) = (words.next()?.parse().ok()?, words.next()?);
    (version == VERSION).then(|| (topic.to_owned(), broker.to_owned(), Timestamp(due), key.to_owned()))
}

impl Door {
    pub(super) fn recall(&self, request: RecallMessage, responder: Responder) {
        let refuse =
            |what: &str| Response::error(ResponseCode::IllegalOperation, format!("recallHandle: expected {what}"));
        let Some((topic, broker, due, key)) = parse(&request.handle) else {
            return responder.send(refuse("the handle of a message, as the answer to its send names it"));
        };
        if topic != request.topic.as_str() {
            return responder.send(refuse(&format!("one of a message of topic {:?}", request.topic)));
        }
        let reader = &self.parts.shell.reader;
        if broker != reader.config().name {
            return responder.send(refuse(&format!("one of a message of broker {:?}", reader.config().name)));
        }
        if let Err(error) = reader.topic(&request.topic) {
            return responder.send(super::failed(&error.into()));
        }
        let unique = key.clone();
        let verb = move |broker: &mut sluice_broker::Broker, now| broker.recall(due, &unique, now);
        self.parts.shell.call(verb, move |result| {
            responder.send(match result {
                Err(failure) if failure.kind == sluice_model::Kind::Invalid => {
                    Response::error(ResponseCode::IllegalOperation, failure.text)
                }
                result => {
                    answer(result.map(|()| Response::ok().with_ext(reply::RecallReply { message_id: key }.encode())))
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_it_was_written() {
        let written = handle("orders", "broker-a", Timestamp(1_795_000_000_123), "0A0B");
        // As Apache's client decodes it.
        assert_eq!(written, "djEgb3JkZXJzIGJyb2tlci1hIDE3OTUwMDAwMDAxMjMgMEEwQg==");
        let parsed = ("orders".to_owned(), "broker-a".to_owned(), Timestamp(1_795_000_000_123), "0A0B".to_owned());
        assert_eq!(parse(&written), Some(parsed));
        for bad in ["", "v1", "djEgb3JkZXJz", "djIgb3JkZXJzIGJyb2tlci1hIDEgMEEwQg=="] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
