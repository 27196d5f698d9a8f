//! `[log]`: what the program logs, how, and where.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `[log]`: what the program logs, and where.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// How much: `error`, `warn`, `info`, `debug`, `trace`, or by room, as in
    /// `info,forebay_postgres=debug`. The environment variable `FOREBAY_LOG` wins. Default
    /// `info`.
    pub level: String,
    /// How. Default `auto`.
    pub format: LogFormat,
    /// Whether to stderr. Default true.
    pub stderr: bool,
    /// A file besides; it is opened anew at a reload, so that it can be moved away before.
    /// Default: none.
    pub file: Option<PathBuf>,
    /// The system's log besides. Default: no.
    pub syslog: Option<SyslogSettings>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::default(),
            stderr: true,
            file: None,
            syslog: None,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `text` on a terminal, `json` elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
    /// For tools that read PgBouncer's log.
    PgBouncer,
}

/// `[log.syslog]`: the system's log.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyslogSettings {
    /// Which part of it. Default `daemon`.
    pub facility: SyslogFacility,
    /// Under which name. Default `forebay`.
    pub ident: String,
}

impl Default for SyslogSettings {
    fn default() -> Self {
        Self { facility: SyslogFacility::default(), ident: "forebay".to_owned() }
    }
}

/// Parts of the system's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are the system's names")]
pub enum SyslogFacility {
    User,
    #[default]
    Daemon,
    Auth,
    Authpriv,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}
