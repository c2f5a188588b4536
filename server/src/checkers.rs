//! Who decides half messages whose producer said nothing: the producer group, a plugin bound to it, or both.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_broker::{Decider, HalfCheck, Reader, Verdict};
use sluice_model::{
    GroupName, Kind, Message, MessageId, RecordView, Timestamp, TopicName, key, limits,
    record::{self, Placement, UnitPlace},
};
use sluice_protocol::{compress, request::CheckTransaction};
use sluice_runtime::{
    Context, Decision, Grants, HalfMessage, Instance, Plugin, Role, Setup,
    ports::{Hit, Lookup, PortError},
};

use crate::{
    clock,
    failure::{Failure, Result},
    observer::Logs,
    pipelines::check_version,
    plugins::Plugins,
    remoting::Sessions,
    shell::Shell,
};

/// Kind of the documents that hold bindings, by group.
const KIND: &str = "checker";

/// Who is asked, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckPolicy {
    /// The producer; the plugin when none is connected.
    ProducerFirst,
    /// The plugin; the producer when it does not know.
    #[default]
    PluginFirst,
    PluginOnly,
}

/// A plugin that decides the half messages of a producer group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckerSpec {
    /// `name`, `name@1` or `name@sha256:…`.
    pub plugin: String,
    #[serde(default)]
    pub policy: CheckPolicy,
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Topics that the plugin may look messages up in.
    #[serde(default)]
    pub topics: Vec<String>,
}

struct Binding {
    spec: CheckerSpec,
    version: u64,
    plugin: Option<Plugin>,
    /// Made for the first question, and again after a trap.
    instance: Option<Instance>,
    logs: Arc<Logs>,
}

/// The registry of checkers. Its calls block; they are not for async tasks.
pub struct Checkers {
    shell: Shell,
    plugins: Arc<Plugins>,
    sessions: Arc<Sessions>,
    by_group: Mutex<BTreeMap<GroupName, Arc<Mutex<Binding>>>>,
}

impl Checkers {
    pub fn load(shell: Shell, plugins: Arc<Plugins>, sessions: Arc<Sessions>) -> Result<Self> {
        let mut by_group = BTreeMap::new();
        for (name, document) in shell.reader.documents(KIND) {
            let Some((_, body)) = shell.reader.document(KIND, &name)? else { continue };
            let Ok(spec) = serde_json::from_slice::<CheckerSpec>(&body) else {
                tracing::error!(group = name, "a stored checker cannot be read");
                continue;
            };
            let plugin = plugins.resolve_for(&spec.plugin, Role::CheckTransaction);
            if let Err(failure) = &plugin {
                tracing::error!(group = name, %failure, "the checker of a group is missing: its producers are asked");
            }
            let plugin = plugin.ok().map(|version| version.plugin);
            by_group.insert(GroupName::parse(&name)?, binding(spec, document.at.0, plugin));
        }
        Ok(Self { shell, plugins, sessions, by_group: Mutex::new(by_group) })
    }

    /// Binds a plugin to a producer group. Fails when plugin, config or a topic is not what it must be.
    pub fn put(&self, group: &GroupName, spec: CheckerSpec, expected: Option<u64>) -> Result<(CheckerSpec, u64)> {
        check_version(group.as_str(), expected, self.get(group).ok().map(|(_, version)| version))?;
        let version = self.plugins.resolve_for(&spec.plugin, Role::CheckTransaction)?;
        for topic in &spec.topics {
            self.shell.reader.topic(&TopicName::parse(topic)?)?;
        }
        let plugin = version.plugin;
        plugin
            .check_config(&spec.config, &context(group, &spec))
            .map_err(|error| Failure::invalid("config", format!("config: {error}")))?;
        let body = serde_json::to_vec(&spec).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        let name = group.to_string();
        let at = self.shell.ask_blocking(move |broker, now| broker.put_document(KIND, &name, "", body.into(), now))?;
        self.by_group.lock().insert(group.clone(), binding(spec.clone(), at.0, Some(plugin)));
        Ok((spec, at.0))
    }

    pub fn get(&self, group: &GroupName) -> Result<(CheckerSpec, u64)> {
        let binding = self.by_group.lock().get(group).cloned().ok_or_else(|| Failure::not_found("checker", group))?;
        let binding = binding.lock();
        Ok((binding.spec.clone(), binding.version))
    }

    pub fn delete(&self, group: &GroupName) -> Result<()> {
        self.get(group)?;
        let name = group.to_string();
        self.shell.ask_blocking(move |broker, now| broker.delete_document(KIND, &name, now))?;
        self.by_group.lock().remove(group);
        Ok(())
    }

    /// Groups whose checker is this digest.
    pub fn users_of(&self, digest: &str) -> Vec<String> {
        let by_group = self.by_group.lock();
        let uses = |binding: &Arc<Mutex<Binding>>| {
            binding.lock().plugin.as_ref().is_some_and(|plugin| plugin.digest() == digest)
        };
        by_group.iter().filter(|(_, binding)| uses(binding)).map(|(group, _)| group.to_string()).collect()
    }

    /// Has a half message decided whose time has come. Blocks for as long as a plugin may take.
    pub fn check(&self, check: &HalfCheck) {
        let binding = self.by_group.lock().get(&check.half.group).cloned();
        let Some(binding) = binding else {
            self.ask_producer(check);
            return;
        };
        let policy = binding.lock().spec.policy;
        if policy == CheckPolicy::ProducerFirst && self.ask_producer(check) {
            return;
        }
        let decision = self.ask_plugin(&binding, check).unwrap_or_else(|failure| {
            tracing::warn!(group = %check.half.group, %failure, "a checker failed: the half message stays undecided");
            Decision::Unknown
        });
        if decision == Decision::Unknown && policy == CheckPolicy::PluginFirst {
            self.ask_producer(check);
        } else {
            self.settle(check, decision);
        }
    }

    fn settle(&self, check: &HalfCheck, decision: Decision) {
        let half = check.half.clone();
        let verdict = match decision {
            Decision::Commit => Verdict::Commit,
            Decision::Rollback(reason) => {
                tracing::info!(group = %half.group, half = %half.queue_offset, reason, "a checker rolled back");
                Verdict::Rollback
            }
            // It is asked again when it is due.
            Decision::Unknown => return,
            Decision::AskAgainAfter(wait) => return self.ask_again(check, wait),
        };
        let settled = self.shell.ask_blocking(move |broker, now| {
            broker.decide(&half.group, half.queue_offset, half.at, (verdict, Decider::Checker), now)
        });
        if let Err(failure) = settled {
            tracing::warn!(group = %check.half.group, %failure, "a decision came to nothing");
        }
    }

    fn ask_again(&self, check: &HalfCheck, wait: Duration) {
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let half = check.half.queue_offset;
        let asked = self.shell.ask_blocking(move |broker, now| broker.ask_again(half, now.plus_ms(wait_ms), now));
        if let Err(failure) = asked {
            tracing::warn!(group = %check.half.group, %failure, "a half message is asked about at its usual time");
        }
    }

    /// Asks one connected producer of the group, another one each time; answers whether there is one.
    fn ask_producer(&self, check: &HalfCheck) -> bool {
        let producers: Vec<_> = self
            .shell
            .reader
            .members(|members| members.producers(&check.half.group).map(|member| member.session).collect());
        let turn = check.attempt as usize;
        let order = producers.iter().cycle().skip(turn).take(producers.len());
        let request = match question(self.shell.reader.config(), check) {
            Ok(request) => request.encode(),
            Err(failure) => {
                tracing::error!(half = %check.half.queue_offset, %failure, "a half message cannot be read");
                return false;
            }
        };
        let mut sessions = order.filter_map(|id| self.sessions.get(*id));
        sessions.any(|session| session.send_oneway(request.clone()).is_ok())
    }

    fn ask_plugin(&self, binding: &Mutex<Binding>, check: &HalfCheck) -> Result<Decision> {
        let mut binding = binding.lock();
        let message = half_message(check)?;
        let mut instance = match binding.instance.take() {
            Some(instance) => instance,
            None => self.instance(&check.half.group, &binding)?,
        };
        let decided = instance.check(&message);
        if !instance.is_dead() {
            binding.instance = Some(instance);
        }
        decided.map_err(|failure| Failure::new(Kind::Internal, failure.to_string()))
    }

    fn instance(&self, group: &GroupName, binding: &Binding) -> Result<Instance> {
        let plugin = binding.plugin.as_ref().ok_or_else(|| Failure::not_found("plugin", &binding.spec.plugin))?;
        let lookup = ByKey { reader: self.shell.reader.clone() };
        let setup = Setup {
            config: binding.spec.config.clone(),
            context: context(group, &binding.spec),
            grants: Grants { lookup: Some(Arc::new(lookup)), topics: binding.spec.topics.clone() },
            observer: binding.logs.clone(),
            ..Setup::default()
        };
        plugin.instance(setup).map_err(|error| Failure::new(Kind::Internal, error.to_string()))
    }
}

fn binding(spec: CheckerSpec, version: u64, plugin: Option<Plugin>) -> Arc<Mutex<Binding>> {
    Arc::new(Mutex::new(Binding { spec, version, plugin, instance: None, logs: Arc::new(Logs::default()) }))
}

fn context(group: &GroupName, spec: &CheckerSpec) -> Context {
    Context { pipeline: group.to_string(), step: spec.plugin.clone(), ..Context::default() }
}

/// The question as a producer gets it: the message as a stored record, under its own topic.
fn question(config: &sluice_broker::Config, check: &HalfCheck) -> Result<CheckTransaction> {
    let message = check.message()?;
    let half = &check.half;
    let place = Placement {
        queue_offset: half.queue_offset,
        log_offset: half.at,
        stored_at: half.stored_at,
        store_host: config.advertised,
        unit: UnitPlace::ALONE,
    };
    let mut body = Vec::new();
    record::encode(&mut body, &message, &place);
    let own = |name| message.properties.get(name).map(str::to_owned);
    Ok(CheckTransaction {
        topic: Some(message.topic.to_string()),
        half_offset: half.queue_offset,
        log_offset: half.at,
        message_id: own(key::UNIQUE_KEY),
        transaction_id: own(key::TRANSACTION_ID).or_else(|| own(key::UNIQUE_KEY)),
        stored_id: Some(MessageId { broker: config.advertised, log_offset: half.at }.to_string()),
        broker: Some(config.name.clone()),
        body: body.into(),
    })
}

fn half_message(check: &HalfCheck) -> Result<HalfMessage> {
    let message: Message = check.message()?;
    let own = |name| message.properties.get(name).map(str::to_owned);
    let body = match message.sys_flag.compression() {
        None => message.body.to_vec(),
        Some(compression) => compress::decompress(&message.body, compression, limits::SYSTEM_BODY_LEN)
            .map_err(|error| Failure::new(Kind::Corrupt, error.to_string()))?,
    };
    Ok(HalfMessage {
        transaction_id: own(key::TRANSACTION_ID).or_else(|| own(key::UNIQUE_KEY)).unwrap_or_default(),
        topic: message.topic.to_string(),
        producer_group: check.half.group.to_string(),
        key: own(key::KEYS),
        headers: message.properties.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        body,
        born_at: u64::try_from(message.born_at.0).unwrap_or(0),
        attempt: check.attempt,
        max_attempts: check.attempts,
        now: u64::try_from(clock::now().0).unwrap_or(0),
    })
}

/// Lets checkers read messages of granted topics by key.
struct ByKey {
    reader: Reader,
}

impl Lookup for ByKey {
    fn by_key(&self, topic: &str, key: &str, limit: u32) -> std::result::Result<Vec<Hit>, PortError> {
        let failed = |error: sluice_broker::Error| PortError::Failed(error.to_string());
        let topic = TopicName::parse(topic).map_err(|error| failed(error.into()))?;
        let ever = (Timestamp(0), Timestamp(i64::MAX));
        let found = self.reader.by_key(&topic, key, ever, limit as usize).map_err(failed)?;
        found.iter().map(|record| to_hit(record)).collect()
    }
}

fn to_hit(stored: &[u8]) -> std::result::Result<Hit, PortError> {
    let view = RecordView::parse(stored).map_err(|error| PortError::Failed(error.to_string()))?;
    let body = match view.sys_flag().compression() {
        None => view.body().to_vec(),
        Some(compression) => compress::decompress(view.body(), compression, limits::SYSTEM_BODY_LEN)
            .map_err(|error| PortError::Failed(error.to_string()))?,
    };
    Ok(Hit {
        queue: view.queue().0,
        offset: view.queue_offset().0,
        stored_at: u64::try_from(view.stored_at().0).unwrap_or(0),
        headers: view.own_properties().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        body: body.into(),
    })
}
