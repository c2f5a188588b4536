use std::sync::Arc;

use serde_json::{Map, Value};
use wasmtime::component::InstancePre;

use crate::bindings::exports::sluice::plugin as exports;
use crate::engine::Runtime;
use crate::error::Error;
use crate::grants::Grants;
use crate::host::{Context, Observer, Silent, State};
use crate::instance::Instance;
use crate::limits::Limits;
use crate::manifest::{Manifest, Outputs, Role};

pub(crate) struct Exports {
    pub(crate) plugin: exports::plugin::GuestIndices,
    pub(crate) filter: Option<exports::filter::GuestIndices>,
    pub(crate) transform: Option<exports::transform::GuestIndices>,
    pub(crate) process: Option<exports::process::GuestIndices>,
    pub(crate) check: Option<exports::check_transaction::GuestIndices>,
}

pub(crate) struct Program {
    pub(crate) runtime: Runtime,
    pub(crate) pre: InstancePre<State>,
    pub(crate) exports: Exports,
    pub(crate) digest: String,
    pub(crate) roles: Vec<Role>,
    /// Absent only while the gate asks for it.
    pub(crate) manifest: Option<Manifest>,
}

/// A compiled plugin that passed the gate. Cloning gives another handle.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) program: Arc<Program>,
}

/// What an instance is started with.
#[derive(Clone)]
pub struct Setup {
    /// Values by parameter.
    pub config: Map<String, Value>,
    pub context: Context,
    pub limits: Limits,
    /// Once it is configured; `configure` itself has none of them.
    pub grants: Grants,
    pub observer: Arc<dyn Observer>,
    /// Of a processor, its name among the steps that keep state; its plugin's name unless several are alike.
    pub keeps_as: Option<String>,
    /// How much older than the newest a record may be and still be on time for a processor, milliseconds.
    pub lateness: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            config: Map::new(),
            context: Context::default(),
            limits: Limits::default(),
            grants: Grants::default(),
            observer: Arc::new(Silent),
            keeps_as: None,
            lateness: 0,
        }
    }
}

impl Plugin {
    /// Lower-case hexadecimal SHA-256 of the uploaded bytes.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.program.digest
    }

    #[must_use]
    #[expect(clippy::expect_used, reason = "a Plugin is made only after its manifest was checked")]
    pub fn manifest(&self) -> &Manifest {
        self.program.manifest.as_ref().expect("checked by the gate")
    }

    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.program.roles
    }

    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.program.roles.contains(&role)
    }

    /// Outputs that the plugin declares, `None` for one per sink.
    #[must_use]
    pub fn output_count(&self) -> Option<usize> {
        match &self.manifest().outputs {
            Outputs::Ports(ports) => Some(ports.len()),
            Outputs::OnePerSink => None,
        }
    }

    /// Checks a config against the parameters' schemas and then asks the plugin itself, in an instance that ends at once.
    ///
    /// # Errors
    /// [`Error::Param`] names the value, [`Error::Configure`] carries the plugin's own words.
    pub fn check_config(&self, config: &Map<String, Value>, context: &Context) -> Result<(), Error> {
        let setup = Setup { config: config.clone(), context: context.clone(), ..Setup::default() };
        self.instance(setup).map(drop)
    }

    /// Starts an instance: one store, configured. Use one per queue.
    ///
    /// # Errors
    /// As [`Plugin::check_config`]; [`Error::Full`] if all instances are in use; [`Error::Limit`] if a limit is out of range.
    pub fn instance(&self, setup: Setup) -> Result<Instance, Error> {
        setup.limits.check(&self.program.runtime.shared.config)?;
        let values = self.config_texts(&setup.config)?;
        Instance::start(self.clone(), setup, &values)
    }

    /// # Errors
    /// [`Error::Role`] if the plugin does not have it.
    pub fn expect_role(&self, role: Role) -> Result<(), Error> {
        if self.has(role) {
            return Ok(());
        }
        let has: Vec<&str> = self.roles().iter().map(|role| role.as_str()).collect();
        Err(Error::Role { plugin: self.manifest().name.clone(), role: role.as_str(), has: has.join(", ") })
    }

    fn config_texts(&self, config: &Map<String, Value>) -> Result<Vec<(String, String)>, Error> {
        let params = &self.manifest().params;
        for name in config.keys() {
            if !params.iter().any(|param| param.name == *name) {
                let known: Vec<&str> = params.iter().map(|param| param.name.as_str()).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                let problem = format!("{} has no such parameter; it has: {known}", self.manifest().name);
                return Err(Error::Param { param: name.clone(), problem });
            }
        }
        let mut texts = Vec::with_capacity(config.len());
        for param in params {
            let wrong = |problem| Error::Param { param: param.name.clone(), problem };
            match config.get(&param.name) {
                Some(value) => {
                    param.compiled.check(value).map_err(wrong)?;
                    texts.push((param.name.clone(), value.to_string()));
                }
                None if param.required => return Err(wrong(format!("missing, {} requires it", self.manifest().name))),
                None => {}
            }
        }
        Ok(texts)
    }
}
