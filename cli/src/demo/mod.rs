//! `sluice demo`: the main job in one command, with an account of every message.

mod account;
mod orders;
mod payments;
mod screen;

use std::{path::Path, time::Instant};

use anyhow::{Context, bail};
use serde_json::json;
use sluice_client::{Client, ClientConfig};

use crate::{
    output::say,
    rest::{Content, Rest, segment},
    run::{
        block_on,
        dev::{Dev, Ports},
        signals::Signals,
    },
    settings::Layer,
};
use account::Account;
use orders::Orders;
use payments::Payments;

/// Plugins that the demo uses.
const PLUGINS: [&str; 3] = ["json-filter", "json-map", "ledger-checker"];

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  sluice demo
  sluice demo --keep        leaves everything running until Ctrl-C")]
pub struct Args {
    /// Leave it running, to look around.
    #[arg(long)]
    keep: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let folder =
        tempfile::Builder::new().prefix("sluice-demo-").tempdir().context("no temporary folder could be made")?;
    block_on(async {
        let signals = Signals::listen()?;
        let dev = Dev::start(folder.path().to_owned(), Ports::ANY, None, Layer::default()).await?;
        let shown = show(&dev, folder.path()).await;
        if args.keep && shown.is_ok() {
            say(format!(
                "\nIt goes on until Ctrl-C:\n  export SLUICE_SERVER=http://{} SLUICE_NAMESRV={}\n  sluice pipeline describe {}",
                dev.rest,
                dev.name_server,
                orders::PIPELINE
            ))?;
            signals.wait().await;
        }
        dev.stop().await;
        shown
    })
}

/// Runs the whole show, and fails with what is missing.
async fn show(dev: &Dev, folder: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    say(format!("started    broker {}, REST http://{}, data in {}", dev.broker, dev.rest, folder.display()))?;
    let rest = Rest::new(&format!("http://{}", dev.rest));
    // The server has threads of its own to answer on.
    tokio::task::block_in_place(|| prepare(&rest))?;
    let client = Client::new(ClientConfig::new([dev.name_server.to_string()]))?;

    let payments = Payments::send(dev.name_server, &client).await.context("payments were not sent")?;
    let orders = Orders::send(&client, &rest).await.context("orders were not sent")?;
    let mut account = Account::default();
    orders.settle(&client, &rest, &mut account).await?;
    payments.settle(&client, &rest, &mut account).await?;

    say(format!("\n{account}\ntook {:.1} s", began.elapsed().as_secs_f64()))?;
    if account.is_even() {
        return say("Every message is accounted for.");
    }
    bail!("not every message is accounted for:\n{}", account.problems())
}

/// Topics, plugins, the pipeline and the checker.
fn prepare(rest: &Rest) -> anyhow::Result<()> {
    for (topic, kind) in orders::TOPICS.iter().chain(payments::TOPICS) {
        rest.put(&format!("/topics/{}", segment(topic)), Content::Json(json!({"queues": 4, "type": kind})))?;
    }
    for name in PLUGINS {
        let plugin = sluice_plugins::ready_made(name).with_context(|| format!("plugin {name} is not in this build"))?;
        let report = rest.put(&format!("/plugins/{name}"), Content::Wasm(plugin.component.to_vec()))?;
        say(format!(
            "plugin     {name} {}: {} KiB, roles {}, compiled in {} ms",
            plugin.version,
            plugin.component.len() / 1024,
            report["roles"],
            report["compile_ms"]
        ))?;
    }
    rest.put(&format!("/pipelines/{}", orders::PIPELINE), Content::Yaml(orders::PIPELINE_YAML.into()))?;
    say(format!("pipeline   {}: orders -> json-filter -> json-map -> paid-orders", orders::PIPELINE))?;
    rest.put(
        &format!("/producer-groups/{}/checker", payments::GROUP),
        Content::Json(serde_json::from_str(payments::CHECKER_JSON)?),
    )?;
    say(format!("checker    ledger-checker decides the half messages of {}", payments::GROUP))?;
    Ok(())
}
