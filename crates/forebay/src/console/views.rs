//! Our own views: names, columns, types. What fills them is in [`super::rows`].

use forebay_postgres::console::{Column, Kind, Reader, View};

const fn column(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, meaning }
}

const fn view(name: &'static str, about: &'static str, columns: &'static [Column]) -> View {
    View { name, about, argument: "", reader: Reader::Stats, columns }
}

/// In the order of SHOW HELP.
pub const VIEWS: &[View] = &[
    view(
        "classes",
        "Workload classes of each pool.",
        &[
            column("gateway", Kind::Text, "`postgres` or `http`"),
            column("destination", Kind::Text, "The server or service"),
            column("class", Kind::Text, "Its name"),
            column("kind", Kind::Text, "`core` or `ai`"),
            column("guarantee", Kind::Int, "Connections that no other class can take"),
            column("ceiling", Kind::Int, "Connections that it never exceeds"),
            column("leased", Kind::Int, "Connections on lease"),
            column("waiting", Kind::Int, "Callers who wait"),
            column("under_way", Kind::Int, "Requests under way"),
            column("checkouts", Kind::Big, "Leases given"),
            column("waited", Kind::Big, "Of those, how many had to wait"),
            column("timed_out", Kind::Big, "Callers whose time to wait was over"),
            column("queue_full", Kind::Big, "Callers told that the queue is full"),
            column("failed", Kind::Big, "Callers told that the destination cannot be reached"),
            column("abandoned", Kind::Big, "Callers who left while they waited"),
            column("deadlocks", Kind::Big, "Callers who failed in a circle"),
            column("long_holds", Kind::Big, "Leases beyond the hold limit"),
            column("wait_p50", Kind::Float, "Median of the wait, seconds"),
            column("wait_p99", Kind::Float, "99th percentile of the wait, seconds"),
            column("hold_p50", Kind::Float, "Median of the hold, seconds"),
            column("hold_p99", Kind::Float, "99th percentile of the hold, seconds"),
            column("utilisation", Kind::Float, "How busy it is, 0 to 1"),
            column("breaker", Kind::Text, "`closed`, `open` or `half-open`"),
        ],
    ),
    view(
        "requests",
        "Requests that hold connections now.",
        &[
            column("tenant", Kind::Text, "On whose account"),
            column("trace", Kind::Text, "The trace id"),
            column("leases", Kind::Int, "Connections that it holds, of all pools"),
        ],
    ),
    view(
        "holds",
        "Transactions of requests that are open and idle now, the longest first.",
        &[
            column("tenant", Kind::Text, "On whose account"),
            column("trace", Kind::Text, "The trace id"),
            column("kind", Kind::Text, "`held`, `parked` or `deferred`"),
            column("class", Kind::Text, "Its workload class"),
            column("feature", Kind::Text, "The endpoint, agent or tool"),
            column("statement", Kind::Text, "The last statement, without literals"),
            column("database", Kind::Text, "The database"),
            column("user", Kind::Text, "The user"),
            column("seconds", Kind::Float, "For how long its connection has been held"),
            column("calls", Kind::Int, "Outbound calls of the request that are under way"),
        ],
    ),
    view(
        "overlaps",
        "Transactions that idled during an outbound call of their request, since the start.",
        &[
            column("feature", Kind::Text, "The endpoint, agent or tool"),
            column("destination", Kind::Text, "What was called"),
            column("kind", Kind::Text, "`held`, `parked` or `deferred`"),
            column("begun", Kind::Big, "That began"),
            column("ended", Kind::Big, "That ended"),
            column("seconds", Kind::Float, "Their time, of those that ended"),
        ],
    ),
    view(
        "pins",
        "Clients that keep a server connection beyond their transaction.",
        &[
            column("user", Kind::Text, "The user"),
            column("database", Kind::Text, "The database"),
            column("application_name", Kind::Text, "What the client calls itself"),
            column("reasons", Kind::Text, "Why"),
            column("seconds", Kind::Big, "For how long"),
        ],
    ),
    view(
        "features",
        "What each feature takes of each pool.",
        &[
            column("gateway", Kind::Text, "`postgres` or `http`"),
            column("destination", Kind::Text, "The server or service"),
            column("feature", Kind::Text, "The endpoint, agent or tool"),
            column("checkouts", Kind::Big, "Leases given"),
            column("requests", Kind::Big, "Requests that are over"),
            column("fan_out_jumps", Kind::Big, "Jumps of its fan-out"),
            column("wait_mean", Kind::Float, "Wait for a lease on average, seconds"),
            column("hold_mean", Kind::Float, "Hold of a lease on average, seconds"),
            column("leases_mean", Kind::Float, "Leases of a request, on average"),
            column("leases_p95", Kind::Float, "The 95th percentile of that"),
            column("used_mean", Kind::Float, "Connection time of a request on average, seconds"),
            column("peak_p95", Kind::Float, "Leases at the same time, 95th percentile"),
            column("nested_p95", Kind::Float, "Leases needed to go on, 95th percentile"),
        ],
    ),
    view(
        "operations",
        "What operations were learnt to take, the longest first.",
        &[
            column("gateway", Kind::Text, "`postgres` or `http`"),
            column("destination", Kind::Text, "The server or service"),
            column("class", Kind::Text, "The class"),
            column("feature", Kind::Text, "The feature"),
            column("operation", Kind::Text, "What is done"),
            column("worth", Kind::Float, "How many leases this knowledge is worth"),
            column("mean", Kind::Float, "Connection time on average, seconds"),
            column("p95", Kind::Float, "The 95th percentile of that, seconds"),
        ],
    ),
    View {
        argument: "n",
        ..view(
            "events",
            "What happened last, the newest last.",
            &[
                column("at", Kind::Text, "When, UTC"),
                column("event", Kind::Text, "What kind of event"),
                column("what", Kind::Text, "All that is known of it, as JSON"),
            ],
        )
    },
    view(
        "budgets",
        "How many connections each pool may have, and who wants which number.",
        &[
            column("gateway", Kind::Text, "`postgres` or `http`"),
            column("destination", Kind::Text, "The server or service"),
            column("health", Kind::Text, "`unknown`, `up`, `busy` or `down`"),
            column("budget", Kind::Int, "Connections that we may hold"),
            column("configured", Kind::Int, "As configured"),
            column("by_hand", Kind::Int, "Set by a person"),
            column("window", Kind::Int, "Of the timetable"),
            column("advice", Kind::Int, "What demand asks for"),
            column("borne", Kind::Int, "What the destination bears, where that is less"),
            column("capacity", Kind::Int, "What it says it can take"),
            column("ai_ceiling", Kind::Int, "What all AI classes may have together"),
            column("leased", Kind::Int, "On lease"),
            column("idle", Kind::Int, "At rest"),
            column("opening", Kind::Int, "Being opened"),
            column("cleaning", Kind::Int, "Being reset or probed"),
            column(
                "last_error",
                Kind::Text,
                "What the last failed attempt said, while it is not up",
            ),
        ],
    ),
    view(
        "pressure",
        "How close each class is to shedding.",
        &[
            column("gateway", Kind::Text, "`postgres` or `http`"),
            column("destination", Kind::Text, "The server or service"),
            column("class", Kind::Text, "The class"),
            column("pressure", Kind::Float, "0 to 1; shedding begins at 0.5"),
            column("utilisation", Kind::Float, "How busy it is, 0 to 1"),
            column("waiting", Kind::Int, "Callers who wait"),
            column("shedding", Kind::Text, "`off`, `observe` or `enforce`"),
            column(
                "retry_after_ms",
                Kind::Big,
                "When one who is refused had best come back, milliseconds",
            ),
        ],
    ),
    view(
        "policies",
        "What the policies of each class decided.",
        &[
            column("gateway", Kind::Text, "`postgres` or `http`"),
            column("destination", Kind::Text, "The server or service"),
            column("class", Kind::Text, "The class"),
            column("policy", Kind::Text, "Which"),
            column("mode", Kind::Text, "`off`, `observe` or `enforce`"),
            column("acted", Kind::Big, "How often it refused or held back somebody"),
            column("observed", Kind::Big, "How often it would have"),
        ],
    ),
    view(
        "destinations",
        "Calls to services over HTTP.",
        &[
            column("destination", Kind::Text, "The service"),
            column("in_flight", Kind::Int, "Calls under way"),
            column("success", Kind::Big, "Answers 2xx"),
            column("redirect", Kind::Big, "Answers 3xx"),
            column("client_error", Kind::Big, "Answers 4xx"),
            column("server_error", Kind::Big, "Answers 5xx"),
            column("refused", Kind::Big, "Calls that Forebay answered itself"),
            column("abandoned", Kind::Big, "Calls whose client left"),
            column("cut_short", Kind::Big, "Answers that broke off"),
            column("resent", Kind::Big, "Calls sent again on a fresh connection"),
            column("throttled", Kind::Big, "Answers 429"),
            column("first_byte_p50", Kind::Float, "Median until the first byte, seconds"),
            column("duration_p50", Kind::Float, "Median until the end, seconds"),
            column("duration_p99", Kind::Float, "99th percentile of that, seconds"),
        ],
    ),
    view(
        "replication",
        "Replication connections of clients.",
        &[column("server", Kind::Text, "The server"), column("connections", Kind::Int, "How many")],
    ),
    view(
        "listeners",
        "What became of LISTEN and NOTIFY where connections are shared.",
        &[
            column("server", Kind::Text, "The server"),
            column("connections", Kind::Int, "Connections that listen"),
            column("channels", Kind::Int, "Channels that are listened to"),
            column("clients", Kind::Int, "Clients that listen"),
            column("delivered", Kind::Big, "Notifications told to clients"),
            column("overflowed", Kind::Big, "Clients sent away because they did not read theirs"),
            column("lost", Kind::Big, "Clients sent away because the connection was lost"),
        ],
    ),
];
