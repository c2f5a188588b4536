//! Who may use whom: the edges between crates are exactly those that ARCHITECTURE.md draws.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

use std::{collections::BTreeSet, fs, path::Path};

/// Each crate with the crates of this workspace that it uses; `dev` ones are used by its tests only.
const EDGES: &[(&str, &[&str], &[&str])] = &[
    ("model", &[], &[]),
    ("protocol", &["model"], &[]),
    ("storage", &["model"], &[]),
    ("transport", &["protocol", "model"], &[]),
    ("broker", &["storage", "model"], &[]),
    ("runtime", &[], &["guest-build", "sdk"]),
    ("server", &["runtime", "broker", "transport", "protocol", "model"], &["plugins"]),
    ("namesrv", &["transport", "protocol", "model"], &[]),
    ("client", &["transport", "protocol", "model"], &["namesrv"]),
    ("bench", &["client", "model"], &[]),
    // The build of plugins as well: `sluice plugin new`, `build` and `test` are it, from the command line.
    ("cli", &["server", "namesrv", "client", "bench", "plugins", "guest-build", "model"], &[]),
    ("sim", &["broker", "storage", "model"], &[]),
    ("plugins", &["guest-build"], &["testkit", "guest-build"]),
    ("sdk-wasm/guest", &["sdk-macros"], &[]),
    ("sdk-wasm/macros", &[], &[]),
    ("sdk-wasm/build", &[], &[]),
    ("sdk-wasm/testkit", &["guest-build", "runtime"], &[]),
    ("plugins/aggregate", &["sdk"], &[]),
    ("plugins/dedup", &["sdk"], &[]),
    ("plugins/json-filter", &["sdk"], &[]),
    ("plugins/json-map", &["sdk"], &[]),
    ("plugins/ledger-checker", &["sdk"], &[]),
    ("plugins/redact", &["sdk"], &[]),
    ("plugins/route", &["sdk"], &[]),
    ("examples/big-orders", &["sdk"], &[]),
    ("examples/enrich-orders", &["sdk"], &["testkit"]),
    ("runtime/tests/guest", &[], &[]),
    ("runtime/tests/keeper", &["sdk"], &[]),
    ("runtime/examples/cost/guest", &["sdk"], &[]),
];

#[test]
fn the_edges_between_crates_are_those_of_the_plan() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let workspace = manifest(&root.join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().expect("members");
    let members: BTreeSet<&str> = members.iter().filter_map(toml::Value::as_str).collect();
    let drawn: BTreeSet<&str> = EDGES.iter().map(|(room, ..)| *room).collect();
    assert_eq!(members, drawn, "every crate has its line in EDGES");
    for (room, used, in_tests) in EDGES {
        let manifest = manifest(&root.join(room).join("Cargo.toml"));
        let found = |tables: &[&str]| -> BTreeSet<String> {
            let of = |table: &&str| manifest.get(*table).and_then(|t| t.as_table()).cloned().unwrap_or_default();
            let names = tables.iter().flat_map(|table| of(table).into_iter().map(|(name, _)| name));
            names.filter_map(|name| name.strip_prefix("sluice-").map(str::to_owned)).collect()
        };
        let expected = |rooms: &[&str]| rooms.iter().map(|room| (*room).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(found(&["dependencies", "build-dependencies"]), expected(used), "what {room} uses");
        assert_eq!(found(&["dev-dependencies"]), expected(in_tests), "what the tests of {room} use");
    }
}

fn manifest(path: &Path) -> toml::Table {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
