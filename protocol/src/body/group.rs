//! Source: Apache RocketMQ `SubscriptionGroupConfig`, `SubscriptionGroupWrapper`, `ConsumerConnection`, `ProducerConnection`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConsumeFromWhere, ConsumeType, MessageModel, Subscription, VersionBody, json_bodies};

/// A consumer group of a broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupConfigBody {
    pub attributes: BTreeMap<String, String>,
    pub broker_id: i64,
    pub consume_broadcast_enable: bool,
    pub consume_enable: bool,
    pub consume_from_min_enable: bool,
    pub consume_message_orderly: bool,
    pub consume_timeout_minute: i32,
    pub group_name: String,
    /// How long failed messages wait; passed through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_retry_policy: Option<Value>,
    pub group_sys_flag: i32,
    pub notify_consumer_ids_changed_enable: bool,
    pub retry_max_times: i32,
    pub retry_queue_nums: u32,
    /// What the group may subscribe to; passed through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data_set: Option<Value>,
    pub which_broker_when_consume_slowly: i64,
}

impl Default for GroupConfigBody {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: None,
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// Groups to be created or changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupConfigListBody {
    #[serde(rename = "groupConfigList")]
    pub groups: Vec<GroupConfigBody>,
}

/// All groups of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupTableBody {
    pub data_version: VersionBody,
    /// What a group may not do with a topic, as bits by group and topic.
    #[serde(rename = "forbiddenTable")]
    pub forbidden: BTreeMap<String, BTreeMap<String, i32>>,
    #[serde(rename = "subscriptionGroupTable")]
    pub groups: BTreeMap<String, GroupConfigBody>,
}

/// A client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientConnection {
    pub client_addr: String,
    pub client_id: String,
    /// Name of the client's language, see [`crate::Language::name`].
    pub language: String,
    pub version: i32,
}

/// Who consumes in a group now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerConnectionsBody {
    #[serde(rename = "connectionSet", default)]
    pub connections: Vec<ClientConnection>,
    pub consume_from_where: ConsumeFromWhere,
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    /// By topic.
    #[serde(rename = "subscriptionTable", default)]
    pub subscriptions: BTreeMap<String, Subscription>,
}

/// Who produces in a group now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProducerConnectionsBody {
    #[serde(rename = "connectionSet", default)]
    pub connections: Vec<ClientConnection>,
}

/// What a group subscribes to in a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionBody {
    pub group: String,
    #[serde(rename = "subscriptionData", default)]
    pub subscription: Option<Subscription>,
    pub topic: String,
}

json_bodies!(
    GroupConfigBody,
    GroupConfigListBody,
    GroupTableBody,
    ConsumerConnectionsBody,
    ProducerConnectionsBody,
    SubscriptionBody
);
