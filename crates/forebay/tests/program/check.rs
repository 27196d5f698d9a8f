//! `forebay check`, and the exit codes.

use std::net::TcpListener;
use std::process::Output;

use crate::running::{file, forebay};

fn check(text: &str) -> (Output, String, String) {
    let file = file(text);
    let output = forebay().arg("check").arg(&file.path).output().unwrap();
    let of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (of(&output.stdout), of(&output.stderr));
    (output, out, err)
}

#[test]
fn a_good_configuration_is_summed_up() {
    let (output, out, err) = check(
        "[http.destinations.llm]\nurl = \"https://llm.example\"\ndocumented_limit = 100\n\
         auth = { type = \"bearer\", secret = \"hunter2\" }\n",
    );
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
    assert!(out.contains("forebay.toml: ok\n"), "{out}");
    assert!(
        out.contains("destination llm (https://llm.example): budget 70, a bearer key"),
        "{out}"
    );
    assert!(!out.contains("hunter2"), "{out}");
}

#[test]
fn a_wrong_configuration_says_where_what_and_what_would_be_right_and_exits_with_2() {
    let (output, out, err) = check(
        "[http.destinations.llm]\nurl = \"https://llm.example\"\nbugdet = 5\nwarm_up = 200\n",
    );
    assert_eq!((output.status.code(), out.as_str()), (Some(2), ""));
    assert!(err.contains("forebay.toml:3:1: http.destinations.llm.bugdet: "), "{err}");
    assert!(err.contains("did you mean `budget`?"), "{err}");
    assert!(err.ends_with("forebay.toml: 1 error\n"), "{err}");
}

#[test]
fn the_modes_of_a_class_are_shown_and_one_that_is_none_is_refused_with_its_line() {
    let class = |mode: &str| {
        check(&format!(
            "[http.destinations.llm]\nurl = \"https://llm.example\"\nshed_from = 70\n\
             [http.destinations.llm.classes.core]\nkind = \"core\"\nmode = \"{mode}\"\n\
             max_requests = 9\npolicies = {{ shedding = \"off\" }}\n"
        ))
    };
    let (output, out, err) = class("enforce");
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
    assert!(out.contains("9 requests at most; enforce (shedding off)\n"), "{out}");
    let (output, _, err) = class("on");
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("forebay.toml:6:8: http.destinations.llm.classes.core.mode: "), "{err}");
}

#[test]
fn a_timetable_that_cannot_be_followed_is_refused_with_its_line() {
    let window = |lines: &str| {
        check(&format!(
            "[http.destinations.llm]\nurl = \"https://llm.example\"\n\
             [[http.destinations.llm.timetable]]\n{lines}\n"
        ))
    };
    let good =
        "from = \"0 8 * * MON-FRI\"\nfor = \"10h\"\ntime_zone = \"Europe/Berlin\"\nbudget = 80";
    assert_eq!(window(good).2, "");
    for (key, line, bad, says) in [
        ("from", 4, "from = \"0 8 * *\"", "is no cron expression"),
        ("for", 5, "for = \"0s\"", "a window lasts for some time"),
        ("time_zone", 6, "time_zone = \"Europe/Bärlin\"", "is no time zone"),
        ("budget", 7, "budget = 0", "at least one connection"),
    ] {
        let at = |line: &&str| line.starts_with(&format!("{key} ="));
        let lines: Vec<_> = good.lines().map(|l| if at(&l) { bad } else { l }).collect();
        let (output, _, err) = window(&lines.join("\n"));
        assert_eq!(output.status.code(), Some(2), "{err}");
        let place = format!("forebay.toml:{line}:");
        assert!(err.contains(&place) && err.contains(says), "{err}");
        assert!(err.contains(&format!("http.destinations.llm.timetable[0].{key}: ")), "{err}");
    }
    let (_, _, err) = check(
        "[postgres]\nauth = \"trust\"\n[postgres.servers.main]\naddress = \"db\"\n\
         [[postgres.servers.main.timetable]]\nfrom = \"0 8 * * *\"\nfor = \"1h\"\n\
         time_zone = \"Mars/Olympus\"\nbudget = 8\n",
    );
    assert!(err.contains("forebay.toml:8:"), "{err}");
    assert!(err.contains("postgres.servers.main.timetable[0].time_zone: "), "{err}");
}

#[test]
fn a_file_that_is_not_there_exits_with_2() {
    let output = forebay().args(["check", "/no/such/forebay.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/forebay.toml"));
    let output = forebay().args(["run", "/no/such/forebay.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [&["walk"][..], &["run"], &["check", "a", "b"]] {
        assert_eq!(forebay().args(args).output().unwrap().status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let file = file(&format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"{address}\"\n\
         [http.destinations.a]\nurl = \"http://127.0.0.1:9\"\n"
    ));
    let output = forebay().arg("run").arg(&file.path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {address} (`http.listen`)")), "{said}");
    assert!(said.contains("choose another port"), "{said}");
}

#[test]
fn the_smallest_configuration_of_the_reference_is_good() {
    let reference = forebay().args(["config", "reference"]).output().unwrap();
    let text = String::from_utf8(reference.stdout).unwrap();
    let example = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let file = file(example);
    let output = forebay().env("APP_PASSWORD", "pw").arg("check").arg(&file.path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_workload_is_sized_with_its_arithmetic() {
    let args = ["size", "--arrivals", "10", "--hold", "200ms", "--fan-out", "5", "--burst", "100"];
    let output = forebay().args(args).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("answer               8 connections"), "{said}");
    let wrong = forebay().args(["size", "--arrivals", "0", "--hold", "1s"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
