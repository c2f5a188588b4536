//! What the macros call.

use std::panic;
use std::sync::{Once, OnceLock};

pub use crate::config::param;
use crate::config::{Config, Values};
use crate::failure::Failure;
use crate::process::{self, Context, Timer};
use crate::record::Record;
use crate::transform::{self, Out};
use crate::wit::imports::log::{self, Level};
use crate::wit::imports::types::{self, Batch, Verdict};
pub use crate::wit::imports::types::{Columns, Fault, Manifest, Outputs, Param, Port, Store};

/// Holds what `configure` read.
pub type Slot<C> = OnceLock<C>;

/// Tells the host what a panic said, before it becomes a trap without words.
pub fn start() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let message = panic.payload_as_str().unwrap_or("panicked");
            log::write(Level::Error, message, &[("panic".to_owned(), place)]);
        }));
    });
}

/// # Errors
/// What is wrong with the values.
pub fn configure<C: Config>(slot: &Slot<C>, values: Vec<(String, String)>) -> Result<(), String> {
    start();
    let config = C::read(&mut Values::parse(values)?)?;
    slot.set(config).map_err(|_| "configure was called twice".to_owned())
}

/// The configuration.
///
/// # Panics
/// `configure` was not called; the host always does.
pub fn configured<C>(slot: &Slot<C>) -> &C {
    match slot.get() {
        Some(config) => config,
        None => panic!("the host called the plugin before configure"),
    }
}

/// Writes out the attempts, which the host leaves out when all are 0, for a plugin that asked for them.
#[must_use]
pub fn with_attempts(mut batch: Batch) -> Batch {
    let count = batch.count as usize;
    batch.attempts.get_or_insert_with(|| vec![0; count]);
    batch
}

pub fn filter(batch: &Batch, mut one: impl FnMut(Record<'_>) -> Result<bool, Failure>) -> Verdict {
    let mut keep = vec![0_u8; batch.count.div_ceil(8) as usize];
    let mut failed = Vec::new();
    for (byte, eight) in keep.iter_mut().enumerate() {
        let mut bits = 0;
        for bit in 0..8 {
            let index = byte * 8 + bit;
            if index >= batch.count as usize {
                break;
            }
            match one(Record { batch, index }) {
                Ok(kept) => bits |= u8::from(kept) << bit,
                Err(Failure { action, code, reason }) => {
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    failed.push(types::Failure { index, action, code, reason });
                }
            }
        }
        *eight = bits;
    }
    Verdict { keep, failed }
}

pub fn transform(batch: &Batch, one: impl FnMut(Record<'_>, &mut Out<'_>) -> Result<(), Failure>) -> types::Output {
    transform::each(batch, one)
}

pub fn process(
    batch: &Batch,
    one: impl FnMut(Record<'_>, &mut Context<'_>) -> Result<(), Failure>,
    fired: impl FnMut(&Timer, &mut Context<'_>) -> Result<(), Failure>,
) -> types::Output {
    process::each(batch, one, fired)
}

pub fn on_timers(due: &[Timer], fired: impl FnMut(&Timer, &mut Context<'_>) -> Result<(), Failure>) -> types::Output {
    process::each_timer(due, fired)
}

#[cfg(test)]
pub(crate) fn empty_batch() -> Batch {
    Batch {
        count: 0,
        queue: 0,
        offsets: None,
        born_at: None,
        stored_at: None,
        attempts: None,
        keys: None,
        key_present: None,
        tags: None,
        values: None,
        headers: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_sets_one_bit_for_each_kept_record() {
        let batch = Batch { count: 10, ..empty_batch() };
        let verdict = filter(&batch, |r| match r.index {
            3 => Err(Failure::dead_letter("odd", "three")),
            i => Ok(i % 2 == 1),
        });
        assert_eq!(verdict.keep, [0b1010_0010, 0b10]);
        assert_eq!((verdict.failed[0].index, verdict.failed[0].code.as_str()), (3, "odd"));
    }
}
