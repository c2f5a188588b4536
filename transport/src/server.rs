use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tracing::{debug, warn};

use crate::{
    Handler, Limits, Session,
    peer::{Terms, run},
};

/// How long accepting rests after it failed: out of file descriptors, most likely.
const REST: Duration = Duration::from_millis(50);

/// Serves connections until `shutdown`; then accepts no more, lets requests in work end within `limits.drain`, and returns
/// when all connections are closed.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((_, peer)) if connections.len() >= limits.connections => {
                warn!(%peer, limit = limits.connections, "too many connections: this one is closed");
            }
            Ok((stream, _)) => {
                let mut stopped = stopped.clone();
                let (handler, limits) = (handler.clone(), limits.clone());
                connections.spawn(async move {
                    let stop = async move {
                        // An error means that the server is gone: stop as well.
                        let _ = stopped.wait_for(|stop| *stop).await;
                    };
                    if let Err(problem) = connection(stream, &*handler, &limits, stop).await {
                        debug!(%problem, "a connection was lost before it began");
                    }
                });
            }
            Err(problem) => {
                warn!(%problem, "cannot accept connections");
                tokio::time::sleep(REST).await;
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
}

async fn connection<H: Handler>(
    stream: TcpStream,
    handler: &H,
    limits: &Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (session, from) = Session::new(stream, limits.in_flight, limits.calls, limits.outgoing_bytes)?;
    let terms = Terms { frame_bytes: limits.frame_bytes, idle: limits.idle, drain: limits.drain };
    run(from, &session, handler, &terms, stop).await;
    Ok(())
}
