//! The retry storm: requests of ten queries, for some seconds two and a half times as many
//! as the server can do, and clients that try again when they are refused or have waited
//! too long. Then half as many as it can do. Beside them people log in.
//!
//! Requests are an open loop. What a try did before it failed was for nothing; so more load
//! means less done, and retries are load. The queue of a pool serves queries in their order
//! and keeps everybody's tries too slow, long after the load has fallen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::random::Dice;
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use tokio::task::JoinSet;

use super::client_pool::{ClientPool, QueryError};
use super::database::Server;
use super::label::Label;
use super::logins::{LOGINS, Logins};
use super::product::{self, Plan, Product};
use super::report::Played;
use super::report::retry_storm::RetryStormFigures;
use super::side::{Side, SideError, Stage};
use super::workload::Pace;

/// Queries of a request, one after the other.
pub(crate) const QUERIES: u32 = 10;
/// How often a request is tried, at the most.
pub(crate) const TRIES: u32 = 4;
/// How long a client waits for a try; undisturbed it takes half a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// It rests this long before the first retry, give or take a half, then twice as long, ….
pub(crate) const BACKOFF: Duration = Duration::from_millis(100);
/// Requests a second that twenty connections can do.
pub(crate) const CAPACITY: u32 = 40;
/// Requests a second in the storm.
pub(crate) const OVERLOAD: u32 = 100;
/// Requests a second before and after it.
pub(crate) const CALM: u32 = 20;
/// How long it is calm at first.
pub(crate) const BEFORE: Duration = Duration::from_secs(2);
/// How long the storm lasts.
pub(crate) const STORM: Duration = Duration::from_secs(6);
/// How long it is calm again.
pub(crate) const AFTER: Duration = Duration::from_secs(11);

const PLAN: Plan = Plan {
    application: "assistant",
    class: "ai-read",
    connections: 300,
    settings: r#"ai_share = 100
classes.core = { kind = "core", guarantee = 4, checkout_timeout = "5s" }
classes.ai-read = { guarantee = 4, ceiling = 16, checkout_timeout = "1500ms", mode = "enforce" }"#,
};
/// One query: 50 ms.
const QUERY: &str = "SELECT body, pg_sleep(0.050) FROM documents WHERE id = $1";
/// Of the pauses before retries, on both sides.
const SEED: u64 = 3;

/// What was seen.
#[derive(Default)]
pub(crate) struct RetryStorm {
    /// Every request, in the order in which they came.
    pub(crate) requests: Vec<Seen>,
    /// Queries answered, also those of tries that failed.
    pub(crate) queries: u64,
    /// Tries refused.
    pub(crate) refused: u64,
    /// Tries that took too long.
    pub(crate) late: u64,
    /// Beside them.
    pub(crate) logins: Logins,
}

/// One request. Times run from the beginning of the storm's scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When it was due.
    pub(crate) due: Duration,
    /// Tries begun.
    pub(crate) tries: u32,
    /// When it was answered, if it was.
    pub(crate) done: Option<Duration>,
}

/// Shared by all requests.
#[derive(Default)]
struct Book {
    requests: Mutex<Vec<Seen>>,
    queries: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
}

impl Stage<'_> {
    /// The retry storm, on one side.
    pub(crate) async fn retry_storm(
        &self,
        side: Side,
    ) -> Result<Played<RetryStormFigures>, SideError> {
        let product = self.product(side, &PLAN).await?;
        let what = format!("retry storm, {}", side.name());
        let step = self.progress.counted(&what, (BEFORE + STORM + AFTER + PATIENCE).as_secs());
        let (seen, connections) = step.beside(product.watch.beside(run(&product))).await?;
        drop(step);
        let verdicts = product.seen().await?.verdicts(PLAN.class);
        product.end().await;
        Ok(Played {
            figures: RetryStormFigures::of(&seen, connections, verdicts),
            error_samples: seen.logins.tries.errors(),
            configuration: setup(side, self.server),
        })
    }
}

async fn run(product: &Product) -> RetryStorm {
    let mut seen = RetryStorm::default();
    let (book, start) = (Arc::new(Book::default()), time::now());
    let mut under_way = JoinSet::new();
    let requests = async {
        let mut since = start;
        for (length, rate) in [(BEFORE, CALM), (STORM, OVERLOAD), (AFTER, CALM)] {
            let mut pace = Pace::new(since, rate);
            since += length;
            loop {
                let due = pace.next().await;
                if due >= since {
                    break;
                }
                let number = book.begin(due.saturating_duration_since(start));
                let request = Request {
                    number,
                    start,
                    pool: Arc::clone(&product.agents),
                    book: Arc::clone(&book),
                    dice: Dice::new(SEED.wrapping_mul(1_000).wrapping_add(number as u64)),
                };
                under_way.spawn(request.work());
                while under_way.try_join_next().is_some() {}
            }
        }
        // So that the last one's first try has ended.
        time::sleep(PATIENCE).await;
    };
    tokio::join!(requests, seen.logins.run(&product.core, BEFORE + STORM + AFTER));
    under_way.shutdown().await;
    seen.requests = std::mem::take(&mut *book.requests.lock());
    seen.queries = book.queries.load(Ordering::Relaxed);
    seen.refused = book.refused.load(Ordering::Relaxed);
    seen.late = book.late.load(Ordering::Relaxed);
    seen
}

impl Book {
    /// Notes a new request; its number.
    fn begin(&self, due: Duration) -> usize {
        let mut requests = self.requests.lock();
        requests.push(Seen { due, tries: 0, done: None });
        requests.len() - 1
    }

    fn tried(&self, number: usize) {
        if let Some(request) = self.requests.lock().get_mut(number) {
            request.tries += 1;
        }
    }

    fn done(&self, number: usize, at: Duration) {
        if let Some(request) = self.requests.lock().get_mut(number) {
            request.done = Some(at);
        }
    }
}

struct Request {
    number: usize,
    start: Instant,
    pool: Arc<ClientPool>,
    book: Arc<Book>,
    dice: Dice,
}

impl Request {
    /// Tries until it is done or its client gives up.
    async fn work(mut self) {
        let label = Label::new("assist", &mut self.dice);
        for again in 0..TRIES {
            if again > 0 {
                let rest = BACKOFF * 2_u32.pow(again - 1);
                time::sleep(rest.mul_f64(self.dice.between(0.5..1.5))).await;
            }
            self.book.tried(self.number);
            match time::timeout(PATIENCE, self.attempt(&label)).await {
                Ok(Ok(())) => {
                    let took = time::now().saturating_duration_since(self.start);
                    return self.book.done(self.number, took);
                }
                Ok(Err(_)) => self.book.refused.fetch_add(1, Ordering::Relaxed),
                Err(_) => self.book.late.fetch_add(1, Ordering::Relaxed),
            };
        }
    }

    /// All of its queries.
    async fn attempt(&self, label: &Label) -> Result<(), QueryError> {
        for id in (1..).take(QUERIES as usize) {
            self.pool.ask(label.on(QUERY), id).await?;
            self.book.queries.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn setup(side: Side, server: &Server) -> Vec<String> {
    let workload = format!(
        "requests of {QUERIES} queries (50 ms) one after the other, of which the server's \
         connections can do {CAPACITY} a second: {CALM} a second for {BEFORE:?}, {OVERLOAD} for \
         {STORM:?}, {CALM} for {AFTER:?} (open loop); a client waits {PATIENCE:?} for a try, \
         cancels it then, and tries at most {TRIES} times, after {BACKOFF:?} +- 50 %, twice that, \
         ...; beside them {LOGINS} logins a second (2 ms, open loop)"
    );
    product::setup(workload, side, &PLAN, server)
}
