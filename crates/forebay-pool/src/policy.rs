//! The policies of a class, each with its mode, and what each has decided so far.
//!
//! Always true: a policy that observes counts what it would have done and does nothing else.

use serde::Serialize;

use crate::class::{ClassSettings, Kind};
use crate::mode::Mode;
use crate::stats::PolicySnapshot;

/// What may refuse or hold back work of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// New requests wait until those under way leave room for what they need (B1).
    Admission,
    /// Who would wait beyond its deadline is told at once (A4).
    Deadline,
    /// Expensive work is refused first while the class is busy (B3).
    Shedding,
    /// The newest goes first, and the oldest is refused, while the queue does not empty.
    Freshness,
    /// Retries cost no more than a share of first tries (B4).
    Retries,
    /// Work that holds long does not borrow (A5).
    Lending,
    /// Work that keeps failing is refused for a while (A10).
    Breaker,
}

impl Policy {
    /// Every policy, in the order of the settings.
    pub const ALL: [Self; 7] = [
        Self::Admission,
        Self::Deadline,
        Self::Shedding,
        Self::Freshness,
        Self::Retries,
        Self::Lending,
        Self::Breaker,
    ];

    /// Its name in settings, metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Deadline => "deadline",
            Self::Shedding => "shedding",
            Self::Freshness => "freshness",
            Self::Retries => "retries",
            Self::Lending => "lending",
            Self::Breaker => "breaker",
        }
    }

    /// What it may do in `class`. Core work is refused for being expensive or old only where
    /// that is asked for by name: people wait for it.
    pub fn mode_in(self, class: &ClassSettings) -> Mode {
        let inherited = match (class.kind, self) {
            (Kind::Core, Self::Shedding | Self::Freshness) => class.mode.min(Mode::Observe),
            (Kind::Core | Kind::Ai, _) => class.mode,
        };
        self.own(class).unwrap_or(inherited)
    }

    /// The mode of its own that `class` gives it, if any.
    pub fn own(self, class: &ClassSettings) -> Option<Mode> {
        match self {
            Self::Admission => class.policies.admission,
            Self::Deadline => class.policies.deadline,
            Self::Shedding => class.policies.shedding,
            Self::Freshness => class.policies.freshness,
            Self::Retries => class.policies.retries,
            Self::Lending => class.policies.lending,
            Self::Breaker => class.policies.breaker,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Admission => 0,
            Self::Deadline => 1,
            Self::Shedding => 2,
            Self::Freshness => 3,
            Self::Retries => 4,
            Self::Lending => 5,
            Self::Breaker => 6,
        }
    }
}

/// How often a policy decided against somebody.
#[derive(Debug, Clone, Copy, Default)]
struct Decided {
    acted: u64,
    observed: u64,
}

/// The modes of one class, and what was decided under them.
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    modes: [Mode; 7],
    decided: [Decided; 7],
}

/// What follows from a policy's verdict against somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consequence {
    Act,
    Nothing,
}

impl Policies {
    pub(crate) fn new(class: &ClassSettings) -> Self {
        let modes = Policy::ALL.map(|policy| policy.mode_in(class));
        Self { modes, decided: [Decided::default(); 7] }
    }

    /// The modes of other settings; what was decided stays counted.
    pub(crate) fn follow(&mut self, class: &ClassSettings) {
        self.modes = Self::new(class).modes;
    }

    pub(crate) fn mode(&self, policy: Policy) -> Mode {
        self.modes[policy.index()]
    }

    pub(crate) fn is_on(&self, policy: Policy) -> bool {
        self.mode(policy) > Mode::Off
    }

    pub(crate) fn acts(&self, policy: Policy) -> bool {
        self.mode(policy) == Mode::Enforce
    }

    /// `policy` decides against somebody.
    pub(crate) fn decide(&mut self, policy: Policy) -> Consequence {
        let decided = &mut self.decided[policy.index()];
        match self.modes[policy.index()] {
            Mode::Off => Consequence::Nothing,
            Mode::Observe => {
                decided.observed += 1;
                Consequence::Nothing
            }
            Mode::Enforce => {
                decided.acted += 1;
                Consequence::Act
            }
        }
    }

    pub(crate) fn decided(&self) -> impl Iterator<Item = PolicySnapshot> + '_ {
        Policy::ALL.into_iter().map(|policy| {
            let (mode, decided) = (self.modes[policy.index()], self.decided[policy.index()]);
            PolicySnapshot { policy, mode, acted: decided.acted, observed: decided.observed }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class;

    #[test]
    fn a_policy_without_a_mode_of_its_own_has_that_of_its_class() {
        let settings = ClassSettings {
            mode: Mode::Enforce,
            policies: class::Policies { shedding: Some(Mode::Off), ..Default::default() },
            ..ClassSettings::default()
        };
        let policies = Policies::new(&settings);
        assert_eq!(policies.mode(Policy::Shedding), Mode::Off);
        assert!(Policy::ALL.iter().filter(|p| policies.acts(**p)).count() == 6);
    }

    #[test]
    fn core_is_shed_only_where_that_is_asked_for_by_name() {
        let mut core =
            ClassSettings { kind: Kind::Core, mode: Mode::Enforce, ..ClassSettings::default() };
        assert_eq!(Policy::Shedding.mode_in(&core), Mode::Observe);
        assert_eq!(Policy::Freshness.mode_in(&core), Mode::Observe);
        assert_eq!(Policy::Breaker.mode_in(&core), Mode::Enforce);
        core.policies.shedding = Some(Mode::Enforce);
        assert_eq!(Policy::Shedding.mode_in(&core), Mode::Enforce);
    }

    #[test]
    fn a_policy_that_observes_counts_and_does_nothing() {
        let mut policies = Policies::new(&ClassSettings::default());
        assert_eq!(policies.decide(Policy::Retries), Consequence::Nothing);
        let seen = policies.decided().find(|seen| seen.policy == Policy::Retries).unwrap();
        assert_eq!((seen.mode, seen.acted, seen.observed), (Mode::Observe, 0, 1));
    }
}
