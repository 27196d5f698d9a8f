//! `forebay size`: how many connections a workload needs, by the arithmetic of
//! [`forebay_sizing`].

use std::time::Duration;

use clap::Args;
use forebay_sizing::{Workload, WorkloadError};
use humantime_serde::re::humantime::parse_duration;

/// What is known of a workload.
#[derive(Debug, Args)]
pub struct SizeArgs {
    /// Requests a second.
    #[arg(long)]
    arrivals: f64,
    /// How long one request has connections on lease, all of its queries together: `200ms`.
    #[arg(long, value_parser = parse_duration)]
    hold: Duration,
    /// Queries of one request that run at the same time.
    #[arg(long, default_value_t = 1)]
    fan_out: u32,
    /// Queries that arrive at once, at the worst.
    #[arg(long)]
    burst: Option<u32>,
    /// The server's `max_connections`.
    #[arg(long)]
    max_connections: Option<u32>,
    /// How long a query may wait for a connection.
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    checkout_timeout: Duration,
}

impl SizeArgs {
    /// The answer, with every step of it.
    ///
    /// # Errors
    /// When a figure means nothing.
    pub fn advice(&self) -> Result<String, WorkloadError> {
        let workload = Workload {
            arrivals: self.arrivals,
            hold: self.hold,
            fan_out: self.fan_out,
            burst: self.burst,
            max_connections: self.max_connections,
            checkout_timeout: self.checkout_timeout,
        };
        Ok(workload.advice()?.to_string())
    }
}
