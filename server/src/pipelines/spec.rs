//! What users write to describe a pipeline, and its checks.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_broker::Filter;
use sluice_model::{GroupName, Timestamp, TopicName};
use sluice_runtime::{Context, Level, Limits, Plugin, Policy, Role, Setup, Step, Then};

use crate::{
    audit::Holding,
    failure::{Failure, Result},
    grants::Site,
    plugins::Plugins,
    shell::Shell,
    steps::{self, Found, LimitsSpec, Pins, StepSpec},
    units,
};

/// Memory for what processors keep and use often, bytes.
const STATE_MEMORY: usize = 64 * 1024 * 1024;
const STATE_MEMORY_BOUNDS: std::ops::RangeInclusive<usize> = 1024 * 1024..=4 * 1024 * 1024 * 1024;
/// Most sinks of one pipeline.
const SINKS_LIMIT: usize = 64;

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub name: String,
    pub source: SourceSpec,
    pub steps: Vec<StepSpec>,
    pub sinks: Vec<String>,
    #[serde(default)]
    pub on_failure: FailureSpec,
    #[serde(default)]
    pub limits: LimitsSpec,
    #[serde(default)]
    pub delivery: Delivery,
    /// How much older than the newest a record may be and still be on time for timers and windows; `0s` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness: Option<String>,
    /// What becomes of the lines that its plugins write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsSpec>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsSpec {
    /// Each line becomes a message of this topic: JSON, its key is the pipeline, its tag the level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Lines below it are neither kept nor sent.
    #[serde(default)]
    pub level: LevelSpec,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LevelSpec {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    pub topic: String,
    /// `earliest`, `latest` or `@` and a time; where a new pipeline begins. Queues that the topic gets later are read from their first message.
    #[serde(default = "latest")]
    pub start: String,
    /// An expression of tags, or a SQL92 condition over properties: only messages that it takes enter the pipeline.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailureSpec {
    pub retries: u32,
    pub backoff: String,
    pub then: ThenSpec,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ThenSpec {
    #[default]
    DeadLetter,
    Skip,
    Stop,
}

/// What a crash may do to the sinks. Outputs and position are always one unit of the log, so both hold; the weaker word
/// is there for those who want to promise less.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    #[default]
    ExactlyOnce,
    AtLeastOnce,
}

impl Default for FailureSpec {
    fn default() -> Self {
        Self { retries: 3, backoff: "1s".to_owned(), then: ThenSpec::DeadLetter }
    }
}

fn latest() -> String {
    "latest".to_owned()
}

/// Where a new pipeline begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    At(Timestamp),
}

/// A specification whose every name was found and every value checked.
#[derive(Clone)]
pub struct Checked {
    pub spec: Spec,
    /// Number of the revision that it belongs to; 0 before it has one.
    pub revision: u64,
    /// The group under which positions are kept.
    pub group: GroupName,
    pub topic: TopicName,
    pub start: Start,
    pub filter: Filter,
    pub sinks: Vec<TopicName>,
    pub steps: Vec<Step>,
    /// What the audit is told when the steps run.
    pub holdings: Vec<Holding>,
    /// Set when the pipeline is to stop: then its plugins ask nobody any more.
    pub stopping: Arc<AtomicBool>,
    pub policy: Policy,
    pub limits: Limits,
    /// Whether one of the steps keeps state.
    pub keeps_state: bool,
    /// Memory for what is hot of it, bytes.
    pub state_memory: usize,
    /// Milliseconds.
    pub lateness: u64,
    /// Where the lines of its plugins go besides.
    pub log_topic: Option<TopicName>,
    pub log_level: Level,
}

impl Checked {
    /// The digest of each step's plugin.
    pub fn digests(&self) -> Pins {
        self.steps.iter().map(|step| step.plugin.digest().to_owned()).collect()
    }
}

impl Spec {
    /// Reads JSON or YAML; fails with the field and what was expected there.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| Failure::invalid("body", "body: expected UTF-8"))?;
        if text.trim_start().starts_with('{') {
            return serde_json::from_str(text).map_err(|error| Failure::invalid("body", format!("pipeline: {error}")));
        }
        serde_norway::from_str(text).map_err(|error| Failure::invalid("body", format!("pipeline: {error}")))
    }

    /// Whether it reads or writes this topic, or one of its plugins looks messages up there.
    pub fn uses_topic(&self, name: &str) -> bool {
        let logs = self.logs.as_ref().and_then(|logs| logs.topic.as_ref());
        let granted = self.steps.iter().flat_map(|step| &step.grants.topics);
        std::iter::once(&self.source.topic).chain(logs).chain(&self.sinks).chain(granted).any(|topic| topic == name)
    }

    /// Looks every name up and checks every value, and that the steps fit the sinks. Starts each plugin once with its config under its limits.
    ///
    /// Without `pins` the newest plugins are found that are meant.
    pub fn check(self, pins: Option<&Pins>, shell: &Shell, plugins: &Plugins) -> Result<Checked> {
        let group = self.group()?;
        let topic = existing(shell, "source.topic", &self.source.topic)?;
        let sinks = self.sinks(shell, &topic)?;
        let filter = Filter::read(self.source.filter.as_deref().unwrap_or("*"))
            .map_err(|error| Failure::invalid("source.where", format!("source.where: {error}")))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let limits = steps::check_limits(&self.limits, plugins)?;
        let (steps, holdings) = self.steps(pins, plugins, &limits, &stopping)?;
        let keeps_state = steps.iter().any(|step| step.plugin.has(Role::Process));
        Ok(Checked {
            revision: 0,
            keeps_state,
            state_memory: self.state_memory()?,
            lateness: self.lateness()?,
            log_topic: self.log_topic(shell, &topic)?,
            log_level: self.logs.as_ref().map_or(LevelSpec::default(), |logs| logs.level).into(),
            group,
            start: parse_start("source.start", &self.source.start)?,
            topic,
            filter,
            sinks,
            steps,
            holdings,
            stopping,
            policy: self.policy()?,
            limits,
            spec: self,
        })
    }

    /// The group under which positions are kept.
    pub fn group(&self) -> Result<GroupName> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(fits) {
            let text = format!("name: expected 1 to 64 letters, digits, - and _, got {:?}", self.name);
            return Err(Failure::invalid("name", text));
        }
        Ok(GroupName::parse(&format!("pipeline-{}", self.name))?)
    }

    fn sinks(&self, shell: &Shell, source: &TopicName) -> Result<Vec<TopicName>> {
        if !(1..=SINKS_LIMIT).contains(&self.sinks.len()) {
            let text = format!("sinks: expected 1 to {SINKS_LIMIT} topics, got {}", self.sinks.len());
            return Err(Failure::invalid("sinks", text));
        }
        let sinks: Vec<TopicName> =
            self.sinks.iter().map(|name| existing(shell, "sinks", name)).collect::<Result<_>>()?;
        if sinks.contains(source) {
            let text = format!("sinks: topic {source:?} is the source as well, the pipeline would never end");
            return Err(Failure::invalid("sinks", text));
        }
        Ok(sinks)
    }

    fn steps(
        &self,
        pins: Option<&Pins>,
        plugins: &Plugins,
        limits: &Limits,
        stopping: &Arc<AtomicBool>,
    ) -> Result<(Vec<Step>, Vec<Holding>)> {
        let last = self.steps.len().saturating_sub(1);
        let setup = |at: usize| {
            let context = Context {
                pipeline: self.name.clone(),
                input_topic: self.source.topic.clone(),
                output_topics: if at == last { self.sinks.clone() } else { Vec::new() },
                ..Context::default()
            };
            Setup { context, limits: limits.clone(), ..Setup::default() }
        };
        let field = |at: usize, part: &str| format!("steps[{at}].{part}");
        let site = Site { kind: "pipeline", name: self.name.clone(), hurried: None, stopping: stopping.clone() };
        let roles = [Role::Filter, Role::Transform, Role::Process];
        let start = |at: usize, plugin: &Plugin| steps::start(&self.steps[at], plugin, setup(at));
        let found = steps::check(plugins, pins, &self.steps, field, &roles, &site, start)?;
        let holdings = found.iter().filter_map(|found| found.holding.clone()).collect();
        let step = |(step, found): (&StepSpec, Found)| Step {
            name: step.plugin.clone(),
            plugin: found.version.plugin,
            config: step.config.clone(),
            prefilter: found.prefilter,
            grants: found.grants,
        };
        let steps: Vec<Step> = self.steps.iter().zip(found).map(step).collect();
        let outputs = |step: &Step| if step.role() == Role::Filter { Some(1) } else { step.plugin.output_count() };
        steps::check_outputs(steps.iter().map(|step| (step.name.as_str(), outputs(step))), self.sinks.len())?;
        Ok((steps, holdings))
    }

    fn policy(&self) -> Result<Policy> {
        let backoff = units::parse_duration(&self.on_failure.backoff)
            .map_err(|text| Failure::invalid("on_failure.backoff", format!("on_failure.backoff: {text}")))?;
        if self.on_failure.retries > 100 || backoff > Duration::from_secs(60) {
            let text = "on_failure: expected at most 100 retries and a backoff of at most 60s";
            return Err(Failure::invalid("on_failure", text));
        }
        let then = match self.on_failure.then {
            ThenSpec::DeadLetter => Then::DeadLetter,
            ThenSpec::Skip => Then::Skip,
            ThenSpec::Stop => Then::Stop,
        };
        Ok(Policy { retries: self.on_failure.retries, backoff, then })
    }

    fn state_memory(&self) -> Result<usize> {
        let Some(text) = &self.limits.state else { return Ok(STATE_MEMORY) };
        let size = units::parse_size(text)
            .map_err(|text| Failure::invalid("limits.state", format!("limits.state: {text}")))?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if !STATE_MEMORY_BOUNDS.contains(&size) {
            return Err(Failure::invalid("limits.state", "limits.state: expected 1MiB to 4GiB"));
        }
        Ok(size)
    }

    fn log_topic(&self, shell: &Shell, source: &TopicName) -> Result<Option<TopicName>> {
        let Some(name) = self.logs.as_ref().and_then(|logs| logs.topic.as_ref()) else { return Ok(None) };
        let topic = existing(shell, "logs.topic", name)?;
        if topic == *source {
            let text = format!("logs.topic: topic {name:?} is the source as well, the pipeline would never end");
            return Err(Failure::invalid("logs.topic", text));
        }
        Ok(Some(topic))
    }

    fn lateness(&self) -> Result<u64> {
        let Some(text) = &self.lateness else { return Ok(0) };
        let lateness =
            units::parse_duration(text).map_err(|text| Failure::invalid("lateness", format!("lateness: {text}")))?;
        Ok(u64::try_from(lateness.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<LevelSpec> for Level {
    fn from(level: LevelSpec) -> Self {
        match level {
            LevelSpec::Trace => Self::Trace,
            LevelSpec::Debug => Self::Debug,
            LevelSpec::Info => Self::Info,
            LevelSpec::Warn => Self::Warn,
            LevelSpec::Error => Self::Error,
        }
    }
}

fn existing(shell: &Shell, field: &str, name: &str) -> Result<TopicName> {
    let topic = TopicName::parse(name).map_err(|error| Failure::invalid(field, format!("{field}: {error}")))?;
    shell.reader.topic(&topic).map_err(|error| Failure {
        field: Some(field.to_owned()),
        text: format!("{field}: {error}"),
        ..Failure::from(error)
    })?;
    Ok(topic)
}

pub(super) fn parse_start(field: &str, text: &str) -> Result<Start> {
    let time =
        |text: &str| text.parse::<jiff::Timestamp>().ok().map(|time| Start::At(Timestamp(time.as_millisecond())));
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        other => other.strip_prefix('@').and_then(time).ok_or_else(|| {
            let text = format!("{field}: expected earliest, latest or @2026-01-31T12:00:00Z, got {other:?}");
            Failure::invalid(field, text)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
name: big-orders
source: { topic: orders, start: earliest, where: 'a || b' }
steps:
  - { plugin: json-filter@1, config: { path: /status, equals: paid } }
sinks: [ orders-eu ]
on_failure: { retries: 1, backoff: 10ms, then: skip }
limits: { memory: 16MiB, deadline: 10ms }
";

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = Spec::parse(YAML.as_bytes()).unwrap();
        let json = Spec::parse(serde_json::to_string(&yaml).unwrap().as_bytes()).unwrap();
        assert_eq!(yaml, json);
        assert_eq!(yaml.on_failure.then, ThenSpec::Skip);
        assert_eq!(yaml.delivery, Delivery::ExactlyOnce);
    }

    #[test]
    fn an_unknown_field_is_named() {
        let text = YAML.replace("sinks:", "sinkz:");
        assert!(Spec::parse(text.as_bytes()).unwrap_err().text.contains("sinkz"));
        let never = format!("{YAML}delivery: at-most-once\n");
        assert!(Spec::parse(never.as_bytes()).unwrap_err().text.contains("at-least-once"));
    }

    #[test]
    fn what_a_plugin_looks_up_is_in_use() {
        let granted = "json-filter@1, grants: { topics: [ customers ] },";
        let spec = Spec::parse(YAML.replace("json-filter@1,", granted).as_bytes()).unwrap();
        assert_eq!(
            ["orders", "orders-eu", "customers", "eu"].map(|topic| spec.uses_topic(topic)),
            [true, true, true, false]
        );
    }

    #[test]
    fn a_start_is_a_word_or_a_time() {
        assert_eq!(parse_start("source.start", "@1970-01-01T00:00:01Z").unwrap(), Start::At(Timestamp(1000)));
        assert!(parse_start("source.start", "yesterday").unwrap_err().text.contains("source.start"));
    }
}
