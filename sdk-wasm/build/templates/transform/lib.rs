//! Adds a field to JSON bodies.

use sluice_sdk::{Config, Emit, Failure, Out, Record, transform};

/// What a pipeline may write under `config:`.
#[derive(Config)]
struct Settings {
    /// Value of the field `source`.
    source: String,
}

/// Sends what becomes of a record. `needs` names the columns that are read; what `Emit` does not set stays as it is.
#[transform(needs(value))]
fn mark(r: Record<'_>, cfg: &Settings, out: &mut Out<'_>) -> Result<(), Failure> {
    let mut body = r.json().map_err(|error| Failure::dead_letter("not-json", error.to_string()))?;
    let Some(fields) = body.as_object_mut() else {
        return Err(Failure::dead_letter("no-object", "expected a JSON object"));
    };
    fields.insert("source".into(), cfg.source.as_str().into());
    out.send(Emit::same().value(body.to_string()));
    Ok(())
}
