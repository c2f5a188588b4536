//! Counts records by key.

use sluice_sdk::json::json;
use sluice_sdk::{Config, Context, Emit, Record, process};

/// What a pipeline may write under `config:`.
#[derive(Config)]
struct Settings {
    /// Every so many records of a key their number is sent.
    every: u64,
}

/// Takes a record in. What it keeps in its stores, what it sends and how far it read are one unit in the log.
#[process(needs(key), stores("counts"))]
fn count(r: Record<'_>, cfg: &Settings, ctx: &mut Context<'_>) {
    let key = r.key().unwrap_or_default();
    let count = ctx.store("counts").add(key, 1);
    if count.unsigned_abs() % cfg.every.max(1) == 0 {
        ctx.send(Emit::same().key(key).value(json!({ "key": key, "count": count }).to_string()));
    }
}
