use proc_macro2::Ident;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, LitStr, Path, Result, Token, parenthesized};

/// What the columns are called in `needs(..)`, and in the generated flags.
const COLUMNS: [(&str, &str); 8] = [
    ("key", "KEY"),
    ("value", "VALUE"),
    ("headers", "HEADERS"),
    ("tag", "TAG"),
    ("born_at", "BORN_AT"),
    ("stored_at", "STORED_AT"),
    ("offset", "OFFSET"),
    ("attempt", "ATTEMPT"),
];

pub(crate) enum Outputs {
    One,
    Named(Vec<LitStr>),
    OnePerSink,
}

/// `needs(..), outputs(..), prefilter(..), stores(..), on_timer(..)`
pub(crate) struct Arguments {
    /// Flags of the generated `Columns`.
    pub(crate) needs: Vec<Ident>,
    pub(crate) outputs: Outputs,
    pub(crate) prefilter: Option<LitStr>,
    pub(crate) stores: Vec<LitStr>,
    /// The function that runs when a timer is due.
    pub(crate) on_timer: Option<Path>,
    /// Where they stand, for roles that take none.
    pub(crate) needs_at: Option<Ident>,
    pub(crate) outputs_at: Option<Ident>,
    pub(crate) prefilter_at: Option<Ident>,
    pub(crate) state_at: Option<Ident>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Arguments> {
        let mut arguments = Arguments {
            needs: Vec::new(),
            outputs: Outputs::One,
            prefilter: None,
            stores: Vec::new(),
            on_timer: None,
            needs_at: None,
            outputs_at: None,
            prefilter_at: None,
            state_at: None,
        };
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            let inner;
            parenthesized!(inner in input);
            if name == "needs" {
                let columns = Punctuated::<Ident, Token![,]>::parse_terminated(&inner)?;
                arguments.needs = columns.iter().map(flag).collect::<Result<_>>()?;
                arguments.needs_at = Some(name);
            } else if name == "outputs" {
                arguments.outputs = outputs(&inner)?;
                arguments.outputs_at = Some(name);
            } else if name == "prefilter" {
                arguments.prefilter = Some(inner.parse()?);
                arguments.prefilter_at = Some(name);
            } else if name == "stores" {
                let names = Punctuated::<LitStr, Token![,]>::parse_terminated(&inner)?;
                arguments.stores = names.into_iter().collect();
                arguments.state_at = Some(name);
            } else if name == "on_timer" {
                arguments.on_timer = Some(inner.parse()?);
                arguments.state_at = Some(name);
            } else {
                let known = "`needs(..)`, `outputs(..)`, `prefilter(..)`, `stores(..)` or `on_timer(..)`";
                return Err(Error::new(name.span(), format!("expected {known}")));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

fn flag(column: &Ident) -> Result<Ident> {
    let known = COLUMNS.iter().find(|(name, _)| column == name);
    known.map(|(_, flag)| Ident::new(flag, column.span())).ok_or_else(|| {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        Error::new(column.span(), format!("`{column}` is no column; there are {}", names.join(", ")))
    })
}

fn outputs(inner: ParseStream<'_>) -> Result<Outputs> {
    if inner.peek(LitStr) {
        let names = Punctuated::<LitStr, Token![,]>::parse_terminated(inner)?;
        return Ok(Outputs::Named(names.into_iter().collect()));
    }
    let word: Ident = inner.parse()?;
    if word == "one_per_sink" {
        return Ok(Outputs::OnePerSink);
    }
    Err(Error::new(word.span(), "expected names in quotes, or `one_per_sink`"))
}
