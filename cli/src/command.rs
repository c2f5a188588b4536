//! The tree of commands, and what their outcome means for the shell.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    ask::{audit, checker, dlq, group, pipeline, plugin, secret, topic},
    demo, log,
    rest::Rest,
    run,
    stream::{bench, consume, produce},
};

/// Where the REST API is when nobody says.
const USUAL_SERVER: &str = "http://127.0.0.1:8082";

/// A message broker that speaks RocketMQ's protocol and runs WebAssembly plugins on its streams.
#[derive(Parser)]
#[command(name = "sluice", version, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed, 2 wrong usage.
Start here:
  sluice dev                          everything in one process, on loopback
  echo hello | sluice produce greetings
  sluice consume greetings --from earliest -n 1")]
struct Cli {
    /// What is logged, as in RUST_LOG: `info`, `debug`, `sluice_server=debug,info`.
    #[arg(long, global = true, env = "SLUICE_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// Address of the REST API, for the commands that ask a running server; http://127.0.0.1:8082 when left out.
    #[arg(long, global = true, env = "SLUICE_SERVER", value_name = "URL")]
    server: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run name server, broker, plugins and REST in one process, on loopback.
    Dev(run::dev::Args),
    /// Run a name server.
    Namesrv(run::namesrv::Args),
    /// Run a broker with plugins and REST.
    Broker(run::broker::Args),
    /// See the main job done: orders through plugins, payments decided by a plugin, every message accounted for.
    Demo(demo::Args),
    /// Send the lines of standard input or of a file as messages.
    Produce(produce::Args),
    /// Print the messages of a topic; no group's positions change.
    Consume(consume::Args),
    /// Topics.
    Topic(topic::TopicArgs),
    /// Consumer groups and their positions.
    Group(group::GroupArgs),
    /// WebAssembly plugins.
    Plugin(plugin::PluginArgs),
    /// Plugins between topics.
    Pipeline(pipeline::PipelineArgs),
    /// Plugins that decide half messages.
    Checker(checker::CheckerArgs),
    /// Dead letters of pipelines.
    Dlq(dlq::DlqArgs),
    /// Values that plugins may be granted by name.
    Secret(secret::SecretArgs),
    /// What plugins were granted, and what they did with it.
    Audit(audit::AuditArgs),
    /// Measure a broker, Sluice's or Apache's.
    Bench(bench::BenchArgs),
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  source <(sluice completions bash)")]
    Completions { shell: Shell },
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    log::init(&cli.log)?;
    let rest = Rest::new(cli.server.as_deref().unwrap_or(USUAL_SERVER));
    let server = cli.server.is_some().then_some(&rest);
    match cli.command {
        Command::Dev(args) => run::dev::run(args),
        Command::Namesrv(args) => run::namesrv::run(args),
        Command::Broker(args) => run::broker::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Produce(args) => produce::run(args, server),
        Command::Consume(args) => consume::run(args, server),
        Command::Bench(args) => bench::run(args, &rest, server),
        Command::Topic(args) => topic::run(args, &rest),
        Command::Group(args) => group::run(args, &rest),
        Command::Plugin(args) => plugin::run(args, &rest),
        Command::Pipeline(args) => pipeline::run(args, &rest),
        Command::Checker(args) => checker::run(args, &rest),
        Command::Dlq(args) => dlq::run(args, &rest),
        Command::Secret(args) => secret::run(args, &rest),
        Command::Audit(args) => audit::run(args, &rest),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut std::io::stdout());
            Ok(())
        }
    }
}
