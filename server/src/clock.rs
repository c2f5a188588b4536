//! The one place where the wall clock is read.

use std::time::{SystemTime, UNIX_EPOCH};

use sluice_model::Timestamp;

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
