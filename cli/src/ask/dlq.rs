//! `sluice dlq`

use std::{cmp::Reverse, collections::BTreeMap};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::topic::all;
use crate::{
    output::OutputArgs,
    rest::{Content, Rest, segment},
};

#[derive(Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List dead letters of a pipeline that were neither replayed nor purged, or count them by error.
    #[command(
        after_help = "Example:\n  sluice dlq list big-orders --by-error\n  sluice dlq list big-orders -n 20 -o json"
    )]
    List {
        pipeline: String,
        /// Count those that failed in the same way.
        #[arg(long, conflicts_with_all = ["key", "limit", "cursor"])]
        by_error: bool,
        /// Those as well that were replayed or purged.
        #[arg(long)]
        all: bool,
        /// Only those with this key.
        #[arg(long)]
        key: Option<String>,
        /// Only those stored at this time or later, as 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Only those stored at this time or earlier.
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// How many at the most, 1 to 256.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 32)]
        limit: u32,
        /// Go on behind an earlier list, which said with what.
        #[arg(long)]
        cursor: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a dead letter: the message, and why it failed.
    #[command(after_help = "Example:\n  sluice dlq show big-orders 7F00000100002A9F0000000000003B52")]
    Show {
        pipeline: String,
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run dead letters again, through the pipeline's plugins to its sinks; nobody else who reads its source sees them.
    #[command(
        after_help = "Example:\n  sluice dlq replay big-orders --all --code not-json\n  sluice dlq replay big-orders 7F00000100002A9F0000000000003B52 --plugin redact@1.2.0"
    )]
    Replay {
        pipeline: String,
        /// Ids of dead letters.
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Every one that was neither replayed nor purged, in order.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Only those that failed with this code.
        #[arg(long, requires = "all")]
        code: Option<String>,
        /// A version to run in the place of the pipeline's own of that plugin.
        #[arg(long, value_name = "NAME@VERSION")]
        plugin: Option<String>,
        /// Those as well that were replayed or purged before.
        #[arg(long, conflicts_with = "all")]
        again: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Give dead letters up: they are not listed any more. They stay in the log until retention takes them.
    #[command(
        after_help = "Example:\n  sluice dlq purge big-orders --before 2026-01-31T12:00:00Z\n  sluice dlq purge big-orders --all --code not-json"
    )]
    Purge {
        pipeline: String,
        /// Ids of dead letters.
        #[arg(required_unless_present_any = ["all", "before"], conflicts_with_all = ["all", "before"])]
        ids: Vec<String>,
        /// Those that were stored before this time.
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
        #[arg(long, conflicts_with = "before")]
        all: bool,
        /// Only those that failed with this code.
        #[arg(long, conflicts_with = "ids")]
        code: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub fn run(args: DlqArgs, rest: &Rest) -> anyhow::Result<()> {
    let path = |pipeline: &str| format!("/pipelines/{}/dlq", segment(pipeline));
    match args.verb {
        Verb::List { pipeline, by_error: true, all: dealt, from, to, output, .. } => {
            let query = query(&[("from", from), ("to", to)]);
            let groups = all(rest, &format!("{}?group_by=error&all={dealt}{query}", path(&pipeline)))?;
            let columns = [
                ("code", "/code"),
                ("step", "/step"),
                ("count", "/count"),
                ("first", "/first"),
                ("last", "/last"),
                ("sample", "/sample"),
            ];
            output.list(&merged(groups), &columns)
        }
        Verb::List { pipeline, all, key, from, to, limit, cursor, output, .. } => {
            let query = query(&[("key", key), ("from", from), ("to", to), ("cursor", cursor)]);
            let columns = [
                ("id", "/id"),
                ("stored at", "/stored_at"),
                ("key", "/key"),
                ("code", "/failure/code"),
                ("plugin", "/failure/plugin"),
                ("tries", "/failure/tries"),
                ("reason", "/failure/reason"),
            ];
            let page = rest.get(&format!("{}?limit={limit}&all={all}{query}", path(&pipeline)))?;
            output.list(&page, &columns)?;
            if let Some(next) = page["next"].as_str() {
                eprintln!("there are more; --cursor {next} goes on");
            }
            Ok(())
        }
        Verb::Show { pipeline, id, output } => {
            let page = rest.get(&format!("{}?id={}", path(&pipeline), segment(&id)))?;
            let letter = page.pointer("/items/0").with_context(|| {
                format!("{id} is no dead letter of pipeline {pipeline}; `sluice dlq list {pipeline}` lists them")
            })?;
            output.one_as(letter, &flat(letter))
        }
        Verb::Replay { pipeline, ids, all, code, plugin, again, output } => {
            let mut body = if all { json!({"all": true}) } else { json!({"ids": ids, "again": again}) };
            for (name, value) in [("code", code), ("plugin", plugin)] {
                if let Some(value) = value {
                    body[name] = value.into();
                }
            }
            let done = rest.post(&format!("{}:replay", path(&pipeline)), Content::Json(body))?;
            output.one(&done)?;
            match done["stopped"].as_str() {
                Some(reason) => bail!("not everything was replayed: {reason}"),
                None => Ok(()),
            }
        }
        Verb::Purge { pipeline, ids, before, all, code, output } => {
            let mut body = match (all, before) {
                (true, _) => json!({"all": true}),
                (false, Some(before)) => json!({"before": before}),
                (false, None) => json!({"ids": ids}),
            };
            if let Some(code) = code {
                body["code"] = code.into();
            }
            let done = rest.post(&format!("{}:purge", path(&pipeline)), Content::Json(body))?;
            output.one(&done)?;
            match done["stopped"].as_str() {
                Some(reason) => bail!("not everything was purged: {reason}"),
                None => Ok(()),
            }
        }
    }
}

/// What was given, as parameters behind others.
fn query(given: &[(&str, Option<String>)]) -> String {
    let parameter = |(name, value): &(&str, Option<String>)| Some(format!("&{name}={}", segment(value.as_ref()?)));
    given.iter().filter_map(parameter).collect()
}

/// A dead letter with what is known of its failure and its properties in lines of their own.
fn flat(letter: &Value) -> Value {
    let mut flat = Map::new();
    for (name, value) in letter.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                flat.extend(inner.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone())));
            }
            value => drop(flat.insert(name.clone(), value.clone())),
        }
    }
    // Said above, and better.
    flat.retain(|name, _| !name.starts_with("properties.SLUICE_"));
    Value::Object(flat)
}

/// One group for each way to fail: every page of the answer counts letters of its own.
fn merged(groups: Value) -> Value {
    let mut by_way: BTreeMap<[String; 3], Value> = BTreeMap::new();
    for group in groups["items"].as_array().into_iter().flatten() {
        let way = ["code", "step", "plugin_digest"].map(|name| group[name].as_str().unwrap_or_default().to_owned());
        match by_way.get_mut(&way) {
            Some(known) => {
                known["count"] = (count(known) + count(group)).into();
                known["first"] = earlier(&known["first"], &group["first"]);
                if known["last"].as_str() < group["last"].as_str() {
                    for name in ["last", "sample", "reason"] {
                        known[name] = group[name].clone();
                    }
                }
            }
            None => drop(by_way.insert(way, group.clone())),
        }
    }
    let mut items: Vec<Value> = by_way.into_values().collect();
    items.sort_by_key(|group| Reverse(count(group)));
    json!({"items": items, "next": null})
}

fn count(group: &Value) -> u64 {
    group["count"].as_u64().unwrap_or(0)
}

/// Times as RFC 3339 in UTC sort as text.
fn earlier(a: &Value, b: &Value) -> Value {
    if a.as_str() <= b.as_str() { a.clone() } else { b.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_groups_are_added_up() {
        let group = |code: &str, count: u64, first: &str, last: &str| {
            json!({"code": code, "step": "s", "plugin_digest": "d", "count": count, "first": first, "last": last,
                   "sample": last, "reason": ""})
        };
        let pages = json!({"items": [group("a", 2, "02", "04"), group("b", 3, "01", "01"), group("a", 2, "01", "05")]});
        let items = merged(pages)["items"].clone();
        assert_eq!(items[0], json!(group("a", 4, "01", "05")));
        assert_eq!(items[1], group("b", 3, "01", "01"));
    }
}
