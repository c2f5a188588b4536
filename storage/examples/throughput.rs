//! Measures what one core appends, applies and reads: `cargo run --release -p sluice-storage --example throughput -- DIR [MESSAGES] [BYTES]`.

use std::{error::Error, sync::Arc, time::Instant};

use sluice_model::{Host, Message, Properties, QueueId, QueueOffset, RecordView, Timestamp, TopicName};
use sluice_storage::{Applied, Config, RealDisk, Views, open};

/// Messages staged per write.
const BATCH: usize = 500;
const QUEUES: u32 = 16;

struct Count(u64);

impl Views for Count {
    fn apply(&mut self, _: &RecordView<'_>) -> Result<Applied, String> {
        self.0 += 1;
        Ok(Applied::Nothing)
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0 = u64::from_be_bytes(snapshot.try_into().map_err(|_| "8 bytes expected")?);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: throughput DIR [MESSAGES] [BYTES]")?;
    let messages: usize = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(1024), |text| text.parse())?;

    let mut views = Count(0);
    let begun = now();
    let mut log = open(Arc::new(RealDisk::open(dir)?), Config::default(), &mut views)?;
    println!("opened in {:?}: {:?}", begun.elapsed(), log.recovery);
    let topic = TopicName::parse("throughput")?;
    let body = vec![b'x'; bytes];
    let units: Vec<Message> = (0..BATCH as u32)
        .map(|n| {
            let unique = format!("7F0000010001{n:020}");
            let properties = Properties::from_pairs([("UNIQ_KEY", unique.as_str()), ("TAGS", "a"), ("WAIT", "true")])?;
            Ok(Message::new(topic.clone(), QueueId(n % QUEUES), Timestamp(0), properties, body.clone().into()))
        })
        .collect::<Result<_, sluice_model::Error>>()?;

    let (mut staging, mut writing, mut syncing, mut applying) = (0.0, 0.0, 0.0, 0.0);
    for _ in 0..messages / BATCH {
        let begun = now();
        for message in &units {
            log.appender.stage(std::slice::from_ref(message), Timestamp(1), Host::LOCAL)?;
        }
        let staged = now();
        let written = log.appender.write()?.ok_or("nothing was staged")?;
        let wrote = now();
        log.syncer.sync()?;
        let synced = now();
        log.applier.apply(&written, &mut views)?;
        log.appender.recycle(written.bytes);
        staging += (staged - begun).as_secs_f64();
        writing += (wrote - staged).as_secs_f64();
        syncing += (synced - wrote).as_secs_f64();
        applying += synced.elapsed().as_secs_f64();
        if log.applier.checkpoint_due() {
            log.checkpointer.write(log.applier.draft(&views)?)?;
        }
    }
    let rate = |seconds: f64| messages as f64 / seconds;
    println!(
        "stage {:>10.0}/s, write {:>10.0}/s, sync {:>10.0}/s, apply {:>10.0}/s",
        rate(staging),
        rate(writing),
        rate(syncing),
        rate(applying)
    );

    let begun = now();
    let (mut entries, mut read) = (Vec::new(), 0usize);
    for queue in 0..QUEUES {
        let (mut at, end) = log.reader.bounds(&topic, QueueId(queue)).ok_or("a queue is missing")?;
        while at < end {
            entries.clear();
            log.reader.entries(&topic, QueueId(queue), at, 32, &mut entries);
            for entry in &entries {
                read += log.reader.record(entry.log_offset, entry.size)?.len();
            }
            at = QueueOffset(at.0 + entries.len().max(1) as u64);
        }
    }
    println!("read  {:>10.0}/s ({} MiB)", views.0 as f64 / begun.elapsed().as_secs_f64(), read >> 20);
    log.checkpointer.write(log.applier.draft(&views)?)?;
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "this program measures time")]
fn now() -> Instant {
    Instant::now()
}
