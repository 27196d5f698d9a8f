//! A timetable of budgets: windows that begin as a cron expression says, in a time zone.
//!
//! Plain arithmetic on the wall clock's time, which is an argument. Always true: of windows
//! that overlap the largest budget counts, and outside of all of them none does.
//!
//! An expression is read on the calendar of its time zone. An hour that does not exist on
//! the day the clocks go forward begins where they have gone to; of an hour that exists
//! twice the first counts, so that a window begins once. A window's length is time that
//! passes: `10h` across a change of the clocks are ten hours still.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::class::{self, ClassName, ClassSettings};

/// Windows at the most.
const MOST: usize = 64;
/// The longest window.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// How far a calendar may run back or ahead when the clocks change.
const CHANGE_OF_CLOCKS: SignedDuration = SignedDuration::from_hours(3);
/// Moments that change nothing are passed over, so many at the most.
const PASSED_OVER: usize = 100;

/// A window of time with a budget of its own. Outside of all windows the configured budget
/// holds; of windows that overlap, the largest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSettings {
    /// When it begins: minute, hour, day of the month, month, day of the week, as in cron:
    /// `"0 8 * * MON-FRI"`.
    pub from: String,
    /// How long it lasts; ten hours stay ten hours when the clocks change.
    #[serde(rename = "for", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub length: Duration,
    /// Where its calendar hangs: a name such as `Europe/Berlin`. Default `UTC`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Connections we may hold meanwhile.
    pub budget: u32,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Why a timetable cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TimetableError {
    /// Which window, from 0; `None`: all of them together.
    pub window: Option<usize>,
    /// Which of its keys.
    pub key: &'static str,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

impl TimetableError {
    /// Where it is, below the key `timetable`: `timetable[1].from`.
    pub fn place(&self) -> String {
        self.window.map_or_else(
            || "timetable".to_owned(),
            |window| format!("timetable[{window}].{}", self.key),
        )
    }
}

/// Checks windows, and that the promises to `classes` can be kept within each of them.
///
/// # Errors
/// Which key of which window is wrong, and what to write instead.
pub fn check(
    windows: &[WindowSettings],
    classes: &[(ClassName, ClassSettings)],
    ai_share_percent: u8,
) -> Result<(), TimetableError> {
    Timetable::new(windows)?;
    for (number, window) in windows.iter().enumerate() {
        class::check(classes, window.budget, ai_share_percent).map_err(|error| TimetableError {
            window: Some(number),
            key: "budget",
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

/// Windows that were checked. The default has none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timetable {
    windows: Vec<Window>,
}

#[derive(Debug, Clone, PartialEq)]
struct Window {
    from: Cron,
    length: SignedDuration,
    zone: TimeZone,
    budget: u32,
}

/// What a timetable says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The budget; `None` outside of all windows.
    pub(crate) budget: Option<u32>,
    /// When it says something else; `None`: never.
    pub(crate) until: Option<Timestamp>,
}

impl Timetable {
    /// The timetable of these windows.
    ///
    /// # Errors
    /// Which key of which window is wrong, and what to write instead.
    pub fn new(settings: &[WindowSettings]) -> Result<Self, TimetableError> {
        if settings.len() > MOST {
            let reason = format!("{} windows are too many: write at most {MOST}", settings.len());
            return Err(TimetableError { window: None, key: "from", reason });
        }
        let windows = settings.iter().enumerate().map(|(number, settings)| {
            Window::new(settings).map_err(|(key, reason)| TimetableError {
                window: Some(number),
                key,
                reason,
            })
        });
        Ok(Self { windows: windows.collect::<Result<_, _>>()? })
    }

    /// Does it say nothing at any time?
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The largest budget of all windows.
    pub fn largest(&self) -> Option<u32> {
        self.windows.iter().map(|window| window.budget).max()
    }

    /// Where its first window's calendar hangs.
    pub(crate) fn zone(&self) -> Option<&TimeZone> {
        self.windows.first().map(|window| &window.zone)
    }

    /// What it says at `now`. A window counts `ahead` of its beginning, which is asked for
    /// its budget: so long opening takes, and the connections are there when it begins.
    pub(crate) fn at(&self, now: Timestamp, ahead: impl Fn(u32) -> Duration) -> Entry {
        let (budget, mut until) = self.look(now, &ahead);
        for _ in 0..PASSED_OVER {
            let Some(at) = until else { break };
            let (later, next) = self.look(at, &ahead);
            if later != budget {
                break;
            }
            until = next;
        }
        Entry { budget, until }
    }

    /// The budget at `now`, and the next moment at which a window begins or ends.
    fn look(
        &self,
        now: Timestamp,
        ahead: &impl Fn(u32) -> Duration,
    ) -> (Option<u32>, Option<Timestamp>) {
        let (mut budget, mut until) = (None, None);
        let mut may_change = |at: Timestamp| {
            until = Some(until.map_or(at, |other: Timestamp| other.min(at)));
        };
        for window in &self.windows {
            let mut is_open = false;
            let last = window.last(now).map(|begin| window.end(begin));
            if let Some(end) = last.filter(|end| *end > now) {
                is_open = true;
                may_change(end);
            }
            if let Some(begin) = window.next(now) {
                let early = begin.saturating_sub(ahead(window.budget)).unwrap_or(begin);
                if early <= now {
                    is_open = true;
                    may_change(window.end(begin));
                } else {
                    may_change(early);
                }
            }
            if is_open {
                budget = budget.max(Some(window.budget));
            }
        }
        (budget, until)
    }
}

impl Window {
    fn new(settings: &WindowSettings) -> Result<Self, (&'static str, String)> {
        let WindowSettings { from, length, time_zone, budget } = settings;
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(from).map_err(|error| {
            let expected = "expected minute, hour, day, month, weekday: `0 8 * * MON-FRI`";
            ("from", format!("`{from}` is no cron expression ({error}); {expected}"))
        })?;
        if cron.find_next_occurrence(&DateTime::constant(2000, 1, 1, 0, 0, 0, 0), true).is_err() {
            return Err(("from", format!("`{from}` names a day that never comes")));
        }
        if length.is_zero() {
            return Err(("for", "a window lasts for some time: write `10h`".to_owned()));
        }
        if *length > LONGEST {
            return Err(("for", "a window lasts for at most 366 days".to_owned()));
        }
        let zone = TimeZone::get(time_zone).map_err(|_| {
            let example = "write a name such as `Europe/Berlin` or `UTC`";
            ("time_zone", format!("`{time_zone}` is no time zone: {example}"))
        })?;
        if *budget == 0 {
            return Err(("budget", "at least one connection is needed".to_owned()));
        }
        let length = SignedDuration::try_from(*length)
            .map_err(|_| ("for", "a window lasts for at most 366 days".to_owned()))?;
        Ok(Self { from: cron, length, zone, budget: *budget })
    }

    fn end(&self, begin: Timestamp) -> Timestamp {
        begin.saturating_add(self.length).unwrap_or(Timestamp::MAX)
    }

    /// When it began for the last time, at `now` or before.
    fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let mut date = self.zone.to_datetime(now).checked_add(CHANGE_OF_CLOCKS).ok()?;
        loop {
            date = self.from.find_previous_occurrence(&date, false).ok()?;
            let begin = self.begins(date)?;
            if begin <= now {
                return Some(begin);
            }
        }
    }

    /// When it begins next, after `now`.
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let mut date = self.zone.to_datetime(now).checked_sub(CHANGE_OF_CLOCKS).ok()?;
        loop {
            date = self.from.find_next_occurrence(&date, false).ok()?;
            let begin = self.begins(date)?;
            if begin > now {
                return Some(begin);
            }
        }
    }

    /// The moment of `date` where the window's calendar hangs.
    fn begins(&self, date: DateTime) -> Option<Timestamp> {
        self.zone.to_ambiguous_timestamp(date).compatible().ok()
    }
}

#[cfg(test)]
mod tests;
