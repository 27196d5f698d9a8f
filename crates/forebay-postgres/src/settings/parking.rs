//! What a server allows to be parked beyond PostgreSQL's own, and what proving may cost it.

use schemars::JsonSchema;
use serde::Deserialize;

/// `[postgres.servers.NAME.parking]`: how it is proved there that a transaction holds nothing.
/// Which transactions are parked, each class says (`parking`, `park_after`, `park_when`,
/// `unpark_timeout`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParkingSettings {
    /// Extensions whose functions, operators and types may be used by transactions that are
    /// parked, as far as they are not volatile, beyond the usual ones that are known. Default:
    /// none.
    pub extensions: Vec<String>,
    /// Views, foreign tables and tables with row security that may be read by transactions that
    /// are parked, as `schema.name`. Nobody but you knows what their definitions and policies
    /// call. Default: none.
    pub relations: Vec<String>,
    /// Proofs that the server is asked for, at the most: each takes it about a millisecond.
    /// Default 200.
    pub proofs_per_second: u32,
    /// Connections over which transactions are looked at from outside, at the most: one for each
    /// pair of a database and a user. They are not part of `budget`. Default 4.
    pub connections: usize,
}

impl Default for ParkingSettings {
    fn default() -> Self {
        Self {
            extensions: Vec::new(),
            relations: Vec::new(),
            proofs_per_second: 200,
            connections: 4,
        }
    }
}
