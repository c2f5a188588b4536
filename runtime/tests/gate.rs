//! Nothing that would fail later is accepted, and the refusal says what to do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{COMPONENT, PLUGIN, RUNTIME};
use serde_json::json;
use sluice_runtime::{Config, Context, RefusalCode, Role, Runtime};

fn refused(bytes: &[u8]) -> (&'static str, String) {
    let refusal = RUNTIME.load("x.wasm", bytes).err().unwrap();
    (refusal.code.as_str(), refusal.message)
}

fn refused_text(text: &str) -> (&'static str, String) {
    refused(&wat::parse_str(text).unwrap())
}

#[test]
fn a_good_plugin_is_reported() {
    let (plugin, report) = RUNTIME.load("hostile", &COMPONENT).unwrap();
    assert_eq!(report.roles, [Role::Filter, Role::Transform, Role::CheckTransaction]);
    assert_eq!((report.manifest.name.as_str(), report.manifest.version.as_str()), ("hostile", "1.2.3"));
    assert_eq!((report.digest.len(), plugin.digest()), (64, report.digest.as_str()));
    assert_eq!(report.size, COMPONENT.len() as u64);
    assert!(report.imports.contains(&"sluice:plugin/log@0.3.0".to_owned()), "{:?}", report.imports);
    assert_eq!(plugin.output_count(), None);
}

#[test]
fn what_is_no_component_is_told_apart() {
    let (code, message) = refused(b"#!/bin/sh");
    assert_eq!(code, "not-wasm");
    assert!(message.starts_with("x.wasm: not WebAssembly") && message.contains("wasm32-unknown-unknown"), "{message}");
    let (code, message) = refused_text("(module)");
    assert_eq!(code, "core-module");
    assert!(message.contains("a core module without a component type"), "{message}");
    assert_eq!(refused(b"\0asm\x0d\0\x01\0broken").0, "invalid");
}

#[test]
fn packages_that_use_each_other_are_refused() {
    let wit = "
        package p:all;
        world w { import p:six/z; }
        package p:one { interface x { type t = u32; } }
        package p:two { interface y { use p:one/x.{t}; type u = t; } }
        package p:six { interface z { use p:two/y.{u}; f: func(u: u); } }
    ";
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("p.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("w")).unwrap();
    let mut module = wat::parse_str("(module)").unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    assert!(!refused(&module).1.contains("circle"));
    // No text says so, but bytes can: the interface, or the world, that uses p:two is in p:one as well.
    for name in [b"p:six", b"p:all"] {
        let mut renamed = module.clone();
        for at in 0..renamed.len() - name.len() {
            if renamed[at..].starts_with(name) {
                renamed[at..at + name.len()].copy_from_slice(b"p:one");
            }
        }
        let (code, message) = refused(&renamed);
        assert_eq!(code, "not-a-component");
        assert!(message.contains("use each other in a circle; look at") && message.contains("p:one"), "{message}");
    }
}

#[test]
fn a_component_without_a_role_names_what_it_exports() {
    let (code, message) = refused_text("(component)");
    assert_eq!(code, "no-role");
    assert!(
        message.contains("at least one of filter, transform, process, check-transaction; this one exports nothing"),
        "{message}"
    );
}

#[test]
fn unknown_imports_are_named() {
    let (code, message) = refused_text(
        r#"(component (import "evil:net/sockets@1.0.0" (instance)) (import "wasi:sockets/tcp@0.2.0" (instance)))"#,
    );
    assert_eq!(code, "unknown-import");
    assert!(
        message.contains("imports evil:net/sockets@1.0.0, wasi:sockets/tcp@0.2.0, which no plugin is granted"),
        "{message}"
    );
}

#[test]
fn another_version_of_the_contract_is_named() {
    let (code, message) = refused_text(r#"(component (import "sluice:plugin/log@0.9.0" (instance)))"#);
    assert_eq!(code, "contract-version");
    assert!(
        message.contains("imports sluice:plugin/log@0.9.0, but this broker speaks sluice:plugin/*@0.3.0"),
        "{message}"
    );
}

#[test]
fn a_role_of_the_wrong_shape_is_refused() {
    let (code, message) = refused_text(
        r#"(component (instance $empty) (export "sluice:plugin/plugin@0.3.0" (instance $empty))
            (export "sluice:plugin/filter@0.3.0" (instance $empty)))"#,
    );
    assert_eq!(code, "export-type");
    assert!(message.contains("describe"), "{message}");
}

#[test]
fn a_large_component_is_refused_before_it_is_compiled() {
    let small = Runtime::new(Config { component: 1000, instances: 1, ..Config::default() }).unwrap();
    let refusal = small.load("big", &COMPONENT).err().unwrap();
    assert_eq!(refusal.code, RefusalCode::TooLarge);
    assert!(refusal.message.ends_with("bytes, but a component may have at most 1000"), "{}", refusal.message);
}

#[test]
fn a_config_is_checked_before_anything_runs() {
    let check = |config: serde_json::Value| {
        PLUGIN.check_config(config.as_object().unwrap(), &Context::default()).err().map(|e| e.to_string())
    };
    assert_eq!(check(json!({"mode": ""})), None);
    assert_eq!(check(json!({"mode": 7})).unwrap(), "config `mode`: expected a string, got 7");
    assert_eq!(check(json!({"mod": ""})).unwrap(), "config `mod`: hostile has no such parameter; it has: mode");
    assert_eq!(check(json!({"mode": "refuse"})).unwrap(), "plugin hostile refuses its config: no such mode");
}

#[test]
fn instances_beyond_the_pool_are_refused_and_freed_ones_are_reused() {
    let tiny = Runtime::new(Config { instances: 1, ..Config::default() }).unwrap();
    let (plugin, _) = tiny.load("hostile", &COMPONENT).unwrap();
    let first = plugin.instance(common::setup("")).unwrap();
    let error = plugin.instance(common::setup("")).err().unwrap();
    assert!(error.to_string().starts_with("all 1 plugin instances are in use"), "{error}");
    drop(first);
    assert!(plugin.instance(common::setup("")).is_ok());
}
