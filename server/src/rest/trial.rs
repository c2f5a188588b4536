//! `POST /plugins/{name}:try`: runs a stored plugin on given messages and says what came of each.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, body::Body, http::HeaderMap, http::Method, response::IntoResponse};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use sluice_model::{Properties, key, limits};
use sluice_runtime::{Context, Decision, Grants, HalfMessage, Outputs, Plugin, Record, Role, Setup};

use super::{
    Rest, input,
    logs::{LineView, line_view},
    message::{properties, text_or_base64},
    probe::{ErrorView, Probe, Ran},
    problem::Answer,
    routes::Routes,
};
use crate::{
    clock,
    failure::{Failure, Result},
    grants::{GrantsSpec, Site},
    observer::Logs,
    units,
};

/// Most messages of one try: each may use up its whole deadline, and the time to start again after it.
const MESSAGES_LIMIT: usize = 64;
pub const REQUEST_LIMIT: usize = limits::BODY_LEN / 3 * 4 + 1024 * 1024;
const LOG_LINES: usize = 1_000;
/// When the last message is begun: other servers that are asked may take their time.
const RUN_FOR: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Trial {
    /// `filter`, `transform`, `process` or `check-transaction`; may be left out when the plugin has one role only.
    role: Option<String>,
    #[serde(default)]
    config: Map<String, Value>,
    /// Names of the sinks that a transformer writes to; one named `out` when left out.
    #[serde(default)]
    sinks: Vec<String>,
    /// What it may do beyond that, as in a pipeline: it is really done, and audited.
    #[serde(default)]
    grants: GrantsSpec,
    /// 1 to 64.
    messages: Vec<Given>,
}

/// A message to try the plugin on; a half message for a checker. In a plugin's words (`headers`, `value`) or in those in which it
/// is sent to a topic (`properties`, `body`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Given {
    key: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// A text; anything else is the JSON that it is. Empty when left out.
    #[schemars(with = "Option<Value>")]
    value: Option<Box<RawValue>>,
    /// The value in Base64, when it is no text.
    value_base64: Option<String>,
    /// As `value`.
    #[schemars(with = "Option<Value>")]
    body: Option<Box<RawValue>>,
    /// As `value_base64`.
    body_base64: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TrialView {
    plugin: String,
    digest: String,
    role: &'static str,
    /// In the order of the messages.
    results: Vec<Outcome>,
    logs: Vec<LineView>,
}

/// What came of one message: exactly one of `keep`, `outputs`, `decision` and `error`.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Outcome {
    /// A filter's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<bool>,
    /// A transformer's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Vec<OutputMessage>>,
    /// A checker's answer: `commit`, `rollback`, `unknown` or `ask-again-after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    /// Why it rolls back.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When it wants to be asked again.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct OutputMessage {
    /// Which output, from 0.
    output: usize,
    /// Its name; in a pipeline, the sink's.
    port: String,
    key: Option<String>,
    tag: Option<String>,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

pub fn routes(routes: Routes) -> Routes {
    routes.describe(Method::POST, "/plugins/{name}:try", "Run a stored plugin on given messages.", |o| {
        o.takes::<Trial>().answers::<TrialView>(200, "What came of each message, and what the plugin logged.")
    })
}

/// `name` may say a version: `name@1`.
pub async fn run(rest: &Rest, name: String, headers: &HeaderMap, body: Body) -> Answer {
    let trial: Trial = input::json(&input::body(body, headers, REQUEST_LIMIT).await?)?;
    if !(1..=MESSAGES_LIMIT).contains(&trial.messages.len()) {
        let text = format!("messages: expected 1 to {MESSAGES_LIMIT}, got {}", trial.messages.len());
        return Err(Failure::invalid("messages", text).into());
    }
    let version = rest.parts.plugins.resolve(&name)?;
    let role = role(&version.plugin, trial.role.as_deref())?;
    let (plugins, stopping) = (rest.parts.plugins.clone(), rest.stopped.clone());
    let view = rest.run_guest(move || {
        let (granter, digest) = (plugins.granter(), version.plugin.digest().to_owned());
        let site = Site { kind: "try", name: name.clone(), hurried: None, stopping };
        granter.check(&trial.grants, &site, |part| format!("grants.{part}"))?;
        let grants = granter.grant(&trial.grants, &site, &name, &digest)?;
        let holding = site.holding(&trial.grants, &name, &digest);
        granter.audit().granted(&holding);
        let view = Try::new(&name, version.plugin, role, trial, grants).and_then(Try::run);
        granter.audit().withdrawn(&holding);
        view
    });
    Ok(Json(view.await?).into_response())
}

fn role(plugin: &Plugin, wanted: Option<&str>) -> Result<Role> {
    let names: Vec<&str> = plugin.roles().iter().map(|role| role.as_str()).collect();
    let found = match wanted {
        Some(wanted) => plugin.roles().iter().find(|role| role.as_str() == wanted),
        None => plugin.roles().first().filter(|_| names.len() == 1),
    };
    found.copied().ok_or_else(|| {
        let got = wanted.map_or(String::new(), |wanted| format!(", got {wanted:?}"));
        Failure::invalid("role", format!("role: expected {}{got}", names.join(" or ")))
    })
}

/// All that a try says of how the plugin is to start is its config.
pub fn not_started(error: &sluice_runtime::Error) -> Failure {
    Failure::not_started(error, |text| Failure::invalid("config", format!("config: {text}")))
}

/// A plugin that is tried, and what on.
struct Try {
    name: String,
    ports: Vec<String>,
    given: Vec<Given>,
    logs: Arc<Logs>,
    probe: Probe,
}

impl Try {
    fn new(name: &str, plugin: Plugin, role: Role, trial: Trial, grants: Grants) -> Result<Self> {
        let logs = Arc::new(Logs::default());
        let sinks = if trial.sinks.is_empty() { vec!["out".to_owned()] } else { trial.sinks };
        let ports: Vec<String> = match &plugin.manifest().outputs {
            Outputs::Ports(ports) => ports.iter().map(|port| port.name.clone()).collect(),
            Outputs::OnePerSink => sinks.clone(),
        };
        let context = Context {
            pipeline: "try".to_owned(),
            step: name.to_owned(),
            queue: 0,
            input_topic: "try".to_owned(),
            output_topics: sinks,
        };
        let setup = Setup { config: trial.config, context, grants, observer: logs.clone(), ..Setup::default() };
        let probe = Probe::start(plugin, role, setup, ports.len()).map_err(|error| not_started(&error))?;
        Ok(Self { name: name.to_owned(), ports, given: trial.messages, logs, probe })
    }

    /// Each message alone, so that one which traps leaves the others their results.
    fn run(mut self) -> Result<TrialView> {
        let mut results = Vec::with_capacity(self.given.len());
        let until = Instant::now() + RUN_FOR;
        for (at, given) in std::mem::take(&mut self.given).into_iter().enumerate() {
            if Instant::now() >= until {
                results.push(Outcome { error: Some(ErrorView::not_run(RUN_FOR)), ..Outcome::default() });
                continue;
            }
            results.push(match self.probe.role() {
                Role::CheckTransaction => {
                    let body = given.bytes(at)?;
                    self.check(given, body)?
                }
                Role::Filter | Role::Transform | Role::Process => self.apply(&given.into_record(at)?)?,
            });
        }
        Ok(TrialView {
            plugin: self.name,
            digest: format!("sha256:{}", self.probe.plugin().digest()),
            role: self.probe.role().as_str(),
            results,
            logs: self.logs.lines.newest(LOG_LINES).into_iter().map(line_view).collect(),
        })
    }

    fn apply(&mut self, record: &Record) -> Result<Outcome> {
        Ok(match self.probe.apply(record).map_err(|error| not_started(&error))? {
            Ran::Judged(keep) => Outcome { keep: Some(keep), ..Outcome::default() },
            Ran::Made(outputs) => {
                let outputs =
                    outputs.into_iter().map(|(record, target)| OutputMessage::of(target, &self.ports, &record));
                Outcome { outputs: Some(outputs.collect()), ..Outcome::default() }
            }
            Ran::Failed(error) => Outcome { error: Some(error), ..Outcome::default() },
        })
    }

    fn check(&mut self, given: Given, body: Bytes) -> Result<Outcome> {
        let now = u64::try_from(clock::now().0).unwrap_or(0);
        let half = HalfMessage {
            transaction_id: "try".to_owned(),
            topic: "try".to_owned(),
            producer_group: "try".to_owned(),
            key: given.key,
            headers: given.headers.into_iter().collect(),
            body: body.to_vec(),
            born_at: now,
            attempt: 0,
            max_attempts: 1,
            now,
        };
        Ok(match self.probe.check(&half).map_err(|error| not_started(&error))? {
            Err(error) => Outcome { error: Some(error), ..Outcome::default() },
            Ok(decision) => Outcome::decided(decision),
        })
    }
}

impl OutputMessage {
    /// `ports` are the names of all outputs.
    pub fn of(output: usize, ports: &[String], record: &Record) -> Self {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let (value, value_base64) = text_or_base64(&record.value);
        Self {
            output,
            port: ports.get(output).cloned().unwrap_or_default(),
            key: record.key.as_ref().map(text),
            tag: (!record.tag.is_empty()).then(|| text(&record.tag)),
            headers: properties(Properties::parse(record.headers.clone()).unwrap_or_default().iter()),
            value,
            value_base64,
        }
    }
}

impl Given {
    /// The value; `at` is the message's index.
    fn bytes(&self, at: usize) -> Result<Bytes> {
        let bytes = |names: [&str; 2], json: &Option<Box<RawValue>>, base64: &Option<String>| {
            let [plain, coded] = names.map(|name| format!("messages[{at}].{name}"));
            input::body_bytes((&plain, json.as_deref()), (&coded, base64.as_deref()))
        };
        let value = bytes(["value", "value_base64"], &self.value, &self.value_base64)?;
        match (value, bytes(["body", "body_base64"], &self.body, &self.body_base64)?) {
            (Some(_), Some(_)) => {
                let field = format!("messages[{at}].body");
                Err(Failure::invalid(&field, format!("{field}: expected a value or a body, got both")))
            }
            (value, body) => Ok(value.or(body).unwrap_or_default()),
        }
    }

    /// The message as a plugin sees it; `at` is its index, and its offset.
    pub fn into_record(self, at: usize) -> Result<Record> {
        let value = self.bytes(at)?;
        let now = u64::try_from(clock::now().0).unwrap_or(0);
        let own = [(key::KEYS, &self.key), (key::TAGS, &self.tag)];
        let own = own.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let headers = self.headers.iter().chain(&self.properties).map(|(name, value)| (name.as_str(), value.as_str()));
        let headers = Properties::from_pairs(own.chain(headers))?;
        Ok(Record {
            offset: at as u64,
            headers: Bytes::copy_from_slice(headers.as_bytes()),
            key: self.key.map(Bytes::from),
            tag: self.tag.map(Bytes::from).unwrap_or_default(),
            value,
            born_at: now,
            stored_at: now,
            packed: 0,
            unreadable: None,
        })
    }
}

impl Outcome {
    fn decided(decision: Decision) -> Self {
        let outcome = |decision| Self { decision: Some(decision), ..Self::default() };
        match decision {
            Decision::Commit => outcome("commit"),
            Decision::Rollback(reason) => Self { reason: Some(reason), ..outcome("rollback") },
            Decision::Unknown => outcome("unknown"),
            Decision::AskAgainAfter(wait) => {
                Self { after: Some(units::duration_text(wait)), ..outcome("ask-again-after") }
            }
        }
    }
}
