use std::time::Duration;

use sluice_sdk::field::Pointer;
use sluice_sdk::{Config, Context, Failure, Record, process};

/// What makes two records the same, and for how long.
#[derive(Config)]
#[config(check = Dedup::check)]
struct Dedup {
    /// JSON Pointer (RFC 6901) of the field that tells records apart; the record's key when this and `header` are left out.
    by: Option<Pointer>,
    /// Property that tells them apart.
    header: Option<String>,
    /// Milliseconds by the broker's clock for which the first of them is remembered.
    #[config(rename = "within-ms")]
    within_ms: u64,
}

impl Dedup {
    fn check(&self) -> Result<(), String> {
        if self.by.is_some() && self.header.is_some() {
            return Err("give either `by` or `header`".into());
        }
        if self.within_ms == 0 {
            return Err("`within-ms`: expected at least 1".into());
        }
        Ok(())
    }

    fn key(&self, r: Record<'_>) -> Result<String, Failure> {
        let found = match (&self.by, &self.header) {
            (Some(by), _) => r.text_at(by).map_err(|e| Failure::dead_letter("not-json", e.to_string()))?,
            (None, Some(header)) => r.header(header).map(str::to_owned),
            (None, None) => r.key().map(str::to_owned),
        };
        found.ok_or_else(|| {
            let what = self.by.as_ref().map(|by| format!("field {by}"));
            let what = what.or_else(|| self.header.as_ref().map(|header| format!("property {header}")));
            Failure::dead_letter("no-key", format!("the record has no {}", what.unwrap_or_else(|| "key".into())))
        })
    }
}

/// Passes the first record of each kind, and none of those that come soon behind it.
#[process(needs(key, headers, value), stores("seen"))]
fn dedup(r: Record<'_>, cfg: &Dedup, ctx: &mut Context<'_>) -> Result<(), Failure> {
    if ctx.store("seen").first_time(cfg.key(r)?, Duration::from_millis(cfg.within_ms)) {
        ctx.pass();
    }
    Ok(())
}
