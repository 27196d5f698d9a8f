//! PostgreSQL by tokio-postgres: two classes on one budget, requests that fan out, and a lease
//! that is cancelled in a transaction and comes home as good as new. Run it with
//! `cargo run -p forebay-pool --example tokio_postgres -- postgres://user:password@host/database`
#![allow(clippy::disallowed_methods, reason = "who embeds the pool uses tokio as it is")]

use std::time::{Duration, Instant};
use std::{error::Error, fmt};

use forebay_pool::{
    Ask, Budget, Condition, ConnectFailure, Connector, FailureKind, Pool, PoolSettings, Request,
    TraceId,
};
use tokio::time::{sleep, timeout};
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet};
use tokio_postgres::{Client, Config, NoTls, config::Host, error::SqlState};

type Failure = Box<dyn Error + Send + Sync>;

/// Database and user: a connection belongs to one login for life.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Login(String, String);

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// All that the protocol has to bring.
struct Postgres {
    address: String,
    config: Config,
}

impl Connector for Postgres {
    type Identity = Login;
    type Connection = Client;

    async fn connect(&self, login: &Login) -> Result<Client, ConnectFailure> {
        let unreachable = |error| ConnectFailure::new(FailureKind::Unreachable, error);
        let mut config = self.config.clone();
        config.dbname(&login.0).user(&login.1);
        let stream = TcpStream::connect(&self.address).await.map_err(unreachable)?;
        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(failure)?;
        tokio::spawn(connection); // ends when the client is dropped
        Ok(client)
    }

    fn is_open(&self, client: &mut Client) -> bool {
        !client.is_closed()
    }

    async fn probe(&self, client: Client) -> Option<Client> {
        client.check_connection().await.ok().map(|()| client)
    }

    /// What the last owner left running is cancelled if it takes long. DISCARD ALL would do
    /// for the rest, but takes the statements that tokio-postgres keeps for itself as well.
    async fn reset(&self, client: Client) -> Option<Client> {
        let rollback = client.batch_execute("ROLLBACK");
        if timeout(Duration::from_millis(100), rollback).await.is_err() {
            let mut stream = TcpStream::connect(&self.address).await.ok()?;
            client.cancel_token().cancel_query_raw(&mut stream, NoTls).await.ok()?;
            // The server hangs up when it has cancelled: so it cannot hit who comes next.
            stream.read_to_end(&mut Vec::new()).await.ok()?;
        }
        let clean = "ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *;
            SELECT pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES";
        client.batch_execute(clean).await.ok().map(|()| client)
    }
}

/// Busy is not down, and a wrong password is neither: PostgreSQL tells them apart by SQLSTATE.
fn failure(error: tokio_postgres::Error) -> ConnectFailure {
    let kind = match error.code().map(SqlState::code) {
        Some("53300") => FailureKind::Busy,
        Some("3D000" | "42501") => FailureKind::Denied,
        Some(code) if code.starts_with("28") => FailureKind::Denied,
        Some(_) | None => FailureKind::Unreachable, // 57P03: it is only just starting
    };
    ConnectFailure::new(kind, error)
}

/// Leaves nothing behind. After an error the lease is dropped, and its connection reset.
async fn ask_once(pool: Pool<Postgres>, ask: Ask<Login>) -> Result<(), Failure> {
    let lease = pool.checkout(ask).await?;
    lease.query_one("SELECT count(*) FROM pg_class, pg_sleep(0.02)", &[]).await?;
    lease.give_back(Condition::Clean);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).ok_or("which server? postgres://user:password@host/db")?;
    let config: Config = url.parse()?;
    let [Host::Tcp(host)] = config.get_hosts() else { return Err("which host?".into()) };
    let address = format!("{host}:{}", config.get_ports().first().unwrap_or(&5432));
    let user = config.get_user().ok_or("which user?")?.to_owned();
    let login = Login(config.get_dbname().unwrap_or(&user).to_owned(), user);

    let budget = Budget::OfCapacity { percent: 70, until_known: 4 };
    let mut settings = PoolSettings::new("main", budget);
    settings.reset_timeout = Duration::from_secs(5);
    for (_, class) in &mut settings.classes {
        class.checkout_timeout = Duration::from_secs(5);
    }
    let pool = Pool::new(Postgres { address, config }, settings);
    let core = pool.class("core").ok_or("a standard class")?;
    let agents = pool.class("ai-read").ok_or("a standard class")?;

    // The server says what it can take; budget, guarantees and ceilings follow.
    let lease = pool.checkout(Ask::new(login.clone(), core)).await?;
    let row = lease.query_one("SELECT current_setting('max_connections')::int", &[]).await?;
    pool.set_capacity(u32::try_from(row.get::<_, i32>(0))?);
    lease.give_back(Condition::Clean);

    // Three requests of agents ask eight things at once each. Meanwhile somebody logs in.
    let mut work = JoinSet::new();
    for number in 1..=3 {
        let trace = TraceId::from_traceparent(&format!("00-{number:032x}-{number:016x}-01"));
        let mut ask = Ask::new(login.clone(), agents);
        ask.request = trace.map(|trace| Request::new("acme".into(), trace));
        (0..8).for_each(|_| drop(work.spawn(ask_once(pool.clone(), ask.clone()))));
    }
    ask_once(pool.clone(), Ask::new(login.clone(), core)).await?;
    work.join_all().await.into_iter().collect::<Result<(), Failure>>()?;

    // A caller leaves in the middle of a transaction: its lease is dropped with its future.
    let lease = pool.checkout(Ask::new(login.clone(), agents)).await?;
    let left: i32 = lease.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let work = async move {
        lease.batch_execute("BEGIN; CREATE TEMP TABLE lost (); SELECT pg_sleep(60)").await
    };
    println!("the caller left: {}", timeout(Duration::from_millis(200), work).await.is_err());
    while pool.snapshot().cleaning > 0 {
        sleep(Duration::from_millis(10)).await; // the pool resets it in a task of its own
    }
    let lease = pool.checkout(Ask::new(login, core)).await?;
    let row = lease.query_one("SELECT pg_backend_pid(), to_regclass('lost') IS NULL", &[]).await?;
    println!("the same connection serves again: {}", row.get::<_, i32>(0) == left);
    println!("nothing is left of it: {}", row.get::<_, bool>(1));
    lease.give_back(Condition::Clean);

    let seen = pool.snapshot();
    println!("budget {}, opened {}, unclean {}", seen.budget, seen.opened, seen.closed.unclean);
    for class in &seen.classes {
        println!("{}: {} leases, {} waited", class.class, class.checkouts, class.waited);
    }
    pool.drain(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}
