use sluice_model::Kind;

/// Why a request failed, as every door reports it: each maps the kind to its own codes and shows the text.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub kind: Kind,
    /// The field of the request that is to blame, or what was not found, when there is one.
    pub field: Option<String>,
    pub text: String,
}

impl Failure {
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, field: None, text: text.into() }
    }

    pub fn invalid(field: &str, text: impl Into<String>) -> Self {
        Self { kind: Kind::Invalid, field: Some(field.to_owned()), text: text.into() }
    }

    /// A plugin did not start, or a stage of plugins: there is no room, it is the runtime's trouble, or else what `otherwise` makes of the
    /// reason.
    pub fn not_started(error: &sluice_runtime::Error, otherwise: impl FnOnce(String) -> Self) -> Self {
        use sluice_runtime::Error::{Engine, Full, Port, State};
        let text = error.to_string();
        match error {
            Full(_) => Self::new(Kind::Busy, text),
            Engine(_) | Port(_) | State(_) => Self::new(Kind::Internal, text),
            _ => otherwise(text),
        }
    }

    pub fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self { kind: Kind::NotFound, field: Some(what.to_owned()), text: format!("{what} \"{name}\" does not exist") }
    }
}

impl From<sluice_broker::Error> for Failure {
    fn from(error: sluice_broker::Error) -> Self {
        let field = match &error {
            sluice_broker::Error::Invalid { field, .. } => Some((*field).to_owned()),
            sluice_broker::Error::NotFound { what, .. } => Some((*what).to_owned()),
            sluice_broker::Error::Model(sluice_model::Error::Invalid { field, .. }) => Some((*field).to_owned()),
            _ => None,
        };
        Self { kind: error.kind(), field, text: error.to_string() }
    }
}

impl From<sluice_model::Error> for Failure {
    fn from(error: sluice_model::Error) -> Self {
        sluice_broker::Error::from(error).into()
    }
}

pub type Result<T> = std::result::Result<T, Failure>;

#[cfg(test)]
mod tests {
    use sluice_runtime::Error;

    use super::*;

    #[test]
    fn only_what_was_asked_for_is_blamed_for_a_plugin_that_does_not_start() {
        let kind = |error: Error| Failure::not_started(&error, |text| Failure::invalid("config", text)).kind;
        assert_eq!(kind(Error::Full(9)), Kind::Busy);
        assert_eq!(kind(Error::Engine("no memory".to_owned())), Kind::Internal);
        let refused = Error::Configure { plugin: "p".to_owned(), reason: "no path".to_owned() };
        let failure = Failure::not_started(&refused, |text| Failure::invalid("config", text));
        assert_eq!(failure.field.as_deref(), Some("config"));
    }
}
