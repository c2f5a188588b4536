//! Keeps records whose property `amount` is above a limit.

use sluice_sdk::{Config, Record, filter};

/// What a pipeline may write under `config:`.
#[derive(Config)]
struct Settings {
    /// Records with this amount or less are dropped.
    min: u64,
}

/// Whether a record is kept. `needs` names the columns that are read.
#[filter(needs(headers))]
fn keep(r: Record<'_>, cfg: &Settings) -> bool {
    r.header_u64("amount").is_some_and(|amount| amount > cfg.min)
}
