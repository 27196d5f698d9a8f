//! From a workload to a number of connections, with every step shown.

use std::fmt;
use std::time::Duration;

use super::{
    by_square_root, ceiling, chance_to_wait, for_burst, for_no_wait, for_queue, for_wait,
    offered_load, utilisation,
};

/// The wait that may be exceeded, and by how many callers.
const WAIT: Duration = Duration::from_millis(50);
const CHANCE: f64 = 0.01;
/// Percent of a server's connections that all AI work together may have.
const AI_SHARE: u8 = 35;
/// No answer above this is searched for.
const MOST: u32 = 10_000;

/// What is known of a workload.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Requests a second.
    pub arrivals: f64,
    /// How long one request has connections on lease, all of its queries together.
    pub hold: Duration,
    /// Queries of one request that run at the same time.
    pub fan_out: u32,
    /// Queries that arrive at once, at the worst.
    pub burst: Option<u32>,
    /// The server's `max_connections`.
    pub max_connections: Option<u32>,
    /// How long a query may wait for a connection.
    pub checkout_timeout: Duration,
}

/// Why a workload cannot be sized.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} must be more than zero")]
pub struct WorkloadError(&'static str);

/// How many connections, and why.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    workload: Workload,
    load: f64,
    by_wait: u32,
    /// By the burst and by the queue, where a burst is known.
    by_burst: Option<(u32, u32)>,
    ceiling: Option<u32>,
    /// The connections to configure.
    pub connections: u32,
}

impl Workload {
    /// The advice for it.
    ///
    /// # Errors
    /// When a figure is zero, or no number.
    pub fn advice(self) -> Result<Advice, WorkloadError> {
        let positive = |what, good: bool| good.then_some(()).ok_or(WorkloadError(what));
        positive("the arrivals", self.arrivals.is_finite() && self.arrivals > 0.0)?;
        positive("the hold time", !self.hold.is_zero())?;
        positive("the fan-out", self.fan_out > 0)?;
        positive("the checkout timeout", !self.checkout_timeout.is_zero())?;
        let load = offered_load(self.arrivals, self.hold);
        let by_wait = for_wait(load, self.hold, WAIT, CHANCE, MOST);
        let by_burst = self.burst.map(|burst| {
            let requests = burst.div_ceil(self.fan_out);
            (for_burst(burst, self.query(), self.checkout_timeout), for_queue(requests))
        });
        let ceiling = self.max_connections.map(|limit| ceiling(limit, AI_SHARE));
        let wanted = by_burst.map_or(by_wait, |(drain, queue)| by_wait.max(drain).max(queue));
        let connections = ceiling.map_or(wanted, |most| wanted.min(most));
        Ok(Advice { workload: self, load, by_wait, by_burst, ceiling, connections })
    }

    /// How long one query takes.
    fn query(&self) -> Duration {
        self.hold / self.fan_out
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workload { arrivals, hold, fan_out, checkout_timeout, .. } = self.workload;
        let load = self.load;
        writeln!(
            f,
            "offered load         {arrivals} a second x {hold:?} = {load:.2} busy on average"
        )?;
        writeln!(f, "square-root rule     a + 2 x sqrt(a) = {}", by_square_root(load))?;
        writeln!(
            f,
            "Erlang C             {} connections: at most 1 % wait longer than {WAIT:?}",
            self.by_wait
        )?;
        if let (Some(burst), Some((drain, queue))) = (self.workload.burst, self.by_burst) {
            let (query, requests) = (self.workload.query(), burst.div_ceil(fan_out));
            writeln!(
                f,
                "burst                {burst} queries x {query:?} / {checkout_timeout:?} = {drain}"
            )?;
            writeln!(f, "queue                {requests} requests / 3 = {queue}")?;
            writeln!(
                f,
                "nobody ever waits    {fan_out} x {requests} = {} (not needed)",
                for_no_wait(fan_out, requests)
            )?;
        }
        if let (Some(limit), Some(most)) = (self.workload.max_connections, self.ceiling) {
            writeln!(f, "ceiling              {AI_SHARE} % of {limit} = {most}")?;
        }
        let connections = self.connections;
        if connections == 0 || load >= f64::from(connections) {
            return writeln!(
                f,
                "answer               {connections} connections are too few: {load:.2} are busy \
                 on average, so the queue would grow without end; shorten the hold time"
            );
        }
        writeln!(
            f,
            "answer               {connections} connections, busy {:.0} % of the time; {:.1} % of \
             all requests wait",
            100.0 * utilisation(load, connections),
            100.0 * chance_to_wait(connections, load)
        )?;
        if self.ceiling == Some(connections) && self.by_wait > connections {
            writeln!(
                f,
                "                     the ceiling decides: let at most {} requests run at once",
                (connections / fan_out).max(1)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAG: Workload = Workload {
        arrivals: 10.0,
        hold: Duration::from_millis(200),
        fan_out: 5,
        burst: Some(100),
        max_connections: Some(100),
        checkout_timeout: Duration::from_millis(500),
    };

    #[test]
    fn the_read_pool_of_the_worked_example_is_eight() {
        let advice = RAG.advice().unwrap();
        assert_eq!((advice.connections, advice.by_burst), (8, Some((8, 7))));
        let shown = advice.to_string();
        assert!(shown.contains("100 queries x 40ms / 500ms = 8"), "{shown}");
        assert!(shown.contains("8 connections, busy 25 % of the time"), "{shown}");
    }

    #[test]
    fn a_server_that_is_too_small_is_told() {
        let small = Workload { max_connections: Some(10), ..RAG };
        let shown = small.advice().unwrap().to_string();
        assert!(shown.contains("35 % of 10 = 3"), "{shown}");
        assert!(shown.contains("let at most 1 requests run at once"), "{shown}");
        let tiny = Workload { max_connections: Some(5), ..RAG };
        assert!(tiny.advice().unwrap().to_string().contains("too few"));
    }

    #[test]
    fn figures_that_mean_nothing_are_errors() {
        let error = |workload: Workload| workload.advice().unwrap_err().to_string();
        assert!(error(Workload { arrivals: f64::NAN, ..RAG }).contains("arrivals"));
        assert!(error(Workload { hold: Duration::ZERO, ..RAG }).contains("hold time"));
        assert!(error(Workload { fan_out: 0, ..RAG }).contains("fan-out"));
    }
}
