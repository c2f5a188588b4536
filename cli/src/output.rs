//! Answers on standard output: a table for people, JSON or YAML for programs.

use std::{
    fmt::Display,
    io::{ErrorKind, Write},
};

use anyhow::Context;
use clap::ValueEnum;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

#[derive(clap::Args)]
pub struct OutputArgs {
    /// How the answer is written.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

/// A column: its title and the JSON Pointer of its value in an item.
pub type Column = (&'static str, &'static str);

impl OutputArgs {
    /// Prints the items of a list, one a line.
    pub fn list(&self, answer: &Value, columns: &[Column]) -> anyhow::Result<()> {
        if self.output != Format::Table {
            return self.whole(answer);
        }
        let items = answer.get("items").unwrap_or(answer).as_array().map(Vec::as_slice).unwrap_or_default();
        let cell = |item: &Value, pointer: &str| text(item.pointer(pointer));
        let rows: Vec<Vec<String>> =
            items.iter().map(|item| columns.iter().map(|(_, pointer)| cell(item, pointer)).collect()).collect();
        let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
        say(table(&titles, &rows).trim_end())
    }

    /// Prints what stands above [`Self::event`]s for people.
    pub fn head(&self, columns: &[Column]) -> anyhow::Result<()> {
        if self.output != Format::Table {
            return Ok(());
        }
        let titles: Vec<String> = columns.iter().map(|(title, _)| title.to_uppercase()).collect();
        say(titles.join("  "))
    }

    /// Prints an event of a stream: a row for people, a line of JSON or a YAML document for programs. `false` when whoever reads has had enough.
    pub fn event(&self, event: &Value, columns: &[Column]) -> anyhow::Result<bool> {
        match self.output {
            Format::Table => {
                let cells: Vec<String> = columns.iter().map(|(_, pointer)| text(event.pointer(pointer))).collect();
                say_on(cells.join("  "))
            }
            Format::Json => say_on(serde_json::to_string(event)?),
            Format::Yaml => say_on(format!("---\n{}", serde_norway::to_string(event)?.trim_end())),
        }
    }

    /// Prints one thing: every field of it, lists of objects below as tables of their own.
    pub fn one(&self, answer: &Value) -> anyhow::Result<()> {
        self.one_as(answer, answer)
    }

    /// As [`Self::one`], with another view of the same for people.
    pub fn one_as(&self, answer: &Value, view: &Value) -> anyhow::Result<()> {
        if self.output != Format::Table {
            return self.whole(answer);
        }
        say(description(view).trim_end())
    }

    /// Prints what was done, which for programs is the changed thing itself.
    pub fn done(&self, answer: &Value, text: &str) -> anyhow::Result<()> {
        if self.output == Format::Table || answer.is_null() {
            return say(text);
        }
        self.whole(answer)
    }

    fn whole(&self, answer: &Value) -> anyhow::Result<()> {
        match self.output {
            Format::Yaml => say(serde_norway::to_string(answer)?.trim_end()),
            _ => say(serde_json::to_string_pretty(answer)?),
        }
    }
}

/// Writes a line.
pub fn say(text: impl Display) -> anyhow::Result<()> {
    say_on(text).map(drop)
}

/// Writes a line; `false` when whoever read has had enough, as `head` does.
pub fn say_on(text: impl Display) -> anyhow::Result<bool> {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output cannot be written"),
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) if items.iter().all(|item| !item.is_object()) => {
            items.iter().map(|item| text(Some(item))).collect::<Vec<_>>().join(",")
        }
        Some(Value::Array(items)) => items.len().to_string(),
        Some(other) => other.to_string(),
    }
}

fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).chain([titles[at].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let titles: Vec<String> = titles.iter().map(|title| title.to_uppercase()).collect();
    let head = line(titles.iter().map(String::as_str).collect());
    rows.iter().fold(head, |text, row| text + &line(row.iter().map(String::as_str).collect()))
}

fn description(answer: &Value) -> String {
    let Value::Object(fields) = answer else { return format!("{}\n", text(Some(answer))) };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    let is_table = |value: &Value| value.as_array().is_some_and(|items| items.iter().any(Value::is_object));
    let mut out = String::new();
    for (key, value) in fields.iter().filter(|(_, value)| !is_table(value)) {
        out.push_str(&format!("{key:<width$}  {}\n", text(Some(value))));
    }
    for (key, value) in fields.iter().filter(|(_, value)| is_table(value)) {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        out.push_str(&format!("\n{key}\n{}", items_table(items)));
    }
    out
}

fn items_table(items: &[Value]) -> String {
    let Some(Value::Object(first)) = items.iter().find(|item| item.is_object()) else { return String::new() };
    let keys: Vec<&str> = first.keys().map(String::as_str).collect();
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| keys.iter().map(|key| text(item.get(*key))).collect()).collect();
    table(&keys, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["orders".to_owned(), "4".to_owned()], vec!["a".to_owned(), "12".to_owned()]];
        assert_eq!(table(&["name", "queues"], &rows), "NAME    QUEUES\norders  4\na       12\n");
    }

    #[test]
    fn a_description_has_its_lists_below() {
        let answer = serde_json::json!({"offsets": [{"max": 3, "queue": 0}], "name": "orders", "tags": ["a", "b"]});
        assert_eq!(description(&answer), "name     orders\ntags     a,b\n\noffsets\nMAX  QUEUE\n3    0\n");
    }
}
