//! The commands that send and read messages over RocketMQ's own protocol, so that they work against any broker.

pub mod bench;
pub mod consume;
mod pattern;
pub mod produce;
mod start;

use sluice_client::{Client, ClientConfig};

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
