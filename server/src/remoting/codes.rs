//! The one place where this door turns a kind of failure into RocketMQ's codes.

use sluice_model::Kind;
use sluice_protocol::ResponseCode;

use crate::{failure::Failure, ingress};

pub(super) fn of(failure: &Failure) -> ResponseCode {
    let field = failure.field.as_deref().unwrap_or_default();
    match failure.kind {
        Kind::Invalid if matches!(field, "body" | "properties" | "DELAY" | "PGROUP") => ResponseCode::MessageIllegal,
        // Clients do not try a code of this kind again (Apache RocketMQ `DefaultMQProducer.retryResponseCodes`).
        Kind::Invalid if field == ingress::REFUSED => ResponseCode::MessageIllegal,
        Kind::Invalid if field == "subscription" => ResponseCode::SubscriptionParseFailed,
        Kind::Invalid => ResponseCode::InvalidParameter,
        Kind::NotFound if field == "topic" => ResponseCode::TopicNotExist,
        Kind::NotFound if field == "group" => ResponseCode::SubscriptionGroupNotExist,
        Kind::NotFound => ResponseCode::QueryNotFound,
        Kind::Denied => ResponseCode::NoPermission,
        Kind::Full | Kind::Unavailable => ResponseCode::ServiceNotAvailable,
        Kind::Busy => ResponseCode::SystemBusy,
        Kind::Conflict | Kind::Corrupt | Kind::Timeout | Kind::Internal => ResponseCode::SystemError,
    }
}

/// The text for a failure. Clients look for the mark of overload at its start.
pub(super) fn remark(failure: &Failure) -> String {
    match failure.kind {
        Kind::Busy => format!("[OVERLOAD]{}", failure.text),
        _ => failure.text.clone(),
    }
}
