//! PgBouncer's views: names, columns, types and order as of version 1.25, later columns behind.
//!
//! What fills them is in [`super::views`]. Tools look columns up by name, and some by place: no
//! column is renamed, left out, or put between others.

use super::table::{Column, Kind, Reader, View};

const fn column(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, meaning }
}

const fn text(name: &'static str, meaning: &'static str) -> Column {
    column(name, Kind::Text, meaning)
}

const fn int(name: &'static str, meaning: &'static str) -> Column {
    column(name, Kind::Int, meaning)
}

const fn numeric(name: &'static str, meaning: &'static str) -> Column {
    column(name, Kind::Numeric, meaning)
}

const STATS: &[Column] = &[
    text("database", "The database, as clients call it"),
    numeric(
        "total_server_assignment_count",
        "Server connections given to clients, since the start",
    ),
    numeric("total_xact_count", "Transactions, since the start"),
    numeric("total_query_count", "Queries, since the start"),
    numeric("total_received", "Bytes received from clients, since the start"),
    numeric("total_sent", "Bytes sent to clients, since the start"),
    numeric("total_xact_time", "Time in transactions, microseconds, since the start"),
    numeric("total_query_time", "Time in queries, microseconds, since the start"),
    numeric(
        "total_wait_time",
        "Time that clients waited for a server connection, microseconds, since the start",
    ),
    numeric("total_client_parse_count", "Named statements that clients prepared, since the start"),
    numeric(
        "total_server_parse_count",
        "Named statements that were prepared on servers, since the start",
    ),
    numeric("total_bind_count", "Named statements that clients bound, since the start"),
    numeric("total_client_login_count", "Logins of clients, since the start"),
    numeric(
        "avg_server_assignment_count",
        "Server connections given to clients, in a second of the last period",
    ),
    numeric("avg_xact_count", "Transactions, in a second of the last period"),
    numeric("avg_query_count", "Queries, in a second of the last period"),
    numeric("avg_recv", "Bytes received from clients, in a second of the last period"),
    numeric("avg_sent", "Bytes sent to clients, in a second of the last period"),
    numeric("avg_xact_time", "Duration of a transaction, microseconds, in the last period"),
    numeric("avg_query_time", "Duration of a query, microseconds, in the last period"),
    numeric(
        "avg_wait_time",
        "Time that clients waited for a server connection, microseconds, in a second of the last period",
    ),
    numeric(
        "avg_client_parse_count",
        "Named statements that clients prepared, in a second of the last period",
    ),
    numeric(
        "avg_server_parse_count",
        "Named statements that were prepared on servers, in a second of the last period",
    ),
    numeric(
        "avg_bind_count",
        "Named statements that clients bound, in a second of the last period",
    ),
    numeric("avg_client_login_count", "Logins of clients, in a second of the last period"),
];

const STATS_TOTALS: &[Column] = &[
    text("database", "The database, as clients call it"),
    numeric("server_assignment_count", "Server connections given to clients, since the start"),
    numeric("xact_count", "Transactions, since the start"),
    numeric("query_count", "Queries, since the start"),
    numeric("bytes_received", "Bytes received from clients, since the start"),
    numeric("bytes_sent", "Bytes sent to clients, since the start"),
    numeric("xact_time", "Time in transactions, microseconds, since the start"),
    numeric("query_time", "Time in queries, microseconds, since the start"),
    numeric(
        "wait_time",
        "Time that clients waited for a server connection, microseconds, since the start",
    ),
    numeric("client_parse_count", "Named statements that clients prepared, since the start"),
    numeric(
        "server_parse_count",
        "Named statements that were prepared on servers, since the start",
    ),
    numeric("bind_count", "Named statements that clients bound, since the start"),
    numeric("client_login_count", "Logins of clients, since the start"),
];

const STATS_AVERAGES: &[Column] = &[
    text("database", "The database, as clients call it"),
    numeric(
        "server_assignment_count",
        "Server connections given to clients, in a second of the last period",
    ),
    numeric("xact_count", "Transactions, in a second of the last period"),
    numeric("query_count", "Queries, in a second of the last period"),
    numeric("bytes_received", "Bytes received from clients, in a second of the last period"),
    numeric("bytes_sent", "Bytes sent to clients, in a second of the last period"),
    numeric("xact_time", "Duration of a transaction, microseconds, in the last period"),
    numeric("query_time", "Duration of a query, microseconds, in the last period"),
    numeric(
        "wait_time",
        "Time that clients waited for a server connection, microseconds, in a second of the last period",
    ),
    numeric(
        "avg_client_parse_count",
        "Named statements that clients prepared, in a second of the last period",
    ),
    numeric(
        "avg_server_parse_count",
        "Named statements that were prepared on servers, in a second of the last period",
    ),
    numeric(
        "avg_bind_count",
        "Named statements that clients bound, in a second of the last period",
    ),
    numeric("avg_client_login_count", "Logins of clients, in a second of the last period"),
];

const TOTALS: &[Column] = &[text("name", "Which figure"), numeric("value", "Its value")];

const POOLS: &[Column] = &[
    text("database", "The database, as clients call it"),
    text("user", "The user"),
    int("cl_active", "Clients that have a server connection or ask nothing"),
    int("cl_waiting", "Clients that wait for a server connection"),
    int("cl_active_cancel_req", "Cancel requests on their way to the server"),
    int("cl_waiting_cancel_req", "Cancel requests that wait to be sent"),
    int("sv_active", "Server connections that a client has"),
    int("sv_active_cancel", "Server connections that carry a cancel request"),
    int("sv_being_canceled", "Server connections that wait for a cancel request to end"),
    int("sv_idle", "Server connections at rest"),
    int(
        "sv_used",
        "Server connections that must be checked before use: always 0, Forebay checks them at rest",
    ),
    int("sv_tested", "Server connections that are being reset or probed"),
    int("sv_login", "Server connections that log in"),
    int("maxwait", "How long the client that waits longest has waited, seconds"),
    int("maxwait_us", "Its microseconds"),
    text("pool_mode", "When a server connection goes back"),
    text("load_balance_hosts", "How hosts are chosen, where there are several"),
];

const SOCKETS_ALONE: &[Column] = &[
    text("type", "`C` for a client, `S` for a server"),
    text("user", "The user"),
    text("database", "The database, as clients call it"),
    text("replication", "`none`, `logical` or `physical`"),
    text("state", "What it does"),
    text("addr", "Address of the other side"),
    int("port", "Port of the other side"),
    text("local_addr", "Address of our side"),
    int("local_port", "Port of our side"),
    text("connect_time", "When it was made, UTC"),
    text("request_time", "When the last request began, UTC"),
    int("wait", "How long it has waited, seconds"),
    int("wait_us", "Its microseconds"),
    int("close_needed", "1 if it will be closed when it is given back"),
    text("ptr", "A name of its own"),
    text("link", "`ptr` of what it is linked to"),
    int("remote_pid", "The process on the other side, where that is known"),
    text("tls", "Version and cipher of TLS; empty: none"),
    text("application_name", "What the client calls itself"),
    int("prepared_statements", "Prepared statements that it has"),
    int("id", "A number of its own, for KILL_CLIENT"),
];

const SOCKETS_WITH_BUFFERS: &[Column] = &[
    text("type", "`C` for a client, `S` for a server"),
    text("user", "The user"),
    text("database", "The database, as clients call it"),
    text("replication", "`none`, `logical` or `physical`"),
    text("state", "What it does"),
    text("addr", "Address of the other side"),
    int("port", "Port of the other side"),
    text("local_addr", "Address of our side"),
    int("local_port", "Port of our side"),
    text("connect_time", "When it was made, UTC"),
    text("request_time", "When the last request began, UTC"),
    int("wait", "How long it has waited, seconds"),
    int("wait_us", "Its microseconds"),
    int("close_needed", "1 if it will be closed when it is given back"),
    text("ptr", "A name of its own"),
    text("link", "`ptr` of what it is linked to"),
    int("remote_pid", "The process on the other side, where that is known"),
    text("tls", "Version and cipher of TLS; empty: none"),
    text("application_name", "What the client calls itself"),
    int("prepared_statements", "Prepared statements that it has"),
    int("id", "A number of its own, for KILL_CLIENT"),
    int("recv_pos", "Always 0"),
    int("pkt_pos", "Always 0"),
    int("pkt_remain", "Always 0"),
    int("send_pos", "Always 0"),
    int("send_remain", "Always 0"),
    int("pkt_avail", "Always 0"),
    int("send_avail", "Always 0"),
];

const DATABASES: &[Column] = &[
    text("name", "As clients call it"),
    text("host", "Where it is"),
    int("port", "The port there"),
    text("database", "Its name there"),
    text("force_user", "The user that all clients become"),
    int("pool_size", "Server connections for one user, at the most"),
    int("min_pool_size", "Server connections kept open"),
    int("reserve_pool_size", "Server connections besides, for who waits too long"),
    int("server_lifetime", "Age at which server connections are replaced, seconds"),
    text("pool_mode", "When a server connection goes back"),
    text("load_balance_hosts", "How hosts are chosen, where there are several"),
    int("max_connections", "Server connections at the most, 0: no limit of its own"),
    int("current_connections", "Server connections now"),
    int("max_client_connections", "Clients at the most, 0: no limit of its own"),
    int("current_client_connections", "Clients now"),
    int("paused", "1 while it is paused"),
    int("disabled", "1 while it takes no new clients"),
];

const USERS: &[Column] = &[
    text("name", "The user"),
    int("pool_size", "Server connections for one database, where set"),
    int("reserve_pool_size", "Server connections besides, where set"),
    text("pool_mode", "When a server connection goes back, where set"),
    int("max_user_connections", "Server connections at the most, 0: no limit"),
    int("current_connections", "Server connections now"),
    int("max_user_client_connections", "Clients at the most, 0: no limit"),
    int("current_client_connections", "Clients now"),
];

const CONFIG: &[Column] = &[
    text("key", "The setting"),
    text("value", "What it is"),
    text("default", "What it is where nothing is set"),
    text("changeable", "`yes` if it can be changed while the program runs"),
];

const LISTS: &[Column] = &[text("list", "Of what"), int("items", "How many")];

const VERSION: &[Column] = &[text("version", "The version")];

const STATE: &[Column] =
    &[text("key", "`active`, `paused` or `suspended`"), text("value", "`yes` or `no`")];

const MEM: &[Column] = &[
    text("name", "Of what"),
    int("size", "Bytes of one"),
    int("used", "How many there are"),
    int("free", "How many are kept for later"),
    int("memtotal", "Bytes in all"),
];

const FDS: &[Column] = &[
    int("fd", "The file descriptor"),
    text("task", "`client`, `server` or `pooler`"),
    text("user", "The user"),
    text("database", "The database"),
    text("addr", "Address of the other side"),
    int("port", "Port of the other side"),
    column("cancel", Kind::Big, "Always 0: a cancel key is a secret"),
    int("link", "The file descriptor that it is linked to, 0: none"),
    text("client_encoding", "Its client_encoding, where known"),
    text("std_strings", "Its standard_conforming_strings, where known"),
    text("datestyle", "Its DateStyle, where known"),
    text("timezone", "Its TimeZone, where known"),
    text("password", "Never shown"),
    column("scram_client_key", Kind::Bytes, "Never shown"),
    column("scram_server_key", Kind::Bytes, "Never shown"),
];

const DNS_HOSTS: &[Column] = &[
    text("hostname", "The name"),
    column("ttl", Kind::Big, "For how long the addresses hold, seconds"),
    text("addrs", "The addresses"),
];

const DNS_ZONES: &[Column] = &[
    text("zonename", "The zone"),
    column("serial", Kind::Big, "Its serial"),
    int("count", "Names in it"),
];

const PEERS: &[Column] = &[
    int("peer_id", "Its number"),
    text("host", "Where it is"),
    int("port", "The port there"),
    int("pool_size", "Connections to it, at the most"),
];

const PEER_POOLS: &[Column] = &[
    int("peer_id", "The number of the other instance"),
    int("cl_active_cancel_req", "Requests on their way"),
    int("cl_waiting_cancel_req", "Requests that wait"),
    int("sv_active_cancel", "Connections that carry a request"),
    int("sv_login", "Connections being made"),
];

/// In the order of SHOW HELP.
pub(crate) const VIEWS: &[View] = &[
    View {
        name: "stats",
        about: "What clients of each database did since the start, and on average in a second of the last period.",
        argument: "",
        reader: Reader::Stats,
        columns: STATS,
    },
    View {
        name: "stats_totals",
        about: "What clients of each database did since the start.",
        argument: "",
        reader: Reader::Stats,
        columns: STATS_TOTALS,
    },
    View {
        name: "stats_averages",
        about: "What clients of each database did in a second of the last period, on average.",
        argument: "",
        reader: Reader::Stats,
        columns: STATS_AVERAGES,
    },
    View {
        name: "totals",
        about: "SHOW STATS summed over all databases, a figure in a row.",
        argument: "",
        reader: Reader::Stats,
        columns: TOTALS,
    },
    View {
        name: "pools",
        about: "Clients and server connections of each database and user.",
        argument: "",
        reader: Reader::Stats,
        columns: POOLS,
    },
    View {
        name: "clients",
        about: "Clients.",
        argument: "",
        reader: Reader::Stats,
        columns: SOCKETS_ALONE,
    },
    View {
        name: "servers",
        about: "Server connections.",
        argument: "",
        reader: Reader::Stats,
        columns: SOCKETS_ALONE,
    },
    View {
        name: "sockets",
        about: "Clients and server connections.",
        argument: "",
        reader: Reader::Stats,
        columns: SOCKETS_WITH_BUFFERS,
    },
    View {
        name: "active_sockets",
        about: "Clients and server connections that are linked.",
        argument: "",
        reader: Reader::Stats,
        columns: SOCKETS_WITH_BUFFERS,
    },
    View {
        name: "databases",
        about: "Databases that clients may ask for.",
        argument: "",
        reader: Reader::Stats,
        columns: DATABASES,
    },
    View { name: "users", about: "Users.", argument: "", reader: Reader::Stats, columns: USERS },
    View {
        name: "config",
        about: "Settings: those of PgBouncer in database `pgbouncer`, Forebay’s in `forebay`.",
        argument: "",
        reader: Reader::Stats,
        columns: CONFIG,
    },
    View {
        name: "lists",
        about: "How much there is of what.",
        argument: "",
        reader: Reader::Stats,
        columns: LISTS,
    },
    View {
        name: "version",
        about: "The version.",
        argument: "",
        reader: Reader::Stats,
        columns: VERSION,
    },
    View {
        name: "state",
        about: "Whether work is taken.",
        argument: "",
        reader: Reader::Stats,
        columns: STATE,
    },
    View {
        name: "mem",
        about: "Memory of what there may be many of.",
        argument: "",
        reader: Reader::Stats,
        columns: MEM,
    },
    View {
        name: "fds",
        about: "File descriptors; without keys and passwords, unlike PgBouncer.",
        argument: "",
        reader: Reader::Admin,
        columns: FDS,
    },
    View {
        name: "dns_hosts",
        about: "Names of servers and their addresses.",
        argument: "",
        reader: Reader::Stats,
        columns: DNS_HOSTS,
    },
    View {
        name: "dns_zones",
        about: "Zones of names: none, Forebay asks the system for names.",
        argument: "",
        reader: Reader::Stats,
        columns: DNS_ZONES,
    },
    View {
        name: "peers",
        about: "Other instances that cancel requests are passed to.",
        argument: "",
        reader: Reader::Stats,
        columns: PEERS,
    },
    View {
        name: "peer_pools",
        about: "Cancel requests that are passed to other instances.",
        argument: "",
        reader: Reader::Stats,
        columns: PEER_POOLS,
    },
];
