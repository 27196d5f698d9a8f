use super::*;

fn times(p99_ms: f64) -> Times {
    Times { p50_ms: p99_ms / 10.0, p95_ms: p99_ms / 2.0, p99_ms }
}

fn storm_side(p99_ms: f64, connections: u64, exchanges: u64, errors: u64) -> Figures<StormMore> {
    let more = StormMore {
        calls: 100,
        tls_handshakes: connections,
        token_keys: 20,
        wrong_tenant_calls: 0,
    };
    Figures {
        times: times(p99_ms),
        errors,
        connections_opened: connections,
        token_exchanges: exchanges,
        tasks_a_minute: 600.0,
        holds_found: 0,
        more,
        error_samples: Vec::new(),
        configuration: vec!["as it is".to_owned()],
    }
}

fn neighbour_side(p99_ms: f64, alone: f64, tasks_a_minute: f64) -> Figures<NeighbourMore> {
    let more = NeighbourMore {
        logins: 1_000,
        unloaded_p99_ms: alone,
        p99_to_unloaded: round(ratio(p99_ms, alone)),
        machine_late_p99_ms: 1.5,
        retrieval_p50_ms: 20.0,
        retrieval_p99_ms: 40.0,
        database_connections_opened: 20,
        transactions_held: 70,
    };
    Figures {
        times: times(p99_ms),
        errors: 0,
        connections_opened: 90,
        token_exchanges: 0,
        tasks_a_minute,
        holds_found: 70,
        more,
        error_samples: Vec::new(),
        configuration: Vec::new(),
    }
}

fn in_one_line(report: Report) -> String {
    report.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn rates_are_for_a_minute_and_nothing_is_no_division() {
    assert_eq!(a_minute(150, Duration::from_secs(30)), 300.0);
    assert_eq!(a_minute(150, Duration::ZERO), 0.0);
    assert_eq!(ratio(1.0, 0.0), 0.0);
    assert_eq!(ms(Duration::from_micros(1_234)), 1.23);
}

#[test]
fn the_storms_figures_come_from_the_counters() {
    let storm = Storm { calls: Default::default(), tasks_done: 10, took: Duration::from_secs(20) };
    storm.calls.note(forebay_seam::time::now(), &Ok::<_, String>(()));
    storm.calls.note(forebay_seam::time::now(), &Err::<(), _>("no"));
    let services = Counted { connections: 7, handshakes: 6, ..Counted::default() };
    let counts = Counts { services, exchanges: vec![1, 3], sessions: 0, holds: 0 };
    let figures = Figures::of_storm(&storm, &counts, Vec::new());
    assert_eq!((figures.errors, figures.more.calls), (1, 1));
    assert_eq!((figures.connections_opened, figures.more.tls_handshakes), (7, 6));
    assert_eq!((figures.token_exchanges, figures.more.token_keys), (4, 2));
    assert_eq!(figures.tasks_a_minute, 30.0);
    assert_eq!(figures.error_samples, ["1 x no"]);
}

#[test]
fn machines_find_figures_by_scenario_then_side() {
    let storm =
        Sides { without: storm_side(900.0, 800, 400, 0), with: storm_side(90.0, 80, 20, 0) };
    let report = Report { storm: Some(storm), ..Report::default() };
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["storm"]["without"]["p99_ms"], 900.0);
    assert_eq!(json["storm"]["with"]["connections_opened"], 80);
    assert_eq!(json["storm"]["with"]["token_keys"], 20);
    assert_eq!(json["storm"]["with"]["configuration"][0], "as it is");
    assert!(json.get("neighbour").is_none());
}

#[test]
fn the_table_says_what_got_better() {
    let storm =
        Sides { without: storm_side(900.0, 8_000, 400, 0), with: storm_side(90.0, 80, 20, 0) };
    let neighbour = Sides {
        without: neighbour_side(4_000.0, 4.0, 500.0),
        with: neighbour_side(8.0, 4.0, 500.0),
    };
    let text =
        in_one_line(Report { storm: Some(storm), neighbour: Some(neighbour), ..Report::default() });
    for words in [
        "8,000 connections to the services without Forebay and 80 with it (100.0 times fewer)",
        "once for each of the 20 pairs",
        "from 900 ms to 90 ms (10.0 times shorter)",
        "8.0 ms with it, 2.0 times (within 3x)",
        "Nothing failed on either side.",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    assert!(!text.contains("machine was busy"));
}

#[test]
fn the_table_says_what_got_worse() {
    let mut storm =
        Sides { without: storm_side(90.0, 80, 20, 0), with: storm_side(900.0, 80, 21, 3) };
    storm.with.error_samples.push("3 x the queue is full".to_owned());
    let mut neighbour =
        Sides { without: neighbour_side(4.0, 4.0, 500.0), with: neighbour_side(40.0, 4.0, 350.0) };
    neighbour.with.more.machine_late_p99_ms = 30.0;
    let text =
        in_one_line(Report { storm: Some(storm), neighbour: Some(neighbour), ..Report::default() });
    for words in [
        "80 with it (about as many)",
        "with Forebay for 20 pairs",
        "10.0 times longer",
        "0 failed without Forebay, 3 with it.",
        "Connection storm, with Forebay, failed: 3 x the queue is full.",
        "10.0 times (not within 3x)",
        "machine was busy: it woke timers up to 30 ms late (p99)",
        "from 500 to 350 (1.4 times fewer): their class may hold 14 of the 20",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

#[test]
fn what_both_sides_share_is_said_once_and_lines_fit() {
    let mut storm =
        Sides { without: storm_side(900.0, 80, 20, 0), with: storm_side(90.0, 80, 20, 0) };
    storm.with.configuration.push("Forebay is configured in many words, ".repeat(9));
    let text = Report { storm: Some(storm), ..Report::default() }.to_string();
    assert_eq!(text.matches("as it is").count(), 1);
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
}
