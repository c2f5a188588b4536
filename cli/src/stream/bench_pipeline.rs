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

/// Name of everything that it makes, and deletes in the end; it is to be nobody else's.
const NAME: &str = "sluice-bench-pipeline";
const PLUGIN: &str = "json-filter";
/// Messages of one send.
const BATCH: u64 = 500;
const LOOK: Duration = Duration::from_millis(10);
/// Without progress for so long it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct PipelineArgs {
    #[command(flatten)]
    pub names: NameServers,
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
    let mut made = Made { rest, paths: Vec::new() };
    let done = measure(&args, &mut made, &client, &source, &sink).await;
    let deleted = made.delete();
    // After a failure it is that which counts.
    let report = done?;
    deleted?;
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

/// What it made, and deletes in the end: nothing that was there before.
struct Made<'a> {
    rest: &'a Rest,
    paths: Vec<String>,
}

impl Made<'_> {
    /// Fails when there is something at the path.
    fn make(&mut self, path: String, content: Content) -> anyhow::Result<()> {
        self.rest.create(&path, content).with_context(|| {
            format!("{path} cannot be made; when it is left from a benchmark that was ended, delete it first")
        })?;
        self.paths.push(path);
        Ok(())
    }

    /// The last first; tries all of them.
    fn delete(self) -> anyhow::Result<()> {
        let deleted: Vec<_> = self.paths.iter().rev().map(|path| self.rest.delete(path)).collect();
        deleted.into_iter().collect::<anyhow::Result<Vec<_>>>().map(drop)
    }
}

async fn measure(
    args: &PipelineArgs,
    made: &mut Made<'_>,
    client: &Client,
    source: &str,
    sink: &str,
) -> anyhow::Result<Value> {
    for topic in [source, sink] {
        let settings = json!({ "queues": args.queues, "durability": "async" });
        made.make(format!("/topics/{topic}"), Content::Json(settings))?;
    }
    let plugin = sluice_plugins::ready_made(PLUGIN).with_context(|| format!("plugin {PLUGIN} is not in this build"))?;
    made.make(format!("/plugins/{NAME}"), Content::Wasm(plugin.component.to_vec()))?;
    store(args, client, source).await?;
    let pipeline = json!({
        "name": NAME,
        "source": { "topic": source, "start": "earliest" },
        "steps": [{ "plugin": NAME, "config": { "path": "/status", "equals": "paid" } }],
        "sinks": [sink],
    });
    let began = Instant::now();
    made.make(format!("/pipelines/{NAME}"), Content::Json(pipeline))?;
    let (mut read, mut moved) = (0, Instant::now());
    let counts = loop {
        let counts = made.rest.get(&format!("/pipelines/{NAME}"))?;
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
