//! What users write about the plugins of a pipeline, an ingress or a filter, and its checks.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_broker::Filter;
use sluice_model::Properties;
use sluice_runtime::{
    Context, Error, Failure as Trouble, Grants, Limits, Plugin, Record, Role, Setup, ports::Prefilter,
};

use crate::{
    audit::Holding,
    failure::{Failure, Result},
    grants::{GrantsSpec, Site},
    plugins::{Plugins, Version},
    units,
};

/// Most plugins in one chain.
const STEPS_LIMIT: usize = 32;

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// `name`, `name@1` or `name@sha256:…`.
    pub plugin: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    #[serde(default, skip_serializing_if = "GrantsSpec::is_empty")]
    pub grants: GrantsSpec,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Memory for the values that processors keep and use often, of all queues together; `64MiB` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl LimitsSpec {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A plugin that was found for a step.
pub struct Found {
    pub version: Version,
    pub prefilter: Option<Arc<dyn Prefilter>>,
    pub grants: Grants,
    /// What the audit is told of it.
    pub holding: Option<Holding>,
}

/// Digests of the plugins of some steps, in their order: exactly these versions run, whatever was uploaded since.
pub type Pins = Vec<String>;

/// Starts a step's plugin once with its config, and what `setup` says of all else.
pub fn start(step: &StepSpec, plugin: &Plugin, setup: Setup) -> std::result::Result<(), Error> {
    let context = Context { step: step.plugin.clone(), ..setup.context };
    plugin.instance(Setup { config: step.config.clone(), context, ..setup }).map(drop)
}

/// Finds every plugin, with `pins` exactly those, and all that it is granted. `field` names a part of a step in errors; `start` starts the plugin
/// of the step with this index, if it is to be started.
///
/// Fails with `Busy` when no instance is to be had for that.
pub fn check(
    plugins: &Plugins,
    pins: Option<&Pins>,
    steps: &[StepSpec],
    field: impl Fn(usize, &str) -> String,
    roles: &[Role],
    site: &Site,
    start: impl Fn(usize, &Plugin) -> std::result::Result<(), Error>,
) -> Result<Vec<Found>> {
    if !(1..=STEPS_LIMIT).contains(&steps.len()) {
        let text = format!("steps: expected 1 to {STEPS_LIMIT} plugins, got {}", steps.len());
        return Err(Failure::invalid("steps", text));
    }
    let check = |(at, step): (usize, &StepSpec)| {
        let wrong = |part: &str, text: String| {
            let field = field(at, part);
            Failure::invalid(&field, format!("{field}: {text}"))
        };
        let found = match pins.and_then(|pins| pins.get(at)) {
            Some(digest) => plugins.resolve_digest(&step.plugin, digest),
            None => plugins.resolve(&step.plugin),
        };
        let version = found.map_err(|failure| Failure { kind: failure.kind, ..wrong("plugin", failure.text) })?;
        let plugin = &version.plugin;
        if !roles.iter().any(|role| plugin.has(*role)) {
            let expected: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
            let has: Vec<&str> = plugin.roles().iter().map(|role| role.as_str()).collect();
            let text = format!("expected a {}, but {} is {}", expected.join(" or "), step.plugin, has.join(", "));
            return Err(wrong("plugin", text));
        }
        start(at, plugin).map_err(|error| match error {
            Error::Start { failure: Trouble::Memory { .. }, .. } => {
                Failure::invalid("limits.memory", format!("limits.memory: {error}"))
            }
            error => Failure::not_started(&error, |text| wrong("config", text)),
        })?;
        let (granter, digest) = (plugins.granter(), plugin.digest());
        granter.check(&step.grants, site, |part| field(at, &format!("grants.{part}")))?;
        Ok(Found {
            prefilter: prefilter(plugin)?,
            grants: granter.grant(&step.grants, site, &step.plugin, digest)?,
            holding: site.holding(&step.grants, &step.plugin, digest),
            version,
        })
    };
    steps.iter().enumerate().map(check).collect()
}

/// Fails unless only the last step has several outputs, and as many as there are sinks. Each step comes with its name and how many it has,
/// `None` for one per sink.
pub fn check_outputs<'a>(steps: impl ExactSizeIterator<Item = (&'a str, Option<usize>)>, sinks: usize) -> Result<()> {
    let last = steps.len().saturating_sub(1);
    for (at, (name, outputs)) in steps.enumerate() {
        if at < last && outputs.is_some_and(|count| count > 1) {
            let field = format!("steps[{at}].plugin");
            let text = format!("{field}: {name} has several outputs, so it can only be the last step");
            return Err(Failure::invalid(&field, text));
        }
        if let Some(count) = outputs.filter(|count| at == last && *count != sinks) {
            let text = format!("sinks: the last step {name} has {count} outputs, but there are {sinks} sinks");
            return Err(Failure::invalid("sinks", text));
        }
    }
    Ok(())
}

/// The limits of each instance.
pub fn check_limits(spec: &LimitsSpec, plugins: &Plugins) -> Result<Limits> {
    let mut limits = Limits::default();
    let wrong = |field: &str, text: String| Failure::invalid(field, format!("{field}: {text}"));
    if let Some(memory) = &spec.memory {
        limits.memory = units::parse_size(memory).map_err(|text| wrong("limits.memory", text))?;
    }
    if let Some(deadline) = &spec.deadline {
        limits.deadline = units::parse_duration(deadline).map_err(|text| wrong("limits.deadline", text))?;
    }
    limits.check(plugins.runtime().config()).map_err(|error| wrong("limits", error.to_string()))?;
    Ok(limits)
}

/// What a plugin wants to be asked about.
struct Wanted(Filter);

impl Prefilter for Wanted {
    fn wants(&self, record: &Record) -> bool {
        takes(&self.0, record)
    }
}

/// Whether a filter takes a record.
pub fn takes(filter: &Filter, record: &Record) -> bool {
    // Headers of a record are checked where they come from.
    let properties = Properties::parse(record.headers.clone()).unwrap_or_default();
    filter.takes(&String::from_utf8_lossy(&record.tag), properties.iter())
}

/// The prefilter of a plugin's manifest; fails when it is neither tags nor a condition.
pub fn prefilter(plugin: &Plugin) -> Result<Option<Arc<dyn Prefilter>>> {
    let Some(text) = &plugin.manifest().prefilter else { return Ok(None) };
    let filter = Filter::read(text)
        .map_err(|error| Failure::invalid("prefilter", format!("{}: prefilter: {error}", plugin.manifest().name)))?;
    Ok(Some(Arc::new(Wanted(filter))))
}
