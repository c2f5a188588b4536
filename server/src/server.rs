//! Wiring: everything is built bottom-up, started top-down and stopped in reverse.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sluice_broker::{Effect, RealDisk, Recovery, Retention, StoreConfig};
use sluice_model::{GroupName, TopicName};
use sluice_transport::Limits;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    checkers::Checkers,
    clock,
    failure::Failure,
    filters::Filters,
    flow::{Flow, Rates},
    grants::Granter,
    ingress::Ingresses,
    metrics::Metrics,
    pipelines::Pipelines,
    plugins::Plugins,
    priority,
    register::Registrar,
    remoting::{Door, Pulls, Sessions},
    secrets::Secrets,
    shell::{Effects, Shell},
};

/// Time between two looks for pulls whose time is up.
const PULL_TICK: Duration = Duration::from_millis(20);
/// Time between two looks for pipelines that may be started again.
const START_TICK: Duration = Duration::from_secs(1);
/// Effects handled in one go.
const EFFECTS_BATCH: usize = 256;

/// Everything a server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the log and its views live.
    pub data: PathBuf,
    pub broker: sluice_broker::Config,
    pub store: StoreConfig,
    pub retention: Retention,
    pub remoting: Limits,
    pub rates: Rates,
    pub runtime: sluice_runtime::Config,
    /// Folder of the secrets that plugins may be granted, a file each. It is made when the first one is written.
    pub secrets: PathBuf,
    /// Name servers to register with, `host:port`.
    pub name_servers: Vec<String>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("store in {path}: {source}")]
    Store { path: PathBuf, source: sluice_broker::Error },
    #[error("threads: {0}")]
    Threads(std::io::Error),
    #[error("plugin runtime: {0}")]
    Runtime(sluice_runtime::Error),
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What the doors share. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    pub shell: Shell,
    pub plugins: Arc<Plugins>,
    pub pipelines: Arc<Pipelines>,
    pub checkers: Arc<Checkers>,
    pub ingresses: Arc<Ingresses>,
    pub filters: Arc<Filters>,
    pub sessions: Arc<Sessions>,
    pub pulls: Arc<Pulls>,
    pub flow: Arc<Flow>,
    pub registrar: Arc<Registrar>,
    pub metrics: Arc<Metrics>,
}

impl Parts {
    /// What was bound to a topic goes with it. Blocks.
    pub fn topic_deleted(&self, name: &TopicName) -> Result<(), Failure> {
        self.ingresses.delete_all(|topic| topic == name)?;
        self.filters.delete_all(|of| of.topic == *name)
    }

    /// What was bound to a group goes with it. Blocks.
    pub fn group_deleted(&self, name: &GroupName) -> Result<(), Failure> {
        self.filters.delete_all(|of| of.group == *name)
    }
}

/// A running server.
pub struct Server {
    parts: Parts,
    stop: watch::Sender<bool>,
    doors: Vec<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    /// What recovery found.
    pub recovery: Recovery,
}

impl Server {
    /// Opens the store, brings up plugins and pipelines, and opens the doors on sockets that are bound already.
    pub async fn start(config: Config, remoting: TcpListener, rest: TcpListener) -> Result<Self, StartError> {
        let (send_effects, effects) = mpsc::unbounded_channel();
        let limits = config.remoting.clone();
        // Recovery and compilation take their time; they must not hold up a task.
        let built = tokio::task::spawn_blocking(move || build(config, send_effects));
        let (parts, recovery) = match built.await {
            Ok(built) => built?,
            Err(panic) => return Err(Failure::new(sluice_model::Kind::Internal, panic.to_string()).into()),
        };
        let door = Arc::new(Door { parts: parts.clone() });
        let (stop, stopped) = watch::channel(false);
        let mut doors =
            vec![tokio::spawn(sluice_transport::serve(remoting, door.clone(), limits, until(stopped.clone())))];
        let registrar = parts.registrar.clone();
        let tasks = vec![
            tokio::spawn(handle_effects(effects, door.clone())),
            tokio::spawn(tick(door)),
            tokio::spawn(start_again(parts.pipelines.clone())),
            tokio::spawn(async move { registrar.run().await }),
        ];
        // Whoever is told that the broker is ready finds it at the name servers.
        parts.registrar.settled().await;
        doors.push(tokio::spawn(crate::rest::serve(rest, parts.clone(), until(stopped))));
        Ok(Self { parts, stop, doors, tasks, recovery })
    }

    /// Lets requests in work end, stops pipelines behind whole units, writes a checkpoint, and ends.
    pub async fn stop(self) {
        self.parts.registrar.unregister().await;
        self.stop.send_replace(true);
        for door in self.doors {
            let _ = door.await;
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        let parts = self.parts;
        let stopped = tokio::task::spawn_blocking(move || {
            parts.ingresses.stop_all();
            parts.filters.stop_all();
            parts.checkers.stop_all();
            parts.pipelines.stop_all();
            parts.shell.stop();
        });
        let _ = stopped.await;
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the server is gone: stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn build(config: Config, send_effects: mpsc::UnboundedSender<Effect>) -> Result<(Parts, Recovery), StartError> {
    let data = config.data.clone();
    let disk = RealDisk::open(&data).map_err(|error| StartError::Store { path: data.clone(), source: error.into() })?;
    let opened = sluice_broker::open(Arc::new(disk), config.store, config.broker)
        .map_err(|source| StartError::Store { path: data.clone(), source })?;
    let recovery = opened.recovery.clone();
    clock::begin_at(recovery.newest);
    // Bounded by what makes effects: at most one a waiting fetch and one an undecided half message.
    let effects: Effects = Arc::new(move |effect| drop(send_effects.send(effect)));
    let shell = Shell::start(opened, config.retention, effects).map_err(StartError::Threads)?;
    let runtime = sluice_runtime::Config { compilers: priority::compilers(), ..config.runtime };
    let runtime = sluice_runtime::Runtime::new(runtime).map_err(StartError::Runtime)?;
    let granter = Granter::new(shell.reader.clone(), Secrets::new(config.secrets));
    let plugins = Arc::new(Plugins::load(runtime, granter, shell.clone())?);
    let sessions = Arc::new(Sessions::default());
    let checkers = Arc::new(Checkers::load(shell.clone(), plugins.clone(), sessions.clone())?);
    let pipelines = Arc::new(Pipelines::load(shell.clone(), plugins.clone(), data.join("states"))?);
    let ingresses = Arc::new(Ingresses::load(shell.clone(), plugins.clone())?);
    let filters = Arc::new(Filters::load(shell.clone(), plugins.clone())?);
    let registrar = Registrar::new(shell.clone(), config.name_servers);
    let parts = Parts {
        shell,
        plugins,
        pipelines,
        checkers,
        ingresses,
        filters,
        sessions,
        pulls: Arc::new(Pulls::default()),
        flow: Arc::new(Flow::new(config.rates)),
        registrar,
        metrics: Arc::new(Metrics::new(clock::now().0)),
    };
    Ok((parts, recovery))
}

/// Does what the broker asks for.
async fn handle_effects(mut effects: mpsc::UnboundedReceiver<Effect>, door: Arc<Door>) {
    let mut batch = Vec::with_capacity(EFFECTS_BATCH);
    while effects.recv_many(&mut batch, EFFECTS_BATCH).await > 0 {
        for effect in batch.drain(..) {
            match effect {
                Effect::Wake(token) => {
                    if !door.parts.pipelines.wake(token) {
                        door.wake(token);
                    }
                }
                Effect::CheckHalf(check) => {
                    let checkers = door.parts.checkers.clone();
                    if let Some(check) = checkers.check(check) {
                        tokio::task::spawn_blocking(move || checkers.ask_producer(&check));
                    }
                }
                Effect::TopicsChanged => door.parts.registrar.topics_changed(),
            }
        }
    }
}

/// Starts pipelines again for which there was no instance or no room.
async fn start_again(pipelines: Arc<Pipelines>) {
    let mut ticks = tokio::time::interval(START_TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let pipelines = pipelines.clone();
        // One that panics has logged that; the others get their turn with the next tick.
        let _ = tokio::task::spawn_blocking(move || pipelines.start_again()).await;
    }
}

/// What happens without anybody asking: pulls time out, silent members leave, rates are taken.
async fn tick(door: Arc<Door>) {
    let mut ticks = tokio::time::interval(PULL_TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let per_second = 1_000 / PULL_TICK.as_millis() as u64;
    for count in 0u64.. {
        ticks.tick().await;
        door.expire_pulls();
        if count.is_multiple_of(per_second) {
            door.parts.metrics.tick();
            let changed = door.parts.shell.reader.expire_members(clock::now());
            door.parts.sessions.tell(changed);
        }
    }
}
