//! What plugins may be granted beyond their records: requests to other servers, look-ups in topics, secrets. Each where it is named.

mod http;
mod lookup;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_broker::Reader;
use sluice_model::{Kind, TopicName};
use sluice_runtime::{Grants, UrlGrant};

use crate::{
    audit::{Audit, Holder, Holding, Witness},
    failure::{Failure, Result},
    secrets::Secrets,
};
use http::{Agent, Requests};
use lookup::ByKey;

/// Most entries of each list of grants.
const ENTRIES_LIMIT: usize = 32;

/// What a plugin is granted beyond its records; nothing when left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantsSpec {
    /// Where it may send HTTP requests to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpSpec>,
    /// Topics that it may look messages up in by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// Names of the secrets that it may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

impl GrantsSpec {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A server, a path on it, and methods.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    /// `https://api.example.com/v1/` grants what is below it: scheme, host and port are the same, and the path begins with this one.
    pub url: String,
    /// Of GET, HEAD, POST, PUT, PATCH and DELETE; GET when left out.
    #[serde(default = "get")]
    pub methods: Vec<String>,
}

fn get() -> Vec<String> {
    vec!["GET".to_owned()]
}

impl fmt::Display for HttpSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.methods.join("|"), self.url)
    }
}

/// Where plugins are used that something is granted to.
#[derive(Clone)]
pub struct Site {
    /// `pipeline`, `checker`, `ingress`, `filter` or `try`
    pub kind: &'static str,
    /// Name of the pipeline or binding, or of the plugin that is tried.
    pub name: String,
    /// Why nothing may be granted here that is waited for, if so.
    pub hurried: Option<&'static str>,
    /// True when nothing is to be asked any more: its plugins are being stopped.
    pub stopping: Arc<AtomicBool>,
}

/// Gives plugins what is named for them.
pub struct Granter {
    reader: Reader,
    secrets: Arc<Secrets>,
    audit: Arc<Audit>,
    agent: Agent,
}

impl Granter {
    pub fn new(reader: Reader, secrets: Secrets) -> Self {
        Self { reader, secrets: Arc::new(secrets), audit: Arc::default(), agent: Agent::new() }
    }

    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Looks every name up and checks every value. `field` names a part of the grants in errors.
    pub fn check(&self, spec: &GrantsSpec, site: &Site, field: impl Fn(&str) -> String) -> Result<()> {
        let wrong = |part: &str, text: String| {
            let field = field(part);
            Failure::invalid(&field, format!("{field}: {text}"))
        };
        let within = |part: &str, failure: Failure| Failure { kind: failure.kind, ..wrong(part, failure.text) };
        for (part, count) in [("http", spec.http.len()), ("topics", spec.topics.len()), ("secrets", spec.secrets.len())]
        {
            if count > ENTRIES_LIMIT {
                return Err(wrong(part, format!("expected at most {ENTRIES_LIMIT}, got {count}")));
            }
            if let Some(why) = site.hurried.filter(|_| count > 0 && part != "secrets") {
                return Err(wrong(part, why.to_owned()));
            }
        }
        urls(spec).map_err(|text| wrong("http", text))?;
        for topic in &spec.topics {
            let name = TopicName::parse(topic).map_err(|error| within("topics", error.into()))?;
            self.reader.topic(&name).map_err(|error| within("topics", error.into()))?;
        }
        spec.secrets.iter().try_for_each(|name| self.secrets.check(name).map_err(|failure| within("secrets", failure)))
    }

    /// What a plugin gets that was granted this, once it is checked. The audit hears of one that was granted nothing and tries all the same.
    pub fn grant(&self, spec: &GrantsSpec, site: &Site, step: &str, digest: &str) -> Result<Grants> {
        let holder = site.holder(step, digest);
        Ok(Grants {
            lookup: Some(Arc::new(ByKey::new(self.reader.clone()))),
            topics: spec.topics.clone(),
            http: Some(Arc::new(Requests::new(self.agent.clone(), site.stopping.clone()))),
            urls: urls(spec).map_err(|text| Failure::new(Kind::Invalid, text))?,
            secrets: Some(self.secrets.clone()),
            secret_names: spec.secrets.clone(),
            audit: Some(Arc::new(Witness { audit: self.audit.clone(), holder })),
        })
    }
}

impl Site {
    fn holder(&self, step: &str, digest: &str) -> Holder {
        Holder { kind: self.kind, name: self.name.clone(), step: step.to_owned(), digest: digest.to_owned() }
    }

    /// What the audit is told of a plugin that something is granted to.
    pub fn holding(&self, spec: &GrantsSpec, step: &str, digest: &str) -> Option<Holding> {
        (!spec.is_empty()).then(|| Holding { holder: self.holder(step, digest), grants: spec.clone() })
    }
}

fn urls(spec: &GrantsSpec) -> std::result::Result<Vec<UrlGrant>, String> {
    spec.http.iter().map(|http| UrlGrant::parse(&http.url, &http.methods)).collect()
}
