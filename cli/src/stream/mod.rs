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

use anyhow::bail;
use serde_json::Value;
use sluice_client::{Client, ClientConfig, Error, Message, Producer};

use crate::{rest::Rest, settings::addresses};

/// Where a name server is when nobody says.
const USUAL: &str = "127.0.0.1:9876";

#[derive(clap::Args)]
pub struct NameServers {
    /// Name servers: `a:9876;b:9876`. When left out, those of the server that --server names, or 127.0.0.1:9876.
    #[arg(long, env = "SLUICE_NAMESRV", value_name = "ADDRESSES")]
    namesrv: Option<String>,
}

impl NameServers {
    /// Takes those of a server, if none were given.
    pub fn or_of(&mut self, server: Option<&Rest>) -> anyhow::Result<()> {
        let (None, Some(server)) = (&self.namesrv, server) else { return Ok(()) };
        let cluster = server.get("/cluster")?;
        let named = cluster["name_servers"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let host = server.host().unwrap_or_default();
        let reached: Vec<String> = named.map(|address| seen_from_here(address, &host)).collect();
        if reached.is_empty() {
            bail!("the server that --server names has no name server; --namesrv or SLUICE_NAMESRV names one");
        }
        self.namesrv = Some(reached.join(";"));
        Ok(())
    }

    fn text(&self) -> &str {
        self.namesrv.as_deref().unwrap_or(USUAL)
    }

    pub fn addresses(&self) -> anyhow::Result<Vec<String>> {
        addresses(self.text())
    }

    pub fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client::new(ClientConfig::new(self.addresses()?))?)
    }

    /// What to do when nothing answers.
    pub fn hint(&self) -> String {
        let text = self.text();
        format!("name server {text}; `sluice dev` starts one here, --namesrv or SLUICE_NAMESRV names another")
    }
}

/// The address of a name server as a broker on `host` has it: one on its loopback is on that host.
fn seen_from_here(address: &str, host: &str) -> String {
    match address.rsplit_once(':') {
        Some(("127.0.0.1" | "localhost" | "[::1]", port)) if !host.is_empty() => format!("{host}:{port}"),
        _ => address.to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_on_a_brokers_loopback_is_on_its_host() {
        assert_eq!(seen_from_here("127.0.0.1:9976", "broker-1.example"), "broker-1.example:9976");
        assert_eq!(seen_from_here("[::1]:9876", "[2001:db8::1]"), "[2001:db8::1]:9876");
        assert_eq!(seen_from_here("127.0.0.1:9876", "127.0.0.1"), "127.0.0.1:9876");
        assert_eq!(seen_from_here("names.example:9876", "broker-1.example"), "names.example:9876");
    }
}
