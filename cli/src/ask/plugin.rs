//! `sluice plugin`

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use sluice_guest_build::{Guests, NewCrate, Role, find_sdk};

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

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    Filter,
    Transform,
    Process,
    CheckTransaction,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Filter => Self::Filter,
            RoleArg::Transform => Self::Transform,
            RoleArg::Process => Self::Process,
            RoleArg::CheckTransaction => Self::CheckTransaction,
        }
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Write the crate of a new plugin into ./NAME: one function, its tests, a README. Needs no server.
    #[command(
        after_help = "Example:\n  sluice plugin new big-orders --role filter\n  sluice plugin new big-orders --sdk ../sluice/sdk-wasm"
    )]
    New {
        /// The plugin's name.
        #[arg(value_parser = name)]
        name: String,
        /// What it is for.
        #[arg(long, default_value = "filter")]
        role: RoleArg,
        /// The folder sdk-wasm of a checkout of Sluice; that of the checkout around here, or of the one this program was built in, when
        /// left out.
        #[arg(long, value_name = "PATH")]
        sdk: Option<PathBuf>,
    },
    /// Build a plugin's crate; writes NAME.wasm beside its Cargo.toml. Needs no server.
    #[command(after_help = "Example:\n  sluice plugin build big-orders")]
    Build {
        /// Folder of the crate.
        #[arg(default_value = ".")]
        dir: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run the tests of a plugin's crate. Needs no server.
    #[command(after_help = "Example:\n  sluice plugin test big-orders\n  sluice plugin test big-orders -- --nocapture")]
    Test {
        /// Folder of the crate.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// For the tests themselves.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Upload a component; the server checks and compiles it first.
    #[command(after_help = "Example:\n  sluice plugin push big-orders.wasm --name big-orders")]
    Push {
        /// The component; or a plugin that comes with Sluice: json-filter, json-map, redact, route, aggregate, dedup, ledger-checker.
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
    /// Measure an uploaded plugin on the server: a stage of its own runs messages again and again, and what comes of them goes nowhere.
    #[command(
        after_help = "Example:\n  sluice plugin bench json-filter --config '{\"path\": \"/status\", \"equals\": \"paid\"}' --message '{\"status\": \"paid\"}'\n  sluice plugin bench big-orders@1 --file orders.jsonl --seconds 5"
    )]
    Bench {
        /// name, name@1 or name@sha256:…; a filter, transformer or processor.
        plugin: String,
        /// The plugin's values by name, JSON.
        #[arg(long, value_name = "JSON")]
        config: Option<String>,
        /// Value of a message; may come several times.
        #[arg(long, value_name = "TEXT", required_unless_present = "file")]
        message: Vec<String>,
        /// Each line is the value of a message, 1,000 at the most; `-` reads standard input.
        #[arg(short, long, value_name = "FILE", conflicts_with = "message")]
        file: Option<PathBuf>,
        /// Name of a sink that a transformer writes to; may come several times.
        #[arg(long, value_name = "TOPIC")]
        sink: Vec<String>,
        #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10))]
        seconds: u64,
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
        Verb::New { name, role, sdk } => new(&name, role.into(), sdk),
        Verb::Build { dir, output } => build(&dir, &output),
        Verb::Test { dir, arguments } => {
            let status = sluice_guest_build::test(&dir, &arguments)?;
            if status.success() { Ok(()) } else { bail!("the tests of {} failed ({status})", dir.display()) }
        }
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
        Verb::Bench { plugin, config, message, file, sink, seconds, output } => {
            let lines = |file: PathBuf| {
                let text =
                    String::from_utf8(super::read(&file)?).with_context(|| format!("{} is no text", file.display()))?;
                anyhow::Ok(text.lines().map(str::to_owned).collect())
            };
            let messages: Vec<String> = file.map_or(Ok(message), lines)?;
            let messages: Vec<Value> = messages.into_iter().map(|value| json!({ "value": value })).collect();
            let mut test = json!({ "messages": messages, "sinks": sink, "seconds": seconds });
            if let Some(config) = config {
                test["config"] =
                    serde_json::from_str(&config).with_context(|| format!("--config: expected JSON, got {config}"))?;
            }
            output.one(&rest.post(&format!("{}:bench", path(&plugin)), Content::Json(test))?)
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

fn name(text: &str) -> Result<String, String> {
    NewCrate::check_name(text).map(|()| text.to_owned())
}

fn new(name: &str, role: Role, sdk: Option<PathBuf>) -> anyhow::Result<()> {
    let here = Path::new(".");
    let sdk = sdk.or_else(|| find_sdk(here)).context(
        "no SDK is found here; give --sdk the folder sdk-wasm of a checkout of Sluice, as --sdk ../sluice/sdk-wasm",
    )?;
    NewCrate { name, role, sdk: &sdk }.write(&here.join(name))?;
    say(format!(
        "{name}/ holds a {role} plugin with its tests\n  sluice plugin test {name}\n  sluice plugin build {name}\n  sluice plugin push {name}/{name}.wasm"
    ))
}

fn build(dir: &Path, output: &OutputArgs) -> anyhow::Result<()> {
    eprintln!("building {}", dir.display());
    let mut built = Vec::new();
    for plugin in Guests::at(dir).build()? {
        let file = dir.join(format!("{}.wasm", plugin.package));
        std::fs::write(&file, &plugin.component).with_context(|| format!("{} cannot be written", file.display()))?;
        built.push(json!({ "name": plugin.package, "size": plugin.component.len(), "path": file }));
    }
    output.list(&json!({ "items": built, "next": null }), &[("name", "/name"), ("size", "/size"), ("path", "/path")])
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
    let facts = ["digest", "version", "roles", "size", "compile_ms"].iter().filter_map(|name| field(name));
    let facts = facts.collect::<Vec<_>>().join(", ");
    let imports = report.get("imports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let grants = imports.iter().filter_map(|import| import.get("needs_grant")?.as_str());
    match grants.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => facts,
        grants => format!("{facts}\nit asks for what has to be granted where it is used: {grants}"),
    }
}
