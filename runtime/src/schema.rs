use serde_json::{Map, Value};

/// Deepest nesting of a schema.
const MAX_DEPTH: usize = 16;

const KNOWN: &str = "type, enum, minimum, maximum, minLength, maxLength, minItems, maxItems, items, properties, required, \
                     additionalProperties, title, description, default, examples";

/// The part of JSON Schema that parameters of plugins use. Keywords outside it are refused at upload, so none is silently ignored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    types: Vec<Type>,
    options: Option<Vec<Value>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    length: (u64, Option<u64>),
    count: (u64, Option<u64>),
    items: Option<Box<Schema>>,
    properties: Vec<(String, Schema)>,
    required: Vec<String>,
    others: Others,
}

#[derive(Clone, Debug, Default)]
enum Others {
    #[default]
    Any,
    None,
    Like(Box<Schema>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Type {
    fn parse(value: &Value) -> Result<Type, String> {
        Ok(match value.as_str() {
            Some("null") => Type::Null,
            Some("boolean") => Type::Boolean,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("string") => Type::String,
            Some("array") => Type::Array,
            Some("object") => Type::Object,
            _ => return Err(format!("`type` {value} is not a JSON Schema type")),
        })
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Type::Null => value.is_null(),
            Type::Boolean => value.is_boolean(),
            Type::Integer => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
            Type::Number => value.is_number(),
            Type::String => value.is_string(),
            Type::Array => value.is_array(),
            Type::Object => value.is_object(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Type::Null => "null",
            Type::Boolean => "a boolean",
            Type::Integer => "an integer",
            Type::Number => "a number",
            Type::String => "a string",
            Type::Array => "an array",
            Type::Object => "an object",
        }
    }
}

impl Schema {
    pub(crate) fn compile(schema: &Value) -> Result<Schema, String> {
        compile(schema, 0)
    }

    /// The error names the place inside the value, `` for its root.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        self.check_at(value, "")
    }

    fn check_at(&self, value: &Value, at: &str) -> Result<(), String> {
        let wrong = |what: String| Err(if at.is_empty() { what } else { format!("at {at}: {what}") });
        if !self.types.is_empty() && !self.types.iter().any(|t| t.holds(value)) {
            let names: Vec<&str> = self.types.iter().map(|t| t.name()).collect();
            return wrong(format!("expected {}, got {}", names.join(" or "), brief(value)));
        }
        if let Some(options) = &self.options
            && !options.contains(value)
        {
            let names: Vec<String> = options.iter().map(Value::to_string).collect();
            return wrong(format!("expected one of {}, got {}", names.join(", "), brief(value)));
        }
        match value {
            Value::Number(n) => {
                let n = n.as_f64().unwrap_or(f64::NAN);
                if let Some(min) = self.minimum.filter(|min| n < *min) {
                    return wrong(format!("expected at least {min}, got {n}"));
                }
                if let Some(max) = self.maximum.filter(|max| n > *max) {
                    return wrong(format!("expected at most {max}, got {n}"));
                }
            }
            Value::String(s) => range(s.chars().count(), self.length, "characters").or_else(wrong)?,
            Value::Array(items) => {
                range(items.len(), self.count, "items").or_else(wrong)?;
                for (i, item) in items.iter().enumerate() {
                    if let Some(schema) = &self.items {
                        schema.check_at(item, &format!("{at}/{i}"))?;
                    }
                }
            }
            Value::Object(fields) => self.check_fields(fields, at)?,
            Value::Null | Value::Bool(_) => {}
        }
        Ok(())
    }

    fn check_fields(&self, fields: &Map<String, Value>, at: &str) -> Result<(), String> {
        let wrong = |what: String| Err(if at.is_empty() { what } else { format!("at {at}: {what}") });
        if let Some(missing) = self.required.iter().find(|name| !fields.contains_key(*name)) {
            return wrong(format!("`{missing}` is missing"));
        }
        for (name, value) in fields {
            let place = format!("{at}/{name}");
            match (self.properties.iter().find(|(known, _)| known == name), &self.others) {
                (Some((_, schema)), _) => schema.check_at(value, &place)?,
                (None, Others::Like(schema)) => schema.check_at(value, &place)?,
                (None, Others::None) => {
                    let known: Vec<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
                    return wrong(format!("unknown field `{name}`; known are: {}", known.join(", ")));
                }
                (None, Others::Any) => {}
            }
        }
        Ok(())
    }
}

fn range(got: usize, (min, max): (u64, Option<u64>), unit: &str) -> Result<(), String> {
    let got = got as u64;
    match max {
        _ if got < min => Err(format!("expected at least {min} {unit}, got {got}")),
        Some(max) if got > max => Err(format!("expected at most {max} {unit}, got {got}")),
        _ => Ok(()),
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn compile(schema: &Value, depth: usize) -> Result<Schema, String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH}"));
    }
    let fields = match schema {
        Value::Bool(true) => return Ok(Schema::default()),
        Value::Object(fields) => fields,
        other => return Err(format!("expected an object, got {}", brief(other))),
    };
    let mut out = Schema::default();
    for (keyword, value) in fields {
        keyword_into(&mut out, keyword, value, depth)?;
    }
    Ok(out)
}

fn keyword_into(out: &mut Schema, keyword: &str, value: &Value, depth: usize) -> Result<(), String> {
    let number = || value.as_f64().ok_or(format!("`{keyword}` must be a number"));
    let count = || value.as_u64().ok_or(format!("`{keyword}` must be a whole number"));
    let list = || value.as_array().ok_or(format!("`{keyword}` must be an array"));
    match keyword {
        "title" | "description" | "default" | "examples" => {}
        "type" => {
            out.types = match value {
                Value::Array(types) => types.iter().map(Type::parse).collect::<Result<_, _>>()?,
                one => vec![Type::parse(one)?],
            };
        }
        "enum" => out.options = Some(list()?.clone()),
        "minimum" => out.minimum = Some(number()?),
        "maximum" => out.maximum = Some(number()?),
        "minLength" => out.length.0 = count()?,
        "maxLength" => out.length.1 = Some(count()?),
        "minItems" => out.count.0 = count()?,
        "maxItems" => out.count.1 = Some(count()?),
        "items" => out.items = Some(Box::new(compile(value, depth + 1)?)),
        "properties" => {
            let fields = value.as_object().ok_or("`properties` must be an object")?;
            for (name, schema) in fields {
                out.properties.push((name.clone(), compile(schema, depth + 1)?));
            }
        }
        "required" => {
            for name in list()? {
                out.required.push(name.as_str().ok_or("`required` must hold names")?.to_owned());
            }
        }
        "additionalProperties" => {
            out.others = match value {
                Value::Bool(true) => Others::Any,
                Value::Bool(false) => Others::None,
                schema => Others::Like(Box::new(compile(schema, depth + 1)?)),
            };
        }
        other => return Err(format!("keyword `{other}` is not known here; known are: {KNOWN}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: &Value, value: &Value) -> Result<(), String> {
        Schema::compile(schema).unwrap().check(value)
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        assert_eq!(check(&json!({"type": "string"}), &json!(7)), Err("expected a string, got 7".into()));
        assert_eq!(check(&json!({"type": ["string", "null"]}), &json!(null)), Ok(()));
        assert_eq!(check(&json!({"type": "integer"}), &json!(3.0)), Ok(()));
        assert!(check(&json!({"type": "integer"}), &json!(3.5)).is_err());
    }

    #[test]
    fn an_error_inside_names_its_place() {
        let schema = json!({"type": "object", "properties": {"to": {"type": "array", "items": {"type": "integer", "maximum": 3}}},
            "required": ["to"], "additionalProperties": false});
        assert_eq!(check(&schema, &json!({"to": [1, 9]})), Err("at /to/1: expected at most 3, got 9".into()));
        assert_eq!(check(&schema, &json!({})), Err("`to` is missing".into()));
        assert_eq!(check(&schema, &json!({"to": [], "x": 1})), Err("unknown field `x`; known are: to".into()));
    }

    #[test]
    fn a_keyword_that_would_be_ignored_is_refused() {
        let error = Schema::compile(&json!({"type": "string", "pattern": "a+"})).unwrap_err();
        assert!(error.starts_with("keyword `pattern` is not known here"), "{error}");
    }
}
