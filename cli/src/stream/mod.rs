//! The commands that send and read messages over RocketMQ's own protocol, so that they work against any broker.

pub mod bench;
mod bench_pipeline;
pub mod consume;
mod pattern;
pub mod produce;
mod start;

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use sluice_client::{Client, ClientConfig, Error, Message, Producer};

use crate::settings::addresses;

#[derive(clap::Args)]
pub struct NameServers {
    /// Name servers: `a:9876;b:9876`.
    #[arg(long, env = "SLUICE_NAMESRV", default_value = "127.0.0.1:9876", value_name = "ADDRESSES")]
    namesrv: String,
}

impl NameServers {
    pub fn addresses(&self) -> anyhow::Result<Vec<String>> {
        addresses(&self.namesrv)
    }

    pub fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client::new(ClientConfig::new(self.addresses()?))?)
    }

    /// What to do when nothing answers.
    pub fn hint(&self) -> String {
        format!("name server {}; `sluice dev` starts one here, --namesrv or SLUICE_NAMESRV names another", self.namesrv)
    }
}

/// Sends messages side by side; in the order in which they came, as far as they share a queue. Waits for all, and fails with
/// the first failure.
pub async fn send_some(producer: &Producer, messages: Vec<Message>) -> Result<(), Error> {
    let mut waiting: Vec<_> = messages.into_iter().map(|message| Box::pin(producer.send(message))).collect();
    let mut failed = None;
    poll_fn(|context| {
        waiting.retain_mut(|send| match send.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                failed = failed.take().or(result.err());
                false
            }
        });
        if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    failed.map_or(Ok(()), Err)
}
