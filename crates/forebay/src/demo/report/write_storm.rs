//! What the write storm shows: writes in a burst, and logins beside them.

use serde::Serialize;

use super::shown::{Row, Shown};
use super::table::milliseconds;
use super::words::{failures, slower};
use super::{LoginFigures, Times};
use crate::demo::product::SERVER_CONNECTIONS;
use crate::demo::write_storm::WriteStorm;

/// One side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct WriteStormFigures {
    /// Writes done.
    pub(crate) writes: u64,
    /// Writes that failed.
    pub(crate) writes_failed: u64,
    /// Median of a write in the burst, milliseconds.
    pub(crate) write_p50_ms: f64,
    /// 99th percentile of a write in the burst, milliseconds.
    pub(crate) write_p99_ms: f64,
    /// 99th percentile of an agent's whole checkpoint, milliseconds.
    pub(crate) checkpoint_p99_ms: f64,
    /// Beside them.
    #[serde(flatten)]
    pub(crate) logins: LoginFigures,
    /// Server connections open at the same time, at the most.
    pub(crate) server_connections: u64,
}

impl WriteStormFigures {
    /// One side of which `connections` were open at the most.
    pub(crate) fn of(seen: &WriteStorm, connections: u64) -> Self {
        let times = Times::of(&seen.writes);
        Self {
            writes: seen.writes.good(),
            writes_failed: seen.writes.failed(),
            write_p50_ms: times.p50_ms,
            write_p99_ms: times.p99_ms,
            checkpoint_p99_ms: Times::of(&seen.checkpoints).p99_ms,
            logins: LoginFigures::of(&seen.logins),
            server_connections: connections,
        }
    }
}

impl Shown for WriteStormFigures {
    const NAME: &'static str = "Write storm";

    fn rows(sides: [&Self; 2]) -> Vec<Row> {
        let mut rows = vec![
            Row::counts("writes done", sides.map(|side| side.writes)),
            Row::counts("writes failed", sides.map(|side| side.writes_failed)),
            Row::times("a write in the burst, p50", sides.map(|side| side.write_p50_ms)),
            Row::times("a write in the burst, p99", sides.map(|side| side.write_p99_ms)),
            Row::times("a checkpoint (5-10 writes), p99", sides.map(|s| s.checkpoint_p99_ms)),
        ];
        rows.extend(LoginFigures::rows(sides.map(|side| &side.logins)));
        rows.push(Row::counts("server connections, most", sides.map(|s| s.server_connections)));
        rows
    }

    fn logins(&self) -> Option<&LoginFigures> {
        Some(&self.logins)
    }

    fn words([without, with]: [&Self; 2]) -> String {
        let logins = [without, with].map(|side| side.logins.login_p99_ms);
        let writes = [without, with].map(|side| side.write_p99_ms);
        let failed = [without, with].map(|side| side.writes_failed + side.logins.logins_failed);
        format!(
            "Write storm. Beside bursts of writes, the p99 of a login was {} without Forebay and \
             {} with it ({}). A write in the burst took {} and {} (p99, {}): with Forebay the \
             agents' class may hold {} of the {SERVER_CONNECTIONS} server connections. {}",
            milliseconds(logins[0]),
            milliseconds(logins[1]),
            slower(logins),
            milliseconds(writes[0]),
            milliseconds(writes[1]),
            slower(writes),
            crate::demo::write_storm::CEILING,
            failures(failed),
        )
    }
}
