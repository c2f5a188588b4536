//! Unique ids of messages (`UNIQ_KEY`): 32 upper-case hex digits of address 4, process 2, salt 4, time 4, counter 2.
//!
//! Source: Apache RocketMQ `MessageClientIDSetter`.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use sluice_model::Timestamp;

static SALT: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
static COUNTER: AtomicU16 = AtomicU16::new(0);
const DAY_MS: u64 = 86_400_000;

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

pub(crate) fn unique() -> String {
    let (salt, counter) = (*SALT, COUNTER.fetch_add(1, Ordering::Relaxed));
    let address = (salt >> 32) as u32;
    format!(
        "{address:08X}{:04X}{:08X}{:08X}{counter:04X}",
        std::process::id() as u16,
        salt as u32,
        month_ms(now().0 as u64)
    )
}

/// Milliseconds since the month began, UTC.
fn month_ms(unix_ms: u64) -> u32 {
    // Days of the civil calendar counted from March of year 0, so that a leap day is the last of its year.
    let days = unix_ms / DAY_MS + 719_468;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5;
    (of_month * DAY_MS + unix_ms % DAY_MS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_the_length_of_apaches() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| unique()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }

    #[test]
    fn months_begin_where_the_calendar_says() {
        // 2024-02-29T00:00:01Z and 2024-03-01T00:00:00Z.
        assert_eq!(month_ms(1_709_164_801_000), 28 * DAY_MS as u32 + 1000);
        assert_eq!(month_ms(1_709_251_200_000), 0);
    }
}
