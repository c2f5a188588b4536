//! Source: Apache RocketMQ `TopicRouteData`, `ClusterInfo`, `BrokerMemberGroup`. Numeric keys are written quoted, which
//! every client reads; the JSON is compact because the Go client takes it apart by hand.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json_bodies;

/// Where a topic's queues are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteBody {
    #[serde(rename = "brokerDatas", default)]
    pub brokers: Vec<RouteBroker>,
    #[serde(default)]
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// Queue counts that an ordered topic is fixed to: `broker:queues;…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    #[serde(rename = "queueDatas", default)]
    pub queues: Vec<RouteQueues>,
    /// Static topics; passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_by_broker: Option<Value>,
}

/// A broker name and its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteBroker {
    /// Address by broker id; 0 is the master.
    #[serde(default)]
    pub broker_addrs: BTreeMap<u64, String>,
    pub broker_name: String,
    #[serde(default)]
    pub cluster: String,
    #[serde(default)]
    pub enable_acting_master: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

impl RouteBroker {
    /// Where messages can be sent.
    pub fn master(&self) -> Option<&str> {
        self.broker_addrs.get(&0).map(String::as_str)
    }
}

/// A topic's queues on one broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteQueues {
    pub broker_name: String,
    /// Bits: 4 read, 2 write, 1 inherit, 8 priority.
    pub perm: u32,
    pub read_queue_nums: u32,
    #[serde(default)]
    pub topic_sys_flag: i32,
    pub write_queue_nums: u32,
}

/// All brokers and clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterBody {
    #[serde(rename = "brokerAddrTable")]
    pub brokers: BTreeMap<String, RouteBroker>,
    /// Names of brokers by cluster.
    #[serde(rename = "clusterAddrTable")]
    pub clusters: BTreeMap<String, BTreeSet<String>>,
}

/// The brokers of one name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberGroupBody {
    #[serde(rename = "brokerMemberGroup")]
    pub members: Members,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Members {
    pub broker_addrs: BTreeMap<u64, String>,
    pub broker_name: String,
    pub cluster: String,
}

json_bodies!(RouteBody, ClusterBody, MemberGroupBody);
