//! Messages of a script, before it is certain whose they are: texts hold places for the names
//! of a client's own table and schema, which differ from side to side and are equally long.

use std::fmt;

use crate::client;

/// What stands for the names of one client on one side.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) schema: String,
    /// The client's own table, without its schema.
    pub(super) table: String,
    /// Its number, from 0.
    pub(super) client: usize,
    /// What makes a text of this very moment known among all that run.
    pub(super) mark: String,
}

/// A text longer than what is looked at as a whole.
const LONG: usize = 90_000;

impl Names {
    /// `{t}`: the table with its schema, `{u}`: without, `{s}`: the schema, `{c}`: the client,
    /// `{mark}`: this moment, `{long}`: many bytes.
    fn fill(&self, text: &str) -> String {
        if !text.contains('{') {
            return text.to_owned();
        }
        let text = text.replace("{t}", &format!("{}.{}", self.schema, self.table));
        let text = text.replace("{u}", &self.table).replace("{s}", &self.schema);
        let text = text.replace("{c}", &self.client.to_string()).replace("{mark}", &self.mark);
        if text.contains("{long}") { text.replace("{long}", &"x".repeat(LONG)) } else { text }
    }
}

/// Statements and portals have names of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Statement,
    Portal,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

/// One message of a client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse {
        name: &'static str,
        text: String,
    },
    Bind {
        portal: &'static str,
        statement: &'static str,
        values: Vec<&'static str>,
    },
    Describe(Kind, &'static str),
    Execute {
        portal: &'static str,
        rows: u32,
    },
    Close(Kind, &'static str),
    Flush,
    Sync,
    CopyData(&'static str),
    CopyDone,
    CopyFail,
    /// A call of the function with this OID.
    Call {
        function: u32,
        arguments: Vec<&'static str>,
    },
}

impl Message {
    pub(super) fn bytes(&self, names: &Names) -> Vec<u8> {
        match self {
            Self::Query(text) => client::query(&names.fill(text)),
            Self::Parse { name, text } => client::parse(name, &names.fill(text)),
            Self::Bind { portal, statement, values } => {
                let values: Vec<_> = values.iter().map(|value| names.fill(value)).collect();
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                client::bind(portal, statement, &values)
            }
            Self::Describe(kind, name) => client::describe(kind.byte(), name),
            Self::Execute { portal, rows } => client::execute(portal, *rows),
            Self::Close(kind, name) => client::close(kind.byte(), name),
            Self::Flush => client::flush(),
            Self::Sync => client::sync(),
            Self::CopyData(data) => client::copy_data(&names.fill(data)),
            Self::CopyDone => client::copy_done(),
            Self::CopyFail => client::copy_fail("no"),
            Self::Call { function, arguments } => client::function_call(*function, arguments),
        }
    }

    /// The text it brings, if it brings one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Query(text) | Self::Parse { text, .. } => Some(text),
            Self::Bind { .. }
            | Self::Describe(..)
            | Self::Execute { .. }
            | Self::Close(..)
            | Self::Flush
            | Self::Sync
            | Self::CopyData(_)
            | Self::CopyDone
            | Self::CopyFail
            | Self::Call { .. } => None,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(text) => write!(f, "Query {text:?}"),
            Self::Parse { name, text } => write!(f, "Parse {name:?} {text:?}"),
            Self::Bind { portal, statement, values } => {
                write!(f, "Bind {portal:?} {statement:?} {values:?}")
            }
            Self::Describe(kind, name) => write!(f, "Describe {kind:?} {name:?}"),
            Self::Execute { portal, rows } => write!(f, "Execute {portal:?} {rows}"),
            Self::Close(kind, name) => write!(f, "Close {kind:?} {name:?}"),
            Self::CopyData(data) => write!(f, "CopyData {data:?}"),
            Self::Call { function, arguments } => write!(f, "Call {function} {arguments:?}"),
            Self::Flush | Self::Sync | Self::CopyDone | Self::CopyFail => write!(f, "{self:?}"),
        }
    }
}
