//! The connections of the remoting door, so that the broker can address its clients.

use std::collections::HashMap;

use parking_lot::Mutex;
use sluice_broker::{Changed, SessionId};
use sluice_protocol::{Frame, request::ConsumersChanged};
use sluice_transport::Session;

pub(super) fn id(session: &Session) -> SessionId {
    SessionId(session.id())
}

/// Tells a client something that it finds out by itself in time, should it not be told.
pub(super) fn notify(session: &Session, notice: Frame) {
    if let Err(error) = session.send_oneway(notice) {
        tracing::debug!(peer = %session.peer(), %error, "a client was not told");
    }
}

#[derive(Default)]
pub struct Sessions {
    by_id: Mutex<HashMap<SessionId, Session>>,
}

impl Sessions {
    pub(super) fn add(&self, session: &Session) {
        self.by_id.lock().insert(id(session), session.clone());
    }

    pub(super) fn remove(&self, session: &Session) {
        self.by_id.lock().remove(&id(session));
    }

    pub fn get(&self, id: SessionId) -> Option<Session> {
        self.by_id.lock().get(&id).cloned()
    }

    pub fn len(&self) -> usize {
        self.by_id.lock().len()
    }

    /// Tells the members of changed groups, so that they share the queues anew at once.
    pub fn tell(&self, changed: Vec<Changed>) {
        for Changed { group, sessions } in changed {
            let notice = ConsumersChanged { group }.encode();
            for session in sessions.into_iter().filter_map(|id| self.get(id)) {
                notify(&session, notice.clone());
            }
        }
    }
}
