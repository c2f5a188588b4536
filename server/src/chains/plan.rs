//! What a chain runs, and the checks on what users write about it.

use std::sync::Arc;

use serde_json::{Map, Value};
use sluice_model::TopicName;
use sluice_runtime::{Columns, Context, Error, Grants, Limits, Plugin, Role, Setup, ports::Prefilter};

use crate::{
    audit::Holding,
    failure::{Failure, Result},
    grants::Site,
    plugins::Plugins,
    steps::{self, Found, LimitsSpec, Pins, StepSpec},
};

/// Why chains are granted secrets only.
const HURRIED: &str = "not to be granted here: producers and consumers wait for what this plugin says, and would wait for others with it; \
                       only secrets may be granted; a pipeline's steps and checkers may have the others";

/// One plugin of a chain, pinned to the version that was found.
#[derive(Clone)]
pub struct Step {
    /// As the user names it.
    pub reference: String,
    /// `name@version`, as errors name it.
    pub label: String,
    pub plugin: Plugin,
    pub config: Map<String, Value>,
    pub grants: Grants,
    /// What the audit is told of it.
    pub holding: Option<Holding>,
    /// Which messages it wants to be asked about; the others it drops unasked.
    pub prefilter: Option<Arc<dyn Prefilter>>,
    /// It may change messages; otherwise it only keeps or drops them.
    pub transforms: bool,
}

/// What a chain runs.
#[derive(Clone)]
pub struct Plan {
    /// As errors name it: `ingress of topic "t"`.
    pub place: String,
    /// As its plugins see it.
    pub context: Context,
    /// None: everything passes.
    pub steps: Vec<Step>,
    /// By output of the last step.
    pub sinks: Vec<TopicName>,
    pub limits: Limits,
    /// A message that a plugin fails on goes on as it came.
    pub lenient: bool,
    /// A failure that is the message's own (the plugin says `dead-letter` or `skip`) refuses it, lenient or not.
    pub refusable: bool,
    /// Why it cannot run.
    pub broken: Option<String>,
}

impl Plan {
    /// Lets everything pass.
    pub fn open(place: String) -> Self {
        Self {
            place,
            context: Context::default(),
            steps: Vec::new(),
            sinks: Vec::new(),
            limits: Limits::default(),
            lenient: true,
            refusable: false,
            broken: None,
        }
    }

    /// Whether messages may be dealt with when the plugins are not asked: they go on, or their sender is told to try again. What a strict
    /// filter is not asked about can only wait.
    pub fn goes_unasked(&self) -> bool {
        self.lenient || self.refusable
    }

    /// What its plugins are granted.
    pub fn holdings(&self) -> impl Iterator<Item = &Holding> {
        self.steps.iter().filter_map(|step| step.holding.as_ref())
    }

    /// The columns that any of the plugins or their prefilters reads.
    pub fn needs(&self) -> Columns {
        let asked = |step: &Step| match step.prefilter {
            Some(_) => step.plugin.manifest().needs | Columns::HEADERS | Columns::TAG,
            None => step.plugin.manifest().needs,
        };
        self.steps.iter().fold(Columns::empty(), |needs, step| needs | asked(step))
    }
}

/// Finds every plugin and starts each once with its config under its limits. `field` names a step in errors; the kind and name of the place,
/// in the audit. With `pins` it was started when it was bound: when no instance is to be had now, it starts with the first message.
pub fn check_steps(
    plugins: &Plugins,
    pins: Option<&Pins>,
    steps: &[StepSpec],
    field: impl Fn(usize, &str) -> String,
    roles: &[Role],
    (kind, name): (&'static str, String),
    setup: &Setup,
) -> Result<Vec<Step>> {
    let site = Site { kind, name, hurried: Some(HURRIED), stopping: Arc::default() };
    let start = |at: usize, plugin: &Plugin| match steps::start(&steps[at], plugin, setup.clone()) {
        Err(error @ Error::Full(_)) if pins.is_some() => {
            tracing::warn!(kind, name = site.name, plugin = steps[at].plugin, %error, "a plugin starts with the first message");
            Ok(())
        }
        started => started,
    };
    let found = steps::check(plugins, pins, steps, field, roles, &site, start)?;
    let step = |(step, Found { version, prefilter, grants, holding }): (&StepSpec, Found)| Step {
        reference: step.plugin.clone(),
        label: format!("{}@{}", version.name, version.version()),
        // A plugin that is both runs as a transformer where it may.
        transforms: roles.contains(&Role::Transform) && version.plugin.has(Role::Transform),
        prefilter,
        plugin: version.plugin,
        config: step.config.clone(),
        grants,
        holding,
    };
    Ok(steps.iter().zip(found).map(step).collect())
}

/// The limits of each instance; nothing is kept here, so there is no limit on that.
pub fn check_limits(spec: &LimitsSpec, plugins: &Plugins) -> Result<Limits> {
    if spec.state.is_some() {
        return Err(Failure::invalid("limits.state", "limits.state: only a pipeline keeps state"));
    }
    steps::check_limits(spec, plugins)
}
