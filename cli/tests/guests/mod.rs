//! Plugins for a running server.
#![allow(dead_code, clippy::unwrap_used, reason = "every test file uses a part of it; a test ends where it fails")]

use std::{path::Path, sync::LazyLock};

use sluice_guest_build::Guests;

use crate::binary::{Dev, stderr};

/// The plugin that misbehaves on request: a message `trap` makes it trap, `loop` never end, `drop` drop it.
static HOSTILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/tests/guest");
    Guests::at(dir).build().unwrap_or_else(|error| panic!("{error}")).remove(0).component
});

/// Uploads ready-made plugins.
pub fn push(dev: &Dev, names: &[&str]) {
    names.iter().for_each(|name| upload(dev, name, sluice_plugins::ready_made(name).unwrap().component));
}

pub fn push_hostile(dev: &Dev) {
    upload(dev, "hostile", &HOSTILE);
}

fn upload(dev: &Dev, name: &str, component: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plugin.wasm");
    std::fs::write(&file, component).unwrap();
    let pushed = dev.run(&["plugin", "push", file.to_str().unwrap(), "--name", name]);
    assert!(pushed.status.success(), "{}", stderr(&pushed));
}
