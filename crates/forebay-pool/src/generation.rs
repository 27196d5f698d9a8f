//! Generations of connections: those opened since the destination was last known to start
//! anew. When a restart is suspected one connection at rest is asked, and its answer decides
//! about all of its age, so that a thousand dead ones are not found by a thousand callers.
//!
//! Knows no connections and asks no clock: a connection remembers its [`Generation`], and
//! who has them acts on the [`Suspicion`]. Always true: at most one probe is out for a
//! suspicion, and a connection of an older generation is never lent again once it is home.

use std::time::{Duration, Instant};

/// A probe that was not heard of for so long counts for nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// One that answered vouches for its age so long, whatever dies meanwhile: single
/// connections do die, of timeouts between here and there.
const TRUST: Duration = Duration::from_secs(1);

/// When a connection was opened, as far as restarts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(u64);

impl Generation {
    /// That of a connection which shall not be lent again, whatever its age.
    pub(crate) const OUTDATED: Self = Self(0);
}

/// What to do about a connection that was found dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// Ask one connection at rest of this generation, and tell the answer by
    /// [`Generations::answered`] or [`Generations::found_dead`]; if none rests there, tell
    /// [`Generations::nobody_to_ask`].
    ProbeOne(Generation),
    /// It did start anew. Close all older than this that rest, without asking them, and the
    /// others when they come home ([`Generations::is_current`]).
    AllOlderAreDead(Generation),
    /// Its end says nothing about others.
    Nothing,
}

/// What is known of the present generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// One is being asked, since then.
    Asked(Instant),
    /// One answered then.
    Dispelled(Instant),
}

#[derive(Debug, Clone)]
pub(crate) struct Generations {
    current: Generation,
    doubt: Doubt,
}

impl Generation {
    /// Of a connection that is to be replaced, whatever becomes of the others.
    pub(crate) const REPLACED: Self = Self(u64::MAX);
}

impl Default for Generations {
    fn default() -> Self {
        Self { current: Generation(1), doubt: Doubt::None }
    }
}

impl Generations {
    /// The generation of a connection that is being opened now. It is stamped when the
    /// connect begins: one that began before a restart is not trusted to be of after it.
    pub(crate) fn current(&self) -> Generation {
        self.current
    }

    /// May a connection of `generation` be lent, or rest?
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        generation == self.current
    }

    /// A connection of `generation` was found dead: at rest, by a probe, or by its user.
    pub(crate) fn found_dead(&mut self, generation: Generation, now: Instant) -> Suspicion {
        if generation != self.current {
            return Suspicion::Nothing;
        }
        match self.doubt {
            Doubt::Asked(at) if now < at + PATIENCE => self.renew_as_dead(),
            Doubt::Dispelled(at) if now < at + TRUST => Suspicion::Nothing,
            Doubt::None | Doubt::Asked(_) | Doubt::Dispelled(_) => {
                self.doubt = Doubt::Asked(now);
                Suspicion::ProbeOne(generation)
            }
        }
    }

    /// A connection of `generation` answered a probe: there was no restart since.
    pub(crate) fn answered(&mut self, generation: Generation, now: Instant) {
        if generation == self.current && matches!(self.doubt, Doubt::Asked(_)) {
            self.doubt = Doubt::Dispelled(now);
        }
    }

    /// There was no connection at rest to ask: the next one found dead asks again.
    pub(crate) fn nobody_to_ask(&mut self) {
        self.doubt = Doubt::None;
    }

    /// By hand: whatever is older than this moment is replaced as it comes home. Returns the
    /// generation that begins.
    pub(crate) fn renew(&mut self) -> Generation {
        self.current = Generation(self.current.0 + 1);
        self.doubt = Doubt::None;
        self.current
    }

    fn renew_as_dead(&mut self) -> Suspicion {
        Suspicion::AllOlderAreDead(self.renew())
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use super::*;

    #[test]
    fn one_dead_connection_is_a_suspicion_and_two_are_a_restart() {
        let (mut generations, now) = (Generations::default(), time::now());
        let first = generations.current();
        assert_eq!(generations.found_dead(first, now), Suspicion::ProbeOne(first));
        let verdict = generations.found_dead(first, now);
        let second = generations.current();
        assert_eq!(verdict, Suspicion::AllOlderAreDead(second));
        assert!(second > first && !generations.is_current(first));
    }

    #[test]
    fn after_a_restart_the_old_ones_say_nothing_more() {
        let (mut generations, now) = (Generations::default(), time::now());
        let old = generations.current();
        generations.found_dead(old, now);
        generations.found_dead(old, now);
        let new = generations.current();
        for _ in 0..1_000 {
            assert_eq!(generations.found_dead(old, now), Suspicion::Nothing);
        }
        generations.answered(old, now);
        assert_eq!(generations.current(), new);
        assert_eq!(generations.found_dead(new, now), Suspicion::ProbeOne(new));
    }

    #[test]
    fn one_that_answers_dispels_the_doubt_for_a_while() {
        let (mut generations, now) = (Generations::default(), time::now());
        let only = generations.current();
        generations.found_dead(only, now);
        generations.answered(only, now);
        assert_eq!(generations.found_dead(only, now + TRUST / 2), Suspicion::Nothing);
        let later = now + TRUST;
        assert_eq!(generations.found_dead(only, later), Suspicion::ProbeOne(only));
        assert!(generations.is_current(only));
    }

    #[test]
    fn a_probe_that_nobody_heard_of_is_repeated() {
        let (mut generations, now) = (Generations::default(), time::now());
        let only = generations.current();
        generations.found_dead(only, now);
        assert_eq!(generations.found_dead(only, now + PATIENCE), Suspicion::ProbeOne(only));
        generations.nobody_to_ask();
        assert_eq!(generations.found_dead(only, now + PATIENCE), Suspicion::ProbeOne(only));
    }

    #[test]
    fn renewed_by_hand_nothing_older_is_lent_again() {
        let mut generations = Generations::default();
        let old = generations.current();
        let new = generations.renew();
        assert!(!generations.is_current(old) && generations.is_current(new));
        assert_eq!(generations.found_dead(old, time::now()), Suspicion::Nothing);
    }
}
