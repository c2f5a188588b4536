//! Runs a built plugin on given records, in the broker's own runtime, with the broker's own limits.
//!
//! ```no_run
//! use sluice_testkit::{Kit, record};
//!
//! # fn main() -> Result<(), sluice_testkit::Error> {
//! let plugin = Kit::build(env!("CARGO_MANIFEST_DIR"))?;
//! let mut run = plugin.start(&serde_json::json!({"min": 10}))?;
//! assert_eq!(run.filter(&[record("").header("amount", "11"), record("").header("amount", "9")])?, [true, false]);
//! # Ok(())
//! # }
//! ```

mod sample;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluice_guest_build::Guests;
use sluice_runtime::{
    Batch, Config, Context, Decision, Failure, Grants, HalfMessage, Instance, Limits, Output, Plugin, Record, Report,
    Role, Runtime, Setup, ports::Secret, state::Partition,
};

pub use sample::{Sample, half, record};
pub use sluice_guest_build::Target;
pub use sluice_runtime as runtime;
use world::Values;

/// A time at which nothing has expired yet.
const BEFORE_ALL: u64 = 0;
pub use world::{Journal, Servers, Topics};

/// Why a test could not run as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Build(#[from] sluice_guest_build::Error),
    #[error(transparent)]
    Runtime(#[from] sluice_runtime::Error),
    #[error("refused: {0}")]
    Refused(#[from] sluice_runtime::Refusal),
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("a config is a JSON object, got {0}")]
    Config(Value),
    #[error("record {index} failed: {code}: {reason}")]
    Record { index: usize, code: String, reason: String },
    #[error("the records do not fit into one batch")]
    TooMany,
}

/// A plugin under test.
pub struct Kit {
    plugin: Plugin,
    report: Report,
    sinks: Vec<String>,
    limits: Limits,
    topics: Topics,
    secrets: Values,
    servers: Arc<Servers>,
    lateness: u64,
}

impl Kit {
    /// Builds the guest crate in this directory and uploads it.
    ///
    /// # Errors
    /// It does not build, or the upload gate refuses it.
    pub fn build(dir: impl AsRef<Path>) -> Result<Kit, Error> {
        let built = Guests::at(dir).build()?;
        let component = built.first().map(|built| built.component.as_slice()).unwrap_or_default();
        Kit::upload(component)
    }

    /// Uploads a component.
    ///
    /// # Errors
    /// The upload gate refuses it.
    pub fn upload(component: &[u8]) -> Result<Kit, Error> {
        let runtime = Runtime::new(Config { instances: 16, ..Config::default() })?;
        let (plugin, report) = runtime.load("the plugin", component)?;
        Ok(Kit {
            plugin,
            report,
            sinks: vec!["out".into()],
            limits: Limits::default(),
            topics: Topics::default(),
            secrets: Values::default(),
            servers: Arc::default(),
            lateness: 0,
        })
    }

    /// Names the pipeline's sinks; one sink `out` otherwise.
    #[must_use]
    pub fn sinks(mut self, topics: &[&str]) -> Kit {
        self.sinks = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self
    }

    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Kit {
        self.limits = limits;
        self
    }

    /// How much older than the newest a record may be and still be on time for a processor.
    #[must_use]
    pub fn lateness(mut self, lateness: Duration) -> Kit {
        self.lateness = u64::try_from(lateness.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Grants look-ups in these topics.
    #[must_use]
    pub fn topics(mut self, topics: Topics) -> Kit {
        self.topics = topics;
        self
    }

    /// Grants a secret.
    #[must_use]
    pub fn secret(mut self, name: &str, value: &str) -> Kit {
        self.secrets.0.push((name.to_owned(), Secret::new(value.to_owned())));
        self
    }

    /// Grants requests to these servers. Keep a handle to see what they were asked.
    #[must_use]
    pub fn servers(mut self, servers: &Arc<Servers>) -> Kit {
        self.servers = Arc::clone(servers);
        self
    }

    /// What the upload gate found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Starts an instance with this config, a JSON object.
    ///
    /// # Errors
    /// The config is refused, by the parameters' schemas or by the plugin itself.
    pub fn start(&self, config: &Value) -> Result<Run, Error> {
        let Value::Object(config) = config else { return Err(Error::Config(config.clone())) };
        let journal = Arc::new(Journal::default());
        let grants = Grants {
            topics: self.topics.names(),
            lookup: Some(Arc::new(self.topics.clone())),
            urls: self.servers.granted(),
            http: Some(Arc::<Servers>::clone(&self.servers)),
            secret_names: self.secrets.0.iter().map(|(name, _)| name.clone()).collect(),
            secrets: Some(Arc::new(self.secrets.clone())),
            audit: None,
        };
        let context = Context {
            pipeline: "test".into(),
            step: self.report.manifest.name.clone(),
            queue: 0,
            input_topic: "in".into(),
            output_topics: self.sinks.clone(),
        };
        let observer = Arc::<Journal>::clone(&journal);
        let (limits, lateness) = (self.limits.clone(), self.lateness);
        let setup = Setup { config: config.clone(), context, limits, grants, observer, lateness, ..Setup::default() };
        let instance = self.plugin.instance(setup)?;
        let state = if self.plugin.has(Role::Process) {
            Some(Box::new(Partition::fresh().map_err(sluice_runtime::Error::from)?))
        } else {
            None
        };
        Ok(Run { instance, journal, sinks: self.sinks.len(), state, offset: 0 })
    }
}

/// A running plugin.
pub struct Run {
    instance: Instance,
    journal: Arc<Journal>,
    sinks: usize,
    /// What a processor keeps from one batch to the next.
    state: Option<Box<Partition>>,
    /// Offset of the next record.
    offset: u64,
}

/// A record that a transformer or processor made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Index of the input record.
    pub from: usize,
    /// Index of the sink.
    pub sink: usize,
    pub record: Record,
}

impl Made {
    /// The body as text; bytes that are none are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.record.value).into_owned()
    }
}

/// What a transformer made of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transformed {
    pub made: Vec<Made>,
    /// Index, code and reason of each record that failed.
    pub failed: Vec<(usize, String, String)>,
}

impl Run {
    /// Which records the filter keeps.
    ///
    /// # Errors
    /// The plugin, or one record, failed.
    pub fn filter(&mut self, records: &[Sample]) -> Result<Vec<bool>, Error> {
        let batch = self.batch(records)?;
        let verdict = self.instance.filter(&batch)?;
        if let Some(failure) = verdict.failed.first() {
            let (index, code, reason) = (failure.index, failure.code.clone(), failure.reason.clone());
            return Err(Error::Record { index, code, reason });
        }
        Ok((0..records.len()).map(|index| verdict.keeps(index)).collect())
    }

    /// What the transformer makes.
    ///
    /// # Errors
    /// The plugin failed. Records that failed are part of the answer.
    pub fn transform(&mut self, records: &[Sample]) -> Result<Transformed, Error> {
        let batch = self.batch(records)?;
        let output = self.instance.transform(&batch, self.sinks)?;
        Ok(transformed(records, output))
    }

    /// What the processor makes of the records, as in a pipeline that reads them in one turn and commits it. What it keeps, and how far it
    /// has seen, is there in the next call.
    ///
    /// # Errors
    /// The plugin failed, and nothing is kept. Records that failed are part of the answer, and leave nothing behind.
    pub fn process(&mut self, records: &[Sample]) -> Result<Transformed, Error> {
        let input = self.at_offsets(records);
        let output = self.instance.process_alone(&input, self.sinks, &mut self.state)?;
        Ok(transformed(records, output))
    }

    /// What the processor makes of the processing-time timers that are due at `now` by the broker's clock, milliseconds since 1970, as in a
    /// pipeline to which nothing comes; the earliest first. An index is that of a timer here.
    ///
    /// # Errors
    /// The plugin failed; what timers before that did is kept. Timers that failed are part of the answer, and leave nothing behind.
    pub fn fire_timers(&mut self, now: u64) -> Result<Transformed, Error> {
        let mut whole = Transformed::default();
        let mut fired: Vec<Sample> = Vec::new();
        loop {
            // What they set is due later than now.
            let (due, output) = self.instance.fire_alone(now, self.sinks, &mut self.state)?;
            if due.is_empty() {
                return Ok(whole);
            }
            let before = fired.len();
            fired.extend(due.into_iter().map(Sample::of_timer));
            let some = transformed(&fired[before..], output);
            whole.made.extend(some.made.into_iter().map(|made| Made { from: before + made.from, ..made }));
            whole.failed.extend(some.failed.into_iter().map(|(index, code, why)| (before + index, code, why)));
        }
    }

    /// What the processor keeps in a store under this key, expired or not.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn look(&mut self, store: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        match &mut self.state {
            Some(state) => Ok(state.look(store, key.as_bytes(), BEFORE_ALL).map_err(sluice_runtime::Error::from)?),
            None => Ok(None),
        }
    }

    /// What the checker decides.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn check(&mut self, message: &HalfMessage) -> Result<Decision, Error> {
        Ok(self.instance.check(message)?)
    }

    /// Lines the plugin logged, with their fields.
    #[must_use]
    pub fn logs(&self) -> Vec<String> {
        self.journal.lines()
    }

    fn batch(&mut self, records: &[Sample]) -> Result<Batch, Error> {
        let mut batch = Batch::new(self.instance.plugin().manifest().needs, 0);
        for record in self.at_offsets(records) {
            if !batch.push(&record, 0) {
                return Err(Error::TooMany);
            }
        }
        Ok(batch)
    }

    /// The records, with the offsets that come next.
    fn at_offsets(&mut self, records: &[Sample]) -> Vec<Record> {
        let first = self.offset;
        self.offset += records.len() as u64;
        records.iter().zip(first..).map(|(Sample(record), offset)| Record { offset, ..record.clone() }).collect()
    }
}

fn transformed(records: &[Sample], output: Output) -> Transformed {
    let made = output.produced.into_iter().map(|item| {
        let (from, sink) = (item.origin, item.target);
        Made { from, sink, record: item.applied_to(&records[from].0) }
    });
    let failed = output.failed.into_iter().map(|f| (f.index, f.code, f.reason));
    Transformed { made: made.collect(), failed: failed.collect() }
}
