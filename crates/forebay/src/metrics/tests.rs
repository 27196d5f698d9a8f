use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use forebay_http::HttpSnapshot;
use forebay_http::stats::{
    AnswerCounts, ConnectionsSnapshot, DestinationSnapshot, FeatureCount, RefusalCount,
};
use forebay_pool::overlap::{FeatureHolds, HoldKind, OverlapCount, OverlapSpread};
use forebay_pool::policy::Policy;
use forebay_pool::rate::{
    AnnouncedSnapshot, LimitSnapshot, RateSnapshot, RefusedSnapshot, Scope, Unit,
};
use forebay_pool::stats::{
    Advice, Because, BreakerSnapshot, Buckets, ClassSnapshot, Closed, FeatureSnapshot, Figure,
    HOLD_BUCKETS, Health, PolicySnapshot, Spread, SpreadSnapshot, TriesSnapshot, WAIT_BUCKETS,
    WantedSnapshot,
};
use forebay_pool::{ClassName, Kind, Mode, Snapshot};
use forebay_postgres::gateway::{ControlSnapshot, Flow};
use forebay_postgres::{
    HostSnapshot, HostsSnapshot, NotificationCounts, ParkingCounts, ParkingSnapshot,
    PostgresSnapshot, TimeoutCounts,
};

use super::*;
use crate::reload::ConfigurationSnapshot;
use crate::suspects::SuspicionCount;
use crate::view::{Phase, VERSION};

fn spread(bounds: &[f64], millis: &[u64]) -> SpreadSnapshot {
    let mut spread = Spread::default();
    for millis in millis {
        spread.record(Duration::from_millis(*millis));
    }
    spread.snapshot(bounds)
}

fn feature(name: &str) -> FeatureSnapshot {
    let times = |bounds: &[f64]| {
        let spread = spread(bounds, &[2, 2_000]);
        Buckets { count: spread.count, sum: spread.sum, buckets: spread.buckets }
    };
    let figure = |mean| Figure { mean, p95: 2.0 * mean, most: 3.0 * mean };
    FeatureSnapshot {
        feature: name.into(),
        checkouts: 40,
        requests: 4,
        fan_out_jumps: 1,
        wait: times(&WAIT_BUCKETS),
        hold: times(&HOLD_BUCKETS),
        leases: figure(10.0),
        used: figure(0.5),
        residence: figure(2.0),
        peak: figure(3.0),
        nested: figure(1.0),
    }
}

fn class(name: &str, kind: Kind) -> ClassSnapshot {
    ClassSnapshot {
        class: ClassName::new(name),
        kind,
        guarantee: 5,
        ceiling: 10,
        leased: 2,
        waiting: 1,
        checkouts: 7,
        waited: 3,
        timed_out: 1,
        queue_full: 2,
        failed: 0,
        abandoned: 4,
        deadlocks: 8,
        long_holds: 9,
        weight: 4,
        under_way: 6,
        demand: 2.5,
        utilisation: 0.85,
        pressure: 0.625,
        retry_after: 0.25,
        tries: TriesSnapshot { first: 50, retries: 5, over_budget: 3, over_tries: 1 },
        breaker: BreakerSnapshot { state: "half-open", openings: 2 },
        policies: vec![
            PolicySnapshot {
                policy: Policy::Shedding,
                mode: Mode::Observe,
                acted: 0,
                observed: 11,
            },
            PolicySnapshot { policy: Policy::Retries, mode: Mode::Enforce, acted: 12, observed: 0 },
        ],
        wait: spread(&WAIT_BUCKETS, &[0, 3, 60]),
        hold: spread(&HOLD_BUCKETS, &[2, 2_000, 90_000]),
    }
}

fn pool(name: &str) -> Snapshot {
    Snapshot {
        destination: name.into(),
        health: Health::Up,
        budget: 10,
        wanted: WantedSnapshot {
            configured: 10,
            by_hand: None,
            window: None,
            advice: Some(Advice { budget: 12, because: Because::Trend }),
            borne: None,
        },
        capacity: Some(100),
        ai_ceiling: 5,
        leased: 4,
        idle: 3,
        opening: 1,
        cleaning: 0,
        warm: true,
        opened: 9,
        open_failures: 1,
        closed: Closed { idle: 1, ..Closed::default() },
        connect: spread(&HOLD_BUCKETS, &[20]),
        classes: vec![class("core", Kind::Core), class("ai-read", Kind::Ai)],
        features: vec![feature("a\"b\\c\nd 1")],
        identities: Vec::new(),
        last_error: None,
    }
}

fn limits() -> RateSnapshot {
    RateSnapshot {
        mode: Mode::Observe,
        admitted: 8,
        refused: vec![RefusedSnapshot { scope: Scope::Tenant, cause: "tokens", count: 6 }],
        tokens_used: 1_234,
        limits: vec![LimitSnapshot {
            unit: Unit::Requests,
            limit: 500,
            per: 60.0,
            remaining: 490,
            reserved: 2,
        }],
        announced: vec![AnnouncedSnapshot { unit: Unit::Tokens, left: u64::MAX }],
        rests: 1.5,
        tenants: 3,
        tenants_limited: 1,
    }
}

fn parking() -> ParkingSnapshot {
    let class = ParkingCounts {
        class: ClassName::new("ai-read"),
        mode: Mode::Enforce,
        parked: 2,
        parks: 9,
        could_park: 4,
        resumed: 6,
        lost: 1,
        seconds: 31.5,
        could_seconds: 7.5,
        refusals: [("lock", 3), ("view", 8)].into(),
    };
    ParkingSnapshot {
        version: Some(150_004),
        closed: Some("a proof was not answered in time".into()),
        classes: vec![class],
        unparkable: Vec::new(),
    }
}

/// A program with everything in it, and names that try to break out of their labels.
fn program() -> ProgramSnapshot {
    let destination = DestinationSnapshot {
        destination: "llm".into(),
        in_flight: 2,
        answers: AnswerCounts { success: 5, ..AnswerCounts::default() },
        refusals: vec![RefusalCount { reason: "queue-full", count: 1 }],
        abandoned: 1,
        cut_short: 0,
        resent: 0,
        token_exchanges: 2,
        token_failures: 0,
        throttled: 1,
        hints_ignored: 0,
        limits: limits(),
        first_byte: spread(&HOLD_BUCKETS, &[500]),
        duration: spread(&HOLD_BUCKETS, &[1_500]),
        features: vec![FeatureCount { feature: "a\"b\\c\nd 1".into(), calls: 3, seconds: 1.5 }],
    };
    ProgramSnapshot {
        configuration: ConfigurationSnapshot {
            hash: 7,
            since: 1_000.0,
            reloaded: 2,
            failed: 1,
            last_error: None,
            needs_restart: vec!["admin.listen".into()],
        },
        version: VERSION,
        uptime: 12.5,
        phase: Phase::Running,
        not_ready: Vec::new(),
        postgres: Some(PostgresSnapshot {
            parking: [("main".to_owned(), parking())].into(),
            clients: 7,
            refused: 4,
            accept_failures: 3,
            cancels: 5,
            timeouts: TimeoutCounts { query: 9, ..TimeoutCounts::default() },
            throttled: 9,
            hash_iterations: 4_096,
            hints_ignored: 8,
            pins: [("listen", 6)].into(),
            pinned: Vec::new(),
            replications: [("main".to_owned(), 2)].into(),
            notifications: vec![NotificationCounts {
                server: "main".into(),
                connections: 1,
                channels: 3,
                clients: 2,
                delivered: 40,
                overflowed: 1,
                lost: 2,
            }],
            control: ControlSnapshot {
                flow: Flow::Paused,
                paused: vec!["app".into()],
                disabled: vec!["old".into()],
            },
            hosts: vec![HostsSnapshot {
                server: "main".into(),
                hosts: vec![HostSnapshot {
                    host: "db:5432".into(),
                    addresses: Vec::new(),
                    role: "standby",
                    state: "behind",
                    timeline: None,
                    lag_seconds: Some(12.5),
                    connections: 9,
                    dns_changes: 3,
                }],
                usable: false,
                failovers: 2,
                fenced: 1,
            }],
            pools: vec![pool("main")],
        }),
        http: Some(HttpSnapshot {
            clients: 3,
            clients_refused: 0,
            refusals: vec![RefusalCount { reason: "unknown-destination", count: 2 }],
            cached_tokens: 1,
            destinations: vec![destination],
            pools: vec![pool("llm")],
            connections: vec![connections()],
        }),
        log_lines_lost: 3,
        overlaps: vec![OverlapCount {
            feature: "answer".into(),
            destination: "llm".into(),
            kind: HoldKind::Held,
            begun: 3,
            ended: 2,
            seconds: 4.25,
        }],
        overlaps_lasted: vec![OverlapSpread {
            kind: HoldKind::Held,
            lasted: spread(&HOLD_BUCKETS, &[20, 2_000, 2_230]),
        }],
        holds: vec![FeatureHolds {
            feature: "answer".into(),
            transactions: 3,
            held: 4.5,
            parkable: 2.5,
            parked: 1.5,
        }],
        suspected_holds: vec![SuspicionCount {
            application: "worker".into(),
            destination: "unknown".into(),
            count: 2,
            seconds: 31.0,
        }],
    }
}

/// Reads the classic format strictly: the samples by name with labels.
fn read(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut family, mut kind, mut helped) = (String::new(), String::new(), BTreeSet::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "one help: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').expect("a type");
            assert!(helped.contains(name), "help comes first: {line}");
            assert!(["gauge", "counter", "histogram"].contains(&of), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            (family, kind) = (name.to_owned(), of.to_owned());
        } else {
            assert!(!line.starts_with('#'), "{line}");
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().unwrap_or_default();
            let suffix = name.strip_prefix(&family).expect("a sample of its family");
            let suffixes: &[&str] =
                if kind == "histogram" { &["_sum", "_count", "_bucket"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            let value = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

fn connections() -> ConnectionsSnapshot {
    ConnectionsSnapshot {
        destination: "llm".into(),
        open: 5,
        resting: 2,
        in_use: 9,
        http2: 4,
        streams: 30,
        seats_per_connection: 16,
        opened_http1: 1,
        opened_http2: 7,
        tls_full: 2,
        tls_resumed: 6,
        closed: vec![("goaway", 3), ("stale", 0)],
        idle_learnt: Some(4.5),
        addresses: 3,
        ejected: 1,
        ejections: 2,
        resolved: 11,
        resolve_failures: 12,
        forbidden: 13,
    }
}

#[test]
fn every_figure_of_the_picture_is_there_and_well_formed() {
    let samples = read(&render(&program(), Format::Classic));
    for (series, value) in [
        ("forebay_clients{gateway=\"postgres\"}", 7.0),
        ("forebay_logins_refused_total", 4.0),
        ("forebay_accept_failures_total", 3.0),
        ("forebay_logins_throttled_total", 9.0),
        ("forebay_login_hash_iterations_total", 4096.0),
        ("forebay_cancel_requests_total", 5.0),
        ("forebay_timeouts_total{setting=\"query_timeout\"}", 9.0),
        ("forebay_hints_ignored_total", 8.0),
        ("forebay_log_lines_lost_total", 3.0),
        (r#"forebay_http_connections{destination="llm",state="busy"}"#, 3.0),
        (r#"forebay_http_connections{destination="llm",state="resting"}"#, 2.0),
        (r#"forebay_http_shared_connections{destination="llm"}"#, 4.0),
        (r#"forebay_http_streams{destination="llm"}"#, 30.0),
        (r#"forebay_http_connection_seats{destination="llm"}"#, 16.0),
        (r#"forebay_http_connects_total{destination="llm",protocol="http/2"}"#, 7.0),
        (r#"forebay_http_handshakes_total{destination="llm",kind="resumed"}"#, 6.0),
        (r#"forebay_http_closes_total{destination="llm",reason="goaway"}"#, 3.0),
        (r#"forebay_http_idle_learnt_seconds{destination="llm"}"#, 4.5),
        (r#"forebay_http_addresses{destination="llm",state="ejected"}"#, 1.0),
        (r#"forebay_http_ejections_total{destination="llm"}"#, 2.0),
        (r#"forebay_http_resolves_total{destination="llm",outcome="forbidden"}"#, 13.0),
        ("forebay_paused{database=\"*\"}", 1.0),
        ("forebay_paused{database=\"app\"}", 1.0),
        ("forebay_disabled{database=\"old\"}", 1.0),
        ("forebay_pins_total{reason=\"listen\"}", 6.0),
        (r#"forebay_notification_connections{gateway="postgres",destination="main"}"#, 1.0),
        (r#"forebay_notification_channels{gateway="postgres",destination="main"}"#, 3.0),
        (r#"forebay_notification_clients{gateway="postgres",destination="main"}"#, 2.0),
        (r#"forebay_notifications_total{gateway="postgres",destination="main"}"#, 40.0),
        (
            r#"forebay_notification_ends_total{gateway="postgres",destination="main",reason="overflow"}"#,
            1.0,
        ),
        (r#"forebay_replication_connections{gateway="postgres",destination="main"}"#, 2.0),
        (
            r#"forebay_host_info{gateway="postgres",destination="main",host="db:5432",role="standby",state="behind"}"#,
            1.0,
        ),
        (r#"forebay_host_lag_seconds{gateway="postgres",destination="main",host="db:5432"}"#, 12.5),
        (r#"forebay_failovers_total{gateway="postgres",destination="main"}"#, 2.0),
        (
            "db_client_connection_count{db_client_connection_pool_name=\"main\",\
             db_client_connection_state=\"used\"}",
            4.0,
        ),
        ("db_client_connection_pending_requests{db_client_connection_pool_name=\"main\"}", 2.0),
        (
            "db_client_connection_use_time_seconds_count{db_client_connection_pool_name=\"main\"}",
            6.0,
        ),
        ("forebay_health{gateway=\"http\",destination=\"llm\",health=\"up\"}", 1.0),
        (
            "forebay_class_rejected_total{gateway=\"postgres\",destination=\"main\",\
             class=\"ai-read\",reason=\"queue_full\"}",
            2.0,
        ),
        (
            "forebay_class_rejected_total{gateway=\"postgres\",destination=\"main\",\
             class=\"core\",reason=\"retries\"}",
            12.0,
        ),
        (
            "forebay_policy_decisions_total{gateway=\"postgres\",destination=\"main\",\
             class=\"core\",policy=\"shedding\",outcome=\"observed\"}",
            11.0,
        ),
        (
            "forebay_policy_mode{gateway=\"postgres\",destination=\"main\",class=\"core\",\
             policy=\"retries\",mode=\"enforce\"}",
            1.0,
        ),
        (
            "forebay_class_tries_total{gateway=\"http\",destination=\"llm\",class=\"core\",\
             outcome=\"over_budget\"}",
            3.0,
        ),
        (
            "forebay_class_breaker{gateway=\"http\",destination=\"llm\",class=\"core\",\
             state=\"half-open\"}",
            1.0,
        ),
        ("forebay_token_exchanges_total{destination=\"llm\"}", 2.0),
        ("forebay_http_answers_total{destination=\"llm\",status=\"2xx\"}", 5.0),
        (
            "forebay_http_limit_refused_total{destination=\"llm\",scope=\"tenant\",cause=\"tokens\",mode=\"observe\"}",
            6.0,
        ),
        ("forebay_http_limit_remaining{destination=\"llm\",unit=\"requests\"}", 490.0),
        ("forebay_http_announced_remaining{destination=\"llm\",unit=\"tokens\"}", 4_294_967_295.0),
        ("forebay_http_resting{destination=\"llm\"}", 1.0),
        (
            "http_client_open_connections{http_connection_state=\"active\",server_address=\"llm\"}",
            3.0,
        ),
        ("forebay_overlaps_total{feature=\"answer\",destination=\"llm\",kind=\"held\"}", 3.0),
        (
            "forebay_overlap_seconds_total{feature=\"answer\",destination=\"llm\",kind=\"held\"}",
            4.25,
        ),
        ("forebay_overlap_duration_seconds_count{kind=\"held\"}", 3.0),
        ("forebay_hold_transactions_total{feature=\"answer\"}", 3.0),
        ("forebay_hold_connection_seconds_total{feature=\"answer\"}", 4.5),
        ("forebay_hold_parkable_seconds_total{feature=\"answer\"}", 2.5),
        ("forebay_hold_parked_seconds_total{feature=\"answer\"}", 1.5),
        ("forebay_suspected_holds_total{application=\"worker\",destination=\"unknown\"}", 2.0),
        (
            "forebay_suspected_hold_seconds_total{application=\"worker\",destination=\"unknown\"}",
            31.0,
        ),
        (
            "forebay_http_feature_calls_total{destination=\"llm\",feature=\"a\\\"b\\\\c\\nd 1\"}",
            3.0,
        ),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn what_parking_came_to_is_counted_by_class_and_reason() {
    let samples = read(&render(&program(), Format::Classic));
    let labels = "gateway=\"postgres\",destination=\"main\"";
    let class = format!("{labels},class=\"ai-read\"");
    for (name, more, value) in [
        ("forebay_parked", "", 2.0),
        ("forebay_parks_total", "", 9.0),
        ("forebay_parks_observed_total", "", 4.0),
        ("forebay_parks_resumed_total", "", 6.0),
        ("forebay_parks_lost_total", "", 1.0),
        ("forebay_parked_seconds_total", "", 31.5),
        ("forebay_parks_observed_seconds_total", "", 7.5),
        ("forebay_parks_refused_total", ",reason=\"lock\"", 3.0),
        ("forebay_parks_refused_total", ",reason=\"view\"", 8.0),
    ] {
        let series = format!("{name}{{{class}{more}}}");
        assert_eq!(samples.get(&series), Some(&value), "{series}");
    }
    assert_eq!(samples.get(&format!("forebay_parking_closed{{{labels}}}")), Some(&1.0));
}

#[test]
fn a_class_shows_how_busy_it_is_and_what_went_wrong_there() {
    let samples = read(&render(&program(), Format::Classic));
    for (name, value) in [
        ("forebay_class_weight", 4.0),
        ("forebay_class_requests", 6.0),
        ("forebay_class_demand", 2.5),
        ("forebay_class_utilisation", 0.85),
        ("forebay_class_pressure", 0.625),
        ("forebay_class_deadlocks_total", 8.0),
        ("forebay_class_long_holds_total", 9.0),
        ("forebay_class_breaker_openings_total", 2.0),
    ] {
        let series =
            format!("{name}{{gateway=\"postgres\",destination=\"main\",class=\"ai-read\"}}");
        assert_eq!(samples.get(&series), Some(&value), "{series}");
    }
}

#[test]
fn a_feature_shows_what_its_requests_take_whatever_its_name() {
    let samples = read(&render(&program(), Format::Classic));
    let labels = "gateway=\"http\",destination=\"llm\",feature=\"a\\\"b\\\\c\\nd 1\"";
    for (name, value) in [
        ("forebay_feature_checkouts_total", 40.0),
        ("forebay_feature_requests_total", 4.0),
        ("forebay_feature_fan_out_jumps_total", 1.0),
        ("forebay_feature_wait_seconds_count", 2.0),
        ("forebay_feature_hold_seconds_sum", 2.002),
    ] {
        assert_eq!(samples.get(&format!("{name}{{{labels}}}")), Some(&value), "{name}");
    }
    for (name, figure, value) in [
        ("fan_out", "mean", 10.0),
        ("fan_out", "p95", 20.0),
        ("connection_seconds", "mean", 0.5),
        ("request_seconds", "most", 6.0),
        ("peak", "p95", 6.0),
        ("nested", "mean", 1.0),
    ] {
        let series = format!("forebay_feature_{name}{{{labels},figure=\"{figure}\"}}");
        assert_eq!(samples.get(&series), Some(&value), "{series}");
    }
}

#[test]
fn buckets_rise_to_the_count() {
    let samples = read(&render(&program(), Format::Classic));
    let labels = "gateway=\"postgres\",destination=\"main\",class=\"core\"";
    let bucket =
        |le: &str| samples[&format!("forebay_class_hold_seconds_bucket{{le=\"{le}\",{labels}}}")];
    assert_eq!([bucket("0.001"), bucket("0.005"), bucket("2.0")], [0.0, 1.0, 2.0]);
    assert_eq!([bucket("60.0"), bucket("+Inf")], [2.0, 3.0]);
    assert_eq!(samples[&format!("forebay_class_hold_seconds_count{{{labels}}}")], 3.0);
}

#[test]
fn a_program_without_a_gateway_has_no_empty_families() {
    let bare = ProgramSnapshot { postgres: None, http: None, overlaps: Vec::new(), ..program() };
    let samples = read(&render(&bare, Format::Classic));
    assert!(samples.keys().all(|name| name.starts_with("forebay_")), "{samples:?}");
    assert_eq!(samples["forebay_ready"], 1.0);
}

#[test]
fn openmetrics_is_given_to_readers_that_ask_for_it() {
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
    assert_eq!(Format::accepted(accept), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::Classic);
    let text = render(&program(), Format::OpenMetrics);
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE forebay_overlaps counter\n"));
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("promtool is not installed; the strict reader above has to do");
        return;
    };
    let text = render(&program(), Format::Classic);
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // OpenTelemetry's own name ends like a histogram's count.
    let complaints: Vec<_> =
        said.lines().filter(|line| !line.starts_with("db_client_connection_count ")).collect();
    assert!(complaints.iter().all(|line| line.is_empty()), "{complaints:#?}");
    assert!(output.status.success() || !said.is_empty(), "promtool could not run");
}
