use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Error, Expr, ExprLit, FnArg, ItemFn, Lit, Meta, Result, Type};

use crate::arguments::{Arguments, Outputs};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Filter,
    Transform,
    Process,
    Check,
}

pub(crate) fn expand(role: Role, arguments: &Arguments, function: &ItemFn) -> Result<TokenStream> {
    if role == Role::Check
        && let Some(at) = &arguments.needs_at
    {
        return Err(Error::new(at.span(), "a checker gets the whole message; it has no `needs`"));
    }
    if role == Role::Check
        && let Some(at) = &arguments.prefilter_at
    {
        return Err(Error::new(at.span(), "a checker is asked about every half message; it has no `prefilter`"));
    }
    if role != Role::Process
        && let Some(at) = &arguments.state_at
    {
        return Err(Error::new(at.span(), "only a processor has `stores` and `on_timer`"));
    }
    if !matches!(role, Role::Transform | Role::Process)
        && let Some(at) = &arguments.outputs_at
    {
        return Err(Error::new(at.span(), "only transformers and processors have `outputs`"));
    }
    let config = config_type(role, function)?;
    let slot = config.clone().unwrap_or_else(|| quote!(::sluice_sdk::NoConfig));
    let manifest = manifest(role, arguments, &function.attrs, &slot);
    let (module, export) = match role {
        Role::Filter => (format_ident!("filter"), quote!(::sluice_sdk::wit::filter::export_filter)),
        Role::Transform => (format_ident!("transform"), quote!(::sluice_sdk::wit::transform::export_transform)),
        Role::Process => (format_ident!("process"), quote!(::sluice_sdk::wit::process::export_process)),
        Role::Check => (format_ident!("check"), quote!(::sluice_sdk::wit::check::export_check)),
    };
    let exports = quote!(::sluice_sdk::wit::#module::exports::sluice::plugin);
    let used = arguments.on_timer.as_ref().map(|path| {
        quote! {
            #[cfg(not(target_family = "wasm"))]
            #[allow(dead_code, reason = "exported in WebAssembly only")]
            fn on_timer_is_used() {
                let _ = #path;
            }
        }
    });
    let body = body(role, arguments, function, config.is_some(), &exports);
    Ok(quote! {
        #[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "exported in WebAssembly only"))]
        #function

        #used

        #[doc(hidden)]
        #[allow(dead_code, reason = "makes a second role in one crate an error that names itself")]
        enum OnePluginPerCrate {}

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the generated exports")]
        const _: () = {
            struct Plugin;
            static CONFIG: ::sluice_sdk::run::Slot<#slot> = ::sluice_sdk::run::Slot::new();

            impl ::sluice_sdk::wit::plugin::exports::sluice::plugin::plugin::Guest for Plugin {
                fn describe() -> ::sluice_sdk::run::Manifest {
                    ::sluice_sdk::run::start();
                    #manifest
                }

                fn configure(
                    values: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    ::sluice_sdk::run::configure(&CONFIG, values)
                }
            }

            #body

            ::sluice_sdk::wit::plugin::export_plugin!(Plugin with_types_in ::sluice_sdk::wit::plugin);
            #export!(Plugin with_types_in ::sluice_sdk::wit::#module);
        };
    })
}

fn body(role: Role, arguments: &Arguments, function: &ItemFn, configured: bool, exports: &TokenStream) -> TokenStream {
    let name = &function.sig.ident;
    let get = configured.then(|| quote!(let config = ::sluice_sdk::run::configured(&CONFIG);));
    let config = configured.then(|| quote!(config,));
    let fault = quote!(::sluice_sdk::run::Fault);
    let asked = arguments.needs.iter().any(|flag| flag == "ATTEMPT");
    let input = asked.then(|| quote!(let input = ::sluice_sdk::run::with_attempts(input);));
    match role {
        Role::Filter => quote! {
            impl #exports::filter::Guest for Plugin {
                fn matches(
                    input: #exports::filter::Batch,
                ) -> ::std::result::Result<#exports::filter::Verdict, #fault> {
                    #get
                    #input
                    Ok(::sluice_sdk::run::filter(&input, |record| {
                        ::sluice_sdk::IntoVerdict::into_verdict(#name(record, #config))
                    }))
                }
            }
        },
        Role::Transform => quote! {
            impl #exports::transform::Guest for Plugin {
                fn apply(
                    input: #exports::transform::Batch,
                ) -> ::std::result::Result<#exports::transform::Output, #fault> {
                    #get
                    #input
                    Ok(::sluice_sdk::run::transform(&input, |record, out| {
                        ::sluice_sdk::IntoDone::into_done(#name(record, #config out))
                    }))
                }
            }
        },
        Role::Process => {
            let fired = match &arguments.on_timer {
                Some(path) => quote!(::sluice_sdk::IntoDone::into_done(#path(timer, #config ctx))),
                None => quote!({
                    let _ = (timer, ctx);
                    Ok(())
                }),
            };
            quote! {
                impl #exports::process::Guest for Plugin {
                    fn apply(
                        input: #exports::process::Batch,
                    ) -> ::std::result::Result<#exports::process::Output, #fault> {
                        #get
                        #input
                        Ok(::sluice_sdk::run::process(
                            &input,
                            |record, ctx| ::sluice_sdk::IntoDone::into_done(#name(record, #config ctx)),
                            |timer, ctx| #fired,
                        ))
                    }

                    fn on_timers(
                        due: ::std::vec::Vec<::sluice_sdk::Timer>,
                    ) -> ::std::result::Result<#exports::process::Output, #fault> {
                        #get
                        Ok(::sluice_sdk::run::on_timers(&due, |timer, ctx| #fired))
                    }
                }
            }
        }
        Role::Check => quote! {
            impl #exports::check_transaction::Guest for Plugin {
                fn check(
                    message: ::sluice_sdk::HalfMessage,
                ) -> ::std::result::Result<::sluice_sdk::Decision, ::std::string::String> {
                    #get
                    #name(&message, #config)
                }
            }
        },
    }
}

/// The type behind the `&Config` argument, if the function has one.
fn config_type(role: Role, function: &ItemFn) -> Result<Option<TokenStream>> {
    let inputs = &function.sig.inputs;
    let (least, shape) = match role {
        Role::Filter => (1, "fn(Record<'_>) or fn(Record<'_>, &Config)"),
        Role::Transform => (2, "fn(Record<'_>, &mut Out<'_>) or fn(Record<'_>, &Config, &mut Out<'_>)"),
        Role::Process => (2, "fn(Record<'_>, &mut Context<'_>) or fn(Record<'_>, &Config, &mut Context<'_>)"),
        Role::Check => (1, "fn(&HalfMessage) or fn(&HalfMessage, &Config)"),
    };
    if inputs.len() == least {
        return Ok(None);
    }
    let wrong = || Error::new_spanned(&function.sig, format!("expected {shape}"));
    if inputs.len() != least + 1 {
        return Err(wrong());
    }
    match &inputs[1] {
        FnArg::Typed(argument) => match &*argument.ty {
            Type::Reference(reference) if reference.mutability.is_none() => {
                let inner = &reference.elem;
                Ok(Some(quote!(#inner)))
            }
            _ => Err(wrong()),
        },
        FnArg::Receiver(_) => Err(wrong()),
    }
}

fn manifest(role: Role, arguments: &Arguments, attributes: &[Attribute], config: &TokenStream) -> TokenStream {
    let mut flags = arguments.needs.clone();
    if role == Role::Process {
        // Timers go by the one time, what expires by the other.
        flags.extend([format_ident!("BORN_AT"), format_ident!("STORED_AT")]);
    }
    let prefilter = match &arguments.prefilter {
        Some(text) => quote!(::std::option::Option::Some(#text.into())),
        None => quote!(::std::option::Option::None),
    };
    let stores = arguments
        .stores
        .iter()
        .map(|name| quote!(::sluice_sdk::run::Store { name: #name.into(), doc: ::std::string::String::new() }));
    let port =
        |name: &TokenStream| quote!(::sluice_sdk::run::Port { name: #name.into(), doc: ::std::string::String::new() });
    let outputs = match &arguments.outputs {
        Outputs::OnePerSink => quote!(::sluice_sdk::run::Outputs::OnePerSink),
        Outputs::One => {
            let port = port(&quote!("out"));
            quote!(::sluice_sdk::run::Outputs::Ports(vec![#port]))
        }
        Outputs::Named(names) => {
            let ports = names.iter().map(|name| port(&quote!(#name)));
            quote!(::sluice_sdk::run::Outputs::Ports(vec![#(#ports),*]))
        }
    };
    let doc = doc(attributes);
    let doc = if doc.is_empty() { quote!(env!("CARGO_PKG_DESCRIPTION")) } else { quote!(#doc) };
    quote! {
        ::sluice_sdk::run::Manifest {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            doc: #doc.into(),
            needs: ::sluice_sdk::run::Columns::empty() #(| ::sluice_sdk::run::Columns::#flags)*,
            prefilter: #prefilter,
            outputs: #outputs,
            params: <#config as ::sluice_sdk::Config>::params(),
            stores: ::std::vec![#(#stores),*],
        }
    }
}

/// The text of doc comments.
pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("doc")) {
        if let Meta::NameValue(pair) = &attribute.meta
            && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value
        {
            lines.push(text.value().trim().to_owned());
        }
    }
    lines.join("\n").trim().to_owned()
}
