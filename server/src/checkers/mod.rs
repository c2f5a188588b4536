//! Who decides half messages whose producer said nothing: the producer group, a plugin bound to it, or both.

mod desk;
mod lane;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_broker::HalfCheck;
use sluice_model::{GroupName, Kind};
use sluice_runtime::{Context, Error, Grants, Limits, Plugin, Role, Setup};

use crate::{
    audit::Holding,
    breaker::Breaker,
    chains::check_limits,
    documents::{self, Found},
    failure::{Failure, Result},
    grants::{GrantsSpec, Site},
    observer::Logs,
    pipelines::check_version,
    plugins::{Plugins, Version, Wanted},
    remoting::Sessions,
    shell::Shell,
    steps::LimitsSpec,
};
pub use desk::Answers;
use desk::{Desk, Seat};
use lane::{Lane, REST_LIMIT};

/// Kind of the documents that hold bindings, by group; also the word for it in the audit.
const KIND: &str = "checker";
/// Most bindings: each has a thread.
const BINDINGS_LIMIT: usize = 256;

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
    /// Topics that the plugin may look messages up in, beside those of `grants`; at most 32.
    #[serde(default)]
    pub topics: Vec<String>,
    #[serde(default, skip_serializing_if = "GrantsSpec::is_empty")]
    pub grants: GrantsSpec,
    /// `memory` of its instance, and the `deadline` of a question, `50ms` when left out; waiting for what it was granted does not count.
    #[serde(default, skip_serializing_if = "LimitsSpec::is_empty")]
    pub limits: LimitsSpec,
}

impl CheckerSpec {
    fn checked_limits(&self, plugins: &Plugins) -> Result<Limits> {
        let usual = Limits::default();
        let limits = check_limits(&self.limits, plugins)?;
        let check_deadline = if self.limits.deadline.is_some() { limits.deadline } else { usual.check_deadline };
        Ok(Limits { deadline: usual.deadline, check_deadline, ..limits })
    }

    /// All that the plugin is granted.
    pub fn granted(&self) -> GrantsSpec {
        let mut granted = self.grants.clone();
        granted.topics.extend(self.topics.iter().filter(|topic| !self.grants.topics.contains(topic)).cloned());
        granted
    }
}

/// What a binding's document holds.
#[derive(Serialize, Deserialize)]
struct Stored {
    spec: CheckerSpec,
    /// Of the plugin that was found: an upload changes nothing until the checker is put again.
    digest: String,
}

/// How a checker stands.
#[derive(Clone)]
pub struct Description {
    /// `None`: what is stored of it cannot be read, and producers are asked.
    pub spec: Option<CheckerSpec>,
    pub version: u64,
    /// Of the plugin that decides.
    pub digest: Option<String>,
    /// Why it does not run.
    pub broken: Option<String>,
    /// Why it is not asked at the moment, if it is not.
    pub resting: Option<String>,
    pub answers: Answers,
    /// What the plugin says.
    pub logs: Arc<Logs>,
}

/// What is bound to a group at a time.
struct Bound {
    spec: CheckerSpec,
    version: u64,
    digest: String,
    /// Or why it does not run.
    plugin: std::result::Result<Plugin, String>,
    grants: Grants,
    limits: Limits,
    holding: Option<Holding>,
    answers: Mutex<Answers>,
    breaker: Breaker,
    logs: Arc<Logs>,
}

impl Bound {
    fn description(&self) -> Description {
        Description {
            spec: Some(self.spec.clone()),
            version: self.version,
            digest: Some(self.digest.clone()),
            broken: self.plugin.as_ref().err().cloned(),
            resting: self.breaker.reason(),
            answers: *self.answers.lock(),
            logs: self.logs.clone(),
        }
    }
}

/// A checker whose document cannot be read. It can be replaced and deleted.
struct Unread {
    version: u64,
    reason: String,
}

impl Unread {
    fn description(&self) -> Description {
        Description {
            spec: None,
            version: self.version,
            digest: None,
            broken: Some(self.reason.clone()),
            resting: None,
            answers: Answers::default(),
            logs: Arc::default(),
        }
    }
}

struct Binding {
    bound: Arc<Mutex<Arc<Bound>>>,
    lane: Lane,
}

/// The registry of checkers. Its calls, but for [`Self::check`], block; they are not for async tasks.
pub struct Checkers {
    desk: Desk,
    plugins: Arc<Plugins>,
    by_group: Mutex<BTreeMap<GroupName, Arc<Binding>>>,
    unread: Mutex<BTreeMap<GroupName, Unread>>,
    /// Held while a binding is changed, so that two changes do not meet.
    changing: Mutex<()>,
}

impl Checkers {
    pub fn load(shell: Shell, plugins: Arc<Plugins>, sessions: Arc<Sessions>) -> Result<Self> {
        let desk = Desk { shell: shell.standing_back(), sessions };
        let checkers =
            Self { desk, plugins, by_group: Mutex::default(), unread: Mutex::default(), changing: Mutex::new(()) };
        let reader = &checkers.desk.shell.reader;
        for Found { name, at, held } in documents::all::<Stored>(reader, KIND) {
            let group = GroupName::parse(&name)?;
            let Stored { spec, digest } = match held {
                Ok(stored) => stored,
                Err(reason) => {
                    tracing::error!(
                        group = name,
                        reason,
                        "the checker of a group does not run: its producers are asked"
                    );
                    checkers.unread.lock().insert(group, Unread { version: at, reason });
                    continue;
                }
            };
            let plugin = checkers.plugins.resolve_digest(&spec.plugin, &digest);
            if let Err(failure) = &plugin {
                let instead = match spec.policy {
                    CheckPolicy::PluginOnly => "nobody is asked, its half messages stay undecided",
                    CheckPolicy::ProducerFirst | CheckPolicy::PluginFirst => "its producers are asked",
                };
                tracing::error!(group = name, %failure, "the checker of a group does not run: {instead}");
            }
            let site = site(&group, Arc::default());
            // A secret that is gone is missed by the plugin when it asks for it; until then it decides what it can.
            let plugin = plugin.map(|version| version.plugin).map_err(|failure| failure.text);
            let bound = checkers.bound(Stored { spec, digest }, at, plugin, &site)?;
            checkers.install(&group, bound, &site)?;
        }
        Ok(checkers)
    }

    /// Binds a plugin to a producer group. Fails when plugin, config or something that is granted is not what it must be.
    ///
    /// The same again changes nothing, unless its plugin has a newer version or it was granted secrets, which are read anew then.
    pub fn put(&self, group: &GroupName, spec: CheckerSpec, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let _using = self.plugins.using();
        let known = self.by_group.lock().get(group).cloned();
        let unread = self.unread.lock().get(group).map(|unread| unread.version);
        check_version(group.as_str(), expected, known.as_ref().map(|known| known.bound.lock().version).or(unread))?;
        if known.is_none() && self.by_group.lock().len() >= BINDINGS_LIMIT {
            return Err(Failure::new(Kind::Full, format!("there are {BINDINGS_LIMIT} checkers already")));
        }
        let plugin = self.plugins.resolve_for(&spec.plugin, Role::CheckTransaction)?.plugin;
        let digest = plugin.digest().to_owned();
        if let Some(known) = known.as_ref().map(|known| known.bound.lock().clone())
            && (&known.spec, &known.digest) == (&spec, &digest)
            && known.plugin.is_ok()
            && spec.grants.secrets.is_empty()
        {
            return Ok(known.description());
        }
        let site = site(group, known.as_ref().map_or_else(Arc::default, |known| known.lane.stopping().clone()));
        let topics = GrantsSpec { topics: spec.topics.clone(), ..GrantsSpec::default() };
        self.plugins.granter().check(&topics, &site, |_| "topics".to_owned())?;
        self.plugins.granter().check(&spec.grants, &site, |part| format!("grants.{part}"))?;
        let (context, limits) = (context(group.as_str(), &spec), spec.checked_limits(&self.plugins)?);
        let setup = Setup { config: spec.config.clone(), context, limits, ..Setup::default() };
        plugin.instance(setup).map_err(|error| match error {
            Error::Start { failure: sluice_runtime::Failure::Memory { .. }, .. } => {
                Failure::invalid("limits.memory", format!("limits.memory: {error}"))
            }
            error => Failure::not_started(&error, |text| Failure::invalid("config", format!("config: {text}"))),
        })?;
        let stored = Stored { spec, digest };
        let body = serde_json::to_vec(&stored).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        let name = group.to_string();
        let put = move |broker: &mut sluice_broker::Broker, now| broker.put_document(KIND, &name, "", body.into(), now);
        let at = self.desk.shell.ask_blocking(put)?;
        self.unread.lock().remove(group);
        let bound = self.bound(stored, at.0, Ok(plugin), &site)?;
        let description = bound.description();
        match known {
            None => self.install(group, bound, &site)?,
            Some(known) => {
                let audit = self.plugins.granter().audit();
                let bound = Arc::new(bound);
                let before = std::mem::replace(&mut *known.bound.lock(), bound.clone());
                audit.withdrawn(&before.holding);
                audit.granted(&bound.holding);
            }
        }
        Ok(description)
    }

    fn bound(
        &self,
        stored: Stored,
        version: u64,
        plugin: std::result::Result<Plugin, String>,
        site: &Site,
    ) -> Result<Bound> {
        let Stored { spec, digest } = stored;
        let (granted, logs, limits) = (spec.granted(), Arc::default(), spec.checked_limits(&self.plugins)?);
        let grants = self.plugins.granter().grant(&granted, site, &spec.plugin, &digest)?;
        let holding = plugin.as_ref().ok().and_then(|_| site.holding(&granted, &spec.plugin, &digest));
        let breaker = Breaker::of(&spec.plugin, REST_LIMIT);
        Ok(Bound { spec, version, digest, plugin, grants, limits, holding, answers: Mutex::default(), breaker, logs })
    }

    /// Gives a group a lane of its own.
    fn install(&self, group: &GroupName, bound: Bound, site: &Site) -> Result<()> {
        self.plugins.granter().audit().granted(&bound.holding);
        let bound = Arc::new(Mutex::new(Arc::new(bound)));
        let (desk, its) = (self.desk.clone(), bound.clone());
        let (mut last, mut seat): (Option<Arc<Bound>>, Seat) = Default::default();
        let each = move |check: &HalfCheck| {
            let now = its.lock().clone();
            if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &now)) {
                (last, seat.instance) = (Some(now.clone()), None);
            }
            desk.check(&now, &mut seat, check)
        };
        let lane = Lane::start(site.stopping.clone(), each)?;
        self.by_group.lock().insert(group.clone(), Arc::new(Binding { bound, lane }));
        Ok(())
    }

    /// Fails with `NotFound`.
    pub fn describe(&self, group: &GroupName) -> Result<Description> {
        let unread = self.unread.lock().get(group).map(Unread::description);
        unread.map_or_else(|| Ok(self.binding(group)?.bound.lock().description()), Ok)
    }

    /// All checkers, by group.
    pub fn list(&self) -> Vec<(GroupName, Description)> {
        let described = |(group, binding): (&GroupName, &Arc<Binding>)| {
            let description = binding.bound.lock().description();
            (group.clone(), description)
        };
        let mut all: Vec<_> = self.by_group.lock().iter().map(described).collect();
        all.extend(self.unread.lock().iter().map(|(group, unread)| (group.clone(), unread.description())));
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// What the plugin logged since it was bound, or since the server started.
    pub fn logs(&self, group: &GroupName) -> Result<Arc<Logs>> {
        Ok(self.describe(group)?.logs)
    }

    fn binding(&self, group: &GroupName) -> Result<Arc<Binding>> {
        self.by_group.lock().get(group).cloned().ok_or_else(|| Failure::not_found("checker", group))
    }

    /// With `expected`, fails with `Conflict` unless that is the version in place; with `NotFound` when nothing is bound there.
    pub fn delete(&self, group: &GroupName, expected: Option<u64>) -> Result<()> {
        let _changing = self.changing.lock();
        check_version(group.as_str(), expected, Some(self.describe(group)?.version))?;
        let name = group.to_string();
        self.desk.shell.ask_blocking(move |broker, now| broker.delete_document(KIND, &name, now))?;
        self.unread.lock().remove(group);
        let binding = self.by_group.lock().remove(group);
        if let Some(binding) = binding {
            binding.lane.stop();
            self.plugins.granter().audit().withdrawn(&binding.bound.lock().holding);
        }
        Ok(())
    }

    /// Groups whose checker is this version of a plugin.
    pub fn users_of(&self, version: &Version) -> Vec<String> {
        let by_group = self.by_group.lock();
        let uses = |binding: &Arc<Binding>| {
            let bound = binding.bound.lock();
            Wanted::uses(&bound.spec.plugin, &bound.digest, version)
        };
        by_group.iter().filter(|(_, binding)| uses(binding)).map(|(group, _)| group.to_string()).collect()
    }

    /// Has a half message decided whose time has come, on the lane of its group. Gives it back when nothing is bound to the group: then
    /// [`Self::ask_producer`]. Does not block.
    pub fn check(&self, check: HalfCheck) -> Option<HalfCheck> {
        let binding = self.by_group.lock().get(&check.half.group).cloned();
        match binding {
            Some(binding) => {
                binding.lane.push(check);
                None
            }
            None => Some(check),
        }
    }

    /// Asks a connected producer of the half message's group, if there is one.
    pub fn ask_producer(&self, check: &HalfCheck) {
        self.desk.ask_producer(check);
    }

    /// Ends all lanes; what waits stays undecided.
    pub fn stop_all(&self) {
        let all: Vec<_> = self.by_group.lock().values().cloned().collect();
        all.iter().for_each(|binding| binding.lane.stopping().store(true, Ordering::Release));
        all.iter().for_each(|binding| binding.lane.stop());
    }
}

fn site(group: &GroupName, stopping: Arc<AtomicBool>) -> Site {
    Site { kind: KIND, name: group.to_string(), hurried: None, stopping }
}

fn context(group: &str, spec: &CheckerSpec) -> Context {
    Context { pipeline: group.to_string(), step: spec.plugin.clone(), ..Context::default() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use bytes::Bytes;
    use sluice_broker::Topic;
    use sluice_model::TopicName;

    use super::*;

    #[test]
    fn a_checker_whose_plugin_is_missing_says_so_until_it_is_put_again() {
        let dir = tempfile::tempdir().unwrap();
        let shell = crate::shell::tests::start(dir.path());
        let plugins = Arc::new(crate::plugins::tests::load(&shell, dir.path()));
        let component = sluice_plugins::ready_made("ledger-checker").unwrap().component;
        let digest = plugins.check("ledger-checker", component).unwrap().1.digest;
        let spec =
            serde_json::json!({ "plugin": "ledger-checker", "config": { "topic": "ledger" }, "topics": ["ledger"] });
        let body = serde_json::json!({ "spec": spec, "digest": digest }).to_string();
        let make = move |broker: &mut sluice_broker::Broker, now| {
            broker.put_topic(Topic::new(TopicName::parse("ledger")?, 1), now)?;
            broker.put_document(KIND, "shop", "", body.into(), now)
        };
        shell.ask_blocking(make).unwrap();
        let checkers = Checkers::load(shell, plugins.clone(), Arc::default()).unwrap();
        let group = GroupName::parse("shop").unwrap();
        assert!(checkers.describe(&group).unwrap().broken.unwrap().contains("does not exist"));

        plugins.put("ledger-checker", Bytes::from_static(component)).unwrap();
        let put = checkers.put(&group, serde_json::from_value(spec).unwrap(), None).unwrap();
        assert_eq!(put.broken, None);
        checkers.stop_all();
    }

    #[test]
    fn one_that_cannot_be_read_is_shown_and_replaced_or_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let shell = crate::shell::tests::start(dir.path());
        let plugins = Arc::new(crate::plugins::tests::load(&shell, dir.path()));
        let component = sluice_plugins::ready_made("ledger-checker").unwrap().component;
        plugins.put("ledger-checker", Bytes::from_static(component)).unwrap();
        let make = move |broker: &mut sluice_broker::Broker, now| {
            broker.put_topic(Topic::new(TopicName::parse("ledger")?, 1), now)?;
            broker.put_document(KIND, "bank", "", "{}".into(), now)?;
            broker.put_document(KIND, "shop", "", "{}".into(), now)
        };
        shell.ask_blocking(make).unwrap();
        let checkers = Checkers::load(shell.clone(), plugins.clone(), Arc::default()).unwrap();
        let [bank, shop] = ["bank", "shop"].map(|name| GroupName::parse(name).unwrap());
        let shown = checkers.describe(&shop).unwrap();
        assert!(shown.spec.is_none() && shown.broken.unwrap().starts_with("its stored document cannot be read: "));
        assert_eq!(
            checkers.list().into_iter().map(|(group, _)| group).collect::<Vec<_>>(),
            [bank.clone(), shop.clone()]
        );

        checkers.delete(&bank, None).unwrap();
        assert!(checkers.describe(&bank).is_err() && checkers.delete(&bank, None).is_err());
        let spec =
            serde_json::json!({ "plugin": "ledger-checker", "config": { "topic": "ledger" }, "topics": ["ledger"] });
        let spec: CheckerSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(checkers.put(&shop, spec.clone(), Some(0)).err().map(|failure| failure.kind), Some(Kind::Conflict));
        let put = checkers.put(&shop, spec.clone(), Some(shown.version)).unwrap();
        assert_eq!((put.spec.as_ref(), put.broken), (Some(&spec), None));
        checkers.stop_all();
        let checkers = Checkers::load(shell, plugins, Arc::default()).unwrap();
        assert_eq!(checkers.list().len(), 1);
        assert_eq!(checkers.describe(&shop).unwrap().spec, Some(spec));
        checkers.stop_all();
    }
}
