//! `/topics`: what there is, and making, changing and deleting it.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use sluice_broker::{Broker, Durability, Permission, Reader, Topic, is_system, kind_text, parse_kind, reply_topic};
use sluice_model::{QueueId, TopicName};

use super::{
    Rest, blocking,
    input::{Guard, Path, Query, json_body},
    page::{Page, PageQuery},
    problem::{Answer, Problem},
    routes::Routes,
    tag_of, tagged,
};
use crate::{
    failure::{Failure, Result},
    units,
    uses::Uses,
};

/// Most attributes of one topic.
const ATTRIBUTES_LIMIT: usize = 64;

/// Settings of a topic. What is left out has its usual value.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TopicSettings {
    /// 1 to 1024; the broker's `default_queues` (4) when left out.
    queues: Option<u32>,
    /// `normal` (usual), `fifo`, `delay` or `transaction`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// `read-write` (usual), `read`, `write` or `none`.
    permission: Option<String>,
    /// When a message counts as acknowledged: `sync`, on disk, or `async`, taken. The broker's setting when left out.
    durability: Option<String>,
    /// For how long messages stay, as `7d`, at least `1s`: the rest is not read any more. As long as the broker's log has them when left out.
    retention: Option<String>,
    /// Free texts by name.
    attributes: Option<BTreeMap<String, String>>,
}

/// Changes of a topic. What is left out stays.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TopicChanges {
    queues: Option<u32>,
    #[serde(rename = "type")]
    kind: Option<String>,
    permission: Option<String>,
    durability: Option<String>,
    /// Null: as long as the broker's log has them.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    retention: Option<Option<String>>,
    /// Null removes one.
    attributes: Option<BTreeMap<String, Option<String>>>,
}

/// A field that is there, null or not.
fn given<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A topic as it stands.
#[derive(Debug, Serialize, JsonSchema)]
struct TopicView {
    name: String,
    queues: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    permission: &'static str,
    durability: &'static str,
    /// For how long messages stay; null: as long as the broker's log has them.
    retention: Option<String>,
    attributes: BTreeMap<String, String>,
    /// It belongs to the broker or to RocketMQ's own tools.
    system: bool,
    /// Messages in all queues.
    messages: u64,
    offsets: Vec<QueueView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct QueueView {
    queue: u32,
    /// Offset of the first message.
    min: u64,
    /// Offset that the next message gets.
    max: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TopicsQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    /// Lists the broker's own topics, retry topics and dead-letter topics as well.
    #[serde(default)]
    system: bool,
}

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(Method::GET, "/topics", "List topics.", |o| o.query::<TopicsQuery>().lists::<TopicView>("Topics."), list)
        .serve(
            Method::GET,
            "/topics/{topic}",
            "Describe a topic.",
            |o| o.answers::<TopicView>(200, "The topic with the offsets of its queues."),
            one,
        )
        .serve(
            Method::PUT,
            "/topics/{topic}",
            "Make a topic or replace its settings.",
            |o| {
                o.guarded()
                    .takes::<TopicSettings>()
                    .answers::<TopicView>(200, "Its settings were replaced.")
                    .answers::<TopicView>(201, "It was made.")
            },
            put,
        )
        .serve(
            Method::PATCH,
            "/topics/{topic}",
            "Change some settings of a topic.",
            |o| o.guarded().takes::<TopicChanges>().answers::<TopicView>(200, "The changed topic."),
            patch,
        )
        .serve(
            Method::DELETE,
            "/topics/{topic}",
            "Delete a topic with its messages.",
            |o| o.guarded().empties("It is gone."),
            delete,
        )
}

async fn list(State(rest): State<Rest>, Query(query): Query<TopicsQuery>) -> Answer {
    let reader = &rest.parts.shell.reader;
    let (_, topics) = reader.topics();
    let hidden = |name: &TopicName| is_hidden(reader, name);
    let mut by_name: BTreeMap<String, _> = topics.into_iter().map(|topic| (topic.name.to_string(), topic)).collect();
    by_name.retain(|_, topic| query.system || !hidden(&topic.name));
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let (names, next) = page.pick(by_name.keys().cloned().collect())?;
    let items = names.iter().filter_map(|name| Some(view(reader, by_name.get(name)?))).collect();
    Ok(Json(Page { items, next }).into_response())
}

/// Topics that nobody made by hand.
fn is_hidden(reader: &Reader, name: &TopicName) -> bool {
    let config = reader.config();
    let own =
        [&config.name, &config.cluster, &reply_topic(&config.cluster)].iter().any(|own| name.as_str() == own.as_str());
    own || is_system(name.as_str()) || name.is_retry() || name.is_dead_letter()
}

async fn one(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let reader = &rest.parts.shell.reader;
    let topic = reader.topic(&TopicName::parse(&name)?)?;
    Ok(tagged(false, &etag(&topic), &view(reader, &topic)))
}

async fn put(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let (name, guard) = (TopicName::parse(&name)?, Guard::of(&headers)?);
    let settings: TopicSettings = json_body(body, &headers).await?;
    let usual = Topic::new(name.clone(), rest.parts.shell.reader.config().default_queues);
    let changes = TopicChanges {
        queues: settings.queues,
        kind: settings.kind,
        permission: settings.permission,
        durability: settings.durability,
        retention: Some(settings.retention),
        attributes: None,
    };
    let mut topic = changes.applied_to(usual)?;
    topic.attributes = settings.attributes.unwrap_or_default();
    check_attributes(&topic)?;
    store(rest, name, guard, move |_| Ok(topic)).await
}

async fn patch(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let (name, guard) = (TopicName::parse(&name)?, Guard::of(&headers)?);
    let changes: TopicChanges = json_body(body, &headers).await?;
    let missing = name.clone();
    let change = move |known: Option<&Topic>| {
        let known = known.cloned().ok_or_else(|| Failure::not_found("topic", missing))?;
        changes.applied_to(known)
    };
    store(rest, name, guard, change).await
}

/// Stores what `change` makes of the known topic: on the writer, so that no other change comes between.
async fn store(
    rest: Rest,
    name: TopicName,
    guard: Guard,
    change: impl FnOnce(Option<&Topic>) -> Result<Topic> + Send + 'static,
) -> Answer {
    let its_name = name.clone();
    let verb = move |broker: &mut Broker, now| {
        let known = broker.reader().topic(&its_name).ok();
        let made = guard
            .check(its_name.as_str(), known.as_deref().map(etag).as_deref())
            .and_then(|()| change(known.as_deref()));
        let topic = match made {
            Ok(topic) => topic,
            Err(failure) => return Ok(Err(failure)),
        };
        if known.as_deref() != Some(&topic) {
            broker.put_topic(topic, now)?;
        }
        Ok(Ok(known.is_none()))
    };
    let created = rest.parts.shell.ask(verb).await.map_err(in_our_words)??;
    rest.parts.registrar.settled().await;
    let reader = &rest.parts.shell.reader;
    let topic = reader.topic(&name)?;
    Ok(tagged(created, &etag(&topic), &view(reader, &topic)))
}

/// The broker names fields as RocketMQ does.
fn in_our_words(failure: Failure) -> Failure {
    let ours = match failure.field.as_deref() {
        Some("readQueueNums" | "writeQueueNums") => "queues",
        Some("perm") => "permission",
        _ => return failure,
    };
    let text = failure.text.split_once(": ").map_or(failure.text.as_str(), |(_, text)| text);
    Failure { field: Some(ours.to_owned()), text: format!("{ours}: {text}"), ..failure }
}

async fn delete(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    let (name, guard) = (TopicName::parse(&name)?, Guard::of(&headers)?);
    let uses = rest.parts.uses_of(&name);
    if let Err(failure) = uses.none(&name) {
        let problem = Problem::from(failure);
        let Uses { pipelines, ingresses, checkers } = uses;
        return Err(if !pipelines.is_empty() {
            problem.with("pipelines", pipelines).hint("Delete the pipelines first, or point them elsewhere")
        } else if !ingresses.is_empty() {
            problem.with("ingress", ingresses).hint("Point those elsewhere first: /api/v1/topics/{topic}/ingress")
        } else {
            let hint = "Take it from their topics first: /api/v1/producer-groups/{group}/checker";
            problem.with("checkers", checkers).hint(hint)
        });
    }
    let (parts, gone) = (rest.parts.clone(), name.clone());
    let verb = move |broker: &mut Broker, now| {
        let known = broker.reader().topic(&name).ok();
        if let (Err(failure), Some(_)) = (guard.check(name.as_str(), known.as_deref().map(etag).as_deref()), &known) {
            return Ok(Err(failure));
        }
        broker.delete_topic(&name, now).map(Ok)
    };
    rest.parts.shell.ask(verb).await??;
    blocking(move || parts.topic_deleted(&gone)).await?;
    rest.parts.registrar.settled().await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl TopicChanges {
    fn applied_to(self, mut topic: Topic) -> Result<Topic> {
        if let Some(queues) = self.queues {
            (topic.read_queues, topic.write_queues) = (queues, queues);
        }
        if let Some(kind) = self.kind {
            topic.kind = parse_kind(&kind)?;
        }
        if let Some(permission) = self.permission {
            topic.permission = parse_permission(&permission)?;
        }
        if let Some(durability) = self.durability {
            topic.durability = Some(parse_durability(&durability)?);
        }
        if let Some(retention) = self.retention {
            topic.retention_ms = retention.as_deref().map(parse_retention).transpose()?;
        }
        for (key, value) in self.attributes.unwrap_or_default() {
            match value {
                Some(value) => topic.attributes.insert(key, value),
                None => topic.attributes.remove(&key),
            };
        }
        check_attributes(&topic)?;
        topic.check().map_err(|error| in_our_words(error.into()))?;
        Ok(topic)
    }
}

fn check_attributes(topic: &Topic) -> Result<()> {
    if topic.attributes.len() > ATTRIBUTES_LIMIT {
        let got = topic.attributes.len();
        return Err(Failure::invalid(
            "attributes",
            format!("attributes: expected at most {ATTRIBUTES_LIMIT}, got {got}"),
        ));
    }
    Ok(())
}

fn parse_permission(text: &str) -> Result<Permission> {
    match text {
        "read-write" => Ok(Permission(6)),
        "read" => Ok(Permission(4)),
        "write" => Ok(Permission(2)),
        "none" => Ok(Permission(0)),
        other => {
            let text = format!("permission: expected read-write, read, write or none, got {other:?}");
            Err(Failure::invalid("permission", text))
        }
    }
}

fn permission_text(permission: Permission) -> &'static str {
    match (permission.readable(), permission.writable()) {
        (true, true) => "read-write",
        (true, false) => "read",
        (false, true) => "write",
        (false, false) => "none",
    }
}

fn parse_durability(text: &str) -> Result<Durability> {
    match text {
        "sync" => Ok(Durability::Sync),
        "async" => Ok(Durability::Async),
        other => Err(Failure::invalid("durability", format!("durability: expected sync or async, got {other:?}"))),
    }
}

fn parse_retention(text: &str) -> Result<i64> {
    let time =
        units::parse_duration(text).map_err(|text| Failure::invalid("retention", format!("retention: {text}")))?;
    Ok(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn retention_text(ms: i64) -> String {
    units::duration_text(Duration::from_millis(ms.unsigned_abs()))
}

fn durability_text(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Async => "async",
    }
}

/// A tag of a topic's settings.
fn etag(topic: &Topic) -> String {
    let counts = (topic.read_queues, topic.write_queues, topic.permission.0, topic.ordered);
    let kept = (topic.durability.map(durability_text), topic.retention_ms);
    tag_of(&(counts, kind_text(topic.kind), kept, &topic.attributes))
}

fn view(reader: &Reader, topic: &Topic) -> TopicView {
    let queues = (0..topic.read_queues.max(topic.write_queues)).map(|queue| {
        let (min, max) = reader.bounds(&topic.name, QueueId(queue));
        QueueView { queue, min: min.0, max: max.0 }
    });
    let offsets: Vec<QueueView> = queues.collect();
    TopicView {
        name: topic.name.to_string(),
        queues: topic.write_queues,
        kind: kind_text(topic.kind),
        permission: permission_text(topic.permission),
        durability: durability_text(topic.durability.unwrap_or(reader.config().durability)),
        retention: topic.retention_ms.map(retention_text),
        attributes: topic.attributes.clone(),
        system: is_hidden(reader, &topic.name),
        messages: offsets.iter().map(|queue| queue.max.saturating_sub(queue.min)).sum(),
        offsets,
    }
}
