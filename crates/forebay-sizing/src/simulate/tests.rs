use forebay_pool::{Budget, ClassName, ClassSettings, Kind, Mode, PoolSettings, Share};

use super::*;
use crate::{chance_to_wait, for_wait, mean_wait, offered_load};

const HOLD: Duration = Duration::from_millis(50);

fn class(kind: Kind) -> ClassSettings {
    ClassSettings {
        kind,
        guarantee: Share::Seats(0),
        checkout_timeout: Duration::from_secs(600),
        mode: Mode::Off,
        ..ClassSettings::default()
    }
}

fn pool(budget: u32) -> PoolSettings {
    PoolSettings {
        ai_share: 100,
        classes: vec![(ClassName::new("work"), class(Kind::Core))],
        warm_up: 100,
        seed: 1,
        ..PoolSettings::new("simulated", Budget::Fixed(budget))
    }
}

fn stream(arrivals: Arrivals, service: Times) -> Stream {
    Stream {
        name: "work",
        class: "work",
        arrivals,
        queries: Queries::ONE,
        service,
        naming: Naming::Unnamed,
        client: Client::CALM,
    }
}

fn scenario(budget: u32, arrivals: Arrivals, service: Times, minutes: u64) -> Scenario {
    Scenario {
        pool: pool(budget),
        server: Server::well(Duration::from_millis(5)),
        streams: vec![stream(arrivals, service)],
        length: Duration::from_secs(60 * minutes),
        settle: Duration::from_secs(20),
        slice: Duration::from_secs(1),
        seed: 42,
    }
}

/// Within `part` of what is expected.
#[track_caller]
fn assert_near(what: &str, seen: f64, expected: f64, part: f64) {
    assert!((seen / expected - 1.0).abs() <= part, "{what}: {seen}, expected {expected}");
}

#[test]
fn waits_agree_with_erlang_within_three_percent() {
    for (connections, rate, minutes) in [(2, 24.0, 180), (5, 60.0, 90), (10, 130.0, 45)] {
        let service = Times::Exponential { mean: HOLD };
        let figures = scenario(connections, Arrivals::Poisson { rate }, service, minutes).play();
        let work = &figures.streams[0];
        let load = offered_load(rate, HOLD);
        let wait = mean_wait(connections, load, HOLD).unwrap().as_secs_f64();
        let chance = chance_to_wait(connections, load);
        let name = format!("{connections} connections");
        assert_near(&name, work.wait.longer_than(Duration::ZERO), chance, 0.03);
        assert_near(&name, work.wait.mean().as_secs_f64(), wait, 0.03);
        assert_near(&name, figures.utilisation, load / f64::from(connections), 0.01);
    }
}

#[test]
fn waits_for_other_service_times_agree_with_allen_and_cunneen_within_ten_percent() {
    let tail = Times::LogNormal { mean: HOLD, p95: HOLD.mul_f64(2.4) };
    for service in [Times::Always(HOLD), tail] {
        let rate = 70.0;
        let figures = scenario(5, Arrivals::Poisson { rate }, service, 60).play();
        let exponential = mean_wait(5, offered_load(rate, HOLD), HOLD).unwrap().as_secs_f64();
        let expected = exponential * f64::midpoint(1.0, service.squared_variation());
        let wait = figures.streams[0].wait.mean().as_secs_f64();
        assert_near(&format!("{service:?}"), wait, expected, 0.1);
    }
}

#[test]
fn the_same_seed_gives_the_same_figures_and_another_seed_others() {
    let play = |seed| {
        let bursts = Arrivals::Bursts {
            rate: 60.0,
            factor: 3.0,
            every: Duration::from_secs(5),
            length: Duration::from_secs(1),
        };
        let service = Times::LogNormal { mean: HOLD, p95: HOLD * 3 };
        let figures = Scenario { seed, ..scenario(5, bursts, service, 2) }.play();
        let work = &figures.streams[0];
        (work.arrived, work.completed, work.wait.mean(), work.wait.max(), figures.connects)
    };
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
}

#[test]
fn clients_that_wait_for_their_answers_are_never_more_than_they_are() {
    // Little's law for the whole circle: N = throughput x (think + wait + service).
    let think = Times::Exponential { mean: Duration::from_secs(1) };
    let clients = Arrivals::Clients { clients: 40, think };
    let figures = scenario(2, clients, Times::Exponential { mean: HOLD }, 20).play();
    let work = &figures.streams[0];
    let done = f64::from(u32::try_from(work.completed).unwrap()) / figures.seconds;
    let circle = 1.0 + work.duration.mean().as_secs_f64();
    assert_near("clients", done * circle, 40.0, 0.02);
    assert!(figures.timeline.iter().all(|slice| slice.waiting <= 38));
}

#[test]
fn a_request_that_fails_is_tried_again_and_its_time_is_wasted() {
    let stream = Stream {
        queries: Queries::InTurn { count: 4, pause: Times::Always(HOLD) },
        naming: Naming::ByRequest,
        client: Client { tries: 3, backoff: Times::Always(HOLD), patience: None },
        ..stream(Arrivals::Poisson { rate: 20.0 }, Times::Always(HOLD))
    };
    let away = Trouble {
        from: Duration::from_secs(60),
        until: Duration::from_secs(61),
        what: Disorder::Away,
    };
    let base = scenario(10, stream.arrivals, stream.service, 2);
    let server = Server { troubles: vec![away], ..base.server.clone() };
    let figures = Scenario { server, streams: vec![stream], ..base }.play();
    let work = &figures.streams[0];
    assert!(work.tries > work.arrived, "{work:?}");
    assert!(work.refused.keys().eq([&Reason::Unreachable]), "{:?}", work.refused);
    assert!(work.wasted > 0.0 && work.wasted < 5.0, "{}", work.wasted);
    let last = figures.timeline.last().unwrap();
    assert!(last.refused == 0 && last.open > 0, "it recovered: {last:?}");
}

#[test]
fn an_impatient_client_leaves_its_query_running_for_nobody() {
    let stream = Stream {
        client: Client { patience: Some(HOLD), ..Client::CALM },
        ..stream(Arrivals::Poisson { rate: 10.0 }, Times::Always(HOLD * 3))
    };
    let base = scenario(10, stream.arrivals, stream.service, 2);
    let figures = Scenario { streams: vec![stream], ..base }.play();
    let work = &figures.streams[0];
    assert_eq!(work.completed, 0);
    assert!(work.refused.keys().eq([&Reason::GivenUp]), "{:?}", work.refused);
    assert!((work.wasted_part() - 1.0).abs() < 1e-9 && figures.utilisation > 0.1);
}

#[test]
fn parallel_queries_are_done_when_the_last_one_is() {
    let stream = Stream {
        queries: Queries::AtOnce { count: 10 },
        naming: Naming::ByRequest,
        ..stream(Arrivals::Poisson { rate: 1.0 }, Times::Always(HOLD))
    };
    let base = scenario(5, stream.arrivals, stream.service, 5);
    let figures = Scenario { streams: vec![stream], ..base }.play();
    let work = &figures.streams[0];
    // Ten queries on five connections take two turns.
    assert_eq!(work.duration.quantile(0.1).as_millis(), (2 * HOLD).as_millis());
    assert_eq!((work.failed, work.refusals()), (0, 0));
    assert_eq!(work.asked, 10 * work.tries);
}

#[test]
fn classes_that_always_wait_share_connection_time_by_their_weights() {
    let class = |weight| ClassSettings {
        weight,
        guarantee: Share::Seats(2),
        checkout_timeout: Duration::from_secs(2),
        ..class(Kind::Ai)
    };
    let classes = vec![(ClassName::new("heavy"), class(3)), (ClassName::new("light"), class(1))];
    let stream = |name, rate, service| Stream {
        name,
        class: name,
        ..stream(Arrivals::Poisson { rate }, Times::LogNormal { mean: service, p95: service * 3 })
    };
    // Each alone would ask for three times what there is, one with short queries and one with
    // long ones: time is shared, not leases.
    let streams = vec![stream("heavy", 240.0, HOLD * 5), stream("light", 1200.0, HOLD)];
    let base = scenario(20, Arrivals::Poisson { rate: 1.0 }, Times::NONE, 5);
    let pool = PoolSettings { classes, ..pool(20) };
    let figures = Scenario { pool, streams, ..base }.play();
    let [heavy, light] = [0, 1].map(|n| figures.streams[n].useful);
    assert_near("the heavier one", heavy / (heavy + light), 0.75, 0.02);
    assert!(figures.utilisation > 0.99);
}

#[test]
fn the_advised_connections_keep_waits_within_their_target_and_one_less_does_not() {
    let limit = Duration::from_millis(50);
    for (rate, hold) in [(10.0, HOLD * 4), (80.0, HOLD)] {
        let advised = for_wait(offered_load(rate, hold), hold, limit, 0.01, 100);
        let waits_longer = |connections| {
            let service = Times::Exponential { mean: hold };
            let minutes = if rate > 50.0 { 30 } else { 180 };
            let figures =
                scenario(connections, Arrivals::Poisson { rate }, service, minutes).play();
            figures.streams[0].wait.longer_than(limit)
        };
        let (enough, less) = (waits_longer(advised), waits_longer(advised - 1));
        assert!(enough <= 0.01 && less > 0.01, "{advised}: {enough}, one less: {less}");
    }
}
