//! The cancellation storm: forty agents work in short transactions, and for some seconds a
//! fifth of their tasks is cancelled half way, because somebody pressed Stop.
//!
//! Half of these tasks die within a query: their connection is closed, which PostgreSQL
//! learns when the query has ended. The others die between two queries of a transaction.
//! Without Forebay the connection then belongs to the pool, which hears nothing of it, as
//! with clients whose clean-up is itself cancelled (sqlalchemy#12077, asyncpg#464): it stays
//! lent and open. With Forebay a connection costs little, so each agent has its own, and it
//! ends with the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::random::Dice;
use forebay_seam::sync::Mutex;
use forebay_seam::task::{Stop, Stopper};
use forebay_seam::time;
use tokio::task::JoinSet;
use tokio_postgres::types::{ToSql, Type};

use super::client_pool::{ClientPool, Loan, QueryError};
use super::database::{DatabaseError, Server};
use super::label::Label;
use super::product::{self, Plan, Product};
use super::report::Played;
use super::report::cancellation_storm::CancellationStormFigures;
use super::side::{Side, SideError, Stage};
use super::watch::Sessions;
use super::workload::Tries;

/// Agents at work.
pub(crate) const AGENTS: usize = 40;
/// The part of the tasks that is cancelled in the storm, percent.
pub(crate) const CANCELLED: u64 = 20;
/// An agent rests this long after a task, give or take a half.
pub(crate) const REST: Duration = Duration::from_millis(100);
/// How long nobody is cancelled at first.
pub(crate) const BEFORE: Duration = Duration::from_secs(3);
/// How long the storm lasts.
pub(crate) const STORM: Duration = Duration::from_secs(6);
/// How long nobody is cancelled again.
pub(crate) const AFTER: Duration = Duration::from_secs(5);
/// What still runs when all agents have gone home has this long to end by itself.
const SETTLE: Duration = Duration::from_secs(1);

const PLAN: Plan = Plan {
    application: "agents",
    class: "ai-write",
    connections: AGENTS,
    settings: r#"ai_share = 100
classes.core = { kind = "core", guarantee = 0, checkout_timeout = "5s" }
classes.ai-write = { ceiling = 20, checkout_timeout = "5s" }"#,
};
/// The work of a task: 200 ms.
const WORK: &str = "INSERT INTO steps (agent, answer) SELECT $1, 'so' FROM pg_sleep(0.200)";
/// Who is cancelled within a query has this much of it behind.
const HALF: Duration = Duration::from_millis(100);
/// Of who is cancelled where, on both sides.
const SEED: u64 = 6;

/// What was seen.
#[derive(Default)]
pub(crate) struct CancellationStorm {
    /// Tasks that were not cancelled.
    pub(crate) tasks: Arc<Tries>,
    /// When each of them ended well, from the start of the scenario.
    pub(crate) ends: Vec<Duration>,
    /// Tasks cancelled.
    pub(crate) cancelled: u64,
    /// Sessions in the database when nobody worked any more.
    pub(crate) left: Sessions,
}

/// How a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// With a commit.
    Commits,
    /// Cancelled within a query.
    DiesInQuery,
    /// Cancelled between two queries of its transaction.
    DiesBetween,
}

impl Fate {
    /// Drawn for a task that begins `at`.
    fn draw(at: Duration, dice: &mut Dice) -> Self {
        // Drawn always, so that the later ones are the same whenever a task begins.
        let (cancelled, within) =
            (dice.next_u64() % 100 < CANCELLED, dice.next_u64().is_multiple_of(2));
        if !cancelled || at < BEFORE || at >= BEFORE + STORM {
            Self::Commits
        } else if within {
            Self::DiesInQuery
        } else {
            Self::DiesBetween
        }
    }
}

/// Shared by all agents.
#[derive(Default)]
struct Book {
    ends: Mutex<Vec<Duration>>,
    cancelled: AtomicU64,
}

impl Stage<'_> {
    /// The cancellation storm, on one side.
    pub(crate) async fn cancellation_storm(
        &self,
        side: Side,
    ) -> Result<Played<CancellationStormFigures>, SideError> {
        let product = self.product(side, &PLAN).await?;
        let what = format!("cancellation storm, {}", side.name());
        let step = self.progress.counted(&what, (BEFORE + STORM + AFTER + SETTLE).as_secs());
        let (seen, connections) = step.beside(product.watch.beside(run(&product, side))).await?;
        drop(step);
        product.end().await;
        let seen = seen?;
        Ok(Played {
            figures: CancellationStormFigures::of(&seen, connections),
            error_samples: seen.tasks.errors(),
            configuration: setup(side, self.server),
        })
    }
}

async fn run(product: &Product, side: Side) -> Result<CancellationStorm, DatabaseError> {
    let mut seen = CancellationStorm::default();
    let (book, start) = (Arc::new(Book::default()), time::now());
    let (stopper, stop) = Stopper::new();
    let mut agents = JoinSet::new();
    for number in (0..).take(AGENTS) {
        let agent = Agent {
            number,
            side,
            start,
            pool: Arc::clone(&product.agents),
            tasks: Arc::clone(&seen.tasks),
            book: Arc::clone(&book),
            dice: Dice::new(
                SEED.wrapping_mul(1_000).wrapping_add(u64::from(number.unsigned_abs())),
            ),
        };
        agents.spawn(agent.work(stop.clone()));
    }
    time::sleep(BEFORE + STORM + AFTER).await;
    stopper.stop();
    while agents.join_next().await.is_some() {}
    time::sleep(SETTLE).await;
    seen.left = product.watch.look().await?;
    seen.ends = std::mem::take(&mut *book.ends.lock());
    seen.cancelled = book.cancelled.load(Ordering::Relaxed);
    Ok(seen)
}

struct Agent {
    number: i32,
    side: Side,
    start: Instant,
    pool: Arc<ClientPool>,
    tasks: Arc<Tries>,
    book: Arc<Book>,
    dice: Dice,
}

impl Agent {
    async fn work(mut self, mut stop: Stop) {
        while !stop.is_told() {
            time::sleep(REST.mul_f64(self.dice.between(0.5..1.5))).await;
            let since = time::now();
            let label = Label::new("step", &mut self.dice);
            let fate = Fate::draw(since.saturating_duration_since(self.start), &mut self.dice);
            // Going home while waiting for a connection is no error.
            let begun = tokio::select! {
                biased;
                begun = self.begin(&label) => begun,
                () = stop.told() => return,
            };
            let outcome = match (begun, fate) {
                (Ok(loan), Fate::Commits) => self.finish(loan).await,
                (Ok(loan), Fate::DiesInQuery) => {
                    self.die_in_query(loan).await;
                    continue;
                }
                (Ok(loan), Fate::DiesBetween) => {
                    self.die_between(loan);
                    continue;
                }
                (Err(error), _) => Err(error),
            };
            self.tasks.note(since, &outcome);
            if outcome.is_ok() {
                let end = time::now().saturating_duration_since(self.start);
                self.book.ends.lock().push(end);
            }
        }
    }

    /// Opens a transaction and reads in it.
    async fn begin(&self, label: &Label) -> Result<Loan, QueryError> {
        let loan = self.pool.take().await?;
        loan.session().batch_execute("BEGIN").await?;
        let read = label.on("SELECT email FROM accounts WHERE id = $1");
        loan.session().query_typed_one(&read, &[(&(self.number + 1), Type::INT4)]).await?;
        Ok(loan)
    }

    async fn finish(&self, loan: Loan) -> Result<(), QueryError> {
        loan.session().execute_typed(WORK, &[(&self.number, Type::INT4)]).await?;
        loan.session().batch_execute("COMMIT").await?;
        loan.give_back();
        Ok(())
    }

    /// The loan is dropped, and with it the connection is closed.
    async fn die_in_query(&self, loan: Loan) {
        self.cancelled();
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&self.number, Type::INT4)];
        let work = loan.session().execute_typed(WORK, &parameters);
        time::timeout(HALF, work).await.ok();
    }

    fn die_between(&self, loan: Loan) {
        self.cancelled();
        match self.side {
            Side::Without => loan.forget(),
            Side::With => drop(loan),
        }
    }

    fn cancelled(&self) {
        self.book.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

fn setup(side: Side, server: &Server) -> Vec<String> {
    let workload = format!(
        "{AGENTS} agents, whose task is a transaction of a lookup and a write (200 ms), and who \
         rest {REST:?} +- 50 % after it; after {BEFORE:?}, for {STORM:?}, {CANCELLED} % of the \
         tasks are cancelled half way, every other one within its write, the others between \
         lookup and write; then for {AFTER:?} none"
    );
    let mut lines = product::setup(workload, side, &PLAN, server);
    lines.push(match side {
        Side::Without => "who dies within a query closes its connection, and the pool opens \
                          another; who dies between two queries leaves it to the pool, which \
                          hears nothing of it"
            .to_owned(),
        Side::With => "an agent has a connection of its own, not one of a pool, and whenever it \
                       dies its connection is closed"
            .to_owned(),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_tasks_dies_in_the_storm_and_none_outside_of_it() {
        let mut dice = Dice::new(1);
        let mut count =
            |at, fate| (0..10_000).filter(|_| Fate::draw(at, &mut dice) == fate).count();
        assert_eq!(count(BEFORE / 2, Fate::Commits), 10_000);
        assert_eq!(count(BEFORE + STORM, Fate::Commits), 10_000);
        assert!((900..1_100).contains(&count(BEFORE, Fate::DiesInQuery)));
        assert!((900..1_100).contains(&count(BEFORE, Fate::DiesBetween)));
        assert!((7_800..8_200).contains(&count(BEFORE, Fate::Commits)));
    }
}
