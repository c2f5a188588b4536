use std::collections::BTreeSet;

use bytes::Bytes;
use sluice_model::{GroupName, MessageId, QueueOffset, Timestamp, TopicName};
use sluice_protocol::{
    Frame, ResponseCode,
    body::{ClusterBody, ConsumeStatsBody, ConsumerListBody, QueueRef, RouteBody, TopicListBody, TopicStatsBody},
    request::{
        AllTopics, Cluster, ConsumeStats, ConsumerList, CreateTopic, DeleteTopic, DeleteTopicRoute, QueryMessage,
        TopicStats, ViewMessage,
    },
};

use crate::{Client, Error, Received};

/// Topics, offsets and queries. Made by [`Client::admin`].
pub struct Admin {
    client: Client,
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    /// Queues on each broker.
    pub queues: u32,
    /// Bits: 4 read, 2 write.
    pub perm: u32,
    pub attributes: Vec<(String, String)>,
}

impl Topic {
    /// A topic that may be read and written.
    pub fn new(name: impl Into<String>, queues: u32) -> Self {
        Self { name: name.into(), queues, perm: 6, attributes: Vec::new() }
    }
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a topic on every broker, or changes it.
    pub async fn create_topic(&self, topic: &Topic) -> Result<(), Error> {
        let changes: Vec<_> = topic.attributes.iter().map(|(key, value)| format!("+{key}={value}")).collect();
        let request = CreateTopic {
            topic: TopicName::parse(&topic.name)?,
            default_topic: "TBW102".to_owned(),
            read_queues: topic.queues,
            write_queues: topic.queues,
            perm: topic.perm,
            filter_type: "SINGLE_TAG".to_owned(),
            sys_flag: 0,
            order: false,
            attributes: (!changes.is_empty()).then(|| changes.join(",")),
            force: false,
        };
        self.on_masters(request.encode()).await?;
        self.client.forget_route(&topic.name);
        Ok(())
    }

    /// Deletes a topic on every broker and at the name servers.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let topic = TopicName::parse(name)?;
        self.on_masters(DeleteTopic { topic: topic.clone() }.encode()).await?;
        for address in &self.client.0.config.namesrv_addrs {
            self.client.call(address, DeleteTopicRoute { topic: topic.clone(), cluster: None }.encode()).await?;
        }
        self.client.forget_route(name);
        Ok(())
    }

    async fn on_masters(&self, request: Frame) -> Result<(), Error> {
        for broker in self.cluster().await?.brokers.values() {
            if let Some(address) = broker.master() {
                self.client.call(address, request.clone()).await?;
            }
        }
        Ok(())
    }

    /// Where a topic's queues are, as the name server knows now.
    pub async fn route(&self, topic: &str) -> Result<RouteBody, Error> {
        self.client.forget_route(topic);
        Ok((*self.client.route(topic).await?).clone())
    }

    /// The names of all topics.
    pub async fn topics(&self) -> Result<BTreeSet<String>, Error> {
        let answer = self.client.call_names(AllTopics {}.encode()).await?;
        Ok(TopicListBody::from_json(&answer.body)?.topics)
    }

    /// All brokers and clusters.
    pub async fn cluster(&self) -> Result<ClusterBody, Error> {
        let answer = self.client.call_names(Cluster {}.encode()).await?;
        Ok(ClusterBody::from_json(&answer.body)?)
    }

    /// A topic's queues.
    pub async fn queues(&self, topic: &str) -> Result<Vec<QueueRef>, Error> {
        self.client.read_queues(topic).await
    }

    /// The bounds of a topic's queues on one broker.
    pub async fn topic_stats(&self, topic: &str, broker: &str) -> Result<TopicStatsBody, Error> {
        let address = self.client.broker(topic, broker, false).await?;
        let answer = self.client.call(&address, TopicStats { topic: TopicName::parse(topic)? }.encode()).await?;
        Ok(TopicStatsBody::from_json(&answer.body)?)
    }

    /// A group's progress in a topic on one broker.
    pub async fn consume_stats(&self, group: &str, topic: &str, broker: &str) -> Result<ConsumeStatsBody, Error> {
        let request =
            ConsumeStats { group: GroupName::parse(group)?, topic: Some(TopicName::parse(topic)?), topics: None };
        let address = self.client.broker(topic, broker, false).await?;
        let answer = self.client.call(&address, request.encode()).await?;
        Ok(ConsumeStatsBody::from_json(&answer.body)?)
    }

    /// The offset of a queue's first message.
    pub async fn min_offset(&self, queue: &QueueRef) -> Result<i64, Error> {
        self.client.min_offset(queue).await
    }

    /// The offset behind a queue's last message.
    pub async fn max_offset(&self, queue: &QueueRef) -> Result<i64, Error> {
        self.client.max_offset(queue).await
    }

    /// The offset at a time.
    pub async fn offset_at(&self, queue: &QueueRef, time: Timestamp) -> Result<i64, Error> {
        self.client.offset_at(queue, time).await
    }

    /// How far a group has consumed a queue.
    pub async fn committed(&self, group: &str, queue: &QueueRef) -> Result<Option<QueueOffset>, Error> {
        self.client.committed(&GroupName::parse(group)?, queue).await
    }

    /// Stores that a group has consumed a queue up to `offset`.
    pub async fn commit(&self, group: &str, queue: &QueueRef, offset: QueueOffset) -> Result<(), Error> {
        self.client.commit(&GroupName::parse(group)?, queue, offset).await
    }

    /// The ids of the clients that belong to a consumer group, as one broker of `topic` knows; none when nobody does.
    pub async fn consumers(&self, group: &str, topic: &str) -> Result<Vec<String>, Error> {
        self.client.members(&GroupName::parse(group)?, topic).await
    }

    /// A message by its place (`Sent::stored_id`).
    pub async fn view(&self, stored_id: &str) -> Result<Received, Error> {
        let id = MessageId::parse(stored_id)?;
        let request = ViewMessage { topic: None, offset: id.log_offset };
        let answer = self.client.call(&id.broker.to_string(), request.encode()).await?;
        let mut messages = Received::all(&answer.body, "")?;
        let problem = || Error::Invalid { field: "msgId", problem: format!("no message is stored as {stored_id}") };
        messages.pop().ok_or_else(problem)
    }

    /// Messages of a topic by one of their keys, stored between `begin` and `end`; at most `max` of each broker.
    pub async fn query(
        &self,
        topic: &str,
        key: &str,
        max: u16,
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<Vec<Received>, Error> {
        let request = QueryMessage {
            topic: TopicName::parse(topic)?,
            key: key.to_owned(),
            max_messages: i32::from(max),
            begin,
            end,
            unique: false,
        };
        let route = self.client.route(topic).await?;
        let mut found = Vec::new();
        for broker in &route.brokers {
            let Some(address) = broker.broker_addrs.values().next() else { continue };
            match self.client.call(address, request.encode()).await {
                Ok(answer) => found.extend(Received::all(&answer.body, &broker.broker_name)?),
                Err(Error::Refused { code: ResponseCode::QueryNotFound, .. }) => {}
                Err(problem) => return Err(problem),
            }
        }
        // The broker finds by hash; two keys may have the same.
        found.retain(|message| message.keys().any(|k| k == key));
        Ok(found)
    }

    /// Sends any request to a broker and returns the body of its answer.
    pub async fn raw(&self, address: &str, request: Frame) -> Result<Bytes, Error> {
        Ok(self.client.call(address, request).await?.body)
    }
}

impl Client {
    /// The ids of the clients that belong to a group; none when nobody does.
    pub(crate) async fn members(&self, group: &GroupName, topic: &str) -> Result<Vec<String>, Error> {
        let route = self.route(topic).await?;
        let broker = route.brokers.iter().find_map(|broker| broker.broker_addrs.values().next());
        let Some(address) = broker else { return Ok(Vec::new()) };
        match self.call(address, ConsumerList { group: group.clone() }.encode()).await {
            Ok(answer) => Ok(ConsumerListBody::from_json(&answer.body)?.consumers),
            Err(Error::Refused { code: ResponseCode::SystemError, .. }) => Ok(Vec::new()),
            Err(problem) => Err(problem),
        }
    }
}
