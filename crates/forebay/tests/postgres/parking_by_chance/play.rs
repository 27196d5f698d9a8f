//! Plays statements on both sides: a client of the gateway, and its twin at PostgreSQL itself.

use std::time::Duration;

use forebay_postgres::ParkingCounts;
use forebay_seam::time;

use super::pieces::{Answers, BEGINS, ISOLATED, Way};
use crate::bench::{Bench, USER};
use crate::client::{
    Client, Message, bind, close, execute, function_call, parse, parse_typed, query, show, sync,
    terminate,
};
use crate::parking::{counts, forced};

/// Longer than any proof takes.
const PATIENCE: Duration = Duration::from_secs(15);
/// `setseed(double precision)`.
const SETSEED: u32 = 1599;

/// What became of a transaction behind a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// None is open, or it has failed.
    Ended,
    Parked,
    /// And its twin holds something that PostgreSQL shows.
    ParkedThoughItHolds,
    Stays(String),
}

/// A gateway that parks wherever it can, its database, and another one that is as that was.
pub(super) struct Stand {
    bench: Bench,
    twin: String,
    role: String,
}

impl Stand {
    pub(super) async fn start(name: &str) -> Self {
        let bench = Bench::with(1, forced).await;
        let role = format!("parking_{name}");
        let setup = include_str!("setup.sql")
            .replace("{role}", &role)
            .replace("{port}", &bench.server.port().to_string())
            .replace("{user}", USER);
        let mut client = bench.direct().await;
        let done = client.query(&setup).await;
        assert!(done.ends_with("Z[I]") && !done.contains("E["), "{done}");
        drop(client);
        let twin = format!("{}_twin", bench.database);
        let mut admin = Client::connect(bench.server, "postgres", &[]).await.unwrap();
        let copy = format!("CREATE DATABASE {twin} TEMPLATE {} STRATEGY FILE_COPY", bench.database);
        let mut copied = String::new();
        for _ in 0..100 {
            // Who made it may not be gone yet.
            copied = admin.query(&copy).await;
            if copied == "C[CREATE DATABASE] Z[I]" {
                return Self { bench, twin, role };
            }
            time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{copied}");
    }

    /// A text as it is sent.
    fn text(&self, sql: &str) -> String {
        sql.replace("{role}", &self.role)
            .replace("{port}", &self.bench.server.port().to_string())
            .replace("{user}", USER)
    }

    /// Defines something in the gateway's database, through it.
    pub(super) async fn defines(&self, definition: &str) {
        let done = self.bench.client().await.query(definition).await;
        assert!(done.ends_with("Z[I]") && !done.contains("E["), "{done}");
        self.bench.all_home().await;
    }

    /// What became of transactions so far.
    fn looks(&self) -> ParkingCounts {
        counts(&self.bench)
    }

    /// Both databases are the same.
    pub(super) async fn is_as_its_twin(&self, seed: u64) {
        const ALL: &str = "SELECT (SELECT string_agg(i::text, ' ' ORDER BY n) FROM items i), \
             (SELECT string_agg(x::text, ' ' ORDER BY id) FROM notes x), \
             (SELECT string_agg(p::text, ' ' ORDER BY n) FROM parts p), \
             (SELECT last_value FROM counted), to_regclass('made'), \
             (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = \
             (SELECT oid FROM pg_database WHERE datname = current_database()))";
        let twin =
            Client::connect(self.bench.server, &self.twin, &[]).await.unwrap().value(ALL).await;
        assert_eq!(self.bench.truth(ALL).await, twin, "script {seed} leaves something else");
    }
}

/// A client of the gateway, and its twin.
pub(super) struct Pair {
    through: Client,
    direct: Client,
    /// What others see of the twin.
    observer: Client,
    /// Uses the gateway's connection while its owner is parked.
    other: Client,
    /// Who hears what is told on either side.
    ears: [Client; 2],
    /// It keeps its connection from now on.
    pub(super) is_pinned: bool,
}

impl Pair {
    pub(super) async fn new(stand: &Stand) -> Self {
        let (server, database, twin) = (stand.bench.server, &stand.bench.database, &stand.twin);
        let at = async |database: &str| Client::connect(server, database, &[]).await.unwrap();
        let mut ears = [at(database).await, at(twin).await];
        for ear in &mut ears {
            ear.query("CREATE TEMP TABLE elsewhere (n int); LISTEN told").await;
        }
        Self {
            through: stand.bench.client().await,
            direct: at(twin).await,
            observer: at(twin).await,
            other: stand.bench.client().await,
            ears,
            is_pinned: false,
        }
    }

    /// Sends `sql` to both, compares the answers, and says what became of the transaction.
    pub(super) async fn plays(
        &mut self,
        stand: &Stand,
        sql: &str,
        way: Way,
        answers: Answers,
    ) -> Found {
        let sql = stand.text(sql);
        let before = stand.looks();
        let bytes = self.bytes(&sql, way).await;
        self.through.send(&bytes).await;
        self.direct.send(&bytes).await;
        let through = self.through.until_ready(1).await;
        let direct = self.direct.until_ready(1).await;
        let status = |messages: &[Message]| messages.last().map(|last| last.body.clone());
        assert_eq!(status(&through), status(&direct), "{sql}: {}", show(&through));
        if answers == Answers::Same {
            assert_eq!(said(&through), said(&direct), "behind {sql}");
        }
        self.is_pinned |= sql.starts_with("PREPARE ");
        if status(&through) != Some(b"T".to_vec()) {
            return Found::Ended;
        }
        let found = time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = found(stand, &before) {
                    return found;
                }
                // A BEGIN that waits for the first statement has no connection to give back.
                if begins(&sql) && stand.bench.leased() == 0 {
                    return Found::Ended;
                }
                time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let found = found.unwrap_or_else(|_| panic!("nobody looked at it behind {sql}"));
        if found == Found::Parked {
            if !self.twin_holds_nothing(way).await {
                return Found::ParkedThoughItHolds;
            }
            let theirs = "SELECT set_config('app.held', 'theirs', false)";
            self.other.query(theirs).await;
        }
        found
    }

    /// Does the twin hold nothing that PostgreSQL shows?
    async fn twin_holds_nothing(&mut self, way: Way) -> bool {
        let pid = self.direct.key.first_chunk().map(|pid| i32::from_be_bytes(*pid)).unwrap();
        // A portal that is done keeps its snapshot; the gateway closes it first.
        let snapshot = if way == Way::Simple { "backend_xmin IS NULL" } else { "true" };
        let question = format!(
            "SELECT (SELECT backend_xid IS NULL AND {snapshot} FROM pg_stat_activity WHERE pid = {pid}) \
             AND NOT EXISTS (SELECT FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation \
             WHERE l.pid = {pid} AND locktype <> 'virtualxid' AND (mode <> 'AccessShareLock' \
             OR locktype <> 'relation' OR c.relkind NOT IN ('r', 'p', 'i', 'I', 'm', 't') \
             OR c.relrowsecurity OR c.relpersistence = 't'))"
        );
        self.observer.value(&question).await == "t"
    }

    async fn bytes(&mut self, sql: &str, way: Way) -> Vec<u8> {
        let values: &[&str] = if sql.contains("$1") { &["2"] } else { &[] };
        let parts = match way {
            Way::Simple => vec![query(sql)],
            Way::Prepared => vec![
                close(b'S', "own"),
                parse("own", sql),
                bind("", "own", values),
                execute("", 0),
                sync(),
            ],
            Way::OneRow => vec![parse("", sql), bind("", "", values), execute("", 1), sync()],
            Way::NamedPortal => {
                vec![parse("", sql), bind("kept", "", values), execute("kept", 0), sync()]
            }
            Way::Declared(name) => {
                let oid = self.observer.value(&format!("SELECT '{name}'::regtype::oid")).await;
                let types = [oid.parse().unwrap()];
                vec![parse_typed("", sql, &types), bind("", "", values), execute("", 0), sync()]
            }
            Way::Call => vec![function_call(SETSEED, &["0.25"])],
        };
        parts.concat()
    }

    /// Another client, and its twin.
    pub(super) async fn renews(&mut self, stand: &Stand) {
        self.through = stand.bench.client().await;
        self.direct = Client::connect(stand.bench.server, &stand.twin, &[]).await.unwrap();
        self.is_pinned = false;
    }

    /// Both leave, with sessions that are as they were, and have told the same.
    pub(super) async fn leaves(&mut self, stand: &Stand) {
        const LEFT: &str = "SELECT current_setting('app.held', true) IS NOT DISTINCT FROM 'theirs' \
             OR coalesce(current_setting('app.held', true), '') = '', current_setting('work_mem'), \
             current_user = session_user";
        drop(self.through.query("ROLLBACK").await);
        drop(self.direct.query("ROLLBACK").await);
        assert_eq!(self.through.value(LEFT).await, self.direct.value(LEFT).await);
        self.through.send(&terminate()).await;
        let mut heard = Vec::new();
        for ear in &mut self.ears {
            ear.send(&query("NOTIFY told, 'this is all'")).await;
            let mut all = Vec::new();
            while all.last().is_none_or(|last: &String| !last.contains("this is all")) {
                let told = ear.until_tag(b'A').await.pop().unwrap();
                all.push(String::from_utf8_lossy(&told.body[4..]).into_owned());
            }
            heard.push(all);
        }
        assert_eq!(heard[0], heard[1], "something else was told");
        stand.bench.all_home().await;
    }
}

fn begins(sql: &str) -> bool {
    BEGINS.iter().chain(ISOLATED).any(|begin| *begin == sql)
}

/// What became of a transaction since `before`, if it was looked at.
fn found(stand: &Stand, before: &ParkingCounts) -> Option<Found> {
    let now = stand.looks();
    if now.parks > before.parks {
        return Some(Found::Parked);
    }
    let is_new = |(reason, times): &(&&'static str, &u64)| {
        // Who could not be asked is asked again.
        **reason != "no_witness" && before.refusals.get(**reason) != Some(*times)
    };
    now.refusals.iter().find(is_new).map(|(reason, _)| Found::Stays((*reason).to_owned()))
}

/// What came, but what others told.
fn said(messages: &[Message]) -> String {
    let own: Vec<_> = messages.iter().filter(|message| message.tag != b'A').cloned().collect();
    show(&own)
}
