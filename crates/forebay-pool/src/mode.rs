//! How much a policy may do: nothing, say what it would do, or do it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a policy acts.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is not computed at all.
    Off,
    /// It is computed and counted, and nobody is harmed.
    #[default]
    Observe,
    /// It acts.
    Enforce,
}

impl Mode {
    /// Its name in settings, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}
