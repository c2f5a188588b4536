//! The contract as Rust, generated from `sdk-wasm/wit`: the imports once, and one module for the exports of each role.

pub mod imports {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package sluice:guest;
            world imports {
                import sluice:plugin/types@0.1.0;
                import sluice:plugin/log@0.1.0;
                import sluice:plugin/metrics@0.1.0;
                import sluice:plugin/context@0.1.0;
                import sluice:plugin/lookup@0.1.0;
            }
        ",
        world: "sluice:guest/imports",
        generate_all,
        generate_unused_types: true,
        type_section_suffix: "imports",
    });
    pub use sluice::plugin::*;
}

macro_rules! role {
    ($module:ident, $world:literal, $export:literal $(, $import:literal: $at:path)*) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../wit",
                world: $world,
                pub_export_macro: true,
                export_macro_name: $export,
                default_bindings_module: "sluice_sdk::wit",
                with: {
                    "sluice:plugin/types@0.1.0": crate::wit::imports::types,
                    "sluice:plugin/log@0.1.0": crate::wit::imports::log,
                    "sluice:plugin/metrics@0.1.0": crate::wit::imports::metrics,
                    "sluice:plugin/context@0.1.0": crate::wit::imports::context,
                    $($import: $at,)*
                },
            });
        }
    };
}

role!(filter, "sluice:plugin/filter-plugin", "export_filter");
role!(transform, "sluice:plugin/transform-plugin", "export_transform");
role!(check, "sluice:plugin/transaction-plugin", "export_check", "sluice:plugin/lookup@0.1.0": crate::wit::imports::lookup);
