//! Transactions that gave their connections back while they idled.

use std::fmt;

use forebay_postgres::{ParkingCounts, PostgresSnapshot};

use super::{Labels, Sheet};

pub(super) fn encode(postgres: &PostgresSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let all = || {
        let servers = postgres.parking.iter();
        servers.flat_map(|(server, parking)| parking.classes.iter().map(move |c| (server, c)))
    };
    fn of<'s>((server, counts): (&'s String, &'s ParkingCounts)) -> Labels<'s> {
        vec![
            ("gateway", "postgres"),
            ("destination", server.as_str()),
            ("class", counts.class.as_str()),
        ]
    }
    sheet.gauge(
        "forebay_parked",
        "Transactions that are parked: open, idle, and without a server connection",
        all().map(|one| (of(one), one.1.parked)),
    )?;
    let mut counter = |name, help, value: fn(&ParkingCounts) -> u64| {
        sheet.counter(name, help, all().map(|one| (of(one), value(one.1))))
    };
    counter("forebay_parks", "Transactions that were parked", |c| c.parks)?;
    counter(
        "forebay_parks_observed",
        "Transactions that could have been parked, where parking only observes",
        |c| c.could_park,
    )?;
    counter("forebay_parks_resumed", "Parked transactions that went on", |c| c.resumed)?;
    counter(
        "forebay_parks_lost",
        "Parked transactions that could not go on, and were told so (40001)",
        |c| c.lost,
    )?;
    sheet.seconds_total(
        "forebay_parked",
        "How long transactions were parked, of those that are no longer",
        all().map(|one| (of(one), one.1.seconds)),
    )?;
    sheet.seconds_total(
        "forebay_parks_observed",
        "How long transactions could have been parked, where parking only observes",
        all().map(|one| (of(one), one.1.could_seconds)),
    )?;
    sheet.counter(
        "forebay_parks_refused",
        "Idle transactions that were looked at and not parked, by reason",
        all().flat_map(|one| {
            let reasons = one.1.refusals.iter();
            reasons
                .map(move |(reason, times)| ([of(one), vec![("reason", *reason)]].concat(), *times))
        }),
    )?;
    let closed = postgres.parking.iter().filter(|(_, parking)| parking.closed.is_some());
    sheet.gauge(
        "forebay_parking_closed",
        "Servers at which nothing is parked, because the proof cannot be used there",
        closed.map(|(server, _)| (vec![("gateway", "postgres"), ("destination", server)], 1)),
    )
}
