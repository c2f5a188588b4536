//! `/groups`: consumer groups, their members, how far they are, and moving them.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_broker::{Boundary, Broker, ConsumeModel, ConsumerGroup, Group, Member, Reader, is_system};
use sluice_model::{GroupName, Kind, QueueId, QueueOffset, Timestamp, TopicName};
use sluice_protocol::request::ResetOffset;

use super::{
    Rest, blocking,
    input::{Guard, Path, Query, json_body, time},
    page::{Page, PageQuery},
    problem::{Answer, Problem},
    routes::Routes,
    tag_of, tagged,
};
use crate::{
    failure::{Failure, Result},
    remoting::Door,
};

/// Settings of a consumer group. What is left out has its usual value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct GroupSettings {
    /// Members may consume; true when left out.
    enabled: bool,
    /// Members may consume as broadcasting; true when left out.
    broadcast: bool,
    /// Failed deliveries of one message before it becomes a dead letter; 16 when left out.
    retries: u32,
    /// Queues of the group's retry topic; 1 when left out.
    retry_queues: u32,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self { enabled: true, broadcast: true, retries: 16, retry_queues: 1 }
    }
}

/// A consumer group as it stands.
#[derive(Debug, Serialize, JsonSchema)]
struct GroupView {
    name: String,
    enabled: bool,
    broadcast: bool,
    retries: u32,
    retry_queues: u32,
    /// `clustering` or `broadcasting`, as its members say; null without any.
    model: Option<&'static str>,
    members: Vec<MemberView>,
    /// Expression by topic: tags, or a condition in SQL92.
    subscriptions: BTreeMap<String, String>,
    topics: Vec<GroupTopicView>,
    /// Messages not consumed yet, in all topics but its retry topic.
    lag: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct MemberView {
    client: String,
    address: String,
    language: String,
    version: i32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GroupTopicView {
    topic: String,
    lag: u64,
    queues: Vec<GroupQueueView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GroupQueueView {
    queue: u32,
    /// Offset of the next message to consume; null when nothing was committed.
    offset: Option<u64>,
    min: u64,
    max: u64,
    /// Messages between `offset`, or `min` without one, and `max`.
    lag: u64,
}

/// Where a group is to go on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reset {
    topic: String,
    /// `earliest`, `latest`, a time as `2026-01-31T12:00:00Z`, or an offset (with `queue`).
    to: Value,
    /// Every queue when left out.
    queue: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ResetView {
    group: String,
    topic: String,
    queues: Vec<ResetQueueView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ResetQueueView {
    queue: u32,
    from: Option<u64>,
    to: u64,
}

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            "/groups",
            "List consumer groups.",
            |o| o.query::<PageQuery>().lists::<GroupView>("Groups with settings, members or offsets."),
            list,
        )
        .serve(
            Method::GET,
            "/groups/{group}",
            "Describe a consumer group: members, and lag per queue.",
            |o| o.answers::<GroupView>(200, "The group."),
            one,
        )
        .serve(
            Method::PUT,
            "/groups/{group}",
            "Make a consumer group or replace its settings.",
            |o| {
                o.guarded()
                    .takes::<GroupSettings>()
                    .answers::<GroupView>(200, "Its settings were replaced.")
                    .answers::<GroupView>(201, "It was made.")
            },
            put,
        )
        .serve(
            Method::DELETE,
            "/groups/{group}",
            "Delete a consumer group without members, with its offsets and its retry topic.",
            |o| o.guarded().empties("It is gone."),
            delete,
        )
        .serve(
            Method::POST,
            "/groups/{group}/offsets:reset",
            "Move a group in a topic. Connected members are told.",
            |o| o.takes::<Reset>().answers::<ResetView>(200, "From where to where each queue was moved."),
            reset,
        )
}

async fn list(State(rest): State<Rest>, Query(query): Query<PageQuery>) -> Answer {
    let (names, next) = query.pick(names(&rest).into_iter().collect())?;
    let items = names.iter().map(|name| Ok(view(&rest.parts.shell.reader, &GroupName::parse(name)?)));
    Ok(Json(Page { items: items.collect::<Result<_>>()?, next }).into_response())
}

/// Every group that is known in any way, but for the broker's own and those that keep a pipeline's positions.
fn names(rest: &Rest) -> BTreeSet<String> {
    let reader = &rest.parts.shell.reader;
    let mut names: BTreeSet<String> = reader.groups().iter().map(|group| group.name.to_string()).collect();
    names.extend(reader.groups_with_offsets().iter().map(GroupName::to_string));
    names.extend(reader.members(|members| members.groups().map(|(name, _)| name.to_string()).collect::<Vec<_>>()));
    names.retain(|name| !is_system(name) && !rest.parts.is_pipelines(name));
    names
}

fn known(rest: &Rest, name: &GroupName) -> Result<()> {
    let reader = &rest.parts.shell.reader;
    let known = reader.knows_group(name)
        || reader.members(|members| members.group(name).is_some())
        || !reader.offsets_of(name).is_empty();
    if known { Ok(()) } else { Err(Failure::not_found("group", name)) }
}

async fn one(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let name = GroupName::parse(&name)?;
    known(&rest, &name)?;
    let reader = &rest.parts.shell.reader;
    Ok(tagged(false, &etag(&reader.group(&name)), &view(reader, &name)))
}

async fn put(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let (name, guard) = (GroupName::parse(&name)?, Guard::of(&headers)?);
    not_pipelines(&rest, &name)?;
    let settings: GroupSettings = json_body(body, &headers).await?;
    let group = Group {
        name: name.clone(),
        enabled: settings.enabled,
        broadcast: settings.broadcast,
        retries: settings.retries,
        retry_queues: settings.retry_queues,
    };
    let its_name = name.clone();
    let verb = move |broker: &mut Broker, now| {
        let known = broker.reader().knows_group(&its_name).then(|| broker.reader().group(&its_name));
        if let Err(failure) = guard.check(its_name.as_str(), known.as_deref().map(etag).as_deref()) {
            return Ok(Err(failure));
        }
        if known.as_deref() != Some(&group) {
            broker.put_group(group, now)?;
        }
        Ok(Ok(known.is_none()))
    };
    let created = rest.parts.shell.ask(verb).await.map_err(in_our_words)??;
    rest.parts.registrar.settled().await;
    let reader = &rest.parts.shell.reader;
    Ok(tagged(created, &etag(&reader.group(&name)), &view(reader, &name)))
}

/// The broker names fields as RocketMQ does.
fn in_our_words(failure: Failure) -> Failure {
    match failure.field.as_deref() {
        Some("retryQueueNums") => Failure {
            field: Some("retry_queues".to_owned()),
            text: failure.text.replace("retryQueueNums", "retry_queues"),
            ..failure
        },
        _ => failure,
    }
}

async fn delete(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    let (name, guard) = (GroupName::parse(&name)?, Guard::of(&headers)?);
    not_pipelines(&rest, &name)?;
    known(&rest, &name)?;
    let clients: Vec<String> = rest.parts.shell.reader.members(|members| {
        members.group(&name).map(|group| group.members.keys().cloned().collect()).unwrap_or_default()
    });
    if !clients.is_empty() {
        let text = format!("group \"{name}\" has members: {}", clients.join(", "));
        let problem = Problem::from(Failure::new(Kind::Conflict, text));
        return Err(problem.with("members", clients).hint("Stop them first: they would make the group anew"));
    }
    let (parts, gone) = (rest.parts.clone(), name.clone());
    let verb = move |broker: &mut Broker, now| {
        // One that only has offsets is shown with the usual settings.
        let tag = etag(&broker.reader().group(&name));
        if let Err(failure) = guard.check(name.as_str(), Some(&tag)) {
            return Ok(Err(failure));
        }
        if broker.reader().knows_group(&name) {
            broker.delete_group(&name, now)?;
        } else {
            broker.forget_positions(&name, now)?;
        }
        Ok(Ok(()))
    };
    rest.parts.shell.ask(verb).await??;
    blocking(move || parts.group_deleted(&gone)).await?;
    rest.parts.registrar.settled().await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Fails for a name under which a pipeline keeps its positions.
pub fn not_pipelines(rest: &Rest, name: &GroupName) -> std::result::Result<(), Problem> {
    let checked = rest.parts.not_pipelines(name);
    checked.map_err(|failure| Problem::from(failure).hint("GET /api/v1/pipelines lists pipelines"))
}

async fn reset(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let group = GroupName::parse(&name)?;
    let wanted: Reset = json_body(body, &headers).await?;
    not_pipelines(&rest, &group)?;
    known(&rest, &group)?;
    let reader = &rest.parts.shell.reader;
    let topic = TopicName::parse(&wanted.topic)?;
    let queues = reader.topic(&topic)?.read_queues;
    if let Some(queue) = wanted.queue.filter(|queue| *queue >= queues) {
        let text = format!("queue: expected 0 to {}, got {queue}", queues.saturating_sub(1));
        return Err(Failure::invalid("queue", text).into());
    }
    let to = Target::parse(&wanted)?;
    // Every target is found before the first queue is moved.
    let targets = wanted.queue.map_or(0..queues, |queue| queue..queue + 1).map(QueueId);
    let targets: Vec<(QueueId, QueueOffset)> =
        targets.map(|queue| Ok((queue, to.of(reader, &topic, queue)?))).collect::<Result<_>>()?;
    ensure_settings(&rest, &group).await?;
    let door = Door { parts: rest.parts.clone() };
    let mut moved = Vec::with_capacity(targets.len());
    for (queue, to) in targets {
        let from = reader.offset(&group, &topic, queue).map(|offset| offset.0);
        door.reset(&ResetOffset {
            topic: topic.clone(),
            group: group.clone(),
            time: Timestamp(0),
            force: true,
            queue: i32::try_from(queue.0).unwrap_or(i32::MAX),
            offset: Some(i64::try_from(to.0).unwrap_or(i64::MAX)),
        })?;
        moved.push(ResetQueueView { queue: queue.0, from, to: to.0 });
    }
    let view = ResetView { group: group.to_string(), topic: topic.to_string(), queues: moved };
    Ok(Json(view).into_response())
}

/// A group that is known by its members or offsets only gets the usual settings: only such a group can be moved.
async fn ensure_settings(rest: &Rest, group: &GroupName) -> Result<()> {
    if rest.parts.shell.reader.knows_group(group) {
        return Ok(());
    }
    let group = Group::new(group.clone());
    rest.parts.shell.ask(move |broker: &mut Broker, now| broker.put_group(group, now)).await
}

enum Target {
    Earliest,
    Latest,
    Time(Timestamp),
    Offset(QueueOffset),
}

impl Target {
    fn parse(wanted: &Reset) -> Result<Self> {
        let bad = |got: &Value| {
            let text = format!("to: expected earliest, latest, a time as 2026-01-31T12:00:00Z or an offset, got {got}");
            Failure::invalid("to", text)
        };
        let offset = match &wanted.to {
            Value::String(text) => match text.as_str() {
                "earliest" => return Ok(Self::Earliest),
                "latest" => return Ok(Self::Latest),
                text => match text.parse() {
                    Ok(offset) => offset,
                    Err(_) => return time("to", text).map(Self::Time).map_err(|_| bad(&wanted.to)),
                },
            },
            to => to.as_u64().ok_or_else(|| bad(to))?,
        };
        if wanted.queue.is_none() {
            return Err(Failure::invalid("queue", "queue: expected the queue that the offset is one of"));
        }
        Ok(Self::Offset(QueueOffset(offset)))
    }

    fn of(&self, reader: &Reader, topic: &TopicName, queue: QueueId) -> Result<QueueOffset> {
        let (min, max) = reader.bounds(topic, queue);
        match self {
            Self::Earliest => Ok(min),
            Self::Latest => Ok(max),
            Self::Time(time) => Ok(reader.offset_at_time(topic, queue, *time, Boundary::Lower)?.clamp(min, max)),
            Self::Offset(offset) if (min..=max).contains(offset) => Ok(*offset),
            Self::Offset(offset) => {
                Err(Failure::invalid("to", format!("to: expected {min} to {max} in queue {queue}, got {offset}")))
            }
        }
    }
}

fn etag(group: &Group) -> String {
    tag_of(&(group.enabled, group.broadcast, group.retries, group.retry_queues))
}

fn view(reader: &Reader, name: &GroupName) -> GroupView {
    let group = reader.group(name);
    let online = reader.members(|members| members.group(name).map(Online::of)).unwrap_or_default();
    let mut topics: BTreeSet<TopicName> = online.subscriptions.keys().cloned().collect();
    topics.extend(reader.offsets_of(name).into_iter().map(|position| position.topic));
    let topics: Vec<GroupTopicView> = topics.iter().filter_map(|topic| topic_view(reader, name, topic)).collect();
    GroupView {
        name: name.to_string(),
        enabled: group.enabled,
        broadcast: group.broadcast,
        retries: group.retries,
        retry_queues: group.retry_queues,
        model: online.model,
        members: online.members,
        subscriptions: online.subscriptions.into_iter().map(|(topic, text)| (topic.to_string(), text)).collect(),
        lag: topics.iter().filter(|of| !of.topic.starts_with("%RETRY%")).map(|of| of.lag).sum(),
        topics,
    }
}

/// What the members of a group say.
#[derive(Default)]
struct Online {
    model: Option<&'static str>,
    members: Vec<MemberView>,
    subscriptions: BTreeMap<TopicName, String>,
}

impl Online {
    fn of(group: &ConsumerGroup) -> Self {
        let subscriptions = group.subscriptions.iter();
        Self {
            model: Some(match group.model {
                ConsumeModel::Clustering => "clustering",
                ConsumeModel::Broadcasting => "broadcasting",
            }),
            members: group.members.values().map(MemberView::of).collect(),
            subscriptions: subscriptions.map(|(topic, of)| (topic.clone(), of.expression.clone())).collect(),
        }
    }
}

impl MemberView {
    fn of(member: &Member) -> Self {
        Self {
            client: member.client.clone(),
            address: member.address.clone(),
            language: member.language.clone(),
            version: member.version,
        }
    }
}

fn topic_view(reader: &Reader, group: &GroupName, name: &TopicName) -> Option<GroupTopicView> {
    let topic = reader.topic(name).ok()?;
    let queues = (0..topic.read_queues).map(QueueId).map(|queue| {
        let (min, max) = reader.bounds(name, queue);
        let offset = reader.offset(group, name, queue);
        let lag = max.0.saturating_sub(offset.unwrap_or(min).0.max(min.0));
        GroupQueueView { queue: queue.0, offset: offset.map(|offset| offset.0), min: min.0, max: max.0, lag }
    });
    let queues: Vec<GroupQueueView> = queues.collect();
    Some(GroupTopicView { topic: name.to_string(), lag: queues.iter().map(|queue| queue.lag).sum(), queues })
}

/// Lag of every group in every topic, for monitoring.
pub fn lags(rest: &Rest) -> Vec<(String, String, u64)> {
    let reader = &rest.parts.shell.reader;
    let groups = names(rest).into_iter().filter_map(|name| GroupName::parse(&name).ok());
    let of = |group: GroupName| {
        let topics = view(reader, &group).topics.into_iter();
        topics.map(|topic| (group.to_string(), topic.topic, topic.lag)).collect::<Vec<_>>()
    };
    groups.flat_map(of).collect()
}
