//! RocketMQ's remoting protocol without sockets: frames, headers, request and response codes, one typed struct per
//! request, and the bodies they carry.
//!
//! Everything here is a pure function of bytes. A malformed field is an error with the field's name ([`FieldError`]); a
//! malformed frame says whether the connection can go on ([`FrameError`]). Field names of the wire are known to this crate only.

pub mod batch;
pub mod body;
mod code;
pub mod compress;
mod error;
mod ext;
mod field;
mod frame;
mod head;
mod json;
mod language;
pub mod messages;
pub mod reply;
pub mod request;
mod response;

pub use code::{RequestCode, ResponseCode};
pub use error::{FieldError, FrameError};
pub use ext::Ext;
pub use frame::{Frame, Header, decode};
pub use head::Encoding;
pub use language::{Language, VERSION};
pub use request::Request;
pub use response::{Body, Response};
