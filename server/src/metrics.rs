//! What the server counts, and how tools and monitoring get it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use sluice_model::{GroupName, RecordView, Timestamp};

/// Counters since the start. Cheap to bump from any thread.
pub struct Metrics {
    started: Instant,
    booted_at_ms: i64,
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    messages_out: AtomicU64,
    rates: parking_lot::Mutex<Rates>,
    /// What each group was given since the last tick, and its rate; a group that is given nothing falls out after a while.
    groups: parking_lot::Mutex<HashMap<GroupName, (u64, f64)>>,
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
/// A group's rate below which it is none.
const FORGOTTEN: f64 = 0.001;

impl Metrics {
    pub fn new(booted_at_ms: i64) -> Self {
        Self {
            started: Instant::now(),
            booted_at_ms,
            messages_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            messages_out: AtomicU64::new(0),
            rates: parking_lot::Mutex::default(),
            groups: parking_lot::Mutex::default(),
        }
    }

    pub fn put(&self, messages: usize, bytes: usize) {
        self.messages_in.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn get(&self, group: &GroupName, messages: usize) {
        if messages == 0 {
            return;
        }
        self.messages_out.fetch_add(messages as u64, Ordering::Relaxed);
        let mut groups = self.groups.lock();
        match groups.get_mut(group) {
            Some((given, _)) => *given += messages as u64,
            None => drop(groups.insert(group.clone(), (messages as u64, 0.0))),
        }
    }

    /// Messages a second that a group was given, over about the last ten seconds.
    pub fn group_rate(&self, group: &GroupName) -> f64 {
        self.groups.lock().get(group).map_or(0.0, |(_, rate)| *rate)
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
        self.groups.lock().retain(|_, (given, rate)| {
            *rate += NEWEST * (std::mem::take(given) as f64 - *rate);
            *rate > FORGOTTEN
        });
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
            ("msgGetTotalTodayNow", messages_out.to_string()),
            ("commitLogMinOffset", store.start().to_string()),
            ("commitLogMaxOffset", store.appended().to_string()),
            ("remainHowManyDataToFlush", format!("{} B", store.appended().0 - store.durable().0)),
            ("commitLogDiskRatio", format!("{:.4}", disk_ratio(reader))),
            ("earliestMessageTimeStamp", earliest(reader).to_string()),
        ];
        table.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// The part of the disk's room, as far as it is the log's or free, that the log has.
fn disk_ratio(reader: &sluice_broker::Reader) -> f64 {
    let store = reader.store();
    let used = (store.appended().0 - store.start().0) as f64;
    store.free_bytes().map_or(0.0, |free| used / (used + free as f64))
}

/// When the oldest message of the log was stored, ms since 1970; -1 when there is none.
fn earliest(reader: &sluice_broker::Reader) -> i64 {
    let oldest = reader.record_at(reader.store().start()).ok();
    let stored = oldest.and_then(|record| RecordView::parse(&record).ok().map(|record| record.stored_at().0));
    stored.unwrap_or(-1)
}
