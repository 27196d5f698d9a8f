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

fn logins(p99_ms: f64) -> LoginFigures {
    LoginFigures {
        logins: 1_200,
        logins_failed: 0,
        login_p50_ms: 3.0,
        login_p99_ms: p99_ms,
        machine_late_p99_ms: 1.5,
    }
}

fn played<F>(figures: F) -> Played<F> {
    Played { figures, error_samples: Vec::new(), configuration: vec!["as it is".to_owned()] }
}

fn questions(login_p99_ms: f64, question_p99_ms: f64, refused: u64) -> FanOutFigures {
    FanOutFigures {
        questions: 240,
        question_p50_ms: 60.0,
        question_p99_ms,
        refused,
        failed: 0,
        logins: logins(login_p99_ms),
        server_connections: 20,
        fan_out_seen: None,
        peak_seen: None,
    }
}

fn writes(login_p99_ms: f64, write_p99_ms: f64, writes_failed: u64) -> WriteStormFigures {
    WriteStormFigures {
        writes: 1_805,
        writes_failed,
        write_p50_ms: 40.0,
        write_p99_ms,
        checkpoint_p99_ms: write_p99_ms,
        logins: logins(login_p99_ms),
        server_connections: 20,
    }
}

fn retries(done_in_storm: f64, healthy_after_s: Option<u64>) -> RetryStormFigures {
    RetryStormFigures {
        done_before: 15.0,
        done_in_storm,
        done_after: 20.0,
        given_up: 400,
        tries: 3.25,
        refused: 1_700,
        late: 2_900,
        wasted_percent: 91.4,
        healthy_after_s,
        logins: logins(4.0),
        server_connections: 20,
        verdicts: [("retries".to_owned(), 1_600)].into(),
    }
}

fn cancellations(tasks_at_end: f64, idle_in_transaction: u64) -> CancellationStormFigures {
    CancellationStormFigures {
        tasks_before: 100.0,
        tasks_in_storm: 50.0,
        tasks_at_end,
        cancelled: 29,
        failed: 0,
        whole_after_s: (idle_in_transaction == 0).then_some(0.2),
        idle_in_transaction,
        ghosts: 0,
        server_connections: 22,
    }
}

#[test]
fn questions_and_writes_are_shown_with_the_logins_beside_them() {
    let mut with = played(questions(4.0, 120.0, 0));
    with.figures.fan_out_seen = Some(15.0);
    with.figures.logins.machine_late_p99_ms = 2.5;
    let fan_out = Sides { without: played(questions(80.0, 112.0, 2)), with };
    let write_storm =
        Sides { without: played(writes(58.0, 97.0, 0)), with: played(writes(5.0, 110.0, 0)) };
    let report =
        Report { fan_out: Some(fan_out), write_storm: Some(write_storm), ..Report::default() };
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["fan_out"]["without"]["login_p99_ms"], 80.0);
    assert_eq!(json["fan_out"]["with"]["fan_out_seen"], 15.0);
    assert_eq!(json["write_storm"]["with"]["configuration"][0], "as it is");
    let text = in_one_line(report);
    assert_eq!(text.matches("machine was busy").count(), 1);
    for words in [
        "Fan-out, both sides: - as it is",
        "queries of a question, learnt - 15.0",
        "want 150 connections at once, the p99 of a login was 80 ms without Forebay and 4.0 ms \
         with it (20.0 times shorter)",
        "from 112 ms to 120 ms (1.1 times longer)",
        "2 questions were refused without Forebay, 0 with it. This machine was busy: it woke \
         timers up to 2.5 ms late (p99)",
        "a write in the burst, p99 97 ms 110 ms",
        "97 ms and 110 ms (p99, 1.1 times longer): with Forebay the agents' class may hold 16 of",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

#[test]
fn whether_it_recovers_is_said_whichever_side_does() {
    let storm = |without, with| Report {
        retry_storm: Some(Sides { without: played(without), with: played(with) }),
        ..Report::default()
    };
    let better = storm(retries(4.0, None), retries(30.0, Some(1)));
    let json = serde_json::to_value(&better).unwrap();
    assert!(json["retry_storm"]["without"]["healthy_after_s"].is_null());
    assert_eq!(json["retry_storm"]["with"]["healthy_after_s"], 1);
    let better = in_one_line(better);
    for words in [
        "healthy again after the storm not in 11 s 1 s",
        "queries answered for nothing 91 % 91 %",
        "Forebay turned callers away for: retries 1600.",
        "in the storm 4 were done without Forebay and 30 with it",
        "it did not recover within 11 s without Forebay and requests were done at their first \
         try after 1 s with it",
    ] {
        assert!(better.contains(words), "{words}\n{better}");
    }
    let worse = in_one_line(storm(retries(30.0, Some(0)), retries(4.0, None)));
    let words = "every request was done at its first try at once without Forebay and it did not \
                 recover within 11 s with it";
    assert!(worse.contains(words), "{worse}");
}

#[test]
fn what_cancellations_cost_is_said_in_connections_and_tasks() {
    let mut without = played(cancellations(0.0, 20));
    without.error_samples.push("3 x no connection".to_owned());
    let report = Report {
        cancellation_storm: Some(Sides { without, with: played(cancellations(98.0, 0)) }),
        ..Report::default()
    };
    let text = in_one_line(report);
    for words in [
        "pool whole again after the storm not in 5 s 0.2 s",
        "left idle in a transaction 20 0",
        "20 and 0 connections were lost for it",
        "from 100 before to 0 at the end without Forebay, and from 100 to 98 with it",
        "Cancellation storm, without Forebay, failed: 3 x no connection.",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}
