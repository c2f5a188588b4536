//! `sluice bench`

use clap::{Args, Subcommand};
use sluice_bench::{Consume, Produce, Report, Stop};

use super::NameServers;
use crate::{
    output::OutputArgs,
    run::block_on,
    settings::{Size, Span},
};

#[derive(Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    load: Load,
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    names: NameServers,
    #[arg(long, default_value = "sluice-bench")]
    topic: String,
    /// End after so many messages.
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// End after so long.
    #[arg(long, value_name = "DURATION")]
    duration: Option<Span>,
    /// Process whose processor time and memory are told as well, usually the broker.
    #[arg(long)]
    pid: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Subcommand)]
enum Load {
    /// Send messages as fast as the broker takes them.
    #[command(after_help = "\
Example:
  sluice bench produce --producers 8 --size 1KiB --duration 10s
  sluice bench produce --producers 2 --in-flight 64 --messages 1000000 --pid $(pgrep -x sluice) -o json")]
    Produce {
        /// Producers, each with a connection of its own.
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        producers: u16,
        /// Sends of one producer that wait for their answer at a time; 1 sends one after the other.
        #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1024))]
        in_flight: u16,
        /// Size of a body.
        #[arg(long, default_value = "1KiB")]
        size: Size,
        /// Make the topic with so many queues.
        #[arg(long, value_name = "N")]
        queues: Option<u32>,
        #[command(flatten)]
        common: Common,
    },
    /// Read a topic as fast as the broker gives it.
    #[command(after_help = "Example:\n  sluice bench consume --consumers 4 -o json")]
    Consume {
        /// Consumers, each with a connection of its own and a share of the queues.
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        consumers: u16,
        #[command(flatten)]
        common: Common,
    },
}

impl Common {
    fn stop(&self) -> Stop {
        Stop { messages: self.messages, duration: self.duration.map(|span| span.0) }
    }

    fn print(&self, report: &Report) -> anyhow::Result<()> {
        self.output.done(&serde_json::to_value(report)?, &report.to_string())
    }
}

pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    block_on(async {
        match args.load {
            Load::Produce { producers, in_flight, size, queues, common } => {
                let plan = Produce {
                    name_servers: common.names.addresses()?,
                    topic: common.topic.clone(),
                    producers: usize::from(producers),
                    in_flight: usize::from(in_flight),
                    size: usize::try_from(size.0)?,
                    queues,
                    stop: common.stop(),
                    pid: common.pid,
                };
                common.print(&sluice_bench::produce(plan).await?)
            }
            Load::Consume { consumers, common } => {
                let plan = Consume {
                    name_servers: common.names.addresses()?,
                    topic: common.topic.clone(),
                    consumers: usize::from(consumers),
                    stop: common.stop(),
                    pid: common.pid,
                };
                common.print(&sluice_bench::consume(plan).await?)
            }
        }
    })
}
