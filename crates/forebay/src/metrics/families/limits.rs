//! The rate limits of each service; what one tenant may is in the answers to that tenant.

use std::fmt;

use forebay_http::HttpSnapshot;
use forebay_pool::rate::LimitSnapshot;

use super::http::to;
use super::{Sheet, with};

pub(super) fn limits(http: &HttpSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let all = &http.destinations;
    let shown = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
    sheet.counter(
        "forebay_http_limit_admitted",
        "Calls within all rate limits",
        all.iter().map(|d| (to(d), d.limits.admitted)),
    )?;
    sheet.counter(
        "forebay_http_limit_refused",
        "Calls beyond a rate limit; with mode observe they went out all the same",
        all.iter().flat_map(|d| {
            d.limits.refused.iter().map(|refused| {
                let labels = with(to(d), "scope", refused.scope.as_str());
                let labels = with(labels, "cause", refused.cause);
                (with(labels, "mode", d.limits.mode.name()), refused.count)
            })
        }),
    )?;
    sheet.counter(
        "forebay_http_limit_tokens_used",
        "Tokens that calls used, as their answers say, else as was reserved",
        all.iter().map(|d| (to(d), d.limits.tokens_used)),
    )?;
    let limits = || {
        all.iter().flat_map(|d| {
            let limits = d.limits.limits.iter();
            limits.map(|limit| (with(to(d), "unit", limit.unit.as_str()), limit))
        })
    };
    let mut gauge = |name: &str, help: &str, value: fn(&LimitSnapshot) -> u64| {
        sheet.gauge(name, help, limits().map(|(labels, limit)| (labels, shown(value(limit)))))
    };
    gauge("forebay_http_limit", "What may be asked in a window, by everybody together", |l| {
        l.limit
    })?;
    gauge("forebay_http_limit_remaining", "What could be asked now", |l| l.remaining)?;
    gauge("forebay_http_limit_reserved", "What calls under way have reserved", |l| l.reserved)?;
    sheet.gauge(
        "forebay_http_announced_remaining",
        "What a service says is left for everybody's credential",
        all.iter().flat_map(|d| {
            let announced = d.limits.announced.iter();
            announced.map(|a| (with(to(d), "unit", a.unit.as_str()), shown(a.left)))
        }),
    )?;
    sheet.gauge(
        "forebay_http_resting",
        "Whether a service asked to be left alone for a while",
        all.iter().map(|d| (to(d), u32::from(d.limits.rests > 0.0))),
    )?;
    sheet.gauge(
        "forebay_http_limited_tenants",
        "Tenants that are at a limit of their own",
        all.iter().map(|d| (to(d), d.limits.tenants_limited)),
    )
}
