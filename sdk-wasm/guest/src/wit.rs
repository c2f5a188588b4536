//! The contract as Rust, generated from `sdk-wasm/wit`: the imports once, and one module for the exports of each role.

pub mod imports {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package sluice:guest;
            world imports {
                import sluice:plugin/types@0.3.0;
                import sluice:plugin/log@0.3.0;
                import sluice:plugin/metrics@0.3.0;
                import sluice:plugin/context@0.3.0;
                import sluice:plugin/lookup@0.3.0;
                import sluice:plugin/secrets@0.3.0;
                import sluice:plugin/http@0.3.0;
                import sluice:plugin/state@0.3.0;
                import sluice:plugin/timers@0.3.0;
            }
        ",
        world: "sluice:guest/imports",
        generate_all,
        generate_unused_types: true,
        type_section_suffix: "imports",
    });
    pub use sluice::plugin::*;
}

/// The exports are split, because a generated export macro can exist only once in a crate: `plugin` once, and each role by itself.
macro_rules! exports {
    ($module:ident, $world:literal, $interface:literal, $macro_name:literal $(, $import:literal: $at:path)*) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../wit",
                inline: $interface,
                world: $world,
                pub_export_macro: true,
                export_macro_name: $macro_name,
                default_bindings_module: "sluice_sdk::wit",
                with: { $($import: $at,)* },
            });
        }
    };
}

exports!(
    plugin,
    "sluice:guest/plugin-exports",
    "package sluice:guest; world plugin-exports { export sluice:plugin/plugin@0.3.0; }",
    "export_plugin",
    "sluice:plugin/types@0.3.0": crate::wit::imports::types
);
exports!(
    filter,
    "sluice:guest/filter-exports",
    "package sluice:guest; world filter-exports { export sluice:plugin/filter@0.3.0; }",
    "export_filter",
    "sluice:plugin/types@0.3.0": crate::wit::imports::types
);
exports!(
    transform,
    "sluice:guest/transform-exports",
    "package sluice:guest; world transform-exports { export sluice:plugin/transform@0.3.0; }",
    "export_transform",
    "sluice:plugin/types@0.3.0": crate::wit::imports::types
);
exports!(
    process,
    "sluice:guest/process-exports",
    "package sluice:guest; world process-exports { export sluice:plugin/process@0.3.0; }",
    "export_process",
    "sluice:plugin/types@0.3.0": crate::wit::imports::types,
    "sluice:plugin/timers@0.3.0": crate::wit::imports::timers
);
exports!(
    check,
    "sluice:guest/check-exports",
    "package sluice:guest; world check-exports { export sluice:plugin/check-transaction@0.3.0; }",
    "export_check"
);
