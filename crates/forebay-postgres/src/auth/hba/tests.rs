use std::path::Path;

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Hba {
    Hba::parse(text, Path::new("hba.conf")).unwrap()
}

fn wrong(line: &str) -> String {
    let text = format!("# first\n{line}\n");
    let error = Hba::parse(&text, Path::new("/etc/hba.conf")).unwrap_err().to_string();
    assert!(error.starts_with("/etc/hba.conf, line 2: "), "{error}");
    error
}

/// The line that fits, and its method.
fn line(hba: &Hba, from: From, user: &str, database: &str) -> Option<usize> {
    let wish = Wish { user, database, replicates: Replicates::No };
    hba.rule(from, wish).map(|rule| rule.line)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_first_line_that_fits_decides() {
    let hba = read(
        "local all all peer map=m\n\
         hostssl all ann 10.0.0.0/8 cert\n\
         hostnossl \"all\" all 10.0.0.0/8 md5\n\
         host sameuser all 10.1.0.0 255.255.0.0 scram-sha-256\n\
         host app,/^test_ bob,/^ci_ ::1/128 password\n\
         host all all 0.0.0.0/0 reject\n",
    );
    let (plain, tls) = (From::Plain(ip("10.1.2.3")), From::Tls(ip("10.1.2.3")));
    assert_eq!(line(&hba, From::Local, "x", "y"), Some(1));
    assert_eq!(line(&hba, tls, "ann", "y"), Some(2));
    assert_eq!(line(&hba, plain, "ann", "y"), Some(6));
    // In quotes it is a database of that name.
    assert_eq!(line(&hba, plain, "ann", "all"), Some(3));
    assert_eq!(line(&hba, plain, "ann", "ann"), Some(4));
    let v6 = From::Plain(ip("::1"));
    assert_eq!(line(&hba, v6, "bob", "app"), Some(5));
    assert_eq!(line(&hba, v6, "ci_7", "test_1"), Some(5));
    assert_eq!(line(&hba, v6, "eve", "app"), None);
    // A v4 client of a v6 socket.
    assert_eq!(line(&hba, From::Tls(ip("::ffff:10.9.9.9")), "ann", "y"), Some(2));
}

#[test]
fn replication_needs_a_line_of_its_own() {
    let hba = read("host all all all trust\nhost replication all all md5");
    let rule = |replicates| {
        let wish = Wish { user: "u", database: "d", replicates };
        hba.rule(From::Plain(ip("127.0.0.1")), wish).map(|rule| rule.line)
    };
    assert_eq!(rule(Replicates::No), Some(1));
    assert_eq!(rule(Replicates::Database), Some(1));
    assert_eq!(rule(Replicates::Server), Some(2));
}

#[test]
fn this_machines_addresses_are_known() {
    let hba = read("host all all samehost trust\nhost all all samenet md5\n");
    assert_eq!(line(&hba, From::Plain(ip("127.0.0.1")), "u", "d"), Some(1));
    assert_eq!(line(&hba, From::Plain(ip("127.9.9.9")), "u", "d"), Some(2));
    assert_eq!(line(&hba, From::Plain(ip("203.0.113.9")), "u", "d"), None);
}

#[test]
fn a_wrong_line_is_an_error_that_names_file_and_line() {
    for bad in [
        "host",
        "tcp all all all trust",
        "host all all trust",
        "host all all example.com trust",
        "host all all 10.0.0.0/33 trust",
        "host all all 10.0.0.0 ::1 trust",
        "host all all 10.0.0.0 trust",
        "host all all all magic",
        "host all all all peer",
        "host all all all cert",
        "host all all all md5 clientcert=verify-ca",
        "hostssl all all all cert clientcert=verify-ca",
        "host all all all md5 map",
        "host all all all md5 map=x",
        "host samerole all all md5",
        "host all +admins all reject",
        "host all /( all md5",
        "host all @none all md5",
        "host all \"all all md5",
        "include other.conf",
    ] {
        wrong(bad);
    }
    assert!(wrong("host all all all magic").contains("magic"));
}

#[test]
fn a_line_for_roles_fits_nobody() {
    let hba = read("host all +admins all trust\nhost all +admins,bob all md5\n");
    let from = From::Plain(ip("127.0.0.1"));
    assert_eq!(line(&hba, from, "+admins", "d"), None);
    assert_eq!(line(&hba, from, "bob", "d"), Some(2));
}

#[test]
fn what_a_line_demands() {
    let hba = read(
        "hostssl all all all cert map=m\nhostssl all all all md5 clientcert=verify-ca\n\
         host all all all ldap ldapserver=\"x y\"\nlocal all all ident map=p\n",
    );
    let demands: Vec<_> = hba.rules().map(|rule| rule.demand.clone()).collect();
    let demand = |method, map: Option<&str>, certificate| Demand {
        method,
        map: map.map(Arc::from),
        certificate,
    };
    let expected = [
        demand(Method::Cert, Some("m"), Certificate::Named),
        demand(Method::Md5, None, Certificate::Trusted),
        demand(Method::Unsupported("ldap".into()), None, Certificate::NotNeeded),
        demand(Method::Peer, Some("p"), Certificate::NotNeeded),
    ];
    assert_eq!(demands, expected);
}

proptest! {
    #[test]
    fn no_file_breaks_the_reader(text in "(host|local|all|md5|[ \"@,/+=0-9.:\n]){0,40}") {
        let _ = Hba::parse(&text, Path::new("/nonexistent/hba.conf")).is_ok();
    }
}
