//! What a destination's settings are worth to the engine, which deals in seats: with HTTP/1.1
//! a connection is a seat, with HTTP/2 it has as many as it has streams.

use forebay_pool::timetable::{TimetableError, WindowSettings};
use forebay_pool::{Budget, ClassName, ClassSettings, PoolSettings, Timetable};
use http::Uri;

use crate::settings::{ConnectionSettings, DestinationSettings};
use crate::upstream::{Habits, InSeats};

/// The budget where nothing is known.
const BUDGET: u32 = 50;
/// What of a documented limit we take, in percent: the rest is for whoever else calls.
const OF_DOCUMENTED: u64 = 70;
/// Settings speak of the budget alone: HTTP knows no AI share unless classes say so.
pub(super) const AI_SHARE: u8 = 100;

/// Connections that may be open.
pub(super) fn budget(settings: &DestinationSettings) -> u32 {
    let documented = |limit: u32| {
        let ours = u64::from(limit) * OF_DOCUMENTED / 100;
        u32::try_from(ours).unwrap_or(u32::MAX).max(1)
    };
    settings.budget.or(settings.documented_limit.map(documented)).unwrap_or(BUDGET)
}

/// The classes, in their order.
pub(super) fn classes(settings: &DestinationSettings) -> Vec<(ClassName, ClassSettings)> {
    if settings.classes.is_empty() {
        let whole = ClassSettings::whole_budget(settings.checkout_timeout);
        return vec![(ClassName::new(ClassName::CORE), whole)];
    }
    settings.classes.iter().map(|(name, class)| (name.clone(), class.clone())).collect()
}

/// How connections are opened and kept.
pub(super) fn habits(settings: &DestinationSettings) -> Habits {
    let connections = &settings.connections;
    let windows = settings.timetable.iter().map(|window| window.budget);
    let budget = windows.fold(budget(settings), u32::max);
    Habits {
        protocol: connections.protocol,
        streams: connections.streams,
        concurrent_connects: connects(budget, connections),
        budget,
        lifetime: settings.lifetime,
        resolve_interval: connections.resolve_interval,
        probe_interval: settings.probe_interval,
        probe_path: connections.probe_path.as_deref().and_then(probe_path),
    }
}

fn connects(budget: u32, settings: &ConnectionSettings) -> u32 {
    settings.concurrent_connects.unwrap_or((budget / 4).clamp(2, 16))
}

/// A path that can be asked for.
pub(super) fn probe_path(text: &str) -> Option<Uri> {
    let path = text.parse::<Uri>().ok()?;
    (text.starts_with('/') && path.authority().is_none()).then_some(path)
}

/// The engine's settings for destination `name`, where a connection is worth so many seats.
///
/// # Errors
/// When the timetable cannot be followed.
pub(super) fn of(name: &str, settings: &DestinationSettings) -> Result<InSeats, TimetableError> {
    let timetable = Timetable::new(&settings.timetable)?;
    let (name, settings) = (name.to_owned(), settings.clone());
    Ok(Box::new(move |factor| {
        let windows: Vec<_> = settings
            .timetable
            .iter()
            .map(|window| WindowSettings {
                budget: window.budget.saturating_mul(factor),
                ..window.clone()
            })
            .collect();
        // It was read before, and only its figures are larger.
        let timetable = Timetable::new(&windows).unwrap_or_else(|_| timetable.clone());
        PoolSettings { timetable, ..pool_settings(&name, &settings, factor) }
    }))
}

fn pool_settings(name: &str, settings: &DestinationSettings, factor: u32) -> PoolSettings {
    let connections = budget(settings);
    let seats = connections.saturating_mul(factor);
    let connects = connects(connections, &settings.connections);
    // As many seats are kept warm as there would be warm connections of HTTP/1.1: as many
    // calls find one, and it takes fewer connections.
    let warm_up = match settings.warm_up {
        0 => 0,
        percent => u8::try_from((u32::from(percent) / factor).max(1)).unwrap_or(percent),
    };
    PoolSettings {
        forecast: settings.forecast,
        ai_share: AI_SHARE,
        classes: classes(settings),
        idle_ttl: settings.idle_ttl,
        lifetime: settings.lifetime,
        warm_up,
        probe_interval: settings.probe_interval,
        connect_timeout: settings.connect_timeout,
        queue_factor: settings.queue_factor,
        shed_from: settings.shed_from,
        hold_limit: settings.hold_limit,
        lend_max_hold: settings.lend_max_hold,
        // Services take connections more easily than databases, which start a process for
        // each: the engine's pace would leave half a budget closed in a storm's first second.
        opens_per_second: Some(seats.max(10)),
        concurrent_opens: Some(connects.saturating_mul(factor)),
        ..PoolSettings::new(name, Budget::Fixed(seats))
    }
}
