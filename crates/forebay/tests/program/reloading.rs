//! A running program reads its configuration again.

use nix::sys::signal::Signal;

use crate::running::{Running, post, slow_service};

const DONE: &str = "the configuration was reloaded";

fn reload(program: &Running) -> crate::running::Answer {
    post(program.admin, "/api/v1/reload", "application/json", "{}")
}

#[test]
fn sighup_and_the_admin_port_reload_and_say_what_changed() {
    let service = slow_service();
    let program = Running::with("stop_timeout = \"3s\"\n", service.address, "");
    program.rewrite(|text| text.replace("\"3s\"", "\"4s\""));
    program.signal(Signal::SIGHUP);
    let told = program.logged(DONE);
    assert_eq!(
        (told["cause"].as_str(), told["changed"].as_str()),
        (Some("SIGHUP"), Some("stop_timeout"))
    );
    program.rewrite(|text| text.replace("hosts = [\"forebay.internal\"]", "hosts = []"));
    let answer = reload(&program);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let outcome: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(outcome["changed"], serde_json::json!(["admin.hosts[0]"]));
    assert_eq!(outcome["needs_restart"], serde_json::json!(["admin.hosts[0]"]));
    let metrics = program.ask("/metrics").body;
    assert!(metrics.contains("forebay_config_reloads_total{outcome=\"reloaded\"} 2"), "{metrics}");
    assert!(metrics.contains("forebay_config_needs_restart 1"), "{metrics}");
}

#[test]
fn a_file_that_is_broken_changes_nothing_and_all_that_is_wrong_is_said() {
    let service = slow_service();
    let program = Running::with("", service.address, "");
    program.rewrite(|text| format!("nonsense = 1\nworker_threads = 0\n{text}"));
    let answer = reload(&program);
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains("nonsense") && answer.body.contains(":1:1"), "{}", answer.body);
    program.rewrite(|text| text.replace("nonsense = 1\n", ""));
    let answer = reload(&program);
    assert!(answer.body.contains("worker_threads"), "{}", answer.body);
    let metrics = program.ask("/metrics").body;
    assert!(metrics.contains("forebay_config_reloads_total{outcome=\"failed\"} 2"), "{metrics}");
}

#[test]
fn a_changed_file_is_noticed_also_behind_a_link_that_is_swapped() {
    let service = slow_service();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("one"), "1").unwrap();
    std::os::unix::fs::symlink(at("one"), at("secret")).unwrap();
    let key = format!(
        "[reload]\nwatch = \"20ms\"\n[http.tenants.a]\nkey = \"file:{}\"\n",
        at("secret").display()
    );
    let program = Running::towards(service.address, &key);
    std::fs::write(at("two"), "2").unwrap();
    std::os::unix::fs::symlink(at("two"), at("next")).unwrap();
    std::fs::rename(at("next"), at("secret")).unwrap();
    assert_eq!(program.logged(DONE)["cause"], "a file changed");
    program.rewrite(|text| format!("stop_timeout = \"9s\"\n{text}"));
    assert_eq!(program.logged(DONE)["changed"], "stop_timeout");
}

#[test]
fn a_destination_that_is_added_is_there_without_a_restart() {
    let service = slow_service();
    let program = Running::with("", service.address, "");
    let more = format!("\n[http.destinations.second]\nurl = \"http://{}\"\n", service.address);
    program.rewrite(|text| format!("{text}{more}"));
    let answer = reload(&program);
    let outcome: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(outcome["http"]["opened"], serde_json::json!(["second"]), "{}", answer.body);
    assert_eq!(outcome["needs_restart"], serde_json::json!([]));
    let told = program.logged(DONE);
    assert_eq!(told["destinations_opened"], "second");
}
