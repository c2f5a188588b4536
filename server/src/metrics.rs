//! What the server counts, and how tools and monitoring get it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use sluice_model::Timestamp;

/// Counters since the start. Cheap to bump from any thread.
pub struct Metrics {
    started: Instant,
    booted_at_ms: i64,
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    messages_out: AtomicU64,
    rates: parking_lot::Mutex<Rates>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub messages_in: u64,
    pub bytes_in: u64,
    pub messages_out: u64,
}

/// Messages a second, in and out, over about the last ten seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub in_per_second: f64,
    pub out_per_second: f64,
    seen_in: u64,
    seen_out: u64,
}

/// Weight of the newest second in the rates.
const NEWEST: f64 = 0.2;

impl Metrics {
    pub fn new(booted_at_ms: i64) -> Self {
        Self {
            started: Instant::now(),
            booted_at_ms,
            messages_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            messages_out: AtomicU64::new(0),
            rates: parking_lot::Mutex::new(Rates::default()),
        }
    }

    pub fn put(&self, messages: usize, bytes: usize) {
        self.messages_in.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn get(&self, messages: usize) {
        self.messages_out.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// When the process started.
    pub fn started_at(&self) -> Timestamp {
        Timestamp(self.booted_at_ms)
    }

    pub fn counts(&self) -> Counts {
        Counts {
            messages_in: self.messages_in.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            messages_out: self.messages_out.load(Ordering::Relaxed),
        }
    }

    pub fn rates(&self) -> Rates {
        *self.rates.lock()
    }

    /// To be called once a second.
    pub fn tick(&self) {
        let mut rates = self.rates.lock();
        let (now_in, now_out) = (self.messages_in.load(Ordering::Relaxed), self.messages_out.load(Ordering::Relaxed));
        let smooth = |rate: f64, now: u64, seen: u64| rate + NEWEST * ((now - seen) as f64 - rate);
        *rates = Rates {
            in_per_second: smooth(rates.in_per_second, now_in, rates.seen_in),
            out_per_second: smooth(rates.out_per_second, now_out, rates.seen_out),
            seen_in: now_in,
            seen_out: now_out,
        };
    }

    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What `mqadmin` reads of a broker. Source: Apache RocketMQ `AdminBrokerProcessor.prepareRuntimeInfo`.
    pub fn runtime_table(&self, reader: &sluice_broker::Reader) -> BTreeMap<String, String> {
        let (rates, store) = (self.rates(), reader.store());
        let per_second = |rate: f64| format!("{rate:.1} {rate:.1} {rate:.1}");
        let (messages_in, messages_out) =
            (self.messages_in.load(Ordering::Relaxed), self.messages_out.load(Ordering::Relaxed));
        let version = format!("Sluice {}", env!("CARGO_PKG_VERSION"));
        let table = [
            ("brokerActive", "true".to_owned()),
            ("brokerVersionDesc", version),
            ("brokerVersion", sluice_protocol::VERSION.to_string()),
            ("bootTimestamp", self.booted_at_ms.to_string()),
            ("runtime", format!("[ {} s ]", self.uptime_ms() / 1000)),
            ("putTps", per_second(rates.in_per_second)),
            ("getTransferredTps", per_second(rates.out_per_second)),
            ("getTotalTps", per_second(rates.out_per_second)),
            ("putMessageTimesTotal", messages_in.to_string()),
            ("getMessageTransferredTotal", messages_out.to_string()),
            ("msgPutTotalTodayNow", messages_in.to_string()),
            ("msgPutTotalTodayMorning", "0".to_owned()),
            ("msgPutTotalYesterdayMorning", "0".to_owned()),
            ("msgGetTotalTodayNow", messages_out.to_string()),
            ("msgGetTotalTodayMorning", "0".to_owned()),
            ("msgGetTotalYesterdayMorning", "0".to_owned()),
            ("commitLogMinOffset", store.start().to_string()),
            ("commitLogMaxOffset", store.appended().to_string()),
            ("remainHowManyDataToFlush", format!("{} B", store.appended().0 - store.durable().0)),
            ("commitLogDiskRatio", "0.0".to_owned()),
            ("pageCacheLockTimeMills", "0".to_owned()),
            ("earliestMessageTimeStamp", "0".to_owned()),
            ("timerReadBehind", "0".to_owned()),
            ("timerOffsetBehind", "0".to_owned()),
            ("timerCongestNum", "0".to_owned()),
            ("timerEnqueueTps", "0.0".to_owned()),
            ("timerDequeueTps", "0.0".to_owned()),
        ];
        let queues = ["send", "pull", "query", "ack", "litePull", "EndTransaction"];
        let sizes = queues.iter().map(|name| (format!("{name}ThreadPoolQueueSize"), "0".to_owned()));
        let waits = queues.iter().map(|name| (format!("{name}ThreadPoolQueueHeadWaitTimeMills"), "0".to_owned()));
        let named = table.into_iter().map(|(key, value)| (key.to_owned(), value));
        named.chain(sizes).chain(waits).chain([("EndTransactionQueueSize".to_owned(), "0".to_owned())]).collect()
    }
}
