use crate::failure::Failure;
use crate::pending;
use crate::record::Record;
use crate::state::Store;
use crate::transform::{Emit, Output};
use crate::wit::imports::timers;
use crate::wit::imports::types::{self, Batch};

pub use crate::wit::imports::timers::{Domain, Timer};

/// What a processor works with: its stores, its timers, and what it sends.
pub struct Context<'a> {
    output: &'a mut Output,
    origin: u32,
    /// The broker's time of the record, or the time of the timer.
    at: u64,
    watermark: u64,
    next_due: &'a mut u64,
    /// What runs is a timer with this key.
    timer: Option<&'a [u8]>,
}

impl Context<'_> {
    /// A store of the attribute's `stores(..)`.
    ///
    /// # Panics
    /// The attribute does not name it.
    #[must_use]
    pub fn store(&self, name: &'static str) -> Store {
        Store::open(name, self.at)
    }

    /// Passes the record on as it is.
    pub fn pass(&mut self) {
        self.send(Emit::same());
    }

    /// Sends a record. What is not set is the input's own; when a timer runs, the key is the timer's and the rest is empty.
    pub fn send(&mut self, emit: Emit) {
        let emit = match self.timer {
            None => emit,
            Some(key) => emit.over_nothing(key),
        };
        self.output.push(self.origin, emit);
    }

    /// All records of the queue that are born before this time have come, or are late. Milliseconds since 1970.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Runs the timer function once the watermark has come to `due`. A key has one timer of each name; setting it again moves it.
    pub fn set_event_timer(&mut self, key: impl AsRef<[u8]>, name: &str, due: u64) {
        timers::set(&Timer { domain: Domain::EventTime, key: key.as_ref().to_vec(), name: name.to_owned(), due });
        *self.next_due = due.min(*self.next_due);
    }

    /// Runs the timer function once the broker's clock has come to `due`.
    pub fn set_processing_timer(&mut self, key: impl AsRef<[u8]>, name: &str, due: u64) {
        timers::set(&Timer { domain: Domain::ProcessingTime, key: key.as_ref().to_vec(), name: name.to_owned(), due });
    }

    pub fn cancel_event_timer(&mut self, key: impl AsRef<[u8]>, name: &str) {
        timers::cancel(Domain::EventTime, key.as_ref(), name);
    }

    pub fn cancel_processing_timer(&mut self, key: impl AsRef<[u8]>, name: &str) {
        timers::cancel(Domain::ProcessingTime, key.as_ref(), name);
    }
}

/// Runs the functions over the records of a batch, and over the event-time timers that come due on the way: before the record that brings
/// the watermark to them, so that batches may be cut anywhere without a difference.
pub(crate) fn each(
    batch: &Batch,
    mut one: impl FnMut(Record<'_>, &mut Context<'_>) -> Result<(), Failure>,
    mut fired: impl FnMut(&Timer, &mut Context<'_>) -> Result<(), Failure>,
) -> types::Output {
    let clock = timers::clock();
    let (mut newest, mut next_due) = (clock.newest, clock.next_due);
    let mut output = Output::default();
    let mut failed = Vec::new();
    for index in 0..batch.count {
        let record = Record { batch, index: index as usize };
        let before = output.len();
        newest = newest.max(record.born_at());
        let watermark = newest.saturating_sub(clock.lateness);
        let mut run = || {
            while next_due <= watermark {
                let due = timers::take_due(watermark);
                next_due = due.next_due;
                for timer in &due.timers {
                    let (at, key) = (record.stored_at(), Some(timer.key.as_slice()));
                    let next_due = &mut next_due;
                    fired(
                        timer,
                        &mut Context { output: &mut output, origin: index, at, watermark, next_due, timer: key },
                    )?;
                }
            }
            let (at, next_due) = (record.stored_at(), &mut next_due);
            one(record, &mut Context { output: &mut output, origin: index, at, watermark, next_due, timer: None })
        };
        if let Err(Failure { action, code, reason }) = run() {
            output.cut(before);
            failed.push(types::Failure { index, action, code, reason });
            // The host takes back what was written since the batch began, and comes again without this record.
            break;
        }
    }
    finish(output, failed)
}

fn finish(output: Output, failed: Vec<types::Failure>) -> types::Output {
    if failed.is_empty() {
        pending::tell();
    } else {
        pending::forget();
    }
    output.finish(failed)
}

/// Runs the function over processing-time timers that are due.
pub(crate) fn each_timer(
    due: &[Timer],
    mut fired: impl FnMut(&Timer, &mut Context<'_>) -> Result<(), Failure>,
) -> types::Output {
    let watermark = timers::clock();
    let watermark = watermark.newest.saturating_sub(watermark.lateness);
    let mut output = Output::default();
    let mut failed = Vec::new();
    let now = crate::context::now();
    for (origin, timer) in (0..).zip(due) {
        let mut next_due = u64::MAX;
        let (next_due, key) = (&mut next_due, Some(timer.key.as_slice()));
        let mut context = Context { output: &mut output, origin, at: now, watermark, next_due, timer: key };
        if let Err(Failure { action, code, reason }) = fired(timer, &mut context) {
            failed.push(types::Failure { index: origin, action, code, reason });
            break;
        }
    }
    finish(output, failed)
}
