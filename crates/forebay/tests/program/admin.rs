//! What operators and their tools look at.

use std::net::SocketAddr;

use serde_json::Value;

use crate::running::{Running, ask, slow_service};

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
