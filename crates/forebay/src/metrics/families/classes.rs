//! The workload classes of each pool: seats, lines, and what their policies decide.

use std::fmt;

use forebay_pool::policy::Policy;
use forebay_pool::stats::ClassSnapshot;

use super::{Labels, Pools, Sheet, of, with};
use crate::metrics::sheet::Spread;

pub(super) fn classes(pools: &Pools<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    let all: Vec<_> = pools
        .iter()
        .flat_map(|(gateway, pool)| pool.classes.iter().map(move |class| (*gateway, *pool, class)))
        .map(|(gateway, pool, class)| {
            (with(of(gateway, pool), "class", class.class.as_str()), class)
        })
        .collect();
    seats(&all, sheet)?;
    lines(&all, sheet)?;
    load(&all, sheet)?;
    tries(&all, sheet)?;
    policies(&all, sheet)
}

/// Classes with their labels.
type Classes<'s> = [(Labels<'s>, &'s ClassSnapshot)];

/// One sample of each class.
fn each<'a, 's, V: 'a>(
    all: &'a Classes<'s>,
    value: fn(&ClassSnapshot) -> V,
) -> impl Iterator<Item = (Labels<'s>, V)> + 'a {
    all.iter().map(move |(labels, class)| (labels.clone(), value(class)))
}

/// Several samples of each class, told apart by the label `name`.
fn by<'a, 's, V: 'a, const N: usize>(
    all: &'a Classes<'s>,
    name: &'static str,
    values: fn(&ClassSnapshot) -> [(&'static str, V); N],
) -> impl Iterator<Item = (Labels<'s>, V)> + 'a {
    all.iter().flat_map(move |(labels, class)| {
        values(class).map(|(label, value)| (with(labels.clone(), name, label), value))
    })
}

fn seats(all: &Classes<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    let mut gauge = |name: &str, help: &str, value: fn(&ClassSnapshot) -> u32| {
        sheet.gauge(name, help, each(all, value))
    };
    gauge("forebay_class_guarantee", "Connections no other class can take", |c| c.guarantee)?;
    gauge("forebay_class_ceiling", "Connections a class never exceeds", |c| c.ceiling)?;
    gauge(
        "forebay_class_weight",
        "Part of a class of what is above the guarantees, against the other classes' weights",
        |c| c.weight,
    )?;
    gauge("forebay_class_leased", "Connections a class has on lease", |c| c.leased)?;
    gauge("forebay_class_waiting", "Callers of a class that wait", |c| c.waiting)
}

fn lines(all: &Classes<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    let mut counter = |name: &str, help: &str, value: fn(&ClassSnapshot) -> u64| {
        sheet.counter(name, help, each(all, value))
    };
    counter("forebay_class_checkouts", "Leases given to a class", |c| c.checkouts)?;
    counter("forebay_class_waited", "Leases that had to be waited for", |c| c.waited)?;
    counter("forebay_class_abandoned", "Callers who left while they waited", |c| c.abandoned)?;
    counter(
        "forebay_class_deadlocks",
        "Callers who failed because requests waited for each other in a circle",
        |c| c.deadlocks,
    )?;
    counter("forebay_class_long_holds", "Leases that lasted longer than the hold limit", |c| {
        c.long_holds
    })?;
    sheet.counter(
        "forebay_class_rejected",
        "Callers that got no connection, by reason",
        by(all, "reason", rejected),
    )?;
    sheet.spread(
        "forebay_class_wait",
        "How long callers of a class waited for a connection, zero included",
        all.iter().map(|(labels, class)| (labels.clone(), Spread::of(&class.wait))),
    )?;
    sheet.spread(
        "forebay_class_hold",
        "How long a class had its connections on lease",
        all.iter().map(|(labels, class)| (labels.clone(), Spread::of(&class.hold))),
    )
}

/// Who was told no, by whatever. Admission and lending hold back and tell nobody.
fn rejected(class: &ClassSnapshot) -> [(&'static str, u64); 9] {
    let refused = |policy| {
        let counted = class.policies.iter().find(|counted| counted.policy == policy);
        (policy.name(), counted.map_or(0, |counted| counted.acted))
    };
    [
        ("timed_out", class.timed_out),
        ("queue_full", class.queue_full),
        ("failed", class.failed),
        ("deadlock", class.deadlocks),
        refused(Policy::Deadline),
        refused(Policy::Shedding),
        refused(Policy::Freshness),
        refused(Policy::Retries),
        refused(Policy::Breaker),
    ]
}

fn load(all: &Classes<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.gauge(
        "forebay_class_requests",
        "Requests of a class that are under way",
        each(all, |c| c.under_way),
    )?;
    let mut measure = |name: &str, help: &str, value: fn(&ClassSnapshot) -> f64| {
        sheet.measure(name, help, each(all, value))
    };
    measure(
        "forebay_class_demand",
        "Connections that the requests under way need on average, as far as learnt",
        |c| c.demand,
    )?;
    measure(
        "forebay_class_utilisation",
        "What is in use of what a class can get, 0 to 1, averaged over a second",
        |c| c.utilisation,
    )?;
    measure(
        "forebay_class_pressure",
        "How close a class is to shedding: 0, 0.5 where it begins, 1 when all is shed that can be",
        |c| c.pressure,
    )
}

fn tries(all: &Classes<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.counter(
        "forebay_class_tries",
        "First tries, retries within the budget, beyond it, and beyond the tries of an operation",
        by(all, "outcome", |class| {
            let tries = class.tries;
            [
                ("first", tries.first),
                ("retry", tries.retries),
                ("over_budget", tries.over_budget),
                ("over_tries", tries.over_tries),
            ]
        }),
    )?;
    sheet.gauge(
        "forebay_class_breaker",
        "1 for the state the breaker of a class is in: closed, open or half-open",
        by(all, "state", |class| {
            ["closed", "open", "half-open"]
                .map(|state| (state, u32::from(class.breaker.state == state)))
        }),
    )?;
    sheet.counter(
        "forebay_class_breaker_openings",
        "How often the breaker of a class opened",
        each(all, |class| class.breaker.openings),
    )
}

fn policies(all: &Classes<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    let each = || {
        all.iter().flat_map(|(labels, class)| {
            class
                .policies
                .iter()
                .map(|policy| (with(labels.clone(), "policy", policy.policy.name()), policy))
        })
    };
    sheet.gauge(
        "forebay_policy_mode",
        "1 for the mode of a policy: off, observe or enforce",
        each().map(|(labels, policy)| (with(labels, "mode", policy.mode.name()), 1)),
    )?;
    sheet.counter(
        "forebay_policy_decisions",
        "What a policy decided against somebody: acted, or observed what it would have done",
        each().flat_map(|(labels, policy)| {
            [("acted", policy.acted), ("observed", policy.observed)]
                .map(|(outcome, count)| (with(labels.clone(), "outcome", outcome), count))
        }),
    )
}
