//! A plugin that misbehaves on request. The config's `mode` makes whole calls misbehave; a record's value makes it do so at that record.

#![allow(unsafe_code, reason = "the generated exports")]

wit_bindgen::generate!({
    path: "../../../sdk-wasm/wit",
    inline: "
        package sluice:test;
        world hostile {
            include sluice:plugin/basics@0.3.0;
            include sluice:plugin/granted@0.3.0;
            export sluice:plugin/filter@0.3.0;
            export sluice:plugin/transform@0.3.0;
            export sluice:plugin/check-transaction@0.3.0;
        }
    ",
    world: "sluice:test/hostile",
    generate_all,
});

use std::sync::OnceLock;

use exports::sluice::plugin::check_transaction::{Decision, HalfMessage};
use exports::sluice::plugin::{check_transaction, filter, plugin, transform};
use sluice::plugin::types::{
    Action, Batch, Column, Columns, Failure, Fault, Manifest, Output, Outputs, Param, Patch, Verdict,
};
use sluice::plugin::{context, http, log, lookup, metrics, secrets};

struct Hostile;
static MODE: OnceLock<String> = OnceLock::new();

fn mode() -> &'static str {
    MODE.get().map_or("", String::as_str)
}

fn values(batch: &Batch) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    let values = batch.values.as_ref().expect("it needs them");
    values.ends.iter().map(move |end| {
        let item = &values.data[start..*end as usize];
        start = *end as usize;
        item
    })
}

#[inline(never)]
fn explode() {
    let nothing: Option<u8> = std::hint::black_box(None);
    nothing.unwrap();
}

fn bomb() {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}

fn spin() {
    let mut i = 0_u64;
    loop {
        i = std::hint::black_box(i.wrapping_add(1));
    }
}

/// Counts its records, tells how long the last one is, and how long each is.
fn measure(batch: &Batch) {
    let [records, last, sizes] =
        [("records", metrics::Kind::Counter), ("last_size", metrics::Kind::Gauge), ("sizes", metrics::Kind::Histogram)]
            .map(|(name, kind)| metrics::register(name, kind).unwrap());
    for value in values(batch) {
        let size = value.len() as f64;
        metrics::observe(records, 1.0);
        metrics::observe(last, size);
        metrics::observe(sizes, size);
    }
}

/// What any role does before its work.
fn misbehave(batch: &Batch) {
    match mode() {
        "loop" => spin(),
        "memory" => bomb(),
        "logs" => {
            for i in 0..1000 {
                log::write(log::Level::Info, &format!("line {i}"), &[]);
            }
        }
        "metric" => metrics::observe(77, 1.0),
        "measure" => measure(batch),
        _ => {}
    }
    for value in values(batch) {
        match value {
            b"trap" => explode(),
            b"loop" => spin(),
            _ => {}
        }
    }
}

/// Does with its grants what a text says, and answers what came of it.
fn reach(command: &str) -> Result<String, String> {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    let request = |method: &str, url: &str| http::Request {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    let told = |answer: http::Response| {
        let body = String::from_utf8_lossy(&answer.body);
        format!("{} {} {}", answer.status, answer.body.len(), body.chars().take(100).collect::<String>())
    };
    match verb {
        "get" => http::send(&request("GET", first)).map(told),
        "post" => http::send(&http::Request { body: second.into(), ..request("POST", first) }).map(told),
        // As many bytes as it says.
        "big" => {
            let body = vec![b'x'; second.parse().unwrap_or_default()];
            http::send(&http::Request { body, ..request("POST", first) }).map(told)
        }
        "headers" => {
            let headers = second.split(';').filter_map(|pair| pair.split_once('='));
            let headers = headers.map(|(name, value)| (name.into(), value.into())).collect();
            http::send(&http::Request { headers, ..request("GET", first) }).map(told)
        }
        // Many requests, and what the last of them came to.
        "flood" => {
            let many = (0..second.parse().unwrap_or(0)).map(|_| http::send(&request("GET", first)));
            let (mut fine, mut last) = (0, String::new());
            for answer in many {
                match answer {
                    Ok(_) => fine += 1,
                    Err(text) => last = text,
                }
            }
            Ok(format!("{fine} {last}"))
        }
        "get-and-spin" => {
            let _ = http::send(&request("GET", first));
            spin();
            Ok(String::new())
        }
        "secret" => secrets::get(first),
        "bearer" => {
            let headers = vec![("authorization".into(), format!("Bearer {}", secrets::get(second)?))];
            http::send(&http::Request { headers, ..request("GET", first) }).map(told)
        }
        // A secret in the path, as it is and encoded.
        "hook" => {
            let secret = secrets::get(second)?;
            let encoded: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
            http::send(&request("GET", &format!("{first}{secret}/{encoded}/x"))).map(told)
        }
        "look" => {
            let hits = lookup::by_key(first, second, 1)?;
            Ok(hits.first().map_or("none".into(), |hit| String::from_utf8_lossy(&hit.body).into_owned()))
        }
        _ => Err(format!("no such command: {verb}")),
    }
}

impl plugin::Guest for Hostile {
    fn describe() -> Manifest {
        Manifest {
            name: "hostile".into(),
            version: "1.2.3".into(),
            doc: String::new(),
            needs: Columns::VALUE | Columns::ATTEMPT,
            prefilter: None,
            outputs: Outputs::OnePerSink,
            stores: Vec::new(),
            params: vec![Param { name: "mode".into(), json_schema: r#"{"type":"string"}"#.into(), required: false }],
        }
    }

    fn configure(given: Vec<(String, String)>) -> Result<(), String> {
        let mode = given.into_iter().next().map(|(_, mode)| mode.trim_matches('"').to_owned()).unwrap_or_default();
        match mode.as_str() {
            "refuse" => return Err("no such mode".into()),
            "start-loop" => spin(),
            "start-trap" => explode(),
            "start-secret" => return secrets::get("token").map(drop),
            _ => {}
        }
        MODE.set(mode).map_err(|_| "twice".to_owned())
    }
}

impl filter::Guest for Hostile {
    fn matches(input: Batch) -> Result<Verdict, Fault> {
        misbehave(&input);
        let mut keep = vec![0; input.count.div_ceil(8) as usize];
        for (i, value) in values(&input).enumerate() {
            keep[i / 8] |= u8::from(value != b"drop") << (i % 8);
        }
        if mode() == "bitmap" {
            keep.push(0);
        }
        Ok(Verdict { keep, failed: Vec::new() })
    }
}

impl transform::Guest for Hostile {
    fn apply(input: Batch) -> Result<Output, Fault> {
        misbehave(&input);
        let mut out = Output {
            origin: Vec::new(),
            target: Vec::new(),
            keys: None,
            tags: None,
            values: None,
            headers: None,
            failed: Vec::new(),
        };
        for (i, value) in values(&input).enumerate() {
            let index = u32::try_from(i).unwrap();
            let attempt = input.attempts.as_ref().map_or(0, |attempts| attempts[i]);
            let fail = |action| Failure { index, action, code: "asked".into(), reason: format!("attempt {attempt}") };
            match value {
                b"drop" => {}
                b"retry" => out.failed.push(fail(Action::Retry)),
                b"second" if attempt == 0 => out.failed.push(fail(Action::Retry)),
                b"dead" => out.failed.push(fail(Action::DeadLetter)),
                b"skip" => out.failed.push(fail(Action::Skip)),
                b"stop" => out.failed.push(fail(Action::Stop)),
                _ => out.origin.push(index),
            }
        }
        match mode() {
            "fault" => return Err(Fault { action: Action::DeadLetter, code: "all".into(), reason: "no".into() }),
            "origin" => out.origin = vec![input.count],
            "sixty" => out.origin = (0..input.count).flat_map(|i| [i; 60]).collect(),
            "fan-out" => out.origin = (0..input.count).flat_map(|i| [i; 1000]).collect(),
            "columns" => {
                let items = Column { data: vec![0; 4], ends: vec![9; out.origin.len()] };
                out.values = Some(Patch { changed: Vec::new(), items });
            }
            "output" => {
                let items = Column { data: vec![0; 2 << 20], ends: vec![2 << 20] };
                out.values = Some(Patch { changed: Vec::new(), items });
            }
            "reach" => {
                let (mut data, mut ends) = (Vec::new(), Vec::new());
                out.origin = (0..input.count).collect();
                for value in values(&input) {
                    let came = reach(&String::from_utf8_lossy(value));
                    data.extend_from_slice(came.unwrap_or_else(|text| format!("error: {text}")).as_bytes());
                    ends.push(u32::try_from(data.len()).unwrap());
                }
                out.values = Some(Patch { changed: Vec::new(), items: Column { data, ends } });
            }
            "now" => {
                let now = context::now().to_string();
                let end = u32::try_from(now.len()).unwrap();
                let ends = (1..=out.origin.len()).map(|i| u32::try_from(i).unwrap() * end).collect();
                let data = now.repeat(out.origin.len()).into_bytes();
                out.values = Some(Patch { changed: Vec::new(), items: Column { data, ends } });
            }
            _ => {}
        }
        Ok(out)
    }
}

impl check_transaction::Guest for Hostile {
    fn check(message: HalfMessage) -> Result<Decision, String> {
        match message.body.as_slice() {
            b"loop" => spin(),
            b"trap" => explode(),
            b"late" => return Ok(Decision::AskAgainAfter(u64::MAX)),
            command if mode() == "reach" => {
                let came = reach(&String::from_utf8_lossy(command))?;
                return Ok(if came.starts_with("200 ") { Decision::Commit } else { Decision::Rollback(came) });
            }
            _ => {}
        }
        Err(format!("cannot decide {}", message.transaction_id))
    }
}

export!(Hostile);
