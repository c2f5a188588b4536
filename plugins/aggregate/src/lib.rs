use std::time::Duration;

use sluice_sdk::field::Pointer;
use sluice_sdk::json::{Value, json};
use sluice_sdk::window::{Window, Windows};
use sluice_sdk::{Config, Context, Emit, Failure, Record, Timer, process};

/// What is counted, and over which time.
#[derive(Config)]
#[config(check = Aggregate::check)]
struct Aggregate {
    /// JSON Pointer (RFC 6901) of the field to group by; the record's key when left out.
    by: Option<Pointer>,
    /// JSON Pointer of a number to add up; without it there are counts only.
    sum: Option<Pointer>,
    /// Length of a window in milliseconds; without it the totals of all time are sent with every record.
    #[config(rename = "window-ms")]
    window_ms: Option<u64>,
    /// Milliseconds from the start of one window to that of the next; the window's length when left out.
    #[config(rename = "hop-ms")]
    hop_ms: Option<u64>,
}

impl Aggregate {
    fn check(&self) -> Result<(), String> {
        match (self.window_ms, self.hop_ms) {
            (Some(0), _) => Err("`window-ms`: expected at least 1".into()),
            (None, Some(_)) => Err("`hop-ms`: needs `window-ms`".into()),
            (Some(window), Some(hop)) if hop == 0 || hop > window || window.div_ceil(hop) > 100 => {
                Err("`hop-ms`: expected 1 to `window-ms`, and at most 100 windows at a time".into())
            }
            _ => Ok(()),
        }
    }

    fn windows(&self) -> Option<Windows> {
        let size = Duration::from_millis(self.window_ms?);
        Some(Windows::hopping("windows", size, self.hop_ms.map_or(size, Duration::from_millis)))
    }
}

/// Count and sum, as they are kept: 8 bytes each.
#[derive(Clone, Copy, Default)]
struct Total {
    count: u64,
    sum: f64,
}

impl Total {
    fn read(bytes: Option<&[u8]>) -> Total {
        let half = |at: usize| bytes.and_then(|bytes| <[u8; 8]>::try_from(bytes.get(at..at + 8)?).ok());
        Total { count: half(0).map_or(0, u64::from_le_bytes), sum: half(8).map_or(0.0, f64::from_le_bytes) }
    }

    fn plus(self, amount: f64) -> Total {
        Total { count: self.count + 1, sum: self.sum + amount }
    }

    fn write(self) -> Vec<u8> {
        [self.count.to_le_bytes(), self.sum.to_le_bytes()].concat()
    }

    fn json(self, key: &str, cfg: &Aggregate) -> Value {
        let mut out = json!({ "key": key, "count": self.count });
        if cfg.sum.is_some() {
            // A whole number is written as one.
            let whole = self.sum.fract() == 0.0 && self.sum.abs() < 9e15;
            out["sum"] = if whole { json!(self.sum as i64) } else { json!(self.sum) };
        }
        out
    }
}

/// Counts and sums records by key, over all time or in windows.
#[process(needs(key, value), stores("totals", "windows"), on_timer(closed))]
fn aggregate(r: Record<'_>, cfg: &Aggregate, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let key = match &cfg.by {
        None => r.key().unwrap_or_default().to_owned(),
        Some(by) => (r.text_at(by).map_err(not_json)?)
            .ok_or_else(|| Failure::dead_letter("no-key", format!("the body has no field {by}")))?,
    };
    // Found now, not when its window is over and the record is gone.
    if key.contains(['\u{1}', '\u{2}']) {
        return Err(Failure::dead_letter("bad-key", "a key cannot hold the bytes 1 and 2, which separate properties"));
    }
    let amount = match &cfg.sum {
        None => 0.0,
        Some(sum) => {
            let found = r.json_at(sum).map_err(not_json)?.unwrap_or_default();
            let expected = || Failure::dead_letter("no-number", format!("expected a number at {sum}, got {found}"));
            found.as_f64().ok_or_else(expected)?
        }
    };
    if let Some(windows) = cfg.windows() {
        windows.update(ctx, &key, r.born_at(), |total| Total::read(total.as_deref()).plus(amount).write());
        return Ok(());
    }
    let store = ctx.store("totals");
    let total = Total::read(store.get(&key).as_deref()).plus(amount);
    store.put(&key, total.write());
    ctx.send(Emit::same().key(&key).value(total.json(&key, cfg).to_string()));
    Ok(())
}

fn closed(timer: &Timer, cfg: &Aggregate, ctx: &mut Context<'_>) {
    let Some(window) = cfg.windows().and_then(|windows| windows.close(ctx, timer)) else { return };
    let Window { start, end, value, .. } = &window;
    let mut out = Total::read(Some(value)).json(window.key_text(), cfg);
    out["start"] = json!(start);
    out["end"] = json!(end);
    ctx.send(Emit::same().key(window.key_text()).value(out.to_string()));
}

fn not_json(error: sluice_sdk::json::Error) -> Failure {
    Failure::dead_letter("not-json", error.to_string())
}
