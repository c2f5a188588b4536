//! `sluice namesrv`

use std::{net::IpAddr, path::PathBuf};

use super::{
    block_on,
    ports::{self, Port},
    signals::Signals,
};
use crate::output::say;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  sluice namesrv --port 9876 --data /var/lib/sluice-namesrv")]
pub struct Args {
    /// Port of the RocketMQ remoting protocol.
    #[arg(long, env = "SLUICE_NAMESRV_PORT", default_value_t = 9876)]
    port: u16,
    /// Address to listen on.
    #[arg(long, env = "SLUICE_BIND", default_value = "0.0.0.0", value_name = "ADDRESS")]
    bind: IpAddr,
    /// Folder for configuration values; without it they are forgotten at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    block_on(async {
        let signals = Signals::listen()?;
        let port = Port { number: args.port, purpose: "name server", option: "--port" };
        let [listener] = ports::bind(args.bind, [port]).await?;
        say(format!("name server  {}", listener.local_addr()?))?;
        let config = sluice_namesrv::Config { data_dir: args.data, ..Default::default() };
        sluice_namesrv::run(listener, config, signals.wait()).await?;
        Ok(())
    })
}
