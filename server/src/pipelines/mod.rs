//! Pipelines: plugins between topics. Each is a document in the log and, unless paused, a thread.

mod change;
mod dead;
mod pinned;
mod queue;
mod revision;
mod run;
mod shadow;
mod share;
mod spec;
mod state;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sluice_broker::{Token, is_state_topic};
use sluice_model::Kind;

pub use change::check_version;
pub use dead::{DeadLetters, ErrorGroup, IDS_LIMIT, Purge, Replay, Which};
pub use queue::later_id;
pub use revision::{Candidate, Mode, Offsets, Reason, Revision};
pub use run::{QueueStatus, Status, Versions};
pub use shadow::{Became, Example, Kept, Report};
pub use spec::{Checked, Spec};
pub use state::{Found, States};

use crate::{
    audit::Holding,
    documents,
    failure::{Failure, Result},
    observer::Logs,
    plugins::{Plugins, Version, Wanted},
    shell::Shell,
};
use revision::Stored;
use run::{Canary, Running, Unserved};
use shadow::{Pair, Shadow};
use share::Share;
use state::Place;

/// Kind of the documents that hold pipelines, by name.
const KIND: &str = "pipeline";
/// Most pipelines: each has a thread.
const PIPELINES_LIMIT: usize = 256;
/// When a pipeline is started again for which there was no room, at first and at the latest; the wait doubles.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(30);

struct Pipeline {
    id: u32,
    stored: Stored,
    /// Place of its document in the log.
    version: u64,
    running: Option<Running>,
    /// The candidate that runs beside it.
    shadow: Option<Shadow>,
    /// Why the candidate does not run, though the live version does.
    untried: Option<Failure>,
    /// What its plugins are granted while they run.
    holdings: Vec<Holding>,
    /// Why it could not be started.
    broken: Option<Broken>,
    logs: Arc<Logs>,
}

struct Broken {
    failure: Failure,
    /// When it is tried again, and how long that took; where that may help.
    again: Option<(Instant, Duration)>,
}

impl Broken {
    /// `before` is how the last try ended, if that is why it is tried again.
    fn new(failure: Failure, before: Option<&Self>) -> Self {
        let waited = before.and_then(|before| before.again).map(|(_, wait)| wait);
        let wait = waited.map_or(AGAIN_FIRST, |wait| (wait * 2).min(AGAIN_LAST));
        // Others may give back what they have, and a disk may be well again.
        let passes = matches!(failure.kind, Kind::Busy | Kind::Full | Kind::Unavailable);
        Self { failure, again: passes.then(|| (Instant::now() + wait, wait)) }
    }
}

struct Unread {
    /// Place of its document in the log.
    version: u64,
    reason: String,
}

/// How a pipeline stands.
#[derive(Clone)]
pub struct Description {
    pub name: String,
    /// `None`: what is stored of it cannot be read.
    pub spec: Option<Spec>,
    pub version: u64,
    /// What runs: the live revision's number, 0 when it cannot be read, and the digests of its plugins by step.
    pub revision: u64,
    pub plugins: Vec<String>,
    pub candidate: Option<Candidate>,
    pub status: Status,
    pub queues: Vec<QueueStatus>,
    /// What its plugins say.
    pub logs: Arc<Logs>,
}

/// All revisions of a pipeline.
#[derive(Clone, Debug)]
pub struct History {
    pub tried: Option<Revision>,
    pub live: Revision,
    /// The newest last.
    pub past: Vec<Revision>,
}

/// How a version does that is being tried.
#[derive(Clone, Debug)]
pub struct Trial {
    pub candidate: Candidate,
    /// Version of the pipeline's document.
    pub version: u64,
    /// Of a canary and of the live revision beside it, by queue; of a shadow only the live one's.
    pub queues: Vec<QueueStatus>,
    /// Of a shadow that runs.
    pub report: Option<Report>,
    /// Why it does not run.
    pub stopped: Option<String>,
}

/// The registry of pipelines. Its calls block; they are not for async tasks.
pub struct Pipelines {
    shell: Shell,
    plugins: Arc<Plugins>,
    share: Arc<Share>,
    /// Where the files of states are.
    folder: PathBuf,
    /// No pipeline is started any more.
    stopping: AtomicBool,
    next_id: AtomicU32,
    by_name: Mutex<BTreeMap<String, Pipeline>>,
    /// Those whose document cannot be read. They can be replaced and deleted.
    unread: Mutex<BTreeMap<String, Unread>>,
    /// Held while a pipeline is changed, so that two changes do not meet.
    changing: Mutex<()>,
    /// Whose dead letters are being replayed or purged.
    dealing: dead::Dealing,
}

impl Pipelines {
    /// Starts every pipeline that the log holds and that is not paused.
    ///
    /// `folder` is for the files of what processors keep.
    pub fn load(shell: Shell, plugins: Arc<Plugins>, folder: PathBuf) -> Result<Self> {
        let pipelines = Self {
            shell,
            share: Share::of(plugins.runtime().config().instances),
            plugins,
            folder,
            stopping: AtomicBool::new(false),
            next_id: AtomicU32::new(1),
            by_name: Mutex::default(),
            unread: Mutex::default(),
            changing: Mutex::new(()),
            dealing: dead::Dealing::default(),
        };
        let mut found = Vec::new();
        for documents::Found { name, at: version, held } in documents::all::<Stored>(&pipelines.shell.reader, KIND) {
            match held {
                Ok(stored) => found.push((stored, version)),
                Err(reason) => {
                    tracing::error!(pipeline = name, reason, "a pipeline does not start");
                    pipelines.unread.lock().insert(name, Unread { version, reason });
                }
            }
        }
        if !pipelines.unread.lock().is_empty() {
            tracing::warn!(
                "what no pipeline keeps any more stays: it may be that of one whose document cannot be read"
            );
        } else if let Err(failure) = pipelines.sweep(&found) {
            tracing::error!(%failure, "what no pipeline keeps any more stays");
        }
        found.into_iter().for_each(|(stored, version)| pipelines.revive(stored, version));
        Ok(pipelines)
    }

    /// Deletes what no pipeline keeps any more: a crash may have come between the end of a pipeline and that of its state.
    fn sweep(&self, found: &[(Stored, u64)]) -> Result<()> {
        let places: Vec<Place> = found.iter().map(|(stored, _)| self.place(stored)).collect::<Result<_>>()?;
        for topic in self.shell.reader.topics().1.into_iter().map(|topic| topic.name.clone()) {
            if is_state_topic(&topic) && !places.iter().any(|place| place.topic == topic) {
                tracing::info!(%topic, "what a pipeline kept that is gone is deleted");
                self.shell.ask_blocking(move |broker, now| broker.delete_state_topic(&topic, now))?;
            }
        }
        Place::sweep(&self.folder, &places);
        Ok(())
    }

    fn place(&self, stored: &Stored) -> Result<Place> {
        Place::new(&self.folder, stored.name(), stored.incarnation)
    }

    /// [`Self::start`] for when there is nobody to tell.
    fn revive(&self, stored: Stored, version: u64) {
        let name = stored.name().to_owned();
        if let Err(failure) = self.start(stored, version) {
            tracing::error!(pipeline = name, %failure, "a pipeline does not start");
        }
    }

    /// Starts what a document says unless it is paused, in the place of what ran under its name, which must have been stopped. A queue that cannot
    /// be served now stands until it can.
    fn start(&self, stored: Stored, version: u64) -> Result<()> {
        let mut pipeline = self.pipeline(stored, version);
        let open = |pipeline: &mut Pipeline| self.open(pipeline, &Offsets::new(), Unserved::Wait);
        let opened = if pipeline.stored.paused { Ok(()) } else { open(&mut pipeline) };
        if let Err(failure) = &opened {
            let by_name = self.by_name.lock();
            let before = by_name.get(pipeline.stored.name()).and_then(|known| known.broken.as_ref());
            pipeline.broken = Some(Broken::new(failure.clone(), before));
        }
        self.install(pipeline);
        opened
    }

    /// Starts those again for which there was no room, or whose state's file failed, each after a while; to be called now and then.
    pub fn start_again(&self) {
        self.stop_failed();
        let is_due = |of: &Pipeline| {
            let again = of.broken.as_ref().and_then(|broken| broken.again);
            !of.stored.paused && again.is_some_and(|(at, _)| at <= Instant::now())
        };
        let due = |of: &Pipeline| is_due(of).then(|| (of.stored.clone(), of.version));
        let names: Vec<String> =
            self.by_name.lock().iter().filter(|(_, of)| is_due(of)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let _changing = self.changing.lock();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            // It may have been changed meanwhile.
            let Some((stored, version)) = self.by_name.lock().get(&name).and_then(due) else { continue };
            match self.start(stored, version) {
                Ok(()) => tracing::info!(pipeline = name, "a pipeline runs again"),
                Err(failure) => tracing::debug!(pipeline = name, %failure, "a pipeline still does not start"),
            }
        }
    }

    /// Stops those whose thread ended by a failure that may pass; they are to be started again.
    fn stop_failed(&self) {
        let failure = |of: &Pipeline| of.running.as_ref().and_then(Running::failure).cloned();
        let names: Vec<String> =
            self.by_name.lock().iter().filter_map(|(name, of)| failure(of).map(|_| name.clone())).collect();
        for name in names {
            let _changing = self.changing.lock();
            // It may have been changed meanwhile.
            let Some(failure) = self.by_name.lock().get(&name).and_then(failure) else { continue };
            self.stop(&name);
            if let Some(pipeline) = self.by_name.lock().get_mut(&name) {
                pipeline.broken = Some(Broken::new(failure, None));
            }
        }
    }

    /// What a document says, not opened yet, with the lines of what ran under its name before.
    fn pipeline(&self, stored: Stored, version: u64) -> Pipeline {
        let logs = self.by_name.lock().get(stored.name()).map(|known| known.logs.clone()).unwrap_or_default();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Pipeline {
            id,
            stored,
            version,
            running: None,
            shadow: None,
            untried: None,
            holdings: Vec::new(),
            broken: None,
            logs,
        }
    }

    /// Opens everything that a pipeline runs; [`Self::install`] lets it go. `from` and `unserved` are those of [`Running::open`].
    ///
    /// A candidate that does not run is no reason for the live version not to.
    fn open(&self, pipeline: &mut Pipeline, from: &Offsets, unserved: Unserved) -> Result<()> {
        let place = self.place(&pipeline.stored)?;
        let versions = self.versions(&pipeline.stored)?;
        let refused = versions.refused().cloned();
        // What both sides of a shadow begin with is copied while nobody has it open.
        let shadow = self.shadow(&pipeline.stored, &versions.live, &place);
        let live = &versions.live;
        let outbox = live.log_topic.is_some().then(Arc::default);
        pipeline.logs = Arc::new(pipeline.logs.followed_by(live.log_level, outbox));
        let holdings = versions.holdings();
        let its = (pipeline.id, pipeline.logs.clone());
        let shell = (self.shell.clone(), self.share.clone());
        pipeline.running = Some(Running::open(shell, versions, its, &place, from, unserved)?);
        pipeline.holdings = holdings;
        pipeline.untried = refused;
        if let Some(shadow) = shadow {
            let started = shadow.and_then(|pair| {
                let holdings = pair.candidate.holdings.clone();
                Ok((Shadow::start(&self.shell, &self.share, pair)?, holdings))
            });
            match started {
                Ok((shadow, holdings)) => {
                    pipeline.shadow = Some(shadow);
                    pipeline.holdings.extend(holdings);
                }
                Err(failure) => pipeline.untried = Some(failure),
            }
        }
        if let Some(failure) = &pipeline.untried {
            tracing::error!(pipeline = pipeline.stored.name(), %failure, "the version that is tried does not run");
        }
        Ok(())
    }

    /// Both sides of a shadow, if one is tried; with copies of what the live version keeps, which must not be open.
    fn shadow(&self, stored: &Stored, live: &Checked, place: &Place) -> Option<Result<Pair>> {
        let Some(Candidate { revision, mode: Mode::Shadow { start } }) = &stored.candidate else { return None };
        let candidate = revision.check(&self.shell, &self.plugins);
        Some(candidate.and_then(|candidate| Pair::new(live.clone(), candidate, start.as_deref(), place)))
    }

    /// What a document has run where, ready to run; fails when the live version is not.
    fn versions(&self, stored: &Stored) -> Result<Versions> {
        let live = stored.live.check(&self.shell, &self.plugins)?;
        let canary = stored.candidate.as_ref().and_then(|Candidate { revision, mode }| match mode {
            Mode::Canary { queues } => Some(Canary {
                queues: queues.clone(),
                revision: revision.number,
                checked: revision.check(&self.shell, &self.plugins),
            }),
            Mode::Shadow { .. } => None,
        });
        Ok(Versions { live, canary })
    }

    /// Puts a pipeline in the place of the one with its name, which must have been stopped, and lets it go if it was opened.
    fn install(&self, pipeline: Pipeline) {
        if let Some(running) = &pipeline.running {
            self.plugins.granter().audit().granted(&pipeline.holdings);
            running.go();
        }
        self.unread.lock().remove(pipeline.stored.name());
        self.by_name.lock().insert(pipeline.stored.name().to_owned(), pipeline);
    }

    /// What the processors of a pipeline keep; fails with `NotFound` when there is no such pipeline, and with `Conflict` when it does not run
    /// or keeps nothing.
    pub fn states(&self, name: &str) -> Result<Arc<States>> {
        let by_name = self.by_name.lock();
        let known = by_name.get(name).ok_or_else(|| Failure::not_found("pipeline", name))?;
        let conflict = |text: &str| Failure::new(Kind::Conflict, format!("pipeline \"{name}\" {text}"));
        let running = known.running.as_ref().ok_or_else(|| conflict("does not run"))?;
        running.states().ok_or_else(|| conflict("keeps nothing: none of its steps is a processor"))
    }

    /// Fails with `NotFound`.
    pub fn describe(&self, name: &str) -> Result<Description> {
        let known = self.by_name.lock().get(name).map(description);
        let known = known.or_else(|| self.unread.lock().get(name).map(|of| of.description(name)));
        known.ok_or_else(|| Failure::not_found("pipeline", name))
    }

    /// All pipelines, by name.
    pub fn list(&self) -> Vec<Description> {
        let mut all: Vec<Description> = self.by_name.lock().values().map(description).collect();
        all.extend(self.unread.lock().iter().map(|(name, of)| of.description(name)));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What the plugins of a pipeline logged.
    pub fn logs(&self, name: &str) -> Result<Arc<Logs>> {
        Ok(self.describe(name)?.logs)
    }

    /// What ran under a pipeline's name, runs and is tried.
    pub fn history(&self, name: &str) -> Result<History> {
        let (_, Stored { candidate, live, past, .. }) = self.stored(name)?;
        Ok(History { tried: candidate.map(|candidate| candidate.revision), live, past })
    }

    /// How the version does that a pipeline tries; fails with `NotFound` when it tries none.
    pub fn trial(&self, name: &str) -> Result<Trial> {
        let by_name = self.by_name.lock();
        let known = by_name.get(name).ok_or_else(|| Failure::not_found("pipeline", name))?;
        let candidate = known.stored.candidate.clone().ok_or_else(|| Failure::not_found("candidate", name))?;
        let queues = known.running.as_ref().map(Running::queues).unwrap_or_default();
        let report = known.shadow.as_ref().map(Shadow::report);
        let stopped = known.untried.as_ref().map(|failure| failure.text.clone());
        Ok(Trial { candidate, version: known.version, queues, report, stopped })
    }

    /// Names of the pipelines that run this version of a plugin, or try it.
    pub fn users_of(&self, version: &Version) -> Vec<String> {
        let by_name = self.by_name.lock();
        let runs = |of: &Revision| {
            let mut steps = of.spec.steps.iter().zip(&of.plugins);
            steps.any(|(step, digest)| Wanted::uses(&step.plugin, digest, version))
        };
        let uses = |pipeline: &&Pipeline| {
            let Stored { live, candidate, .. } = &pipeline.stored;
            runs(live) || candidate.as_ref().is_some_and(|candidate| runs(&candidate.revision))
        };
        by_name.values().filter(uses).map(|pipeline| pipeline.stored.name().to_owned()).collect()
    }

    /// A message came for a pipeline that waits under this token; answers whether the token is a pipeline's at all.
    pub fn wake(&self, token: Token) -> bool {
        let Some(id) = run::pipeline_of(token) else { return false };
        if let Some(running) = self.by_name.lock().values().find(|p| p.id == id).and_then(|p| p.running.as_ref()) {
            running.wake();
        }
        true
    }

    /// Stops all pipelines, each behind a whole unit.
    pub fn stop_all(&self) {
        self.stopping.store(true, Ordering::Release);
        let _changing = self.changing.lock();
        let mut threads = Vec::new();
        for pipeline in self.by_name.lock().values_mut() {
            pipeline.running.iter().for_each(Running::stop);
            threads.push((pipeline.running.take(), pipeline.shadow.take()));
        }
        drop(threads);
    }

    /// Stops one. Its threads are waited for outside the lock, which they need to be woken.
    fn stop(&self, name: &str) {
        let stopped = self.by_name.lock().get_mut(name).map(|of| {
            let threads = (of.running.take(), of.shadow.take());
            (threads, std::mem::take(&mut of.holdings))
        });
        if let Some((threads, holdings)) = stopped {
            drop(threads);
            self.plugins.granter().audit().withdrawn(&holdings);
        }
    }
}

impl Unread {
    fn description(&self, name: &str) -> Description {
        Description {
            name: name.to_owned(),
            spec: None,
            version: self.version,
            revision: 0,
            plugins: Vec::new(),
            candidate: None,
            status: Status::Stopped(self.reason.clone()),
            queues: Vec::new(),
            logs: Arc::default(),
        }
    }
}

fn description(pipeline: &Pipeline) -> Description {
    let queues = pipeline.running.as_ref().map(Running::queues).unwrap_or_default();
    let ended = pipeline.running.as_ref().filter(|running| running.has_ended());
    let ended = ended.map(|running| running.failure().map(|failure| failure.text.clone()));
    let ended = ended.map(|failure| {
        failure.unwrap_or_else(|| "its thread ended by a fault of the server; pause and resume it".to_owned())
    });
    let stopped = ended.or_else(|| queues.iter().find_map(|queue| queue.stopped.clone()));
    let Stored { live, candidate, paused, .. } = &pipeline.stored;
    let status = match (&pipeline.broken, paused, stopped) {
        (Some(broken), ..) => Status::Stopped(broken.failure.text.clone()),
        (None, true, _) => Status::Paused,
        (None, false, Some(reason)) => Status::Stopped(reason),
        (None, false, None) if pipeline.running.is_none() => Status::Stopped("it is being changed".to_owned()),
        (None, false, None) => Status::Running,
    };
    Description {
        name: pipeline.stored.name().to_owned(),
        spec: Some(live.spec.clone()),
        version: pipeline.version,
        revision: live.number,
        plugins: live.plugins.clone(),
        candidate: candidate.clone(),
        status,
        queues,
        logs: pipeline.logs.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker with topics and a plugin for a pipeline.
    fn begin(dir: &std::path::Path) -> (Shell, Arc<Plugins>) {
        let shell = crate::shell::tests::start(dir);
        for name in ["in", "out"] {
            let topic = sluice_broker::Topic::new(sluice_model::TopicName::parse(name).unwrap(), 1);
            shell.ask_blocking(move |broker, now| broker.put_topic(topic, now)).unwrap();
        }
        let plugins = Arc::new(crate::plugins::tests::load(&shell, dir));
        let filter = sluice_plugins::ready_made("json-filter").unwrap().component;
        plugins.put("only", bytes::Bytes::from_static(filter)).unwrap();
        (shell, plugins)
    }

    #[test]
    fn what_a_crash_left_of_a_deleted_pipeline_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, plugins) = begin(dir.path());
        let folder = dir.path().join("states");
        let place = Place::new(&folder, "gone", 7).unwrap();
        let topic = place.topic.clone();
        shell.ask_blocking(move |broker, now| broker.put_state_topic(&topic, 2, now)).unwrap();
        drop(state::engine(&place.beside("live")).unwrap());
        drop(state::engine(&folder.join("gone_7")).unwrap());
        assert!(shell.reader.topic(&place.topic).is_ok() && std::fs::read_dir(&folder).unwrap().count() == 2);

        Pipelines::load(shell.clone(), plugins, folder.clone()).unwrap();
        assert!(shell.reader.topic(&place.topic).is_err());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_shown_keeps_its_state_and_is_replaced_or_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, plugins) = begin(dir.path());
        let place = Place::new(&dir.path().join("states"), "p", 7).unwrap();
        let topic = place.topic.clone();
        let make = move |broker: &mut sluice_broker::Broker, now| {
            broker.put_document(KIND, "p", "", "{}".into(), now)?;
            broker.put_document(KIND, "q", "", "{}".into(), now)?;
            broker.put_state_topic(&topic, 1, now)
        };
        shell.ask_blocking(make).unwrap();
        let load = || Pipelines::load(shell.clone(), plugins.clone(), dir.path().join("states")).unwrap();

        let pipelines = load();
        assert_eq!(pipelines.list().iter().map(|of| of.name.as_str()).collect::<Vec<_>>(), ["p", "q"]);
        let Status::Stopped(reason) = pipelines.describe("p").unwrap().status else { panic!("it does not run") };
        assert!(reason.starts_with("its stored document cannot be read: "), "{reason}");
        assert_eq!(pipelines.pause("p", None).err().map(|failure| failure.kind), Some(Kind::Corrupt));
        assert!(shell.reader.topic(&place.topic).is_ok());
        pipelines.delete("q", None).unwrap();
        assert!(pipelines.describe("q").is_err() && shell.reader.document(KIND, "q").unwrap().is_none());
        let spec = Spec::parse(SPEC.as_bytes()).unwrap();
        let replaced = pipelines.apply(spec, Some(pipelines.describe("p").unwrap().version)).unwrap();
        assert_eq!((replaced.status, replaced.revision), (Status::Running, 1));
        drop(pipelines);

        assert_eq!(load().list().len(), 1);
        assert!(shell.reader.topic(&place.topic).is_err(), "no pipeline keeps it any more");
    }

    const SPEC: &str = "name: p\nsource: { topic: in }\nsinks: [ out ]\n\
                        steps: [ { plugin: only, config: { path: /a, equals: b } } ]\n";

    #[test]
    fn a_pipeline_for_which_there_was_no_instance_is_started_as_soon_as_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, _) = begin(dir.path());
        let config = sluice_runtime::Config { instances: 4, ..Default::default() };
        let plugins = Arc::new(crate::plugins::tests::load_with(config, &shell, dir.path()));
        let load = || Pipelines::load(shell.clone(), plugins.clone(), dir.path().join("states")).unwrap();
        load().apply(Spec::parse(SPEC.as_bytes()).unwrap(), None).unwrap();

        let plugin = plugins.resolve("only").unwrap().plugin;
        let config = serde_json::json!({ "path": "/a", "equals": "b" }).as_object().unwrap().clone();
        let setup = || sluice_runtime::Setup { config: config.clone(), ..Default::default() };
        let others: Vec<_> = (0..4).map(|_| plugin.instance(setup()).unwrap()).collect();
        let pipelines = load();
        let status = || pipelines.describe("p").unwrap().status;
        let Status::Stopped(reason) = status() else { panic!("there is no instance") };
        assert!(reason.contains("all 4 plugin instances are in use"), "{reason}");
        let wait_of = || pipelines.by_name.lock()["p"].broken.as_ref().and_then(|broken| broken.again).unwrap().1;
        let until = Instant::now() + Duration::from_secs(20);
        while wait_of() == AGAIN_FIRST && Instant::now() < until {
            pipelines.start_again();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((wait_of(), status()), (2 * AGAIN_FIRST, Status::Stopped(reason)));
        drop(others);
        while status() != Status::Running && Instant::now() < until {
            pipelines.start_again();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(status(), Status::Running);
    }

    #[test]
    fn what_is_left_to_read_is_as_it_is_now_and_a_thread_that_panicked_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, plugins) = begin(dir.path());
        let pipelines = Pipelines::load(shell.clone(), plugins, dir.path().join("states")).unwrap();
        pipelines.apply(Spec::parse(SPEC.as_bytes()).unwrap(), None).unwrap();
        pipelines.stop("p");
        let (version, stored) = pipelines.stored("p").unwrap();
        let mut pipeline = pipelines.pipeline(stored, version);
        // It is not let go: its thread says nothing of what comes.
        pipelines.open(&mut pipeline, &Offsets::new(), Unserved::Wait).unwrap();
        let lag = |pipeline: &Pipeline| description(pipeline).queues.iter().map(|queue| queue.lag).collect::<Vec<_>>();
        assert_eq!(lag(&pipeline), [0]);
        let topic = sluice_model::TopicName::parse("in").unwrap();
        let message = sluice_model::Message {
            born_host: sluice_model::Host::LOCAL,
            ..sluice_model::Message::new(
                topic,
                sluice_model::QueueId(0),
                sluice_model::Timestamp(1),
                Default::default(),
                "{}".into(),
            )
        };
        let send = sluice_broker::Send {
            messages: vec![message; 3],
            queue: Some(sluice_model::QueueId(0)),
            template: None,
            max_reconsume_times: None,
        };
        shell.ask_blocking(move |broker, now| broker.send(send, now)).unwrap();
        assert_eq!((lag(&pipeline), description(&pipeline).status), (vec![3], Status::Running));

        pipeline.running = Some(run::tests::ended(&shell, None));
        let Status::Stopped(reason) = description(&pipeline).status else { panic!("its thread is gone") };
        assert!(reason.contains("its thread ended"), "{reason}");

        let full = Failure::new(Kind::Unavailable, "state: the disk is full");
        pipeline.running = Some(run::tests::ended(&shell, Some(full.clone())));
        pipelines.install(pipeline);
        let status = || pipelines.describe("p").unwrap().status;
        assert_eq!(status(), Status::Stopped(full.text.clone()));
        pipelines.start_again();
        assert_eq!(status(), Status::Stopped(full.text), "not at once");
        let until = Instant::now() + Duration::from_secs(20);
        let position = || pipelines.describe("p").unwrap().queues.first().map_or(0, |queue| queue.position);
        while (status() != Status::Running || position() < 3) && Instant::now() < until {
            pipelines.start_again();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((status(), position()), (Status::Running, 3));
    }

    #[test]
    fn what_a_log_that_takes_nothing_was_asked_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, plugins) = begin(dir.path());
        let pipelines = Pipelines::load(shell.clone(), plugins, dir.path().join("states")).unwrap();
        let spec = |text: &str| Spec::parse(text.as_bytes()).unwrap();
        let before = pipelines.apply(spec(SPEC), None).unwrap();
        shell.stop();
        assert!(pipelines.apply(spec(&SPEC.replace("equals: b", "equals: c")), None).is_err());
        let other = spec(&SPEC.replace("name: p", "name: q"));
        let group = other.group().unwrap();
        assert!(pipelines.apply(other, None).is_err() && pipelines.describe("q").is_err());
        assert!(shell.reader.offsets_of(&group).is_empty());
        assert!(pipelines.pause("p", None).is_err() && pipelines.reset("p", None, None).is_err());
        assert!(pipelines.delete("p", None).is_err());
        let after = pipelines.describe("p").unwrap();
        assert_eq!((after.status, after.version, after.spec), (Status::Running, before.version, before.spec));
        pipelines.stop("p");
        assert_ne!(pipelines.describe("p").unwrap().status, Status::Running);
    }

    #[test]
    fn a_version_that_is_being_deleted_is_not_put_to_use() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, plugins) = begin(dir.path());
        let pipelines = Pipelines::load(shell, plugins.clone(), dir.path().join("states")).unwrap();
        let (told, tell) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let check = |_: &[Version]| {
                let apply = || pipelines.apply(Spec::parse(SPEC.as_bytes()).unwrap(), None).map(drop);
                scope.spawn(move || told.send(apply()).unwrap());
                // Long enough for a pipeline to be there that does not wait.
                assert!(tell.recv_timeout(std::time::Duration::from_millis(500)).is_err());
                Ok::<_, Failure>(())
            };
            plugins.delete("only", |_| true, check).unwrap();
            assert_eq!(tell.recv().unwrap().unwrap_err().kind, Kind::NotFound);
        });
        assert!(pipelines.list().is_empty());
    }

    #[test]
    fn dead_letters_are_not_replayed_while_what_runs_them_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, plugins) = begin(dir.path());
        let pipelines = Pipelines::load(shell, plugins, dir.path().join("states")).unwrap();
        pipelines.apply(Spec::parse(SPEC.as_bytes()).unwrap(), None).unwrap();
        let all = Replay { which: Which::All { code: None }, plugin: None };
        let changing = pipelines.changing.lock();
        assert_eq!(pipelines.replay("p", &all, || true).unwrap_err().kind, Kind::Busy);
        drop(changing);
        pipelines.replay("p", &all, || true).unwrap();
    }

    #[test]
    fn a_log_that_takes_nothing_does_not_keep_the_server_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, plugins) = begin(dir.path());
        let place = Place::new(&dir.path().join("states"), "gone", 7).unwrap();
        let topic = place.topic.clone();
        shell.ask_blocking(move |broker, now| broker.put_state_topic(&topic, 1, now)).unwrap();
        shell.stop();
        assert!(Pipelines::load(shell, plugins, dir.path().join("states")).is_ok());
    }
}
