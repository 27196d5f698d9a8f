//! Who wishes for which budget: a person, the timetable, demand; and how much of it the
//! destination bears.
//!
//! Asks no clock: the moment and the wall clock's time are arguments. Always true: what a
//! person set by hand counts, until it is taken back; without any wish the configured budget
//! does. A forecast and evidence count only where they may act; else they are shown.

use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::event::Event;
use crate::evidence::Evidence;
use crate::forecast::{Advice, Forecast, HourOfWeek};
use crate::mode::Mode;
use crate::settings::PoolSettings;
use crate::stats::WantedSnapshot;
use crate::timetable::{Entry, Timetable};

/// How often wishes are looked at.
const ROUND: Duration = Duration::from_secs(1);
/// An advice is news when it differs from the last one that was by so much, in percent.
const NEWS: u64 = 10;

/// What the pool is like when its wishes are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Connections lent and waited for.
    pub(crate) demand: u32,
    /// The configured budget, and what of it is kept open.
    pub(crate) configured: u32,
    pub(crate) warm: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    by_hand: Option<u32>,
    timetable: Timetable,
    /// What the timetable says, since that time of the wall clock.
    entry: Option<(Timestamp, Entry)>,
    forecasting: Mode,
    forecast: Forecast,
    advice: Option<Advice>,
    /// The last advice that was news.
    told: Option<u32>,
    heeding: Mode,
    evidence: Evidence,
    /// What it bears, where that is less than is wanted.
    borne: Option<u32>,
    opens_per_second: Option<u32>,
    next: Instant,
}

impl Wishes {
    pub(crate) fn new(settings: &PoolSettings, now: Instant) -> Self {
        Self {
            by_hand: None,
            timetable: settings.timetable.clone(),
            entry: None,
            forecasting: settings.forecast,
            forecast: Forecast::default(),
            advice: None,
            told: None,
            heeding: settings.evidence,
            evidence: Evidence::default(),
            borne: None,
            opens_per_second: settings.opens_per_second,
            next: now,
        }
    }

    /// Other settings. What a person set by hand and what was learnt of demand stay.
    pub(crate) fn change(&mut self, settings: &PoolSettings, now: Instant) {
        if self.timetable != settings.timetable {
            self.timetable = settings.timetable.clone();
            self.entry = None;
        }
        if settings.forecast == Mode::Off {
            (self.advice, self.told) = (None, None);
        }
        self.forecasting = settings.forecast;
        if settings.evidence == Mode::Off {
            (self.evidence, self.borne) = (Evidence::default(), None);
        }
        self.heeding = settings.evidence;
        self.opens_per_second = settings.opens_per_second;
        self.next = now;
    }

    /// A person wants `budget`, or nothing any more.
    pub(crate) fn set_by_hand(&mut self, budget: Option<u32>) {
        self.by_hand = budget.map(|budget| budget.max(1));
    }

    /// The destination said that it is full.
    pub(crate) fn was_busy(&mut self) {
        if self.heeding != Mode::Off {
            self.evidence.was_busy();
        }
    }

    /// The cheapest frequent operation takes `p95` now ([`Evidence::executed`]).
    pub(crate) fn executed(&mut self, operation: u64, p95: Duration, now: Instant) {
        if self.heeding != Mode::Off {
            self.evidence.executed(operation, p95, now);
        }
    }

    /// Is a look due?
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Looks at all wishes; returns what is new.
    pub(crate) fn look(
        &mut self,
        seen: Seen,
        wall: SystemTime,
        now: Instant,
    ) -> smallvec::SmallVec<[Event; 2]> {
        self.next = now + ROUND;
        let mut news = smallvec::SmallVec::new();
        let Ok(wall) = Timestamp::try_from(wall) else { return news };
        if !self.timetable.is_empty() {
            news.extend(self.consult(wall).map(|budget| Event::Window { budget }));
        }
        if self.forecasting != Mode::Off {
            let hour = hour_of_week(wall, self.timetable.zone().unwrap_or(&TimeZone::UTC));
            self.forecast.observe(f64::from(seen.demand), hour, now);
            let most = seen.configured.max(self.timetable.largest().unwrap_or(0));
            let before = self.advice;
            self.advice = self.forecast.advice(hour, &(seen.warm.max(1)..=most));
            news.extend(self.advice.filter(|_| self.advice != before).and_then(|a| self.tell(a)));
        }
        if self.heeding != Mode::Off {
            let wanted = self.wish(seen.configured).unwrap_or(seen.configured);
            let borne = self.evidence.limit(wanted, now);
            let before = std::mem::replace(&mut self.borne, Some(borne).filter(|b| *b < wanted));
            if self.borne != before {
                news.push(Event::Borne { budget: self.borne });
            }
        }
        news
    }

    /// Asks the timetable, if it may say something else than before; returns what is new.
    fn consult(&mut self, wall: Timestamp) -> Option<Option<u32>> {
        let before = self.entry.map(|(_, entry)| entry);
        let still = self.entry.filter(|(since, entry)| {
            // A wall clock that went back is asked anew.
            *since <= wall && entry.until.is_none_or(|until| wall < until)
        });
        if still.is_some() {
            return None;
        }
        let pace = self.opens_per_second;
        let entry = self.timetable.at(wall, |budget| time_to_open(budget, pace));
        self.entry = Some((wall, entry));
        (before.and_then(|entry| entry.budget) != entry.budget).then_some(entry.budget)
    }

    fn tell(&mut self, advice: Advice) -> Option<Event> {
        let budget = u64::from(advice.budget);
        let is_near = self
            .told
            .is_some_and(|told| u64::from(told).abs_diff(budget) * 100 < u64::from(told) * NEWS);
        if is_near {
            return None;
        }
        self.told = Some(advice.budget);
        Some(Event::Advised { advice })
    }

    /// What is wanted before the destination is asked what it bears.
    fn wish(&self, configured: u32) -> Option<u32> {
        let window = self.entry.and_then(|(_, entry)| entry.budget);
        let foreseen = self.advice.filter(|_| self.forecasting == Mode::Enforce);
        self.by_hand.or(match (window, foreseen) {
            (window, None) => window,
            (None, Some(advice)) if self.timetable.is_empty() => Some(advice.budget),
            (None, Some(advice)) => Some(advice.budget.max(configured)),
            (Some(window), Some(advice)) => Some(window.max(advice.budget)),
        })
    }

    /// The budget that counts now, in place of the `configured` one.
    pub(crate) fn budget(&self, configured: u32) -> Option<u32> {
        let borne = self.borne.filter(|_| self.heeding == Mode::Enforce && self.by_hand.is_none());
        match (self.wish(configured), borne) {
            (wish, None) => wish,
            (wish, Some(borne)) => Some(wish.unwrap_or(configured).min(borne)),
        }
    }

    pub(crate) fn snapshot(&self, configured: u32) -> WantedSnapshot {
        WantedSnapshot {
            configured,
            by_hand: self.by_hand,
            window: self.entry.and_then(|(_, entry)| entry.budget),
            advice: self.advice,
            borne: self.borne,
        }
    }
}

/// How long opening `budget` connections takes at the pool's pace.
fn time_to_open(budget: u32, opens_per_second: Option<u32>) -> Duration {
    let rate = opens_per_second.unwrap_or((budget / 2).max(4)).max(1);
    Duration::from_secs_f64(f64::from(budget) / f64::from(rate))
}

fn hour_of_week(wall: Timestamp, zone: &TimeZone) -> HourOfWeek {
    let date = zone.to_datetime(wall);
    let day = date.weekday().to_monday_zero_offset();
    HourOfWeek::new(day.unsigned_abs(), date.hour().unsigned_abs())
}

#[cfg(test)]
mod tests;
