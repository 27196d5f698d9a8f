//! What only HTTP has: its pools by OpenTelemetry's names, calls and tokens.

use std::fmt;

use forebay_http::HttpSnapshot;
use forebay_http::stats::DestinationSnapshot;

use super::{Labels, Sheet, services, with};
use crate::metrics::sheet::Spread;

/// OpenTelemetry, "Semantic conventions for HTTP metrics", HTTP client.
pub(super) fn service_clients(http: &HttpSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    services::open(http, sheet)?;
    sheet.gauge(
        "http_client_active_requests",
        "Calls in flight; server_address is the name of the destination",
        http.destinations
            .iter()
            .map(|to| (vec![("server_address", &*to.destination)], to.in_flight)),
    )
}

/// The labels of a service.
pub(super) fn to(destination: &DestinationSnapshot) -> Labels<'_> {
    vec![("destination", &*destination.destination)]
}

pub(super) fn calls(http: &HttpSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let all = &http.destinations;
    sheet.count(
        "forebay_http_clients_refused",
        "Connections from agents that were turned away at max_clients",
        http.clients_refused,
    )?;
    sheet.counter(
        "forebay_http_answers",
        "Answers of services by the first digit of their status",
        all.iter().flat_map(|d| {
            [
                ("2xx", d.answers.success),
                ("3xx", d.answers.redirect),
                ("4xx", d.answers.client_error),
                ("5xx", d.answers.server_error),
            ]
            .map(|(status, count)| (with(to(d), "status", status), count))
        }),
    )?;
    let nowhere = http.refusals.iter().map(|r| (vec![("destination", "")], r));
    let refusals = nowhere.chain(all.iter().flat_map(|d| d.refusals.iter().map(|r| (to(d), r))));
    sheet.counter(
        "forebay_http_refusals",
        "Calls that Forebay answered itself, by reason",
        refusals.map(|(labels, refusal)| (with(labels, "reason", refusal.reason), refusal.count)),
    )?;
    let mut counter = |name: &str, help: &str, value: fn(&DestinationSnapshot) -> u64| {
        sheet.counter(name, help, all.iter().map(|d| (to(d), value(d))))
    };
    counter("forebay_http_abandoned", "Calls whose client left", |d| d.abandoned)?;
    counter("forebay_http_cut_short", "Answers that broke off or paused", |d| d.cut_short)?;
    counter("forebay_http_resent", "Calls sent again, unsent before", |d| d.resent)?;
    counter("forebay_http_throttled", "Answers of services that say too many (429)", |d| {
        d.throttled
    })?;
    counter("forebay_http_hints_ignored", "Hints of agents that cannot be meant", |d| {
        d.hints_ignored
    })?;
    counter("forebay_token_exchanges", "Tokens that were fetched", |d| d.token_exchanges)?;
    counter("forebay_token_failures", "Token exchanges that failed", |d| d.token_failures)?;
    sheet.number("forebay_tokens", "Tokens held", http.cached_tokens)?;
    sheet.spread(
        "forebay_http_first_byte",
        "From sending a call to the first byte of its answer",
        all.iter().map(|d| (to(d), Spread::of(&d.first_byte))),
    )?;
    sheet.spread(
        "forebay_http_call",
        "From a call's arrival to the end of its answer",
        all.iter().map(|d| (to(d), Spread::of(&d.duration))),
    )?;
    let features = || {
        all.iter().flat_map(|d| {
            d.features.iter().map(|feature| (with(to(d), "feature", &feature.feature), feature))
        })
    };
    sheet.counter(
        "forebay_http_feature_calls",
        "Calls by feature",
        features().map(|(labels, feature)| (labels, feature.calls)),
    )?;
    sheet.seconds_total(
        "forebay_http_feature",
        "Time spent in calls by feature",
        features().map(|(labels, feature)| (labels, feature.seconds)),
    )
}
