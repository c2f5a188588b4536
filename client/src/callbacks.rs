//! What brokers ask of this client.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sluice_model::{GroupName, RecordView, key};
use sluice_protocol::{
    Frame, Request, Response, ResponseCode,
    request::{CheckTransaction, EndTransaction},
};
use sluice_transport::{Handler, Responder, Session};
use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use crate::{Error, Received, transaction::Decision};

/// Most half messages that are decided about or wait for that; the broker asks again about others, but not soon.
const CHECKS: usize = 512;

pub(crate) type Check = Arc<dyn Fn(&Received) -> Decision + Send + Sync>;

/// The groups of this client, and what wakes its tasks.
pub(crate) struct Callbacks {
    /// Who decides about half messages, by producer group.
    pub checks: Mutex<HashMap<GroupName, Check>>,
    /// Told when the members of a consumer group changed.
    pub rebalances: Mutex<HashMap<GroupName, Arc<Notify>>>,
    /// A heartbeat is due: a connection is new, or a group.
    pub heartbeat: Notify,
    checking: Arc<Semaphore>,
}

impl Default for Callbacks {
    fn default() -> Self {
        Self {
            checks: Mutex::default(),
            rebalances: Mutex::default(),
            heartbeat: Notify::new(),
            checking: Arc::new(Semaphore::new(CHECKS)),
        }
    }
}

impl Handler for Callbacks {
    fn request(&self, session: &Session, frame: Frame, responder: Responder) {
        match Request::decode(&frame) {
            Ok(Request::ConsumersChanged(changed)) => {
                if let Some(wake) = self.rebalances.lock().get(&changed.group) {
                    wake.notify_one();
                }
                responder.send(Response::ok());
            }
            Ok(Request::CheckTransaction(check)) => {
                if let Err(problem) = self.check(session, &check) {
                    warn!(%problem, "a half message cannot be decided about");
                }
                responder.send(Response::ok());
            }
            Ok(_) => {
                let remark = format!("this client does not know request code {}", frame.header.code);
                responder.send(Response::error(ResponseCode::RequestCodeNotSupported, remark));
            }
            Err(problem) => responder.send(Response::error(ResponseCode::InvalidParameter, problem.to_string())),
        }
    }

    fn opened(&self, _: &Session) {
        self.heartbeat.notify_one();
    }
}

impl Callbacks {
    fn check(&self, session: &Session, asked: &CheckTransaction) -> Result<(), Error> {
        let record = RecordView::parse(&asked.body)?;
        let half = Received::new(&record, asked.broker.as_deref().unwrap_or_default())?;
        let group = GroupName::parse(half.property(key::PRODUCER_GROUP).unwrap_or_default())?;
        let Some(check) = self.checks.lock().get(&group).cloned() else {
            return Err(Error::Invalid { field: "producerGroup", problem: format!("{group} is not of this client") });
        };
        let Ok(permit) = self.checking.clone().try_acquire_owned() else { return Ok(()) };
        let mut end = EndTransaction {
            topic: Some(half.topic.clone()),
            group,
            half_offset: asked.half_offset,
            log_offset: asked.log_offset,
            decision: Decision::Unknown.code(),
            from_check: true,
            message_id: Some(half.message_id.clone()),
            transaction_id: asked.transaction_id.clone(),
        };
        let session = session.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            end.decision = check(&half).code();
            if let Err(problem) = session.send_oneway(end.encode()) {
                warn!(%problem, "a decision was not sent; the broker will ask again");
            }
        });
        Ok(())
    }
}
