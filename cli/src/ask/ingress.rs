//! `sluice topic ingress`

use std::path::PathBuf;

use clap::Subcommand;

use super::{LOG_COLUMNS, logs, read};
use crate::{
    output::{OutputArgs, say},
    rest::{Content, Rest, segment},
};

#[derive(Subcommand)]
pub enum IngressVerb {
    /// Let producers' messages pass the plugins that a file describes before they are stored.
    #[command(after_help = "Example:\n  sluice topic ingress apply orders -f ingress.yaml\n\n\
                            ingress.yaml:\n  steps:\n    - { plugin: json-filter, config: { path: /status, exists: true } }\n  \
                            on_failure: reject")]
    Apply {
        topic: String,
        /// YAML or JSON; `-` reads standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the plugins that a topic's messages pass, and what they did.
    #[command(after_help = "Example:\n  sluice topic ingress show orders -o yaml")]
    Show {
        topic: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show what the plugins of a topic's ingress logged.
    #[command(after_help = "Example:\n  sluice topic ingress logs orders --follow")]
    Logs {
        topic: String,
        /// Go on with new lines as they come.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Store a topic's messages as they come again.
    #[command(after_help = "Example:\n  sluice topic ingress delete orders")]
    Delete { topic: String },
}

pub fn run(verb: IngressVerb, rest: &Rest) -> anyhow::Result<()> {
    let path = |topic: &str| format!("/topics/{}/ingress", segment(topic));
    match verb {
        IngressVerb::Apply { topic, file, output } => {
            let applied = rest.put(&path(&topic), Content::Yaml(read(&file)?))?;
            output.done(&applied, &format!("the ingress of topic {topic} is applied"))
        }
        IngressVerb::Show { topic, output } => output.one(&rest.get(&path(&topic))?),
        IngressVerb::Logs { topic, follow, output } => {
            logs(rest, &format!("{}/logs", path(&topic)), follow, &output, &LOG_COLUMNS)
        }
        IngressVerb::Delete { topic } => {
            rest.delete(&path(&topic))?;
            say(format!("the ingress of topic {topic} is deleted"))
        }
    }
}
