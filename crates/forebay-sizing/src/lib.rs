//! How many connections a workload needs: the arithmetic of queues, as plain functions, and
//! a simulator ([`simulate`]) that plays workloads on the engine itself.
//!
//! Knows no sockets. Every formula names its source, and the tests are worked
//! examples. All of them assume that arrivals are independent of each other (Poisson) and
//! that the averages stay as they are; bursts have formulas of their own.

use std::time::Duration;

mod advice;
pub mod simulate;
pub mod tables;

pub use advice::{Advice, Workload, WorkloadError};

/// Connections kept busy on average, in erlangs: a = λ × S (Little's law).
/// `arrivals` per second; `hold` from checkout to release.
pub fn offered_load(arrivals: f64, hold: Duration) -> f64 {
    arrivals * hold.as_secs_f64()
}

/// Work a second that `connections` can do at the very most, each taking `hold`: c / S.
pub fn capacity(connections: u32, hold: Duration) -> f64 {
    f64::from(connections) / hold.as_secs_f64()
}

/// How busy the connections are, 1 being always: ρ = a / c. Above 0.8 waits grow steeply.
pub fn utilisation(load: f64, connections: u32) -> f64 {
    load / f64::from(connections)
}

/// The chance that a caller has to wait at all, in a queue without bound: Erlang's C
/// (A. K. Erlang, 1917), by way of the recursion for his B. 1 where `load` is not below
/// `connections`: then the queue grows without end.
pub fn chance_to_wait(connections: u32, load: f64) -> f64 {
    let seats = f64::from(connections);
    if load >= seats {
        return 1.0;
    }
    let blocked = (1..=connections).fold(1.0, |b, c| load * b / (f64::from(c) + load * b));
    seats * blocked / (seats - load * (1.0 - blocked))
}

/// The chance to wait longer than `limit` (M/M/c): C · e^(−(c − a) · t / S).
pub fn chance_to_wait_longer(connections: u32, load: f64, hold: Duration, limit: Duration) -> f64 {
    let seats = f64::from(connections);
    if load >= seats {
        return 1.0;
    }
    let turns = limit.as_secs_f64() / hold.as_secs_f64();
    chance_to_wait(connections, load) * (-(seats - load) * turns).exp()
}

/// The mean wait (M/M/c), those who do not wait included: C · S / (c − a). `None` where
/// `load` is not below `connections`.
pub fn mean_wait(connections: u32, load: f64, hold: Duration) -> Option<Duration> {
    let spare = f64::from(connections) - load;
    let holds = chance_to_wait(connections, load) / spare;
    (spare > 0.0).then(|| hold.mul_f64(holds))
}

/// The fewest connections with which at most `chance` of all callers wait longer than
/// `limit`; never more than `most`.
pub fn for_wait(load: f64, hold: Duration, limit: Duration, chance: f64, most: u32) -> u32 {
    (1..most).find(|c| chance_to_wait_longer(*c, load, hold, limit) <= chance).unwrap_or(most)
}

/// `connections`, with what exceeds `load` scaled for holds that vary: × (1 + c²) / 2, where
/// c² is variance over mean squared (Allen and Cunneen). 1 is exponential, 0 always the same.
pub fn for_variance(connections: u32, load: f64, squared_variation: f64) -> u32 {
    let excess = (f64::from(connections) - load) * f64::midpoint(1.0, squared_variation);
    whole(load + excess)
}

/// Square-root staffing, the quick check: a + 2 √a (Halfin and Whitt, with β = 2).
pub fn by_square_root(load: f64) -> u32 {
    whole(load + 2.0 * load.sqrt())
}

/// Connections that work off `burst` queries of `hold` each within `limit`: B · S / t.
pub fn for_burst(burst: u32, hold: Duration, limit: Duration) -> u32 {
    whole(f64::from(burst) * hold.as_secs_f64() / limit.as_secs_f64())
}

/// Connections with which `requests` at once fit into the seats and a queue twice as long.
pub fn for_queue(requests: u32) -> u32 {
    requests.div_ceil(3)
}

/// Connections with which nobody ever waits: every request at its widest.
pub fn for_no_wait(fan_out: u32, requests: u32) -> u32 {
    fan_out.saturating_mul(requests)
}

/// The fewest connections with which `requests` that each hold up to `held` at once cannot
/// all wait for each other: T (C − 1) + 1.
pub fn against_deadlock(requests: u32, held: u32) -> u32 {
    requests.saturating_mul(held.saturating_sub(1)).saturating_add(1)
}

/// `percent` of `limit`, rounded down: what a class of work may have of a server.
pub fn ceiling(limit: u32, percent: u8) -> u32 {
    u32::try_from(u64::from(limit) * u64::from(percent) / 100).unwrap_or(u32::MAX)
}

/// Rounded up to whole connections, at least one.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn whole(connections: f64) -> u32 {
    // A sum of exact values may come out a hair too high.
    (connections - 1e-9).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(50);
    const MOST: u32 = 10_000;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn ten_requests_a_second_of_200_ms_keep_two_connections_busy_and_need_six() {
        let load = offered_load(10.0, millis(200));
        assert!((load - 2.0).abs() < 1e-9);
        assert_eq!(by_square_root(load), 5);
        assert_eq!(for_wait(load, millis(200), WAIT, 0.01, MOST), 6);
        assert_eq!(for_burst(100, millis(40), millis(500)), 8);
        assert_eq!((for_queue(100), for_queue(20), for_no_wait(5, 20)), (34, 7, 100));
    }

    #[test]
    fn the_knee_of_twenty_connections_is_at_80_percent() {
        assert!((chance_to_wait(20, 16.0) - 0.26).abs() < 0.005);
        assert!((chance_to_wait(20, 18.0) - 0.55).abs() < 0.005);
        let holds = |load| mean_wait(20, load, Duration::from_secs(1)).unwrap().as_secs_f64();
        assert!((holds(16.0) - 0.06).abs() < 0.005 && (holds(18.0) - 0.28).abs() < 0.005);
        assert_eq!(mean_wait(20, 20.0, millis(1)), None);
    }

    #[test]
    fn one_large_pool_waits_less_than_small_ones_as_busy() {
        let at_80_percent = [8, 20, 50].map(|c| chance_to_wait(c, 0.8 * f64::from(c)));
        for (chance, known) in at_80_percent.into_iter().zip([0.46, 0.26, 0.09]) {
            assert!((chance - known).abs() < 0.006, "{chance} {known}");
        }
    }

    #[test]
    fn holding_a_connection_while_a_model_thinks_costs_thirty() {
        let load = offered_load(1.3, Duration::from_secs(15));
        assert_eq!(for_wait(load, Duration::from_secs(15), WAIT, 0.01, MOST), 32);
        let load = offered_load(1.3, millis(100));
        assert_eq!(for_wait(load, millis(100), WAIT, 0.01, MOST), 2);
    }

    #[test]
    fn holds_a_hundred_times_as_long_leave_a_hundredth_of_the_capacity() {
        assert!((capacity(20, millis(5)) - 4_000.0).abs() < 1e-6);
        assert!((capacity(20, millis(500)) - 40.0).abs() < 1e-6);
    }

    #[test]
    fn more_load_than_connections_waits_for_ever() {
        assert!((chance_to_wait(2, 2.0) - 1.0).abs() < 1e-9);
        assert!((chance_to_wait_longer(2, 3.0, millis(1), WAIT) - 1.0).abs() < 1e-9);
        assert_eq!(for_wait(1e12, millis(1), WAIT, 0.01, MOST), MOST);
    }

    #[test]
    fn steady_holds_need_less_and_varying_ones_more() {
        assert_eq!([0.0, 1.0, 4.0].map(|v| for_variance(6, 2.0, v)), [4, 6, 12]);
    }

    #[test]
    fn ceilings_round_down_and_deadlocks_take_one_more() {
        assert_eq!((ceiling(100, 35), ceiling(100, 70), ceiling(99, 70)), (35, 70, 69));
        assert_eq!((against_deadlock(10, 1), against_deadlock(10, 3)), (1, 21));
    }
}
