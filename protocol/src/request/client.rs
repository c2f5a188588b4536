//! A client's presence, and what the broker asks of clients.

use bytes::Bytes;
use sluice_model::{GroupName, Timestamp};

use crate::{
    body::{CheckClientBody, HeartbeatBody, LockBody, ResetOffsetBody},
    field::requests,
};

requests! {
    /// A client lives, with the groups that it belongs to.
    Heartbeat = Heartbeat (body: HeartbeatBody) {}

    /// A client leaves its groups.
    UnregisterClient = UnregisterClient {
        client_id: String = must "clientID",
        producer_group: Option<GroupName> = may "producerGroup",
        consumer_group: Option<GroupName> = may "consumerGroup",
    }

    /// Which clients belong to a group.
    ConsumerList = ConsumerList {
        group: GroupName = must "consumerGroup",
    }

    /// The broker says that a group's members changed.
    ConsumersChanged = ConsumersChanged {
        group: GroupName = must "consumerGroup",
    }

    /// A client wants queues for itself alone.
    LockQueues = LockQueues (body: LockBody) {}

    /// A client gives queues back.
    UnlockQueues = UnlockQueues (body: LockBody) {}

    /// A client asks whether its filter is sound.
    CheckClientConfig = CheckClientConfig (body: CheckClientBody) {}

    /// The broker asks a consumer about itself.
    ConsumerRunning = ConsumerRunning {
        group: GroupName = must "consumerGroup",
        client_id: String = must "clientId",
        stacks: bool = or(false) "jstackEnable",
    }

    /// A consumer is to consume one message now; the broker puts the stored record into the body.
    ConsumeDirectly = ConsumeDirectly (body: Bytes) {
        group: GroupName = must "consumerGroup",
        client_id: Option<String> = may "clientId",
        message_id: Option<String> = may "msgId",
        broker: Option<String> = may "brokerName",
        topic: Option<String> = may "topic",
    }

    /// The broker tells a consumer to move its offsets.
    ResetConsumer = ResetConsumer (body: ResetOffsetBody) {
        topic: String = must "topic",
        group: GroupName = must "group",
        time: Timestamp = must "timestamp",
        force: bool = must "isForce",
    }
}
