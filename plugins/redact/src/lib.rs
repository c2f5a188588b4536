use sluice_sdk::json::{self, Value};
use sluice_sdk::{Config, Emit, Failure, Out, Record, transform};

/// Which fields are masked. A body without any of them passes on as it is, byte for byte.
#[derive(Config)]
#[config(check = Fields::check)]
struct Fields {
    /// Names, of fields wherever they stand, and JSON Pointers (RFC 6901), each of one place.
    fields: Vec<String>,
    /// What stands in place of their values.
    #[config(default = "***".into())]
    mask: String,
}

impl Fields {
    fn check(&self) -> Result<(), String> {
        if self.fields.is_empty() {
            return Err("fields: give at least one".into());
        }
        for field in &self.fields {
            if field.is_empty() {
                return Err(
                    "fields: expected a name, or a JSON Pointer, which begins with `/`; got an empty text".into()
                );
            }
            // A place that cannot be would leave unmasked what it was to mask.
            if is_place(field) && field.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
                return Err(format!(
                    "fields: in a JSON Pointer `~` is followed by 0 or 1 (`~0` is `~`, `~1` is `/`); got {field:?}"
                ));
            }
        }
        Ok(())
    }

    /// Masks what stands at the places; answers how many values that changed.
    fn mask_places(&self, body: &mut Value) -> usize {
        let places = self.fields.iter().filter(|field| is_place(field));
        places.filter_map(|place| Some(self.mask(body.pointer_mut(place)?))).sum()
    }

    /// Masks what has one of the names; answers how many values that changed. Goes as deep as the body, of which the parser
    /// limits the depth.
    fn mask_names(&self, within: &mut Value) -> usize {
        match within {
            Value::Object(fields) => {
                let is_named = |name: &String| self.fields.iter().any(|field| field == name && !is_place(field));
                let mask = |(name, value)| if is_named(name) { self.mask(value) } else { self.mask_names(value) };
                fields.iter_mut().map(mask).sum()
            }
            Value::Array(items) => items.iter_mut().map(|item| self.mask_names(item)).sum(),
            _ => 0,
        }
    }

    fn mask(&self, value: &mut Value) -> usize {
        if value == &self.mask {
            return 0;
        }
        *value = Value::String(self.mask.clone());
        1
    }
}

fn is_place(field: &str) -> bool {
    field.starts_with('/')
}

/// Masks fields of JSON bodies, wherever they stand.
#[transform(needs(value))]
fn redact(r: Record<'_>, cfg: &Fields, out: &mut Out<'_>) -> Result<(), Failure> {
    let mut body = r.json().map_err(|e| Failure::dead_letter("not-json", e.to_string()))?;
    if cfg.mask_places(&mut body) + cfg.mask_names(&mut body) > 0 {
        out.send(Emit::same().value(json::to_vec(&body)?));
    } else {
        out.pass();
    }
    Ok(())
}
