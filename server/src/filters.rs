//! The filter of a group's subscription: a plugin that says which of a topic's messages the group receives. It comes behind the
//! tags or the condition of the subscription. What came again to the group is not asked about again.

use std::{fmt, ops::Range};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_broker::{FetchStatus, Fetched, Group, Reader, is_system};
use sluice_model::{GroupName, Kind, QueueId, QueueOffset, RecordView, TopicName};
use sluice_runtime::{Columns, Context, Role, Setup};

use crate::{
    chains::{Bindings, Given, Outcome, Place, Plan, Work, check_limits, check_steps},
    failure::{Failure, Result},
    grants::GrantsSpec,
    plugins::Plugins,
    record::of_stored,
    shell::Shell,
    steps::{LimitsSpec, Pins, StepSpec},
};

/// The plugin that says what a group receives of a topic.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterSpec {
    /// `name`, `name@1` or `name@sha256:…`; a filter.
    pub plugin: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// What becomes of a message that the plugin fails on. With `deliver`, a plugin that fails on half of the newest 64 messages of one queue, or
    /// of several together, is not asked about these for some seconds, and the group receives what comes meanwhile.
    #[serde(default)]
    pub on_failure: FilterFailure,
    #[serde(default)]
    pub limits: LimitsSpec,
    #[serde(default, skip_serializing_if = "GrantsSpec::is_empty")]
    pub grants: GrantsSpec,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FilterFailure {
    /// The group receives it.
    #[default]
    Deliver,
    /// The group does not receive it.
    Skip,
}

/// What a group receives of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscribed {
    pub group: GroupName,
    pub topic: TopicName,
}

impl fmt::Display for Subscribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.topic)
    }
}

/// Where filters are bound: to what groups receive of topics.
pub struct GroupFilter;

/// The registry of filters.
pub type Filters = Bindings<GroupFilter>;

impl Place for GroupFilter {
    const KIND: &'static str = "filter";
    type Key = Subscribed;
    type Spec = FilterSpec;
    type Work = Looking;
    const LENIENT: bool = true;

    fn key(document: &str) -> Result<Subscribed> {
        let (group, topic) = document.split_once('/').unwrap_or((document, ""));
        Ok(Subscribed { group: GroupName::parse(group)?, topic: TopicName::parse(topic)? })
    }

    fn exists(of: &Subscribed, reader: &Reader) -> Result<()> {
        reader.topic(&of.topic)?;
        let known = reader.knows_group(&of.group) || !reader.offsets_of(&of.group).is_empty();
        if known { Ok(()) } else { Err(Failure::not_found("group", &of.group)) }
    }

    /// A group that is known by its positions only may be gone with them: they are recorded now and then, and deleted with their topics.
    fn keep(of: &Subscribed, shell: &Shell) -> Result<()> {
        if shell.reader.knows_group(&of.group) {
            return Ok(());
        }
        let group = of.group.clone();
        shell.ask_blocking(move |broker, now| {
            let known = broker.reader().knows_group(&group);
            if known { Ok(()) } else { broker.put_group(Group::new(group), now) }
        })
    }

    fn name(of: &Subscribed) -> String {
        format!("filter of group \"{}\" on topic \"{}\"", of.group, of.topic)
    }

    fn references(spec: &FilterSpec) -> impl Iterator<Item = &str> {
        std::iter::once(spec.plugin.as_str())
    }

    fn is_lenient(spec: &FilterSpec) -> bool {
        spec.on_failure == FilterFailure::Deliver
    }

    fn plan(of: &Subscribed, spec: &FilterSpec, pins: Option<&Pins>, _: &Shell, plugins: &Plugins) -> Result<Plan> {
        if is_system(of.topic.as_str()) || of.topic.is_retry() || of.topic.is_dead_letter() {
            let text = format!("topic: expected a topic of a user's, got {:?}", of.topic);
            return Err(Failure::invalid("topic", text));
        }
        let context = Context {
            pipeline: of.group.to_string(),
            input_topic: of.topic.to_string(),
            output_topics: vec![of.topic.to_string()],
            ..Context::default()
        };
        let setup = Setup { context, limits: check_limits(&spec.limits, plugins)?, ..Setup::default() };
        let step = StepSpec { plugin: spec.plugin.clone(), config: spec.config.clone(), grants: spec.grants.clone() };
        let field = |_: usize, part: &str| part.to_owned();
        Ok(Plan {
            place: Self::name(of),
            steps: check_steps(plugins, pins, &[step], field, &[Role::Filter], (Self::KIND, of.to_string()), &setup)?,
            context: setup.context,
            sinks: vec![of.topic.clone()],
            limits: setup.limits,
            lenient: Self::is_lenient(spec),
            refusable: false,
            broken: None,
        })
    }
}

/// What is left of a fetch.
#[derive(Debug)]
pub struct Kept {
    pub found: Fetched,
    /// Of the messages that are left.
    pub offsets: Vec<QueueOffset>,
}

impl Filters {
    /// Whether somebody has to be asked about what a group is to receive of a topic.
    pub fn filters(&self, group: &GroupName, topic: &TopicName) -> bool {
        self.any() && self.find(&Subscribed { group: group.clone(), topic: topic.clone() }, |_| ()).is_some()
    }

    /// Has the group's filter look at what was found in a queue of the topic. `answer` gets what is left, from any thread, and
    /// must not block; what was dropped lies before `next` all the same.
    pub fn look(
        &self,
        group: &GroupName,
        topic: &TopicName,
        queue: QueueId,
        found: Fetched,
        answer: impl FnOnce(Result<Kept>) + Send + 'static,
    ) {
        let looking = Looking::new(found, Box::new(answer));
        if looking.count() == 0 {
            looking.leave(|_| ());
            return;
        }
        let mut looking = Some(looking);
        let key = Subscribed { group: group.clone(), topic: topic.clone() };
        self.find(&key, |chain| {
            if let Some(looking) = looking.take() {
                chain.push(u64::from(queue.0), looking);
            }
        });
        // It was unbound meanwhile.
        if let Some(looking) = looking {
            looking.leave(|_| ());
        }
    }
}

/// Messages that were found for a group.
pub struct Looking {
    found: Fetched,
    spans: Vec<Span>,
    /// Why the filter could not be asked.
    busy: Option<String>,
    answer: Box<dyn FnOnce(Result<Kept>) + Send>,
}

/// One message: its piece of what was found, and its place there.
struct Span {
    piece: usize,
    range: Range<usize>,
    offset: QueueOffset,
    keep: bool,
}

impl Looking {
    fn new(found: Fetched, answer: Box<dyn FnOnce(Result<Kept>) + Send>) -> Self {
        let mut spans = Vec::with_capacity(found.count as usize);
        for (piece, bytes) in found.records.iter().enumerate() {
            let mut at = 0;
            while let Some(Ok(view)) = bytes.get(at..).filter(|rest| !rest.is_empty()).map(RecordView::parse) {
                let range = at..at + view.bytes().len();
                at = range.end;
                spans.push(Span { piece, range, offset: view.queue_offset(), keep: true });
            }
        }
        Self { found, spans, busy: None, answer }
    }

    /// Answers with the messages that are kept, as slices of what was found, once it has told how many they are.
    fn leave(self, count: impl FnOnce(usize)) {
        let Self { mut found, spans, answer, .. } = self;
        let mut offsets = Vec::with_capacity(spans.len());
        let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
        for Span { piece, range, offset, .. } in spans.into_iter().filter(|span| span.keep) {
            offsets.push(offset);
            match runs.last_mut() {
                Some((last, run)) if *last == piece && run.end == range.start => run.end = range.end,
                _ => runs.push((piece, range)),
            }
        }
        found.records = runs.into_iter().map(|(piece, range)| found.records[piece].slice(range)).collect();
        found.count = offsets.len() as u32;
        if offsets.is_empty() && found.status == FetchStatus::Found {
            found.status = FetchStatus::NoMatch;
        }
        count(offsets.len());
        answer(Ok(Kept { found, offsets }));
    }
}

impl Work for Looking {
    fn count(&self) -> usize {
        self.spans.len()
    }

    fn bytes(&self) -> usize {
        // The records are the log's own; they cost no memory.
        0
    }

    fn record(&mut self, index: usize, _: u64, needs: Columns) -> Given {
        let span = self.spans.get(index).ok_or("there is no such message")?;
        let bytes = self.found.records[span.piece].slice(span.range.clone());
        let view = RecordView::parse(&bytes).map_err(|error| error.to_string())?;
        of_stored(&view, &bytes, needs)
    }

    fn judged(&mut self, index: usize, outcome: Outcome) {
        match outcome {
            Outcome::Kept(..) | Outcome::Unchanged => {}
            Outcome::Refused { .. } | Outcome::Failed { .. } => self.spans[index].keep = false,
            Outcome::Busy(text) => self.busy = Some(text),
        }
    }

    fn done(self, judged: Result<&Plan>, count: impl FnOnce(usize)) {
        let failure = match (judged, self.busy) {
            (Ok(_), None) => return Self { busy: None, ..self }.leave(count),
            (Ok(_), Some(text)) => Failure::new(Kind::Busy, text),
            (Err(failure), _) => failure,
        };
        count(0);
        (self.answer)(Err(failure));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use sluice_broker::{Position, Topic};

    use super::*;

    #[test]
    fn a_group_that_has_a_filter_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let shell = crate::shell::tests::start(dir.path());
        let plugins = Arc::new(crate::plugins::tests::load(&shell, dir.path()));
        let component = sluice_plugins::ready_made("json-filter").unwrap().component;
        plugins.put("json-filter", Bytes::from_static(component)).unwrap();
        let of = Subscribed { group: GroupName::parse("g").unwrap(), topic: TopicName::parse("t").unwrap() };
        let topic = Topic::new(of.topic.clone(), 1);
        shell.ask_blocking(move |broker, now| broker.put_topic(topic, now)).unwrap();
        // It is known by this only, which is not recorded yet.
        let (group, topic) = (of.group.clone(), of.topic.clone());
        shell.reader.commit_offset(Position { group, topic, queue: QueueId(0), offset: QueueOffset(0) }).unwrap();
        let spec = serde_json::json!({ "plugin": "json-filter", "config": { "path": "/a", "equals": 1 } });
        let filters = Filters::load(shell.clone(), plugins).unwrap();
        filters.put(&of, serde_json::from_value(spec).unwrap(), None).unwrap();
        assert!(shell.reader.knows_group(&of.group));
        filters.stop_all();
    }
}
