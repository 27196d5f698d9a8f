//! `[holds]`: what is looked for where nobody says which request a transaction belongs to.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// `[holds]`: transactions that idle while their request calls out. Where trace ids say which
/// request both belong to, that is found without a setting.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HoldSettings {
    /// A client that idles in a transaction for longer, with a server connection, is suspected
    /// of a hold. `0s`: nobody is. Default 5s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub suspect_after: Duration,
    /// Programs whose calls cannot be recognised by their process, because they run on another
    /// machine. The first that matches counts. Default: none.
    pub programs: Vec<ProgramSettings>,
}

impl Default for HoldSettings {
    fn default() -> Self {
        Self { suspect_after: Duration::from_secs(5), programs: Vec::new() }
    }
}

/// `[[holds.programs]]`: a program that has database connections and makes calls, both from the
/// same address.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramSettings {
    /// The application_name of its database connections, `*` for any run of characters.
    pub application_name: String,
    /// The feature that its calls name, `*` as above. Default: any.
    #[serde(default)]
    pub feature: Option<String>,
    /// The tenant of its calls. Default: any.
    #[serde(default)]
    pub tenant: Option<String>,
}
