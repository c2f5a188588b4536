//! Numbers for the plugin's dashboard.

use crate::wit::imports::metrics;

pub use crate::wit::imports::metrics::Kind;

/// A registered metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric(u32);

impl Metric {
    /// Names are lower-case letters, digits and `_`. The same name gives the same metric.
    ///
    /// # Errors
    /// The host's words.
    pub fn register(name: &str, kind: Kind) -> Result<Metric, String> {
        metrics::register(name, kind).map(Metric)
    }

    /// Adds to a counter, sets a gauge, observes in a histogram.
    pub fn observe(self, value: f64) {
        metrics::observe(self.0, value);
    }
}
