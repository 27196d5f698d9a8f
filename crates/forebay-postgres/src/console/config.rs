//! SHOW CONFIG as PgBouncer has it: its keys, and of those that we have by another name, what
//! they are set to.
//!
//! Always true: no value is a secret. NULL stands where we have nothing of the kind.

use std::path::Path;
use std::time::Duration;

use super::table::{Cell, Row};
use crate::row;
use crate::settings::{PoolMode, PostgresSettings};

/// PgBouncer's keys and defaults, in its order.
const KEYS: &[(&str, &str)] = &[
    ("admin_users", ""),
    ("application_name_add_host", "0"),
    ("auth_dbname", ""),
    ("auth_file", ""),
    ("auth_hba_file", ""),
    ("auth_ident_file", ""),
    ("auth_ldap_options", ""),
    ("auth_query", ""),
    ("auth_type", "md5"),
    ("auth_user", ""),
    ("autodb_idle_timeout", "3600"),
    ("cancel_wait_timeout", "10"),
    ("client_idle_timeout", "0"),
    ("client_login_timeout", "60"),
    ("client_tls13_ciphers", ""),
    ("client_tls_ca_file", ""),
    ("client_tls_cert_file", ""),
    ("client_tls_ciphers", "default"),
    ("client_tls_dheparams", "auto"),
    ("client_tls_ecdhcurve", "auto"),
    ("client_tls_key_file", ""),
    ("client_tls_protocols", "secure"),
    ("client_tls_sslmode", "disable"),
    ("conffile", ""),
    ("default_pool_size", "20"),
    ("disable_pqexec", "0"),
    ("dns_max_ttl", "15"),
    ("dns_nxdomain_ttl", "15"),
    ("dns_zone_check_period", "0"),
    ("idle_transaction_timeout", "0"),
    ("ignore_startup_parameters", ""),
    ("job_name", "pgbouncer"),
    ("listen_addr", ""),
    ("listen_backlog", "128"),
    ("listen_port", "6432"),
    ("log_connections", "1"),
    ("log_disconnections", "1"),
    ("log_pooler_errors", "1"),
    ("log_stats", "1"),
    ("logfile", ""),
    ("max_client_conn", "100"),
    ("max_db_client_connections", "0"),
    ("max_db_connections", "0"),
    ("max_packet_size", "2147483647"),
    ("max_prepared_statements", "200"),
    ("max_user_client_connections", "0"),
    ("max_user_connections", "0"),
    ("min_pool_size", "0"),
    ("peer_id", "0"),
    ("pidfile", ""),
    ("pkt_buf", "4096"),
    ("pool_mode", "session"),
    ("query_timeout", "0"),
    ("query_wait_notify", "5"),
    ("query_wait_timeout", "120"),
    ("reserve_pool_size", "0"),
    ("reserve_pool_timeout", "5"),
    ("resolv_conf", ""),
    ("sbuf_loopcnt", "5"),
    ("scram_iterations", "4096"),
    ("server_check_delay", "30"),
    ("server_check_query", "<empty>"),
    ("server_connect_timeout", "15"),
    ("server_fast_close", "0"),
    ("server_idle_timeout", "600"),
    ("server_lifetime", "3600"),
    ("server_login_retry", "15"),
    ("server_reset_query", "DISCARD ALL"),
    ("server_reset_query_always", "0"),
    ("server_round_robin", "0"),
    ("server_tls13_ciphers", ""),
    ("server_tls_ca_file", ""),
    ("server_tls_cert_file", ""),
    ("server_tls_ciphers", "default"),
    ("server_tls_key_file", ""),
    ("server_tls_protocols", "secure"),
    ("server_tls_sslmode", "prefer"),
    ("so_reuseport", "0"),
    ("stats_period", "60"),
    ("stats_users", ""),
    ("suspend_timeout", "10"),
    ("syslog", "0"),
    ("syslog_facility", "daemon"),
    ("syslog_ident", "pgbouncer"),
    ("tcp_defer_accept", ""),
    ("tcp_keepalive", "1"),
    ("tcp_keepcnt", "0"),
    ("tcp_keepidle", "0"),
    ("tcp_keepintvl", "0"),
    ("tcp_socket_buffer", "0"),
    ("tcp_user_timeout", "0"),
    ("track_extra_parameters", "IntervalStyle"),
    ("transaction_timeout", "0"),
    ("unix_socket_dir", "/tmp"),
    ("unix_socket_group", ""),
    ("unix_socket_mode", "0777"),
    ("user", ""),
    ("verbose", "0"),
];

/// One row for each key.
pub(super) fn rows(settings: &PostgresSettings) -> Vec<Row> {
    KEYS.iter()
        // What can be changed here, SET tells; settings of a file change with RELOAD.
        .map(|(key, default)| row![*key, value(key, settings), *default, "no"])
        .collect()
}

fn value(key: &str, settings: &PostgresSettings) -> Cell {
    match key {
        "admin_users" => settings.admin_users.join(",").into(),
        "stats_users" => settings.stats_users.join(",").into(),
        "auth_type" => settings.auth.name().into(),
        "auth_file" => path(settings.users_file.as_deref()),
        "auth_hba_file" => path(settings.hba_file.as_deref()),
        "auth_ident_file" => path(settings.ident_file.as_deref()),
        "query_timeout" => seconds(settings.query_timeout),
        "query_wait_timeout" => seconds(settings.query_wait_timeout),
        "transaction_timeout" => seconds(settings.transaction_timeout),
        "idle_transaction_timeout" => seconds(settings.idle_transaction_timeout),
        "client_idle_timeout" => seconds(settings.client_idle_timeout),
        "cancel_wait_timeout" => seconds(settings.cancel_wait_timeout),
        "client_login_timeout" => seconds(settings.login_timeout),
        "client_tls_cert_file" => {
            settings.tls.as_ref().map(|tls| tls.cert.display().to_string()).into()
        }
        "client_tls_key_file" => {
            settings.tls.as_ref().map(|tls| tls.key.display().to_string()).into()
        }
        "client_tls_sslmode" => match &settings.tls {
            None => "disable".into(),
            Some(tls) if tls.required => "require".into(),
            Some(_) => "allow".into(),
        },
        "listen_addr" => {
            let tcp = settings.listen.tcp();
            tcp.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(",").into()
        }
        "listen_port" => settings.listen.port().to_string().into(),
        "unix_socket_dir" => settings.listen.folder().into(),
        "max_client_conn" => settings.max_clients.to_string().into(),
        "max_packet_size" => settings.max_message.to_string().into(),
        "max_prepared_statements" => settings.max_prepared_statements.to_string().into(),
        "pool_mode" => match settings.pool_mode {
            PoolMode::Transaction => "transaction".into(),
            PoolMode::Session => "session".into(),
        },
        "stats_period" => seconds(settings.stats_period),
        // What has no limit of this kind is not limited.
        "max_db_client_connections"
        | "max_db_connections"
        | "max_user_client_connections"
        | "max_user_connections"
        | "reserve_pool_size"
        | "min_pool_size" => "0".into(),
        _ => of_server(key, settings),
    }
}

/// What each server has of its own, where there is but one, or all are alike.
fn of_server(key: &str, settings: &PostgresSettings) -> Cell {
    let mut values = settings.servers.values().map(|server| match key {
        "default_pool_size" => server.budget.into(),
        "server_connect_timeout" => seconds(server.connect_timeout),
        "server_idle_timeout" => seconds(server.idle_ttl),
        "server_lifetime" => seconds(server.lifetime),
        "server_check_delay" => seconds(server.probe_interval),
        _ => Cell::Null,
    });
    let Some(first) = values.next() else { return Cell::Null };
    if values.all(|value| value == first) { first } else { Cell::Null }
}

fn path(path: Option<&Path>) -> Cell {
    path.map(|path| path.display().to_string()).into()
}

fn seconds(duration: Duration) -> Cell {
    match duration.subsec_millis() {
        0 => duration.as_secs().to_string().into(),
        _ => duration.as_secs_f64().to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_look_up_is_a_number() {
        let rows = rows(&PostgresSettings::default());
        for key in ["max_client_conn", "max_user_connections"] {
            let row = rows.iter().find(|row| row[0] == Cell::from(key)).unwrap();
            assert!(row[1].text().unwrap().parse::<f64>().is_ok(), "{key}");
        }
    }
}
