//! What fan-out shows: questions of many queries, and logins beside them.

use serde::Serialize;

use super::shown::{Row, Shown};
use super::table::milliseconds;
use super::words::{slower, turned_away};
use super::{LoginFigures, Times, round};
use crate::demo::fan_out::{FEATURE, FanOut};
use crate::demo::gateway::Seen;

/// One side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FanOutFigures {
    /// Questions answered.
    pub(crate) questions: u64,
    /// Median of a question, milliseconds.
    pub(crate) question_p50_ms: f64,
    /// 99th percentile of a question, milliseconds.
    pub(crate) question_p99_ms: f64,
    /// Questions refused for want of a connection.
    pub(crate) refused: u64,
    /// Questions that failed otherwise.
    pub(crate) failed: u64,
    /// Beside them.
    #[serde(flatten)]
    pub(crate) logins: LoginFigures,
    /// Server connections open at the same time, at the most.
    pub(crate) server_connections: u64,
    /// Queries of a question, as Forebay learnt it; none without it, or before a question
    /// has been over long enough.
    pub(crate) fan_out_seen: Option<f64>,
    /// Connections that a question had at the same time, as Forebay learnt it.
    pub(crate) peak_seen: Option<f64>,
}

impl FanOutFigures {
    /// One side of which `connections` were open at the most.
    pub(crate) fn of(seen: &FanOut, connections: u64, learnt: &Seen) -> Self {
        let times = Times::of(&seen.questions);
        let feature = learnt.features().find(|f| f.feature == FEATURE && f.requests > 0);
        let refused = seen.refused.load(std::sync::atomic::Ordering::Relaxed);
        Self {
            questions: seen.questions.good(),
            question_p50_ms: times.p50_ms,
            question_p99_ms: times.p99_ms,
            refused,
            failed: seen.questions.failed().saturating_sub(refused),
            logins: LoginFigures::of(&seen.logins),
            server_connections: connections,
            fan_out_seen: feature.map(|feature| round(feature.leases.mean)),
            peak_seen: feature.map(|feature| round(feature.peak.mean)),
        }
    }
}

impl Shown for FanOutFigures {
    const NAME: &'static str = "Fan-out";

    fn rows(sides: [&Self; 2]) -> Vec<Row> {
        let mut rows = vec![
            Row::counts("questions answered", sides.map(|side| side.questions)),
            Row::times("a question (15 queries), p50", sides.map(|side| side.question_p50_ms)),
            Row::times("a question (15 queries), p99", sides.map(|side| side.question_p99_ms)),
            Row::counts("questions refused", sides.map(|side| side.refused)),
            Row::counts("questions failed otherwise", sides.map(|side| side.failed)),
        ];
        rows.extend(LoginFigures::rows(sides.map(|side| &side.logins)));
        rows.push(Row::counts("server connections, most", sides.map(|s| s.server_connections)));
        let learnt = |value: Option<f64>| value.map_or("-".to_owned(), |some| format!("{some:.1}"));
        let seen = sides.map(|side| learnt(side.fan_out_seen));
        rows.push(Row::texts("queries of a question, learnt", seen));
        let seen = sides.map(|side| learnt(side.peak_seen));
        rows.push(Row::texts("its connections at a time, learnt", seen));
        rows
    }

    fn logins(&self) -> Option<&LoginFigures> {
        Some(&self.logins)
    }

    fn words([without, with]: [&Self; 2]) -> String {
        let logins = [without, with].map(|side| side.logins.login_p99_ms);
        let questions = [without, with].map(|side| side.question_p99_ms);
        format!(
            "Fan-out. Beside questions that want {wanted} connections at once, the p99 of a login \
             was {} without Forebay and {} with it ({}); that of a question went from {} to {} \
             ({}). {}",
            milliseconds(logins[0]),
            milliseconds(logins[1]),
            slower(logins),
            milliseconds(questions[0]),
            milliseconds(questions[1]),
            slower(questions),
            turned_away("questions", [without.refused, with.refused]),
            wanted = crate::demo::fan_out::USERS * crate::demo::fan_out::QUERIES,
        )
    }
}
