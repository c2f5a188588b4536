//! Values that were granted to the plugin by name: passwords, tokens.

pub use crate::wit::imports::secrets::get;
