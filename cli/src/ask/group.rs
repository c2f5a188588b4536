//! `sluice group`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    filter::{self, FilterVerb},
    topic::all,
};
use crate::{
    output::{OutputArgs, say},
    rest::{Content, Rest, segment},
};

#[derive(Args)]
pub struct GroupArgs {
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
        /// earliest, latest, @ and a time, or queue:offset.
        #[arg(long, value_name = "WHERE")]
        to: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// The plugin that says what a group receives of a topic.
    Filter {
        #[command(subcommand)]
        verb: FilterVerb,
    },
    /// Delete a group and its positions.
    #[command(after_help = "Example:\n  sluice group delete billing")]
    Delete { group: String },
}

pub fn run(args: GroupArgs, rest: &Rest) -> anyhow::Result<()> {
    let path = |group: &str| format!("/groups/{}", segment(group));
    match args.verb {
        Verb::List { output } => {
            let columns = [
                ("name", "/name"),
                ("model", "/model"),
                ("members", "/members"),
                ("topics", "/topics"),
                ("lag", "/lag"),
            ];
            output.list(&all(rest, "/groups?limit=1000")?, &columns)
        }
        Verb::Describe { group, output } => {
            let described = rest.get(&path(&group))?;
            output.one_as(&described, &flat(&described))
        }
        Verb::ResetOffset { group, topic, to, output } => {
            let reset = rest.post(&format!("{}/offsets:reset", path(&group)), Content::Json(target(&topic, &to)))?;
            output.done(&reset, &format!("group {group} reads {topic} from {to} on"))
        }
        Verb::Filter { verb } => filter::run(verb, rest),
        Verb::Delete { group } => {
            rest.delete(&path(&group))?;
            say(format!("group {group} is deleted"))
        }
    }
}

/// What the API takes: a word, a time, or the offset of one queue.
fn target(topic: &str, to: &str) -> Value {
    if let Some(time) = to.strip_prefix('@') {
        return json!({"topic": topic, "to": time});
    }
    let place =
        to.split_once(':').and_then(|(queue, offset)| Some((queue.parse::<u32>().ok()?, offset.parse::<u64>().ok()?)));
    match place {
        Some((queue, offset)) => json!({"topic": topic, "to": offset, "queue": queue}),
        None => json!({"topic": topic, "to": to}),
    }
}

/// A group with its queues in one list instead of one below each topic.
fn flat(group: &Value) -> Value {
    let mut flat = group.clone();
    let topics = group.get("topics").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows = topics.iter().flat_map(|topic| {
        let queues = topic.get("queues").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        queues.iter().map(|queue| {
            let mut row = json!({"topic": topic["topic"]});
            for name in ["queue", "offset", "min", "max", "lag"] {
                row[name] = queue[name].clone();
            }
            row
        })
    });
    flat["topics"] = rows.collect();
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_words_times_and_places() {
        assert_eq!(target("t", "earliest")["to"], "earliest");
        assert_eq!(target("t", "@2026-01-31T12:00:00Z")["to"], "2026-01-31T12:00:00Z");
        assert_eq!(target("t", "2:7"), json!({"topic": "t", "to": 7, "queue": 2}));
    }

    #[test]
    fn queues_of_all_topics_are_one_list() {
        let group = json!({"name": "g", "topics": [{"topic": "a", "queues": [{"queue": 0, "lag": 1}, {"queue": 1, "lag": 2}]}]});
        let rows = &flat(&group)["topics"];
        assert_eq!(rows.as_array().map(Vec::len), Some(2));
        assert_eq!((&rows[1]["topic"], &rows[1]["lag"]), (&json!("a"), &json!(2)));
    }
}
