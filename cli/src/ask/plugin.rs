//! `sluice plugin`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::topic::all;
use crate::{
    output::{OutputArgs, say},
    rest::{Content, Rest, segment},
};

#[derive(Args)]
pub struct PluginArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Upload a component; the server checks and compiles it first.
    #[command(after_help = "Example:\n  sluice plugin push big-orders.wasm --name big-orders")]
    Push {
        /// The component; or a plugin that comes with Sluice: json-filter, json-map, route, aggregate, ledger-checker.
        file: PathBuf,
        /// The plugin's name; the file's, without its ending, when left out.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List plugins.
    #[command(after_help = "Example:\n  sluice plugin list")]
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a plugin and its versions.
    #[command(after_help = "Example:\n  sluice plugin describe json-filter -o json")]
    Describe {
        plugin: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Have a component checked as an upload would be, and not kept.
    #[command(after_help = "Example:\n  sluice plugin check big-orders.wasm")]
    Check {
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete a plugin, or one version of it.
    #[command(after_help = "Example:\n  sluice plugin delete big-orders@1.2.0")]
    Delete {
        /// `name` or `name@version`.
        plugin: String,
    },
}

pub fn run(args: PluginArgs, rest: &Rest) -> anyhow::Result<()> {
    let path = |plugin: &str| format!("/plugins/{}", segment(plugin));
    match args.verb {
        Verb::Push { file, name, output } => {
            let name = name.map_or_else(|| name_of(&file), Ok)?;
            let report = rest.put(&path(&name), Content::Wasm(component(&file)?))?;
            output.done(&report, &format!("plugin {name} is uploaded\n{}", summary(&report)))
        }
        Verb::List { output } => {
            let columns = [
                ("name", "/name"),
                ("version", "/version"),
                ("roles", "/roles"),
                ("digest", "/digest"),
                ("size", "/size"),
            ];
            output.list(&all(rest, "/plugins?limit=1000")?, &columns)
        }
        Verb::Describe { plugin, output } => output.one(&rest.get(&path(&plugin))?),
        Verb::Check { file, output } => {
            let name = name_of(&file)?;
            output.one(&rest.post(&format!("{}:check", path(&name)), Content::Wasm(read(&file)?))?)
        }
        Verb::Delete { plugin } => {
            let path = match plugin.split_once('@') {
                Some((name, version)) => format!("{}/versions/{}", path(name), segment(version)),
                None => path(&plugin),
            };
            rest.delete(&path)?;
            say(format!("plugin {plugin} is deleted"))
        }
    }
}

/// The bytes of a file; or, when there is no such file, of the ready-made plugin with this name.
fn component(file: &Path) -> anyhow::Result<Vec<u8>> {
    let ready = file.to_str().and_then(sluice_plugins::ready_made).filter(|_| !file.exists());
    ready.map_or_else(|| read(file), |plugin| Ok(plugin.component.to_vec()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn name_of(file: &Path) -> anyhow::Result<String> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    stem.map(|stem| stem.replace('_', "-"))
        .with_context(|| format!("{} has no name; give one with --name", file.display()))
}

fn summary(report: &Value) -> String {
    let field = |name: &str| report.get(name).map(|value| format!("{name} {value}"));
    ["digest", "version", "roles", "size", "compile_ms"]
        .iter()
        .filter_map(|name| field(name))
        .collect::<Vec<_>>()
        .join(", ")
}
