//! What a server allows to be parked beyond PostgreSQL's own, and what proving may cost it.

use forebay_pool::{Mode, PoolSettings};
use schemars::JsonSchema;
use serde::Deserialize;

use super::ServerSettings;

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
    /// Connections of `budget` over which transactions are looked at from outside, at the most:
    /// classes have so many fewer while one of them parks, in `observe` as well. Each serves one
    /// pair of a database and a user at a time, and goes from pair to pair where there are more.
    /// At least two connections are left to classes: with a budget of 2 or less nothing is
    /// parked. Default 1.
    pub connections: u32,
}

impl Default for ParkingSettings {
    fn default() -> Self {
        Self {
            extensions: Vec::new(),
            relations: Vec::new(),
            proofs_per_second: 200,
            connections: 1,
        }
    }
}

impl ServerSettings {
    /// Does a class of it park, or observe what it could park?
    pub fn parks(&self) -> bool {
        self.classes.values().any(|class| class.parking != Mode::Off)
    }

    /// What of `budget` its classes have, where it is set.
    pub fn budget_of_classes(&self) -> Option<u32> {
        let wanted = if self.parks() { self.parking.connections } else { 0 };
        self.budget.map(|budget| budget - PoolSettings::beside_of(budget, wanted))
    }
}
