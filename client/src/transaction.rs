use std::future::Future;

use sluice_model::{LogOffset, MessageId};
use sluice_protocol::request::EndTransaction;

use crate::{Error, Message, Producer, Sent};

/// What becomes of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Consumers see it.
    Commit,
    /// Nobody sees it.
    Rollback,
    /// Not known yet: the broker asks later.
    Unknown,
}

impl Decision {
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Commit => 8,
            Self::Rollback => 12,
            Self::Unknown => 0,
        }
    }
}

/// Sends messages that consumers see only when a local transaction succeeds. Made by [`Producer::transactional`].
pub struct TransactionProducer {
    producer: Producer,
}

impl TransactionProducer {
    pub(crate) fn new(producer: Producer) -> Self {
        Self { producer }
    }

    /// For messages that are no half messages.
    pub fn plain(&self) -> &Producer {
        &self.producer
    }

    /// Stores a half message, runs `local`, and tells the broker what it decided.
    ///
    /// A decision that does not reach the broker is no failure: it will ask. Fails when the half message was not stored;
    /// then `local` did not run.
    pub async fn send<F: Future<Output = Decision>>(
        &self,
        message: Message,
        local: impl FnOnce(Sent) -> F,
    ) -> Result<(Sent, Decision), Error> {
        let sent = self.producer.send_half(&message).await?;
        let decision = local(sent.clone()).await;
        let log_offset = MessageId::parse(&sent.stored_id)?.log_offset;
        if let Err(problem) = self.end(&sent, log_offset, decision).await {
            tracing::warn!(%problem, message = sent.message_id, "the decision was not sent; the broker will ask");
        }
        Ok((sent, decision))
    }

    async fn end(&self, sent: &Sent, log_offset: LogOffset, decision: Decision) -> Result<(), Error> {
        let client = self.producer.client();
        let request = EndTransaction {
            topic: Some(sent.queue.topic.clone()),
            group: self.producer.group().clone(),
            half_offset: sent.offset,
            log_offset,
            decision: decision.code(),
            from_check: false,
            message_id: Some(sent.message_id.clone()),
            transaction_id: sent.transaction_id.clone(),
        };
        let address = client.broker(&sent.queue.topic, &sent.queue.broker_name, true).await?;
        Ok(client.connection(&address).send_oneway(request.encode()).await?)
    }
}

impl Drop for TransactionProducer {
    fn drop(&mut self) {
        self.producer.client().0.callbacks.checks.lock().remove(self.producer.group());
    }
}
