//! `sluice broker`

use std::{net::IpAddr, path::PathBuf};

use anyhow::Context;
use sluice_model::Host;
use sluice_server::Server;

use super::{
    block_on,
    ports::{self, Port},
    signals::Signals,
};
use crate::{
    output::say,
    settings::{Layer, Settings},
};

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  sluice broker --namesrv 'a:9876;b:9876' --data /var/lib/sluice --advertise broker-1.example
  sluice broker --config broker.conf          RocketMQ's own file and key names
  sluice broker --config sluice.toml --print-config")]
pub struct Args {
    /// TOML, or RocketMQ's broker.conf.
    #[arg(short, long, env = "SLUICE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective values as TOML and end.
    #[arg(long)]
    print_config: bool,
    /// Address to listen on.
    #[arg(long, env = "SLUICE_BIND", default_value = "0.0.0.0", value_name = "ADDRESS")]
    bind: IpAddr,
    #[command(flatten)]
    layer: Layer,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let file = args.config.as_deref().map(Layer::read).transpose()?.unwrap_or_default();
    let settings = Settings::resolve(args.layer.over(file))?;
    if args.print_config {
        return say(toml::to_string(&settings)?.trim_end());
    }
    block_on(serve(settings, args.bind))
}

async fn serve(settings: Settings, bind: IpAddr) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let remoting = Port { number: settings.port, purpose: "broker, RocketMQ remoting", option: "--port" };
    let rest = Port { number: settings.rest_port, purpose: "REST API", option: "--rest-port" };
    let [remoting, rest] = ports::bind(bind, [remoting, rest]).await?;
    let advertised = match &settings.advertise {
        Some(host) => ports::resolve(host, remoting.local_addr()?.port()).await?,
        None => (ports::own_address(), remoting.local_addr()?.port()).into(),
    };
    if settings.namesrv.is_empty() {
        tracing::warn!("no name server is given with --namesrv: clients cannot find this broker through one");
    }
    let rest_at = rest.local_addr()?;
    let server = Server::start(settings.to_server(Host(advertised))?, remoting, rest)
        .await
        .context("the broker did not start")?;
    say(format!(
        "broker  {} of {}, reached at {advertised}\nREST    http://{rest_at}/api/v1",
        settings.name, settings.cluster
    ))?;
    signals.wait().await;
    server.stop().await;
    Ok(())
}
