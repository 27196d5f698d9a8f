//! What is left to chance: when requests come, and how long things take.
//!
//! Drawn from a seed, by arithmetic that is the same on every machine (`libm`, not the
//! system's library), so that a table that was made elsewhere can be made again.

use std::time::Duration;

use forebay_seam::random::Dice;

/// How long something takes, as a distribution.
#[derive(Debug, Clone, Copy)]
pub enum Times {
    /// Always the same.
    Always(Duration),
    /// Any time in between is as likely as any other.
    Between(Duration, Duration),
    /// Exponential: no memory, c² = 1.
    Exponential {
        /// The mean.
        mean: Duration,
    },
    /// Log-normal: most are short, few are very long.
    LogNormal {
        /// The mean.
        mean: Duration,
        /// 95 of 100 are shorter; more than the mean, at most 3.8 times as much.
        p95: Duration,
    },
}

/// The 95th percentile of the normal distribution.
const NORMAL_P95: f64 = 1.644_853_627;

impl Times {
    /// No time at all.
    pub const NONE: Self = Self::Always(Duration::ZERO);

    /// One of them.
    pub fn draw(self, dice: &mut Dice) -> Duration {
        match self {
            Self::Always(time) => time,
            Self::Between(least, most) => least + most.saturating_sub(least).mul_f64(dice.unit()),
            Self::Exponential { mean } => mean.mul_f64(exponential(dice)),
            Self::LogNormal { mean, p95 } => {
                let sigma = sigma(mean, p95);
                mean.mul_f64(libm::exp(sigma * normal(dice) - sigma * sigma / 2.0))
            }
        }
    }

    /// The mean.
    pub fn mean(self) -> Duration {
        match self {
            Self::Always(time) => time,
            Self::Between(least, most) => (least + most) / 2,
            Self::Exponential { mean } | Self::LogNormal { mean, .. } => mean,
        }
    }

    /// c², variance over mean squared: 0 is always the same, 1 exponential.
    pub fn squared_variation(self) -> f64 {
        match self {
            Self::Always(_) => 0.0,
            Self::Between(least, most) => {
                let width = most.saturating_sub(least).as_secs_f64();
                let mean = self.mean().as_secs_f64();
                if mean > 0.0 { width * width / 12.0 / (mean * mean) } else { 0.0 }
            }
            Self::Exponential { .. } => 1.0,
            Self::LogNormal { mean, p95 } => {
                let sigma = sigma(mean, p95);
                libm::exp(sigma * sigma) - 1.0
            }
        }
    }
}

/// σ of the log-normal distribution with that mean and 95th percentile: of
/// mean = e^(μ + σ²/2) and p95 = e^(μ + 1.645 σ) the smaller solution.
fn sigma(mean: Duration, p95: Duration) -> f64 {
    let ratio = libm::log((p95.as_secs_f64() / mean.as_secs_f64()).max(1.0));
    NORMAL_P95 - libm::sqrt((NORMAL_P95 * NORMAL_P95 - 2.0 * ratio).max(0.0))
}

/// Exponential with mean 1.
fn exponential(dice: &mut Dice) -> f64 {
    -libm::log(1.0 - dice.unit())
}

/// Normal with mean 0 and variance 1, by Marsaglia's polar method (1964).
fn normal(dice: &mut Dice) -> f64 {
    loop {
        let (x, y) = (dice.between(-1.0..1.0), dice.between(-1.0..1.0));
        let s = x * x + y * y;
        if s > 0.0 && s < 1.0 {
            return x * libm::sqrt(-2.0 * libm::log(s) / s);
        }
    }
}

/// When requests come.
#[derive(Debug, Clone, Copy)]
pub enum Arrivals {
    /// Independent of each other and of the answers, so many a second on average.
    Poisson {
        /// A second.
        rate: f64,
    },
    /// As Poisson; every so often the rate is multiplied for a while.
    Bursts {
        /// A second, between bursts.
        rate: f64,
        /// How many times that during a burst.
        factor: f64,
        /// When the first burst begins, and all others after it.
        every: Duration,
        /// How long each takes; shorter than `every`.
        length: Duration,
    },
    /// A fixed number of clients, each of which waits for its answer, thinks, and asks again.
    Clients {
        /// How many.
        clients: u32,
        /// How long each thinks.
        think: Times,
    },
}

impl Arrivals {
    /// The first moment after `now` at which a request comes by itself; `None` for clients
    /// that wait for answers.
    pub(super) fn after(self, now: Duration, dice: &mut Dice) -> Option<Duration> {
        match self {
            Self::Poisson { rate } => Some(now + wait(rate, dice)),
            Self::Bursts { rate, factor, every, length } => {
                let mut at = now;
                loop {
                    let (rate, until) = phase(at, rate, factor, every, length);
                    let next = at + wait(rate, dice);
                    if next < until {
                        return Some(next);
                    }
                    // What was waited for has no memory: it is drawn anew at the new rate.
                    at = until;
                }
            }
            Self::Clients { .. } => None,
        }
    }
}

/// The rate at `now`, and until when it stays.
fn phase(
    now: Duration,
    rate: f64,
    factor: f64,
    every: Duration,
    length: Duration,
) -> (f64, Duration) {
    let every = every.max(Duration::from_millis(1));
    let cycles = u32::try_from(now.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
    let begin = every * cycles;
    if cycles > 0 && now < begin + length {
        (rate * factor, begin + length)
    } else {
        (rate, begin + every)
    }
}

fn wait(rate: f64, dice: &mut Dice) -> Duration {
    Duration::from_secs_f64((exponential(dice) / rate.max(1e-9)).min(1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn mean_and_p95(times: Times) -> (f64, f64) {
        let mut dice = Dice::new(3);
        let mut drawn: Vec<f64> =
            (0..200_000).map(|_| times.draw(&mut dice).as_secs_f64()).collect();
        drawn.sort_unstable_by(f64::total_cmp);
        (drawn.iter().sum::<f64>() / 200_000.0, drawn[190_000])
    }

    #[test]
    fn times_have_the_mean_and_the_tail_that_they_say() {
        let (mean, p95) = mean_and_p95(Times::Exponential { mean: SECOND });
        assert!((mean - 1.0).abs() < 0.01 && (p95 - 2.996).abs() < 0.04, "{mean} {p95}");
        let tail = Times::LogNormal { mean: SECOND, p95: SECOND.mul_f64(3.5) };
        let (mean, p95) = mean_and_p95(tail);
        assert!((mean - 1.0).abs() < 0.02 && (p95 - 3.5).abs() < 0.06, "{mean} {p95}");
        assert!((tail.squared_variation() - 3.2).abs() < 0.1, "{}", tail.squared_variation());
        let (mean, p95) = mean_and_p95(Times::Between(SECOND, 3 * SECOND));
        assert!((mean - 2.0).abs() < 0.01 && (p95 - 2.9).abs() < 0.01, "{mean} {p95}");
    }

    #[test]
    fn bursts_come_when_they_should_and_are_as_heavy_as_they_should() {
        let bursts =
            Arrivals::Bursts { rate: 100.0, factor: 10.0, every: 10 * SECOND, length: SECOND };
        let (mut dice, mut now) = (Dice::new(1), Duration::ZERO);
        let mut seconds = [0_u32; 40];
        while let Some(at) = bursts.after(now, &mut dice) {
            assert!(at > now);
            now = at;
            match seconds.get_mut(usize::try_from(at.as_secs()).unwrap()) {
                Some(second) => *second += 1,
                None => break,
            }
        }
        for (second, count) in seconds.into_iter().enumerate() {
            let burst = matches!(second, 10 | 20 | 30);
            let expected = if burst { 900..1100 } else { 60..140 };
            assert!(expected.contains(&count), "{count} in second {second}");
        }
    }
}
