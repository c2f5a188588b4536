use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Expr, Field, Fields, GenericArgument, LitStr, Path, PathArguments, Result, Type};

use crate::role::doc;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a configuration is a struct with named fields"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "a configuration is a struct with named fields"));
    };
    let name = &input.ident;
    let check = check_of(input)?.map(|path| quote!(#path(&config)?;));
    let mut params = Vec::new();
    let mut reads = Vec::new();
    for field in &fields.named {
        let (param, read) = expand_field(field)?;
        params.push(param);
        reads.push(read);
    }
    Ok(quote! {
        impl ::sluice_sdk::Config for #name {
            fn params() -> ::std::vec::Vec<::sluice_sdk::run::Param> {
                vec![#(#params),*]
            }

            fn read(values: &mut ::sluice_sdk::Values) -> ::std::result::Result<Self, ::std::string::String> {
                let config = #name { #(#reads),* };
                #check
                Ok(config)
            }
        }
    })
}

fn check_of(input: &DeriveInput) -> Result<Option<Path>> {
    let mut check = None;
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("config")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("check") {
                return Err(meta.error("expected `check = PATH`"));
            }
            check = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(check)
}

fn expand_field(field: &Field) -> Result<(TokenStream, TokenStream)> {
    let Some(ident) = &field.ident else { return Err(Error::new_spanned(field, "expected a named field")) };
    let mut name = ident.to_string();
    let mut default: Option<Expr> = None;
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("config")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                name = meta.value()?.parse::<LitStr>()?.value();
            } else if meta.path.is_ident("default") {
                default = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error("expected `default = EXPRESSION` or `rename = \"NAME\"`"));
            }
            Ok(())
        })?;
    }
    let ty = &field.ty;
    let inner = option_of(ty);
    let value_type = inner.unwrap_or(ty);
    let required = inner.is_none() && default.is_none();
    let text = doc(&field.attrs);
    let param = quote!(::sluice_sdk::run::param::<#value_type>(#name, #text, #required));
    let take = quote!(values.take::<#value_type>(#name)?);
    let read = match (inner, default) {
        (Some(_), None) => quote!(#ident: #take),
        (Some(_), Some(default)) => quote!(#ident: #take.or_else(|| #default)),
        (None, Some(default)) => quote!(#ident: match #take { Some(value) => value, None => #default }),
        (None, None) => quote!(#ident: #take.ok_or_else(|| format!("`{}` is missing", #name))?),
    };
    Ok((param, read))
}

/// `T` of `Option<T>`.
fn option_of(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(inner) => Some(inner),
        _ => None,
    }
}
