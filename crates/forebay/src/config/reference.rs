//! The configuration reference, written by the settings themselves: what their doc comments
//! say, in the order in which they stand.
//!
//! Goes over the JSON schema of [`Config`]; each table becomes a section, each key a row.

use schemars::schema_for;
use serde_json::{Map, Value};

use super::Config;

/// What is to be said of values once for all.
const VALUES: &str = "
- A **duration** is written `\"500ms\"`, `\"30s\"`, `\"5min\"` or `\"1h 30min\"`.
- A **secret** is `\"env:NAME\"` (an environment variable), `\"file:PATH\"`, \
`\"cmd:PROGRAM ARG …\"` (the first line that it prints), or the secret itself. It is never \
shown or logged.
- A **number or percentage** of connections is `10`, `\"50%\"` of the budget, or \
`\"50% of ai_share\"`.
";

/// The JSON schema of the configuration, for editors.
pub fn schema() -> Value {
    schema_for!(Config).to_value()
}

/// The reference as Markdown.
pub fn markdown() -> String {
    let schema = schema();
    let mut book = Book { schema: &schema, sections: Vec::new() };
    book.collect(&schema, Vec::new(), Form::Table);
    let mut text = "# Configuration\n\n".to_owned();
    text.push_str(
        "<!-- Written by `forebay config reference` out of the settings' own \
                   documentation; do not edit. -->\n\n",
    );
    text.push_str(
        "One TOML file. An unknown key is an error; `forebay check FILE` says all \
                   that is wrong with a file, or what it comes to.\n",
    );
    text.push_str(VALUES);
    for section in &book.sections {
        book.section(section, &mut text);
    }
    text
}

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `[path]`.
    Table,
    /// `[[path]]`.
    Array,
}

/// A table, and everywhere it may stand.
struct Section<'s> {
    schema: &'s Value,
    places: Vec<String>,
}

struct Book<'s> {
    schema: &'s Value,
    sections: Vec<Section<'s>>,
}

impl<'s> Book<'s> {
    /// The schema itself, behind a reference or an option, if it says something of a table.
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        if let Some(reference) = text(schema, "$ref") {
            return reference
                .strip_prefix('#')
                .and_then(|pointer| self.schema.pointer(pointer))
                .map_or(schema, |schema| self.resolve(schema));
        }
        match list(schema, "anyOf") {
            [inner, null] if text(null, "type") == Some("null") => self.resolve(inner),
            _ => schema,
        }
    }

    /// Finds all tables, the first place where they stand deciding the order.
    fn collect(&mut self, schema: &'s Value, path: Vec<&'s str>, form: Form) {
        let place = match (path.as_slice(), form) {
            ([], _) => "the top of the file".to_owned(),
            (path, Form::Table) => format!("`[{}]`", path.join(".")),
            (path, Form::Array) => format!("`[[{}]]`", path.join(".")),
        };
        let known = self.sections.iter_mut().find(|known| std::ptr::eq(known.schema, schema));
        if let Some(known) = known {
            known.places.push(place);
        } else {
            self.sections.push(Section { schema, places: vec![place] });
        }
        for (key, value) in properties(schema) {
            let mut path = path.clone();
            path.push(key);
            let value = self.resolve(value);
            let (inner, form) = match value.get("additionalProperties") {
                Some(inner @ Value::Object(_)) => {
                    path.push("NAME");
                    (self.resolve(inner), Form::Table)
                }
                _ => match value.get("items") {
                    Some(items) => (self.resolve(items), Form::Array),
                    None => (value, Form::Table),
                },
            };
            if is_table(inner) {
                self.collect(inner, path, form);
            }
        }
    }

    fn section(&self, section: &Section<'s>, out: &mut String) {
        heading(&section.places, out);
        paragraph(section.schema, out);
        self.rows(section.schema, out);
        for variant in list(section.schema, "oneOf") {
            let kind = variant.pointer("/properties/type/const").and_then(Value::as_str);
            line(out, &format!("\n`type = \"{}\"`:", kind.unwrap_or_default()));
            paragraph(variant, out);
            self.rows(variant, out);
        }
    }

    fn rows(&self, table: &'s Value, out: &mut String) {
        let required: Vec<_> = list(table, "required").iter().filter_map(Value::as_str).collect();
        let mut rows = properties(table).filter(|(_, value)| value.get("const").is_none());
        let Some(first) = rows.next() else { return };
        line(out, "\n| key | value | meaning |\n|---|---|---|");
        for (key, value) in std::iter::once(first).chain(rows) {
            let inner = self.resolve(value);
            let mut meaning = one_line(text(value, "description").unwrap_or_default());
            for choice in list(inner, "oneOf").iter().filter(|choice| !is_table(choice)) {
                let name = text(choice, "const").unwrap_or_default();
                let what = one_line(text(choice, "description").unwrap_or_default());
                meaning.push_str(&format!("<br>`{name}`: {what}"));
            }
            if required.contains(&key) {
                meaning.push_str(" **Required.**");
            }
            let kind = self.kind(value).replace('|', "\\|");
            line(out, &format!("| `{key}` | {kind} | {} |", meaning.replace('|', "\\|")));
        }
    }

    /// What a value looks like, in a word or two.
    fn kind(&self, schema: &'s Value) -> &'static str {
        let name = text(schema, "$ref").or_else(|| text(list(schema, "anyOf").first()?, "$ref"));
        match name.map(|name| name.trim_start_matches("#/$defs/")) {
            Some("SecretRef") => return "secret",
            Some("Share") => return "number or percentage",
            _ => {}
        }
        let schema = self.resolve(schema);
        if is_table(schema) || schema.get("additionalProperties").is_some_and(Value::is_object) {
            return "table";
        }
        let kind = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
            Some(Value::String(kind)) => Some(kind.as_str()),
            _ => None,
        };
        match (kind, text(schema, "format")) {
            (Some("string"), Some("humantime")) => "duration",
            (Some("array"), _) => "list",
            (Some("integer" | "number"), _) => "number",
            (Some("boolean"), _) => "true or false",
            _ if !list(schema, "oneOf").is_empty() => "one of these",
            _ => "text",
        }
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let map = schema.get("properties").and_then(Value::as_object);
    map.into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
}

/// A struct, or an enum of structs.
fn is_table(schema: &Value) -> bool {
    schema.get("properties").is_some()
        || list(schema, "oneOf").iter().any(|variant| variant.get("properties").is_some())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn heading(places: &[String], out: &mut String) {
    let mut places = places.iter();
    let first = places.next().map_or("", String::as_str);
    line(
        out,
        &format!(
            "\n## {}{}",
            first.get(..1).unwrap_or_default().to_uppercase(),
            first.get(1..).unwrap_or_default()
        ),
    );
    let others: Vec<_> = places.map(String::as_str).collect();
    if !others.is_empty() {
        line(out, &format!("\nAlso {}.", others.join(", ")));
    }
}

/// What a table is for, without the path that its documentation begins with.
fn paragraph(schema: &Value, out: &mut String) {
    let Some(description) = text(schema, "description") else { return };
    let rest = match description.strip_prefix("`[") {
        Some(rest) => rest.split_once(": ").map_or(description, |(_, rest)| rest),
        None => description,
    };
    let mut letters = rest.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    line(out, &format!("\n{first}{}", letters.as_str()));
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_reference_is_current() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/configuration.md is out of date; write it anew with\n\
             cargo run -- config reference > docs/configuration.md"
        );
    }

    #[test]
    fn every_key_is_explained() {
        let unexplained: Vec<_> = markdown()
            .lines()
            .filter(|row| row.starts_with("| `") && row.ends_with("|  |"))
            .map(str::to_owned)
            .collect();
        assert!(unexplained.is_empty(), "{unexplained:#?}");
    }
}
