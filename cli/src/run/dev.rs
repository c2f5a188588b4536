//! `sluice dev`: everything in one process.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Instant,
};

use anyhow::Context;
use sluice_model::Host;
use sluice_server::Server;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    block_on,
    ports::{self, Port, shifted},
    signals::Signals,
};
use crate::{
    output::say,
    settings::{Layer, Settings},
};

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  sluice dev
  sluice dev --data /tmp/try --port-offset 100     name server on 9976, broker on 11011, REST on 8182")]
pub struct Args {
    /// Folder of the log and all that is derived from it.
    #[arg(long, env = "SLUICE_DATA", default_value = "./sluice-data", value_name = "DIR")]
    data: PathBuf,
    /// Added to every port.
    #[arg(long, env = "SLUICE_PORT_OFFSET", default_value_t = 0, value_name = "N")]
    port_offset: u16,
    /// Host that clients reach this machine under; the ports are then open to others.
    #[arg(long, env = "SLUICE_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,
    /// Further settings of the broker: TOML, or RocketMQ's broker.conf. Ports and folder are as the flags say.
    #[arg(short, long, env = "SLUICE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let began = Instant::now();
    block_on(async {
        let signals = Signals::listen()?;
        let file = args.config.as_deref().map(Layer::read).transpose()?.unwrap_or_default();
        let dev = Dev::start(args.data, Ports::shifted(args.port_offset)?, args.advertise, file).await?;
        say(dev.description(began))?;
        signals.wait().await;
        dev.stop().await;
        Ok(())
    })
}

/// Ports to listen on; 0 is any that is free.
pub struct Ports {
    name_server: u16,
    broker: u16,
    rest: u16,
}

impl Ports {
    /// Whatever is free.
    pub const ANY: Self = Self { name_server: 0, broker: 0, rest: 0 };

    /// The usual ones, each `offset` higher.
    fn shifted(offset: u16) -> anyhow::Result<Self> {
        Ok(Self { name_server: shifted(9876, offset)?, broker: shifted(10_911, offset)?, rest: shifted(8082, offset)? })
    }
}

/// A name server and a broker in this process.
pub struct Dev {
    pub name_server: SocketAddr,
    pub broker: SocketAddr,
    pub rest: SocketAddr,
    data: PathBuf,
    server: Server,
    stop_names: oneshot::Sender<()>,
    names: JoinHandle<()>,
}

impl Dev {
    /// Starts both, the broker with the settings of `file` beside those given here; ready when it returns.
    pub async fn start(data: PathBuf, ports: Ports, advertise: Option<String>, file: Layer) -> anyhow::Result<Self> {
        let bind: IpAddr = if advertise.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST }.into();
        let option = "--port-offset";
        let wanted = [
            Port { number: ports.name_server, purpose: "name server", option },
            Port { number: ports.broker, purpose: "broker, RocketMQ remoting", option },
            Port { number: ports.rest, purpose: "REST API", option },
        ];
        let [names, remoting, rest] = ports::bind(bind, wanted).await?;
        let host = advertise.as_deref().unwrap_or("127.0.0.1");
        let reached = ports::resolve(host, remoting.local_addr()?.port()).await?;
        let at = |port: u16| SocketAddr::new(reached.ip(), port);
        let (name_server, rest_at) = (at(names.local_addr()?.port()), at(rest.local_addr()?.port()));

        let (stop_names, stopped) = oneshot::channel::<()>();
        let names = tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            if let Err(error) = sluice_namesrv::run(names, sluice_namesrv::Config::default(), until).await {
                tracing::error!(%error, "the name server ended");
            }
        });
        let layer = Layer {
            data: Some(data.clone()),
            namesrv: Some(format!("127.0.0.1:{}", name_server.port())),
            ..Layer::default()
        };
        // A half message whose producer is gone is decided within seconds, so that trying it out is no wait.
        let quick = Layer {
            transaction_timeout: "3s".parse().ok(),
            transaction_interval: "5s".parse().ok(),
            ..Layer::default()
        };
        let config = Settings::resolve(layer.over(file).over(quick))?.to_server(Host(reached))?;
        let server = Server::start(config, remoting, rest).await.context("the broker did not start")?;
        Ok(Self { name_server, broker: reached, rest: rest_at, data, server, stop_names, names })
    }

    fn description(&self, began: Instant) -> String {
        let Self { name_server, broker, rest, data, .. } = self;
        format!(
            "\
sluice dev is ready after {} ms

  name server  {name_server}
  broker       {broker}
  REST         http://{rest}/api/v1
  data         {}

Try it:
  echo hello | sluice produce greetings --namesrv {name_server}
  sluice consume greetings --from earliest -n 1 --namesrv {name_server}

Ctrl-C stops it.",
            began.elapsed().as_millis(),
            data.display(),
        )
    }

    pub async fn stop(self) {
        self.server.stop().await;
        let _ = self.stop_names.send(());
        let _ = self.names.await;
    }
}
