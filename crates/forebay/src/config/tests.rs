use super::*;

fn parse(text: &str) -> Result<Config, Report> {
    let environment = |name: &str| match name {
        "HOST" => Some("db.internal".to_owned()),
        "BUDGET" => Some("40".to_owned()),
        "PW" => Some("hunter2".to_owned()),
        _ => None,
    };
    Config::parse(Path::new("forebay.toml"), text, &environment)
}

/// What is said about `text`, which must be wrong.
fn said(text: &str) -> String {
    parse(text).expect_err("it is wrong").to_string()
}

const SERVER: &str = "[postgres.servers.main]\naddress = \"db:5432\"\n";
const USERS: &str = "[postgres.users]\napp = { password = \"pw\" }\n";

fn good_with(more: &str) -> String {
    format!("{SERVER}{more}\n{USERS}")
}

#[test]
fn a_server_and_a_user_suffice() {
    let config = parse(&good_with("")).unwrap();
    let postgres = config.postgres.unwrap();
    assert_eq!(postgres.listen.to_string(), "127.0.0.1:6432");
    assert_eq!(config.admin.listen.port(), 6490);
    assert!(config.http.is_none());
}

#[test]
fn nothing_to_do_is_an_error_that_says_what_to_write() {
    assert!(said("").contains("[postgres.servers.NAME]"));
    assert!(said("[admin]\n").contains("nothing to do"));
}

#[test]
fn a_misspelt_key_is_named_with_line_column_and_suggestion() {
    let said = said(&good_with("bugdet = 5"));
    assert!(said.starts_with("forebay.toml:3:1: postgres.servers.main.bugdet: "), "{said}");
    assert!(said.contains("unknown key `bugdet`; did you mean `budget`?"), "{said}");
    assert!(said.contains("3 | bugdet = .\n  | ^^^^^^\n"), "{said}");
}

#[test]
fn a_misspelt_table_is_named() {
    let said = said("[postgre.servers.main]\naddress = \"db\"\n");
    assert!(said.contains("forebay.toml:1:2: postgre: unknown key `postgre`; did you mean"));
}

#[test]
fn all_mistakes_that_the_gateway_finds_by_itself_are_told_at_once() {
    let wrong = "address = \"db\"\nsslmode = \"prefer\"\nsslnegotiation = \"direct\"\n";
    let said = said(&format!(
        "[postgres]\ntcp_keepcnt = 0\n[postgres.servers.a]\n{wrong}[postgres.servers.b]\n{wrong}\
         [postgres.databases.x]\nserver = \"a\"\n[postgres.databases.pgbouncer]\nserver = \"b\"\n\
         {USERS}"
    ));
    for key in ["tcp_keepcnt", "servers.a.sslnegotiation", "servers.b.sslnegotiation", "pgbouncer"]
    {
        assert!(said.contains(&format!(".{key}: ")), "{key}: {said}");
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let report = parse(
        "[postgres]\nlisten = \"here\"\npool_mode = \"statement\"\nmax_clients = -1\n\
         [postgres.servers.main]\nadress = \"db\"\nidle_ttl = 5\n\
         [http.destinations.llm]\nretries = 3\n",
    )
    .unwrap_err();
    let at: Vec<_> = report.problems().iter().map(|p| p.at.as_str()).collect();
    assert_eq!(
        at,
        [
            "postgres.listen",
            "postgres.pool_mode",
            "postgres.max_clients",
            "postgres.servers.main.adress",
            "postgres.servers.main.idle_ttl",
            "http.destinations.llm",
            "http.destinations.llm.retries",
        ],
        "{report}"
    );
    let said = report.to_string();
    assert!(said.contains("such as \"127.0.0.1:6432\""), "{said}");
    assert!(said.contains("`statement` is not possible; possible are `transaction`, `session`"));
    assert!(said.contains("the key `url` is missing"), "{said}");
    assert!(said.contains("expected a duration, such as"), "{said}");
}

#[test]
fn a_mistake_inside_a_credential_is_found_at_its_key() {
    let said = said(
        "[http.destinations.llm]\nurl = \"https://llm\"\n\
         auth = { type = \"bearer\", secrt = \"hunter2\" }\n",
    );
    assert!(said.contains("http.destinations.llm.auth.secrt: unknown key `secrt`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn broken_toml_is_shown_with_its_place() {
    let said = said("[postgres]\nlisten = 127.0.0.1\n");
    assert!(said.contains("forebay.toml:2:"), "{said}");
    assert!(said.contains("2 | listen = 127.0.0.1\n"), "{said}");
}

#[test]
fn secrets_are_never_shown_however_the_file_is_wrong() {
    for text in [
        "[postgres.users]\napp = { password = \"hunter2\", tenant = 5 }\n",
        "[postgres.users]\napp = { password = \"hunter2\" x }\n",
        "[postgres.users]\napp = { pasword = \"hunter2\" }\n",
        "[postgres.users.app]\npassword = hunter2\n",
        "[postgres.users.app]\npassword = \"hunter2\n",
        "[postgres.users.app]\npassword = \"\"\"hunter2\nhunter2\n",
        "[postgres.users.app]\npassword = [\"hunter2\"]\n",
        "[postgres.users.app]\ntenant = \"${PW}\"\npool_mode = \"${PW}\"\n",
        "[postgres]\npool_mode = \"${PW}\"\n",
        "[http.destinations.a]\nurl = \"x\"\nauth = { type = \"bearer\", secret = \"hunter2\" }\n",
    ] {
        let said = said(text);
        assert!(!said.contains("hunter2"), "{text}\n{said}");
    }
}

#[test]
fn variables_of_the_environment_are_put_in() {
    let text = "[postgres.servers.main]\naddress = \"${HOST}:6000\"\nbudget = \"${BUDGET}\"\n";
    let config = parse(&format!("{text}{USERS}")).unwrap();
    let server = &config.postgres.unwrap().servers["main"];
    assert_eq!((server.address.as_str(), server.budget), ("db.internal:6000", Some(40)));
}

#[test]
fn a_variable_that_is_not_set_is_named_with_its_line() {
    let said = said("[postgres.servers.main]\naddress = \"${NO_SUCH}\"\n");
    assert!(said.starts_with("forebay.toml:2:11: postgres.servers.main.address: "), "{said}");
    assert!(said.contains("`NO_SUCH` is not set"), "{said}");
}

#[test]
fn two_dollars_stand_for_one() {
    let text = "[http.destinations.a]\nurl = \"https://a\"\n[http.destinations.a.auth]\n\
                type = \"header\"\nname = \"x\"\nsecret = \"a$${b}\"\n";
    let config = parse(text).unwrap();
    let auth = config.http.unwrap().destinations["a"].auth.clone();
    let Some(forebay_http::settings::CredentialSettings::Header { secret, .. }) = auth else {
        panic!("a header")
    };
    let secret = secret.read().unwrap();
    assert_eq!(forebay_seam::secret::ExposeSecret::expose_secret(&secret), "a${b}");
    assert!(said(&text.replace("$${b}", "${b")).contains("write `${NAME}`"));
}

#[test]
fn promises_above_the_budget_are_found() {
    let said = said(&good_with(
        "budget = 10\n[postgres.servers.main.classes]\n\
         core = { kind = \"core\", guarantee = 8 }\nai-read = { guarantee = \"30%\" }",
    ));
    assert!(said.contains("the guarantees sum to 11, but the budget is 10"), "{said}");
    assert!(said.contains("forebay.toml:4:"), "{said}");
}

#[test]
fn a_share_that_is_none_says_how_one_looks() {
    let said = said(&good_with(
        "[postgres.servers.main.classes]\ncore = { kind = \"core\", guarantee = true }",
    ));
    assert!(said.contains("\"50% of ai_share\""), "{said}");
}

#[test]
fn names_that_do_not_exist_are_found_with_what_was_meant() {
    let said = said(&good_with(
        "[postgres.databases.app]\nserver = \"mian\"\n\
         [[postgres.rules]]\nuser = \"x\"\nclass = \"core\"\n\
         [[postgres.rules]]\nuser = \"y\"\nclass = \"ai-reed\"\n",
    ));
    assert!(said.contains("forebay.toml:4:10: postgres.databases.app.server"), "{said}");
    assert!(said.contains("did you mean `main`?"), "{said}");
    assert!(said.contains("forebay.toml:10:9: postgres.rules[1].class"), "{said}");
    assert!(said.contains("did you mean `ai-read`?"), "{said}");
}

#[test]
fn doors_that_stand_open_are_found() {
    assert!(said(SERVER).contains("nobody could log in"));
    let open = format!("[postgres]\nlisten = \"0.0.0.0:6432\"\nauth = \"trust\"\n{SERVER}");
    let said = said(&open);
    assert!(said.contains("forebay.toml:3:8: postgres.auth: `trust` asks nobody"), "{said}");
}

#[test]
fn two_listeners_on_one_port_are_found() {
    let text = format!("{}[admin]\nlisten = \"0.0.0.0:6432\"\n", good_with(""));
    assert!(
        said(&text).contains("admin.listen: 0.0.0.0:6432 is already taken by `postgres.listen`")
    );
    assert!(parse(&text.replace("6432", "0")).is_ok());
}

#[test]
fn what_cannot_be_read_is_found() {
    let said = said(
        "[postgres.tls]\ncert = \"/no/cert.pem\"\nkey = \"/no/key.pem\"\n\
         [postgres.servers.main]\naddress = \"db\"\n\
         [postgres.users]\napp = { password = \"env:FOREBAY_NO_SUCH_VARIABLE\" }\n\
         [http.destinations.a]\nurl = \"a.example\"\nca_file = \"/no/ca.pem\"\n",
    );
    for at in ["2:8: postgres.tls.cert", "3:7: postgres.tls.key", "10:11: http.destinations.a.ca"] {
        assert!(said.contains(at), "{at}\n{said}");
    }
    assert!(said.contains("`FOREBAY_NO_SUCH_VARIABLE` is not set"), "{said}");
    assert!(said.contains("expected a URL such as"), "{said}");
}

#[test]
fn a_server_has_one_address_or_several_hosts_and_may_be_a_socket() {
    let with = |line: &str| good_with("").replace("address = \"db:5432\"", line);
    for good in [
        "address = \"db\"",
        "address = \"/var/run/postgresql\"",
        "address = \"unix:/run/pg/.s.PGSQL.5433\"",
        "hosts = [\"a\", \"b:5433\", \"/run/pg\"]",
    ] {
        assert!(parse(&with(good)).is_ok(), "{good}\n{}", said(&with(good)));
    }
    for (bad, expected) in [
        ("", "postgres.servers.main.address: no `address`: write"),
        ("address = \"db:x\"", "postgres.servers.main.address: `db:x` is no address"),
        ("hosts = [\"a\", \"b c\"]", "postgres.servers.main.hosts[1]: `b c` is no address"),
        ("address = \"a\"\nhosts = [\"b\"]", "postgres.servers.main.hosts: both `address` and"),
    ] {
        assert!(said(&with(bad)).contains(expected), "{bad}\n{}", said(&with(bad)));
    }
}

#[test]
fn settings_of_tls_and_of_a_fleet_that_contradict_each_other_are_found() {
    let server = |more: &str| good_with(more);
    for (text, expected) in [
        (server("sslmode = \"require\"\nsslkey = \"/dev/null\""), "main.sslcert: `sslkey` needs"),
        (server("sslrootcert = \"system\""), "main.sslrootcert: the system's authorities sign"),
        (server("sslnegotiation = \"direct\""), "main.sslnegotiation: direct TLS needs"),
        (
            server("sslmode = \"disable\"\nchannel_binding = \"require\""),
            "main.channel_binding: a login can only be bound",
        ),
        (
            server("ssl_min_version = \"1.3\"\nssl_max_version = \"1.2\""),
            "main.ssl_min_version: the lowest version",
        ),
        (server("ssl_min_version = \"1.1\""), "`1.1` is not possible"),
        (
            format!("[postgres]\nlisten = [\"unix:/a\", \"/a\"]\n{}", good_with("")),
            "postgres.listen: `/a/.s.PGSQL.6432` is there twice",
        ),
        (
            format!("[postgres]\nunix_socket_mode = \"rwx\"\n{}", good_with("")),
            "postgres.unix_socket_mode: expected octal digits",
        ),
        (
            format!("[postgres.fleet]\nid = 0\n{}", good_with("")),
            "postgres.fleet.id: expected a number from 1 to 16383",
        ),
        (
            format!(
                "[postgres.fleet]\nid = 1\n[[postgres.fleet.peers]]\nid = 2\naddress = \"a b\"\n{}",
                good_with("")
            ),
            "postgres.fleet.peers[0].address: `a b` is no address",
        ),
        (
            format!(
                "[postgres]\nmax_clients = 200000\n[postgres.fleet]\nid = 1\n{}",
                good_with("")
            ),
            "postgres.max_clients: an instance of a fleet has names for 100000",
        ),
    ] {
        let said = said(&text);
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    assert!(parse(&good_with("sslmode = \"verify-full\"\nsslrootcert = \"system\"")).is_ok());
}

#[test]
fn two_tenants_with_one_key_are_found_and_the_key_is_not_shown() {
    let said = said(
        "[http.destinations.a]\nurl = \"https://a\"\n\
         [http.tenants]\nx = { key = \"hunter2\" }\ny = { key = \"hunter2\" }\n",
    );
    assert!(said.contains("http.tenants.y.key: it is also the key of tenant `x`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_summary_shows_rate_limits() {
    let text = "[http.destinations.llm]\nurl = \"https://api.test\"\n\
                limits = { requests = 500, each_tenant.tokens = 9000 }";
    let summary = summary::Summary(&parse(text).unwrap()).to_string();
    let line = "500 requests, 9000 tokens of each tenant per 1m, observed";
    assert!(summary.contains(line), "{summary}");
}

#[test]
fn a_rate_limit_that_cannot_be_meant_is_named() {
    let text = "[http.destinations.llm]\nurl = \"https://api.test\"\n\
                limits = { requests = 0 }";
    assert!(said(text).contains("http.destinations.llm.limits.requests"), "{}", said(text));
}

#[test]
fn a_class_whose_unnamed_statements_get_names_must_exist() {
    let text = |class| format!("{SERVER}name_unnamed = [\"{class}\"]\n{USERS}");
    assert!(parse(&text("ai-read")).is_ok());
    let said = said(&text("batch"));
    assert!(said.contains("postgres.servers.main.name_unnamed"), "{said}");
    assert!(said.contains("there is no class `batch`"), "{said}");
}

#[test]
fn every_setting_of_pools_and_classes_can_be_set() {
    let pool = "shed_from = 70\nhold_limit = \"20s\"\nlend_max_hold = \"500ms\"\n\
                probe_interval = \"5s\"\nqueue_factor = 3\nbudget = 40\n";
    let classes = |table: &str| {
        format!(
            "[{table}.classes.core]\nkind = \"core\"\nguarantee = \"50%\"\n\
             [{table}.classes.ai-read]\nweight = 2\nmax_requests = 20\nmax_parallel = 8\n\
             mode = \"enforce\"\n[{table}.classes.ai-read.policies]\nadmission = \"observe\"\n\
             deadline = \"enforce\"\nshedding = \"observe\"\nfreshness = \"off\"\n\
             retries = \"enforce\"\nlending = \"observe\"\nbreaker = \"off\"\n"
        )
    };
    let text = format!(
        "{SERVER}{pool}{}{USERS}[http.destinations.llm]\nurl = \"https://llm\"\n{pool}{}",
        classes("postgres.servers.main"),
        classes("http.destinations.llm")
    );
    let config = parse(&text).unwrap();
    let summary = summary::Summary(&config).to_string();
    let shown = "guarantee 0, ceiling 14, waits at most 2s, 20 requests at most; enforce \
                 (admission observe, deadline enforce, shedding observe, freshness off, \
                 retries enforce, lending observe, breaker off)";
    assert!(summary.contains(shown), "{summary}");
    let server = &config.postgres.unwrap().servers["main"];
    let class = &server.classes[&forebay_pool::ClassName::new("ai-read")];
    assert_eq!((server.shed_from, class.weight, class.max_parallel), (70, 2, 8));
    let destination = &config.http.unwrap().destinations["llm"];
    assert_eq!((destination.shed_from, destination.queue_factor), (70, 3));
    assert_eq!(destination.hold_limit, server.hold_limit);
}

#[test]
fn settings_that_make_no_sense_are_found_with_their_lines() {
    for (line, at, says) in [
        ("weight = 0", "weight", "expected 1 or more"),
        ("max_requests = 0", "max_requests", "expected 1 or more"),
        ("max_parallel = 0", "max_parallel", "expected 1 or more"),
        ("mode = \"shout\"", "mode", "`shout` is not possible; possible are `off`, `observe`"),
        ("policies = { shedding = \"yes\" }", "policies.shedding", "`yes` is not possible"),
        ("policies = { sheding = \"off\" }", "policies.sheding", "did you mean `shedding`?"),
    ] {
        for (first, class) in [
            (SERVER, "postgres.servers.main.classes.core"),
            ("[http.destinations.a]\nurl = \"https://a\"\n", "http.destinations.a.classes.core"),
        ] {
            let said = said(&format!("{first}[{class}]\nkind = \"core\"\n{line}\n{USERS}"));
            assert!(said.starts_with("forebay.toml:5:"), "{said}");
            assert!(said.contains(&format!("{class}.{at}: ")), "{said}");
            assert!(said.contains(says), "{said}");
        }
    }
    for (line, says) in [
        ("shed_from = 100", "expected a percentage from 1 to 99"),
        ("shed_from = 0", "expected a percentage from 1 to 99"),
        ("hold_limit = \"0s\"", "expected more than 0s"),
        ("lend_max_hold = \"soon\"", "expected a duration"),
        ("probe_interval = \"0s\"", "expected more than 0s"),
    ] {
        let key = line.split(' ').next().unwrap();
        for (first, place) in [
            (SERVER, "postgres.servers.main"),
            ("[http.destinations.a]\nurl = \"https://a\"\n", "http.destinations.a"),
        ] {
            let said = said(&format!("{first}{line}\n{USERS}"));
            assert!(said.starts_with("forebay.toml:3:"), "{said}");
            assert!(said.contains(&format!("{place}.{key}: {says}")), "{said}");
        }
    }
}

#[test]
fn the_summary_shows_seats_and_no_secrets() {
    let config = parse(&good_with("budget = 70")).unwrap();
    let summary = summary::Summary(&config).to_string();
    assert!(summary.contains("server main (db:5432): budget 70"), "{summary}");
    assert!(summary.contains("guarantee 35, ceiling 70, waits at most 5s; observe"), "{summary}");
    assert!(!summary.contains("pw"), "{summary}");
}
