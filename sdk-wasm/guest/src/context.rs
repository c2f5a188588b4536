//! Where and when the plugin runs.

pub use crate::wit::imports::context::{Info, get, now};
