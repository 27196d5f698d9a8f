//! The HTTP egress gateway: agents call `http://HOST:PORT/DESTINATION/…`, Forebay calls the
//! service, over connections and with credentials that outlive the call.
//!
//! The rooms, in the order in which a call passes them: `gateway` (accept), `agent` and
//! `doorstep` (the agent's connection), `call` (its journey), `hygiene` (what may pass), `tenant`
//! (who calls), `routes`, `destination` and `target` (where to), `operation` and `hints` (what
//! for), `limits` with
//! `announce` and `usage` (how much of it), `wallet`, `credential`, `token` and `oauth` with
//! `secrets` (with which proof), `exchange`, `upload` and `answer` (the bytes, both ways),
//! `upgrade` and `tunnel` (other protocols),
//! `connection`, `upstream`, `berths`, `dial`, `frames`, `link`, `site`, `addresses`,
//! `idleness` and `tls` (the connections); `problem` (what Forebay itself answers), `meter` and
//! `stats` (what is
//! counted). Deliberately absent: no redirect is followed, no body is stored, nothing in a
//! call chooses where a credential goes.

mod addresses;
mod agent;
mod announce;
mod answer;
mod berths;
mod call;
mod connection;
mod credential;
mod destination;
mod dial;
mod doorstep;
mod exchange;
mod frames;
mod gateway;
mod hints;
mod hygiene;
mod idleness;
mod limits;
mod link;
mod meter;
mod oauth;
mod operation;
mod piping;
mod prefix;
mod problem;
mod routes;
mod secrets;
pub mod settings;
mod site;
pub mod stats;
mod target;
mod tenant;
mod tls;
mod token;
mod tunnel;
mod upgrade;
mod upload;
mod upstream;
mod usage;
mod wallet;

pub use gateway::{Changes, Gateway, Revision};
pub use settings::HttpSettings;
pub use stats::HttpSnapshot;

/// Why the settings cannot be carried out. `at` is the path of the key in the
/// configuration (`http.destinations.llm.url`), so that the program can say the line.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct SettingsError {
    /// Path of the key.
    pub at: String,
    /// What is wrong and what would be right.
    pub reason: String,
}
