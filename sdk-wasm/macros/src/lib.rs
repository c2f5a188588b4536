//! The macros of `sluice-sdk`: an attribute for each role, and the derive for configurations.

mod arguments;
mod config;
mod role;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

use crate::arguments::Arguments;
use crate::role::Role;

fn expand(role: Role, arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    role::expand(role, &arguments, &function).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Makes a function a filter: `fn(Record<'_>) -> bool`, with `&Config` as second argument if it takes one, and `Result<bool, Failure>` if
/// it can fail.
///
/// `needs(key, value, headers, tag, born_at, stored_at, offset, attempt)` names the columns it reads. `prefilter("..")`, an expression of tags
/// or a SQL92 condition over properties, keeps records away from it that it would drop.
#[proc_macro_attribute]
pub fn filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Role::Filter, arguments, item)
}

/// Makes a function a transformer: `fn(Record<'_>, &mut Out<'_>)`, with `&Config` between them if it takes one, and
/// `-> Result<(), Failure>` if it can fail.
///
/// `needs(..)` as for a filter; `outputs("name", ..)` if there are several, or `outputs(one_per_sink)`.
#[proc_macro_attribute]
pub fn transform(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Role::Transform, arguments, item)
}

/// Makes a function a processor, a transformer with a memory: `fn(Record<'_>, &mut Context<'_>)`, with `&Config` between them if it takes
/// one, and `-> Result<(), Failure>` if it can fail.
///
/// `needs(..)` and `outputs(..)` as for a transformer; `stores("name", ..)` names what it keeps; `on_timer(function)` names the function
/// that runs when a timer is due, with a `&Timer` in place of the record.
#[proc_macro_attribute]
pub fn process(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Role::Process, arguments, item)
}

/// Makes a function a transaction checker: `fn(&HalfMessage) -> Result<Decision, String>`, with `&Config` as second argument if it takes
/// one.
#[proc_macro_attribute]
pub fn check_transaction(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Role::Check, arguments, item)
}

/// Makes a struct the plugin's configuration; see the trait of the same name.
#[proc_macro_derive(Config, attributes(config))]
pub fn derive_config(item: TokenStream) -> TokenStream {
    let input = parse_macro_input!(item as DeriveInput);
    config::expand(&input).unwrap_or_else(|e| e.to_compile_error()).into()
}
