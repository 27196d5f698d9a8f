//! The noisy neighbour: paced logins of 2 ms, and beside them retrievals that fan out into
//! fifteen queries and agents that keep a transaction open while a model thinks for 2 s.
//!
//! Logins are measured alone at first, then beside the others, over the same connections. At
//! the end nobody begins anything new; agents that still wait for a connection go home, those
//! whose model thinks finish.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::random::{self, Dice};
use forebay_seam::task::{Stop, Stopper};
use forebay_seam::time;
use tokio::task::JoinSet;
use tokio_postgres::types::Type;

use super::call::{CallError, Way};
use super::client_pool::{ClientPool, Loan, QueryError};
use super::gateway::TENANT;
use super::label::Label;
use super::logins::Logins;
use super::progress::Progress;
use super::workload::{Pace, Tries};

/// Agents that hold transactions.
pub(crate) const AGENTS: usize = 60;
/// Retrievals a second.
pub(crate) const RETRIEVALS: u32 = 4;
/// Queries of a retrieval, all at once.
pub(crate) const FAN_OUT: usize = 15;
/// How long logins run before anything is measured: caches fill.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
/// How long logins are measured alone.
pub(crate) const ALONE: Duration = Duration::from_secs(5);
/// How long they are measured beside the others.
pub(crate) const BESIDE: Duration = Duration::from_secs(14);
/// The agents begin within this time, before the measuring beside them.
pub(crate) const START: Duration = Duration::from_secs(2);
/// An agent rests this long after a task, give or take a half.
pub(crate) const REST: Duration = Duration::from_millis(400);

/// The connections of each part of the product; without Forebay they are the same.
pub(crate) struct Roads {
    /// Of logins.
    pub(crate) core: Arc<ClientPool>,
    /// Of retrievals.
    pub(crate) retrieval: Arc<ClientPool>,
    /// Of agents.
    pub(crate) agents: Arc<ClientPool>,
    /// To the model.
    pub(crate) way: Way,
}

/// What was seen.
#[derive(Default)]
pub(crate) struct Neighbour {
    /// Logins, alone.
    pub(crate) alone: Logins,
    /// Logins, beside the others.
    pub(crate) beside: Logins,
    /// Retrievals, each until its last query was answered.
    pub(crate) retrievals: Arc<Tries>,
    /// Agents' tasks, from wanting a connection to the commit.
    pub(crate) tasks: Arc<Tries>,
    /// Agents' tasks that ended well while logins were measured.
    pub(crate) tasks_in_time: u64,
    /// Transactions that were open and idle while the model was called.
    pub(crate) held: u64,
}

/// Counted by all agents.
#[derive(Default)]
struct Crowd {
    in_time: AtomicU64,
    held: AtomicU64,
}

/// Why an agent's task failed.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    #[error("database: {0}")]
    Query(#[from] QueryError),
    #[error("model: {0}")]
    Call(#[from] CallError),
}

/// Runs the whole over `roads`.
pub(crate) async fn run(roads: &Roads, side: &str, progress: Progress) -> Neighbour {
    let mut seen = Neighbour::default();
    let step = progress.counted(&format!("logins alone, {side}"), (WARM_UP + ALONE).as_secs());
    let alone = async {
        Logins::default().run(&roads.core, WARM_UP).await;
        seen.alone.run(&roads.core, ALONE).await;
    };
    step.beside(alone).await;
    drop(step);

    let crowd = Arc::new(Crowd::default());
    let (stopper, stop) = Stopper::new();
    let end = time::now() + START + BESIDE;
    let mut others = JoinSet::new();
    for number in 0..AGENTS {
        let agent = Agent {
            number: i32::try_from(number).unwrap_or(0),
            pool: Arc::clone(&roads.agents),
            way: roads.way.clone(),
            tasks: Arc::clone(&seen.tasks),
            crowd: Arc::clone(&crowd),
            measured_until: end,
        };
        others.spawn(agent.work(Dice::new(random::seed()), stop.clone()));
    }
    let (pool, tries) = (Arc::clone(&roads.retrieval), Arc::clone(&seen.retrievals));
    others.spawn(retrievals(pool, tries, end));

    let what = format!("logins beside {AGENTS} agents and retrievals, {side}");
    let step = progress.counted(&what, (START + BESIDE).as_secs());
    let beside = async {
        time::sleep(START).await;
        let ending = async {
            time::sleep_until(end).await;
            stopper.stop();
        };
        tokio::join!(seen.beside.run(&roads.core, BESIDE), ending);
    };
    step.beside(beside).await;
    while others.join_next().await.is_some() {}
    seen.tasks_in_time = crowd.in_time.load(Ordering::Relaxed);
    seen.held = crowd.held.load(Ordering::Relaxed);
    seen
}

/// Paced retrievals until `end`, and until the last of them was answered.
async fn retrievals(pool: Arc<ClientPool>, tries: Arc<Tries>, end: Instant) {
    let mut pace = Pace::new(time::now(), RETRIEVALS);
    let mut under_way = JoinSet::new();
    loop {
        let due = pace.next().await;
        if due >= end {
            break;
        }
        let (pool, tries) = (Arc::clone(&pool), Arc::clone(&tries));
        under_way.spawn(async move { tries.note(due, &retrieval(&pool).await) });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn retrieval(pool: &Arc<ClientPool>) -> Result<(), QueryError> {
    let mut queries = JoinSet::new();
    for id in (1..).take(FAN_OUT) {
        let pool = Arc::clone(pool);
        queries.spawn(async move { pool.retrieve(id).await });
    }
    queries.join_all().await.into_iter().collect()
}

struct Agent {
    number: i32,
    pool: Arc<ClientPool>,
    way: Way,
    tasks: Arc<Tries>,
    crowd: Arc<Crowd>,
    measured_until: Instant,
}

impl Agent {
    async fn work(self, mut dice: Dice, mut stop: Stop) {
        time::sleep(START.mul_f64(dice.unit())).await;
        while !stop.is_told() {
            let since = time::now();
            let label = Label::new("answer", &mut dice);
            // Going home while waiting for a connection is no error.
            let begun = tokio::select! {
                biased;
                begun = self.begin(&label) => begun,
                () = stop.told() => return,
            };
            let outcome = match begun {
                Ok(loan) => self.finish(loan, &label).await,
                Err(error) => Err(error.into()),
            };
            self.tasks.note(since, &outcome);
            if outcome.is_ok() && time::now() < self.measured_until {
                self.crowd.in_time.fetch_add(1, Ordering::Relaxed);
            }
            time::sleep(REST.mul_f64(dice.between(0.5..1.5))).await;
        }
    }

    /// Opens a transaction and reads in it. With Forebay, a server connection is waited for
    /// here; without, in the pool.
    async fn begin(&self, label: &Label) -> Result<Loan, QueryError> {
        let loan = self.pool.take().await?;
        loan.session().batch_execute("BEGIN").await?;
        let read = label.on("SELECT email FROM accounts WHERE id = $1");
        // Unnamed: a prepared statement would be closed while the model is being asked.
        loan.session().query_typed_one(&read, &[(&(self.number + 1), Type::INT4)]).await?;
        Ok(loan)
    }

    /// Asks the model with the transaction open, then writes and commits.
    async fn finish(&self, loan: Loan, label: &Label) -> Result<(), TaskError> {
        self.crowd.held.fetch_add(1, Ordering::Relaxed);
        self.way.model(TENANT, label.traceparent()).await?;
        let write = "INSERT INTO steps (agent, answer) VALUES ($1, 'so')";
        let database = async {
            loan.session().execute_typed(write, &[(&self.number, Type::INT4)]).await?;
            loan.session().batch_execute("COMMIT").await
        };
        database.await.map_err(QueryError::from)?;
        loan.give_back();
        Ok(())
    }
}
