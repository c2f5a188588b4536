//! Pipelines: plugins between topics. Each is a document in the log and, unless paused, a thread.

mod dead;
mod queue;
mod run;
mod spec;
mod state;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sluice_broker::Token;
use sluice_model::{GroupName, Kind};

pub use dead::{DeadLetters, ErrorGroup, IDS_LIMIT, Replay, Which};
pub use run::{QueueStatus, Status};
pub use spec::Spec;
pub use state::{Found, States};

use crate::{
    audit::Holding,
    clock,
    failure::{Failure, Result},
    observer::Logs,
    plugins::Plugins,
    shell::Shell,
};
use run::Running;
use spec::parse_start;
use state::Place;

/// Kind of the documents that hold pipelines, by name.
const KIND: &str = "pipeline";
/// Most pipelines: each has a thread.
const PIPELINES_LIMIT: usize = 256;

/// What a pipeline's document holds.
#[derive(Serialize, Deserialize)]
struct Stored {
    spec: Spec,
    paused: bool,
    /// Tells it from pipelines that had its name before, and from itself before it was reset: ms since 1970.
    #[serde(default)]
    incarnation: u64,
}

struct Pipeline {
    id: u32,
    spec: Spec,
    /// Place of its document in the log.
    version: u64,
    paused: bool,
    incarnation: u64,
    running: Option<Running>,
    /// Digests of the plugins that run.
    digests: Vec<String>,
    /// What they are granted while they run.
    holdings: Vec<Holding>,
    /// Why it could not be started.
    broken: Option<String>,
    logs: Arc<Logs>,
}

/// How a pipeline stands.
#[derive(Clone, Debug)]
pub struct Description {
    pub spec: Spec,
    pub version: u64,
    pub status: Status,
    pub queues: Vec<QueueStatus>,
}

/// The registry of pipelines. Its calls block; they are not for async tasks.
pub struct Pipelines {
    shell: Shell,
    plugins: Arc<Plugins>,
    /// Where the files of states are.
    folder: PathBuf,
    next_id: AtomicU32,
    by_name: Mutex<BTreeMap<String, Pipeline>>,
    /// Held while a pipeline is changed, so that two changes do not meet.
    changing: Mutex<()>,
    /// Held while dead letters are replayed or purged.
    dealing: Mutex<()>,
}

impl Pipelines {
    /// Starts every pipeline that the log holds and that is not paused.
    ///
    /// `folder` is for the files of what processors keep.
    pub fn load(shell: Shell, plugins: Arc<Plugins>, folder: PathBuf) -> Result<Self> {
        let pipelines = Self {
            shell,
            plugins,
            folder,
            next_id: AtomicU32::new(1),
            by_name: Mutex::new(BTreeMap::new()),
            changing: Mutex::new(()),
            dealing: Mutex::new(()),
        };
        for (name, document) in pipelines.shell.reader.documents(KIND) {
            let Some((_, body)) = pipelines.shell.reader.document(KIND, &name)? else { continue };
            match serde_json::from_slice::<Stored>(&body) {
                Ok(stored) => pipelines.revive(name, stored, document.at.0),
                Err(error) => tracing::error!(pipeline = name, %error, "a stored pipeline cannot be read"),
            }
        }
        Ok(pipelines)
    }

    fn revive(&self, name: String, stored: Stored, version: u64) {
        let mut pipeline = self.pipeline(stored, version);
        if !pipeline.paused
            && let Err(failure) = self.start(&mut pipeline)
        {
            tracing::error!(pipeline = name, %failure, "a pipeline does not start");
            pipeline.broken = Some(failure.text);
        }
        self.by_name.lock().insert(name, pipeline);
    }

    fn pipeline(&self, stored: Stored, version: u64) -> Pipeline {
        let Stored { spec, paused, incarnation } = stored;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Pipeline {
            id,
            spec,
            version,
            paused,
            incarnation,
            running: None,
            digests: Vec::new(),
            holdings: Vec::new(),
            broken: None,
            logs: Arc::new(Logs::default()),
        }
    }

    fn start(&self, pipeline: &mut Pipeline) -> Result<()> {
        let checked = pipeline.spec.clone().check(&self.shell, &self.plugins)?;
        let place = Place::new(&self.folder, &pipeline.spec.name, pipeline.incarnation)?;
        pipeline.digests = checked.steps.iter().map(|step| step.plugin.digest().to_owned()).collect();
        let holdings = checked.holdings.clone();
        pipeline.running =
            Some(Running::start(self.shell.clone(), checked, pipeline.id, pipeline.logs.clone(), &place)?);
        self.plugins.granter().audit().granted(&holdings);
        pipeline.holdings = holdings;
        Ok(())
    }

    /// Makes a pipeline or replaces it. A replaced one stops behind a whole unit, and the new one goes on from there.
    ///
    /// With `expected`, fails with `Conflict` unless that is the version in place (0: none).
    pub fn apply(&self, spec: Spec, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let name = spec.name.clone();
        let known = self.by_name.lock().get(&name).map(|known| (known.version, known.paused, known.incarnation));
        check_version(&name, expected, known.map(|(version, ..)| version))?;
        if known.is_none() && self.by_name.lock().len() >= PIPELINES_LIMIT {
            return Err(Failure::new(Kind::Full, format!("there are {PIPELINES_LIMIT} pipelines already")));
        }
        // Everything that can be refused is refused before the old one is touched.
        spec.clone().check(&self.shell, &self.plugins)?;
        let (_, paused, incarnation) = known.unwrap_or((0, false, new_incarnation()));
        let stored = Stored { spec, paused, incarnation };
        let version = self.store(&stored)?;
        self.replace(stored, version)
    }

    /// Stops a pipeline behind a whole unit. It stays stopped over restarts.
    pub fn pause(&self, name: &str) -> Result<Description> {
        self.set_paused(name, true)
    }

    /// Lets a paused or stopped pipeline go on from where it stands.
    pub fn resume(&self, name: &str) -> Result<Description> {
        self.set_paused(name, false)
    }

    fn set_paused(&self, name: &str, paused: bool) -> Result<Description> {
        let _changing = self.changing.lock();
        let stored = Stored { paused, ..self.stored(name)? };
        let version = self.store(&stored)?;
        self.replace(stored, version)
    }

    /// Lets a pipeline begin anew: what its processors kept is gone, and it reads each queue from where `start` says. What it wrote stays.
    ///
    /// Without `start` it begins where its source says.
    pub fn reset(&self, name: &str, start: Option<&str>) -> Result<Description> {
        let _changing = self.changing.lock();
        let before = self.stored(name)?;
        let old = Place::new(&self.folder, name, before.incarnation)?;
        let start = start.map(|text| parse_start("start", text)).transpose()?;
        let checked = before.spec.clone().check(&self.shell, &self.plugins)?;
        let start = start.unwrap_or(checked.start);
        self.stop(name);
        let stored = Stored { incarnation: new_incarnation().max(before.incarnation + 1), ..before };
        let positions = queue::first_positions(&self.shell, &checked, start)?;
        let body = encode(&stored)?;
        let document = name.to_owned();
        let at = self
            .shell
            .ask_blocking(move |broker, now| broker.put_document_at((KIND, &document), body, &positions, now))?;
        self.drop_state(&old)?;
        self.replace(stored, at.0)
    }

    /// Puts a pipeline in the place of the one with its name.
    fn replace(&self, stored: Stored, version: u64) -> Result<Description> {
        let name = stored.spec.name.clone();
        self.stop(&name);
        let mut pipeline = self.pipeline(stored, version);
        if !pipeline.paused {
            self.start(&mut pipeline)?;
        }
        self.by_name.lock().insert(name.clone(), pipeline);
        self.describe(&name)
    }

    fn stored(&self, name: &str) -> Result<Stored> {
        let by_name = self.by_name.lock();
        let known = by_name.get(name).ok_or_else(|| Failure::not_found("pipeline", name))?;
        Ok(Stored { spec: known.spec.clone(), paused: known.paused, incarnation: known.incarnation })
    }

    /// Deletes what processors kept.
    fn drop_state(&self, place: &Place) -> Result<()> {
        let topic = place.topic.clone();
        self.shell.ask_blocking(move |broker, now| broker.delete_state_topic(&topic, now))?;
        place.remove_file();
        Ok(())
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

    /// Deletes a pipeline and its positions; what it wrote stays.
    pub fn delete(&self, name: &str) -> Result<()> {
        let _changing = self.changing.lock();
        let place = Place::new(&self.folder, name, self.stored(name)?.incarnation)?;
        self.stop(name);
        let document = name.to_owned();
        let group = GroupName::parse(&format!("pipeline-{name}"))?;
        self.shell.ask_blocking(move |broker, now| {
            broker.delete_document(KIND, &document, now)?;
            broker.forget_positions(&group, now)
        })?;
        self.drop_state(&place)?;
        self.by_name.lock().remove(name);
        Ok(())
    }

    /// Fails with `NotFound`.
    pub fn describe(&self, name: &str) -> Result<Description> {
        let by_name = self.by_name.lock();
        by_name.get(name).map(description).ok_or_else(|| Failure::not_found("pipeline", name))
    }

    pub fn list(&self) -> Vec<Description> {
        self.by_name.lock().values().map(description).collect()
    }

    /// What the plugins of a pipeline logged.
    pub fn logs(&self, name: &str) -> Result<Arc<Logs>> {
        let by_name = self.by_name.lock();
        by_name.get(name).map(|known| known.logs.clone()).ok_or_else(|| Failure::not_found("pipeline", name))
    }

    /// Names of the pipelines that run this digest, or would when started now.
    pub fn users_of(&self, digest: &str) -> Vec<String> {
        let by_name = self.by_name.lock();
        let uses = |pipeline: &&Pipeline| {
            pipeline.digests.iter().any(|running| running == digest)
                || pipeline
                    .spec
                    .steps
                    .iter()
                    .any(|step| self.plugins.resolve(&step.plugin).is_ok_and(|version| version.digest() == digest))
        };
        by_name.values().filter(uses).map(|pipeline| pipeline.spec.name.clone()).collect()
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
        let running: Vec<Running> =
            self.by_name.lock().values_mut().filter_map(|pipeline| pipeline.running.take()).collect();
        running.iter().for_each(Running::stop);
        drop(running);
    }

    /// Stops one. Its thread is waited for outside the lock, which it needs to be woken.
    fn stop(&self, name: &str) {
        let stopped = self
            .by_name
            .lock()
            .get_mut(name)
            .map(|pipeline| (pipeline.running.take(), std::mem::take(&mut pipeline.holdings)));
        if let Some((running, holdings)) = stopped {
            drop(running);
            self.plugins.granter().audit().withdrawn(&holdings);
        }
    }

    fn store(&self, stored: &Stored) -> Result<u64> {
        let name = stored.spec.name.clone();
        let body = encode(stored)?;
        let at = self.shell.ask_blocking(move |broker, now| broker.put_document(KIND, &name, "", body, now))?;
        Ok(at.0)
    }
}

fn encode(stored: &Stored) -> Result<Bytes> {
    let body = serde_json::to_vec(stored).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    Ok(body.into())
}

fn new_incarnation() -> u64 {
    u64::try_from(clock::now().0).unwrap_or(0)
}

/// Fails with `Conflict` when a version is expected that is not in place; 0 stands for none.
pub(crate) fn check_version(name: &str, expected: Option<u64>, known: Option<u64>) -> Result<()> {
    match expected {
        Some(expected) if known.unwrap_or(0) != expected => {
            let text = format!("\"{name}\" is at version {}, not {expected}", known.unwrap_or(0));
            Err(Failure { field: Some("If-Match".to_owned()), ..Failure::new(Kind::Conflict, text) })
        }
        _ => Ok(()),
    }
}

fn description(pipeline: &Pipeline) -> Description {
    let queues = pipeline.running.as_ref().map(Running::queues).unwrap_or_default();
    let stopped = queues.iter().find_map(|queue| queue.stopped.clone());
    let status = match (&pipeline.broken, pipeline.paused, stopped) {
        (Some(reason), ..) => Status::Stopped(reason.clone()),
        (None, true, _) => Status::Paused,
        (None, false, Some(reason)) => Status::Stopped(reason),
        (None, false, None) => Status::Running,
    };
    Description { spec: pipeline.spec.clone(), version: pipeline.version, status, queues }
}
