use sluice_model::Kind;
use sluice_protocol::{FieldError, ResponseCode};

/// Why something could not be done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Transport(#[from] sluice_transport::Error),
    /// An answer, or a message in it, is malformed.
    #[error("malformed answer: {0}")]
    Answer(#[from] FieldError),
    /// A name, id or property is malformed.
    #[error(transparent)]
    Model(#[from] sluice_model::Error),
    #[error("{address} refused: {remark} (code {})", i32::from(*code))]
    Refused { address: String, code: ResponseCode, remark: String },
    #[error("no broker has topic {topic} in a way that allows this: {problem}")]
    NoRoute { topic: String, problem: String },
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Transport(error) => error.kind(),
            Self::Answer(_) => Kind::Corrupt,
            Self::Model(error) => error.kind(),
            Self::NoRoute { .. } => Kind::NotFound,
            Self::Invalid { .. } => Kind::Invalid,
            Self::Refused { code, .. } => refused(*code),
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<ResponseCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether another broker may do what this one did not. Source: Apache RocketMQ `DefaultMQProducer.retryResponseCodes`.
    pub(crate) fn may_try_elsewhere(&self) -> bool {
        use ResponseCode as Code;
        match self {
            Self::Transport(_) => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::SystemError
                    | Code::SystemBusy
                    | Code::ServiceNotAvailable
                    | Code::NoPermission
                    | Code::TopicNotExist
                    | Code::NoBuyerId
                    | Code::NotInCurrentUnit
                    | Code::GoAway
            ),
            _ => false,
        }
    }
}

fn refused(code: ResponseCode) -> Kind {
    use ResponseCode as Code;
    match code {
        Code::TopicNotExist | Code::QueryNotFound | Code::SubscriptionGroupNotExist | Code::ConsumerNotOnline => {
            Kind::NotFound
        }
        Code::InvalidParameter
        | Code::MessageIllegal
        | Code::SubscriptionParseFailed
        | Code::RequestCodeNotSupported => Kind::Invalid,
        Code::NoPermission => Kind::Denied,
        Code::SystemBusy | Code::FlowControl => Kind::Busy,
        Code::ServiceNotAvailable | Code::SlaveNotAvailable | Code::GoAway => Kind::Unavailable,
        Code::TopicExistAlready | Code::IllegalOperation => Kind::Conflict,
        Code::FlushDiskTimeout | Code::FlushSlaveTimeout => Kind::Timeout,
        _ => Kind::Internal,
    }
}
