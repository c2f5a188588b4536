//! What a chain runs, and the checks on what users write about it.

use std::sync::Arc;

use serde_json::{Map, Value};
use sluice_model::TopicName;
use sluice_runtime::{Columns, Context, Limits, Plugin, Role, ports::Prefilter};

use crate::{
    failure::{Failure, Result},
    pipelines::{LimitsSpec, StepSpec, prefilter},
    plugins::Plugins,
    units,
};

/// Most plugins in one chain.
const STEPS_LIMIT: usize = 32;

/// One plugin of a chain, pinned to the version that was found.
#[derive(Clone)]
pub struct Step {
    /// As the user names it.
    pub reference: String,
    /// `name@version`, as errors name it.
    pub label: String,
    pub plugin: Plugin,
    pub config: Map<String, Value>,
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

    /// The columns that any of the plugins or their prefilters reads.
    pub fn needs(&self) -> Columns {
        let asked = |step: &Step| match step.prefilter {
            Some(_) => step.plugin.manifest().needs | Columns::HEADERS | Columns::TAG,
            None => step.plugin.manifest().needs,
        };
        self.steps.iter().fold(Columns::empty(), |needs, step| needs | asked(step))
    }
}

/// Finds every plugin and starts each once with its config. `field` names a step in errors.
pub fn check_steps(
    plugins: &Plugins,
    steps: &[StepSpec],
    field: impl Fn(usize, &str) -> String,
    roles: &[Role],
    context: &Context,
) -> Result<Vec<Step>> {
    if !(1..=STEPS_LIMIT).contains(&steps.len()) {
        let text = format!("steps: expected 1 to {STEPS_LIMIT} plugins, got {}", steps.len());
        return Err(Failure::invalid("steps", text));
    }
    let check = |(at, step): (usize, &StepSpec)| {
        let wrong = |part: &str, text: String| {
            let field = field(at, part);
            Failure::invalid(&field, format!("{field}: {text}"))
        };
        let version = plugins
            .resolve(&step.plugin)
            .map_err(|failure| Failure { kind: failure.kind, ..wrong("plugin", failure.text) })?;
        let plugin = version.plugin.clone();
        if !roles.iter().any(|role| plugin.has(*role)) {
            let expected: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
            let has: Vec<&str> = plugin.roles().iter().map(|role| role.as_str()).collect();
            let text = format!("expected a {}, but {} is {}", expected.join(" or "), step.plugin, has.join(", "));
            return Err(wrong("plugin", text));
        }
        let context = Context { step: step.plugin.clone(), ..context.clone() };
        plugin.check_config(&step.config, &context).map_err(|error| wrong("config", error.to_string()))?;
        Ok(Step {
            reference: step.plugin.clone(),
            label: format!("{}@{}", version.name, version.version()),
            // A plugin that is both runs as a transformer where it may.
            transforms: roles.contains(&Role::Transform) && plugin.has(Role::Transform),
            prefilter: prefilter(&plugin)?,
            plugin,
            config: step.config.clone(),
        })
    };
    steps.iter().enumerate().map(check).collect()
}

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
