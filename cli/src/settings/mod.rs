//! What a broker is told: defaults, then a file, then the environment, then flags; resolved once.

mod properties;
mod units;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use sluice_model::{Host, limits};
use sluice_server::Durability;
pub use units::{Size, Span};

/// When a message counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    /// When it is on disk.
    Sync,
    /// When it is taken; a crash may lose the last moments.
    Async,
}

/// Settings of one source. What it does not say is left to the source below: flags, environment, file, defaults.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Name of the broker.
    #[arg(long, env = "SLUICE_NAME")]
    pub name: Option<String>,
    /// Name of the cluster that it belongs to.
    #[arg(long, env = "SLUICE_CLUSTER")]
    pub cluster: Option<String>,
    /// Folder of the log and all that is derived from it.
    #[arg(long, env = "SLUICE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of the secrets that plugins may be granted, a file each; `secrets` below the folder of the log when left out.
    #[arg(long, env = "SLUICE_SECRETS", value_name = "DIR")]
    pub secrets: Option<PathBuf>,
    /// Name servers to register with: `a:9876;b:9876`.
    #[arg(long, env = "SLUICE_NAMESRV", value_name = "ADDRESSES")]
    pub namesrv: Option<String>,
    /// Port of the RocketMQ remoting protocol.
    #[arg(long, env = "SLUICE_PORT")]
    pub port: Option<u16>,
    /// Port of the REST API.
    #[arg(long, env = "SLUICE_REST_PORT", value_name = "PORT")]
    pub rest_port: Option<u16>,
    /// Host that clients reach this broker under.
    #[arg(long, env = "SLUICE_ADVERTISE", value_name = "HOST")]
    pub advertise: Option<String>,
    /// When a message counts as acknowledged.
    #[arg(long, env = "SLUICE_FLUSH")]
    pub flush: Option<Flush>,
    /// Whether a send to an unknown topic makes it.
    #[arg(long, env = "SLUICE_AUTO_CREATE_TOPICS", value_name = "BOOL")]
    pub auto_create_topics: Option<bool>,
    /// Queues of a topic that a send makes.
    #[arg(long, env = "SLUICE_DEFAULT_QUEUES", value_name = "N")]
    pub default_queues: Option<u32>,
    /// Largest body of a message.
    #[arg(long, env = "SLUICE_MAX_MESSAGE", value_name = "SIZE")]
    pub max_message: Option<Size>,
    /// Age at which segments of the log are removed, or as long as any topic keeps its messages, if that is longer.
    #[arg(long, env = "SLUICE_RETENTION", value_name = "DURATION")]
    pub retention: Option<Span>,
    /// Size of the log at which its oldest segments are removed.
    #[arg(long, env = "SLUICE_RETENTION_SIZE", value_name = "SIZE")]
    pub retention_size: Option<Size>,
    /// Size of a new segment of the log.
    #[arg(long, env = "SLUICE_SEGMENT_SIZE", value_name = "SIZE")]
    pub segment_size: Option<Size>,
    /// Age of a half message before it is asked about.
    #[arg(long, env = "SLUICE_TRANSACTION_TIMEOUT", value_name = "DURATION")]
    pub transaction_timeout: Option<Span>,
    /// Time between two questions about a half message.
    #[arg(long, env = "SLUICE_TRANSACTION_INTERVAL", value_name = "DURATION")]
    pub transaction_interval: Option<Span>,
    /// Questions about a half message before it is given up.
    #[arg(long, env = "SLUICE_TRANSACTION_CHECKS", value_name = "N")]
    pub transaction_checks: Option<u32>,
    /// Most messages a second that one connection may send.
    #[arg(long, env = "SLUICE_SEND_RATE_PER_CONNECTION", value_name = "N")]
    pub send_rate_per_connection: Option<NonZeroU32>,
    /// Most messages a second that one producer group may send.
    #[arg(long, env = "SLUICE_SEND_RATE_PER_GROUP", value_name = "N")]
    pub send_rate_per_group: Option<NonZeroU32>,
    /// Most messages a second that one consumer group may receive.
    #[arg(long, env = "SLUICE_RECEIVE_RATE_PER_GROUP", value_name = "N")]
    pub receive_rate_per_group: Option<NonZeroU32>,
}

impl Layer {
    /// Reads a file: RocketMQ's `broker.conf` when its name ends in `.conf` or `.properties`, TOML otherwise.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("--config: {} cannot be read", path.display()))?;
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        let read = match end {
            "conf" | "properties" => properties::read(&text),
            _ => toml::from_str(&text).map_err(anyhow::Error::from),
        };
        read.with_context(|| format!("--config: {} is not what was expected", path.display()))
    }

    /// Its own values, and those of `below` where it has none.
    pub fn over(self, below: Self) -> Self {
        Self {
            name: self.name.or(below.name),
            cluster: self.cluster.or(below.cluster),
            data: self.data.or(below.data),
            secrets: self.secrets.or(below.secrets),
            namesrv: self.namesrv.or(below.namesrv),
            port: self.port.or(below.port),
            rest_port: self.rest_port.or(below.rest_port),
            advertise: self.advertise.or(below.advertise),
            flush: self.flush.or(below.flush),
            auto_create_topics: self.auto_create_topics.or(below.auto_create_topics),
            default_queues: self.default_queues.or(below.default_queues),
            max_message: self.max_message.or(below.max_message),
            retention: self.retention.or(below.retention),
            retention_size: self.retention_size.or(below.retention_size),
            segment_size: self.segment_size.or(below.segment_size),
            transaction_timeout: self.transaction_timeout.or(below.transaction_timeout),
            transaction_interval: self.transaction_interval.or(below.transaction_interval),
            transaction_checks: self.transaction_checks.or(below.transaction_checks),
            send_rate_per_connection: self.send_rate_per_connection.or(below.send_rate_per_connection),
            send_rate_per_group: self.send_rate_per_group.or(below.send_rate_per_group),
            receive_rate_per_group: self.receive_rate_per_group.or(below.receive_rate_per_group),
        }
    }
}

/// The effective values.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    pub name: String,
    pub cluster: String,
    pub data: PathBuf,
    pub secrets: PathBuf,
    pub namesrv: String,
    pub port: u16,
    pub rest_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    pub flush: Flush,
    pub auto_create_topics: bool,
    pub default_queues: u32,
    pub max_message: Size,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_size: Option<Size>,
    pub segment_size: Size,
    pub transaction_timeout: Span,
    pub transaction_interval: Span,
    pub transaction_checks: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_rate_per_connection: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_rate_per_group: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_rate_per_group: Option<NonZeroU32>,
}

impl Settings {
    /// Fills in the defaults and checks every value.
    pub fn resolve(layer: Layer) -> anyhow::Result<Self> {
        let broker = sluice_server::BrokerConfig::default();
        let store = sluice_server::StoreConfig::default();
        let data = layer.data.unwrap_or_else(|| PathBuf::from("sluice-data"));
        let settings = Self {
            name: layer.name.unwrap_or(broker.name),
            cluster: layer.cluster.unwrap_or(broker.cluster),
            secrets: layer.secrets.unwrap_or_else(|| data.join("secrets")),
            data,
            namesrv: layer.namesrv.unwrap_or_default(),
            port: layer.port.unwrap_or(10_911),
            rest_port: layer.rest_port.unwrap_or(8082),
            advertise: layer.advertise,
            flush: layer.flush.unwrap_or(Flush::Sync),
            auto_create_topics: layer.auto_create_topics.unwrap_or(broker.auto_create_topics),
            default_queues: layer.default_queues.unwrap_or(broker.default_queues),
            max_message: layer.max_message.unwrap_or(Size(broker.max_body as u64)),
            retention: layer.retention,
            retention_size: layer.retention_size,
            segment_size: layer.segment_size.unwrap_or(Size(store.segment_len)),
            transaction_timeout: layer.transaction_timeout.unwrap_or(Span::from_ms(broker.transaction_timeout_ms)),
            transaction_interval: layer.transaction_interval.unwrap_or(Span::from_ms(broker.transaction_interval_ms)),
            transaction_checks: layer.transaction_checks.unwrap_or(broker.transaction_checks),
            send_rate_per_connection: layer.send_rate_per_connection,
            send_rate_per_group: layer.send_rate_per_group,
            receive_rate_per_group: layer.receive_rate_per_group,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> anyhow::Result<()> {
        if !(1..=limits::TOPIC_QUEUES).contains(&self.default_queues) {
            bail!("default_queues: expected 1 to {}, got {}", limits::TOPIC_QUEUES, self.default_queues);
        }
        if !(1..=limits::BODY_LEN as u64).contains(&self.max_message.0) {
            bail!("max_message: expected 1B to {}, got {}", Size(limits::BODY_LEN as u64), self.max_message);
        }
        for (field, text) in [("name", &self.name), ("cluster", &self.cluster)] {
            if text.is_empty() || text.len() > 127 || text.contains(char::is_whitespace) {
                bail!("{field}: expected 1 to 127 bytes without spaces, got {text:?}");
            }
        }
        self.name_servers().map(drop)
    }

    /// The name servers' addresses, `host:port`.
    pub fn name_servers(&self) -> anyhow::Result<Vec<String>> {
        addresses(&self.namesrv)
    }

    /// What the server is told, once it is known where clients reach it.
    pub fn to_server(&self, advertised: Host) -> anyhow::Result<sluice_server::Config> {
        let broker = sluice_server::BrokerConfig {
            name: self.name.clone(),
            cluster: self.cluster.clone(),
            advertised,
            auto_create_topics: self.auto_create_topics,
            default_queues: self.default_queues,
            durability: match self.flush {
                Flush::Sync => Durability::Sync,
                Flush::Async => Durability::Async,
            },
            max_body: usize::try_from(self.max_message.0)?,
            transaction_timeout_ms: self.transaction_timeout.ms(),
            transaction_interval_ms: self.transaction_interval.ms(),
            transaction_checks: self.transaction_checks,
            ..sluice_server::BrokerConfig::default()
        };
        Ok(sluice_server::Config {
            data: self.data.clone(),
            broker,
            store: sluice_server::StoreConfig { segment_len: self.segment_size.0, ..Default::default() },
            retention: sluice_server::Retention {
                max_age_ms: self.retention.map(Span::ms),
                max_bytes: self.retention_size.map(|size| size.0),
            },
            remoting: sluice_server::RemotingLimits::default(),
            rates: sluice_server::Rates {
                send_per_connection: self.send_rate_per_connection,
                send_per_group: self.send_rate_per_group,
                receive_per_group: self.receive_rate_per_group,
            },
            secrets: self.secrets.clone(),
            runtime: sluice_server::RuntimeConfig::default(),
            name_servers: self.name_servers()?,
        })
    }
}

/// Addresses as RocketMQ's clients take them, separated by `;` (or `,`).
pub fn addresses(text: &str) -> anyhow::Result<Vec<String>> {
    let parts = text.split([';', ',']).map(str::trim).filter(|part| !part.is_empty());
    let checked = parts.map(|part| {
        let good = part.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if good { Ok(part.to_owned()) } else { bail!("namesrv: expected host:port;host:port, got {part:?}") }
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_wins_over_the_one_below() {
        let file: Layer = toml::from_str("port = 1000\nname = 'from-file'\nflush = 'async'").unwrap();
        let flags = Layer { port: Some(2000), ..Layer::default() };
        let settings = Settings::resolve(flags.over(file)).unwrap();
        assert_eq!((settings.port, settings.name.as_str(), settings.flush), (2000, "from-file", Flush::Async));
    }

    #[test]
    fn an_unknown_key_and_a_bad_value_are_named() {
        let unknown = toml::from_str::<Layer>("prot = 1").unwrap_err().to_string();
        assert!(unknown.contains("prot"), "{unknown}");
        let bad = toml::from_str::<Layer>("retention = 'soon'").unwrap_err().to_string();
        assert!(bad.contains("retention") && bad.contains("duration"), "{bad}");
        let many = Layer { default_queues: Some(5000), ..Layer::default() };
        assert!(Settings::resolve(many).unwrap_err().to_string().contains("default_queues"));
    }

    #[test]
    fn printed_settings_can_be_read_again() {
        let settings = Settings::resolve(Layer { retention: "3d".parse().ok(), ..Layer::default() }).unwrap();
        let text = toml::to_string(&settings).unwrap();
        let again = Settings::resolve(toml::from_str(&text).unwrap()).unwrap();
        assert_eq!(toml::to_string(&again).unwrap(), text);
    }

    #[test]
    fn name_servers_are_addresses() {
        assert_eq!(addresses("a:1;b:2").unwrap(), ["a:1", "b:2"]);
        assert!(addresses("a").unwrap_err().to_string().contains("namesrv"));
    }
}
