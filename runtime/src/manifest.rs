use serde_json::Value;

use crate::bindings::Columns;
use crate::bindings::sluice::plugin::types as wit;
use crate::output::short;
use crate::schema::Schema;

/// What a plugin can be used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Filter,
    Transform,
    Process,
    CheckTransaction,
}

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Filter => "filter",
            Role::Transform => "transform",
            Role::Process => "process",
            Role::CheckTransaction => "check-transaction",
        }
    }
}

/// A configuration value that a plugin takes.
#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    /// JSON Schema of the value.
    pub schema: Value,
    pub required: bool,
    pub(crate) compiled: Schema,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub doc: String,
}

/// Keyed values that a processor keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreDeclared {
    pub name: String,
    pub doc: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// At least one.
    Ports(Vec<Port>),
    OnePerSink,
}

/// What a plugin says of itself, checked.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub name: String,
    /// `major.minor.patch`
    pub version: String,
    pub doc: String,
    pub needs: Columns,
    /// Tags or a SQL92 condition: records for which it does not hold never enter the plugin.
    pub prefilter: Option<String>,
    pub outputs: Outputs,
    pub params: Vec<Param>,
    pub stores: Vec<StoreDeclared>,
}

const MAX_DOC: usize = 16 * 1024;
const MAX_LIST: usize = 64;
const MAX_PREFILTER: usize = 4096;

impl Manifest {
    pub(crate) fn check(raw: wit::Manifest) -> Result<Manifest, String> {
        let wit::Manifest { name, version, doc, needs, prefilter, outputs, params, stores } = raw;
        if !is_name(&name) {
            return Err(format!("name: expected 1 to 64 lower-case letters, digits and `-`, got {}", quoted(name)));
        }
        if !is_version(&version) {
            return Err(format!("version: expected major.minor.patch, got {}", quoted(version)));
        }
        if doc.len() > MAX_DOC {
            return Err(format!("doc: at most {MAX_DOC} bytes, got {}", doc.len()));
        }
        if params.len() > MAX_LIST {
            return Err(format!("params: at most {MAX_LIST}, got {}", params.len()));
        }
        let mut checked: Vec<Param> = Vec::with_capacity(params.len());
        for param in params {
            let param = check_param(param)?;
            if checked.iter().any(|other| other.name == param.name) {
                return Err(format!("params: `{}` is declared twice", param.name));
            }
            checked.push(param);
        }
        if let Some(len) = prefilter.as_ref().map(String::len).filter(|len| *len > MAX_PREFILTER) {
            return Err(format!("prefilter: at most {MAX_PREFILTER} bytes, got {len}"));
        }
        let (outputs, stores) = (check_outputs(outputs)?, check_stores(stores)?);
        Ok(Manifest { name, version, doc, needs, prefilter, outputs, params: checked, stores })
    }
}

fn check_param(raw: wit::Param) -> Result<Param, String> {
    let wit::Param { name, json_schema, required } = raw;
    if name.is_empty() || name.len() > 64 {
        return Err(format!("params: a name has 1 to 64 bytes, got {}", quoted(name)));
    }
    if json_schema.len() > MAX_DOC {
        return Err(format!("params: the schema of `{name}` is longer than {MAX_DOC} bytes"));
    }
    let schema: Value =
        serde_json::from_str(&json_schema).map_err(|e| format!("params: the schema of `{name}` is not JSON: {e}"))?;
    let compiled = Schema::compile(&schema).map_err(|e| format!("params: the schema of `{name}`: {e}"))?;
    Ok(Param { name, schema, required, compiled })
}

fn check_outputs(raw: wit::Outputs) -> Result<Outputs, String> {
    let ports = match raw {
        wit::Outputs::OnePerSink => return Ok(Outputs::OnePerSink),
        wit::Outputs::Ports(ports) => ports,
    };
    if ports.is_empty() || ports.len() > MAX_LIST {
        return Err(format!("outputs: expected 1 to {MAX_LIST} ports, got {}", ports.len()));
    }
    let mut checked: Vec<Port> = Vec::with_capacity(ports.len());
    for wit::Port { name, doc } in ports {
        if !is_name(&name) {
            return Err(format!(
                "outputs: expected lower-case letters, digits and `-` as a name, got {}",
                quoted(name)
            ));
        }
        if checked.iter().any(|other| other.name == name) {
            return Err(format!("outputs: `{name}` is declared twice"));
        }
        check_doc("outputs", &name, &doc)?;
        checked.push(Port { name, doc });
    }
    Ok(Outputs::Ports(checked))
}

fn check_stores(raw: Vec<wit::Store>) -> Result<Vec<StoreDeclared>, String> {
    if raw.len() > MAX_LIST {
        return Err(format!("stores: at most {MAX_LIST}, got {}", raw.len()));
    }
    let mut checked: Vec<StoreDeclared> = Vec::with_capacity(raw.len());
    for wit::Store { name, doc } in raw {
        if !is_name(&name) {
            return Err(format!("stores: expected lower-case letters, digits and `-` as a name, got {}", quoted(name)));
        }
        if checked.iter().any(|other| other.name == name) {
            return Err(format!("stores: `{name}` is declared twice"));
        }
        check_doc("stores", &name, &doc)?;
        checked.push(StoreDeclared { name, doc });
    }
    Ok(checked)
}

fn check_doc(of: &str, name: &str, doc: &str) -> Result<(), String> {
    if doc.len() > MAX_DOC {
        return Err(format!("{of}: the doc of `{name}` has at most {MAX_DOC} bytes, got {}", doc.len()));
    }
    Ok(())
}

/// A text that may be megabytes long, for a message.
fn quoted(text: String) -> String {
    format!("{:?}", short(text, 128))
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_version(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|p| {
            (1..=9).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()) && (*p == "0" || !p.starts_with('0'))
        })
}

/// What the upload gate found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Lower-case hexadecimal SHA-256 of the uploaded bytes: the plugin's identity.
    pub digest: String,
    pub roles: Vec<Role>,
    /// Interfaces that the component imports, all of them granted.
    pub imports: Vec<String>,
    /// Bytes uploaded.
    pub size: u64,
    pub compile_ms: u64,
    pub manifest: Manifest,
}
