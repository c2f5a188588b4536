//! `sluice group`

use clap::{Args, Subcommand};
use serde_json::json;

use super::topic::all;
use crate::{
    output::OutputArgs,
    rest::{Content, ServerArgs, segment},
};

#[derive(Args)]
pub struct GroupArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List consumer groups.
    #[command(after_help = "Example:\n  sluice group list")]
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a group: its members, and how far behind it is on each queue.
    #[command(after_help = "Example:\n  sluice group describe billing -o yaml")]
    Describe {
        group: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Set where a group goes on reading a topic.
    #[command(after_help = "Example:\n  sluice group reset-offset billing --topic orders --to @2026-01-31T12:00:00Z")]
    ResetOffset {
        group: String,
        #[arg(long)]
        topic: String,
        /// earliest, latest, or @ and a time.
        #[arg(long, value_name = "WHERE")]
        to: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete a group and its positions.
    #[command(after_help = "Example:\n  sluice group delete billing")]
    Delete { group: String },
}

pub fn run(args: GroupArgs) -> anyhow::Result<()> {
    let rest = args.server.connect();
    let path = |group: &str| format!("/groups/{}", segment(group));
    match args.verb {
        Verb::List { output } => {
            let columns = [("name", "/name"), ("members", "/members"), ("topics", "/topics"), ("lag", "/lag")];
            output.list(&all(&rest, "/groups?limit=1000")?, &columns)
        }
        Verb::Describe { group, output } => output.one(&rest.get(&path(&group))?),
        Verb::ResetOffset { group, topic, to, output } => {
            let body = Content::Json(json!({"topic": topic, "to": to}));
            let reset = rest.post(&format!("{}/offsets:reset", path(&group)), body)?;
            output.done(&reset, &format!("group {group} reads {topic} from {to} on"))
        }
        Verb::Delete { group } => {
            rest.delete(&path(&group))?;
            println!("group {group} is deleted");
            Ok(())
        }
    }
}
