//! Server-sent events of what is written little by little.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Rest, problem::Problem};

/// Time between two looks for something new.
const LOOK: Duration = Duration::from_millis(100);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What came since it was last asked; `None`: there will be no more.
pub type More<T> = Box<dyn FnMut() -> Option<Vec<T>> + Send>;

/// Events called `name`: what is `ready`, then what `more` gives from time to time. `Busy` when too many streams are open.
pub fn answer<T: Serialize + Send + 'static>(
    rest: &Rest,
    name: &'static str,
    ready: Vec<T>,
    more: More<T>,
) -> Result<Response, Problem> {
    let permit = rest.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy("too many streams are open"))?;
    let follow = Follow { name, ready: ready.into_iter(), more, stopping: rest.stopping.clone(), _permit: permit };
    let events = stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok::<_, Infallible>(event), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// One open stream.
struct Follow<T> {
    name: &'static str,
    ready: std::vec::IntoIter<T>,
    more: More<T>,
    stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl<T: Serialize> Follow<T> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(item) = self.ready.next() {
                return Event::default().event(self.name).json_data(item).ok();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = self.stopping.wait_for(|stop| *stop) => return None,
            }
            self.ready = (self.more)()?.into_iter();
        }
    }
}
