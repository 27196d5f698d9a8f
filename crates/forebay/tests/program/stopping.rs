//! How the program ends.

use nix::sys::signal::Signal;

use crate::running::{LONG, Running, ask, slow_service};

#[test]
fn sigterm_lets_a_running_call_finish() {
    let service = slow_service();
    let mut program = Running::towards(service.address, "");
    let http = program.http;
    let call = std::thread::spawn(move || ask(http, "/llm/slow", ""));
    service.arrived.recv_timeout(LONG).unwrap();

    program.signal(Signal::SIGTERM);
    let stopping = program.logged("stopping: running work may finish");
    assert_eq!(
        (stopping["signal"].as_str(), stopping["leases"].as_u64()),
        (Some("SIGTERM"), Some(1))
    );
    let ready = program.ask("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("the program is stopping"), "{}", ready.body);

    service.answer.send(()).unwrap();
    assert_eq!(call.join().unwrap().body, "done");
    let stopped = program.logged("Forebay has stopped");
    assert_eq!(stopped["outcome"], "all work had finished");
    assert_eq!(
        (stopped["leases"].as_u64(), stopped["leases_cut_off"].as_u64()),
        (Some(1), Some(0))
    );
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn the_deadline_cuts_off_what_still_runs() {
    let service = slow_service();
    let mut program = Running::with("stop_timeout = \"200ms\"\n", service.address, "");
    let http = program.http;
    let call = std::thread::spawn(move || std::panic::catch_unwind(|| ask(http, "/llm/slow", "")));
    service.arrived.recv_timeout(LONG).unwrap();

    program.signal(Signal::SIGTERM);
    let stopped = program.logged("Forebay has stopped");
    assert_eq!(stopped["outcome"], "the deadline cut off what still ran");
    assert_eq!(stopped["leases_cut_off"].as_u64(), Some(1));
    assert_eq!(program.wait().code(), Some(0));
    assert!(call.join().unwrap().is_err(), "the call was cut off");
}

#[test]
fn a_second_signal_does_not_wait() {
    let service = slow_service();
    let mut program = Running::towards(service.address, "");
    let http = program.http;
    let call = std::thread::spawn(move || std::panic::catch_unwind(|| ask(http, "/llm/slow", "")));
    service.arrived.recv_timeout(LONG).unwrap();

    program.signal(Signal::SIGINT);
    program.logged("stopping: running work may finish");
    program.signal(Signal::SIGTERM);
    let stopped = program.logged("Forebay has stopped");
    assert_eq!(stopped["outcome"], "a second signal cut off what still ran");
    assert_eq!(program.wait().code(), Some(0));
    assert!(call.join().unwrap().is_err(), "the call was cut off");
}

#[test]
fn sighup_is_no_reason_to_end() {
    let program = Running::towards(slow_service().address, "");
    program.signal(Signal::SIGHUP);
    program.logged("the configuration was reloaded");
    assert_eq!(program.ask("/healthz").status, 200);
}
