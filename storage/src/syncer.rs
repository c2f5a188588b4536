use std::sync::Arc;

use sluice_model::LogOffset;

use crate::{Error, segment::Segment, shared::Shared};

/// Makes the log durable, on a thread of its own.
pub struct Syncer {
    pub(crate) shared: Arc<Shared>,
}

impl Syncer {
    /// Makes everything appended so far durable; returns up to where that is.
    ///
    /// The first failure poisons the log: this and every later append and sync fail, until the log is opened again.
    pub fn sync(&self) -> Result<LogOffset, Error> {
        let shared = &self.shared;
        shared.sound()?;
        let (durable, appended) = (shared.marks.durable(), shared.marks.appended());
        if durable == appended {
            return Ok(durable);
        }
        let dirty: Vec<Arc<Segment>> = {
            let segments = shared.segments.read();
            let touched = |segment: &&Arc<Segment>| segment.end() > durable.0 && segment.base < appended.0;
            segments.iter().filter(touched).cloned().collect()
        };
        shared.sync(&dirty)?;
        shared.marks.publish_durable(appended.0);
        Ok(appended)
    }
}
