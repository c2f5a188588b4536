//! `POST /topics/{topic}/messages`: JSON with one message or many, or the raw body with headers.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{ConnectInfo, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_broker::{LONGEST_DELAY_MS, Send, Sent, Topic, TopicKind};
use sluice_model::{Host, Kind, Message, Properties, QueueId, TopicName, java_hash, key, limits};
use tokio::sync::oneshot;

use super::{
    Rest, input,
    input::Path,
    problem::{Answer, Problem},
    routes::Routes,
};
use crate::{
    clock,
    failure::{Failure, Result},
    units,
};

/// Largest request: the largest body in Base64, and some room around it.
const REQUEST_LIMIT: usize = limits::BODY_LEN / 3 * 4 + 1024 * 1024;
/// Most messages of one request.
const MESSAGES_LIMIT: usize = 1_000;
const PROPERTY_HEADER: &str = "x-message-property-";

/// Properties that a field or the broker sets.
const RESERVED: [(&str, &str); 11] = [
    (key::KEYS, "the field key"),
    (key::TAGS, "the field tag"),
    (key::DELAY, "the field delay"),
    (key::TIMER_DELAY_MS, "the field delay"),
    (key::TIMER_DELAY_SECONDS, "the field delay"),
    (key::TIMER_OUT_MS, "it to be left out: the broker sets it"),
    (key::UNIQUE_KEY, "it to be left out: the broker makes it"),
    (key::TRANSACTION_PREPARED, "it to be left out: half messages need a RocketMQ client"),
    (key::REAL_TOPIC, "it to be left out: the broker sets it"),
    (key::REAL_QUEUE, "it to be left out: the broker sets it"),
    (key::RETRY_TOPIC, "it to be left out: the broker sets it"),
];

/// A message to send.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    /// What it can be found by.
    key: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// A text; anything else is sent as the JSON that it is.
    #[schemars(with = "Option<serde_json::Value>")]
    body: Option<Box<RawValue>>,
    /// The body in Base64, when it is no text.
    body_base64: Option<String>,
    /// Any queue when left out; in a FIFO topic, the one that the key belongs to.
    queue: Option<u32>,
    /// When to deliver it, from now: a duration as `10s`, three days at the most.
    delay: Option<String>,
}

/// Many messages; an array of them says the same.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewMessages {
    /// 1 to 1000.
    messages: Vec<NewMessage>,
}

/// Where a message went.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Stored {
    /// Where the broker stored it.
    id: String,
    unique_key: String,
    queue: u32,
    /// For a delayed message, its place among the delayed.
    offset: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StoredAll {
    /// In the order of the request.
    items: Vec<Stored>,
}

pub fn routes(routes: Routes) -> Routes {
    routes.serve(
        Method::POST,
        "/topics/{topic}/messages",
        "Send one message or many. Answered when they are as safe as the topic's durability asks.",
        |o| {
            o.header("X-Message-Key", "With it or another of these: the body is the message's own, as it is.")
                .header("X-Message-Tag", "The message's tag.")
                .header("X-Message-Queue", "The queue, any when left out.")
                .header("X-Message-Delay", "When to deliver it, from now.")
                .header("X-Message-Property-{name}", "A property; the name is taken in lower case.")
                .takes::<NewMessage>()
                .takes_bytes("application/octet-stream")
                .answers::<Stored>(201, "One message was sent; for many, an object with `items`.")
        },
        post,
    )
}

async fn post(
    State(rest): State<Rest>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let topic = rest.parts.shell.reader.topic(&TopicName::parse(&name)?)?;
    let bytes = input::body(body, &headers, REQUEST_LIMIT).await?;
    let (messages, many) = parse(&headers, bytes)?;
    let sends = messages.into_iter().enumerate().map(|(at, (message, body))| {
        let place = if many { format!("messages[{at}].") } else { String::new() };
        to_send(&topic, message, body, Host(peer)).map_err(|failure| at_place(&place, failure))
    });
    // All are checked before the first is sent.
    let sends = sends.collect::<Result<Vec<Send>>>()?;
    let stored = send_all(&rest, sends, peer, many).await?;
    match <[Stored; 1]>::try_from(stored) {
        Ok([one]) if !many => Ok((StatusCode::CREATED, Json(one)).into_response()),
        Ok(one) => Ok((StatusCode::CREATED, Json(StoredAll { items: one.into() })).into_response()),
        Err(items) => Ok((StatusCode::CREATED, Json(StoredAll { items })).into_response()),
    }
}

fn at_place(place: &str, failure: Failure) -> Failure {
    match failure.field {
        Some(field) if !place.is_empty() => {
            Failure { text: format!("{place}{}", failure.text), field: Some(format!("{place}{field}")), ..failure }
        }
        field => Failure { field, ..failure },
    }
}

/// Hands all to the log at once, in order, and waits for all.
async fn send_all(
    rest: &Rest,
    sends: Vec<Send>,
    peer: SocketAddr,
    many: bool,
) -> std::result::Result<Vec<Stored>, Problem> {
    let waiting: Vec<_> = sends
        .into_iter()
        .map(|send| {
            let bytes = send.messages.iter().map(|message| message.body.len()).sum();
            let (answer, receive) = oneshot::channel();
            let metrics = rest.parts.metrics.clone();
            rest.parts.ingresses.send(&rest.parts.shell, u64::from(peer.port()), send, move |result, _| {
                if result.is_ok() {
                    metrics.put(1, bytes);
                }
                drop(answer.send(result));
            });
            receive
        })
        .collect();
    rest.parts.shell.work();
    let (mut stored, mut failed) = (Vec::new(), None);
    for (at, receive) in waiting.into_iter().enumerate() {
        let stopped = || Err(Failure::new(Kind::Unavailable, "the broker is shutting down"));
        match receive.await.unwrap_or_else(|_| stopped()) {
            Ok(sent) => stored.push(to_stored(sent)),
            Err(failure) if many => {
                let text = format!("messages[{at}]: {}", failure.text);
                failed = failed.or(Some(Failure { text, ..failure }));
            }
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    match failed {
        None => Ok(stored),
        Some(failure) => {
            let sent = serde_json::to_value(&stored).unwrap_or_default();
            Err(Problem::from(failure).with("sent", sent))
        }
    }
}

fn to_stored(sent: Sent) -> Stored {
    Stored {
        id: sent.ids.first().map(ToString::to_string).unwrap_or_default(),
        unique_key: sent.unique_key,
        queue: sent.queue.0,
        offset: sent.queue_offset.0,
    }
}

type Parsed = (Vec<(NewMessage, Option<Bytes>)>, bool);

/// The messages of a request, with their raw bodies, and whether the request is in the form for many.
fn parse(headers: &HeaderMap, bytes: Bytes) -> std::result::Result<Parsed, Problem> {
    if headers.keys().any(|name| name.as_str().starts_with("x-message-")) {
        return Ok((vec![(of_headers(headers)?, Some(bytes))], false));
    }
    let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = match media.as_str() {
        "application/json" => true,
        // Nothing was said: curl sends this with --data when it is told nothing else.
        "" | "application/x-www-form-urlencoded" => bytes.first().is_some_and(|first| matches!(first, b'{' | b'[')),
        _ => false,
    };
    if !is_json {
        return Ok((vec![(NewMessage::default(), Some(bytes))], false));
    }
    let hinted = |failure: Failure| {
        Problem::from(failure)
            .hint("To send these bytes as the body itself, give Content-Type: application/octet-stream")
    };
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let many = |messages: Vec<NewMessage>| {
        if !(1..=MESSAGES_LIMIT).contains(&messages.len()) {
            let text = format!("messages: expected 1 to {MESSAGES_LIMIT}, got {}", messages.len());
            return Err(Failure::invalid("messages", text));
        }
        Ok((messages.into_iter().map(|message| (message, None)).collect(), true))
    };
    if first == Some(&b'[') {
        return input::json(&bytes).and_then(many).map_err(hinted);
    }
    let names: Result<BTreeMap<String, Box<RawValue>>> = input::json(&bytes);
    if names.map_err(hinted)?.contains_key("messages") {
        return input::json::<NewMessages>(&bytes).and_then(|all| many(all.messages)).map_err(hinted);
    }
    Ok((vec![(input::json(&bytes).map_err(hinted)?, None)], false))
}

fn of_headers(headers: &HeaderMap) -> Result<NewMessage> {
    let mut message = NewMessage::default();
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-message-") {
            continue;
        }
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Failure::invalid(name, format!("{name}: expected UTF-8")))?
            .to_owned();
        match name {
            "x-message-key" => message.key = Some(text),
            "x-message-tag" => message.tag = Some(text),
            "x-message-delay" => message.delay = Some(text),
            "x-message-queue" => {
                let queue = text.parse();
                message.queue = Some(
                    queue.map_err(|_| Failure::invalid(name, format!("{name}: expected a number, got {text:?}")))?,
                );
            }
            _ => match name.strip_prefix(PROPERTY_HEADER) {
                Some(key) if !key.is_empty() => drop(message.properties.insert(key.to_owned(), text)),
                _ => {
                    let text = format!("{name}: expected X-Message-Key, -Tag, -Queue, -Delay or -Property-{{name}}");
                    return Err(Failure::invalid(name, text));
                }
            },
        }
    }
    Ok(message)
}

fn to_send(topic: &Topic, message: NewMessage, raw: Option<Bytes>, born_host: Host) -> Result<Send> {
    let body = match raw {
        Some(bytes) => bytes,
        None => body_of(&message)?,
    };
    if body.len() > limits::BODY_LEN {
        let text = format!("body: expected at most {} bytes, got {}", limits::BODY_LEN, body.len());
        return Err(Failure::invalid("body", text));
    }
    let queue = queue_of(topic, &message)?;
    let properties = properties_of(&message)?;
    let message = Message { born_host, ..Message::new(topic.name.clone(), QueueId(0), clock::now(), properties, body) };
    Ok(Send { messages: vec![message], queue, template: None, max_reconsume_times: None })
}

fn body_of(message: &NewMessage) -> Result<Bytes> {
    let body = input::body_bytes(("body", message.body.as_deref()), ("body_base64", message.body_base64.as_deref()))?;
    body.ok_or_else(|| Failure::invalid("body", "body: expected body or body_base64"))
}

/// Any queue unless one is named; a FIFO topic keeps what has one key in one queue (as RocketMQ's selector by hash).
fn queue_of(topic: &Topic, message: &NewMessage) -> Result<Option<QueueId>> {
    if let Some(queue) = message.queue {
        if queue >= topic.write_queues {
            let most = topic.write_queues.saturating_sub(1);
            let text = format!("queue: expected 0 to {most} for topic \"{}\", got {queue}", topic.name);
            return Err(Failure::invalid("queue", text));
        }
        return Ok(Some(QueueId(queue)));
    }
    match (topic.kind, &message.key) {
        (TopicKind::Fifo, Some(key)) => Ok(Some(QueueId(java_hash(key).unsigned_abs() % topic.write_queues.max(1)))),
        (TopicKind::Fifo, None) => {
            Err(Failure::invalid("queue", "queue: expected a queue or a key, which keep the order in a FIFO topic"))
        }
        _ => Ok(None),
    }
}

fn properties_of(message: &NewMessage) -> Result<Properties> {
    if let Some((name, instead)) = RESERVED.iter().find(|(name, _)| message.properties.contains_key(*name)) {
        let field = format!("properties.{name}");
        return Err(Failure::invalid(&field, format!("{field}: expected {instead}")));
    }
    let delay = message.delay.as_deref().map(delay).transpose()?;
    let fields = [(key::KEYS, &message.key), (key::TAGS, &message.tag), (key::TIMER_DELAY_MS, &delay)];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let named = message.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Ok(Properties::from_pairs(fields.chain(named))?)
}

/// A delay in milliseconds, as text.
fn delay(text: &str) -> Result<String> {
    let delay = units::parse_duration(text).map_err(|text| Failure::invalid("delay", format!("delay: {text}")))?;
    let longest = std::time::Duration::from_millis(LONGEST_DELAY_MS.unsigned_abs());
    if delay > longest {
        let text = format!("delay: expected at most {}, got {text}", units::duration_text(longest));
        return Err(Failure::invalid("delay", text));
    }
    Ok(delay.as_millis().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_a_duration_of_three_days_at_the_most() {
        assert_eq!((delay("7s").unwrap(), delay("3d").unwrap()), ("7000".to_owned(), "259200000".to_owned()));
        let text = delay("73h").unwrap_err().text;
        assert!(text.contains("at most 3d, got 73h"), "{text}");
    }

    #[test]
    fn curls_form_is_json_only_when_it_looks_so() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        let (messages, many) = parse(&headers, Bytes::from_static(b"[{\"body\":\"a\"},{\"body\":{\"n\":1}}]")).unwrap();
        assert!(many);
        let bodies: Vec<Bytes> = messages.iter().map(|(message, _)| body_of(message).unwrap()).collect();
        assert_eq!(bodies, ["a", "{\"n\":1}"]);
        let (messages, many) = parse(&headers, Bytes::from_static(b"plain")).unwrap();
        assert!(!many && messages[0].1.as_deref() == Some(b"plain"));
    }
}
