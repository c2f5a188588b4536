use std::time::Duration;

/// Limits of a server's connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most connections at a time; more are closed at once.
    pub connections: usize,
    /// Longest frame, bytes; a longer one closes the connection.
    pub frame_bytes: usize,
    /// Most requests of one connection in work at a time; reading stops there.
    pub in_flight: usize,
    /// Most requests of ours that wait for the peer's answer, per connection.
    pub calls: usize,
    /// Most bytes waiting to be sent on a connection before reading stops; at eight times as many it is closed.
    pub outgoing_bytes: usize,
    /// A connection on which nothing comes or goes for so long is closed.
    pub idle: Duration,
    /// How long requests in work may take to end once the server is to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            frame_bytes: sluice_model::limits::FRAME_LEN,
            in_flight: 1024,
            calls: 1024,
            outgoing_bytes: 8 * 1024 * 1024,
            idle: Duration::from_secs(120),
            drain: Duration::from_secs(5),
        }
    }
}
