//! Locks of queues, for consuming in order. A lock belongs to a client within its group.

use sluice_model::GroupName;
use sluice_protocol::{
    body::{LockBody, LockedBody, QueueRef},
    request::{LockQueues, UnlockQueues},
};

use crate::{Client, Error};

impl Client {
    /// `false`: another client has it. The broker forgets a lock after 60 s. Source: Apache RocketMQ `RebalanceLockManager`.
    pub(crate) async fn lock(&self, group: &GroupName, queue: &QueueRef) -> Result<bool, Error> {
        let answer = self.call_queue(queue, LockQueues { body: self.lock_body(group, queue) }.encode()).await?;
        Ok(LockedBody::from_json(&answer.body)?.locked.contains(queue))
    }

    pub(crate) async fn unlock(&self, group: &GroupName, queue: &QueueRef) -> Result<(), Error> {
        let request = UnlockQueues { body: self.lock_body(group, queue) };
        self.call_queue(queue, request.encode()).await.map(drop)
    }

    fn lock_body(&self, group: &GroupName, queue: &QueueRef) -> LockBody {
        LockBody {
            client_id: self.0.id.clone(),
            consumer_group: group.to_string(),
            mq_set: vec![queue.clone()],
            only_this_broker: false,
        }
    }
}
