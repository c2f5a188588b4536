//! `sluice pipeline`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{candidate, logs, read, topic::all};
use crate::{
    output::{OutputArgs, say},
    rest::{Content, Rest, segment},
};

#[derive(Args)]
pub struct PipelineArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make the pipeline that a file describes, or replace it without a gap.
    #[command(
        after_help = "Example:\n  sluice pipeline apply -f big-orders.yaml\n  sluice pipeline apply -f big-orders.yaml --shadow\n  sluice pipeline apply -f big-orders.yaml --canary 0,3"
    )]
    Apply {
        /// YAML or JSON; `-` reads standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Only try it: on the records of the live version, without writing anything. `sluice pipeline candidate` tells the difference.
        #[arg(long)]
        shadow: bool,
        /// Where the shadow begins: `earliest`, `latest` or `@2026-01-31T12:00:00Z`; where the live version stands when left out.
        #[arg(long, requires = "shadow")]
        start: Option<String>,
        /// Only try it: in the place of the live version in these queues of the source.
        #[arg(long, value_name = "QUEUES", conflicts_with = "shadow")]
        canary: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List pipelines.
    #[command(after_help = "Example:\n  sluice pipeline list")]
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a pipeline: its state, and position, lag and counts of each queue.
    #[command(after_help = "Example:\n  sluice pipeline describe big-orders -o json")]
    Describe {
        pipeline: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Stop a pipeline behind a whole unit; it keeps its position.
    #[command(after_help = "Example:\n  sluice pipeline pause big-orders")]
    Pause { pipeline: String },
    /// Let a paused pipeline go on.
    #[command(after_help = "Example:\n  sluice pipeline resume big-orders")]
    Resume { pipeline: String },
    /// Show how the version does that is tried, beside the live one.
    #[command(after_help = "Example:\n  sluice pipeline candidate big-orders -o json")]
    Candidate {
        pipeline: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Let the version that is tried take over in all queues, each at the offset where it stands.
    #[command(after_help = "Example:\n  sluice pipeline promote big-orders")]
    Promote {
        pipeline: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Give up the version that is tried.
    #[command(after_help = "Example:\n  sluice pipeline discard big-orders")]
    Discard { pipeline: String },
    /// Let an earlier revision take over, with exactly the plugins that it had.
    #[command(
        after_help = "Example:\n  sluice pipeline rollback big-orders\n  sluice pipeline rollback big-orders --to 3"
    )]
    Rollback {
        pipeline: String,
        /// Number of the revision; the last one that ran when left out.
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List what ran under a pipeline's name, from which offsets and with which plugins.
    #[command(after_help = "Example:\n  sluice pipeline revisions big-orders")]
    Revisions {
        pipeline: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Let a pipeline begin anew: what its processors kept is gone, what it wrote stays.
    #[command(after_help = "Example:\n  sluice pipeline reset totals --start earliest")]
    Reset {
        pipeline: String,
        /// `earliest`, `latest` or `@2026-01-31T12:00:00Z`; as its source says when left out.
        #[arg(long)]
        start: Option<String>,
    },
    /// Show what the processors of a pipeline keep: the stores, the entries of one, or one entry.
    #[command(
        after_help = "Example:\n  sluice pipeline state totals\n  sluice pipeline state totals sums --prefix user-"
    )]
    State {
        pipeline: String,
        store: Option<String>,
        key: Option<String>,
        /// Only entries whose keys begin with this.
        #[arg(long, default_value = "", conflicts_with = "key")]
        prefix: String,
        /// Only the entry in the state of this queue of the source.
        #[arg(long, requires = "key")]
        queue: Option<u32>,
        /// The key or prefix is Base64, as keys are shown that are no text.
        #[arg(long, requires = "store")]
        base64: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show what the plugins of a pipeline logged.
    #[command(after_help = "Example:\n  sluice pipeline logs big-orders --follow")]
    Logs {
        pipeline: String,
        /// Go on with new lines as they come.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Follow one message of the source: where it went, and what each step makes of it when it is run again. Nothing is written.
    #[command(after_help = "\
Example:
  sluice pipeline trace big-orders --queue 0 --offset 12
  sluice pipeline trace big-orders --id AC1100023F6718B4AAC2104F1AD20000")]
    Trace {
        pipeline: String,
        /// A queue of the source.
        #[arg(long, requires = "offset", required_unless_present = "id")]
        queue: Option<u32>,
        /// The message's offset in that queue.
        #[arg(long, requires = "queue")]
        offset: Option<u64>,
        /// The message's id or unique key, instead.
        #[arg(long, conflicts_with_all = ["queue", "offset"])]
        id: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete a pipeline; its topics stay.
    #[command(after_help = "Example:\n  sluice pipeline delete big-orders")]
    Delete { pipeline: String },
}

pub fn run(args: PipelineArgs, rest: &Rest) -> anyhow::Result<()> {
    match args.verb {
        Verb::Apply { file, shadow, start, canary, output } => {
            let (name, spec) = named(&file)?;
            let query = match (shadow, canary) {
                (true, _) => Some(format!("mode=shadow{}", parameter("start", start.as_deref()))),
                (false, Some(queues)) => Some(format!("mode=canary{}", parameter("queues", Some(&queues)))),
                (false, None) => None,
            };
            let Some(query) = query else {
                let applied = rest.put(&path(&name), Content::Yaml(spec))?;
                return output.done(&applied, &format!("pipeline {name} is applied"));
            };
            let tried = rest.put(&format!("{}/candidate?{query}", path(&name)), Content::Yaml(spec))?;
            let text = format!(
                "pipeline {name} tries revision {}; how it does: sluice pipeline candidate {name}",
                tried["candidate"]["revision"]
            );
            output.done(&tried, &text)
        }
        Verb::Candidate { pipeline, output } => {
            let answer = rest.get(&format!("{}/candidate", path(&pipeline)))?;
            output.one_as(&answer, &candidate::view(&answer))
        }
        Verb::Promote { pipeline, output } => {
            let live = rest.post(&format!("{}:promote", path(&pipeline)), Content::Json(json!({})))?;
            output.done(&live, &format!("pipeline {pipeline} runs revision {} in all queues", live["revision"]))
        }
        Verb::Discard { pipeline } => {
            rest.delete(&format!("{}/candidate", path(&pipeline)))?;
            say(format!("pipeline {pipeline} tries nothing any more"))
        }
        Verb::Rollback { pipeline, to, output } => {
            let body = to.map_or_else(|| json!({}), |to| json!({ "to": to }));
            let live = rest.post(&format!("{}:rollback", path(&pipeline)), Content::Json(body))?;
            output.done(&live, &format!("pipeline {pipeline} runs revision {}, an earlier one again", live["revision"]))
        }
        Verb::Revisions { pipeline, output } => {
            let columns = [
                ("revision", "/revision"),
                ("state", "/state"),
                ("reason", "/reason"),
                ("since", "/since"),
                ("from", "/from"),
                ("until", "/until"),
                ("plugins", "/plugins"),
            ];
            output.list(&rest.get(&format!("{}/revisions", path(&pipeline)))?, &columns)
        }
        Verb::List { output } => {
            let columns = [
                ("name", "/name"),
                ("state", "/state"),
                ("source", "/spec/source/topic"),
                ("sinks", "/spec/sinks"),
                ("lag", "/lag"),
            ];
            output.list(&all(rest, "/pipelines?limit=1000")?, &columns)
        }
        Verb::Describe { pipeline, output } => output.one(&rest.get(&path(&pipeline))?),
        Verb::Pause { pipeline } => verb(rest, &pipeline, "pause", "paused"),
        Verb::Resume { pipeline } => verb(rest, &pipeline, "resume", "going on"),
        Verb::Reset { pipeline, start } => {
            let body = start.map_or_else(|| json!({}), |start| json!({ "start": start }));
            rest.post(&format!("{}:reset", path(&pipeline)), Content::Json(body))?;
            say(format!("pipeline {pipeline} begins anew"))
        }
        Verb::State { pipeline, store: None, output, .. } => {
            output.list(&rest.get(&format!("{}/state", path(&pipeline)))?, &[("name", "/name")])
        }
        Verb::State { pipeline, store: Some(store), key: None, prefix, base64, output, .. } => {
            let (store, prefix) = (segment(&store), segment(&prefix));
            let encoding = encoding(base64);
            let entries = format!("{}/state/{store}?limit=1000&encoding={encoding}&prefix={prefix}", path(&pipeline));
            let columns = [
                ("key", "/key"),
                ("key base64", "/key_base64"),
                ("number", "/number"),
                ("value", "/value"),
                ("queue", "/queue"),
            ];
            output.list(&all(rest, &entries)?, &columns)
        }
        Verb::State { pipeline, store: Some(store), key: Some(key), queue, base64, output, .. } => {
            let (store, key) = (segment(&store), segment(&key));
            let queue = parameter("queue", queue.map(|queue| queue.to_string()).as_deref());
            let entry = format!("{}/state/{store}/{key}?encoding={}{queue}", path(&pipeline), encoding(base64));
            output.one(&rest.get(&entry)?)
        }
        Verb::Logs { pipeline, follow, output } => {
            let columns =
                [("at", "/at"), ("level", "/level"), ("step", "/step"), ("queue", "/queue"), ("message", "/message")];
            logs(rest, &format!("{}/logs", path(&pipeline)), follow, &output, &columns)
        }
        Verb::Trace { pipeline, queue, offset, id, output } => {
            let of = match (queue, offset, id) {
                (Some(queue), Some(offset), _) => format!("queue={queue}&offset={offset}"),
                (.., id) => format!("id={}", segment(&id.unwrap_or_default())),
            };
            let traced = rest.get(&format!("{}/trace?{of}", path(&pipeline)))?;
            output.one_as(&traced, &trace_view(&traced))
        }
        Verb::Delete { pipeline } => {
            rest.delete(&path(&pipeline))?;
            say(format!("pipeline {pipeline} is deleted"))
        }
    }
}

fn verb(rest: &Rest, pipeline: &str, verb: &str, done: &str) -> anyhow::Result<()> {
    rest.post(&format!("{}:{verb}", path(pipeline)), Content::Json(json!({})))?;
    say(format!("pipeline {pipeline} is {done}"))
}

/// How a key is written.
fn encoding(base64: bool) -> &'static str {
    if base64 { "base64" } else { "text" }
}

/// A parameter behind others, if it is given.
fn parameter(name: &str, value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!("&{name}={}", segment(value)))
}

fn path(pipeline: &str) -> String {
    format!("/pipelines/{}", segment(pipeline))
}

/// A trace for people: a line for each place where the message is, and for each record in each step.
fn trace_view(traced: &Value) -> Value {
    let place = |message: &Value| {
        json!({ "topic": message["topic"], "queue": message["queue"], "offset": message["offset"], "id": message["id"],
                "stored_at": message["stored_at"], "error": message["failure"]["reason"] })
    };
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let places: Vec<Value> =
        [&traced["sinks"], &traced["dead_letters"]].into_iter().flat_map(list).map(|message| place(&message)).collect();
    let mut steps = Vec::new();
    for step in list(&traced["explanation"]) {
        let row = |record: &Value| {
            let outputs = list(&record["outputs"]);
            let columns: Vec<Value> = outputs.iter().flat_map(|output| list(&output["changed"])).collect();
            let sinks: Vec<&Value> =
                outputs.iter().map(|output| &output["sink"]).filter(|sink| !sink.is_null()).collect();
            json!({ "step": step["step"], "outcome": record["outcome"], "us": record["microseconds"], "changed": columns,
                    "outputs": outputs.len(), "sinks": sinks, "why": record["error"]["reason"] })
        };
        let records = list(&step["records"]);
        steps.extend(records.iter().map(row));
        if !step["not_run"].is_null() {
            steps.push(
                json!({ "step": step["step"], "outcome": "not run", "us": null, "changed": null, "outputs": null,
                               "sinks": null, "why": step["not_run"] }),
            );
        }
    }
    let logs: Vec<Value> = list(&traced["explanation"]).iter().flat_map(|step| list(&step["logs"])).collect();
    let logs: Vec<Value> = logs
        .iter()
        .map(|line| json!({ "step": line["step"], "level": line["level"], "message": line["message"] }))
        .collect();
    let source = &traced["source"];
    json!({ "pipeline": traced["pipeline"], "unreadable": traced["unreadable"], "topic": source["topic"], "queue": source["queue"], "offset": source["offset"],
            "unique_key": source["unique_key"], "wanted": traced["wanted"], "passed": traced["passed"],
            "position": traced["position"], "places": places, "steps": steps, "logs": logs })
}

/// The text of a pipeline's file and the name that it gives itself. JSON is YAML as well.
fn named(file: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    let text = read(file)?;
    let spec: Value = serde_norway::from_slice(&text).with_context(|| format!("{} is no YAML", file.display()))?;
    let name = spec.get("name").and_then(Value::as_str);
    let name = name.with_context(|| format!("{}: name: expected the pipeline's name", file.display()))?;
    Ok((name.to_owned(), text))
}
