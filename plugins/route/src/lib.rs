use sluice_sdk::field::Pointer;
use sluice_sdk::{Config, Failure, Out, Record, context, transform};

/// Where records go. Give `header` or `field`, and the sinks by value.
#[derive(Config)]
#[config(check = Routes::check)]
struct Routes {
    /// Property whose value decides.
    header: Option<String>,
    /// JSON Pointer (RFC 6901) of the field whose value decides. A number or boolean is taken as its JSON text.
    field: Option<Pointer>,
    /// Name of a sink's topic by value.
    routes: Vec<(String, String)>,
    /// Sink's topic for every other value. Without it such records are dead letters; `drop` drops them.
    otherwise: Option<String>,
}

const DROP: &str = "drop";

impl Routes {
    fn check(&self) -> Result<(), String> {
        if self.header.is_some() == self.field.is_some() {
            return Err("give either `header` or `field`".into());
        }
        let topics = context::get().output_topics;
        // A dry check outside of a pipeline knows no sinks.
        if topics.is_empty() {
            return Ok(());
        }
        let named = self.routes.iter().map(|(_, topic)| topic).chain(&self.otherwise);
        match named.filter(|topic| *topic != DROP).find(|topic| !topics.contains(topic)) {
            Some(topic) => Err(format!("{topic} is no sink of this pipeline; its sinks are {}", topics.join(", "))),
            None => Ok(()),
        }
    }

    fn value(&self, r: Record<'_>) -> Result<Option<String>, Failure> {
        if let Some(header) = &self.header {
            return Ok(r.header(header).map(str::to_owned));
        }
        let Some(field) = &self.field else { return Ok(None) };
        r.text_at(field).map_err(|e| Failure::dead_letter("not-json", e.to_string()))
    }
}

/// Sends each record to the sink that a header or a JSON field names.
#[transform(needs(headers, value), outputs(one_per_sink))]
fn route(r: Record<'_>, cfg: &Routes, out: &mut Out<'_>) -> Result<(), Failure> {
    let value = cfg.value(r)?;
    let chosen = value.as_ref().and_then(|value| cfg.routes.iter().find(|(other, _)| other == value));
    let Some(topic) = chosen.map(|(_, topic)| topic).or(cfg.otherwise.as_ref()) else {
        let value = value.map_or("no value".into(), |value| format!("{value:?}"));
        return Err(Failure::dead_letter("no-route", format!("no route for {value}, and no `otherwise`")));
    };
    if topic == DROP {
        return Ok(());
    }
    let index = sinks().iter().position(|sink| sink == topic);
    let index = index.and_then(|index| u16::try_from(index).ok());
    match index {
        Some(index) => out.pass_to(index),
        None => return Err(Failure::stop("no-sink", format!("{topic} is no sink of this pipeline"))),
    }
    Ok(())
}

/// The pipeline's sinks, asked for once: they do not change while an instance lives.
fn sinks() -> &'static [String] {
    static SINKS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    SINKS.get_or_init(|| context::get().output_topics)
}
