//! `sluice bench`

use clap::{Args, Subcommand};
use sluice_bench::{Consume, Fate, Filter, Produce, Relay, Report, Stop};

use super::{
    NameServers,
    bench_pipeline::{self, PipelineArgs},
};
use crate::{
    output::OutputArgs,
    rest::Rest,
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
        /// Each producer keeps to one queue, so that its messages have an order.
        #[arg(long)]
        ordered: bool,
        /// Deliver each message so much later.
        #[arg(long, value_name = "DURATION", conflicts_with_all = ["delay_level", "transaction"])]
        delay: Option<Span>,
        /// Deliver each message after the time of this delay level, 1 to 18.
        #[arg(long, value_name = "LEVEL", conflicts_with = "transaction", value_parser = clap::value_parser!(u8).range(1..=18))]
        delay_level: Option<u8>,
        /// Send half messages, and commit each as soon as it is stored.
        #[arg(long)]
        transaction: bool,
        /// Give messages a property of this name that counts from 0 to 99.
        #[arg(long, value_name = "NAME")]
        counter: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Run a filter between two topics of a running server, from log to log; with topics of its own, which it deletes again.
    #[command(after_help = "Example:\n  sluice bench pipeline --records 2000000 --size 200B")]
    Pipeline(PipelineArgs),
    /// Send messages at a steady rate, and tell how long they take to be acknowledged and to reach a consumer.
    #[command(after_help = "\
Example:
  sluice bench latency --topic orders --rate 500 --duration 10s
  sluice bench latency --topic orders --sink big-orders -o json    through the pipeline between them")]
    Latency {
        #[command(flatten)]
        names: NameServers,
        #[arg(long)]
        topic: String,
        /// Where a pipeline puts what it reads from the topic; the topic itself when left out.
        #[arg(long)]
        sink: Option<String>,
        /// Messages a second.
        #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
        /// Size of a body, JSON; at least 64 bytes.
        #[arg(long, default_value = "200B")]
        size: Size,
        /// How long, behind half a second of messages that do not count.
        #[arg(long, default_value = "10s", value_name = "DURATION")]
        duration: Span,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Read a topic as fast as the broker gives it.
    #[command(after_help = "Example:\n  sluice bench consume --consumers 4 -o json")]
    Consume {
        /// Consumers, each with a connection of its own and a share of the queues.
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        consumers: u16,
        /// Only messages for which this condition over their properties holds.
        #[arg(long, value_name = "CONDITION")]
        sql: Option<String>,
        /// Lock each queue before it is read, and fail when its messages are out of order.
        #[arg(long)]
        ordered: bool,
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

impl Load {
    fn names(&mut self) -> &mut NameServers {
        match self {
            Self::Produce { common, .. } | Self::Consume { common, .. } => &mut common.names,
            Self::Latency { names, .. } => names,
            Self::Pipeline(args) => &mut args.names,
        }
    }
}

/// `server` is where name servers are asked for, when it was given.
pub fn run(mut args: BenchArgs, rest: &Rest, server: Option<&Rest>) -> anyhow::Result<()> {
    args.load.names().or_of(server)?;
    block_on(async {
        match args.load {
            Load::Produce {
                producers,
                in_flight,
                size,
                queues,
                ordered,
                delay,
                delay_level,
                transaction,
                counter,
                common,
            } => {
                let fate = match (delay, delay_level) {
                    (Some(delay), _) => Fate::Delay(delay.0),
                    (None, Some(level)) => Fate::Level(level),
                    (None, None) if transaction => Fate::Transaction,
                    (None, None) => Fate::Plain,
                };
                let plan = Produce {
                    name_servers: common.names.addresses()?,
                    topic: common.topic.clone(),
                    producers: usize::from(producers),
                    in_flight: usize::from(in_flight),
                    size: usize::try_from(size.0)?,
                    fate,
                    ordered,
                    counter,
                    queues,
                    stop: common.stop(),
                    pid: common.pid,
                };
                common.print(&sluice_bench::produce(plan).await?)
            }
            Load::Latency { names, topic, sink, rate, size, duration, output } => {
                let plan = Relay {
                    name_servers: names.addresses()?,
                    sink: sink.unwrap_or_else(|| topic.clone()),
                    topic,
                    rate,
                    size: usize::try_from(size.0)?,
                    duration: duration.0,
                };
                let report = sluice_bench::relay(plan).await?;
                output.done(&serde_json::to_value(&report)?, &report.to_string())
            }
            Load::Pipeline(args) => bench_pipeline::run(args, rest).await,
            Load::Consume { consumers, sql, ordered, common } => {
                let plan = Consume {
                    name_servers: common.names.addresses()?,
                    topic: common.topic.clone(),
                    consumers: usize::from(consumers),
                    filter: sql.map_or_else(|| Filter::from("*"), Filter::Sql92),
                    ordered,
                    stop: common.stop(),
                    pid: common.pid,
                };
                common.print(&sluice_bench::consume(plan).await?)
            }
        }
    })
}
