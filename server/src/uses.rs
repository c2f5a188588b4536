//! Who needs a topic, so that nobody deletes it meanwhile, and whose a group is, so that nobody moves it.

use sluice_model::{GroupName, Kind, TopicName};

use crate::{failure::Failure, server::Parts};

/// How the groups begin under which pipelines keep their positions.
const PIPELINES: &str = "pipeline-";

/// Those that a topic must not be taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Pipelines that read, write or look it up, or try a version that does.
    pub pipelines: Vec<String>,
    /// Other topics whose ingress sends here.
    pub ingresses: Vec<String>,
    /// Producer groups whose checker looks messages up here.
    pub checkers: Vec<String>,
}

impl Parts {
    /// Who needs this topic.
    pub fn uses_of(&self, name: &TopicName) -> Uses {
        let pipelines = self.pipelines.list().into_iter().filter(|of| {
            let tried = of.candidate.iter().map(|candidate| &candidate.revision.spec);
            of.spec.iter().chain(tried).any(|spec| spec.uses_topic(name.as_str()))
        });
        let others = self.ingresses.list().into_iter().filter(|(topic, _)| topic != name);
        let ingresses =
            others.filter(|(_, of)| of.spec.iter().any(|spec| spec.sinks.iter().any(|sink| sink == name.as_str())));
        let all = self.checkers.list().into_iter();
        let checkers = all.filter(|(_, of)| {
            of.spec.as_ref().is_some_and(|spec| spec.granted().topics.iter().any(|topic| topic == name.as_str()))
        });
        Uses {
            pipelines: pipelines.map(|of| of.name).collect(),
            ingresses: ingresses.map(|(topic, _)| topic.to_string()).collect(),
            checkers: checkers.map(|(group, _)| group.to_string()).collect(),
        }
    }
}

impl Parts {
    /// Whether a pipeline keeps its positions, or those of its dead letters, under this name.
    pub fn is_pipelines(&self, group: &str) -> bool {
        // Other groups, which are nearly all, cost a look at their first letters.
        let Some(name) = group.strip_prefix(PIPELINES) else { return false };
        self.pipelines.describe(name.strip_suffix("|dlq").unwrap_or(name)).is_ok()
    }

    /// Fails with `Conflict` for a group that is a pipeline's: only the pipeline itself moves it.
    pub fn not_pipelines(&self, group: &GroupName) -> Result<(), Failure> {
        if !self.is_pipelines(group.as_str()) {
            return Ok(());
        }
        let text = format!("group \"{group}\" holds the positions of a pipeline: change the pipeline instead");
        Err(Failure::new(Kind::Conflict, text))
    }
}

impl Uses {
    /// Fails with `Conflict` when somebody needs the topic.
    pub fn none(&self, name: &TopicName) -> Result<(), Failure> {
        let Self { pipelines, ingresses, checkers } = self;
        let text = if !pipelines.is_empty() {
            format!("is in use by pipelines: {}", pipelines.join(", "))
        } else if !ingresses.is_empty() {
            format!("is a sink of the ingress of {}", ingresses.join(", "))
        } else if !checkers.is_empty() {
            format!("is looked up by the checkers of {}", checkers.join(", "))
        } else {
            return Ok(());
        };
        Err(Failure::new(Kind::Conflict, format!("topic \"{name}\" {text}")))
    }
}
