//! The engine's example for PostgreSQL runs as its first lines say, and shows what it promises.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::process::{Command, Output};

use forebay::demo::cluster::{Cluster, ClusterSettings};
use forebay::demo::postgres_binaries;

fn example(dsn: &str) -> Output {
    Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "-p", "forebay-pool", "--example", "tokio_postgres"])
        .args(["--", dsn])
        .output()
        .unwrap()
}

#[test]
fn a_cancelled_lease_of_the_example_comes_home_as_good_as_new() {
    let settings = ClusterSettings { max_connections: 20, ..ClusterSettings::default() };
    let cluster = Cluster::start(&postgres_binaries::find().unwrap(), settings).unwrap();
    let output = example(&cluster.dsn());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for promise in [
        "the caller left: true",
        "the same connection serves again: true",
        "nothing is left of it: true",
        "budget 14, ",
        "unclean 0",
        "ai-read: 25 leases",
        "core: 3 leases",
    ] {
        assert!(said.contains(promise), "no `{promise}` in:\n{said}");
    }

    let wrong = cluster.dsn().replacen(cluster.password(), "wrong", 1);
    let complaint = String::from_utf8(example(&wrong).stderr).unwrap();
    assert!(complaint.contains("Denied"), "a wrong password is no outage: {complaint}");
    assert!(!complaint.contains("wrong"), "the password is not shown: {complaint}");
}
