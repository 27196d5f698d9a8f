//! The write storm: twenty agents that keep their state in the database write it at the same
//! moment, five to ten small writes each, and then nothing for a while. Beside them people
//! log in.
//!
//! A write's time runs from when its agent has it to the server's answer; most of it is
//! waiting in the burst. An agent never begins a checkpoint before its last one is written.

use std::sync::Arc;
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
use super::report::write_storm::WriteStormFigures;
use super::side::{Side, SideError, Stage};
use super::workload::Tries;

/// Agents that write.
pub(crate) const AGENTS: usize = 20;
/// Writes of a checkpoint, all at once.
pub(crate) const WRITES: std::ops::RangeInclusive<u32> = 5..=10;
/// How long agents work before anything is measured: caches fill, connections are opened.
pub(crate) const WARM_UP: Duration = Duration::from_secs(3);
/// How long they are measured.
pub(crate) const LENGTH: Duration = Duration::from_secs(12);
/// All agents write this often.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// And each within this time after the beat.
pub(crate) const SPREAD: Duration = Duration::from_millis(30);

/// Server connections that they may have with Forebay, at the most.
pub(crate) const CEILING: u32 = 16;

const PLAN: Plan = Plan {
    application: "checkpoints",
    class: "ai-write",
    connections: 200,
    settings: r#"ai_share = 100
classes.core = { kind = "core", guarantee = 4, checkout_timeout = "5s" }
classes.ai-write = { ceiling = 16, checkout_timeout = "5s", mode = "enforce" }"#,
};
/// One write; 10 ms stand for the disk, which a private cluster does not wait for.
const WRITE: &str = "INSERT INTO steps (agent, answer) SELECT $1, 'so' FROM pg_sleep(0.010)";
/// Of who writes when and how much, on both sides.
const SEED: u64 = 20;

/// What was seen.
#[derive(Default)]
pub(crate) struct WriteStorm {
    /// Single writes.
    pub(crate) writes: Arc<Tries>,
    /// Whole checkpoints.
    pub(crate) checkpoints: Arc<Tries>,
    /// Beside them.
    pub(crate) logins: Logins,
}

impl Stage<'_> {
    /// The write storm, on one side.
    pub(crate) async fn write_storm(
        &self,
        side: Side,
    ) -> Result<Played<WriteStormFigures>, SideError> {
        let product = self.product(side, &PLAN).await?;
        let what = format!("write storm, {}", side.name());
        let step = self.progress.counted(&what, (WARM_UP + LENGTH).as_secs());
        let played = async {
            run(&product, WARM_UP).await;
            run(&product, LENGTH).await
        };
        let (seen, connections) = step.beside(product.watch.beside(played)).await?;
        drop(step);
        product.end().await;
        Ok(Played {
            figures: WriteStormFigures::of(&seen, connections),
            error_samples: [seen.writes.errors(), seen.logins.tries.errors()].concat(),
            configuration: setup(side, self.server),
        })
    }
}

/// Everything, for `length`.
async fn run(product: &Product, length: Duration) -> WriteStorm {
    let seen = WriteStorm::default();
    let start = time::now();
    let mut agents = JoinSet::new();
    for number in (0..).take(AGENTS) {
        let agent = Agent {
            number,
            pool: Arc::clone(&product.agents),
            writes: Arc::clone(&seen.writes),
            checkpoints: Arc::clone(&seen.checkpoints),
            dice: Dice::new(
                SEED.wrapping_mul(1_000).wrapping_add(u64::from(number.unsigned_abs())),
            ),
        };
        agents.spawn(agent.work(start, start + length));
    }
    seen.logins.run(&product.core, length).await;
    while agents.join_next().await.is_some() {}
    seen
}

struct Agent {
    number: i32,
    pool: Arc<ClientPool>,
    writes: Arc<Tries>,
    checkpoints: Arc<Tries>,
    dice: Dice,
}

impl Agent {
    async fn work(mut self, start: Instant, until: Instant) {
        for beat in 0.. {
            let due = start + BEAT * beat + SPREAD.mul_f64(self.dice.unit());
            if due >= until {
                break;
            }
            time::sleep_until(due).await;
            let since = time::now();
            let outcome = self.checkpoint().await;
            self.checkpoints.note(since, &outcome);
        }
    }

    /// Writes all of a state at once, and waits until all of it is written or has failed.
    async fn checkpoint(&mut self) -> Result<(), QueryError> {
        let label = Label::new("checkpoint", &mut self.dice);
        let mut writes = JoinSet::new();
        for _ in 0..size(&mut self.dice) {
            let (pool, tries) = (Arc::clone(&self.pool), Arc::clone(&self.writes));
            let (text, number) = (label.on(WRITE), self.number);
            writes.spawn(async move {
                let since = time::now();
                let outcome = pool.ask(text, number).await;
                tries.note(since, &outcome);
                outcome
            });
        }
        writes.join_all().await.into_iter().collect()
    }
}

/// How many writes the next checkpoint has.
fn size(dice: &mut Dice) -> u32 {
    let spread = u64::from(WRITES.end() - WRITES.start() + 1);
    WRITES.start() + u32::try_from(dice.next_u64() % spread).unwrap_or(0)
}

fn setup(side: Side, server: &Server) -> Vec<String> {
    let workload = format!(
        "for {LENGTH:?}, after {WARM_UP:?} in which nothing is measured, {AGENTS} agents write a checkpoint every {BEAT:?}, all within \
         {SPREAD:?}; a checkpoint is {}-{} small writes (10 ms, which stand for the disk) at once; \
         beside them {LOGINS} logins a second (2 ms, open loop, timed from when they were due)",
        WRITES.start(),
        WRITES.end(),
    );
    product::setup(workload, side, &PLAN, server)
}

#[cfg(test)]
mod tests {
    use forebay_seam::random::Dice;

    #[test]
    fn a_burst_is_a_hundred_to_two_hundred_writes() {
        let (least, most) = (*super::WRITES.start(), *super::WRITES.end());
        let agents = u32::try_from(super::AGENTS).unwrap();
        assert_eq!((agents * least, agents * most), (100, 200));
        assert!(super::PLAN.settings.contains(&format!("ceiling = {}", super::CEILING)));
        assert!(usize::try_from(agents * most).unwrap() <= super::PLAN.connections);
        let mut dice = Dice::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..300 {
            seen.insert(super::size(&mut dice));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), (least..=most).collect::<Vec<_>>());
    }
}
