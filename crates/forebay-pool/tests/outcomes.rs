//! A checkout with each outcome that there is, left after each of its polls; and ten thousand
//! callers of every kind that leave when they please. Afterwards nothing is left: no lease, no
//! waiter, no request that counts; no more was opened than the budget and what failed; and the
//! whole budget can be had.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use forebay_pool::{
    Activity, Ask, Attempt, Budget, CheckoutError, ClassName, ClassSettings, Condition,
    ConnectFailure, Connector, FailureKind, Kind, Lease, Mode, Operation, Policies, Pool,
    PoolSettings, Refusal, Request, TraceId,
};
use forebay_seam::random::Dice;
use forebay_seam::time;
use tokio::task::JoinHandle;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(2);

/// The other side: it does what it is told, and counts.
#[derive(Clone, Default)]
struct Server(Arc<Side>);

#[derive(Default)]
struct Side {
    live: AtomicU32,
    most: AtomicU32,
    refuses: AtomicBool,
    /// The next look at a connection that rested finds it dead.
    next_is_dead: AtomicBool,
    /// Of a hundred connects, looks and resets each so many fail.
    trouble: AtomicU32,
    asked: AtomicU32,
}

impl Side {
    fn goes_wrong(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        asked.wrapping_mul(37) % 100 < self.trouble.load(Ordering::SeqCst)
    }
}

struct Conn(Arc<Side>);

impl Drop for Conn {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct User;

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("app")
    }
}

impl Connector for Server {
    type Identity = User;
    type Connection = Conn;

    async fn connect(&self, _: &User) -> Result<Conn, ConnectFailure> {
        let live = self.0.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(live, Ordering::SeqCst);
        let conn = Conn(Arc::clone(&self.0));
        time::sleep(MS).await;
        if self.0.refuses.load(Ordering::SeqCst) || self.0.goes_wrong() {
            let error = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Err(ConnectFailure::new(FailureKind::Unreachable, error));
        }
        Ok(conn)
    }

    fn is_open(&self, _: &mut Conn) -> bool {
        !self.0.next_is_dead.swap(false, Ordering::SeqCst) && !self.0.goes_wrong()
    }

    async fn probe(&self, connection: Conn) -> Option<Conn> {
        Some(connection)
    }

    async fn reset(&self, connection: Conn) -> Option<Conn> {
        time::sleep(MS).await;
        (!self.0.goes_wrong()).then_some(connection)
    }
}

/// `core` and `agents`; nothing is closed or replaced but what failed.
fn pool(budget: u32, core: ClassSettings, agents: ClassSettings) -> (Pool<Server>, Server) {
    let server = Server::default();
    let day = Duration::from_secs(86_400);
    let settings = PoolSettings {
        ai_share: 100,
        classes: vec![
            (ClassName::new("core"), ClassSettings { kind: Kind::Core, ..core }),
            (ClassName::new("agents"), ClassSettings { kind: Kind::Ai, ..agents }),
        ],
        idle_ttl: day,
        lifetime: day,
        opens_per_second: Some(1_000),
        concurrent_opens: Some(budget),
        seed: 1,
        ..PoolSettings::new("db", Budget::Fixed(budget))
    };
    (Pool::new(server.clone(), settings), server)
}

fn request(n: u32) -> Request {
    let trace = format!("00-{:032x}-0000000000000001-01", n + 1);
    Request::new("acme".into(), TraceId::from_traceparent(&trace).unwrap())
}

fn ask(pool: &Pool<Server>, class: &str) -> Ask<User> {
    Ask::new(User, pool.class(class).unwrap())
}

fn ask_of(pool: &Pool<Server>, n: u32) -> Ask<User> {
    let operation = Some(Operation::new("answer", "read"));
    Ask { request: Some(request(n)), operation, ..ask(pool, "agents") }
}

/// Polls `future` at most `polls` times and drops it right after the last.
async fn at_most<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn assert_nothing_is_left(pool: &Pool<Server>, server: &Server, budget: u32, what: &str) {
    time::sleep(Duration::from_secs(120)).await;
    let left = pool.snapshot();
    assert_eq!((left.leased, left.opening, left.cleaning), (0, 0, 0), "{what}");
    for class in &left.classes {
        assert_eq!((class.leased, class.waiting, class.under_way), (0, 0, 0), "{what}");
        assert!(class.demand.abs() < f64::EPSILON, "{what}: {} are needed", class.demand);
    }
    let side = &server.0;
    assert_eq!(left.idle, side.live.load(Ordering::SeqCst), "{what}: what lives is in the pool");
    assert!(side.most.load(Ordering::SeqCst) <= budget, "{what}: above the budget");
    // Beyond the maximum only what failed was opened anew, and what was replaced by hand.
    let gone = left.closed.broken + left.closed.unclean + left.closed.renewed + left.closed.surplus;
    let most = u64::from(budget) + gone;
    assert!(left.opened <= most, "{what}: {} opened of {:?}", left.opened, left.closed);
    side.trouble.store(0, Ordering::SeqCst);
    side.refuses.store(false, Ordering::SeqCst);
    time::sleep(Duration::from_secs(30)).await;
    // After an outage what may be lent grows in steps from the first that is lent.
    pool.checkout(ask(pool, "core")).await.unwrap().give_back(Condition::Clean);
    time::sleep(Duration::from_secs(30)).await;
    let mut all = Vec::new();
    for _ in 0..budget {
        all.push(pool.checkout(ask(pool, "core")).await.unwrap());
    }
    assert_eq!(pool.snapshot().leased, budget, "{what}: all of it can be had");
}

/// What a caller comes upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meets {
    Idle,
    NothingOpen,
    Busy,
    AwaitsReset,
    DeadAtRest,
    GrantedDead,
    Full,
    Late,
    Stale,
    Capped,
    ClosesACircle,
    IsCaughtInACircle,
    OwnDeadline,
    Deadline,
    Unreachable,
    Closes,
}

const ALL: [Meets; 16] = [
    Meets::Idle,
    Meets::NothingOpen,
    Meets::Busy,
    Meets::AwaitsReset,
    Meets::DeadAtRest,
    Meets::GrantedDead,
    Meets::Full,
    Meets::Late,
    Meets::Stale,
    Meets::Capped,
    Meets::ClosesACircle,
    Meets::IsCaughtInACircle,
    Meets::OwnDeadline,
    Meets::Deadline,
    Meets::Unreachable,
    Meets::Closes,
];

type Outcome = Result<Lease<Server>, CheckoutError>;

impl Meets {
    fn is_expected(self, outcome: &Outcome) -> bool {
        let refused = |why: fn(&Refusal) -> bool| match outcome {
            Err(CheckoutError::Refused { why: told, .. }) => why(told),
            _ => false,
        };
        match self {
            Self::Idle | Self::NothingOpen | Self::Busy | Self::AwaitsReset => outcome.is_ok(),
            Self::DeadAtRest | Self::GrantedDead => outcome.is_ok(),
            Self::Full => matches!(outcome, Err(CheckoutError::QueueFull { limit: 4, .. })),
            Self::Late => refused(|why| matches!(why, Refusal::Late { .. })),
            Self::Stale => refused(|why| matches!(why, Refusal::Stale)),
            Self::Capped => refused(|why| matches!(why, Refusal::Requests { limit: 1 })),
            Self::ClosesACircle | Self::IsCaughtInACircle => {
                matches!(outcome, Err(CheckoutError::Deadlock { held: 1, .. }))
            }
            Self::OwnDeadline | Self::Deadline => {
                matches!(outcome, Err(CheckoutError::TimedOut { .. }))
            }
            Self::Unreachable => matches!(outcome, Err(CheckoutError::Unreachable { .. })),
            Self::Closes => matches!(outcome, Err(CheckoutError::Closed { .. })),
        }
    }
}

/// A pool in the state that a caller meets, and who else is there.
struct Scene {
    pool: Pool<Server>,
    server: Server,
    ask: Ask<User>,
    held: Vec<Lease<Server>>,
    others: Vec<JoinHandle<()>>,
}

const BUDGET: u32 = 2;

impl Scene {
    async fn new(meets: Meets) -> Self {
        let plain = ClassSettings {
            mode: Mode::Off,
            checkout_timeout: PATIENCE,
            ..ClassSettings::default()
        };
        let enforce = Some(Mode::Enforce);
        let with = |policies| ClassSettings { policies, ..plain.clone() };
        let core = with(Policies {
            freshness: enforce.filter(|_| meets == Meets::Stale),
            deadline: enforce.filter(|_| meets == Meets::Late),
            ..Policies::default()
        });
        let agents = ClassSettings {
            max_requests: (meets == Meets::Capped).then_some(1),
            ..with(Policies {
                admission: enforce.filter(|_| meets == Meets::Capped),
                ..Policies::default()
            })
        };
        let (pool, server) = pool(BUDGET, core, agents);
        let ask = ask(&pool, "core");
        let (held, others) = (Vec::new(), Vec::new());
        let mut scene = Self { pool, server, ask, held, others };
        scene.set(meets).await;
        tokio::task::yield_now().await;
        scene
    }

    async fn set(&mut self, meets: Meets) {
        match meets {
            Meets::NothingOpen => {}
            Meets::Unreachable => self.server.0.refuses.store(true, Ordering::SeqCst),
            Meets::Idle | Meets::DeadAtRest => {
                self.fill(1).await;
                self.held.pop().unwrap().give_back(Condition::Clean);
                let is_dead = meets == Meets::DeadAtRest;
                self.server.0.next_is_dead.store(is_dead, Ordering::SeqCst);
            }
            Meets::Deadline => self.fill(BUDGET).await,
            Meets::OwnDeadline => {
                self.fill(BUDGET).await;
                self.ask.deadline = Some(time::now() + 50 * MS);
            }
            Meets::Stale => self.fill(BUDGET).await,
            Meets::Late => {
                self.fill(BUDGET).await;
                time::sleep(3 * PATIENCE).await;
                self.held.pop().unwrap().give_back(Condition::Clean);
                self.fill(1).await;
            }
            Meets::Busy | Meets::GrantedDead => {
                self.fill(BUDGET).await;
                let (lease, server) = (self.held.pop().unwrap(), self.server.clone());
                self.soon(move || {
                    server.0.next_is_dead.store(meets == Meets::GrantedDead, Ordering::SeqCst);
                    lease.give_back(Condition::Clean);
                });
            }
            Meets::AwaitsReset => {
                self.fill(BUDGET).await;
                let lease = self.held.pop().unwrap();
                self.soon(move || drop(lease));
            }
            Meets::Closes => {
                self.fill(BUDGET).await;
                let pool = self.pool.clone();
                self.soon(move || pool.close());
            }
            Meets::Full => {
                self.fill(BUDGET).await;
                for n in 0..4 {
                    self.waits(ask_of(&self.pool, n));
                }
                self.ask = ask_of(&self.pool, 9);
            }
            Meets::Capped => {
                self.held.push(self.pool.checkout(ask_of(&self.pool, 1)).await.unwrap());
                self.ask = ask_of(&self.pool, 2);
            }
            Meets::ClosesACircle | Meets::IsCaughtInACircle => {
                for n in [1, 2] {
                    let mut lease = self.pool.checkout(ask_of(&self.pool, n)).await.unwrap();
                    lease.now(Activity::AtRest);
                    self.held.push(lease);
                }
                let mut last = self.held.pop().unwrap();
                self.waits(ask_of(&self.pool, 1));
                self.ask = ask_of(&self.pool, 2);
                if meets == Meets::ClosesACircle {
                    self.held.push(last);
                } else {
                    last.now(Activity::Working);
                    self.others.push(tokio::spawn(async move {
                        time::sleep(20 * MS).await;
                        last.now(Activity::AtRest);
                        time::sleep(20 * MS).await;
                        last.give_back(Condition::Clean);
                    }));
                }
            }
        }
    }

    async fn fill(&mut self, count: u32) {
        for _ in 0..count {
            self.held.push(self.pool.checkout(ask(&self.pool, "core")).await.unwrap());
        }
    }

    fn soon(&mut self, happens: impl FnOnce() + Send + 'static) {
        self.others.push(tokio::spawn(async move {
            time::sleep(20 * MS).await;
            happens();
        }));
    }

    /// Somebody else waits, and uses what it gets for a moment.
    fn waits(&mut self, ask: Ask<User>) {
        let pool = self.pool.clone();
        self.others.push(tokio::spawn(async move {
            if let Ok(lease) = pool.checkout(ask).await {
                time::sleep(5 * MS).await;
                lease.give_back(Condition::Clean);
            }
        }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkout_may_be_left_at_any_poll_whatever_it_would_have_come_to() {
    for meets in ALL {
        let mut is_over = false;
        for polls in 1..30 {
            if is_over {
                break;
            }
            let what = format!("{meets:?}, left after {polls} polls");
            let Scene { pool, server, ask, held, others } = Scene::new(meets).await;
            let outcome = at_most(polls, pool.checkout(&ask)).await;
            is_over = outcome.is_some();
            if let Some(outcome) = outcome {
                assert!(meets.is_expected(&outcome), "{what}: {:?}", outcome.err());
            }
            drop(held);
            for other in others {
                other.await.unwrap();
            }
            if meets == Meets::Closes {
                time::sleep(Duration::from_secs(1)).await;
                assert_eq!(server.0.live.load(Ordering::SeqCst), 0, "{what}");
            } else {
                assert_nothing_is_left(&pool, &server, BUDGET, &what).await;
            }
        }
        assert!(is_over, "{meets:?}: it never ends");
    }
}

/// What one of ten thousand callers does.
async fn live(pool: Pool<Server>, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut chance = move |percent: f64| dice.unit() * 100.0 < percent;
    let mut dice = Dice::new(seed ^ 0x5eed);
    let mut below = move |most: u32| u32::try_from(dice.next_u64() % u64::from(most)).unwrap();
    let class = if chance(30.0) { "core" } else { "agents" };
    let operation = Operation::new(format!("feature {}", below(3)), format!("{}", below(5)));
    let ask = Ask {
        request: chance(70.0).then(|| request(below(400))),
        operation: chance(80.0).then_some(operation),
        cost: chance(10.0).then(|| below(50) * MS),
        attempt: if chance(5.0) { Attempt::Retry } else { Attempt::Unknown },
        needs: if chance(5.0) { 2 } else { 0 },
        deadline: chance(20.0).then(|| time::now() + below(40) * MS),
        ..ask(&pool, class)
    };
    let hold = below(4_000) * MS / 1_000;
    let patience = below(20_000) * MS / 1_000;
    let work = async {
        let mut lease = pool.checkout(&ask).await?;
        time::sleep(hold).await;
        if chance(5.0) {
            lease.failed();
        }
        if chance(10.0) {
            lease.now(Activity::AtRest);
            drop(pool.checkout(&ask).await);
        }
        match below(10) {
            0 => lease.give_back(Condition::Broken),
            1 | 2 => drop(lease),
            _ => lease.give_back(Condition::Clean),
        }
        Ok::<_, CheckoutError>(())
    };
    drop(time::timeout(patience, work).await);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_every_kind_that_leave_at_random_leave_nothing() {
    const BUDGET: u32 = 10;
    let core = ClassSettings { checkout_timeout: PATIENCE, ..ClassSettings::default() };
    let agents = ClassSettings {
        mode: Mode::Enforce,
        max_requests: Some(30),
        max_parallel: 4,
        checkout_timeout: 15 * MS,
        ..ClassSettings::default()
    };
    let (pool, server) = pool(BUDGET, core, agents);
    server.0.trouble.store(2, Ordering::SeqCst);
    let mut dice = Dice::new(42);
    let mut callers = Vec::new();
    for seed in 0..10_000 {
        callers.push(tokio::spawn(live(pool.clone(), seed)));
        if dice.unit() < 0.2 {
            time::sleep(MS).await;
        }
        match seed {
            3_000 => pool.set_budget(Some(4)),
            4_000 => pool.renew(),
            6_000 => pool.set_budget(None),
            _ => {}
        }
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let met = pool.snapshot();
    let agents = &met.classes[1];
    let acted = agents.policies.iter().filter(|policy| policy.acted > 0).count();
    assert!(acted >= 3, "policies acted: {:?}", agents.policies);
    assert!(agents.waited > 100 && agents.abandoned > 100, "{agents:?}");
    assert_nothing_is_left(&pool, &server, BUDGET, "10,000 callers").await;
}
