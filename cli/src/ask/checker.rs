//! `sluice checker`

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{LOG_COLUMNS, logs, read};
use crate::{
    output::{OutputArgs, say},
    rest::{Content, Rest, segment},
};

#[derive(Args)]
pub struct CheckerArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    /// The producer; the plugin when none is connected.
    ProducerFirst,
    /// The plugin; the producer when it does not know.
    PluginFirst,
    PluginOnly,
}

#[derive(Subcommand)]
enum Verb {
    /// Let a plugin decide the half messages of a producer group whose producers say nothing.
    #[command(after_help = "Example:\n  sluice checker apply payments --plugin ledger-checker --topic ledger\n  \
                            sluice checker apply payments -f checker.yaml")]
    Apply {
        group: String,
        /// name, name@1 or name@sha256:…; a checker.
        #[arg(long, required_unless_present = "file", conflicts_with = "file")]
        plugin: Option<String>,
        /// The plugin's values by name, JSON.
        #[arg(long, value_name = "JSON", requires = "plugin")]
        config: Option<String>,
        /// Who is asked first.
        #[arg(long, requires = "plugin")]
        policy: Option<Policy>,
        /// A topic that the plugin may look messages up in; may come several times.
        #[arg(long, value_name = "TOPIC", requires = "plugin")]
        topic: Vec<String>,
        /// All of that and other grants as YAML or JSON; `-` reads standard input.
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the checker of a producer group.
    #[command(after_help = "Example:\n  sluice checker show payments -o yaml")]
    Show {
        group: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show what a checker logged.
    #[command(after_help = "Example:\n  sluice checker logs payments --follow")]
    Logs {
        group: String,
        /// Go on with new lines as they come.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Ask the producers of a group again, and nobody else.
    #[command(after_help = "Example:\n  sluice checker delete payments")]
    Delete { group: String },
}

pub fn run(args: CheckerArgs, rest: &Rest) -> anyhow::Result<()> {
    let path = |group: &str| format!("/producer-groups/{}/checker", segment(group));
    match args.verb {
        Verb::Apply { group, plugin, config, policy, topic, file, output } => {
            let content = match (plugin, file) {
                (Some(plugin), _) => Content::Json(spec(&plugin, config.as_deref(), policy, topic)?),
                (None, file) => Content::Yaml(read(&file.unwrap_or_default())?),
            };
            let applied = rest.put(&path(&group), content)?;
            output.done(&applied, &format!("the checker of producer group {group} is applied"))
        }
        Verb::Show { group, output } => output.one(&rest.get(&path(&group))?),
        Verb::Logs { group, follow, output } => {
            logs(rest, &format!("{}/logs", path(&group)), follow, &output, &LOG_COLUMNS)
        }
        Verb::Delete { group } => {
            rest.delete(&path(&group))?;
            say(format!("the checker of producer group {group} is deleted"))
        }
    }
}

fn spec(plugin: &str, config: Option<&str>, policy: Option<Policy>, topics: Vec<String>) -> anyhow::Result<Value> {
    let mut spec = json!({ "plugin": plugin, "topics": topics });
    if let Some(config) = config {
        spec["config"] =
            serde_json::from_str(config).with_context(|| format!("--config: expected JSON, got {config}"))?;
    }
    if let Some(value) = policy.and_then(|policy| policy.to_possible_value()) {
        spec["policy"] = value.get_name().into();
    }
    Ok(spec)
}
