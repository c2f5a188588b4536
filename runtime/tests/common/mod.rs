//! The misbehaving guest, built and loaded once for each test binary.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod ports;

use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use sluice_guest_build::Guests;
use sluice_runtime::{Config, Limits, Plugin, Record, Runtime, Setup};

pub static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new(Config { instances: 64, ..Config::default() }).unwrap());

pub static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest");
    Guests::at(dir).build().unwrap_or_else(|e| panic!("{e}")).remove(0).component
});

/// A processor that does what its records say.
pub static KEEPER: LazyLock<Plugin> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keeper");
    let component = Guests::at(dir).build().unwrap_or_else(|e| panic!("{e}")).remove(0).component;
    RUNTIME.load("keeper", &component).unwrap().0
});

pub static PLUGIN: LazyLock<Plugin> = LazyLock::new(|| RUNTIME.load("hostile", &COMPONENT).unwrap().0);

pub fn mode(mode: &str) -> Map<String, Value> {
    json!({"mode": mode}).as_object().unwrap().clone()
}

pub fn setup(with: &str) -> Setup {
    let limits = Limits { deadline: std::time::Duration::from_millis(20), ..Limits::default() };
    Setup { config: mode(with), limits, ..Setup::default() }
}

pub fn records(values: &[&str]) -> Vec<Record> {
    let record = |(offset, value): (u64, &&str)| Record {
        offset,
        value: value.as_bytes().to_vec().into(),
        stored_at: 1000 + offset,
        ..Record::default()
    };
    (0..).zip(values).map(record).collect()
}
