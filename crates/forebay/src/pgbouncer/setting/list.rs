//! The list itself, in the order of `SHOW CONFIG`, as in PgBouncer's `main.c`.

use super::{Changes, Fate, Kind, Setting};
use Changes::{AtReload, AtStart};
use Fate::{Becomes, Instead, Mode, Nothing, Refused, Resembles};
use Kind::{Choice, Flag, List, Number, Seconds, Text};

const AUTH_TYPES: Kind =
    Choice(&["any", "trust", "plain", "md5", "cert", "hba", "ldap", "pam", "scram-sha-256"]);
pub(in crate::pgbouncer) const POOL_MODES: &[&str] = &["session", "transaction", "statement"];
const SSL_MODES: Kind =
    Choice(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]);

const STRONG: &str = "the suites are the strong ones of TLS 1.2 and 1.3";
const BUFFERS: Fate = Nothing("buffers grow and shrink by themselves");
const LIVELY: Fate = Nothing("no connection can hold up the others: each is a task of its own");

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    changes: Changes,
    fate: Fate,
) -> Setting {
    Setting { name, default: Some(default), kind, changes, fate }
}

/// A setting that has no default.
const fn unset(name: &'static str, kind: Kind, changes: Changes, fate: Fate) -> Setting {
    Setting { name, default: None, kind, changes, fate }
}

/// All of them.
pub(in crate::pgbouncer) const SETTINGS: &[Setting] = &[
    setting("admin_users", List, "", AtReload, Becomes("postgres.admin_users")),
    setting(
        "application_name_add_host",
        Flag,
        "0",
        AtReload,
        Becomes("postgres.application_name_add_host"),
    ),
    unset("auth_dbname", Text, AtReload, Becomes("postgres.auth_query.database")),
    unset("auth_file", Text, AtReload, Becomes("postgres.users_file")),
    setting("auth_hba_file", Text, "", AtReload, Becomes("postgres.hba_file")),
    unset("auth_ident_file", Text, AtReload, Becomes("postgres.ident_file")),
    unset(
        "auth_ldap_options",
        Text,
        AtReload,
        Refused("there is no LDAP here: use `auth_query`, `auth_file` or certificates"),
    ),
    setting(
        "auth_query",
        Text,
        "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM \
         pg_authid WHERE rolname=$1 AND rolcanlogin",
        AtReload,
        Resembles {
            key: "postgres.auth_query.query",
            differs: "it runs with `search_path` set to `pg_catalog` and before anything that the \
                      client asked for is applied; answers are kept for a short time",
        },
    ),
    setting(
        "auth_type",
        AUTH_TYPES,
        "md5",
        AtReload,
        Resembles {
            key: "postgres.auth",
            differs: "`any` admits nobody to the console who is not in `admin_users` or \
                      `stats_users`; `ldap` and `pam` are refused",
        },
    ),
    unset("auth_user", Text, AtReload, Becomes("postgres.auth_query.user")),
    setting(
        "autodb_idle_timeout",
        Seconds,
        "3600",
        AtReload,
        Nothing("a pool that nobody uses costs nothing to speak of and is forgotten by itself"),
    ),
    setting(
        "cancel_wait_timeout",
        Seconds,
        "10",
        AtReload,
        Becomes("postgres.cancel_wait_timeout"),
    ),
    setting("client_idle_timeout", Seconds, "0", AtReload, Becomes("postgres.client_idle_timeout")),
    setting("client_login_timeout", Seconds, "60", AtReload, Becomes("postgres.login_timeout")),
    unset("client_tls13_ciphers", Text, AtReload, Becomes("postgres.tls.ciphers")),
    setting("client_tls_ca_file", Text, "", AtReload, Becomes("postgres.tls.ca_file")),
    setting("client_tls_cert_file", Text, "", AtReload, Becomes("postgres.tls.cert")),
    setting(
        "client_tls_ciphers",
        Text,
        "default",
        AtReload,
        Resembles {
            key: "postgres.tls.ciphers",
            differs: "ciphers that are known to be weak do not exist here",
        },
    ),
    setting(
        "client_tls_dheparams",
        Choice(&["none", "auto", "legacy"]),
        "auto",
        AtReload,
        Nothing("keys are agreed on with elliptic curves only"),
    ),
    setting(
        "client_tls_ecdhcurve",
        Text,
        "auto",
        AtReload,
        Instead("the curve is the best that both sides know"),
    ),
    setting("client_tls_key_file", Text, "", AtReload, Becomes("postgres.tls.key")),
    setting(
        "client_tls_protocols",
        Text,
        "secure",
        AtReload,
        Resembles { key: "postgres.tls.min_version", differs: "TLS 1.0 and 1.1 do not exist here" },
    ),
    setting("client_tls_sslmode", SSL_MODES, "disable", AtReload, Becomes("postgres.tls.mode")),
    unset(
        "conffile",
        Text,
        AtReload,
        Instead("the file of the command line is read at each reload; `%include` others there"),
    ),
    setting("default_pool_size", Number, "20", AtReload, Becomes("postgres.pool_size")),
    setting(
        "disable_pqexec",
        Flag,
        "0",
        AtStart,
        Refused("simple queries cannot be forbidden here: remove the line, or keep PgBouncer"),
    ),
    setting("dns_max_ttl", Seconds, "15", AtReload, Becomes("postgres.dns_max_ttl")),
    setting(
        "dns_nxdomain_ttl",
        Seconds,
        "15",
        AtReload,
        Nothing("a name that was not found is asked for again"),
    ),
    setting(
        "dns_zone_check_period",
        Seconds,
        "0",
        AtReload,
        Instead(
            "names are looked up by the system; connections to an old address end at their \
                 lifetime, or by `RECONNECT`",
        ),
    ),
    setting(
        "idle_transaction_timeout",
        Seconds,
        "0",
        AtReload,
        Becomes("postgres.idle_transaction_timeout"),
    ),
    setting(
        "ignore_startup_parameters",
        List,
        "",
        AtReload,
        Nothing(
            "no startup parameter is refused: each is applied to the server connection, and \
                 follows the client from one to the next",
        ),
    ),
    setting("job_name", Text, "pgbouncer", AtStart, Nothing("it names a service of Windows")),
    setting("listen_addr", List, "", AtStart, Becomes("postgres.listen")),
    setting(
        "listen_backlog",
        Number,
        "128",
        AtStart,
        Nothing("the queue is as long as the system allows"),
    ),
    setting("listen_port", Number, "6432", AtStart, Becomes("postgres.listen")),
    setting("log_connections", Flag, "1", AtReload, Becomes("log.level")),
    setting("log_disconnections", Flag, "1", AtReload, Becomes("log.level")),
    setting("log_pooler_errors", Flag, "1", AtReload, Becomes("log.level")),
    setting("log_stats", Flag, "1", AtReload, Becomes("log.level")),
    setting("logfile", Text, "", AtReload, Becomes("log.file")),
    setting(
        "login_notify_message",
        Text,
        "",
        AtReload,
        Instead("nobody is greeted: a client sees no difference to the server itself"),
    ),
    setting("max_client_conn", Number, "100", AtReload, Becomes("postgres.max_clients")),
    setting(
        "max_db_client_connections",
        Number,
        "0",
        AtReload,
        Becomes("postgres.max_database_client_connections"),
    ),
    setting(
        "max_db_connections",
        Number,
        "0",
        AtReload,
        Becomes("postgres.max_database_connections"),
    ),
    setting(
        "max_packet_size",
        Number,
        "2147483647",
        AtReload,
        Instead(
            "messages of any size pass; `postgres.max_message` bounds those that are held in memory",
        ),
    ),
    setting(
        "max_prepared_statements",
        Number,
        "200",
        AtReload,
        Resembles {
            key: "postgres.max_prepared_statements",
            differs: "0 does not switch prepared statements off: they always work",
        },
    ),
    setting(
        "max_user_client_connections",
        Number,
        "0",
        AtReload,
        Becomes("postgres.max_user_client_connections"),
    ),
    setting(
        "max_user_connections",
        Number,
        "0",
        AtReload,
        Becomes("postgres.max_user_connections"),
    ),
    setting("min_pool_size", Number, "0", AtReload, Becomes("postgres.min_pool_size")),
    setting("peer_id", Number, "0", AtReload, Becomes("postgres.fleet.id")),
    setting(
        "pidfile",
        Text,
        "",
        AtStart,
        Mode("written after the ports are open, removed at the end"),
    ),
    setting("pkt_buf", Number, "4096", AtStart, BUFFERS),
    setting(
        "pool_idle_timeout",
        Seconds,
        "0",
        AtReload,
        Nothing("a pool that nobody uses is forgotten by itself"),
    ),
    setting(
        "pool_mode",
        Choice(POOL_MODES),
        "session",
        AtReload,
        Resembles {
            key: "postgres.pool_mode",
            differs: "`statement` is `transaction`: transactions of several statements are not \
                      refused",
        },
    ),
    setting(
        "query_timeout",
        Seconds,
        "0",
        AtReload,
        Resembles {
            key: "postgres.query_timeout",
            differs: "the query is cancelled (SQLSTATE 57014) and its connection is kept",
        },
    ),
    setting(
        "query_wait_notify",
        Number,
        "5",
        AtReload,
        Nothing("a client that waits is told nothing before its turn or its timeout"),
    ),
    setting("query_wait_timeout", Seconds, "120", AtReload, Becomes("postgres.query_wait_timeout")),
    setting("reserve_pool_size", Number, "0", AtReload, Becomes("postgres.reserve_pool_size")),
    setting(
        "reserve_pool_timeout",
        Seconds,
        "5",
        AtReload,
        Becomes("postgres.reserve_pool_timeout"),
    ),
    setting("resolv_conf", Text, "", AtStart, Instead("the system's own name resolution is used")),
    setting("sbuf_loopcnt", Number, "5", AtReload, LIVELY),
    setting(
        "scram_iterations",
        Number,
        "4096",
        AtReload,
        Nothing("it is for passwords in plain text; a stored verifier has its own count"),
    ),
    setting(
        "server_check_delay",
        Seconds,
        "30",
        AtReload,
        Resembles {
            key: "postgres.servers.*.probe_interval",
            differs: "connections are asked while they are idle, not when somebody wants them; one \
                  that the server has closed is never handed out",
        },
    ),
    setting(
        "server_check_query",
        Text,
        "<empty>",
        AtReload,
        Instead("idle connections are asked with an empty query"),
    ),
    setting(
        "server_connect_timeout",
        Seconds,
        "15",
        AtReload,
        Becomes("postgres.servers.*.connect_timeout"),
    ),
    setting(
        "server_fast_close",
        Flag,
        "0",
        AtReload,
        Instead("a session keeps its server connection to its end"),
    ),
    setting(
        "server_idle_timeout",
        Seconds,
        "600",
        AtReload,
        Becomes("postgres.servers.*.idle_ttl"),
    ),
    setting(
        "server_lifetime",
        Seconds,
        "3600",
        AtReload,
        Resembles {
            key: "postgres.servers.*.lifetime",
            differs: "varied by 10 %, so that connections of the same age do not end together",
        },
    ),
    setting(
        "server_login_retry",
        Seconds,
        "15",
        AtReload,
        Nothing("a server is tried again after a growing pause that begins far below a second"),
    ),
    setting(
        "server_reset_query",
        Text,
        "DISCARD ALL",
        AtReload,
        Instead(
            "what a session leaves behind is undone, whatever this says: by `DISCARD ALL`, or \
                 by nothing where its statements provably left nothing",
        ),
    ),
    setting(
        "server_reset_query_always",
        Flag,
        "0",
        AtReload,
        Nothing("a connection is reset whenever its client may have left something, in each mode"),
    ),
    setting(
        "server_round_robin",
        Flag,
        "0",
        AtReload,
        Instead("the connection that was used last is used first, so that spare ones can end"),
    ),
    unset("server_tls13_ciphers", Text, AtReload, Instead(STRONG)),
    setting("server_tls_ca_file", Text, "", AtReload, Becomes("postgres.servers.*.sslrootcert")),
    setting("server_tls_cert_file", Text, "", AtReload, Becomes("postgres.servers.*.sslcert")),
    setting("server_tls_ciphers", Text, "default", AtReload, Instead(STRONG)),
    setting("server_tls_key_file", Text, "", AtReload, Becomes("postgres.servers.*.sslkey")),
    setting(
        "server_tls_protocols",
        Text,
        "secure",
        AtReload,
        Resembles {
            key: "postgres.servers.*.ssl_min_version",
            differs: "TLS 1.0 and 1.1 do not exist here",
        },
    ),
    setting(
        "server_tls_sslmode",
        SSL_MODES,
        "prefer",
        AtReload,
        Becomes("postgres.servers.*.sslmode"),
    ),
    setting("so_reuseport", Flag, "0", AtStart, Becomes("postgres.reuse_port")),
    setting("stats_period", Number, "60", AtReload, Becomes("postgres.stats_period")),
    setting("stats_users", List, "", AtReload, Becomes("postgres.stats_users")),
    setting("suspend_timeout", Seconds, "10", AtReload, Becomes("postgres.suspend_timeout")),
    setting("syslog", Flag, "0", AtReload, Becomes("log.syslog")),
    setting("syslog_facility", Text, "daemon", AtReload, Becomes("log.syslog")),
    setting("syslog_ident", Text, "pgbouncer", AtReload, Becomes("log.syslog")),
    setting(
        "tcp_defer_accept",
        Flag,
        "1",
        AtReload,
        Nothing("a connection that says nothing costs little until `client_login_timeout`"),
    ),
    setting("tcp_keepalive", Flag, "1", AtReload, Becomes("postgres.tcp_keepalive")),
    setting("tcp_keepcnt", Number, "0", AtReload, Becomes("postgres.tcp_keepcnt")),
    setting("tcp_keepidle", Number, "0", AtReload, Becomes("postgres.tcp_keepidle")),
    setting("tcp_keepintvl", Number, "0", AtReload, Becomes("postgres.tcp_keepintvl")),
    setting("tcp_socket_buffer", Number, "0", AtReload, BUFFERS),
    setting(
        "tcp_user_timeout",
        Number,
        "0",
        AtReload,
        Resembles {
            key: "postgres.tcp_user_timeout",
            differs: "it is lifted while more than 16 KiB may be unread, so that who merely does \
                      not read is not cut off",
        },
    ),
    setting(
        "track_extra_parameters",
        List,
        "IntervalStyle",
        AtStart,
        Nothing(
            "every parameter that a client sets follows it, also those the server does not \
                 report",
        ),
    ),
    setting("transaction_timeout", Seconds, "0", AtReload, Becomes("postgres.transaction_timeout")),
    setting("unix_socket_dir", Text, "/tmp", AtStart, Becomes("postgres.listen")),
    setting("unix_socket_group", Text, "", AtStart, Becomes("postgres.unix_socket_group")),
    setting("unix_socket_mode", Number, "0777", AtStart, Becomes("postgres.unix_socket_mode")),
    unset("user", Text, AtStart, Mode("as `-u`")),
    unset("verbose", Number, AtReload, Mode("as `-v`")),
];
