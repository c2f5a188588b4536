//! `sluice group filter`

use std::path::PathBuf;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{LOG_COLUMNS, logs, read};
use crate::{
    output::{OutputArgs, say},
    rest::{Content, Rest, segment},
};

#[derive(Clone, Copy, ValueEnum)]
pub enum OnFailure {
    Deliver,
    Skip,
}

#[derive(Subcommand)]
pub enum FilterVerb {
    /// Let a plugin say which of a topic's messages a group receives.
    #[command(after_help = "Example:\n  sluice group filter apply billing orders --plugin json-filter \
                            --config '{\"path\": \"/status\", \"equals\": \"paid\"}'")]
    Apply {
        group: String,
        topic: String,
        /// name, name@1 or name@sha256:…; a filter.
        #[arg(long, required_unless_present = "file", conflicts_with = "file")]
        plugin: Option<String>,
        /// The plugin's values by name, JSON.
        #[arg(long, value_name = "JSON", requires = "plugin")]
        config: Option<String>,
        /// What becomes of a message that the plugin fails on.
        #[arg(long, requires = "plugin")]
        on_failure: Option<OnFailure>,
        /// All of that as YAML or JSON; `-` reads standard input.
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the filter of what a group receives of a topic, and what it did.
    #[command(after_help = "Example:\n  sluice group filter show billing orders -o json")]
    Show {
        group: String,
        topic: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show what a filter logged.
    #[command(after_help = "Example:\n  sluice group filter logs billing orders --follow")]
    Logs {
        group: String,
        topic: String,
        /// Go on with new lines as they come.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Let a group receive what it subscribes to again.
    #[command(after_help = "Example:\n  sluice group filter delete billing orders")]
    Delete { group: String, topic: String },
}

pub fn run(verb: FilterVerb, rest: &Rest) -> anyhow::Result<()> {
    let path = |group: &str, topic: &str| format!("/groups/{}/filters/{}", segment(group), segment(topic));
    match verb {
        FilterVerb::Apply { group, topic, plugin, config, on_failure, file, output } => {
            let content = match (plugin, file) {
                (Some(plugin), _) => Content::Json(spec(&plugin, config.as_deref(), on_failure)?),
                (None, file) => Content::Yaml(read(&file.unwrap_or_default())?),
            };
            let applied = rest.put(&path(&group, &topic), content)?;
            output.done(&applied, &format!("the filter of group {group} on topic {topic} is applied"))
        }
        FilterVerb::Show { group, topic, output } => output.one(&rest.get(&path(&group, &topic))?),
        FilterVerb::Logs { group, topic, follow, output } => {
            logs(rest, &format!("{}/logs", path(&group, &topic)), follow, &output, &LOG_COLUMNS)
        }
        FilterVerb::Delete { group, topic } => {
            rest.delete(&path(&group, &topic))?;
            say(format!("the filter of group {group} on topic {topic} is deleted"))
        }
    }
}

fn spec(plugin: &str, config: Option<&str>, on_failure: Option<OnFailure>) -> anyhow::Result<Value> {
    let mut spec = json!({ "plugin": plugin });
    if let Some(config) = config {
        spec["config"] =
            serde_json::from_str(config).with_context(|| format!("--config: expected JSON, got {config}"))?;
    }
    if let Some(value) = on_failure.and_then(|on_failure| on_failure.to_possible_value()) {
        spec["on_failure"] = value.get_name().into();
    }
    Ok(spec)
}
