//! `POST /plugins/{name}:bench`: how many records a second a stored plugin takes in a stage of its own, from memory to nowhere.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, body::Body, http::HeaderMap, http::Method, response::IntoResponse};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_model::Kind;
use sluice_runtime::{
    Begin, Grants, Limits, Plan, Policy, Record, Role, Stage, StatePlan, Step, Then, Turn,
    ports::{PortError, Sink, Source, Unit},
    state::Partition,
};

use super::{
    Rest, input,
    problem::{Answer, Problem},
    routes::Routes,
    standing_back,
    trial::{Given, REQUEST_LIMIT, not_started},
    usage,
};
use crate::{
    failure::{Failure, Result},
    observer::Logs,
    plugins::Version,
    steps::prefilter,
};

const MESSAGES_LIMIT: usize = 1_000;
const SECONDS: u64 = 2;
const SECONDS_LIMIT: u64 = 10;
/// Bytes of changes of what a processor keeps after which it ends: all of it is in memory.
const KEPT_LIMIT: usize = 256 * 1024 * 1024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SpeedTest {
    #[serde(default)]
    config: Map<String, Value>,
    /// Names of the sinks that a transformer writes to; one named `out` when left out.
    #[serde(default)]
    sinks: Vec<String>,
    /// 1 to 1000, which are run again and again.
    messages: Vec<Given>,
    /// How long, 1 to 10; 2 when left out.
    seconds: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SpeedView {
    plugin: String,
    digest: String,
    seconds: f64,
    /// Records that went through it.
    records: u64,
    records_per_second: f64,
    /// Processor time of the plugin for 1,000 records, microseconds.
    cpu_us_per_1000_records: Option<f64>,
    /// Records that came out.
    sent: u64,
    dropped: u64,
    failed: u64,
    /// Calls that ended an instance.
    traps: u64,
    /// Memory of its instance, bytes.
    memory: u64,
    /// Why it ended before its time: it kept too much, or stopped.
    stopped: Option<String>,
}

pub fn routes(routes: Routes) -> Routes {
    routes.describe(
        Method::POST,
        "/plugins/{name}:bench",
        "Measure a stored plugin: a stage of its own runs the messages again and again, and what comes of them goes nowhere.",
        |o| o.takes::<SpeedTest>().answers::<SpeedView>(200, "How fast it was."),
    )
}

/// `name` may say a version: `name@1`.
pub async fn run(rest: &Rest, name: String, headers: &HeaderMap, body: Body) -> Answer {
    let test: SpeedTest = input::json(&input::body(body, headers, REQUEST_LIMIT).await?)?;
    if !(1..=MESSAGES_LIMIT).contains(&test.messages.len()) {
        let text = format!("messages: expected 1 to {MESSAGES_LIMIT}, got {}", test.messages.len());
        return Err(Failure::invalid("messages", text).into());
    }
    let seconds = test.seconds.unwrap_or(SECONDS);
    if !(1..=SECONDS_LIMIT).contains(&seconds) {
        let text = format!("seconds: expected 1 to {SECONDS_LIMIT}, got {seconds}");
        return Err(Failure::invalid("seconds", text).into());
    }
    let turn = rest.measuring.clone().try_acquire_owned();
    let turn = turn.map_err(|_| Problem::busy("another plugin is being measured"))?;
    let (version, stopping) = (rest.parts.plugins.resolve(&name)?, rest.stopping.clone());
    let view = standing_back(turn, move || {
        let until = Instant::now() + Duration::from_secs(seconds);
        measure(&version, test, || Instant::now() < until && !*stopping.borrow())
    });
    Ok(Json(view.await?).into_response())
}

fn measure(version: &Version, test: SpeedTest, go_on: impl Fn() -> bool) -> Result<SpeedView> {
    let records: Vec<Record> =
        test.messages.into_iter().enumerate().map(|(at, given)| given.into_record(at)).collect::<Result<_>>()?;
    let fresh = || Partition::fresh().map_err(|error| Failure::new(Kind::Internal, error.to_string()));
    let partition = Arc::new(Mutex::new(Some(Box::new(fresh()?))));
    let plugin = version.plugin.clone();
    if ![Role::Filter, Role::Transform, Role::Process].iter().any(|role| plugin.has(*role)) {
        let text = format!("name: expected a plugin for a pipeline, {} has no such role", version.name);
        return Err(Failure::invalid("name", text));
    }
    let step = Step {
        name: version.name.clone(),
        config: test.config,
        prefilter: prefilter(&plugin)?,
        grants: Grants::default(),
        plugin,
    };
    let plan = Plan {
        pipeline: "bench".to_owned(),
        queue: 0,
        input_topic: "bench".to_owned(),
        sinks: if test.sinks.is_empty() { vec!["out".to_owned()] } else { test.sinks },
        steps: vec![step],
        policy: Policy { retries: 0, backoff: Duration::ZERO, then: Then::DeadLetter },
        limits: Limits::default(),
        batch_records: Plan::BATCH_RECORDS,
        batch_bytes: Plan::BATCH_BYTES,
        observer: Arc::new(Logs::default()),
        state: Some(StatePlan { partition, lateness: 0 }),
    };
    let mut stage = Stage::open(plan, &mut Begin(0)).map_err(|error| match error {
        // It has a role of a stage: what does not fit is the number of its outputs.
        sluice_runtime::Error::Plan(text) => Failure::invalid("sinks", text),
        error => not_started(&error),
    })?;
    let (mut source, mut sink) = (Again { records: &records }, Nowhere::default());
    let (began, mut stopped) = (Instant::now(), None);
    while go_on() && stopped.is_none() {
        // At this time no timer is due.
        match stage.turn(&mut source, &mut sink, 0) {
            Turn::Progressed { .. } | Turn::Idle => {}
            Turn::Wait(wait) => std::thread::sleep(wait),
            Turn::Stopped(reason) => stopped = Some(reason),
        }
        if sink.kept > KEPT_LIMIT {
            stopped = Some(format!("it changed {KEPT_LIMIT} bytes of what it keeps"));
        }
    }
    let (seconds, counters) = (began.elapsed().as_secs_f64(), stage.counters());
    Ok(SpeedView {
        plugin: version.name.clone(),
        digest: format!("sha256:{}", version.digest()),
        seconds,
        records: counters.read,
        records_per_second: counters.read as f64 / seconds,
        cpu_us_per_1000_records: usage::per_1000(counters.cpu, counters.read),
        sent: counters.sent,
        dropped: counters.dropped,
        failed: counters.dead_lettered + counters.skipped,
        traps: counters.traps,
        memory: stage.steps().iter().map(|step| step.counters.memory).sum(),
        stopped,
    })
}

/// The same records without end.
struct Again<'a> {
    records: &'a [Record],
}

impl Source for Again<'_> {
    fn read(
        &mut self,
        position: u64,
        max_records: usize,
        max_bytes: usize,
        into: &mut Vec<Record>,
    ) -> std::result::Result<u64, PortError> {
        let mut bytes = 0;
        for (offset, record) in
            (position..).zip(self.records.iter().cycle().skip(position as usize % self.records.len()))
        {
            if into.len() >= max_records || bytes >= max_bytes {
                return Ok(offset);
            }
            bytes += record.size();
            into.push(Record { offset, ..record.clone() });
        }
        Ok(position)
    }
}

/// Where everything ends that comes out.
#[derive(Default)]
struct Nowhere {
    /// Bytes of changes of what is kept.
    kept: usize,
    changes: u64,
}

impl Sink for Nowhere {
    fn commit(&mut self, unit: Unit) -> std::result::Result<(), PortError> {
        if let Some(change) = unit.state {
            self.kept += change.len();
            self.changes += 1;
        }
        Ok(())
    }

    fn durable_changes(&self) -> u64 {
        self.changes
    }
}
