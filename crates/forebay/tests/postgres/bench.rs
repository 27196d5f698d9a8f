//! A gateway in this process, in front of a PostgreSQL that all tests of the process share.
//! Each bench has a database of its own, so what one test leaves is no other's concern.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay::demo::cluster::{Cluster, ClusterSettings};
use forebay::demo::postgres_binaries;
use forebay_pool::overlap::Overlaps;
use forebay_postgres::settings::{ClientAuth, ServerSettings};
use forebay_postgres::{Changes, Gateway, PostgresSettings};
use forebay_seam::task::Stopper;
use forebay_seam::{net, time};
use tokio_postgres::NoTls;

use crate::client::Client;

/// The superuser of the shared cluster; whoever reaches it is believed.
pub(crate) const USER: &str = "forebay";

fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| start(Vec::new()))
}

pub(crate) fn start(settings: Vec<(String, String)>) -> Cluster {
    let settings = ClusterSettings {
        max_connections: 300,
        settings,
        hba: ["all", "replication"].map(|of| format!("host {of} all 127.0.0.1/32 trust")).into(),
        ..ClusterSettings::default()
    };
    Cluster::start(&postgres_binaries::find().unwrap(), settings).unwrap()
}

/// A gateway and its database.
pub(crate) struct Bench {
    pub(crate) gateway: Gateway,
    pub(crate) overlaps: Arc<Overlaps>,
    /// What the gateway was made with.
    pub(crate) settings: PostgresSettings,
    pub(crate) address: SocketAddr,
    /// PostgreSQL itself.
    pub(crate) server: SocketAddr,
    pub(crate) database: String,
    _stopper: Stopper,
}

/// Settings that every bench begins with: one server, no proof asked of clients.
pub(crate) fn settings(server: SocketAddr, budget: u32) -> PostgresSettings {
    let text = format!(
        "{{\"address\": \"{server}\", \"sslmode\": \"disable\", \"budget\": {budget}, \
         \"warm_up\": 0, \"ai_share\": 100}}"
    );
    let server: ServerSettings = serde_json::from_str(&text).unwrap();
    PostgresSettings {
        auth: ClientAuth::Trust,
        servers: BTreeMap::from([("main".to_owned(), server)]),
        ..PostgresSettings::default()
    }
}

impl Bench {
    /// A gateway with `budget` server connections.
    pub(crate) async fn start(budget: u32) -> Self {
        Self::with(budget, |_| {}).await
    }

    pub(crate) async fn with(budget: u32, change: impl FnOnce(&mut PostgresSettings)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cluster = tokio::task::spawn_blocking(cluster).await.unwrap();
        let database = format!("bench_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = connect(cluster.address(), "postgres").await;
        admin
            .batch_execute(&format!("CREATE DATABASE {database} STRATEGY FILE_COPY"))
            .await
            .unwrap();
        Self::before(cluster.address(), &database, budget, change)
    }

    /// A gateway in front of `server`.
    pub(crate) fn before(
        server: SocketAddr,
        database: &str,
        budget: u32,
        change: impl FnOnce(&mut PostgresSettings),
    ) -> Self {
        let mut settings = settings(server, budget);
        change(&mut settings);
        let overlaps = Arc::new(Overlaps::default());
        let (shared, roster) = (Arc::clone(&overlaps), Arc::default());
        let gateway =
            Gateway::new(settings.clone(), shared, roster, Some("default".into())).unwrap();
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stopper, stop) = Stopper::new();
        let serving = gateway.clone();
        drop(tokio::spawn(async move { serving.serve(listener, stop).await }));
        let database = database.into();
        Self { gateway, overlaps, settings, address, server, database, _stopper: stopper }
    }

    /// Applies the settings of now with this change; what it came to.
    pub(crate) async fn apply(&mut self, change: impl FnOnce(&mut PostgresSettings)) -> Changes {
        change(&mut self.settings);
        let (gateway, settings) = (self.gateway.clone(), self.settings.clone());
        let applying = move || gateway.apply(settings, Some("default".into()));
        tokio::task::spawn_blocking(applying).await.unwrap().unwrap()
    }

    /// A client of the gateway.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address, &self.database, &[]).await.unwrap()
    }

    /// A client of PostgreSQL itself.
    pub(crate) async fn direct(&self) -> Client {
        Client::connect(self.server, &self.database, &[]).await.unwrap()
    }

    /// A driver's client of the gateway.
    pub(crate) async fn driver(&self) -> tokio_postgres::Client {
        connect(self.address, &self.database).await
    }

    /// What PostgreSQL itself answers to `question`: one row, one column, as text.
    pub(crate) async fn truth(&self, question: &str) -> String {
        self.direct().await.value(question).await
    }

    /// Sends each of `batches` through the gateway and to PostgreSQL itself: the answers must
    /// be the same.
    pub(crate) async fn answers_like_postgres(&self, batches: &[Vec<Vec<u8>>]) {
        let (mut client, mut direct) = (self.client().await, self.direct().await);
        for (n, batch) in batches.iter().enumerate() {
            let (ours, real) = (client.ask(batch).await, direct.ask(batch).await);
            assert_eq!(ours, real, "batch {n}");
        }
    }

    pub(crate) fn leased(&self) -> u32 {
        let pools = self.gateway.snapshot().pools;
        pools.iter().flat_map(|pool| &pool.classes).map(|class| class.leased).sum()
    }

    pub(crate) fn waiting(&self) -> u32 {
        let pools = self.gateway.snapshot().pools;
        pools.iter().flat_map(|pool| &pool.classes).map(|class| class.waiting).sum()
    }

    /// Waits until nothing is leased.
    pub(crate) async fn all_home(&self) {
        until("all leases are home", async || self.leased() == 0).await;
    }
}

/// A driver's client.
pub(crate) async fn connect(address: SocketAddr, database: &str) -> tokio_postgres::Client {
    let dsn = format!("postgres://{USER}@{address}/{database}");
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
    drop(tokio::spawn(connection));
    client
}

/// Waits until `reached`, a few seconds at most.
pub(crate) async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if reached().await {
            return;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}
