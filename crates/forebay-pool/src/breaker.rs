//! The circuit breaker of one class at one destination: work that keeps failing is refused
//! for a while, so that it neither waits in vain nor adds to what is wrong there.
//!
//! `Closed → Open → HalfOpen → Closed`, or `→ Open` again for longer (Nygard, "Release It!").
//! What is counted is what became of leases, not of connects: those have a pace of their own
//! ([`crate::target`]). Asks no clock. Always true: while it is half-open one trial is under
//! way, and a trial of which nothing is heard does not hold it for ever.

use std::time::{Duration, Instant};

use forebay_seam::random::Dice;

use crate::window::Window;

/// Failures in a row after which it opens.
const IN_A_ROW: u32 = 5;
/// Outcomes within ten seconds from which on their share counts.
const ENOUGH: u64 = 10;
const BACKOFF_BASE: Duration = Duration::from_millis(500);
const BACKOFF_MOST: Duration = Duration::from_secs(30);
/// A pause of no time at all would be none.
const BACKOFF_LEAST: Duration = Duration::from_millis(10);
/// A trial of which nothing was heard for so long makes way for another.
const TRIAL_MOST: Duration = Duration::from_secs(30);

/// As what work was admitted: kept with its lease, and given back with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Usual,
    /// The one that shows whether it works again.
    Trial,
}

/// May work begin?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admits {
    Yes(Pass),
    /// When to ask again.
    No {
        retry_after: Duration,
    },
}

/// What became of work that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    Failed,
    /// It was given up before anything could be said: cancelled, refused elsewhere.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failed_in_row: u32 },
    Open { until: Instant, times: u32 },
    HalfOpen { since: Instant, times: u32 },
}

/// What metrics call the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Closed,
    Open,
    HalfOpen,
}

/// What is counted.
const ENDED: usize = 0;
const FAILED: usize = 1;

#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    state: State,
    /// [`ENDED`], and [`FAILED`] among them.
    lately: Window<2>,
    openings: u64,
}

impl Breaker {
    pub(crate) fn new(now: Instant) -> Self {
        Self { state: State::Closed { failed_in_row: 0 }, lately: Window::new(now), openings: 0 }
    }

    /// May work begin? Whoever gets [`Pass::Trial`] has to report its end ([`Self::ended`]),
    /// whatever it is.
    pub(crate) fn admits(&mut self, now: Instant) -> Admits {
        match self.state {
            State::Closed { .. } => Admits::Yes(Pass::Usual),
            State::Open { until, .. } if now < until => {
                Admits::No { retry_after: until.saturating_duration_since(now) }
            }
            State::HalfOpen { since, .. } if now.saturating_duration_since(since) < TRIAL_MOST => {
                Admits::No { retry_after: BACKOFF_BASE }
            }
            State::Open { times, .. } | State::HalfOpen { times, .. } => {
                self.state = State::HalfOpen { since: now, times };
                Admits::Yes(Pass::Trial)
            }
        }
    }

    /// What was admitted has ended well. `true`: it is closed, and that is all there is to it.
    #[inline]
    pub(crate) fn ended_well(&mut self, now: Instant) -> bool {
        let State::Closed { failed_in_row } = &mut self.state else { return false };
        *failed_in_row = 0;
        self.lately.add(ENDED, 1, now);
        true
    }

    /// What was admitted as `pass` has ended. While it is not closed only trials count: what
    /// began before it opened says nothing new.
    pub(crate) fn ended(&mut self, pass: Pass, outcome: Outcome, now: Instant, dice: &mut Dice) {
        match (self.state, pass, outcome) {
            (State::Closed { .. }, _, Outcome::Good) => {
                self.ended_well(now);
            }
            (State::Closed { failed_in_row }, _, Outcome::Failed) => {
                self.lately.add(ENDED, 1, now);
                self.lately.add(FAILED, 1, now);
                let [all, failed] = self.lately.sums(now);
                if failed_in_row + 1 >= IN_A_ROW || (all >= ENOUGH && failed * 2 >= all) {
                    self.open(0, now, dice);
                } else {
                    self.state = State::Closed { failed_in_row: failed_in_row + 1 };
                }
            }
            (State::HalfOpen { .. }, Pass::Trial, Outcome::Good) => {
                self.state = State::Closed { failed_in_row: 0 };
                self.lately.clear(now);
            }
            (State::HalfOpen { times, .. }, Pass::Trial, Outcome::Failed) => {
                self.open(times.saturating_add(1), now, dice);
            }
            // The next that asks is the trial.
            (State::HalfOpen { times, .. }, Pass::Trial, Outcome::Unknown) => {
                self.state = State::Open { until: now, times };
            }
            (State::Closed { .. }, _, Outcome::Unknown)
            | (State::HalfOpen { .. }, Pass::Usual, _)
            | (State::Open { .. }, _, _) => {}
        }
    }

    /// The pause is `U(0, min(30 s, 500 ms · 2ⁿ))`: full jitter ("Exponential Backoff And
    /// Jitter", AWS Architecture Blog, 2015), so that those who wait do not come back at once.
    fn open(&mut self, times: u32, now: Instant, dice: &mut Dice) {
        let most = BACKOFF_BASE.saturating_mul(1 << times.min(10)).min(BACKOFF_MOST);
        let pause = most.mul_f64(dice.unit()).max(BACKOFF_LEAST);
        self.state = State::Open { until: now + pause, times };
        self.openings += 1;
    }

    /// What metrics call the state.
    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Closed { .. } => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// How often it opened, since start.
    pub(crate) fn openings(&self) -> u64 {
        self.openings
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;
    use proptest::prelude::*;

    use super::*;

    struct World {
        breaker: Breaker,
        now: Instant,
        dice: Dice,
    }

    impl World {
        fn new() -> Self {
            let now = time::now();
            Self { breaker: Breaker::new(now), now, dice: Dice::new(1) }
        }

        fn end(&mut self, pass: Pass, outcome: Outcome) {
            self.breaker.ended(pass, outcome, self.now, &mut self.dice);
        }

        fn fail(&mut self, times: u32) {
            (0..times).for_each(|_| self.end(Pass::Usual, Outcome::Failed));
        }

        fn pass_time(&mut self, time: Duration) {
            self.now += time;
        }

        fn admits(&mut self) -> Admits {
            self.breaker.admits(self.now)
        }
    }

    const TRIAL: Admits = Admits::Yes(Pass::Trial);
    const USUAL: Admits = Admits::Yes(Pass::Usual);

    #[test]
    fn five_failures_in_a_row_open_it() {
        let mut world = World::new();
        world.fail(4);
        world.end(Pass::Usual, Outcome::Good);
        world.fail(4);
        assert_eq!(world.admits(), USUAL);
        world.fail(1);
        assert!(
            matches!(world.admits(), Admits::No { retry_after } if retry_after <= BACKOFF_BASE)
        );
    }

    #[test]
    fn half_of_ten_outcomes_open_it() {
        let mut world = World::new();
        for _ in 0..4 {
            world.end(Pass::Usual, Outcome::Good);
            world.fail(1);
        }
        assert_eq!(world.admits(), USUAL, "eight are not enough to tell");
        world.end(Pass::Usual, Outcome::Good);
        world.fail(1);
        assert_eq!(world.breaker.phase(), Phase::Open);
    }

    #[test]
    fn failures_spread_over_a_long_time_do_not_open_it() {
        let mut world = World::new();
        for _ in 0..100 {
            world.pass_time(Duration::from_secs(3));
            world.end(Pass::Usual, Outcome::Good);
            world.fail(1);
            assert_eq!(world.admits(), USUAL);
        }
    }

    #[test]
    fn one_trial_decides() {
        for (outcome, phase) in [(Outcome::Good, Phase::Closed), (Outcome::Failed, Phase::Open)] {
            let mut world = World::new();
            world.fail(5);
            world.pass_time(BACKOFF_BASE);
            assert_eq!(world.admits(), TRIAL);
            assert!(matches!(world.admits(), Admits::No { .. }), "one at a time");
            world.end(Pass::Trial, outcome);
            assert_eq!(world.breaker.phase(), phase);
        }
    }

    #[test]
    fn what_began_before_it_opened_decides_nothing() {
        let mut world = World::new();
        world.fail(5);
        world.end(Pass::Usual, Outcome::Good);
        assert_eq!(world.breaker.phase(), Phase::Open);
        world.pass_time(BACKOFF_BASE);
        assert_eq!(world.admits(), TRIAL);
        world.fail(3);
        world.end(Pass::Usual, Outcome::Good);
        assert_eq!(world.breaker.phase(), Phase::HalfOpen);
        assert_eq!(world.breaker.openings(), 1);
    }

    #[test]
    fn a_trial_that_was_given_up_makes_way_for_the_next() {
        let mut world = World::new();
        world.fail(5);
        world.pass_time(BACKOFF_BASE);
        assert_eq!(world.admits(), TRIAL);
        world.end(Pass::Trial, Outcome::Unknown);
        assert_eq!(world.admits(), TRIAL);
        // Of this one nothing is ever heard.
        world.pass_time(TRIAL_MOST - Duration::from_millis(1));
        assert!(matches!(world.admits(), Admits::No { .. }));
        world.pass_time(Duration::from_millis(1));
        assert_eq!(world.admits(), TRIAL);
    }

    #[test]
    fn after_recovery_old_failures_are_forgotten() {
        let mut world = World::new();
        world.fail(5);
        world.pass_time(BACKOFF_BASE);
        assert_eq!(world.admits(), TRIAL);
        world.end(Pass::Trial, Outcome::Good);
        (0..6).for_each(|_| world.end(Pass::Usual, Outcome::Good));
        world.fail(4);
        assert_eq!(world.admits(), USUAL);
    }

    proptest! {
        #[test]
        fn pauses_grow_to_half_a_minute_and_are_spread(seed in 0..u64::MAX) {
            let mut world = World::new();
            world.dice = Dice::new(seed);
            world.fail(5);
            for n in 0..60_u32 {
                let most = BACKOFF_MOST.min(BACKOFF_BASE * 2_u32.pow(n.min(8)));
                let Admits::No { retry_after } = world.admits() else {
                    return Err(TestCaseError::fail("it is open"));
                };
                prop_assert!(BACKOFF_LEAST <= retry_after && retry_after <= most);
                world.pass_time(retry_after);
                prop_assert_eq!(world.admits(), TRIAL);
                world.end(Pass::Trial, Outcome::Failed);
            }
        }

        #[test]
        fn it_never_blocks_for_ever(
            steps in prop::collection::vec((0..5_u8, 0..2_000_u64), 1..400),
        ) {
            let mut world = World::new();
            for (what, millis) in steps {
                world.pass_time(Duration::from_millis(millis));
                match what {
                    0 => _ = world.admits(),
                    1 => world.end(Pass::Usual, Outcome::Good),
                    2 => world.end(Pass::Usual, Outcome::Failed),
                    3 => world.end(Pass::Trial, Outcome::Failed),
                    _ => world.end(Pass::Trial, Outcome::Unknown),
                }
            }
            world.pass_time(TRIAL_MOST.max(BACKOFF_MOST));
            prop_assert!(matches!(world.admits(), Admits::Yes(_)));
        }
    }
}
