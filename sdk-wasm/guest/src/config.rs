use serde_json::{Map, Value, json};

use crate::wit::imports::types::Param;

/// The plugin's configuration. Derive it; each field is a parameter:
///
/// - the field's type must be a [`ConfigValue`]; an `Option` or a `#[config(default = EXPRESSION)]` makes it optional;
/// - its doc comment is shown to users, `#[config(rename = "NAME")]` changes its name;
/// - `#[config(check = PATH)]` on the struct names a `fn(&Self) -> Result<(), String>` that is asked at the end.
pub trait Config: Sized + Send + Sync + 'static {
    #[doc(hidden)]
    fn params() -> Vec<Param>;
    #[doc(hidden)]
    fn read(values: &mut Values) -> Result<Self, String>;
}

/// For plugins that take none.
pub struct NoConfig;

impl Config for NoConfig {
    fn params() -> Vec<Param> {
        Vec::new()
    }

    fn read(_: &mut Values) -> Result<NoConfig, String> {
        Ok(NoConfig)
    }
}

/// Given values by parameter.
pub struct Values(Map<String, Value>);

impl Values {
    #[doc(hidden)]
    pub fn parse(texts: Vec<(String, String)>) -> Result<Values, String> {
        let mut values = Map::new();
        for (name, text) in texts {
            let value = serde_json::from_str(&text).map_err(|e| format!("`{name}`: {e}"))?;
            values.insert(name, value);
        }
        Ok(Values(values))
    }

    #[doc(hidden)]
    pub fn take<T: ConfigValue>(&mut self, name: &str) -> Result<Option<T>, String> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::read(value).map(Some).map_err(|e| format!("`{name}`: {e}")),
        }
    }
}

#[doc(hidden)]
#[must_use]
pub fn param<T: ConfigValue>(name: &str, doc: &str, required: bool) -> Param {
    let mut schema = T::schema();
    if let Some(fields) = schema.as_object_mut().filter(|_| !doc.is_empty()) {
        fields.insert("description".into(), doc.into());
    }
    Param { name: name.into(), json_schema: schema.to_string(), required }
}

/// A type that a parameter can have.
pub trait ConfigValue: Sized {
    /// JSON Schema of the value, in the keywords `type`, `enum`, `minimum`, `maximum`, `minLength`, `maxLength`, `minItems`, `maxItems`,
    /// `items`, `properties`, `required`, `additionalProperties`, `title`, `description`, `default` and `examples`.
    fn schema() -> Value;
    /// # Errors
    /// What is wrong with the value, in words for the user.
    fn read(value: Value) -> Result<Self, String>;
}

impl ConfigValue for Value {
    fn schema() -> Value {
        json!({})
    }

    fn read(value: Value) -> Result<Value, String> {
        Ok(value)
    }
}

impl ConfigValue for String {
    fn schema() -> Value {
        json!({"type": "string"})
    }

    fn read(value: Value) -> Result<String, String> {
        match value {
            Value::String(text) => Ok(text),
            other => Err(format!("expected a string, got {other}")),
        }
    }
}

impl ConfigValue for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }

    fn read(value: Value) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| format!("expected true or false, got {value}"))
    }
}

impl ConfigValue for f64 {
    fn schema() -> Value {
        json!({"type": "number"})
    }

    fn read(value: Value) -> Result<f64, String> {
        value.as_f64().ok_or_else(|| format!("expected a number, got {value}"))
    }
}

macro_rules! whole {
    ($($t:ty),*) => {$(
        impl ConfigValue for $t {
            fn schema() -> Value {
                json!({"type": "integer", "minimum": <$t>::MIN, "maximum": <$t>::MAX})
            }

            fn read(value: Value) -> Result<$t, String> {
                let whole = value.as_i64().and_then(|n| n.try_into().ok()).or(value.as_u64().and_then(|n| n.try_into().ok()));
                whole.ok_or_else(|| format!("expected a whole number from {} to {}, got {value}", <$t>::MIN, <$t>::MAX))
            }
        }
    )*};
}
whole!(u16, u32, u64, i32, i64);

impl<T: ConfigValue> ConfigValue for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }

    fn read(value: Value) -> Result<Vec<T>, String> {
        match value {
            Value::Array(items) => items.into_iter().map(T::read).collect(),
            other => Err(format!("expected an array, got {other}")),
        }
    }
}

/// Entries of a JSON object, in the order of their names.
impl<T: ConfigValue> ConfigValue for Vec<(String, T)> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema()})
    }

    fn read(value: Value) -> Result<Vec<(String, T)>, String> {
        match value {
            Value::Object(fields) => fields
                .into_iter()
                .map(|(name, value)| {
                    Ok((T::read(value).map_err(|e| format!("{name}: {e}"))?, name)).map(|(v, n)| (n, v))
                })
                .collect(),
            other => Err(format!("expected an object, got {other}")),
        }
    }
}
