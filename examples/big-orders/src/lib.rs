//! The plugin of the README's tour: keeps orders whose header `amount` is above a limit.

use sluice_sdk::{Config, Record, filter};

#[derive(Config)]
struct Limits {
    /// Smaller amounts are dropped.
    min: u64,
}

#[filter(needs(headers))]
fn big(r: Record<'_>, cfg: &Limits) -> bool {
    r.header_u64("amount").is_some_and(|amount| amount > cfg.min)
}
