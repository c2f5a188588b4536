//! `sluice consume`: reads queues directly, without a group, so that nobody's positions change.

use std::{
    io::{ErrorKind, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use sluice_client::{PullConsumer, QueueRef, Received};
use tokio::{sync::mpsc, task::JoinSet};

use super::{NameServers, pattern::Pattern, start::Start};
use crate::{rest::Rest, run::block_on};

/// Messages asked for at a time.
const BATCH: usize = 64;
/// How long the broker may hold a question while there is nothing new.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  sluice consume greetings --from earliest -n 1
  sluice consume orders --follow --format '%q:%o %k %v'
  sluice consume orders --from @-15m --format json | jq .body
  sluice consume orders --from 2:1000 -n 10          queue 2 from offset 1000 on")]
pub struct Args {
    topic: String,
    /// earliest, latest, @time, @-15m or queue:offset.
    #[arg(long, default_value = "earliest", value_name = "WHERE", allow_hyphen_values = true)]
    from: Start,
    /// End after so many messages.
    #[arg(short = 'n', long = "count", value_name = "N")]
    count: Option<u64>,
    /// Wait for new messages instead of ending behind the last; `--from latest` always does.
    #[arg(short, long)]
    follow: bool,
    /// json, raw (the body), or text with %t topic, %q queue, %o offset, %k key, %T tag, %v body, %i id, %d time, %p properties.
    #[arg(long, default_value = "raw", value_name = "FORMAT")]
    format: Pattern,
    #[command(flatten)]
    names: NameServers,
}

/// `server` is where name servers are asked for, when it was given.
pub fn run(mut args: Args, server: Option<&Rest>) -> anyhow::Result<()> {
    args.names.or_of(server)?;
    block_on(async {
        let hint = || format!("{} cannot be read ({})", args.topic, args.names.hint());
        let consumer = Arc::new(args.names.connect()?.pull_consumer("sluice-cli")?);
        let follow = args.follow || args.from == Start::Latest;
        let (send, messages) = mpsc::channel(1);
        let mut readers = JoinSet::new();
        for queue in consumer.queues(&args.topic).await.with_context(hint)? {
            let Some(from) = args.from.offset(&consumer, &queue).await.with_context(hint)? else { continue };
            let until = if follow { None } else { Some(consumer.max_offset(&queue).await.with_context(hint)?) };
            readers.spawn(read(consumer.clone(), queue, from, until, send.clone()));
        }
        drop(send);
        if readers.is_empty() {
            bail!("--from: topic {} has no such queue; `sluice topic describe {0}` shows them", args.topic);
        }
        print(&args, messages).await?;
        Ok(())
    })
}

type Batch = Result<Vec<Received>, sluice_client::Error>;

/// Gives what a queue holds, up to `until` or for ever.
async fn read(consumer: Arc<PullConsumer>, queue: QueueRef, from: i64, until: Option<i64>, out: mpsc::Sender<Batch>) {
    let mut offset = from;
    while until.is_none_or(|until| offset < until) {
        let pulled = consumer.pull(&queue, "*", offset, BATCH, PATIENCE).await;
        let failed = pulled.is_err();
        let batch = pulled.map(|pulled| {
            offset = pulled.next_offset;
            pulled.messages
        });
        if !matches!(&batch, Ok(messages) if messages.is_empty()) && out.send(batch).await.is_err() || failed {
            return;
        }
    }
}

async fn print(args: &Args, mut batches: mpsc::Receiver<Batch>) -> anyhow::Result<()> {
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0
        && let Some(batch) = batches.recv().await
    {
        let batch = batch.with_context(|| format!("{} cannot be read any further", args.topic))?;
        let mut out = std::io::stdout().lock();
        let wanted = batch.iter().take(usize::try_from(left).unwrap_or(usize::MAX));
        let written = wanted.map(|message| args.format.write(message, &mut out)).collect::<Result<Vec<()>, _>>();
        match written.and_then(|_| out.flush()) {
            Ok(()) => left -= left.min(batch.len() as u64),
            // Whoever reads has had enough, as `head` does.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error).context("standard output cannot be written"),
        }
    }
    Ok(())
}
