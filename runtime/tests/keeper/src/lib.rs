//! A processor that does what its records say: the body's first word is what to do, the others with what.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sluice_sdk::join::{Join, Side};
use sluice_sdk::window::{Sessions, Window, Windows};
use sluice_sdk::{Context, Emit, Failure, Record, Timer, process};

const TENS: Windows = Windows::tumbling("tens", Duration::from_millis(10));
const HOPS: Windows = Windows::hopping("hops", Duration::from_millis(10), Duration::from_millis(5));
const VISITS: Sessions = Sessions::new("visits", Duration::from_millis(10));
/// How often the flaky timer failed: an instance remembers what its state does not.
static FAILED: AtomicU32 = AtomicU32::new(0);
const PAIRS: Join = Join::new("pairs", Duration::from_millis(10));

#[process(
    needs(key, value, offset, attempt),
    stores("totals", "seen", "tens", "hops", "visits", "pairs"),
    on_timer(fired)
)]
fn keeper(r: Record<'_>, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let text = str::from_utf8(r.value()).unwrap_or_default();
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let key = r.key().unwrap_or_default();
    let totals = ctx.store("totals");
    match word {
        "count" => {
            let total = totals.add(key, 1);
            say(ctx, format!("{key} {total}"));
        }
        "add-then" => {
            totals.add(key, 100);
            match rest {
                "fail" => return Err(Failure::dead_letter("told", "as told")),
                "trap" => panic!("as told"),
                _ => {}
            }
        }
        "increase" => totals.increase(key, rest.parse().unwrap_or(1)),
        "increase-then" => {
            totals.increase(key, 100);
            match rest {
                "fail" => return Err(Failure::dead_letter("told", "as told")),
                "trap" => panic!("as told"),
                _ => say(ctx, totals.number(key).to_string()),
            }
        }
        "tell" => {
            totals.add(key, 1);
            say(ctx, rest.into());
        }
        "many" => {
            totals.add(key, 1);
            (0..rest.parse().unwrap_or(0)).for_each(|n: u32| say(ctx, n.to_string()));
        }
        "put" => totals.put(rest, key),
        "delete" => totals.delete(rest),
        "get" => {
            let value = totals.get(rest).map_or("nothing".into(), |value| String::from_utf8_lossy(&value).into_owned());
            say(ctx, format!("{rest} {value}"));
        }
        "scan" => {
            let keys: Vec<String> =
                totals.scan(rest).map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect();
            say(ctx, keys.join(","));
        }
        "once" if ctx.store("seen").first_time(key, Duration::from_millis(50)) => ctx.pass(),
        "ten" => TENS.count(ctx, key, r.born_at()),
        "hop" => HOPS.count(ctx, key, r.born_at()),
        "visit" => VISITS.count(ctx, key, r.born_at()),
        "left" | "right" => {
            let side = if word == "left" { Side::Left } else { Side::Right };
            for other in PAIRS.take(ctx, side, key, r.born_at(), r.offset(), rest) {
                say(ctx, format!("{rest} with {}", String::from_utf8_lossy(&other)));
            }
        }
        // So many KiB, and on to the next step.
        "keep" => {
            totals.put(key, vec![0; rest.parse().unwrap_or(0) * 1024]);
            ctx.pass();
        }
        "tries" => say(ctx, r.attempt().to_string()),
        "relay" => say(ctx, rest.to_owned()),
        "once-an-hour" if ctx.store("seen").first_time(key, Duration::from_secs(3600)) => ctx.pass(),
        "wake-at" => ctx.set_processing_timer(key, "wake", rest.parse().unwrap_or(0)),
        "remind-at" => ctx.set_event_timer(key, "remind", rest.parse().unwrap_or(0)),
        "sleep-on" => ctx.cancel_processing_timer(key, "wake"),
        "hoard" => {
            for at in 0_u64.. {
                totals.put(at.to_le_bytes(), [0; 4096]);
            }
        }
        _ => {}
    }
    Ok(())
}

fn fired(timer: &Timer, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let window = TENS.close(ctx, timer).or_else(|| HOPS.close(ctx, timer));
    for Window { key, start, end, value } in window.into_iter().chain(VISITS.close(ctx, timer)) {
        let count = sluice_sdk::state::number(&value).unwrap_or(0);
        say(ctx, format!("{} {start}..{end} {count}", String::from_utf8_lossy(&key)));
    }
    if timer.name == "remind" {
        ctx.store("totals").add("reminded", 1);
        match timer.key.as_slice() {
            b"trap" => panic!("as told"),
            b"refuse" => return Err(Failure::dead_letter("refused", "as told")),
            b"again" => ctx.set_event_timer(&timer.key, "remind", timer.due),
            key => say(ctx, format!("{} at {}", String::from_utf8_lossy(key), timer.due)),
        }
    }
    if timer.name == "wake" {
        if timer.key == b"trap" {
            panic!("as told");
        }
        if timer.key == b"flaky" && FAILED.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(Failure::retry("flaky", "the first two times"));
        }
        match str::from_utf8(&timer.key).ok().and_then(|key| key.split_once(' ')) {
            Some(("tell", text)) => {
                ctx.store("totals").add("told", 1);
                say(ctx, text.into());
            }
            Some(("again", _)) => ctx.set_processing_timer(&timer.key, "wake", timer.due),
            Some(("say", text)) => say(ctx, text.into()),
            _ => say(ctx, format!("woke at {}", timer.due)),
        }
    }
    Ok(())
}

fn say(ctx: &mut Context<'_>, text: String) {
    ctx.send(Emit::same().value(text));
}
