//! What a statement names, and the question whether those names can mean anything but what is
//! harmless.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{EXTENSIONS, Refusal};

/// Asks, over any connection to the same database, about the lines of `$1` ([`Named::lines`]).
/// One row comes: how many lines were understood, the [`Refusal`]'s name (NULL if there is
/// none), and which name it is for.
pub(crate) const QUESTION: &str = include_str!("question.sql");

/// A name, and its schema if it stands in the text.
type Name = (Option<String>, String);

/// First object of a database's own (`FirstNormalObjectId`).
const FIRST_OWN: u32 = 16_384;

/// What one statement names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(super) functions: BTreeSet<Name>,
    /// Names behind a dot: columns mostly, but `x.f` may call `f(x)`.
    pub(super) attributes: BTreeSet<String>,
    pub(super) operators: BTreeSet<Name>,
    pub(super) types: BTreeSet<Name>,
    pub(super) relations: BTreeSet<Name>,
    /// Names that WITH gives: no relation needs to be there for them.
    pub(super) given: BTreeSet<String>,
    /// Types of parameters that are not PostgreSQL's own.
    declared: BTreeSet<u32>,
}

impl Named {
    /// The types that the statement's Parse declares for its parameters: their conversions run
    /// when values are bound.
    pub(crate) fn declare(&mut self, types: &[u32]) {
        self.declared.extend(types.iter().filter(|oid| **oid >= FIRST_OWN));
    }

    /// The value for `$1` of [`QUESTION`]: a line for each name, of kind, schema and name.
    /// Besides [`EXTENSIONS`], those called `extensions` are allowed, and `relations`
    /// (`schema.name`) may be views, foreign tables or have row security.
    pub(crate) fn lines(&self, extensions: &[String], relations: &[String]) -> String {
        let mut lines = String::new();
        let own = extensions.iter().map(String::as_str).filter(|name| !name.contains(['\t', '\n']));
        for extension in EXTENSIONS.into_iter().chain(own) {
            line(&mut lines, "extension", None, extension);
        }
        for relation in relations.iter().filter(|name| !name.contains(['\t', '\n'])) {
            if let Some((schema, name)) = relation.split_once('.') {
                line(&mut lines, "listed", Some(schema), name);
            }
        }
        for (kind, names) in [
            ("function", &self.functions),
            ("operator", &self.operators),
            ("type", &self.types),
            ("relation", &self.relations),
        ] {
            for (schema, name) in names {
                let is_given = schema.is_none() && self.given.contains(name);
                let kind = if kind == "relation" && is_given { "given" } else { kind };
                line(&mut lines, kind, schema.as_deref(), name);
            }
        }
        for name in &self.attributes {
            line(&mut lines, "attribute", None, name);
        }
        for oid in &self.declared {
            line(&mut lines, "declared", None, &oid.to_string());
        }
        lines
    }

    /// A call of a function.
    pub(super) fn call(&mut self, (schema, name): Name) -> Result<(), Refusal> {
        told_apart(&name)?;
        self.functions.insert((schema, name));
        Ok(())
    }

    /// A name behind a dot.
    pub(super) fn attribute(&mut self, name: String) -> Result<(), Refusal> {
        told_apart(&name)?;
        self.attributes.insert(name);
        Ok(())
    }

    pub(super) fn operator(&mut self, schema: Option<String>, name: &str) {
        let name = if name == "!=" { "<>" } else { name };
        self.operators.insert((schema, name.to_owned()));
    }
}

/// No name has a control character in it, so lines and their fields are told apart.
fn line(lines: &mut String, kind: &str, schema: Option<&str>, name: &str) {
    if !lines.is_empty() {
        lines.push('\n');
    }
    // Writing to a string does not fail.
    let _written = write!(lines, "{kind}\t{}\t{name}", schema.unwrap_or_default());
}

/// Refuses what PostgreSQL declares stable or immutable, and what must not be parked behind all
/// the same.
fn told_apart(name: &str) -> Result<(), Refusal> {
    const SHOW: [&str; 18] = [
        "inet_client_addr",
        "inet_client_port",
        "inet_server_addr",
        "inet_server_port",
        "pg_backend_pid",
        "pg_current_snapshot",
        "pg_current_xact_id",
        "pg_current_xact_id_if_assigned",
        "pg_cursor",
        "pg_get_backend_memory_contexts",
        "pg_listening_channels",
        "pg_my_temp_schema",
        "pg_prepared_statement",
        "pg_prepared_xact",
        "txid_current",
        "txid_current_if_assigned",
        "txid_current_snapshot",
        "pg_stat_get_backend_idset",
    ];
    const READ: [&str; 11] = [
        "json_populate_record",
        "json_populate_recordset",
        "jsonb_populate_record",
        "jsonb_populate_record_valid",
        "jsonb_populate_recordset",
        // They run the input of a type that is only a value to them, with a domain's checks.
        "pg_input_error_info",
        "pg_input_is_valid",
        "populate_record",
        "query_to_xml",
        "ts_rewrite",
        "ts_stat",
    ];
    const READ_TO_XML: [&str; 5] = ["query_", "cursor_", "table_", "schema_", "database_"];
    // It sets a flag of the process, and was declared immutable before isn 1.3.
    if name == "isn_weak" {
        return Err(Refusal::VolatileFunction);
    }
    if SHOW.contains(&name) {
        return Err(Refusal::ShowsConnection);
    }
    let to_xml = name.contains("_to_xml") && READ_TO_XML.iter().any(|of| name.starts_with(of));
    if to_xml || READ.contains(&name) {
        return Err(Refusal::ReadsUnnamed);
    }
    Ok(())
}

/// What the one row of the answer to [`QUESTION`] says, when `lines` were asked about.
///
/// # Errors
/// The reason that the server gives, or that its answer is not understood.
pub(crate) fn read_answer(lines: &str, rows: &[Vec<Option<String>>]) -> Result<(), Refusal> {
    let [row] = rows else { return Err(Refusal::NoAnswer) };
    let [Some(understood), refusal, name] = row.as_slice() else { return Err(Refusal::NoAnswer) };
    if understood.parse() != Ok(lines.lines().count()) {
        return Err(Refusal::NoAnswer);
    }
    let Some(refusal) = refusal else { return Ok(()) };
    tracing::debug!(refusal, name, "a statement names what cannot be parked behind");
    let known = Refusal::ALL.iter().find(|known| known.name() == refusal);
    Err(known.copied().unwrap_or(Refusal::NoAnswer))
}
