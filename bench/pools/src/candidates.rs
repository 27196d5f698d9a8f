//! The pools that are compared, behind one door. Each is configured as its users have it:
//! a deadline of 30 s, and whatever it does by itself at checkout and return.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::{
    Ask, Budget, ClassName, ClassSettings, Condition, ConnectFailure, Connector, Lease, Mode,
    Operation, Pool, PoolSettings, Request, TraceId,
};
use forebay_seam::time;
use sqlx_core::pool::{PoolConnection, PoolOptions};

use crate::nothing_database::{Nothing, Options};

/// How long each pool lets a caller wait.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A pool under test.
pub trait Candidate: Send + Sync + 'static {
    /// What one task keeps between its checkouts.
    type User: User;
    /// What stands in the table.
    const NAME: &'static str;

    /// A pool of at most `size` connections.
    fn new(size: u32) -> Self;
    /// The task `number`.
    fn user(&self, number: usize) -> Self::User;
}

/// A task's side of a pool.
pub trait User: Send + 'static {
    /// A connection on lease.
    type Held: Send;

    /// Waits for a connection; `None` if it was refused.
    fn take(&mut self) -> impl Future<Output = Option<Self::Held>> + Send;
    /// Gives it back.
    fn give_back(held: Self::Held);
}

/// No pool: what the measurement itself costs.
pub struct Harness;

pub struct HarnessUser;

impl Candidate for Harness {
    type User = HarnessUser;
    const NAME: &'static str = "(no pool)";

    fn new(_: u32) -> Self {
        Self
    }

    fn user(&self, _: usize) -> HarnessUser {
        HarnessUser
    }
}

impl User for HarnessUser {
    type Held = ();

    async fn take(&mut self) -> Option<()> {
        Some(())
    }

    fn give_back((): ()) {}
}

/// Forebay's engine with all that a gateway tells it, request and operation, and every policy
/// reckoned. They are only observed: enforced, they would refuse this load, which is the
/// point of them.
pub struct Full(Pool<Empty>);

/// Forebay's engine, told no more than identity and class.
pub struct Plain(Pool<Empty>);

/// Forebay's engine as the PostgreSQL gateway has it under a load that its connections bear:
/// classes and policies as nobody configured them, the operation known, a request for every
/// fourth task, and a budget that is not used up, since connecting takes longer than waiting.
pub struct Gateway(Pool<Empty>);

/// Operations of one request: an agent's turn.
const QUERIES: u32 = 16;

pub struct ForebayUser {
    pool: Pool<Empty>,
    ask: Ask<Identity>,
    traces: Option<Traces>,
}

/// The requests of one task, one after the other. Each is new to the pool: a request that
/// never ends goes before all others for a minute.
pub struct Traces {
    tenant: Arc<str>,
    task: u32,
    request: u64,
    queries_left: u32,
}

impl Traces {
    fn next(&mut self) -> Option<Request> {
        if self.queries_left > 0 {
            self.queries_left -= 1;
            return None;
        }
        self.queries_left = QUERIES - 1;
        self.request += 1;
        let mut parent = *b"00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let id = u128::from(self.task) << 64 | u128::from(self.request);
        for (place, byte) in parent[3..35].iter_mut().rev().enumerate() {
            *byte = b"0123456789abcdef"[usize::try_from(id >> (4 * place) & 15).unwrap_or(0)];
        }
        let trace = TraceId::from_traceparent(std::str::from_utf8(&parent).ok()?)?;
        Some(Request::new(Arc::clone(&self.tenant), trace))
    }
}

/// An identity as gateways have it: two strings.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    database: Arc<str>,
    user: Arc<str>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.database)
    }
}

/// Connections that do nothing.
#[derive(Default)]
pub struct Empty {
    /// What connecting takes.
    connect: Duration,
}

impl Connector for Empty {
    type Identity = Identity;
    type Connection = Box<u64>;

    async fn connect(&self, _: &Identity) -> Result<Box<u64>, ConnectFailure> {
        if !self.connect.is_zero() {
            time::sleep(self.connect).await;
        }
        Ok(Box::new(0))
    }

    fn is_open(&self, _: &mut Box<u64>) -> bool {
        true
    }

    async fn probe(&self, connection: Box<u64>) -> Option<Box<u64>> {
        Some(connection)
    }

    async fn reset(&self, connection: Box<u64>) -> Option<Box<u64>> {
        Some(connection)
    }
}

fn forebay(size: u32, mode: Mode) -> Pool<Empty> {
    let core = ClassSettings { mode, ..ClassSettings::whole_budget(PATIENCE) };
    let other = ClassSettings { mode, ..ClassSettings::default() };
    let settings = PoolSettings {
        classes: vec![
            (ClassName::new("core"), core),
            (ClassName::new("ai-read"), other.clone()),
            (ClassName::new("ai-write"), other),
        ],
        concurrent_opens: Some(size),
        opens_per_second: Some(1_000_000),
        ..PoolSettings::new("bench", Budget::Fixed(size))
    };
    Pool::new(Empty::default(), settings)
}

fn ask(pool: &Pool<Empty>) -> Ask<Identity> {
    let identity = Identity { database: "app".into(), user: "agent".into() };
    Ask::new(identity, pool.class("core").expect("a class of the settings"))
}

impl Candidate for Full {
    type User = ForebayUser;
    const NAME: &'static str = "forebay, all on";

    fn new(size: u32) -> Self {
        Self(forebay(size, Mode::Observe))
    }

    fn user(&self, number: usize) -> ForebayUser {
        let operation = Operation::new("answer", format!("statement {}", number % 16));
        let ask = Ask { operation: Some(operation), ..ask(&self.0) };
        let task = u32::try_from(number).expect("a small number");
        let traces = Traces { tenant: "tenant".into(), task, request: 0, queries_left: 0 };
        ForebayUser { pool: self.0.clone(), ask, traces: Some(traces) }
    }
}

impl Candidate for Plain {
    type User = ForebayUser;
    const NAME: &'static str = "forebay, plain";

    fn new(size: u32) -> Self {
        Self(forebay(size, Mode::Off))
    }

    fn user(&self, _: usize) -> ForebayUser {
        ForebayUser { pool: self.0.clone(), ask: ask(&self.0), traces: None }
    }
}

impl Candidate for Gateway {
    type User = ForebayUser;
    const NAME: &'static str = "forebay, in the gateway";

    fn new(size: u32) -> Self {
        let empty = Empty { connect: Duration::from_secs(2) };
        let settings = PoolSettings {
            concurrent_opens: Some(size),
            ..PoolSettings::new("bench", Budget::Fixed(size * 8))
        };
        Self(Pool::new(empty, settings))
    }

    fn user(&self, number: usize) -> ForebayUser {
        let operation = Operation::new("answer", format!("statement {}", number % 16));
        let ask = Ask { operation: Some(operation), ..ask(&self.0) };
        let task = u32::try_from(number).expect("a small number");
        let traces = Traces { tenant: "tenant".into(), task, request: 0, queries_left: 0 };
        let traces = number.is_multiple_of(4).then_some(traces);
        ForebayUser { pool: self.0.clone(), ask, traces }
    }
}

impl User for ForebayUser {
    type Held = Lease<Empty>;

    async fn take(&mut self) -> Option<Lease<Empty>> {
        if let Some(request) = self.traces.as_mut().and_then(Traces::next) {
            self.ask.request = Some(request);
        }
        self.pool.checkout(&self.ask).await.ok()
    }

    fn give_back(lease: Lease<Empty>) {
        lease.give_back(Condition::Clean);
    }
}

/// deadpool with a timeout for waiting, which it does not have unless asked.
pub struct Deadpool(deadpool::managed::Pool<DeadpoolEmpty>);

pub struct DeadpoolUser(deadpool::managed::Pool<DeadpoolEmpty>);

#[derive(Debug)]
pub struct DeadpoolEmpty;

impl deadpool::managed::Manager for DeadpoolEmpty {
    type Type = Box<u64>;
    type Error = Infallible;

    async fn create(&self) -> Result<Box<u64>, Infallible> {
        Ok(Box::new(0))
    }

    async fn recycle(
        &self,
        _: &mut Box<u64>,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

impl Candidate for Deadpool {
    type User = DeadpoolUser;
    const NAME: &'static str = "deadpool";

    fn new(size: u32) -> Self {
        let pool = deadpool::managed::Pool::builder(DeadpoolEmpty)
            .max_size(usize::try_from(size).expect("a small number"))
            .wait_timeout(Some(PATIENCE))
            .runtime(deadpool::Runtime::Tokio1)
            .build();
        Self(pool.expect("a runtime is given"))
    }

    fn user(&self, _: usize) -> DeadpoolUser {
        DeadpoolUser(self.0.clone())
    }
}

impl User for DeadpoolUser {
    type Held = deadpool::managed::Object<DeadpoolEmpty>;

    async fn take(&mut self) -> Option<Self::Held> {
        self.0.get().await.ok()
    }

    fn give_back(held: Self::Held) {
        drop(held);
    }
}

/// bb8.
pub struct Bb8(bb8::Pool<Bb8Empty>);

pub struct Bb8User(bb8::Pool<Bb8Empty>);

#[derive(Debug)]
pub struct Bb8Empty;

impl bb8::ManageConnection for Bb8Empty {
    type Connection = Box<u64>;
    type Error = Infallible;

    async fn connect(&self) -> Result<Box<u64>, Infallible> {
        Ok(Box::new(0))
    }

    async fn is_valid(&self, _: &mut Box<u64>) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Box<u64>) -> bool {
        false
    }
}

impl Candidate for Bb8 {
    type User = Bb8User;
    const NAME: &'static str = "bb8";

    fn new(size: u32) -> Self {
        let pool = bb8::Pool::builder().max_size(size).connection_timeout(PATIENCE);
        Self(pool.build_unchecked(Bb8Empty))
    }

    fn user(&self, _: usize) -> Bb8User {
        Bb8User(self.0.clone())
    }
}

impl User for Bb8User {
    // The connection borrows no pool, as those of the others.
    type Held = bb8::PooledConnection<'static, Bb8Empty>;

    async fn take(&mut self) -> Option<Self::Held> {
        self.0.get_owned().await.ok()
    }

    fn give_back(held: Self::Held) {
        drop(held);
    }
}

/// mobc.
pub struct Mobc(mobc::Pool<MobcEmpty>);

pub struct MobcUser(mobc::Pool<MobcEmpty>);

pub struct MobcEmpty;

#[mobc::async_trait]
impl mobc::Manager for MobcEmpty {
    type Connection = Box<u64>;
    type Error = Infallible;

    async fn connect(&self) -> Result<Box<u64>, Infallible> {
        Ok(Box::new(0))
    }

    async fn check(&self, connection: Box<u64>) -> Result<Box<u64>, Infallible> {
        Ok(connection)
    }
}

impl Candidate for Mobc {
    type User = MobcUser;
    const NAME: &'static str = "mobc";

    fn new(size: u32) -> Self {
        let size = u64::from(size);
        let pool = mobc::Pool::builder().max_open(size).max_idle(size);
        Self(pool.get_timeout(Some(PATIENCE)).build(MobcEmpty))
    }

    fn user(&self, _: usize) -> MobcUser {
        MobcUser(self.0.clone())
    }
}

impl User for MobcUser {
    type Held = mobc::Connection<MobcEmpty>;

    async fn take(&mut self) -> Option<Self::Held> {
        self.0.get().await.ok()
    }

    fn give_back(held: Self::Held) {
        drop(held);
    }
}

/// sqlx's pool.
pub struct Sqlx(sqlx_core::pool::Pool<Nothing>);

pub struct SqlxUser(sqlx_core::pool::Pool<Nothing>);

impl Candidate for Sqlx {
    type User = SqlxUser;
    const NAME: &'static str = "sqlx";

    fn new(size: u32) -> Self {
        let pool = PoolOptions::new().max_connections(size).acquire_timeout(PATIENCE);
        Self(pool.connect_lazy_with(Options))
    }

    fn user(&self, _: usize) -> SqlxUser {
        SqlxUser(self.0.clone())
    }
}

impl User for SqlxUser {
    type Held = PoolConnection<Nothing>;

    async fn take(&mut self) -> Option<Self::Held> {
        self.0.acquire().await.ok()
    }

    fn give_back(held: Self::Held) {
        drop(held);
    }
}
