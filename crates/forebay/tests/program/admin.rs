//! What operators and their tools look at.

use std::net::SocketAddr;

use serde_json::Value;

use crate::running::{Running, ask, put, slow_service};

#[test]
fn a_running_program_shows_the_same_figures_everywhere() {
    let service = slow_service();
    let program = Running::towards(service.address, "");
    service.answer.send(()).unwrap();
    let answer = ask(program.http, "/llm/v1/models", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));

    assert_eq!(program.ask("/healthz").body, "ok\n");
    let metrics = program.ask("/metrics");
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let line = "forebay_http_answers_total{destination=\"llm\",status=\"2xx\"} 1\n";
    assert!(metrics.body.contains(line), "{}", metrics.body);
    let snapshot: Value = serde_json::from_str(&program.ask("/api/v1/snapshot").body).unwrap();
    assert_eq!(snapshot["http"]["destinations"][0]["answers"]["success"], 1);
    assert_eq!(snapshot["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(snapshot["postgres"], Value::Null);
}

#[test]
fn a_reader_that_wants_openmetrics_gets_it() {
    let program = Running::towards(slow_service().address, "");
    let answer = ask(program.admin, "/metrics", "Accept: application/openmetrics-text\r\n");
    assert!(answer.headers["content-type"].starts_with("application/openmetrics-text"));
    assert!(answer.body.ends_with("# EOF\n"));
}

#[test]
fn a_name_that_a_web_page_could_have_pointed_here_is_refused() {
    let program = Running::towards(slow_service().address, "");
    for (headers, status) in [
        ("Host: evil.example\r\n", 403),
        ("Host: forebay.internal:6490\r\n", 200),
        ("Host: localhost\r\n", 200),
        ("Origin: http://evil.example\r\n", 403),
    ] {
        assert_eq!(ask(program.admin, "/healthz", headers).status, status, "{headers}");
    }
}

#[test]
fn an_unknown_page_names_those_that_there_are() {
    let program = Running::towards(slow_service().address, "");
    let answer = program.ask("/metricz");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("/metrics"));
}

#[test]
fn a_service_that_cannot_be_reached_keeps_the_program_from_being_ready() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let auth = "auth = { type = \"bearer\", secret = \"x\" }";
    let program = Running::towards(nobody, auth);
    let answer = program.ask("/readyz");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("http `llm` is not warm"), "{}", answer.body);
    assert_eq!(program.ask("/healthz").status, 200);
}

const BUDGET: &str = "/api/v1/pools/http/llm/budget";
const JSON: &str = "application/json";

#[test]
fn a_budget_is_set_by_hand_and_taken_back() {
    let program = Running::towards(slow_service().address, "budget = 40");
    let answer = put(program.admin, BUDGET, JSON, "{\"budget\": 7}");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let said: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&said["budget"], &said["wanted"]["configured"]), (&7.into(), &40.into()));
    let metrics = program.ask("/metrics").body;
    let labels = "{gateway=\"http\",destination=\"llm\"";
    assert!(metrics.contains(&format!("forebay_budget{labels}}} 7\n")), "{metrics}");
    let by_hand = format!("forebay_budget_wanted{labels},by=\"hand\"}} 7\n");
    assert!(metrics.contains(&by_hand), "{metrics}");
    let answer = put(program.admin, BUDGET, JSON, "{\"budget\": null}");
    let said: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&said["budget"], &said["wanted"]["by_hand"]), (&40.into(), &Value::Null));
}

#[test]
fn a_budget_that_makes_no_sense_changes_nothing_and_is_told_why() {
    let program = Running::towards(slow_service().address, "budget = 40");
    for (path, content_type, body, status, says) in [
        // What a form of a web page can send without being asked first.
        (BUDGET, "text/plain", "{\"budget\": 7}", 415, "content-type: application/json"),
        (BUDGET, JSON, "{\"budget\": 0}", 422, "at least one"),
        (BUDGET, JSON, "{\"budget\": -1}", 422, "{\"budget\": 80}"),
        (BUDGET, JSON, "{}", 422, "missing field `budget`"),
        (BUDGET, JSON, "{\"bugdet\": 7}", 422, "unknown field `bugdet`"),
        (BUDGET, JSON, "7", 422, "{\"budget\": 80}"),
        (BUDGET, JSON, "{\"budget\":", 400, "{\"budget\": 80}"),
        ("/api/v1/pools/http/other/budget", JSON, "{\"budget\": 7}", 404, "no such pool"),
        ("/api/v1/pools/smtp/llm/budget", JSON, "{\"budget\": 7}", 404, "no such pool"),
    ] {
        let answer = put(program.admin, path, content_type, body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(answer.body.contains(says), "{path} {body}: {}", answer.body);
    }
    let long = format!("{{\"budget\": {}7}}", " ".repeat(2_000));
    assert_eq!(put(program.admin, BUDGET, JSON, &long).status, 413);
    assert_eq!(ask(program.admin, BUDGET, "").status, 405);
    let snapshot: Value = serde_json::from_str(&program.ask("/api/v1/snapshot").body).unwrap();
    assert_eq!(snapshot["http"]["pools"][0]["budget"], 40);
}

#[test]
fn a_window_that_is_always_open_sets_the_budget() {
    let more = "budget = 40\n\
                [[http.destinations.llm.timetable]]\nfrom = \"* * * * *\"\nfor = \"1h\"\n\
                time_zone = \"Europe/Berlin\"\nbudget = 60\n";
    let program = Running::towards(slow_service().address, more);
    let snapshot: Value = serde_json::from_str(&program.ask("/api/v1/snapshot").body).unwrap();
    let pool = &snapshot["http"]["pools"][0];
    assert_eq!((&pool["budget"], &pool["wanted"]["window"]), (&60.into(), &60.into()));
}
