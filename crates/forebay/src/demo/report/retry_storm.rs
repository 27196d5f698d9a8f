//! What the retry storm shows: how much is done in it, and how long it lasts in the queues.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::shown::{Row, Shown};
use super::table::{milliseconds, rate};
use super::words::slower;
use super::{LoginFigures, float, ratio, round};
use crate::demo::retry_storm::{AFTER, BEFORE, CAPACITY, QUERIES, RetryStorm, STORM, Seen};

/// It is healthy in a second of which this part of the requests was done at the first try.
const HEALTHY: f64 = 0.95;

/// One side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RetryStormFigures {
    /// Requests done a second while it was calm at first.
    pub(crate) done_before: f64,
    /// Requests done a second in the storm.
    pub(crate) done_in_storm: f64,
    /// Requests done a second after it.
    pub(crate) done_after: f64,
    /// Requests never done, of all.
    pub(crate) given_up: u64,
    /// Tries of a request that came in the storm, on average.
    pub(crate) tries: f64,
    /// Tries refused.
    pub(crate) refused: u64,
    /// Tries that their clients cancelled because they took too long.
    pub(crate) late: u64,
    /// Of the queries answered, the part that was for nothing, percent.
    pub(crate) wasted_percent: f64,
    /// Seconds from the end of the storm until it was healthy again; none: it never was.
    pub(crate) healthy_after_s: Option<u64>,
    /// Beside them.
    #[serde(flatten)]
    pub(crate) logins: LoginFigures,
    /// Server connections open at the same time, at the most.
    pub(crate) server_connections: u64,
    /// How often Forebay turned a caller away, by the policy that said so.
    pub(crate) verdicts: BTreeMap<String, u64>,
}

impl RetryStormFigures {
    /// One side of which `connections` were open at the most.
    pub(crate) fn of(seen: &RetryStorm, connections: u64, verdicts: BTreeMap<String, u64>) -> Self {
        let requests = &seen.requests;
        let done = requests.iter().filter(|request| request.done.is_some()).count() as u64;
        let useful = float(done * u64::from(QUERIES));
        let answered = float(seen.queries);
        Self {
            done_before: done_a_second(requests, Duration::ZERO, BEFORE),
            done_in_storm: done_a_second(requests, BEFORE, STORM),
            done_after: done_a_second(requests, BEFORE + STORM, AFTER),
            given_up: requests.len() as u64 - done,
            tries: tries(requests),
            refused: seen.refused,
            late: seen.late,
            wasted_percent: round(ratio((answered - useful).max(0.0) * 100.0, answered)),
            healthy_after_s: healthy_after(requests),
            logins: LoginFigures::of(&seen.logins),
            server_connections: connections,
            verdicts,
        }
    }
}

/// Requests that were done in the `length` from `since` on, for each of its seconds.
fn done_a_second(requests: &[Seen], since: Duration, length: Duration) -> f64 {
    let within = |at: Duration| at >= since && at < since + length;
    let done = requests.iter().filter(|request| request.done.is_some_and(within)).count();
    round(ratio(float(done as u64), length.as_secs_f64()))
}

/// Tries of a request of the storm, on average.
fn tries(requests: &[Seen]) -> f64 {
    let stormy = |seen: &&Seen| seen.due >= BEFORE && seen.due < BEFORE + STORM;
    let (count, tries) = requests
        .iter()
        .filter(stormy)
        .fold((0, 0), |(count, tries), seen| (count + 1, tries + u64::from(seen.tries)));
    round(ratio(float(tries), float(count)))
}

/// Seconds from the end of the storm to the first second from which on the requests of every
/// second were done at the first try.
fn healthy_after(requests: &[Seen]) -> Option<u64> {
    let healthy = |second: u64| {
        let since = BEFORE + STORM + Duration::from_secs(second);
        let came = |seen: &&Seen| seen.due >= since && seen.due < since + Duration::from_secs(1);
        let (count, well) = requests.iter().filter(came).fold((0, 0), |(count, well), seen| {
            (count + 1, well + u64::from(seen.tries == 1 && seen.done.is_some()))
        });
        float(well) >= HEALTHY * float(count)
    };
    let last_ill = (0..AFTER.as_secs()).rev().find(|second| !healthy(*second));
    let first = last_ill.map_or(0, |second| second + 1);
    (first < AFTER.as_secs()).then_some(first)
}

impl Shown for RetryStormFigures {
    const NAME: &'static str = "Retry storm";

    fn rows(sides: [&Self; 2]) -> Vec<Row> {
        let mut rows = vec![
            Row::rates("requests done a second, before", sides.map(|side| side.done_before)),
            Row::rates("requests done a second, in the storm", sides.map(|s| s.done_in_storm)),
            Row::rates("requests done a second, after it", sides.map(|side| side.done_after)),
            Row::texts("healthy again after the storm", sides.map(|side| side.healthy())),
            Row::texts("tries of a request", sides.map(|side| format!("{:.1}", side.tries))),
            Row::counts("tries refused", sides.map(|side| side.refused)),
            Row::counts("tries that took too long", sides.map(|side| side.late)),
            Row::texts(
                "queries answered for nothing",
                sides.map(|side| format!("{:.0} %", side.wasted_percent)),
            ),
            Row::counts("requests never done", sides.map(|side| side.given_up)),
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
        format!(
            "Retry storm. The server can do {CAPACITY} requests a second; in the storm {} were \
             done without Forebay and {} with it, and {:.0} % and {:.0} % of the queries that the \
             server answered were for nothing. After the load had fallen to half of what the \
             server can do, {} without Forebay and {} with it. The p99 of a login was {} and {} \
             ({}).{}",
            rate(without.done_in_storm),
            rate(with.done_in_storm),
            without.wasted_percent,
            with.wasted_percent,
            without.recovery(),
            with.recovery(),
            milliseconds(logins[0]),
            milliseconds(logins[1]),
            slower(logins),
            with.verdicts(),
        )
    }
}

impl RetryStormFigures {
    fn healthy(&self) -> String {
        match self.healthy_after_s {
            Some(seconds) => format!("{seconds} s"),
            None => format!("not in {} s", AFTER.as_secs()),
        }
    }

    /// Who turned callers away, as a sentence of its own.
    fn verdicts(&self) -> String {
        if self.verdicts.is_empty() {
            return String::new();
        }
        let each: Vec<_> =
            self.verdicts.iter().map(|(policy, times)| format!("{policy} {times}")).collect();
        format!(" Forebay turned callers away for: {}.", each.join(", "))
    }

    fn recovery(&self) -> String {
        match self.healthy_after_s {
            Some(0) => "every request was done at its first try at once".to_owned(),
            Some(seconds) => format!("requests were done at their first try after {seconds} s"),
            None => format!("it did not recover within {} s", AFTER.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(due: Duration, tries: u32, took: Option<Duration>) -> Seen {
        Seen { due, tries, done: took.map(|took| due + took) }
    }

    #[test]
    fn what_is_done_counts_in_the_second_in_which_it_was_done() {
        let (late, soon) = (Duration::from_secs(1), Duration::from_millis(1));
        let requests = [
            seen(BEFORE - soon, 1, Some(soon)),
            seen(BEFORE, 1, Some(STORM)),
            seen(BEFORE, 1, Some(late)),
            seen(BEFORE, 4, None),
        ];
        let storm = done_a_second(&requests, BEFORE, STORM);
        assert_eq!(storm, round(2.0 / STORM.as_secs_f64()));
        assert_eq!(done_a_second(&requests, Duration::ZERO, BEFORE), 0.0);
        assert_eq!(tries(&requests), 2.0);
        assert_eq!(tries(&[]), 0.0);
    }

    #[test]
    fn it_is_healthy_from_the_second_on_after_which_no_first_try_fails() {
        let took = Some(Duration::from_millis(500));
        let second = |second| BEFORE + STORM + Duration::from_secs(second);
        let all = |ill: &[u64]| {
            (0..AFTER.as_secs())
                .map(|at| if ill.contains(&at) { (at, 2) } else { (at, 1) })
                .map(|(at, tries)| seen(second(at), tries, took))
                .collect::<Vec<_>>()
        };
        assert_eq!(healthy_after(&all(&[])), Some(0));
        assert_eq!(healthy_after(&all(&[0, 3])), Some(4));
        assert_eq!(healthy_after(&all(&[AFTER.as_secs() - 1])), None);
        let mut never_done = all(&[]);
        never_done[5].done = None;
        assert_eq!(healthy_after(&never_done), Some(6));
    }

    #[test]
    fn work_for_nothing_is_what_no_done_request_had() {
        let took = Some(Duration::from_millis(500));
        let storm = RetryStorm {
            requests: vec![seen(BEFORE, 1, took), seen(BEFORE, 4, None)],
            queries: 40,
            refused: 1,
            late: 3,
            logins: Default::default(),
        };
        let figures = RetryStormFigures::of(&storm, 20, BTreeMap::new());
        assert_eq!((figures.wasted_percent, figures.given_up), (75.0, 1));
        assert_eq!((figures.refused, figures.late, figures.server_connections), (1, 3, 20));
    }
}
