//! Pipelines: plugins between topics. Each is a document in the log and, unless paused, a thread.

mod queue;
mod run;
mod spec;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sluice_broker::Token;
use sluice_model::{GroupName, Kind};

pub use run::{QueueStatus, Status};
pub use spec::{LimitsSpec, Spec, StepSpec};

use crate::{
    failure::{Failure, Result},
    observer::Logs,
    plugins::Plugins,
    shell::Shell,
};
use run::Running;

/// Kind of the documents that hold pipelines, by name.
const KIND: &str = "pipeline";
/// Most pipelines: each has a thread.
const PIPELINES_LIMIT: usize = 256;

/// What a pipeline's document holds.
#[derive(Serialize, Deserialize)]
struct Stored {
    spec: Spec,
    paused: bool,
}

struct Pipeline {
    id: u32,
    spec: Spec,
    /// Place of its document in the log.
    version: u64,
    paused: bool,
    running: Option<Running>,
    /// Digests of the plugins that run.
    digests: Vec<String>,
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
    next_id: AtomicU32,
    by_name: Mutex<BTreeMap<String, Pipeline>>,
    /// Held while a pipeline is changed, so that two changes do not meet.
    changing: Mutex<()>,
}

impl Pipelines {
    /// Starts every pipeline that the log holds and that is not paused.
    pub fn load(shell: Shell, plugins: Arc<Plugins>) -> Result<Self> {
        let pipelines = Self {
            shell,
            plugins,
            next_id: AtomicU32::new(1),
            by_name: Mutex::new(BTreeMap::new()),
            changing: Mutex::new(()),
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
        let mut pipeline = self.pipeline(stored.spec, version, stored.paused);
        if !pipeline.paused
            && let Err(failure) = self.start(&mut pipeline)
        {
            tracing::error!(pipeline = name, %failure, "a pipeline does not start");
            pipeline.broken = Some(failure.text);
        }
        self.by_name.lock().insert(name, pipeline);
    }

    fn pipeline(&self, spec: Spec, version: u64, paused: bool) -> Pipeline {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Pipeline {
            id,
            spec,
            version,
            paused,
            running: None,
            digests: Vec::new(),
            broken: None,
            logs: Arc::new(Logs::default()),
        }
    }

    fn start(&self, pipeline: &mut Pipeline) -> Result<()> {
        let checked = pipeline.spec.clone().check(&self.shell, &self.plugins)?;
        pipeline.digests = checked.steps.iter().map(|step| step.plugin.digest().to_owned()).collect();
        pipeline.running = Some(Running::start(self.shell.clone(), checked, pipeline.id, pipeline.logs.clone())?);
        Ok(())
    }

    /// Makes a pipeline or replaces it. A replaced one stops behind a whole unit, and the new one goes on from there.
    ///
    /// With `expected`, fails with `Conflict` unless that is the version in place (0: none).
    pub fn apply(&self, spec: Spec, expected: Option<u64>) -> Result<Description> {
        let _changing = self.changing.lock();
        let name = spec.name.clone();
        let known = self.by_name.lock().get(&name).map(|known| (known.version, known.paused));
        check_version(&name, expected, known.map(|(version, _)| version))?;
        if known.is_none() && self.by_name.lock().len() >= PIPELINES_LIMIT {
            return Err(Failure::new(Kind::Full, format!("there are {PIPELINES_LIMIT} pipelines already")));
        }
        // Everything that can be refused is refused before the old one is touched.
        spec.clone().check(&self.shell, &self.plugins)?;
        let paused = known.is_some_and(|(_, paused)| paused);
        let version = self.store(&Stored { spec: spec.clone(), paused })?;
        self.stop(&name);
        let mut pipeline = self.pipeline(spec, version, paused);
        if !paused {
            self.start(&mut pipeline)?;
        }
        self.by_name.lock().insert(name.clone(), pipeline);
        self.describe(&name)
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
        let spec = self.describe(name)?.spec;
        let version = self.store(&Stored { spec: spec.clone(), paused })?;
        self.stop(name);
        let mut pipeline = self.pipeline(spec, version, paused);
        if !paused {
            self.start(&mut pipeline)?;
        }
        self.by_name.lock().insert(name.to_owned(), pipeline);
        self.describe(name)
    }

    /// Deletes a pipeline and its positions; what it wrote stays.
    pub fn delete(&self, name: &str) -> Result<()> {
        let _changing = self.changing.lock();
        self.describe(name)?;
        self.stop(name);
        let document = name.to_owned();
        let group = GroupName::parse(&format!("pipeline-{name}"))?;
        self.shell.ask_blocking(move |broker, now| {
            broker.delete_document(KIND, &document, now)?;
            broker.forget_positions(&group, now)
        })?;
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
        drop(running);
    }

    /// Stops one. Its thread is waited for outside the lock, which it needs to be woken.
    fn stop(&self, name: &str) {
        let running = self.by_name.lock().get_mut(name).and_then(|pipeline| pipeline.running.take());
        drop(running);
    }

    fn store(&self, stored: &Stored) -> Result<u64> {
        let name = stored.spec.name.clone();
        let body = serde_json::to_vec(stored).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        let at = self.shell.ask_blocking(move |broker, now| broker.put_document(KIND, &name, "", body.into(), now))?;
        Ok(at.0)
    }
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
