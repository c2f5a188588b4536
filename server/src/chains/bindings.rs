//! Which chain is bound where. Each binding is a document in the log.

use std::{
    collections::HashMap,
    fmt::Display,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sluice_broker::Reader;
use sluice_model::Kind;

use super::{
    lanes::{Chain, Counts, Work},
    plan::Plan,
};
use crate::{
    documents::{self, Found},
    failure::{Failure, Result},
    observer::Logs,
    pipelines::check_version,
    plugins::{Plugins, Version, Wanted},
    shell::Shell,
    steps::Pins,
};

/// Most bindings of one kind: each has threads.
const BINDINGS_LIMIT: usize = 256;
/// How long what waits for a chain that is to go may take to pass through it.
const PASSING: Duration = Duration::from_secs(5);

/// A kind of place where a chain can be bound.
pub trait Place: Send + Sync + 'static {
    /// Kind of the documents, and the word for it in errors.
    const KIND: &'static str;
    /// Shown as the document's name.
    type Key: Clone + Eq + Ord + Hash + Display + Send + Sync + 'static;
    type Spec: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    type Work: Work;
    /// Whether messages go on that a plugin fails on, where nothing else is said.
    const LENIENT: bool;

    /// The key that a document is named by.
    fn key(document: &str) -> Result<Self::Key>;
    /// Fails with `NotFound`, naming what the key names, when that is not there.
    fn exists(key: &Self::Key, reader: &Reader) -> Result<()>;
    /// Makes what the key names, and is there, stay there over a restart.
    fn keep(key: &Self::Key, shell: &Shell) -> Result<()>;
    /// As errors name it: `ingress of topic "t"`.
    fn name(key: &Self::Key) -> String;
    /// The plugins of its steps, as it names them.
    fn references(spec: &Self::Spec) -> impl Iterator<Item = &str>;
    /// Whether messages go on that a plugin fails on.
    fn is_lenient(spec: &Self::Spec) -> bool;
    /// Looks every name up and checks every value. Starts each plugin once with its config.
    ///
    /// Without `pins` the newest plugins are found that are meant.
    fn plan(key: &Self::Key, spec: &Self::Spec, pins: Option<&Pins>, shell: &Shell, plugins: &Plugins) -> Result<Plan>;
}

/// What a binding's document holds.
#[derive(Clone, Serialize, Deserialize)]
struct Stored<S> {
    spec: S,
    plugins: Pins,
}

struct Bound<P: Place> {
    /// With the place of its document in the log; `None`: it cannot be read.
    stored: Mutex<(Option<Stored<P::Spec>>, u64)>,
    chain: Chain<P::Work>,
}

/// A plugin as it was found when the binding was made.
#[derive(Clone, Debug)]
pub struct Pinned {
    pub reference: String,
    pub label: String,
    pub digest: String,
}

/// How a binding stands.
#[derive(Clone)]
pub struct Description<S> {
    /// `None`: what is stored of it cannot be read.
    pub spec: Option<S>,
    pub version: u64,
    pub plugins: Vec<Pinned>,
    /// Why it does not run.
    pub broken: Option<String>,
    /// Why one of its plugins is not asked at the moment, if one is not.
    pub resting: Option<String>,
    pub counts: Counts,
    /// What its plugins say.
    pub logs: Arc<Logs>,
}

/// The bindings of one kind. Its calls, but for [`Self::find`], block; they are not for async tasks.
pub struct Bindings<P: Place> {
    shell: Shell,
    plugins: Arc<Plugins>,
    /// There are some: while there are none, nobody takes the lock.
    any: AtomicBool,
    by_key: RwLock<HashMap<P::Key, Arc<Bound<P>>>>,
    /// Held while a binding is changed, so that two changes do not meet.
    changing: Mutex<()>,
}

impl<P: Place> Bindings<P> {
    /// Starts every chain that the log holds.
    pub fn load(shell: Shell, plugins: Arc<Plugins>) -> Result<Self> {
        let bindings = Self {
            shell,
            plugins,
            any: AtomicBool::new(false),
            by_key: RwLock::new(HashMap::new()),
            changing: Mutex::new(()),
        };
        for Found { name, at, held } in documents::all(&bindings.shell.reader, P::KIND) {
            bindings.revive(&P::key(&name)?, held, at)?;
        }
        Ok(bindings)
    }

    /// `stored` is what its document holds, or why that cannot be read.
    fn revive(&self, key: &P::Key, stored: std::result::Result<Stored<P::Spec>, String>, version: u64) -> Result<()> {
        if let Err(gone) = P::exists(key, &self.shell.reader) {
            // The crash came between the end of what it was bound to and its own.
            tracing::warn!("{} is deleted, since what it was bound to is gone: {gone}", P::name(key));
            if let Err(failure) = self.forget(key) {
                tracing::error!("{} is over, and its document stays: {failure}", P::name(key));
            }
            return Ok(());
        }
        let broken = |lenient: bool, reason: String| {
            tracing::error!("{} does not run: {reason}", P::name(key));
            Plan { broken: Some(format!("it does not run: {reason}")), lenient, ..Plan::open(P::name(key)) }
        };
        let plan = match &stored {
            Ok(Stored { spec, plugins }) => P::plan(key, spec, Some(plugins), &self.shell, &self.plugins)
                .unwrap_or_else(|failure| broken(P::is_lenient(spec), failure.text)),
            Err(reason) => broken(P::LENIENT, reason.clone()),
        };
        self.plugins.granter().audit().granted(plan.holdings());
        let bound = Bound { stored: Mutex::new((stored.ok(), version)), chain: self.start(plan)? };
        self.by_key.write().insert(key.clone(), Arc::new(bound));
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    fn start(&self, plan: Plan) -> Result<Chain<P::Work>> {
        let shell = self.shell.standing_back();
        Chain::start(P::KIND, plan, move || shell.work())
    }

    /// Binds a chain or replaces it; what comes from now on is judged by the new one.
    ///
    /// With `expected`, fails with `Conflict` unless that is the version in place (0: none).
    pub fn put(&self, key: &P::Key, spec: P::Spec, expected: Option<u64>) -> Result<Description<P::Spec>> {
        let _changing = self.changing.lock();
        let _using = self.plugins.using();
        let known = self.by_key.read().get(key).cloned();
        check_version(&key.to_string(), expected, known.as_ref().map(|bound| bound.stored.lock().1))?;
        if known.is_none() && self.by_key.read().len() >= BINDINGS_LIMIT {
            return Err(Failure::new(Kind::Full, format!("there are {BINDINGS_LIMIT} of kind {} already", P::KIND)));
        }
        P::exists(key, &self.shell.reader)?;
        let plan = P::plan(key, &spec, None, &self.shell, &self.plugins)?;
        P::keep(key, &self.shell)?;
        let plugins = plan.steps.iter().map(|step| step.plugin.digest().to_owned()).collect();
        let stored = Stored { spec, plugins };
        let body = serde_json::to_vec(&stored).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        let name = key.to_string();
        let put =
            move |broker: &mut sluice_broker::Broker, now| broker.put_document(P::KIND, &name, "", body.into(), now);
        match known {
            Some(bound) => {
                let version = self.shell.ask_blocking(put)?.0;
                *bound.stored.lock() = (Some(stored), version);
                let (audit, before) = (self.plugins.granter().audit(), bound.chain.plan());
                audit.withdrawn(before.holdings());
                audit.granted(plan.holdings());
                bound.chain.replace(plan);
            }
            None => {
                let chain = self.start(plan)?;
                let version = self.shell.ask_blocking(put)?.0;
                self.plugins.granter().audit().granted(chain.plan().holdings());
                let bound = Bound { stored: Mutex::new((Some(stored), version)), chain };
                self.by_key.write().insert(key.clone(), Arc::new(bound));
                self.any.store(true, Ordering::Release);
            }
        }
        self.describe(key)
    }

    /// With `expected`, fails with `Conflict` unless that is the version in place; with `NotFound` when nothing is bound there.
    pub fn delete(&self, key: &P::Key, expected: Option<u64>) -> Result<()> {
        let _changing = self.changing.lock();
        let bound = self.bound(key)?;
        check_version(&key.to_string(), expected, Some(bound.stored.lock().1))?;
        self.remove(key)
    }

    /// Deletes the bindings whose keys `which` picks.
    pub fn delete_all(&self, which: impl Fn(&P::Key) -> bool) -> Result<()> {
        let _changing = self.changing.lock();
        let doomed: Vec<P::Key> = self.by_key.read().keys().filter(|key| which(key)).cloned().collect();
        doomed.iter().try_for_each(|key| self.remove(key))
    }

    /// What waits in the chain passes it unjudged before what comes now goes past it: the order stays.
    fn remove(&self, key: &P::Key) -> Result<()> {
        let bound = self.bound(key)?;
        self.forget(key)?;
        self.plugins.granter().audit().withdrawn(bound.chain.plan().holdings());
        bound.chain.replace(Plan::open(P::name(key)));
        let until = Instant::now() + PASSING;
        loop {
            let mut by_key = self.by_key.write();
            if bound.chain.is_idle() || Instant::now() >= until {
                by_key.remove(key);
                self.any.store(!by_key.is_empty(), Ordering::Release);
                break;
            }
            drop(by_key);
            std::thread::sleep(Duration::from_millis(1));
        }
        bound.chain.stop();
        Ok(())
    }

    fn forget(&self, key: &P::Key) -> Result<()> {
        let name = key.to_string();
        self.shell.ask_blocking(move |broker, now| broker.delete_document(P::KIND, &name, now))
    }

    /// Lends the chain that is bound there, if one is, to `look`, which must not block: it keeps the binding in place.
    pub fn find<T>(&self, key: &P::Key, look: impl FnOnce(&Chain<P::Work>) -> T) -> Option<T> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.by_key.read().get(key).map(|bound| look(&bound.chain))
    }

    /// Whether there are any bindings.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    fn bound(&self, key: &P::Key) -> Result<Arc<Bound<P>>> {
        self.by_key.read().get(key).cloned().ok_or_else(|| Failure::not_found(P::KIND, key))
    }

    /// Fails with `NotFound`.
    pub fn describe(&self, key: &P::Key) -> Result<Description<P::Spec>> {
        Ok(description(&*self.bound(key)?))
    }

    /// What the plugins there say. Fails with `NotFound`.
    pub fn logs(&self, key: &P::Key) -> Result<Arc<Logs>> {
        Ok(self.bound(key)?.chain.logs())
    }

    /// All bindings, by key.
    pub fn list(&self) -> Vec<(P::Key, Description<P::Spec>)> {
        let by_key = self.by_key.read();
        let mut all: Vec<_> = by_key.iter().map(|(key, bound)| (key.clone(), description(bound))).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Where this version of a plugin is bound.
    pub fn users_of(&self, version: &Version) -> Vec<String> {
        let by_key = self.by_key.read();
        let uses = |bound: &Bound<P>| {
            bound.stored.lock().0.as_ref().is_some_and(|Stored { spec, plugins }| {
                P::references(spec).zip(plugins).any(|(reference, digest)| Wanted::uses(reference, digest, version))
            })
        };
        by_key.iter().filter(|(_, bound)| uses(bound)).map(|(key, _)| key.to_string()).collect()
    }

    /// Ends all chains; what waits is refused.
    pub fn stop_all(&self) {
        let all: Vec<_> = self.by_key.read().values().cloned().collect();
        all.iter().for_each(|bound| bound.chain.stop());
    }
}

fn description<P: Place>(bound: &Bound<P>) -> Description<P::Spec> {
    let (stored, version) = bound.stored.lock().clone();
    let spec = stored.map(|stored| stored.spec);
    let plan = bound.chain.plan();
    let pinned = plan.steps.iter().map(|step| Pinned {
        reference: step.reference.clone(),
        label: step.label.clone(),
        digest: step.plugin.digest().to_owned(),
    });
    let (counts, logs, resting) = (bound.chain.counts(), bound.chain.logs(), bound.chain.resting());
    Description { spec, version, plugins: pinned.collect(), broken: plan.broken.clone(), resting, counts, logs }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use std::sync::mpsc::channel;

    use bytes::Bytes;
    use sluice_broker::{Send, Topic};
    use sluice_model::{Host, Message, Properties, Timestamp, TopicName};

    use super::*;
    use crate::{
        grants::Granter,
        ingress::{IngressSpec, Ingresses},
        secrets::Secrets,
    };

    /// What comes of a message that is sent through the ingresses.
    fn send(shell: &Shell, ingresses: &Ingresses, body: impl Into<Bytes>) -> Result<()> {
        send_watched(shell, ingresses, body, || ()).0
    }

    /// The same, and what the thread saw that gave the answer.
    fn send_watched<T: std::marker::Send + 'static>(
        shell: &Shell,
        ingresses: &Ingresses,
        body: impl Into<Bytes>,
        look: impl FnOnce() -> T + std::marker::Send + 'static,
    ) -> (Result<()>, T) {
        let topic = TopicName::parse("t").unwrap();
        let message = Message::new(topic, sluice_model::QueueId(0), Timestamp(1), Properties::default(), body.into());
        let messages = vec![Message { born_host: Host::LOCAL, ..message }];
        let (told, answer) = channel();
        let send = Send { messages, queue: None, template: None, max_reconsume_times: None };
        ingresses.send(shell, 1, send, move |sent, _| told.send((sent.map(drop), look())).unwrap());
        shell.work();
        answer.recv().unwrap()
    }

    /// A broker with the topic `t`, and the filter `json-filter` in a runtime for so many instances.
    fn world(dir: &std::path::Path, instances: u32) -> (Shell, Arc<Plugins>) {
        let shell = crate::shell::tests::start(dir);
        let config = sluice_runtime::Config { instances, ..Default::default() };
        let granter = Granter::new(shell.reader.clone(), Secrets::new(dir.join("secrets")));
        let runtime = sluice_runtime::Runtime::new(config).unwrap();
        let plugins = Arc::new(Plugins::load(runtime, granter, shell.clone()).unwrap());
        let component = sluice_plugins::ready_made("json-filter").unwrap().component;
        plugins.put("json-filter", Bytes::from_static(component)).unwrap();
        let topic = Topic::new(TopicName::parse("t").unwrap(), 1);
        shell.ask_blocking(move |broker, now| broker.put_topic(topic, now)).unwrap();
        (shell, plugins)
    }

    fn paid(more: serde_json::Value) -> IngressSpec {
        let config = serde_json::json!({ "path": "/status", "equals": "paid" });
        let mut spec = serde_json::json!({ "steps": [{ "plugin": "json-filter", "config": config }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn where_all_instances_are_in_use_a_chain_starts_with_the_first_message_that_finds_room() {
        let topic = TopicName::parse("t").unwrap();
        for lenient in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (shell, plugins) = world(dir.path(), 1);
            let on_failure = if lenient { "pass" } else { "reject" };
            let spec = paid(serde_json::json!({ "on_failure": on_failure }));
            let ingresses = Ingresses::load(shell.clone(), plugins.clone()).unwrap();
            ingresses.put(&topic, spec.clone(), None).unwrap();
            ingresses.stop_all();

            let setup = sluice_runtime::Setup { config: spec.steps[0].config.clone(), ..Default::default() };
            let held = plugins.resolve("json-filter").unwrap().plugin.instance(setup).unwrap();
            let ingresses = Ingresses::load(shell.clone(), plugins).unwrap();
            assert_eq!(ingresses.describe(&topic).unwrap().broken, None);
            let sent = send(&shell, &ingresses, r#"{"status":"new"}"#);
            assert_eq!(sent.map_err(|failure| failure.kind), if lenient { Ok(()) } else { Err(Kind::Busy) });
            assert_eq!(ingresses.describe(&topic).unwrap().counts.unasked, 1);

            drop(held);
            send(&shell, &ingresses, r#"{"status":"paid"}"#).unwrap();
            let refused = send(&shell, &ingresses, r#"{"status":"new"}"#).unwrap_err();
            assert!(refused.text.contains("filtered"), "{refused}");
        }
    }

    #[test]
    fn what_everybody_needs_is_not_touched_by_a_thread_that_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, plugins) = world(dir.path(), 8);
        let ingresses = Ingresses::load(shell.clone(), plugins).unwrap();
        let spec = paid(serde_json::json!({ "limits": { "memory": "2MiB" } }));
        let topic = TopicName::parse("t").unwrap();
        ingresses.put(&topic, spec, None).unwrap();
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        let usual = policy();
        for _ in 0..3 {
            let (sent, policy) = send_watched(&shell, &ingresses, vec![b' '; 3 << 20], policy);
            assert!(sent.unwrap_err().text.contains("memory"));
            assert_eq!(policy, usual);
        }
        assert_eq!(ingresses.describe(&topic).unwrap().counts.traps, 3, "time was wasted");
    }

    #[test]
    fn an_ingress_that_cannot_be_read_refuses_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let shell = crate::shell::tests::start(dir.path());
        let plugins = Arc::new(crate::plugins::tests::load(&shell, dir.path()));
        let topic = TopicName::parse("t").unwrap();
        let made = topic.clone();
        let make = move |broker: &mut sluice_broker::Broker, now| {
            broker.put_topic(Topic::new(made, 1), now)?;
            broker.put_document("ingress", "t", "", "{}".into(), now)
        };
        shell.ask_blocking(make).unwrap();
        let ingresses = Ingresses::load(shell.clone(), plugins).unwrap();
        let refused = send(&shell, &ingresses, "").unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(crate::ingress::REFUSED));
        assert!(refused.text.contains("its stored document cannot be read: "), "{refused}");
        let shown = ingresses.describe(&topic).unwrap();
        assert!(shown.spec.is_none() && shown.broken.is_some());
        ingresses.delete(&topic, None).unwrap();
        send(&shell, &ingresses, "").unwrap();
    }
}
