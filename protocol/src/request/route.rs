//! What the name server is asked.

use bytes::Bytes;
use sluice_model::TopicName;

use crate::{
    FieldError, Frame,
    body::{RegisterBrokerBody, RouteBody, VersionBody},
    field::{fields, requests},
};

requests! {
    /// Where a topic's queues are.
    Route = Route {
        topic: TopicName = must "topic",
    }

    /// All brokers and clusters.
    Cluster = Cluster {}

    /// A broker leaves.
    UnregisterBroker = UnregisterBroker {
        cluster: String = must "clusterName",
        broker: String = must "brokerName",
        address: String = must "brokerAddr",
        broker_id: u64 = must "brokerId",
    }

    /// A broker lives: as a registration without its topics.
    BrokerHeartbeat = BrokerHeartbeat {
        cluster: String = must "clusterName",
        address: String = must "brokerAddr",
        broker: String = must "brokerName",
    }

    /// A broker asks whether the name server knows its topics as they are now.
    QueryDataVersion = QueryDataVersion (version: VersionBody) {
        cluster: String = must "clusterName",
        broker: String = must "brokerName",
        address: String = must "brokerAddr",
        broker_id: u64 = must "brokerId",
    }

    /// No more writes to a broker's topics.
    WipeWrite = WipeWrite {
        broker: String = must "brokerName",
    }

    /// Writes to a broker's topics again.
    AddWrite = AddWrite {
        broker: String = must "brokerName",
    }

    /// The names of all topics.
    AllTopics = AllTopics {}

    /// The names of a cluster's topics.
    TopicsOfCluster = TopicsOfCluster {
        cluster: String = must "cluster",
    }

    /// Names of clusters and brokers, which are topics too.
    SystemTopicsOfNames = SystemTopicsOfNames {}

    /// Forget where a topic's queues are, in one cluster or all.
    DeleteTopicRoute = DeleteTopicRoute {
        topic: TopicName = must "topic",
        cluster: Option<String> = may "clusterName",
    }

    /// Say where a topic's queues are.
    RegisterTopicRoute = RegisterTopicRoute (route: RouteBody) {
        topic: TopicName = must "topic",
    }

    /// Set a configuration value.
    PutKv = PutKv {
        namespace: String = must "namespace",
        key: String = must "key",
        value: String = must "value",
    }

    /// One configuration value.
    GetKv = GetKv {
        namespace: String = must "namespace",
        key: String = must "key",
    }

    /// Delete a configuration value.
    DeleteKv = DeleteKv {
        namespace: String = must "namespace",
        key: String = must "key",
    }

    /// All configuration values of a namespace.
    KvList = KvList {
        namespace: String = must "namespace",
    }

    /// Change the name server's configuration: lines of `key=value`.
    UpdateNamesConfig = UpdateNamesConfig (body: String) {}

    /// The name server's configuration.
    NamesConfig = NamesConfig {}

    /// The brokers of one name: a master and its replicas.
    MemberGroup = MemberGroup {
        cluster: String = must "clusterName",
        broker: String = must "brokerName",
    }
}

fields! {
    RegisterHeader {
        cluster: String = must "clusterName",
        broker: String = must "brokerName",
        address: String = must "brokerAddr",
        broker_id: u64 = must "brokerId",
        ha_address: String = must "haServerAddr",
        heartbeat_timeout_ms: Option<i64> = may "heartbeatTimeoutMillis",
        acting_master: bool = or(false) "enableActingMaster",
        compressed: bool = or(false) "compressed",
        body_crc: u32 = or(0) "bodyCrc32",
        zone: Option<String> = may "__ZONE_NAME",
    }
}

/// A broker registers with all its topics.
///
/// Source: Apache RocketMQ `RegisterBrokerRequestHeader`, `RegisterBrokerBody`.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisterBroker {
    pub cluster: String,
    pub broker: String,
    pub address: String,
    /// 0: the master.
    pub broker_id: u64,
    pub ha_address: String,
    /// How long the broker counts as living without another sign of life, ms.
    pub heartbeat_timeout_ms: Option<i64>,
    pub acting_master: bool,
    pub zone: Option<String>,
    pub body: RegisterBrokerBody,
}

impl RegisterBroker {
    /// Reads the header's fields and the body. Fails with `bodyCrc32` when the body is not what was sent.
    pub fn decode(frame: &Frame) -> Result<Self, FieldError> {
        let header = RegisterHeader::from_ext(&frame.header.ext)?;
        let sum = sluice_model::record::crc(&frame.body);
        if header.body_crc != 0 && header.body_crc != sum {
            return Err(FieldError::new("bodyCrc32", format!("expected {sum}, got {}", header.body_crc)));
        }
        let body = if header.compressed {
            RegisterBrokerBody::from_compressed(&frame.body, frame.header.version)?
        } else {
            RegisterBrokerBody::from_json(&frame.body)?
        };
        Ok(Self {
            cluster: header.cluster,
            broker: header.broker,
            address: header.address,
            broker_id: header.broker_id,
            ha_address: header.ha_address,
            heartbeat_timeout_ms: header.heartbeat_timeout_ms,
            acting_master: header.acting_master,
            zone: header.zone,
            body,
        })
    }

    /// The frame to be sent, with the body as plain JSON.
    pub fn encode(&self) -> Frame {
        self.frame(Bytes::from(self.body.to_json()), false)
    }

    /// The frame to be sent, with the body compressed.
    pub fn encode_compressed(&self) -> Frame {
        self.frame(self.body.to_compressed(), true)
    }

    fn frame(&self, body: Bytes, compressed: bool) -> Frame {
        let header = RegisterHeader {
            cluster: self.cluster.clone(),
            broker: self.broker.clone(),
            address: self.address.clone(),
            broker_id: self.broker_id,
            ha_address: self.ha_address.clone(),
            heartbeat_timeout_ms: self.heartbeat_timeout_ms,
            acting_master: self.acting_master,
            compressed,
            body_crc: sluice_model::record::crc(&body),
            zone: self.zone.clone(),
        };
        Frame::request(crate::RequestCode::RegisterBroker, header.to_ext(), body)
    }
}
