use std::path::Path;

use super::super::setting::SETTINGS;
use super::super::value::Kind;
use super::*;
use crate::config::Config;

/// The file of `text` as settings of ours, and the notes.
fn translated(text: &str) -> Result<(toml::Table, Vec<Note>), String> {
    let file = File::read(Path::new("p.ini"), &|_| Ok(text.to_owned()));
    let file = file.map_err(|error| error.to_string())?;
    let told =
        |mistakes: Vec<Mistake>| mistakes.iter().map(|m| format!("{m}\n")).collect::<String>();
    let translation = translate(&file, Secrets::Inside).map_err(told)?;
    Ok((translation.document.render().parse().unwrap(), translation.notes))
}

fn table(text: &str) -> toml::Table {
    translated(text).unwrap().0
}

/// What stands at `path`, as text.
fn at(table: &toml::Table, path: &[&str]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let value = rest.iter().try_fold(table.get(*first)?, |value, name| value.get(name))?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

const SMALL: &str = "[databases]\napp = host=db\n[pgbouncer]\nlisten_addr = 127.0.0.1\n";

#[test]
fn the_defaults_are_pgbouncers() {
    let small = table(SMALL);
    for (path, value) in [
        (&["postgres", "pool_mode"][..], "session"),
        (&["postgres", "auth"], "md5"),
        (&["postgres", "max_clients"], "100"),
        (&["postgres", "login_timeout"], "60s"),
        (&["postgres", "query_wait_timeout"], "120s"),
        (&["postgres", "query_timeout"], "0s"),
        (&["postgres", "max_prepared_statements"], "200"),
        (&["postgres", "pool_size"], "20"),
        (&["postgres", "databases", "app", "server"], "db"),
        (&["postgres", "servers", "db", "address"], "db:5432"),
        (&["postgres", "servers", "db", "sslmode"], "prefer"),
        (&["postgres", "servers", "db", "lifetime"], "3600s"),
        (&["postgres", "servers", "db", "idle_ttl"], "600s"),
        (&["postgres", "servers", "db", "connect_timeout"], "15s"),
    ] {
        assert_eq!(at(&small, path).as_deref(), Some(value), "{path:?}");
    }
    let listen = at(&small, &["postgres", "listen"]).unwrap();
    assert_eq!(listen, r#"["127.0.0.1:6432", "/tmp/.s.PGSQL.6432"]"#);
}

#[test]
fn lines_of_the_same_host_share_a_server() {
    let table = table(
        "[databases]\na = host=x\nb = host=x dbname=bb\nc = host=x port=5433\nd =\n\
         e = host=::1\nf = host=x server_lifetime=60\n* = host=y,z\n[pgbouncer]\n",
    );
    let address = |name| at(&table, &["postgres", "servers", name, "address"]);
    assert_eq!(address("x").as_deref(), Some("x:5432"));
    assert_eq!(address("x-5433").as_deref(), Some("x:5433"));
    assert_eq!(address("local").as_deref(), Some("/tmp/.s.PGSQL.5432"));
    assert_eq!(address("--1").as_deref(), Some("[::1]:5432"));
    assert_eq!(address("x-2").as_deref(), Some("x:5432"));
    let hosts = at(&table, &["postgres", "servers", "y", "hosts"]);
    assert_eq!(hosts.as_deref(), Some(r#"["y:5432", "z:5432"]"#));
    assert_eq!(at(&table, &["postgres", "databases", "b", "server"]).as_deref(), Some("x"));
    assert_eq!(at(&table, &["postgres", "databases", "b", "database"]).as_deref(), Some("bb"));
    assert_eq!(at(&table, &["postgres", "databases", "*", "server"]).as_deref(), Some("y"));
}

/// A value that is none's default.
fn another(setting: &super::super::setting::Setting) -> String {
    let value = match (setting.name, setting.kind) {
        ("auth_type", _) => "any",
        ("client_tls_protocols" | "server_tls_protocols", _) => "tlsv1.1,tlsv1.2",
        ("client_tls13_ciphers", _) => "TLS_AES_128_GCM_SHA256",
        ("client_tls_ciphers", _) => "all",
        ("max_prepared_statements", _) => "0",
        (name, _) if name.ends_with("ciphers") => "ECDHE-RSA-AES256-GCM-SHA384",
        ("pool_mode", _) => "statement",
        ("listen_addr", _) => "127.0.0.2",
        ("unix_socket_mode", _) => "0700",
        (_, Kind::Number | Kind::Seconds) => "7",
        (_, Kind::Flag) if setting.default == Some("1") => "0",
        (_, Kind::Flag) => "1",
        (_, Kind::Choice(names)) => {
            *names.iter().find(|name| Some(**name) != setting.default).unwrap()
        }
        (_, Kind::List | Kind::Text) => "/other",
    };
    value.to_owned()
}

/// The list of fates would be a lie where the code does something else.
#[test]
fn each_setting_has_the_fate_that_the_list_says() {
    // What some settings need to have any effect.
    let needs = |name: &str| match name {
        "auth_dbname" => "auth_user = u\n",
        "reserve_pool_timeout" => "reserve_pool_size = 1\n",
        "syslog_facility" | "syslog_ident" => "syslog = 1\n",
        _ if name.starts_with("client_tls") && name != "client_tls_sslmode" => {
            "client_tls_sslmode = require\n"
        }
        _ => "",
    };
    let tls = "client_tls_cert_file = /c\nclient_tls_key_file = /k\n";
    let server = "[databases]\napp = host=db\n[pgbouncer]\n";
    for setting in SETTINGS {
        let before = format!("{server}{tls}{}", needs(setting.name));
        let after = format!("{before}{} = {}\n", setting.name, another(setting));
        let (before, _) = translated(&before).unwrap();
        let after = translated(&after);
        let name = setting.name;
        if let Fate::Refused(why) = setting.fate {
            assert!(after.unwrap_err().contains(why), "{name}");
            continue;
        }
        let (after, notes) = after.unwrap_or_else(|error| panic!("{name}: {error}"));
        let told = notes.iter().find(|note| note.about == name).map(|note| note.kind);
        let expected = match setting.fate {
            Fate::Resembles { .. } => Some(NoteKind::Differs),
            Fate::Nothing(_) => Some(NoteKind::Needless),
            Fate::Instead(_) => Some(NoteKind::Dropped),
            Fate::Becomes(_) | Fate::Mode(_) | Fate::Refused(_) => None,
        };
        assert_eq!(told, expected, "{name}");
        if let Fate::Becomes(key) = setting.fate {
            assert_ne!(before, after, "{name} changes nothing, and should change {key}");
        }
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_its_line() {
    for (line, told) in [
        ("auth_type = pam", "p.ini:4: auth_type: there is no `pam` here"),
        ("disable_pqexec = 1", "p.ini:4: disable_pqexec: simple queries"),
        ("unix_socket_dir = @x", "p.ini:4: unix_socket_dir: sockets without a file"),
        ("unix_socket_dir =", "p.ini:4: nowhere to listen"),
        ("client_tls_sslmode = require", "p.ini:4: client_tls_sslmode: to take TLS"),
        ("server_tls_protocols = tlsv1.0", "p.ini:4: server_tls_protocols: TLS 1.0"),
        ("listen_port = 99999", "p.ini:4: listen_port: expected a port"),
    ] {
        let error =
            translated(&format!("[databases]\n* = host=h\n[pgbouncer]\n{line}\n")).unwrap_err();
        assert!(error.starts_with(told), "{line}: {error}");
    }
    let error = translated("[pgbouncer]\n").unwrap_err();
    assert!(error.starts_with("[databases] is empty"), "{error}");
}

#[test]
fn passwords_are_in_no_note_and_keep_their_value_whatever_it_is() {
    let ini = "[databases]\na = host=h user=u password='${x} env:y'\n\
               b = host=h user=u password=env:HOME\n[pgbouncer]\n";
    let file = File::read(Path::new("p.ini"), &|_| Ok(ini.to_owned())).unwrap();
    let translation = translate(&file, Secrets::Inside).unwrap();
    let text = translation.document.render();
    assert!(text.contains(r#"password = "$${x} env:y""#), "{text}");
    assert!(text.contains(r#"password = "text:env:HOME""#), "{text}");
    let references = translate(&file, Secrets::Variables).unwrap().document.render();
    assert!(references.contains(r#"password = "env:FOREBAY_PASSWORD_A""#), "{references}");
    assert!(!format!("{:?}", translation.notes).contains("env:y"));
}

/// What of `ini`, translated, is no configuration of ours; that there are no such files aside.
fn not_ours(ini: &str) -> Vec<String> {
    let file = File::read(Path::new("p.ini"), &|_| Ok(ini.to_owned())).unwrap();
    let translation = translate(&file, Secrets::Inside).unwrap();
    let text = translation.document.render();
    let Err(report) = Config::parse(Path::new("f.toml"), &text, &|_| None) else {
        return Vec::new();
    };
    let wrong =
        report.problems().iter().map(|problem| format!("{}: {}", problem.at, problem.reason));
    wrong.filter(|wrong| !wrong.contains("os error 2")).collect()
}

#[test]
fn whatever_is_written_is_a_configuration_of_ours() {
    let server = "[databases]\napp = host=db\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                  unix_socket_dir =\nauth_type = trust\n";
    assert_eq!(not_ours(server), [""; 0]);
    let tls = "client_tls_cert_file = /c\nclient_tls_key_file = /k\n";
    for setting in SETTINGS.iter().filter(|setting| !matches!(setting.fate, Fate::Refused(_))) {
        let line = format!("{} = {}\n", setting.name, another(setting));
        let tls = if setting.name.starts_with("client_tls") { tls } else { "" };
        let needs = match setting.name {
            "client_tls_sslmode" => "client_tls_ca_file = /a\n",
            name if name.starts_with("client_tls") => "client_tls_sslmode = require\n",
            "server_tls_cert_file" => "server_tls_key_file = /k\n",
            "server_tls_key_file" => "server_tls_cert_file = /c\n",
            _ => "",
        };
        assert_eq!(not_ours(&format!("{server}{tls}{needs}{line}")), [""; 0], "{line}");
    }
}

#[test]
fn whatever_a_line_says_is_a_configuration_of_ours() {
    for line in [
        "app = host=a,b port=5433 dbname=x user=u password=p pool_size=3 min_pool_size=1 \
         reserve_pool_size=2 pool_mode=session max_db_connections=9 \
         max_db_client_connections=8 server_lifetime=60 load_balance_hosts=disable \
         target_session_attrs=primary client_encoding=UTF8 datestyle=ISO timezone=GMT \
         application_name=a connect_query='SELECT 1' auth_user=x",
        "app = host=/run/postgresql\n* = auth_dbname=other",
        "app = host=db\n[users]\nu = pool_mode=session pool_size=1 reserve_pool_size=1 \
         max_user_connections=2 max_user_client_connections=3 query_timeout=1 \
         transaction_timeout=2 idle_transaction_timeout=3 client_idle_timeout=4",
    ] {
        let rest = "[pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir =\nauth_type = trust\n";
        assert_eq!(not_ours(&format!("[databases]\n{line}\n{rest}")), [""; 0], "{line}");
    }
}

#[test]
fn trust_is_allowed_for_everybody_as_in_pgbouncer_and_warned_of() {
    let ini = |to: &str| {
        format!(
            "[databases]\napp = host=db\n[pgbouncer]\nauth_type = trust\nunix_socket_dir =\n\
             listen_addr = {to}\n"
        )
    };
    let warned = |to: &str| {
        let (_, notes) = translated(&ini(to)).unwrap();
        notes.iter().any(|note| note.about == "auth_type" && note.text.starts_with("WARNING"))
    };
    assert_eq!(not_ours(&ini("0.0.0.0")), [""; 0]);
    assert!(warned("0.0.0.0") && !warned("127.0.0.1"));
}
