//! `sluice produce`

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
};

use anyhow::Context;
use serde_json::json;
use sluice_client::{Message, Producer};
use sluice_server::LONGEST_DELAY_MS;
use tokio::sync::mpsc;

use super::{NameServers, send_some};
use crate::{output::OutputArgs, rest::Rest, run::block_on, settings::Span};

/// Lines read ahead of what is sent.
const AHEAD: usize = 1024;
/// Sends that wait for their answer at a time.
const IN_FLIGHT: usize = 32;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  echo hello | sluice produce greetings
  sluice produce orders --tag paid --key 4711 --property source=web --file orders.ndjson
  echo later | sluice produce greetings --delay 10s")]
pub struct Args {
    topic: String,
    /// Key of every message, to find it by.
    #[arg(long)]
    key: Option<String>,
    /// Tag of every message, to filter by.
    #[arg(long)]
    tag: Option<String>,
    /// Property of every message; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::pairs::parse)]
    property: Vec<(String, String)>,
    /// Delivered so much later; three days at the most.
    #[arg(long, value_name = "DURATION", value_parser = delay)]
    delay: Option<Span>,
    /// Its lines are the messages, instead of those of standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    names: NameServers,
    #[command(flatten)]
    output: OutputArgs,
}

fn delay(text: &str) -> Result<Span, String> {
    let wanted = text.parse::<Span>()?;
    if wanted.ms() > LONGEST_DELAY_MS {
        return Err(format!("expected at most {}, got {text}", Span::from_ms(LONGEST_DELAY_MS)));
    }
    Ok(wanted)
}

/// `server` is where name servers are asked for, when it was given.
pub fn run(mut args: Args, server: Option<&Rest>) -> anyhow::Result<()> {
    args.names.or_of(server)?;
    let source: Box<dyn Read + Send> = match &args.file {
        None => Box::new(std::io::stdin()),
        Some(file) => {
            Box::new(std::fs::File::open(file).with_context(|| format!("--file: {} cannot be read", file.display()))?)
        }
    };
    block_on(async {
        let producer = args.names.connect()?.producer("sluice-cli")?;
        let sent = send_all(&producer, &args, lines(source)).await?;
        let answer = json!({"topic": args.topic, "messages": sent});
        args.output.done(&answer, &format!("{sent} messages sent to {}", args.topic))
    })
}

/// Reads lines on a thread of its own, because standard input blocks.
fn lines(source: Box<dyn Read + Send>) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (send, lines) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut source = BufReader::new(source);
        loop {
            let mut line = Vec::new();
            let read = source.read_until(b'\n', &mut line);
            if matches!(read, Ok(0)) {
                return;
            }
            while matches!(line.last(), Some(b'\n' | b'\r')) {
                line.pop();
            }
            let failed = read.is_err();
            if send.blocking_send(read.map(|_| line)).is_err() || failed {
                return;
            }
        }
    });
    lines
}

async fn send_all(
    producer: &Producer,
    args: &Args,
    mut lines: mpsc::Receiver<std::io::Result<Vec<u8>>>,
) -> anyhow::Result<u64> {
    let mut sent = 0;
    let mut batch = Vec::with_capacity(IN_FLIGHT);
    while lines.recv_many(&mut batch, IN_FLIGHT).await > 0 {
        let messages = batch.drain(..).map(|line| Ok(args.message(line.context("the input cannot be read")?)));
        let mut messages = messages.collect::<anyhow::Result<Vec<_>>>()?;
        // Those that are sent together go in their order once the way is known, which the first one finds.
        let first = messages.drain(..usize::from(sent == 0)).collect();
        for messages in [first, messages] {
            let count = messages.len() as u64;
            send_some(producer, messages).await.with_context(|| {
                format!("the message on line {} or one behind it was not sent ({})", sent + 1, args.names.hint())
            })?;
            sent += count;
        }
    }
    Ok(sent)
}

impl Args {
    fn message(&self, body: Vec<u8>) -> Message {
        let message = Message::new(&self.topic, body);
        let message = self.key.iter().fold(message, |message, key| message.key(key));
        let message = self.tag.iter().fold(message, |message, tag| message.tag(tag));
        let message = self.delay.iter().fold(message, |message, delay| message.delay_ms(delay.ms()));
        self.property.iter().fold(message, |message, (name, value)| message.property(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_a_duration_of_three_days_at_the_most() {
        assert_eq!(
            ["7s", "250ms", "3d"].map(|text| delay(text).map(|span| span.ms())),
            [Ok(7_000), Ok(250), Ok(259_200_000)]
        );
        assert!(delay("4d").unwrap_err().contains("at most 3d"));
    }
}
