use sluice_protocol::body::Subscription;

/// Which of a topic's messages a consumer wants. A text is an expression of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// One of these tags: `a || b`; `*` or nothing: all messages.
    Tags(String),
    /// A condition over properties, such as `amount > 100 AND region = 'eu'`.
    Sql92(String),
}

impl Filter {
    pub(crate) fn subscription(&self, topic: &str, version: i64) -> Subscription {
        match self {
            Self::Tags(tags) => Subscription::by_tags(topic, tags, version),
            Self::Sql92(condition) => Subscription::in_language("SQL92", topic, condition, version),
        }
    }
}

impl From<&str> for Filter {
    fn from(tags: &str) -> Self {
        Self::Tags(tags.to_owned())
    }
}
