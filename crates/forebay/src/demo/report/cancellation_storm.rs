//! What the cancellation storm shows: what is left of a pool after it.

use std::time::Duration;

use serde::Serialize;

use super::shown::{Row, Shown};
use super::table::rate;
use super::{LoginFigures, float, ratio, round};
use crate::demo::cancellation_storm::{AFTER, BEFORE, CancellationStorm, STORM};

/// Agents begin and finish in these parts of the calm.
const RAMP: Duration = Duration::from_secs(1);
/// The pool is whole when so much is done again, of what was done before.
const WHOLE: f64 = 0.9;
/// In so long a time, which moves by a tenth of it.
const WINDOW: Duration = Duration::from_secs(1);

/// One side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CancellationStormFigures {
    /// Tasks done a second before anybody was cancelled.
    pub(crate) tasks_before: f64,
    /// Tasks done a second in the storm.
    pub(crate) tasks_in_storm: f64,
    /// Tasks done a second at the end.
    pub(crate) tasks_at_end: f64,
    /// Tasks cancelled.
    pub(crate) cancelled: u64,
    /// Tasks that failed, though nobody had cancelled them.
    pub(crate) failed: u64,
    /// Seconds from the end of the storm until as many tasks were done as before; none: never.
    pub(crate) whole_after_s: Option<f64>,
    /// Sessions idle in a transaction when nobody worked any more.
    pub(crate) idle_in_transaction: u64,
    /// Sessions at work for nobody then.
    pub(crate) ghosts: u64,
    /// Server connections open at the same time, at the most.
    pub(crate) server_connections: u64,
}

impl CancellationStormFigures {
    /// One side of which `connections` were open at the most.
    pub(crate) fn of(seen: &CancellationStorm, connections: u64) -> Self {
        let a_second = |since, until| done_a_second(&seen.ends, since, until);
        let end = BEFORE + STORM + AFTER;
        Self {
            tasks_before: a_second(RAMP, BEFORE),
            tasks_in_storm: a_second(BEFORE, BEFORE + STORM),
            tasks_at_end: a_second(end - 2 * RAMP, end),
            cancelled: seen.cancelled,
            failed: seen.tasks.failed(),
            whole_after_s: whole_after(&seen.ends),
            idle_in_transaction: seen.left.idle_in_transaction,
            ghosts: seen.left.active,
            server_connections: connections,
        }
    }
}

/// Tasks that ended between these moments, for each second.
fn done_a_second(ends: &[Duration], since: Duration, until: Duration) -> f64 {
    let done = ends.iter().filter(|end| **end >= since && **end < until).count();
    round(ratio(float(done as u64), (until - since).as_secs_f64()))
}

/// From the end of the storm to the first window in which as much was done as before.
fn whole_after(ends: &[Duration]) -> Option<f64> {
    let wanted = done_a_second(ends, RAMP, BEFORE) * WHOLE;
    let step = WINDOW / 10;
    let storm = BEFORE + STORM;
    (0..)
        .map(|steps| step * steps)
        .take_while(|offset| *offset + WINDOW <= AFTER)
        .find(|offset| done_a_second(ends, storm + *offset, storm + *offset + WINDOW) >= wanted)
        .map(|offset| round(offset.as_secs_f64()))
}

impl Shown for CancellationStormFigures {
    const NAME: &'static str = "Cancellation storm";

    fn rows(sides: [&Self; 2]) -> Vec<Row> {
        vec![
            Row::rates("tasks a second, before", sides.map(|side| side.tasks_before)),
            Row::rates("tasks a second, in the storm", sides.map(|side| side.tasks_in_storm)),
            Row::rates("tasks a second, at the end", sides.map(|side| side.tasks_at_end)),
            Row::texts("pool whole again after the storm", sides.map(|side| side.whole())),
            Row::counts("tasks cancelled", sides.map(|side| side.cancelled)),
            Row::counts("tasks failed otherwise", sides.map(|side| side.failed)),
            Row::counts("left idle in a transaction", sides.map(|s| s.idle_in_transaction)),
            Row::counts("left at work for nobody", sides.map(|side| side.ghosts)),
            Row::counts("server connections, most", sides.map(|s| s.server_connections)),
        ]
    }

    fn logins(&self) -> Option<&LoginFigures> {
        None
    }

    fn words([without, with]: [&Self; 2]) -> String {
        format!(
            "Cancellation storm. {} tasks were cancelled half way without Forebay, and {} with \
             it; {} and {} connections were lost for it. Tasks a second went from {} before to {} \
             at the end without Forebay, and from {} to {} with it.",
            without.cancelled,
            with.cancelled,
            without.lost(),
            with.lost(),
            rate(without.tasks_before),
            rate(without.tasks_at_end),
            rate(with.tasks_before),
            rate(with.tasks_at_end),
        )
    }
}

impl CancellationStormFigures {
    fn whole(&self) -> String {
        match self.whole_after_s {
            Some(seconds) => format!("{seconds:.1} s"),
            None => format!("not in {} s", AFTER.as_secs()),
        }
    }

    fn lost(&self) -> u64 {
        self.idle_in_transaction + self.ghosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rate` ends a second between `since` and `until`.
    fn ends(rate: u32, since: Duration, until: Duration) -> impl Iterator<Item = Duration> {
        let every = Duration::from_secs(1) / rate;
        (0..).map(move |n| since + every * n).take_while(move |end| *end < until)
    }

    #[test]
    fn the_pool_is_whole_when_as_much_is_done_as_before() {
        let (storm, end) = (BEFORE + STORM, BEFORE + STORM + AFTER);
        let two = Duration::from_secs(2);
        let recovers: Vec<_> = ends(50, RAMP, BEFORE).chain(ends(50, storm + two, end)).collect();
        let after = whole_after(&recovers).unwrap();
        assert!((1.5..=2.0).contains(&after), "{after}");
        let never: Vec<_> = ends(50, RAMP, BEFORE).chain(ends(40, storm, end)).collect();
        assert_eq!(whole_after(&never), None);
        let always: Vec<_> = ends(50, RAMP, end).collect();
        assert_eq!(whole_after(&always), Some(0.0));
    }

    #[test]
    fn what_is_left_when_nobody_works_is_lost() {
        let (storm, end) = (BEFORE + STORM, BEFORE + STORM + AFTER);
        let seen = CancellationStorm {
            ends: ends(50, Duration::ZERO, BEFORE).chain(ends(10, storm, end)).collect(),
            cancelled: 30,
            left: crate::demo::watch::Sessions { open: 19, active: 1, idle_in_transaction: 16 },
            ..CancellationStorm::default()
        };
        let figures = CancellationStormFigures::of(&seen, 23);
        assert_eq!((figures.tasks_before, figures.tasks_in_storm), (50.0, 0.0));
        assert_eq!((figures.tasks_at_end, figures.lost()), (10.0, 17));
        assert_eq!((figures.whole_after_s, figures.server_connections), (None, 23));
    }
}
