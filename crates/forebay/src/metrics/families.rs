//! Every metric family, in the order in which it is shown. Their names are part of what we
//! promise to users.

use std::fmt;

use forebay_http::HttpSnapshot;
use forebay_http::stats::DestinationSnapshot;
use forebay_pool::overlap::{HoldKind, OverlapCount};
use forebay_pool::rate::LimitSnapshot;
use forebay_pool::stats::{ClassSnapshot, Closed, Health};
use forebay_pool::{Mode, Snapshot};
use forebay_postgres::PostgresSnapshot;
use prometheus_client::encoding::DescriptorEncoder;

use super::sheet::{Labels, Sheet, Spread};
use crate::view::{Phase, ProgramSnapshot};

/// OpenTelemetry's label for the name of a pool.
const POOL: &str = "db_client_connection_pool_name";

pub(super) fn encode(program: &ProgramSnapshot, encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let mut sheet = Sheet(encoder);
    let databases: Vec<_> = program.postgres.iter().flat_map(|p| &p.pools).collect();
    let services: Vec<_> = program.http.iter().flat_map(|h| &h.pools).collect();
    let pools: Vec<_> = databases
        .iter()
        .map(|pool| ("postgres", *pool))
        .chain(services.iter().map(|pool| ("http", *pool)))
        .collect();
    whole(program, &mut sheet)?;
    database_clients(&databases, &mut sheet)?;
    if let Some(postgres) = &program.postgres {
        sessions(postgres, &mut sheet)?;
    }
    connections(&pools, &mut sheet)?;
    classes(&pools, &mut sheet)?;
    if let Some(http) = &program.http {
        service_clients(&services, http, &mut sheet)?;
        calls(http, &mut sheet)?;
        limits(http, &mut sheet)?;
    }
    overlaps(&program.overlaps, &mut sheet)
}

fn whole(program: &ProgramSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let version = vec![("version", program.version)];
    sheet.gauge("forebay_build_info", "The version of Forebay", [(version, 1)])?;
    sheet.seconds_now("forebay_uptime", "How long Forebay has run", program.uptime)?;
    sheet.number(
        "forebay_ready",
        "Whether new work may come, as /readyz says",
        u32::from(program.not_ready.is_empty()),
    )?;
    sheet.number(
        "forebay_draining",
        "Whether Forebay was told to stop and finishes what runs",
        u32::from(program.phase == Phase::Draining),
    )?;
    let clients = [
        program.postgres.as_ref().map(|p| (vec![("gateway", "postgres")], p.clients)),
        program.http.as_ref().map(|h| (vec![("gateway", "http")], h.clients)),
    ];
    sheet.gauge("forebay_clients", "Connections from clients", clients.into_iter().flatten())
}

/// OpenTelemetry, "Semantic conventions for database client metrics", connection pools.
fn database_clients(pools: &[&Snapshot], sheet: &mut Sheet<'_>) -> fmt::Result {
    fn name(pool: &Snapshot) -> Labels<'_> {
        vec![(POOL, &*pool.destination)]
    }
    let state = |pool, state| [name(pool), vec![("db_client_connection_state", state)]].concat();
    sheet.gauge(
        "db_client_connection_count",
        "Connections to PostgreSQL; those being opened or cleaned count as neither",
        pools.iter().flat_map(|pool| {
            [(state(pool, "idle"), pool.idle), (state(pool, "used"), pool.leased)]
        }),
    )?;
    sheet.gauge(
        "db_client_connection_max",
        "Connections to PostgreSQL, at the most",
        pools.iter().map(|pool| (name(pool), pool.budget)),
    )?;
    sheet.gauge(
        "db_client_connection_pending_requests",
        "Callers that wait for a connection",
        pools.iter().map(|pool| (name(pool), pool.classes.iter().map(|c| c.waiting).sum())),
    )?;
    sheet.counter(
        "db_client_connection_timeouts",
        "Callers that waited for a connection until their deadline",
        pools.iter().map(|pool| (name(pool), pool.classes.iter().map(|c| c.timed_out).sum())),
    )?;
    sheet.spread(
        "db_client_connection_create_time",
        "How long it took to open a connection",
        pools.iter().map(|pool| (name(pool), Spread::of(&pool.connect))),
    )?;
    sheet.spread(
        "db_client_connection_wait_time",
        "How long callers waited for a connection, zero included",
        pools.iter().map(|pool| (name(pool), Spread::all(pool.classes.iter().map(|c| &c.wait)))),
    )?;
    sheet.spread(
        "db_client_connection_use_time",
        "How long connections were on lease",
        pools.iter().map(|pool| (name(pool), Spread::all(pool.classes.iter().map(|c| &c.hold)))),
    )
}

type Pools<'s> = [(&'static str, &'s Snapshot)];

fn of<'s>(gateway: &'static str, pool: &'s Snapshot) -> Labels<'s> {
    vec![("gateway", gateway), ("destination", &*pool.destination)]
}

fn with<'s>(mut labels: Labels<'s>, name: &'static str, value: &'s str) -> Labels<'s> {
    labels.push((name, value));
    labels
}

fn connections(pools: &Pools<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.gauge(
        "forebay_budget",
        "Connections we may hold to a destination",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), pool.budget)),
    )?;
    sheet.gauge(
        "forebay_budget_wanted",
        "Connections that the configuration, a hand, the timetable or demand asks for, or that \
         the destination bears, by whom",
        pools.iter().flat_map(|(gateway, pool)| {
            let wanted = &pool.wanted;
            [
                ("configuration", Some(wanted.configured)),
                ("hand", wanted.by_hand),
                ("timetable", wanted.window),
                ("demand", wanted.advice.map(|advice| advice.budget)),
                ("evidence", wanted.borne),
            ]
            .into_iter()
            .filter_map(|(by, budget)| Some((with(of(gateway, pool), "by", by), budget?)))
        }),
    )?;
    sheet.gauge(
        "forebay_capacity",
        "Connections a destination says it can take, once that is known",
        pools.iter().filter_map(|(gateway, pool)| Some((of(gateway, pool), pool.capacity?))),
    )?;
    sheet.gauge(
        "forebay_ai_ceiling",
        "Connections that all AI classes may have together",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), pool.ai_ceiling)),
    )?;
    sheet.gauge(
        "forebay_connections",
        "Connections to a destination by state",
        pools.iter().flat_map(|(gateway, pool)| {
            [
                ("leased", pool.leased),
                ("idle", pool.idle),
                ("opening", pool.opening),
                ("cleaning", pool.cleaning),
            ]
            .map(|(state, count)| (with(of(gateway, pool), "state", state), count))
        }),
    )?;
    sheet.gauge(
        "forebay_warm",
        "Whether the warm-up of a destination is done",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), u32::from(pool.warm))),
    )?;
    sheet.gauge(
        "forebay_health",
        "1 for the state a destination is in: unknown, up, busy or down",
        pools.iter().flat_map(|(gateway, pool)| {
            [
                ("unknown", Health::Unknown),
                ("up", Health::Up),
                ("busy", Health::Busy),
                ("down", Health::Down),
            ]
            .map(|(name, health)| {
                (with(of(gateway, pool), "health", name), u32::from(pool.health == health))
            })
        }),
    )?;
    sheet.counter(
        "forebay_connections_opened",
        "Connections opened to a destination",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), pool.opened)),
    )?;
    sheet.counter(
        "forebay_connection_failures",
        "Attempts to open a connection that failed",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), pool.open_failures)),
    )?;
    sheet.counter(
        "forebay_connections_closed",
        "Connections closed, by reason",
        pools.iter().flat_map(|(gateway, pool)| {
            closed(pool.closed)
                .map(|(reason, count)| (with(of(gateway, pool), "reason", reason), count))
        }),
    )?;
    sheet.spread(
        "forebay_connect",
        "How long it took to open a connection",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), Spread::of(&pool.connect))),
    )
}

fn closed(closed: Closed) -> [(&'static str, u64); 7] {
    let Closed { idle, lifetime, broken, unclean, evicted, renewed, surplus } = closed;
    [
        ("idle", idle),
        ("lifetime", lifetime),
        ("broken", broken),
        ("unclean", unclean),
        ("evicted", evicted),
        ("renewed", renewed),
        ("surplus", surplus),
    ]
}

fn classes(pools: &Pools<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    let all = || {
        pools.iter().flat_map(|(gateway, pool)| {
            pool.classes
                .iter()
                .map(|class| (with(of(gateway, pool), "class", class.class.as_str()), class))
        })
    };
    let mut gauge = |name: &str, help: &str, value: fn(&ClassSnapshot) -> u32| {
        sheet.gauge(name, help, all().map(|(labels, class)| (labels, value(class))))
    };
    gauge("forebay_class_guarantee", "Connections no other class can take", |c| c.guarantee)?;
    gauge("forebay_class_ceiling", "Connections a class never exceeds", |c| c.ceiling)?;
    gauge("forebay_class_leased", "Connections a class has on lease", |c| c.leased)?;
    gauge("forebay_class_waiting", "Callers of a class that wait", |c| c.waiting)?;
    let mut counter = |name: &str, help: &str, value: fn(&ClassSnapshot) -> u64| {
        sheet.counter(name, help, all().map(|(labels, class)| (labels, value(class))))
    };
    counter("forebay_class_checkouts", "Leases given to a class", |c| c.checkouts)?;
    counter("forebay_class_waited", "Leases that had to be waited for", |c| c.waited)?;
    counter("forebay_class_abandoned", "Callers who left while they waited", |c| c.abandoned)?;
    sheet.counter(
        "forebay_class_rejected",
        "Callers that got no connection, by reason",
        all().flat_map(|(labels, class)| {
            [
                ("timed_out", class.timed_out),
                ("queue_full", class.queue_full),
                ("failed", class.failed),
            ]
            .map(|(reason, count)| (with(labels.clone(), "reason", reason), count))
        }),
    )?;
    sheet.spread(
        "forebay_class_wait",
        "How long callers of a class waited for a connection, zero included",
        all().map(|(labels, class)| (labels, Spread::of(&class.wait))),
    )?;
    sheet.spread(
        "forebay_class_hold",
        "How long a class had its connections on lease",
        all().map(|(labels, class)| (labels, Spread::of(&class.hold))),
    )
}

fn sessions(postgres: &PostgresSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.count(
        "forebay_logins_refused",
        "Applications that were sent away before they had a session",
        postgres.refused,
    )?;
    sheet.count("forebay_cancel_requests", "Cancel requests received", postgres.cancels)?;
    sheet.counter(
        "forebay_pins",
        "Applications that kept a server connection beyond a transaction, by reason",
        postgres.pins.iter().map(|(reason, count)| (vec![("reason", *reason)], *count)),
    )
}

/// OpenTelemetry, "Semantic conventions for HTTP metrics", HTTP client.
fn service_clients(pools: &[&Snapshot], http: &HttpSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let state = |pool: &&'_ Snapshot, state| {
        let address = pool.destination.to_string();
        (address, state)
    };
    let open: Vec<_> = pools
        .iter()
        .flat_map(|pool| [(state(pool, "active"), pool.leased), (state(pool, "idle"), pool.idle)])
        .collect();
    sheet.gauge(
        "http_client_open_connections",
        "Connections to services; server_address is the name of the destination",
        open.iter().map(|((address, state), count)| {
            (vec![("http_connection_state", *state), ("server_address", address)], *count)
        }),
    )?;
    sheet.gauge(
        "http_client_active_requests",
        "Calls in flight; server_address is the name of the destination",
        http.destinations
            .iter()
            .map(|to| (vec![("server_address", &*to.destination)], to.in_flight)),
    )
}

fn to(destination: &DestinationSnapshot) -> Labels<'_> {
    vec![("destination", &*destination.destination)]
}

fn calls(http: &HttpSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
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

/// Rate limits; what one tenant may is in the answers to that tenant, not here.
fn limits(http: &HttpSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
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
                (with(labels, "mode", mode(d.limits.mode)), refused.count)
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

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Observe => "observe",
        Mode::Enforce => "enforce",
    }
}

fn overlaps(counts: &[OverlapCount], sheet: &mut Sheet<'_>) -> fmt::Result {
    fn labels(count: &OverlapCount) -> Labels<'_> {
        let kind = match count.kind {
            HoldKind::Held => "held",
            HoldKind::Parked => "parked",
            HoldKind::Deferred => "deferred",
        };
        vec![("feature", &*count.feature), ("destination", &*count.destination), ("kind", kind)]
    }
    sheet.counter(
        "forebay_overlaps",
        "Transactions that were open and idle during an outbound call of their request",
        counts.iter().map(|count| (labels(count), count.begun)),
    )?;
    sheet.seconds_total(
        "forebay_overlap",
        "Time that transactions were open and idle during outbound calls that ended",
        counts.iter().map(|count| (labels(count), count.seconds)),
    )
}
