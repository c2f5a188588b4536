//! What administrators ask: topics, groups, statistics, connections.

use sluice_broker::{Boundary, Broker, Group, Topic, is_system};
use sluice_model::{GroupName, QueueId, QueueOffset, Timestamp, TopicName};
use sluice_protocol::{
    Response, ResponseCode, body, reply,
    request::{
        AllGroups, AllTopicConfigs, ConsumeStats, ConsumeTimeSpan, ConsumerConnections, CreateTopic, CreateTopics,
        DeleteGroup, DeleteTopic, GroupConfig, GroupsOfTopic, ProducerConnections, SubscriptionOfConsumer, TopicConfig,
        TopicStats, TopicsOfConsumer,
    },
};
use sluice_transport::Responder;

use super::{Door, answer, bodies, failed, query::signed};
use crate::{
    clock,
    failure::{Failure, Result},
};

/// Topics or groups in one page when a tool asks page by page without saying how many.
const PAGE: usize = 1_000;
/// A topic's messages a second are those of so many ms past.
const RATE_MS: i64 = 10_000;

impl Door {
    /// Runs a verb that answers nothing but success, once the name servers know of it: whoever changed a topic asks them
    /// for its route next.
    fn change(
        &self,
        verb: impl FnOnce(&mut Broker, Timestamp) -> sluice_broker::Result<()> + Send + 'static,
        responder: Responder,
    ) {
        self.change_and(verb, || Ok(()), responder);
    }

    /// [`Self::change`], and then what blocks.
    fn change_and(
        &self,
        verb: impl FnOnce(&mut Broker, Timestamp) -> sluice_broker::Result<()> + Send + 'static,
        then: impl FnOnce() -> Result<()> + Send + 'static,
        responder: Responder,
    ) {
        let parts = self.parts.clone();
        tokio::spawn(async move {
            let done = match parts.shell.ask(verb).await {
                Ok(()) => tokio::task::spawn_blocking(then)
                    .await
                    .unwrap_or_else(|panic| Err(Failure::new(sluice_model::Kind::Internal, panic.to_string()))),
                Err(failure) => Err(failure),
            };
            if done.is_ok() {
                parts.registrar.settled().await;
            }
            responder.send(answer(done.map(|()| Response::ok())));
        });
    }

    pub(super) fn create_topic(&self, request: CreateTopic, responder: Responder) {
        let known = self.parts.shell.reader.topic(&request.topic).ok();
        match bodies::created_topic(&request, known.as_deref()) {
            Ok(topic) => self.change(move |broker, now| broker.put_topic(topic, now), responder),
            Err(failure) => responder.send(failed(&failure)),
        }
    }

    pub(super) fn create_topics(&self, request: CreateTopics, responder: Responder) {
        let known = |name: &TopicName| self.parts.shell.reader.topic(name).ok();
        let topics =
            request.body.topics.iter().map(|topic| bodies::to_topic(topic, known)).collect::<Result<Vec<Topic>>>();
        match topics {
            Ok(topics) => {
                let verb = move |broker: &mut Broker, now| {
                    topics.into_iter().try_for_each(|topic| broker.put_topic(topic, now))
                };
                self.change(verb, responder);
            }
            Err(failure) => responder.send(failed(&failure)),
        }
    }

    pub(super) fn delete_topic(&self, request: DeleteTopic, responder: Responder) {
        let (parts, topic) = (self.parts.clone(), request.topic.clone());
        if let Err(failure) = parts.uses_of(&topic).none(&topic) {
            return responder.send(failed(&failure));
        }
        let deleted = move || parts.topic_deleted(&topic);
        self.change_and(move |broker, now| broker.delete_topic(&request.topic, now), deleted, responder);
    }

    pub(super) fn update_groups(&self, groups: Vec<body::GroupConfigBody>, responder: Responder) {
        let group = |body| {
            let group = bodies::to_group(body)?;
            self.parts.not_pipelines(&group.name)?;
            Ok(group)
        };
        match groups.iter().map(group).collect::<Result<Vec<Group>>>() {
            Ok(groups) => {
                let verb = move |broker: &mut Broker, now| {
                    groups.into_iter().try_for_each(|group| broker.put_group(group, now))
                };
                self.change(verb, responder);
            }
            Err(failure) => responder.send(failed(&failure)),
        }
    }

    pub(super) fn delete_group(&self, request: DeleteGroup, responder: Responder) {
        if let Err(failure) = self.parts.not_pipelines(&request.group) {
            return responder.send(failed(&failure));
        }
        let (parts, group) = (self.parts.clone(), request.group.clone());
        let deleted = move || parts.group_deleted(&group);
        self.change_and(move |broker, now| broker.delete_group(&request.group, now), deleted, responder);
    }

    pub(super) fn all_topic_configs(&self, request: AllTopicConfigs) -> Response {
        let (version, mut topics) = self.parts.shell.reader.topics();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let total = topics.len();
        let page = topics.iter().skip(from(request.from)).take(page(request.from, request.max));
        let table = body::TopicTableBody {
            data_version: bodies::version(version),
            topics: page.map(|topic| (topic.name.to_string(), bodies::of_topic(topic))).collect(),
            ..body::TopicTableBody::default()
        };
        let reply = reply::TopicPageReply { total: i32::try_from(total).unwrap_or(i32::MAX) };
        Response::ok().with_ext(reply.encode()).with_body(table.to_json())
    }

    pub(super) fn topic_config(&self, request: TopicConfig) -> Response {
        let topic = self.parts.shell.reader.topic(&request.topic).map_err(Failure::from);
        answer(topic.map(|topic| Response::ok().with_body(bodies::of_topic(&topic).to_json())))
    }

    pub(super) fn topic_stats(&self, request: TopicStats) -> Response {
        answer(self.stats(&request.topic))
    }

    fn stats(&self, name: &TopicName) -> Result<Response> {
        let reader = &self.parts.shell.reader;
        let topic = reader.topic(name)?;
        let since = clock::now().plus_ms(-RATE_MS);
        let mut lately = 0;
        let queues = (0..topic.read_queues.max(topic.write_queues)).map(QueueId).map(|queue| {
            let (min, max) = reader.bounds(name, queue);
            let first = reader.offset_at_time(name, queue, since, Boundary::Lower);
            lately += first.map_or(0, |first| max.0.saturating_sub(first.0));
            let last = max.0.checked_sub(1).map(QueueOffset).filter(|last| *last >= min);
            let stored = last.and_then(|last| reader.stored_at(name, queue, last)).unwrap_or_default();
            let bounds =
                body::QueueBounds { last_update_timestamp: stored.0, max_offset: signed(max), min_offset: signed(min) };
            (body::QueueRef::new(name.as_str(), &reader.config().name, queue), bounds)
        });
        let queues = body::QueueTable(queues.collect());
        let stats = body::TopicStatsBody { queues, topic_put_tps: lately as f64 * 1_000.0 / RATE_MS as f64 };
        Ok(Response::ok().with_body(stats.to_json()))
    }

    pub(super) fn system_topics(&self) -> Response {
        let (_, topics) = self.parts.shell.reader.topics();
        let names = topics.iter().map(|topic| topic.name.to_string()).filter(|name| is_system(name));
        let list = body::TopicListBody { broker_addr: None, topics: names.collect() };
        Response::ok().with_body(list.to_json())
    }

    pub(super) fn groups_of_topic(&self, request: GroupsOfTopic) -> Response {
        let reader = &self.parts.shell.reader;
        let mut groups: std::collections::BTreeSet<String> = reader.members(|members| {
            let subscribed = members.groups().filter(|(_, group)| group.subscriptions.contains_key(&request.topic));
            subscribed.map(|(name, _)| name.to_string()).collect()
        });
        let with_offsets = reader
            .groups_with_offsets()
            .into_iter()
            .filter(|group| reader.offsets_of(group).iter().any(|position| position.topic == request.topic));
        groups.extend(with_offsets.map(|group| group.to_string()).filter(|group| !is_system(group)));
        Response::ok().with_body(body::GroupListBody { groups }.to_json())
    }

    pub(super) fn all_groups(&self, request: AllGroups) -> Response {
        let mut groups = self.parts.shell.reader.groups();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let total = groups.len();
        let page = groups.iter().skip(from(request.from)).take(page(request.from, request.max));
        let table = body::GroupTableBody {
            groups: page.map(|group| (group.name.to_string(), bodies::of_group(group))).collect(),
            ..body::GroupTableBody::default()
        };
        let reply = reply::GroupPageReply { total: i32::try_from(total).unwrap_or(i32::MAX) };
        Response::ok().with_ext(reply.encode()).with_body(table.to_json())
    }

    pub(super) fn group_config(&self, request: GroupConfig) -> Response {
        let known = self.parts.shell.reader.knows_group(&request.group);
        let known = known.then(|| self.parts.shell.reader.group(&request.group));
        let group = known.ok_or_else(|| Failure::not_found("group", &request.group));
        answer(group.map(|group| Response::ok().with_body(bodies::of_group(&group).to_json())))
    }

    pub(super) fn consume_stats(&self, request: ConsumeStats) -> Response {
        let reader = &self.parts.shell.reader;
        let listed = request.topics.as_deref().map(|list| list.split(';').map(str::to_owned).collect::<Vec<_>>());
        let wanted = |topic: &TopicName| match (&request.topic, &listed) {
            (Some(one), _) => one == topic,
            (None, Some(several)) => several.iter().any(|name| name == topic.as_str()),
            (None, None) => true,
        };
        let mut queues = Vec::new();
        for topic in self.topics_of(&request.group).into_iter().filter(wanted) {
            let Ok(known) = reader.topic(&topic) else { continue };
            for queue in (0..known.read_queues).map(QueueId) {
                let (_, max) = reader.bounds(&topic, queue);
                let at = reader.offset(&request.group, &topic, queue).unwrap_or_default();
                let consumed = at.0.checked_sub(1).and_then(|last| reader.stored_at(&topic, queue, QueueOffset(last)));
                let progress = body::QueueProgress {
                    broker_offset: signed(max),
                    consumer_offset: signed(at),
                    last_timestamp: consumed.unwrap_or_default().0,
                    pull_offset: signed(at),
                };
                queues.push((body::QueueRef::new(topic.as_str(), &reader.config().name, queue), progress));
            }
        }
        let stats = body::ConsumeStatsBody {
            consume_tps: self.parts.metrics.group_rate(&request.group),
            queues: body::QueueTable(queues),
        };
        Response::ok().with_body(stats.to_json())
    }

    /// Topics that a group subscribes to or has offsets in.
    fn topics_of(&self, group: &GroupName) -> std::collections::BTreeSet<TopicName> {
        let reader = &self.parts.shell.reader;
        let mut topics: std::collections::BTreeSet<TopicName> = reader.members(|members| {
            members.group(group).map(|group| group.subscriptions.keys().cloned().collect()).unwrap_or_default()
        });
        topics.extend(reader.offsets_of(group).into_iter().map(|position| position.topic));
        topics
    }

    pub(super) fn consume_time_span(&self, request: ConsumeTimeSpan) -> Response {
        let reader = &self.parts.shell.reader;
        let spans = reader.topic(&request.topic).map_err(Failure::from).map(|topic| {
            (0..topic.read_queues).map(QueueId).map(|queue| self.time_span(&request, queue)).collect::<Vec<_>>()
        });
        answer(spans.map(|spans| Response::ok().with_body(body::TimeSpanBody { spans }.to_json())))
    }

    fn time_span(&self, request: &ConsumeTimeSpan, queue: QueueId) -> body::QueueTimeSpan {
        let reader = &self.parts.shell.reader;
        let (min, max) = reader.bounds(&request.topic, queue);
        let time = |offset: QueueOffset| reader.stored_at(&request.topic, queue, offset).unwrap_or_default().0;
        let last = max.0.checked_sub(1).map_or(0, |last| time(QueueOffset(last)));
        let at = reader.offset(&request.group, &request.topic, queue);
        let consumed = at.and_then(|at| at.0.checked_sub(1)).map_or_else(|| time(min), |last| time(QueueOffset(last)));
        let waiting = at.filter(|at| *at < max).map(time);
        body::QueueTimeSpan {
            consumed,
            delay: waiting.map_or(0, |stored| clock::now().0 - stored),
            max: last,
            queue: body::QueueRef::new(request.topic.as_str(), &reader.config().name, queue),
            min: time(min),
        }
    }

    pub(super) fn consumer_connections(&self, request: ConsumerConnections) -> Response {
        let connections =
            self.parts.shell.reader.members(|members| members.group(&request.group).map(bodies::of_consumers));
        match connections {
            Some(connections) => Response::ok().with_body(connections.to_json()),
            None => {
                let text = format!("group {:?} has no member online", request.group);
                Response::error(ResponseCode::ConsumerNotOnline, text)
            }
        }
    }

    pub(super) fn producer_connections(&self, request: ProducerConnections) -> Response {
        let connections: Vec<_> = self
            .parts
            .shell
            .reader
            .members(|members| members.producers(&request.group).map(bodies::of_member).collect());
        if connections.is_empty() {
            let text = format!("group {:?} has no producer online", request.group);
            return Response::error(ResponseCode::SystemError, text);
        }
        Response::ok().with_body(body::ProducerConnectionsBody { connections }.to_json())
    }

    pub(super) fn topics_of_consumer(&self, request: TopicsOfConsumer) -> Response {
        let topics = self.topics_of(&request.group).iter().map(TopicName::to_string).collect();
        Response::ok().with_body(body::TopicListBody { broker_addr: None, topics }.to_json())
    }

    pub(super) fn subscription_of_consumer(&self, request: SubscriptionOfConsumer) -> Response {
        let subscription = self.parts.shell.reader.members(|members| {
            members.group(&request.group).and_then(|group| group.subscriptions.get(&request.topic).cloned())
        });
        let found = body::SubscriptionBody {
            group: request.group.to_string(),
            subscription: subscription.map(|subscription| bodies::of_subscription(&subscription)),
            topic: request.topic.to_string(),
        };
        Response::ok().with_body(found.to_json())
    }

    pub(super) fn broker_config(&self) -> Response {
        let config = self.parts.shell.reader.config();
        let text = bodies::config_text(config);
        Response::ok().with_ext(reply::ConfigReply { version: "1".to_owned() }.encode()).with_body(text)
    }

    pub(super) fn broker_runtime(&self) -> Response {
        let table = self.parts.metrics.runtime_table(&self.parts.shell.reader);
        Response::ok().with_body(body::KvTableBody { table }.to_json())
    }
}

fn from(seq: Option<i32>) -> usize {
    seq.and_then(|seq| usize::try_from(seq).ok()).unwrap_or(0)
}

/// Tools that do not page get everything.
fn page(from: Option<i32>, max: Option<i32>) -> usize {
    match (from, max.and_then(|max| usize::try_from(max).ok())) {
        (_, Some(max)) => max,
        (Some(_), None) => PAGE,
        (None, None) => usize::MAX,
    }
}
