//! `sluice topic`

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use super::ingress::{self, IngressVerb};
use crate::{
    output::{OutputArgs, say},
    rest::{Content, Rest, segment},
};

#[derive(Args)]
pub struct TopicArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Normal,
    Fifo,
    Delay,
    Transaction,
}

#[derive(Args)]
struct Options {
    /// Queues, 1 to 1024.
    #[arg(long, value_name = "N")]
    queues: Option<u32>,
    /// What the topic is for.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// read-write, read, write or none.
    #[arg(long)]
    permission: Option<String>,
    /// sync: acknowledged means on disk; async: taken.
    #[arg(long)]
    durability: Option<String>,
    /// For how long messages stay, as 7d; "broker": as long as the broker's log has them.
    #[arg(long, value_name = "DURATION")]
    retention: Option<String>,
    /// Free text under a name; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::pairs::parse)]
    attribute: Vec<(String, String)>,
}

#[derive(Subcommand)]
enum Verb {
    /// List topics.
    #[command(after_help = "Example:\n  sluice topic list -o json")]
    List {
        /// The broker's own topics, retry topics and dead letters as well.
        #[arg(long)]
        system: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make a topic, or replace its settings.
    #[command(after_help = "Example:\n  sluice topic create orders --queues 8 --type fifo")]
    Create {
        topic: String,
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a topic and the offsets of its queues.
    #[command(after_help = "Example:\n  sluice topic describe orders")]
    Describe {
        topic: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Change some settings of a topic.
    #[command(after_help = "Example:\n  sluice topic alter orders --queues 16 --retention 7d")]
    Alter {
        topic: String,
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Plugins that a topic's messages pass before they are stored.
    Ingress {
        #[command(subcommand)]
        verb: IngressVerb,
    },
    /// Delete a topic with its messages.
    #[command(after_help = "Example:\n  sluice topic delete orders")]
    Delete { topic: String },
}

impl Options {
    fn body(&self) -> Value {
        let mut body = Map::new();
        let mut set = |key: &str, value: Option<Value>| value.map(|value| body.insert(key.to_owned(), value));
        set("queues", self.queues.map(Value::from));
        set("type", self.kind.and_then(|kind| Some(kind.to_possible_value()?.get_name().into())));
        set("permission", self.permission.clone().map(Value::from));
        set("durability", self.durability.clone().map(Value::from));
        let retention = |text: String| if text == "broker" { Value::Null } else { text.into() };
        set("retention", self.retention.clone().map(retention));
        let attributes: Map<_, _> =
            self.attribute.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        set("attributes", (!attributes.is_empty()).then_some(Value::Object(attributes)));
        Value::Object(body)
    }
}

pub fn run(args: TopicArgs, rest: &Rest) -> anyhow::Result<()> {
    match args.verb {
        Verb::List { system, output } => {
            let columns = [
                ("name", "/name"),
                ("queues", "/queues"),
                ("type", "/type"),
                ("permission", "/permission"),
                ("messages", "/messages"),
            ];
            output.list(&all(rest, &format!("/topics?limit=1000&system={system}"))?, &columns)
        }
        Verb::Create { topic, options, output } => {
            let made = rest.put(&path(&topic), Content::Json(options.body()))?;
            output.done(&made, &format!("topic {topic} is there"))
        }
        Verb::Describe { topic, output } => output.one(&rest.get(&path(&topic))?),
        Verb::Alter { topic, options, output } => {
            let changed = rest.patch(&path(&topic), options.body())?;
            output.done(&changed, &format!("topic {topic} is changed"))
        }
        Verb::Ingress { verb } => ingress::run(verb, rest),
        Verb::Delete { topic } => {
            rest.delete(&path(&topic))?;
            say(format!("topic {topic} is deleted"))
        }
    }
}

/// A list of several pages as one.
pub fn all(rest: &Rest, first: &str) -> anyhow::Result<Value> {
    let mut answer = rest.get(first)?;
    while let Some(next) = answer.get("next").and_then(Value::as_str) {
        let between = if first.contains('?') { '&' } else { '?' };
        let mut more = rest.get(&format!("{first}{between}cursor={}", segment(next)))?;
        let items = more.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        if let Some(known) = answer.get_mut("items").and_then(Value::as_array_mut) {
            known.extend(items);
        }
        answer["next"] = more.get("next").cloned().unwrap_or_default();
    }
    Ok(answer)
}

fn path(topic: &str) -> String {
    format!("/topics/{}", segment(topic))
}
