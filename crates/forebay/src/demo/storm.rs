//! The connection storm: a hundred agents, each task a handful of tool calls at once, each
//! call a connection of its own, as tools written as functions make them.
//!
//! Who calls what in which order is drawn from one seed, so that both sides get the same
//! work. A call's time runs from its start to the last byte of the answer.

use std::sync::Arc;
use std::time::Duration;

use forebay_seam::random::Dice;
use forebay_seam::time;
use tokio::task::JoinSet;

use super::call::Way;
use super::progress::Step;
use super::services::{SERVICES, TENANTS};
use super::workload::Tries;

/// Agents at work.
pub(crate) const AGENTS: usize = 100;
/// Tasks of each agent.
pub(crate) const TASKS: usize = 8;
/// Calls of a task, all at once and each to another service.
pub(crate) const CALLS: std::ops::RangeInclusive<usize> = 3..=5;
/// The agents begin within this time.
pub(crate) const START: Duration = Duration::from_millis(500);
/// An agent thinks this long after a task, give or take a half.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// Of who calls what, on both sides.
const SEED: u64 = 2026;

/// What the agents saw.
pub(crate) struct Storm {
    /// Single calls.
    pub(crate) calls: Arc<Tries>,
    /// Tasks of which every call went well.
    pub(crate) tasks_done: u64,
    /// From the first task's start to the last one's end.
    pub(crate) took: Duration,
}

/// Lets the agents loose over `way`.
pub(crate) async fn run(way: &Way, step: Step) -> Storm {
    let calls = Arc::new(Tries::default());
    let step = Arc::new(step);
    let start = time::now();
    let mut agents = JoinSet::new();
    for (number, tenant) in (0..AGENTS).zip(TENANTS.into_iter().cycle()) {
        let dice = Dice::new(SEED.wrapping_mul(1_000).wrapping_add(number as u64));
        let agent = Agent { tenant, way: way.clone(), calls: Arc::clone(&calls), dice };
        agents.spawn(agent.work(Arc::clone(&step)));
    }
    let mut tasks_done = 0;
    while let Some(done) = agents.join_next().await {
        tasks_done += done.unwrap_or(0);
    }
    Storm { calls, tasks_done, took: time::now().saturating_duration_since(start) }
}

struct Agent {
    tenant: &'static str,
    way: Way,
    calls: Arc<Tries>,
    dice: Dice,
}

impl Agent {
    /// Works through its tasks; how many went well?
    async fn work(mut self, step: Arc<Step>) -> u64 {
        time::sleep(START.mul_f64(self.dice.unit())).await;
        let mut done = 0;
        for _ in 0..TASKS {
            let mut calls = JoinSet::new();
            for service in self.services() {
                calls.spawn(call(self.way.clone(), Arc::clone(&self.calls), self.tenant, service));
            }
            done += u64::from(calls.join_all().await.into_iter().all(|well| well));
            step.advance();
            time::sleep(PAUSE.mul_f64(self.dice.between(0.5..1.5))).await;
        }
        done
    }

    /// The services that the next task calls.
    fn services(&mut self) -> Vec<&'static str> {
        let mut order = SERVICES.map(|service| (self.dice.next_u64(), service));
        order.sort_unstable();
        let spread = (CALLS.end() - CALLS.start() + 1) as u64;
        let more = usize::try_from(self.dice.next_u64() % spread).unwrap_or(0);
        order.into_iter().map(|(_, service)| service).take(CALLS.start() + more).collect()
    }
}

/// One call; did it go well?
async fn call(way: Way, calls: Arc<Tries>, tenant: &'static str, service: &'static str) -> bool {
    let since = time::now();
    let outcome = way.tool(tenant, service).await;
    calls.note(since, &outcome);
    outcome.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::authority::Authority;
    use crate::demo::services::Outside;

    #[tokio::test]
    async fn a_tool_written_as_a_function_opens_two_connections_and_fetches_a_token_for_a_call() {
        let authority = Authority::new().unwrap();
        let outside = Arc::new(Outside::start(&authority).unwrap());
        let way = Way::direct(&authority, &outside);
        for _ in 0..2 {
            way.tool("acme", "crm").await.unwrap();
        }
        way.model("acme", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await.unwrap();
        let counted = outside.counted();
        assert_eq!((counted.connections, counted.handshakes), (5, 5));
        assert_eq!((counted.refused, counted.wrong_tenant), (0, 0));
        assert_eq!(outside.exchanges().get(&("acme", "crm")), Some(&2));
        assert!(way.tool("nobody", "crm").await.unwrap_err().to_string().contains("401"));
    }

    #[test]
    fn a_task_calls_three_to_five_different_services() {
        let tries = Arc::new(Tries::default());
        let way = Way::Forebay(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut agent = Agent { tenant: "acme", way, calls: tries, dice: Dice::new(1) };
        let mut seen = [0; 6];
        for _ in 0..300 {
            let mut services = agent.services();
            services.sort_unstable();
            services.dedup();
            seen[services.len()] += 1;
        }
        assert!(seen[..3].iter().all(|n| *n == 0) && seen[3..].iter().all(|n| *n > 50), "{seen:?}");
    }
}
