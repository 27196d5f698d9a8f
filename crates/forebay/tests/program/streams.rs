//! Events and pressure, as orchestrators hear of them.

use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::running::{Running, ask, forebay, listen, post, put, slow_service};

const JSON: &str = "application/json";
const EVENTS: &str = "/api/v1/events";
const PRESSURE: &str = "/api/v1/pressure/stream";
const RENEW: &str = "/api/v1/pools/http/llm/renew";

#[test]
fn what_happens_is_told_and_logged_as_it_happens() {
    let program = Running::towards(slow_service().address, "budget = 40");
    let mut events = listen(program.admin, EVENTS);
    put(program.admin, "/api/v1/pools/http/llm/budget", JSON, "{\"budget\": 7}");
    let event = events.wait_for("resized");
    assert_eq!((&event["gateway"], &event["destination"]), (&"http".into(), &"llm".into()));
    assert_eq!((&event["from"], &event["to"]), (&40.into(), &7.into()));
    let line = program.logged("the budget of a destination changed");
    assert_eq!((&line["event"], &line["destination"]), (&"resized".into(), &"llm".into()));
    assert_eq!((&line["from"], &line["to"]), (&40.into(), &7.into()));
}

#[test]
fn a_hold_beyond_the_limit_is_told_with_what_it_is() {
    let service = slow_service();
    let program = Running::towards(service.address, "hold_limit = \"200ms\"");
    let mut events = listen(program.admin, EVENTS);
    let http = program.http;
    let call = thread::spawn(move || ask(http, "/llm/v1/models", ""));
    let event = events.wait_for("long_hold");
    assert_eq!((&event["class"], &event["destination"]), (&"core".into(), &"llm".into()));
    assert!(event["held"].as_f64().unwrap() >= 0.2, "{event}");
    service.answer.send(()).unwrap();
    assert_eq!(call.join().unwrap().status, 200);
    let line = "forebay_class_long_holds_total{gateway=\"http\",destination=\"llm\",\
                class=\"core\"} 1\n";
    assert!(program.ask("/metrics").body.contains(line));
}

#[test]
fn a_report_on_holds_is_printed_from_a_program_that_runs() {
    let program = Running::towards(slow_service().address, "");
    let report = |url: &str, format: &str| {
        let args = ["report", "holds", "--url", url, "--format", format];
        forebay().args(args).output().unwrap()
    };
    let url = format!("http://{}", program.admin);
    let printed = |format| String::from_utf8(report(&url, format).stdout).unwrap();
    assert!(printed("text").starts_with("Holds of the last "), "{}", printed("text"));
    assert!(printed("markdown").starts_with("# Holds of the last "));
    let page: Value = serde_json::from_str(&printed("json")).unwrap();
    assert_eq!(page["report"]["features"], Value::Array(Vec::new()));
    for (url, says) in [("ftp://x", "admin.listen"), ("http://127.0.0.1:1", "does Forebay run")] {
        let failed = report(url, "text");
        assert_eq!(failed.status.code(), Some(1));
        let told = String::from_utf8(failed.stderr).unwrap();
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn the_pressure_is_told_when_it_moves() {
    let service = slow_service();
    let program = Running::towards(service.address, "budget = 1");
    let now: Value = serde_json::from_str(&program.ask("/api/v1/pressure").body).unwrap();
    let [class] = &now["classes"].as_array().unwrap()[..] else { panic!("one class: {now}") };
    assert_eq!((&class["gateway"], &class["class"]), (&"http".into(), &"core".into()));
    assert_eq!((&class["retry_after_ms"], &class["shedding"]), (&Value::Null, &"observe".into()));

    let mut plain = listen(program.admin, "/api/v1/pressure");
    assert_eq!(plain.next().unwrap().1, now, "for who accepts events");
    let mut stream = listen(program.admin, PRESSURE);
    assert_eq!(stream.next().unwrap().1, now, "first all of it");
    let http = program.http;
    let call = thread::spawn(move || ask(http, "/llm/v1/models", ""));
    let mut pressed = stream.wait_for("pressure");
    while pressed["classes"][0]["pressure"].as_f64().unwrap() < 0.9 {
        pressed = stream.wait_for("pressure");
    }
    assert!(pressed["classes"][0]["retry_after_ms"].as_u64().unwrap() >= 20, "{pressed}");
    service.answer.send(()).unwrap();
    call.join().unwrap();
    while pressed["classes"][0]["pressure"].as_f64().unwrap() > 0.5 {
        pressed = stream.wait_for("pressure");
    }
    assert_eq!(pressed["classes"][0]["retry_after_ms"], Value::Null);
}

#[test]
fn a_client_that_leaves_makes_room_for_another() {
    let program = Running::towards(slow_service().address, "");
    let mut listeners: Vec<_> = (0..16).map(|_| listen(program.admin, EVENTS)).collect();
    assert!(listeners.iter().all(|listener| listener.status == 200));
    assert_eq!(listen(program.admin, PRESSURE).status, 503);
    assert_eq!(program.ask("/healthz").status, 200, "others are answered");
    listeners.pop();
    // The program sees the departure when it looks at the connection, which is soon.
    while listen(program.admin, PRESSURE).status != 200 {
        thread::yield_now();
    }
}

#[test]
fn streams_end_properly_when_the_program_does() {
    let mut program = Running::towards(slow_service().address, "");
    let mut events = listen(program.admin, EVENTS);
    let mut pressure = listen(program.admin, PRESSURE);
    program.signal(Signal::SIGTERM);
    while events.next().is_some() {}
    while pressure.next().is_some() {}
    assert!(program.wait().success());
}

#[test]
fn connections_are_renewed_by_hand() {
    let program = Running::towards(slow_service().address, "budget = 4");
    while program.ask("/readyz").status != 200 {
        thread::yield_now();
    }
    let mut events = listen(program.admin, EVENTS);
    let answer = post(program.admin, RENEW, JSON, "{}");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let said: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&said["destination"], &said["renewed"]), (&"llm".into(), &1.into()));
    assert_eq!(events.wait_for("renewed")["destination"], "llm");
    let line = "forebay_connections_closed_total{gateway=\"http\",destination=\"llm\",\
                reason=\"renewed\"} 1\n";
    assert!(program.ask("/metrics").body.contains(line));
}

#[test]
fn a_renewal_that_makes_no_sense_changes_nothing_and_is_told_why() {
    let program = Running::towards(slow_service().address, "");
    for (path, content_type, body, status, says) in [
        // What a form of a web page can send without being asked first.
        (RENEW, "text/plain", "{}", 415, "content-type: application/json"),
        (RENEW, JSON, "{\"all\": true}", 422, "unknown field `all`"),
        (RENEW, JSON, "", 400, "{}"),
        ("/api/v1/pools/http/nowhere/renew", JSON, "{}", 404, "no such pool"),
        ("/api/v1/pools/smtp/llm/renew", JSON, "{}", 404, "no such pool"),
    ] {
        let answer = post(program.admin, path, content_type, body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(answer.body.contains(says), "{path} {body}: {}", answer.body);
    }
    assert_eq!(program.ask(RENEW).status, 405);
}
