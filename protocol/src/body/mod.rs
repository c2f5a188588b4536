//! Bodies with a form of their own, nearly all JSON in Java's field names. Unknown fields are passed over: newer peers send
//! more than this table knows.

mod group;
mod heartbeat;
mod pop;
mod queue;
mod register;
mod route;
mod stats;
mod table;
mod topic;
mod words;

pub use group::*;
pub use heartbeat::*;
pub use pop::*;
pub use queue::*;
pub use register::*;
pub use route::*;
pub use stats::*;
pub use table::*;
pub use topic::*;
pub use words::*;

/// Gives a body its JSON form: `from_json`, `to_json` and its place in a request.
macro_rules! json_bodies {
    ($($name:ident),* $(,)?) => {$(
        impl $name {
            /// Reads the body; fails with the field `body` and what is wrong where.
            pub fn from_json(body: &[u8]) -> Result<Self, $crate::FieldError> {
                $crate::json::from_slice("body", body)
            }

            /// The body as compact JSON.
            pub fn to_json(&self) -> String {
                $crate::json::to_string(self)
            }
        }

        impl $crate::field::BodyForm for $name {
            fn read(body: &bytes::Bytes) -> Result<Self, $crate::FieldError> {
                Self::from_json(body)
            }

            fn write(&self) -> bytes::Bytes {
                self.to_json().into()
            }
        }
    )*};
}
pub(crate) use json_bodies;
