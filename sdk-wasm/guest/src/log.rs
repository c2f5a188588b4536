//! Lines for the plugin's log, which its users read.

use crate::wit::imports::log;

pub use crate::wit::imports::log::Level;

/// Whether a line of this level would be kept; for lines that are dear to make.
#[must_use]
pub fn enabled(level: Level) -> bool {
    log::enabled(level)
}

/// A line with fields.
pub fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
    let fields: Vec<(String, String)> = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    log::write(level, message, &fields);
}

pub fn debug(message: &str) {
    write(Level::Debug, message, &[]);
}

pub fn info(message: &str) {
    write(Level::Info, message, &[]);
}

pub fn warn(message: &str) {
    write(Level::Warn, message, &[]);
}

pub fn error(message: &str) {
    write(Level::Error, message, &[]);
}
