//! What fills our own views.

use forebay_pool::Snapshot;

use forebay_pool::stats::{Buckets, Health};
use forebay_postgres::console::Row;
use forebay_postgres::row;
use humantime_serde::re::humantime::format_rfc3339_millis;

use super::Program;
use crate::config::Loaded;
use crate::holds::{self, CallView};
use crate::pressure;
use crate::view::ProgramSnapshot;

/// Events that are shown unless somebody asks for more or fewer.
const EVENTS: usize = 50;

/// The rows of one of [`super::VIEWS`].
///
/// # Errors
/// What is wrong with `argument`.
pub(super) fn of(
    program: &Program,
    view: &str,
    argument: Option<&str>,
) -> Result<Vec<Row>, String> {
    let most = match argument {
        None => EVENTS,
        Some(text) => {
            text.parse().map_err(|_| format!("`{text}` is no number: write SHOW EVENTS 20"))?
        }
    };
    Ok(match view {
        "events" => events(program, most),
        "requests" => requests(program),
        "holds" => holds(program),
        "suspected_holds" => suspects(program),
        "hold_report" => features_holds(program),
        "operations" => operations(program),
        view => of_picture(&program.viewer.snapshot(), view),
    })
}

fn of_picture(picture: &ProgramSnapshot, view: &str) -> Vec<Row> {
    match view {
        "classes" => classes(picture),
        "overlaps" => overlaps(picture),
        "parking" => parking(picture),
        "unparkable" => unparkable(picture),
        "pins" => pins(picture),
        "features" => features(picture),
        "budgets" => budgets(picture),
        "pressure" => pressures(picture),
        "policies" => policies(picture),
        "destinations" => destinations(picture),
        "replication" => replication(picture),
        "listeners" => listeners(picture),
        _ => Vec::new(),
    }
}

/// All pools with their gateway's name.
fn pools(picture: &ProgramSnapshot) -> impl Iterator<Item = (&'static str, &Snapshot)> {
    let postgres = picture.postgres.iter().flat_map(|p| &p.pools).map(|pool| ("postgres", pool));
    postgres.chain(picture.http.iter().flat_map(|h| &h.pools).map(|pool| ("http", pool)))
}

fn classes(picture: &ProgramSnapshot) -> Vec<Row> {
    pools(picture)
        .flat_map(|(gateway, pool)| {
            pool.classes.iter().map(move |class| {
                row![
                    gateway,
                    &pool.destination,
                    class.class.as_str(),
                    format!("{:?}", class.kind).to_lowercase(),
                    class.guarantee,
                    class.ceiling,
                    class.leased,
                    class.waiting,
                    class.under_way,
                    class.checkouts,
                    class.waited,
                    class.timed_out,
                    class.queue_full,
                    class.failed,
                    class.abandoned,
                    class.deadlocks,
                    class.long_holds,
                    class.wait.p50,
                    class.wait.p99,
                    class.hold.p50,
                    class.hold.p99,
                    class.utilisation,
                    class.breaker.state,
                ]
            })
        })
        .collect()
}

fn requests(program: &Program) -> Vec<Row> {
    let requests = program.roster.under_way();
    requests.iter().map(|r| row![r.tenant(), r.trace().to_string(), r.held()]).collect()
}

fn holds(program: &Program) -> Vec<Row> {
    holds::holds(&program.overlaps)
        .iter()
        .map(|hold| {
            let calls: Vec<_> = hold.calls.iter().map(CallView::shown).collect();
            row![
                &hold.tenant,
                hold.trace.clone(),
                hold.kind.name(),
                hold.class.as_str(),
                &hold.feature,
                &hold.statement,
                &hold.database,
                &hold.user,
                hold.held,
                hold.calls.len(),
                &hold.application,
                hold.client,
                hold.idle,
                calls.join(", "),
            ]
        })
        .collect()
}

fn suspects(program: &Program) -> Vec<Row> {
    let suspects = program.suspects.now();
    suspects
        .iter()
        .map(|one| {
            let call = one.call.as_ref();
            row![
                one.client,
                &one.server,
                &one.database,
                &one.user,
                &one.application,
                one.seconds,
                one.statement.as_deref(),
                call.map(|call| &*call.destination),
                call.map(|call| &*call.operation),
                call.and_then(|call| call.subject.as_ref()).map(|subject| &**subject.name()),
                call.map(|call| call.basis.name()),
                call.map(|call| call.candidates),
            ]
        })
        .collect()
}

fn features_holds(program: &Program) -> Vec<Row> {
    let report = program.overlaps.report();
    report
        .features
        .iter()
        .map(|one| {
            let worst = one.worst.first();
            row![
                &one.feature,
                one.transactions_per_hour,
                one.before,
                one.hold,
                one.after,
                one.cost.connection_seconds_per_hour,
                one.cost.connections,
                one.parking_saves.connections,
                one.parking_saved.connections,
                worst.map(|worst| &*worst.statement),
                worst.map(|worst| &*worst.destination),
                worst.map(|worst| &*worst.operation),
            ]
        })
        .collect()
}

fn overlaps(picture: &ProgramSnapshot) -> Vec<Row> {
    let row = |o: &forebay_pool::overlap::OverlapCount| {
        row![&o.feature, &o.destination, o.kind.name(), o.begun, o.ended, o.seconds]
    };
    picture.overlaps.iter().map(row).collect()
}

fn parking(picture: &ProgramSnapshot) -> Vec<Row> {
    let servers = picture.postgres.iter().flat_map(|postgres| &postgres.parking);
    servers
        .flat_map(|(server, parking)| {
            parking.classes.iter().map(move |class| {
                row![
                    server.as_str(),
                    class.class.as_str(),
                    class.mode.name(),
                    class.parked,
                    class.parks,
                    class.could_park,
                    class.resumed,
                    class.lost,
                    class.refusals.values().sum::<u64>(),
                    class.seconds,
                    class.could_seconds,
                    parking.closed.as_deref().unwrap_or_default(),
                ]
            })
        })
        .collect()
}

fn unparkable(picture: &ProgramSnapshot) -> Vec<Row> {
    let servers = picture.postgres.iter().flat_map(|postgres| &postgres.parking);
    servers
        .flat_map(|(server, parking)| {
            parking.unparkable.iter().map(move |one| {
                row![
                    server.as_str(),
                    one.class.as_str(),
                    one.reason,
                    &one.feature,
                    &one.statement,
                    one.times,
                    one.meaning,
                ]
            })
        })
        .collect()
}

fn pins(picture: &ProgramSnapshot) -> Vec<Row> {
    let pinned = picture.postgres.iter().flat_map(|postgres| &postgres.pinned);
    pinned
        .map(|pin| {
            row![&pin.user, &pin.database, &pin.application, pin.reasons.join(","), pin.seconds]
        })
        .collect()
}

fn mean(buckets: &Buckets) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "an average of so many is exact enough")]
    let count = buckets.count.max(1) as f64;
    buckets.sum / count
}

fn features(picture: &ProgramSnapshot) -> Vec<Row> {
    pools(picture)
        .flat_map(|(gateway, pool)| {
            pool.features.iter().map(move |feature| {
                row![
                    gateway,
                    &pool.destination,
                    &feature.feature,
                    feature.checkouts,
                    feature.requests,
                    feature.fan_out_jumps,
                    mean(&feature.wait),
                    mean(&feature.hold),
                    feature.leases.mean,
                    feature.leases.p95,
                    feature.used.mean,
                    feature.peak.p95,
                    feature.nested.p95,
                ]
            })
        })
        .collect()
}

fn operations(program: &Program) -> Vec<Row> {
    let postgres = program.postgres.as_ref().map(|gateway| ("postgres", gateway.operations()));
    let http = program.http.as_ref().map(|gateway| ("http", gateway.operations()));
    let mut rows = Vec::new();
    for (gateway, pools) in postgres.into_iter().chain(http) {
        for (destination, operations) in pools {
            rows.extend(operations.iter().map(|operation| {
                row![
                    gateway,
                    &*destination,
                    operation.class.as_str(),
                    &operation.feature,
                    &operation.operation,
                    operation.worth,
                    operation.mean,
                    operation.p95,
                ]
            }));
        }
    }
    rows
}

fn events(program: &Program, most: usize) -> Vec<Row> {
    let events = program.recent.last(most);
    events
        .iter()
        .map(|(at, event)| {
            let at = format_rfc3339_millis(*at).to_string();
            let what = serde_json::to_string(event).unwrap_or_default();
            row![at, event.name(), what]
        })
        .collect()
}

fn budgets(picture: &ProgramSnapshot) -> Vec<Row> {
    pools(picture)
        .map(|(gateway, pool)| {
            let health = match pool.health {
                Health::Unknown => "unknown",
                Health::Up => "up",
                Health::Busy => "busy",
                Health::Down => "down",
            };
            let wanted = &pool.wanted;
            row![
                gateway,
                &pool.destination,
                health,
                pool.budget,
                wanted.configured,
                wanted.by_hand,
                wanted.window,
                wanted.advice.map(|advice| advice.budget),
                wanted.borne,
                pool.capacity,
                pool.ai_ceiling,
                pool.leased,
                pool.idle,
                pool.opening,
                pool.cleaning,
                pool.last_error.clone(),
            ]
        })
        .collect()
}

fn pressures(picture: &ProgramSnapshot) -> Vec<Row> {
    pressure::of(picture)
        .iter()
        .map(|class| {
            row![
                class.gateway,
                &class.destination,
                class.class.as_str(),
                class.pressure,
                class.utilisation,
                class.waiting,
                class.shedding.name(),
                class.retry_after_ms,
            ]
        })
        .collect()
}

fn policies(picture: &ProgramSnapshot) -> Vec<Row> {
    let classes = pools(picture)
        .flat_map(|(gateway, pool)| pool.classes.iter().map(move |c| (gateway, pool, c)));
    classes
        .flat_map(|(gateway, pool, class)| {
            class.policies.iter().map(move |policy| {
                row![
                    gateway,
                    &pool.destination,
                    class.class.as_str(),
                    policy.policy.name(),
                    policy.mode.name(),
                    policy.acted,
                    policy.observed,
                ]
            })
        })
        .collect()
}

fn destinations(picture: &ProgramSnapshot) -> Vec<Row> {
    let destinations = picture.http.iter().flat_map(|http| &http.destinations);
    destinations
        .map(|one| {
            let answers = one.answers;
            row![
                &one.destination,
                one.in_flight,
                answers.success,
                answers.redirect,
                answers.client_error,
                answers.server_error,
                one.refusals.iter().map(|refusal| refusal.count).sum::<u64>(),
                one.abandoned,
                one.cut_short,
                one.resent,
                one.throttled,
                one.first_byte.p50,
                one.duration.p50,
                one.duration.p99,
            ]
        })
        .collect()
}

fn replication(picture: &ProgramSnapshot) -> Vec<Row> {
    let servers = picture.postgres.iter().flat_map(|postgres| &postgres.replications);
    servers.map(|(server, connections)| row![server.as_str(), *connections]).collect()
}

fn listeners(picture: &ProgramSnapshot) -> Vec<Row> {
    let counts = picture.postgres.iter().flat_map(|postgres| &postgres.notifications);
    counts
        .map(|of| {
            row![
                &of.server,
                of.connections,
                of.channels,
                of.clients,
                of.delivered,
                of.overflowed,
                of.lost,
            ]
        })
        .collect()
}

/// Keys that are set, as far as their values may be shown. A default is what the reference
/// says of a key that is not set.
pub(super) fn settings(loaded: &Loaded) -> Vec<Row> {
    let shown = loaded.shown();
    shown.map(|(key, value)| row![key, value, None::<&str>, "no"]).collect()
}
