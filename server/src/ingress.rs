//! The ingress of a topic: a chain of plugins that every message of a producer passes before it is stored. It may refuse the
//! message with a reason, change it, or send it to another topic.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_broker::{Reader, Send, Sent, is_system};
use sluice_model::{Kind, Message, QueueId, TopicName};
use sluice_runtime::{Columns, Context, Plugin, Record, Role, Setup};

use crate::{
    chains::{Bindings, Given, Outcome, Place, Plan, Step, Work, check_limits, check_steps, of_message, with_changes},
    clock,
    failure::{Failure, Result},
    plugins::Plugins,
    shell::Shell,
    steps::{self, LimitsSpec, Pins, StepSpec},
};

/// Most topics that one ingress sends to.
const SINKS_LIMIT: usize = 64;

/// Most bytes of bodies in one request, decompressed, and of what plugins make of them.
const PLAIN_LIMIT: usize = 64 * 1024 * 1024;

/// The field of a failure that refuses a message: each door has its own answer to it.
pub const REFUSED: &str = "ingress";

/// The plugins that a topic's messages pass before they are stored.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressSpec {
    pub steps: Vec<StepSpec>,
    /// Existing topics, by output of the last plugin. The topic itself when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<String>,
    /// What becomes of a message that a plugin fails on. One that a plugin calls bad itself is refused whatever stands here.
    ///
    /// A plugin that fails on half of the newest 64 messages of one connection, or of several together, is not asked about these for some
    /// seconds, nor where no instance is to be had: then messages are stored as they came (`pass`), or their producers are told to try again (`reject`).
    #[serde(default)]
    pub on_failure: IngressFailure,
    #[serde(default)]
    pub limits: LimitsSpec,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IngressFailure {
    /// Its producer is told so.
    #[default]
    Reject,
    /// It is stored in the topic as it came.
    Pass,
}

/// Where ingress chains are bound: to topics.
pub struct Ingress;

/// The registry of ingress chains.
pub type Ingresses = Bindings<Ingress>;

impl Place for Ingress {
    const KIND: &'static str = "ingress";
    type Key = TopicName;
    type Spec = IngressSpec;
    type Work = Arrival;
    const LENIENT: bool = false;

    fn key(document: &str) -> Result<TopicName> {
        Ok(TopicName::parse(document)?)
    }

    fn exists(topic: &TopicName, reader: &Reader) -> Result<()> {
        reader.topic(topic)?;
        Ok(())
    }

    fn keep(_: &TopicName, _: &Shell) -> Result<()> {
        Ok(())
    }

    fn name(topic: &TopicName) -> String {
        format!("ingress of topic \"{topic}\"")
    }

    fn references(spec: &IngressSpec) -> impl Iterator<Item = &str> {
        spec.steps.iter().map(|step| step.plugin.as_str())
    }

    fn is_lenient(spec: &IngressSpec) -> bool {
        spec.on_failure == IngressFailure::Pass
    }

    fn plan(
        topic: &TopicName,
        spec: &IngressSpec,
        pins: Option<&Pins>,
        shell: &Shell,
        plugins: &Plugins,
    ) -> Result<Plan> {
        users_own("topic", topic)?;
        let sinks = sinks(topic, spec, &shell.reader)?;
        let context = Context {
            pipeline: topic.to_string(),
            input_topic: topic.to_string(),
            output_topics: sinks.iter().map(TopicName::to_string).collect(),
            ..Context::default()
        };
        let setup = Setup { context, limits: check_limits(&spec.limits, plugins)?, ..Setup::default() };
        let field = |at: usize, part: &str| format!("steps[{at}].{part}");
        let steps = check_steps(
            plugins,
            pins,
            &spec.steps,
            field,
            &[Role::Filter, Role::Transform],
            (Self::KIND, topic.to_string()),
            &setup,
        )?;
        let outputs = |step: &Step| if step.transforms { Plugin::output_count(&step.plugin) } else { Some(1) };
        steps::check_outputs(steps.iter().map(|step| (step.reference.as_str(), outputs(step))), sinks.len())?;
        Ok(Plan {
            place: Self::name(topic),
            context: setup.context,
            steps,
            sinks,
            limits: setup.limits,
            lenient: Self::is_lenient(spec),
            refusable: true,
            broken: None,
        })
    }
}

/// Topics that the broker or RocketMQ's tools made have no ingress, and are none's sinks.
fn users_own(field: &str, topic: &TopicName) -> Result<()> {
    if is_system(topic.as_str()) || topic.is_retry() || topic.is_dead_letter() {
        let text = format!("{field}: expected a topic of a user's, got {topic:?}");
        return Err(Failure::invalid(field, text));
    }
    Ok(())
}

fn sinks(topic: &TopicName, spec: &IngressSpec, reader: &Reader) -> Result<Vec<TopicName>> {
    if spec.sinks.is_empty() {
        return Ok(vec![topic.clone()]);
    }
    if spec.sinks.len() > SINKS_LIMIT {
        let text = format!("sinks: expected at most {SINKS_LIMIT} topics, got {}", spec.sinks.len());
        return Err(Failure::invalid("sinks", text));
    }
    let sink = |name: &String| {
        let wrong = |failure: Failure| Failure {
            field: Some("sinks".to_owned()),
            text: format!("sinks: {failure}"),
            ..failure
        };
        let sink = TopicName::parse(name).map_err(|error| wrong(error.into()))?;
        users_own("sinks", &sink)?;
        reader.topic(&sink).map_err(|error| wrong(error.into()))?;
        Ok(sink)
    };
    spec.sinks.iter().map(sink).collect()
}

type Answer = Box<dyn FnOnce(Result<Sent>, bool) + std::marker::Send>;

impl Ingresses {
    /// Sends messages, through their topic's ingress if it has one. What comes under one `number` stays in order. `answer` and
    /// what the caller has to do afterwards are those of [`Shell::send`].
    pub fn send(
        &self,
        shell: &Shell,
        number: u64,
        send: Send,
        answer: impl FnOnce(Result<Sent>, bool) + std::marker::Send + 'static,
    ) {
        let topic = send.messages.first().map(|message| message.topic.clone()).filter(|_| self.any());
        let mut waiting = Some((send, answer));
        let handed_in = topic.and_then(|topic| {
            self.find(&topic, |chain| {
                let Some((send, answer)) = waiting.take() else { return };
                chain.push(number, Arrival::new(shell.clone(), send, Box::new(answer)));
            })
        });
        if let (None, Some((send, answer))) = (handed_in, waiting) {
            shell.send(send, answer);
        }
    }
}

/// Messages of one request on their way to the log.
pub struct Arrival {
    shell: Shell,
    send: Send,
    /// Messages as the plugins saw them at first, of which nothing was said yet, in order. They are decompressed.
    shown: VecDeque<Record>,
    /// What became of the messages that were shown.
    became: Vec<Became>,
    /// Bytes of the bodies, decompressed, and of those that the plugins made.
    plain: usize,
    made: usize,
    answer: Answer,
}

/// What became of a message.
enum Became {
    AsItCame,
    /// It is to be stored like this, in this sink.
    Changed(Message, usize),
    /// What the plugins made of it cannot be stored.
    Unstorable(Failure),
    Refused {
        plugin: String,
        reason: String,
    },
    Failed {
        plugin: Option<String>,
        reason: String,
    },
    Busy(String),
}

impl Arrival {
    fn new(shell: Shell, send: Send, answer: Answer) -> Self {
        Self { shell, send, shown: VecDeque::new(), became: Vec::new(), plain: 0, made: 0, answer }
    }

    fn show(&mut self, index: usize, serial: u64, needs: Columns) -> Given {
        let message = self.send.messages.get(index).ok_or("there is no such message")?;
        if self.plain > PLAIN_LIMIT {
            return Err(format!("the request has more than {PLAIN_LIMIT} bytes once decompressed"));
        }
        let record = of_message(message, serial, needs, clock::now())?;
        self.plain += record.value.len();
        Ok(record)
    }

    /// The message as it is to be stored. Nothing decompressed is kept of it.
    fn changed(&mut self, index: usize, before: &Record, after: Record) -> Result<Message> {
        let message = self.send.messages.get(index).cloned();
        let message = message.ok_or_else(|| Failure::new(Kind::Internal, "there is no such message"))?;
        let changed = with_changes(message, before, after)?;
        self.made += changed.body.len();
        if self.made > PLAIN_LIMIT {
            let text = format!("what the plugins made of the request has more than {PLAIN_LIMIT} bytes");
            return Err(Failure::new(Kind::Invalid, text));
        }
        Ok(changed)
    }
}

impl Work for Arrival {
    fn count(&self) -> usize {
        self.send.messages.len()
    }

    fn bytes(&self) -> usize {
        let size = |message: &Message| message.body.len() + message.properties.as_bytes().len();
        self.send.messages.iter().map(size).sum()
    }

    fn record(&mut self, index: usize, serial: u64, needs: Columns) -> Given {
        let given = self.show(index, serial, needs);
        // Asked for once each, in order; so it is judged.
        self.shown.push_back(given.as_ref().ok().cloned().unwrap_or_default());
        given
    }

    fn judged(&mut self, index: usize, outcome: Outcome) {
        let before = self.shown.pop_front().unwrap_or_default();
        let became = match outcome {
            Outcome::Unchanged => Became::AsItCame,
            Outcome::Kept(after, sink) => match self.changed(index, &before, after) {
                Ok(message) => Became::Changed(message, sink),
                Err(failure) => Became::Unstorable(failure),
            },
            Outcome::Refused { plugin, reason } => Became::Refused { plugin, reason },
            Outcome::Failed { plugin, reason } => Became::Failed { plugin, reason },
            Outcome::Busy(text) => Became::Busy(text),
        };
        self.became.push(became);
    }

    fn done(self, judged: Result<&Plan>, count: impl FnOnce(usize)) {
        let Self { shell, send, became, answer, .. } = self;
        match judged.and_then(|plan| passed(send, became, plan, &shell.reader)) {
            Ok(send) => {
                count(send.messages.len());
                shell.send(send, answer);
            }
            Err(failure) => {
                count(0);
                answer(Err(failure), false);
            }
        }
    }
}

/// The messages as they are to be stored, or why none of them is.
fn passed(send: Send, became: Vec<Became>, plan: &Plan, reader: &Reader) -> Result<Send> {
    let alone = send.messages.len() == 1;
    let refused = |text: String| Failure::invalid(REFUSED, format!("{}: {text}", plan.place));
    let from = send.messages.first().map(|message| message.topic.clone());
    let mut messages: Vec<Message> = Vec::with_capacity(send.messages.len());
    for (index, (message, became)) in send.messages.into_iter().zip(became).enumerate() {
        let which = if alone { "the message".to_owned() } else { format!("message {index} of the batch") };
        messages.push(match became {
            Became::AsItCame => message,
            Became::Changed(changed, sink) => {
                let topic = plan.sinks.get(sink).cloned().unwrap_or_else(|| changed.topic.clone());
                Message { topic, ..changed }
            }
            Became::Unstorable(failure) => {
                return Err(refused(format!("what became of {which} cannot be stored: {failure}")));
            }
            Became::Refused { plugin, reason } => {
                return Err(refused(format!("plugin {plugin} rejects {which}: {reason}")));
            }
            Became::Failed { plugin: Some(plugin), reason } => {
                return Err(refused(format!("plugin {plugin} fails on {which}: {reason}")));
            }
            Became::Failed { plugin: None, reason } if alone => return Err(refused(reason)),
            Became::Failed { plugin: None, reason } => {
                return Err(refused(format!("{which}: {reason}")));
            }
            Became::Busy(text) => return Err(Failure::new(Kind::Busy, text)),
        });
    }
    let to = messages.first().map(|message| message.topic.clone());
    // One answer names one queue, and a batch stands or falls together.
    if let Some(other) = messages.iter().find(|message| Some(&message.topic) != to.as_ref()) {
        let text =
            format!("messages of one batch would go to several topics, such as {:?}: send them singly", other.topic);
        return Err(refused(text));
    }
    match to.filter(|to| Some(to) != from.as_ref()) {
        None => Ok(Send { messages, ..send }),
        Some(to) => {
            let queues = reader.topic(&to)?.write_queues.max(1);
            // One queue of a sink for each: the order within it is kept.
            let queue = send.queue.map(|queue| QueueId(queue.0 % queues));
            Ok(Send { messages, queue, template: None, ..send })
        }
    }
}
