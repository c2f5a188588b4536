//! The host's side of `sdk-wasm/wit`, generated.

wasmtime::component::bindgen!({
    path: "../sdk-wasm/wit",
    inline: "
        package sluice:host;
        world every-role {
            include sluice:plugin/basics@0.3.0;
            include sluice:plugin/granted@0.3.0;
            import sluice:plugin/state@0.3.0;
            import sluice:plugin/timers@0.3.0;
            export sluice:plugin/filter@0.3.0;
            export sluice:plugin/transform@0.3.0;
            export sluice:plugin/process@0.3.0;
            export sluice:plugin/check-transaction@0.3.0;
        }
    ",
    world: "sluice:host/every-role",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});

pub use sluice::plugin::types::{Action, Columns};
