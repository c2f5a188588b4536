//! `sluice bench pipeline`: how fast a ready-made filter runs between two topics of a broker, from log to log.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sluice_client::{Client, Message, QueueRef};

use super::NameServers;
use crate::{
    output::OutputArgs,
    rest::{Content, Rest},
    settings::Size,
};

/// Name of everything that it makes, and deletes in the end.
const NAME: &str = "bench-pipeline";
const PLUGIN: &str = "json-filter";
/// Messages of one send.
const BATCH: u64 = 500;
const LOOK: Duration = Duration::from_millis(10);
/// Without progress for so long it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct PipelineArgs {
    #[command(flatten)]
    names: NameServers,
    /// Records to be filtered; half of them pass.
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    records: u64,
    /// Size of a body, JSON; at least 64 bytes.
    #[arg(long, default_value = "200B")]
    size: Size,
    /// Queues of both topics; one thread runs the stages of all of them.
    #[arg(long, default_value_t = 1, value_name = "N")]
    queues: u32,
    #[command(flatten)]
    output: OutputArgs,
}

/// Stores the records, lets the pipeline run over them, and tells how long that took.
pub async fn run(args: PipelineArgs, rest: &Rest) -> anyhow::Result<()> {
    let client = args.names.connect()?;
    let (source, sink) = (format!("{NAME}-in"), format!("{NAME}-out"));
    for topic in [&source, &sink] {
        rest.put(&format!("/topics/{topic}"), Content::Json(json!({ "queues": args.queues, "durability": "async" })))?;
    }
    let done = measure(&args, rest, &client, &source, &sink).await;
    let made = ["pipelines", "plugins"].map(|kind| format!("/{kind}/{NAME}"));
    let topics = [&source, &sink].map(|topic| format!("/topics/{topic}"));
    let deleted: Vec<_> = made.iter().chain(&topics).map(|path| rest.delete(path)).collect();
    // After a failure there may be nothing to delete, and the failure is what counts.
    let report = done?;
    deleted.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let text = format!(
        "records     {} in {:.2} s, {} passed\nthroughput  {:.0} records/s\nin plugin   {:.0} us of processor time per 1,000 records",
        report["records"],
        report["seconds"].as_f64().unwrap_or(0.0),
        report["passed"],
        report["records_per_second"].as_f64().unwrap_or(0.0),
        report["plugin_us_per_1000_records"].as_f64().unwrap_or(0.0),
    );
    args.output.done(&report, &text)
}

async fn measure(args: &PipelineArgs, rest: &Rest, client: &Client, source: &str, sink: &str) -> anyhow::Result<Value> {
    let plugin = sluice_plugins::ready_made(PLUGIN).with_context(|| format!("plugin {PLUGIN} is not in this build"))?;
    rest.put(&format!("/plugins/{NAME}"), Content::Wasm(plugin.component.to_vec()))?;
    store(args, client, source).await?;
    let pipeline = json!({
        "name": NAME,
        "source": { "topic": source, "start": "earliest" },
        "steps": [{ "plugin": NAME, "config": { "path": "/status", "equals": "paid" } }],
        "sinks": [sink],
    });
    let began = Instant::now();
    rest.put(&format!("/pipelines/{NAME}"), Content::Json(pipeline))?;
    let (mut read, mut moved) = (0, Instant::now());
    let counts = loop {
        let counts = rest.get(&format!("/pipelines/{NAME}"))?;
        let now = counts["in"].as_u64().unwrap_or(0);
        if now >= args.records {
            break counts;
        }
        if now > read {
            (read, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE || counts["state"] != "running" {
            bail!("the pipeline stands still after {now} records: {}", counts["reason"]);
        }
        tokio::time::sleep(LOOK).await;
    };
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({
        "records": args.records,
        "bytes": args.size.0,
        "seconds": seconds,
        "passed": counts["out"],
        "records_per_second": args.records as f64 / seconds,
        "plugin_us_per_1000_records": counts["cpu_us_per_1000_records"],
    }))
}

/// Sends the records, every second of which passes.
async fn store(args: &PipelineArgs, client: &Client, topic: &str) -> anyhow::Result<()> {
    let producer = client.producer(NAME)?;
    let queues: Vec<QueueRef> = producer.queues(topic).await?;
    let bodies = ["paid", "open"].map(|status| body(status, args.size.0));
    let (mut left, mut turn) = (args.records, 0_usize);
    while left > 0 {
        let count = left.min(BATCH);
        let message = |at: u64| Message::new(topic, bodies[(at % 2) as usize].clone());
        producer.send_batch_to(&queues[turn % queues.len()], (0..count).map(message).collect()).await?;
        left -= count;
        turn += 1;
    }
    Ok(())
}

fn body(status: &str, size: u64) -> String {
    let head = format!(r#"{{"id":4711,"status":"{status}","note":""#);
    let note = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(head.len() + 2);
    format!(r#"{head}{}"}}"#, "x".repeat(note))
}
