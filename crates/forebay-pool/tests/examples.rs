//! The example that needs nothing runs as its first line says, and shows what it promises.
//! The other one needs a PostgreSQL: the program's tests run it.

use std::process::Command;

#[test]
fn the_https_example_runs_and_keeps_its_connections_alive() {
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "-p", "forebay-pool", "--example", "hyper_tls"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    let line = |start: &str| {
        let found = said.lines().find_map(|line| line.strip_prefix(start));
        found.unwrap_or_else(|| panic!("no line `{start}…` in:\n{said}"))
    };
    let handshakes = line("20 crawls, ").strip_suffix(" handshakes");
    let handshakes: u32 = handshakes.and_then(|number| number.parse().ok()).unwrap();
    assert!((1..=4).contains(&handshakes), "a budget of four, and kept alive:\n{said}");
    assert!(line("the service hung up: ").starts_with("1 closed"), "{said}");
    assert!(line("crawlers: ").starts_with("20 leases"), "{said}");
    assert!(line("people: ").starts_with("7 leases"), "{said}");
}
