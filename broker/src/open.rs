//! Bringing a broker up from what the disk holds.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sluice_storage::{Checkpointer, Disk, Recovery};

use crate::{
    applier::Applier,
    broker::{Broker, Shared},
    config::Config,
    error::Result,
    locks::Locks,
    members::Members,
    reader::Reader,
    state::State,
    views::LogViews,
    waiters::Waiters,
};

/// A broker ready to serve: its handles, and what recovery found.
pub struct Opened {
    pub broker: Broker,
    pub applier: Applier,
    pub checkpointer: Checkpointer,
    pub reader: Reader,
    pub recovery: Recovery,
}

/// Opens the store on `disk`, replays what no checkpoint covers, and hands out the broker.
///
/// Fails with `Corrupt` when the log has a hole, `Busy` when another process has the store open.
pub fn open(disk: Arc<dyn Disk>, store: sluice_storage::Config, config: Config) -> Result<Opened> {
    let state = State::new(config.transaction_timeout_ms, &config.cluster, &config.name);
    let shared = Arc::new(Shared {
        config,
        segment_len: store.segment_len,
        state: RwLock::new(state),
        members: Mutex::new(Members::default()),
        waiters: Mutex::new(Waiters::default()),
        locks: Mutex::new(Locks::default()),
    });
    let opened = sluice_storage::open(disk, store, &mut LogViews::new(&shared))?;
    let reader = Reader::new(opened.reader, shared.clone());
    let broker = Broker::new(opened.appender, shared.clone(), reader.clone());
    let applier = Applier::new(opened.applier, opened.syncer, shared, reader.clone());
    Ok(Opened { broker, applier, checkpointer: opened.checkpointer, reader, recovery: opened.recovery })
}
