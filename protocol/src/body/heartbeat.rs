//! Source: Apache RocketMQ `HeartbeatData`, `ConsumerData`, `SubscriptionData`, `CheckClientRequestBody`.

use serde::{Deserialize, Serialize};

use super::{ConsumeFromWhere, ConsumeType, MessageModel, json_bodies};

/// A client and the groups that it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatBody {
    #[serde(rename = "clientID")]
    pub client_id: String,
    #[serde(rename = "consumerDataSet", default)]
    pub consumers: Vec<HeartbeatConsumer>,
    /// 0: the client does not use fingerprints.
    #[serde(default)]
    pub heartbeat_fingerprint: i32,
    #[serde(rename = "producerDataSet", default)]
    pub producers: Vec<HeartbeatProducer>,
    /// The subscriptions are those of the last heartbeat.
    #[serde(default)]
    pub without_sub: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatProducer {
    pub group_name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatConsumer {
    pub consume_from_where: ConsumeFromWhere,
    pub consume_type: ConsumeType,
    pub group_name: String,
    pub message_model: MessageModel,
    #[serde(rename = "subscriptionDataSet", default)]
    pub subscriptions: Vec<Subscription>,
    #[serde(default)]
    pub unit_mode: bool,
}

/// What a consumer wants of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    #[serde(default)]
    pub class_filter_mode: bool,
    /// Java hashes of the tags. The Go client writes them as strings.
    #[serde(default, deserialize_with = "codes")]
    pub code_set: Vec<i32>,
    /// `TAG` or `SQL92`.
    #[serde(default = "tag")]
    pub expression_type: String,
    /// The expression; `*` and nothing mean everything.
    #[serde(default)]
    pub sub_string: String,
    /// Grows when the subscription changes; ms since 1970 by habit. The C++ client writes it as a string.
    #[serde(default, deserialize_with = "version")]
    pub sub_version: i64,
    #[serde(default)]
    pub tags_set: Vec<String>,
    pub topic: String,
}

/// An integer, or a string that holds one, as fastjson reads both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Integer {
    Number(i64),
    Text(String),
}

impl Integer {
    fn read<T: TryFrom<i64>, E: serde::de::Error>(self, expected: &str) -> Result<T, E> {
        let (number, shown) = match self {
            Self::Number(number) => (Some(number), number.to_string()),
            Self::Text(text) => (text.parse().ok(), format!("{text:?}")),
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| E::custom(format!("expected {expected}, got {shown}")))
    }
}

fn codes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<i32>, D::Error> {
    let codes = Vec::<Integer>::deserialize(from)?;
    codes.into_iter().map(|code| code.read("integers of 32 bits in codeSet")).collect()
}

fn version<'de, D: serde::Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    Integer::deserialize(from)?.read("an integer in subVersion")
}

fn tag() -> String {
    "TAG".to_owned()
}

impl Subscription {
    /// A subscription by tags: `*`, or tags separated by `||`.
    pub fn by_tags(topic: &str, expression: &str, version: i64) -> Self {
        let everything = expression.trim().is_empty() || expression.trim() == "*";
        let split = || expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let tags: Vec<String> = if everything { Vec::new() } else { split().map(str::to_owned).collect() };
        Self {
            class_filter_mode: false,
            code_set: tags.iter().map(|tag| sluice_model::java_hash(tag)).collect(),
            expression_type: tag(),
            sub_string: if everything { "*".to_owned() } else { expression.to_owned() },
            sub_version: version,
            tags_set: tags,
            topic: topic.to_owned(),
        }
    }

    /// A subscription in another language than that of tags, such as `SQL92`.
    pub fn in_language(language: &str, topic: &str, expression: &str, version: i64) -> Self {
        Self {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: language.to_owned(),
            sub_string: expression.to_owned(),
            sub_version: version,
            tags_set: Vec::new(),
            topic: topic.to_owned(),
        }
    }
}

/// A client asks whether its filter is sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckClientBody {
    #[serde(default)]
    pub client_id: String,
    pub group: String,
    #[serde(rename = "subscriptionData")]
    pub subscription: Subscription,
}

/// Who belongs to a group: ids of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerListBody {
    #[serde(rename = "consumerIdList", default)]
    pub consumers: Vec<String>,
}

json_bodies!(HeartbeatBody, CheckClientBody, ConsumerListBody);
