//! Fan-out: a user's question becomes fifteen queries at once, and ten users who ask at the
//! same moment want 150 connections of a server that has twenty. Beside them people log in.
//!
//! A question's time runs until its last query was answered; it is refused when one of its
//! queries is. A user never asks before the last answer has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::random::Dice;
use forebay_seam::time;
use tokio::task::JoinSet;

use super::client_pool::{ClientPool, QueryError};
use super::database::Server;
use super::label::Label;
use super::logins::{LOGINS, Logins};
use super::product::{self, Plan, Product};
use super::report::Played;
use super::report::fan_out::FanOutFigures;
use super::side::{Side, SideError, Stage};
use super::workload::Tries;

/// Users who ask.
pub(crate) const USERS: usize = 10;
/// Queries of a question, all at once.
pub(crate) const QUERIES: usize = 15;
/// How long users ask before anything is measured: caches fill, connections are opened.
pub(crate) const WARM_UP: Duration = Duration::from_secs(3);
/// How long they are measured.
pub(crate) const LENGTH: Duration = Duration::from_secs(12);
/// All users ask this often.
pub(crate) const BEAT: Duration = Duration::from_millis(500);
/// And each within this time after the beat.
pub(crate) const SPREAD: Duration = Duration::from_millis(50);
/// What the agents' comments call the feature.
pub(crate) const FEATURE: &str = "retrieve";

const PLAN: Plan = Plan {
    application: "retrieval",
    class: "ai-read",
    connections: USERS * QUERIES,
    settings: r#"ai_share = 100
classes.core = { kind = "core", guarantee = 4, checkout_timeout = "5s" }
classes.ai-read = { guarantee = 4, ceiling = 16, checkout_timeout = "5s", mode = "enforce" }"#,
};
/// One query: 15 ms.
const QUERY: &str = "SELECT body, pg_sleep(0.015) FROM documents WHERE id = $1";
/// Of who asks when, on both sides.
const SEED: u64 = 15;

/// What was seen.
#[derive(Default)]
pub(crate) struct FanOut {
    /// Whole questions.
    pub(crate) questions: Arc<Tries>,
    /// Of those that failed, how many for want of a connection.
    pub(crate) refused: Arc<AtomicU64>,
    /// Beside them.
    pub(crate) logins: Logins,
}

impl Stage<'_> {
    /// Fan-out, on one side.
    pub(crate) async fn fan_out(&self, side: Side) -> Result<Played<FanOutFigures>, SideError> {
        let product = self.product(side, &PLAN).await?;
        let what = format!("fan-out, {}", side.name());
        let step = self.progress.counted(&what, (WARM_UP + LENGTH).as_secs());
        let played = async {
            run(&product, WARM_UP).await;
            run(&product, LENGTH).await
        };
        let (seen, connections) = step.beside(product.watch.beside(played)).await?;
        drop(step);
        let learnt = product.seen().await?;
        product.end().await;
        Ok(Played {
            figures: FanOutFigures::of(&seen, connections, &learnt),
            error_samples: [seen.questions.errors(), seen.logins.tries.errors()].concat(),
            configuration: setup(side, self.server),
        })
    }
}

/// Everything, for `length`.
async fn run(product: &Product, length: Duration) -> FanOut {
    let seen = FanOut::default();
    let start = time::now();
    let until = start + length;
    let mut users = JoinSet::new();
    for number in (0..).take(USERS) {
        let user = User {
            pool: Arc::clone(&product.agents),
            questions: Arc::clone(&seen.questions),
            refused: Arc::clone(&seen.refused),
            dice: Dice::new(SEED.wrapping_mul(1_000).wrapping_add(number)),
        };
        users.spawn(user.work(start, until));
    }
    seen.logins.run(&product.core, length).await;
    while users.join_next().await.is_some() {}
    seen
}

struct User {
    pool: Arc<ClientPool>,
    questions: Arc<Tries>,
    refused: Arc<AtomicU64>,
    dice: Dice,
}

impl User {
    async fn work(mut self, start: Instant, until: Instant) {
        for beat in 0.. {
            let due = start + BEAT * beat + SPREAD.mul_f64(self.dice.unit());
            if due >= until {
                break;
            }
            time::sleep_until(due).await;
            let since = time::now();
            let label = Label::new(FEATURE, &mut self.dice);
            let outcome = ask(&self.pool, &label).await;
            self.questions.note(since, &outcome);
            if outcome.is_err_and(|error| error.is_refusal()) {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One question; when one of its queries fails, the others are not waited for.
async fn ask(pool: &Arc<ClientPool>, label: &Label) -> Result<(), QueryError> {
    let mut queries = JoinSet::new();
    for id in (1..).take(QUERIES) {
        let (pool, text) = (Arc::clone(pool), label.on(QUERY));
        queries.spawn(async move { pool.ask(text, id).await });
    }
    while let Some(answered) = queries.join_next().await {
        answered.unwrap_or(Err(QueryError::GivenUp))?;
    }
    Ok(())
}

fn setup(side: Side, server: &Server) -> Vec<String> {
    let workload = format!(
        "for {LENGTH:?}, after {WARM_UP:?} in which nothing is measured, {USERS} users ask every {BEAT:?}, all within {SPREAD:?}; a question is \
         {QUERIES} queries (15 ms) at once; beside them {LOGINS} logins a second (2 ms, open loop, \
         timed from when they were due)"
    );
    product::setup(workload, side, &PLAN, server)
}
