//! The broker's things in the form of RocketMQ's bodies, and back.

use std::{collections::BTreeMap, sync::Arc};

use sluice_broker::{
    ConsumeModel, ConsumeType, ConsumerGroup, Durability, Group, Member, Permission, Subscription, Topic,
};
use sluice_model::{GroupName, TopicName};
use sluice_protocol::{body, request::CreateTopic};

use super::pull;
use crate::failure::{Failure, Result};

/// The attribute under which RocketMQ keeps a topic's kind.
const KIND: &str = "message.type";

pub(super) fn created_topic(request: &CreateTopic, known: Option<&Topic>) -> Result<Topic> {
    let mut attributes = known.map(|topic| topic.attributes.clone()).unwrap_or_default();
    change_attributes(&mut attributes, request.attributes.as_deref().unwrap_or_default())?;
    let topic = Topic {
        name: request.topic.clone(),
        read_queues: request.read_queues,
        write_queues: request.write_queues,
        permission: Permission(request.perm),
        kind: kind(&attributes)?,
        ordered: request.order,
        durability: known.and_then(|topic| topic.durability),
        retention_ms: known.and_then(|topic| topic.retention_ms),
        attributes,
    };
    topic.check()?;
    Ok(topic)
}

/// A topic as a tool describes it; what RocketMQ knows nothing of stays as it is.
pub(super) fn to_topic(
    config: &body::TopicConfigBody,
    known: impl FnOnce(&TopicName) -> Option<Arc<Topic>>,
) -> Result<Topic> {
    let name = TopicName::parse(&config.topic_name)?;
    let known = known(&name);
    let attributes: BTreeMap<String, String> =
        config.attributes.iter().map(|(key, value)| (key.trim_start_matches('+').to_owned(), value.clone())).collect();
    let topic = Topic {
        name,
        read_queues: config.read_queue_nums,
        write_queues: config.write_queue_nums,
        permission: Permission(config.perm),
        kind: kind(&attributes)?,
        ordered: config.order,
        durability: known.as_ref().and_then(|topic| topic.durability),
        retention_ms: known.as_ref().and_then(|topic| topic.retention_ms),
        attributes,
    };
    topic.check()?;
    Ok(topic)
}

pub(crate) fn of_topic(topic: &Topic) -> body::TopicConfigBody {
    let mut attributes = topic.attributes.clone();
    attributes.insert(KIND.to_owned(), sluice_broker::kind_text(topic.kind).to_uppercase());
    body::TopicConfigBody {
        attributes,
        order: topic.ordered,
        perm: topic.permission.0,
        read_queue_nums: topic.read_queues,
        write_queue_nums: topic.write_queues,
        ..body::TopicConfigBody::new(topic.name.as_str(), 0)
    }
}

/// Applies changes of the form `+key=value,-key`. Source: Apache RocketMQ `AttributeParser`.
fn change_attributes(attributes: &mut BTreeMap<String, String>, changes: &str) -> Result<()> {
    for change in changes.split(',').map(str::trim).filter(|change| !change.is_empty()) {
        let bad = || Failure::invalid("attributes", format!("attributes: expected +key=value or -key, got {change:?}"));
        if let Some(key) = change.strip_prefix('-') {
            attributes.remove(key);
        } else {
            let (key, value) = change.strip_prefix('+').and_then(|pair| pair.split_once('=')).ok_or_else(bad)?;
            attributes.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(())
}

fn kind(attributes: &BTreeMap<String, String>) -> Result<sluice_broker::TopicKind> {
    match attributes.get(KIND).map(|kind| kind.to_lowercase()) {
        None => Ok(sluice_broker::TopicKind::Normal),
        Some(kind) => Ok(sluice_broker::parse_kind(&kind)?),
    }
}

pub(super) fn to_group(config: &body::GroupConfigBody) -> Result<Group> {
    let retries = u32::try_from(config.retry_max_times).map_err(|_| {
        Failure::invalid("retryMaxTimes", format!("retryMaxTimes: expected 0 or more, got {}", config.retry_max_times))
    })?;
    Ok(Group {
        name: GroupName::parse(&config.group_name)?,
        enabled: config.consume_enable,
        broadcast: config.consume_broadcast_enable,
        retries,
        retry_queues: config.retry_queue_nums,
    })
}

pub(super) fn of_group(group: &Group) -> body::GroupConfigBody {
    body::GroupConfigBody {
        group_name: group.name.to_string(),
        consume_enable: group.enabled,
        consume_broadcast_enable: group.broadcast,
        retry_max_times: i32::try_from(group.retries).unwrap_or(i32::MAX),
        retry_queue_nums: group.retry_queues,
        ..body::GroupConfigBody::default()
    }
}

/// A version for tools that compare them; grows with every change.
pub(crate) fn version(counter: u64) -> body::VersionBody {
    body::VersionBody { counter: i64::try_from(counter).unwrap_or(i64::MAX), state_version: 0, timestamp: 0 }
}

pub(super) fn of_member(member: &Member) -> body::ClientConnection {
    body::ClientConnection {
        client_addr: member.address.clone(),
        client_id: member.client.clone(),
        language: member.language.clone(),
        version: member.version,
    }
}

pub(super) fn of_subscription(subscription: &Arc<Subscription>) -> body::Subscription {
    let Subscription { topic, expression, language, version, .. } = &**subscription;
    match language.as_str() {
        "" | pull::TAG => body::Subscription::by_tags(topic.as_str(), expression, *version),
        other => body::Subscription::in_language(other, topic.as_str(), expression, *version),
    }
}

pub(super) fn of_consumers(group: &ConsumerGroup) -> body::ConsumerConnectionsBody {
    body::ConsumerConnectionsBody {
        connections: group.members.values().map(of_member).collect(),
        consume_from_where: body::ConsumeFromWhere::parse(&group.consume_from).unwrap_or(body::ConsumeFromWhere::Last),
        consume_type: match group.consume_type {
            ConsumeType::Pull => body::ConsumeType::Actively,
            ConsumeType::Push => body::ConsumeType::Passively,
            ConsumeType::Pop => body::ConsumeType::Pop,
        },
        message_model: match group.model {
            ConsumeModel::Broadcasting => body::MessageModel::Broadcasting,
            ConsumeModel::Clustering => body::MessageModel::Clustering,
        },
        subscriptions: group.subscriptions.iter().map(|(topic, s)| (topic.to_string(), of_subscription(s))).collect(),
    }
}

/// The settings that tools know by Apache's names.
pub(super) fn config_text(config: &sluice_broker::Config) -> String {
    let flush = match config.durability {
        Durability::Sync => "SYNC_FLUSH",
        Durability::Async => "ASYNC_FLUSH",
    };
    let values = [
        ("brokerName", config.name.clone()),
        ("brokerClusterName", config.cluster.clone()),
        ("brokerId", "0".to_owned()),
        ("brokerRole", "ASYNC_MASTER".to_owned()),
        ("flushDiskType", flush.to_owned()),
        ("brokerIP1", config.advertised.0.ip().to_string()),
        ("listenPort", config.advertised.0.port().to_string()),
        ("autoCreateTopicEnable", config.auto_create_topics.to_string()),
        ("defaultTopicQueueNums", config.default_queues.to_string()),
        ("maxMessageSize", config.max_body.to_string()),
        ("transactionTimeOut", config.transaction_timeout_ms.to_string()),
        ("transactionCheckInterval", config.transaction_interval_ms.to_string()),
        ("transactionCheckMax", config.transaction_checks.to_string()),
    ];
    values.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}
