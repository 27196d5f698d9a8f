//! Seats: what each class may take of one budget right now.
//!
//! Nothing is stored but what is taken, and its sums; every answer is derived at the moment
//! of the question, so there are no permits to lose. Always true after a grant: the seats
//! left still cover every guarantee that is not used. An unused guarantee is never lent.

use std::time::Instant;

use crate::class::{self, ClassId, ClassSettings, Kind, Limits};
use crate::crowd::Crowd;
use crate::settings::PoolSettings;

#[derive(Debug, Clone, Copy)]
pub(crate) struct ClassSeats {
    pub(crate) limits: Limits,
    /// Seats it could have at the most while the others use their guarantees.
    reach: u32,
    pub(crate) taken: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Seats {
    pub(crate) budget: u32,
    /// Connections that may stand beside the pool, besides those.
    pub(crate) beside: u32,
    /// Of the budget, what may be lent now: less of it while a destination recovers.
    pub(crate) lendable_now: u32,
    pub(crate) capacity: Option<u32>,
    pub(crate) ai_ceiling: u32,
    pub(crate) taken: u32,
    taken_ai: u32,
    /// Guarantees that are not in use, of all classes.
    unmet: u32,
    settings: Vec<ClassSettings>,
    /// In which order guarantees are met where the budget cannot meet all.
    order: Vec<usize>,
    pub(crate) classes: Vec<ClassSeats>,
}

impl Seats {
    pub(crate) fn new(settings: &PoolSettings) -> Self {
        let class_settings: Vec<_> = settings.classes.iter().map(|(_, s)| s.clone()).collect();
        let zero = Limits { kind: Kind::Ai, guarantee: 0, ceiling: 0 };
        let mut seats = Self {
            budget: 0,
            beside: 0,
            lendable_now: 0,
            capacity: None,
            ai_ceiling: 0,
            taken: 0,
            taken_ai: 0,
            unmet: 0,
            classes: vec![ClassSeats { limits: zero, reach: 1, taken: 0 }; class_settings.len()],
            order: (0..class_settings.len()).collect(),
            settings: class_settings,
        };
        seats.resize(settings, None);
        seats
    }

    /// Seats of one identity's own: `size` of them, for the classes of `settings`.
    pub(crate) fn of_its_own(settings: &PoolSettings, size: u32) -> Self {
        let mut seats = Self::new(settings);
        seats.fit(settings.ai_share, size.max(1), None);
        seats
    }

    /// New limits for a destination that can take `capacity` in all, if that is known.
    pub(crate) fn resize(&mut self, settings: &PoolSettings, capacity: Option<u32>) {
        let whole = settings.budget.of(capacity);
        self.beside = PoolSettings::beside_of(whole, settings.beside);
        self.fit(settings.ai_share, whole - self.beside, capacity);
    }

    /// New limits: `budget` seats.
    pub(crate) fn fit(&mut self, ai_share: u8, budget: u32, capacity: Option<u32>) {
        self.capacity = capacity;
        self.budget = budget;
        self.lendable_now = self.budget;
        let capacity = capacity.unwrap_or(self.budget);
        self.ai_ceiling = class::ai_ceiling(self.budget, capacity, ai_share);
        let in_order: Vec<_> = self.order.iter().map(|at| self.settings[*at].clone()).collect();
        let limits = class::resolve(&in_order, self.budget, self.ai_ceiling);
        let guaranteed: u32 = limits.iter().map(|limits| limits.guarantee).sum();
        for (at, limits) in self.order.iter().zip(limits) {
            let class = &mut self.classes[*at];
            let left = self.budget.saturating_sub(guaranteed - limits.guarantee);
            class.reach = limits.ceiling.min(left).max(1);
            class.limits = limits;
        }
        self.unmet = self.classes.iter().map(unmet).sum();
    }

    /// Other classes, in their places; those of before keep what they have taken. Guarantees
    /// are met in the order of `first`, then those of the others. To be followed by
    /// [`Seats::resize`].
    pub(crate) fn change(&mut self, classes: Vec<ClassSettings>, first: &[ClassId]) {
        let fresh = |class: &ClassSettings| {
            let limits = Limits { kind: class.kind, guarantee: 0, ceiling: 0 };
            ClassSeats { limits, reach: 1, taken: 0 }
        };
        self.classes.extend(classes.iter().skip(self.classes.len()).map(fresh));
        let of_ai = |(seats, class): (&ClassSeats, &ClassSettings)| match class.kind {
            Kind::Ai => seats.taken,
            Kind::Core => 0,
        };
        self.taken_ai = self.classes.iter().zip(&classes).map(of_ai).sum();
        self.order = first.iter().map(|class| class.index()).collect();
        let others = (0..classes.len()).filter(|at| !first.iter().any(|c| c.index() == *at));
        self.order.extend(others);
        self.settings = classes;
    }

    /// Guarantees of the other classes that are not in use.
    fn unmet_beside(&self, class: ClassId) -> u32 {
        self.unmet - unmet(&self.classes[class.index()])
    }

    /// How many more connections `class` could be given now, if they were there.
    #[inline]
    pub(crate) fn headroom(&self, class: ClassId) -> u32 {
        let ClassSeats { limits, taken, .. } = self.classes[class.index()];
        let own = limits.ceiling.saturating_sub(taken);
        let ai = match limits.kind {
            Kind::Core => u32::MAX,
            Kind::Ai => self.ai_ceiling.saturating_sub(self.taken_ai),
        };
        let free = self.budget.saturating_sub(self.taken).saturating_sub(self.unmet_beside(class));
        own.min(ai).min(free).min(self.free_now())
    }

    /// Could `class` be given one if nothing were taken but `kept`, by class?
    pub(crate) fn would_serve(&self, class: ClassId, kept: &[u32]) -> bool {
        let at = |k: usize| kept.get(k).copied().unwrap_or(0);
        let of = |kind: Kind| {
            let classes = self.classes.iter().enumerate();
            classes.filter(|(_, c)| c.limits.kind == kind).map(|(k, _)| at(k)).sum::<u32>()
        };
        let (core, ai) = (of(Kind::Core), of(Kind::Ai));
        let unmet: u32 = self
            .classes
            .iter()
            .enumerate()
            .filter(|(k, _)| *k != class.index())
            .map(|(k, c)| c.limits.guarantee.saturating_sub(at(k)))
            .sum();
        let own = self.classes[class.index()].limits;
        core + ai + unmet < self.budget
            && at(class.index()) < own.ceiling
            && (own.kind == Kind::Core || ai < self.ai_ceiling)
    }

    /// How many more connections could be given to those of `crowd`, at the most.
    pub(crate) fn lendable(&self, crowd: &Crowd) -> u32 {
        if let Some(class) = crowd.only() {
            return crowd.of(class).min(self.headroom(class));
        }
        let (mut core, mut ai) = (0_u32, 0_u32);
        for class in crowd.classes() {
            let some = crowd.of(class).min(self.headroom(class));
            match self.kind(class) {
                Kind::Core => core = core.saturating_add(some),
                Kind::Ai => ai = ai.saturating_add(some),
            }
        }
        let ai = ai.min(self.ai_ceiling.saturating_sub(self.taken_ai));
        core.saturating_add(ai).min(self.free_now())
    }

    /// All connections that there may be, in the pool and beside it.
    pub(crate) fn whole(&self) -> u32 {
        self.budget + self.beside
    }

    fn free_now(&self) -> u32 {
        self.lendable_now.saturating_sub(self.taken)
    }

    /// Is any seat free, for whomever?
    pub(crate) fn are_left(&self) -> bool {
        self.are_left_beside(0)
    }

    /// Is any seat free once `some` more are taken?
    pub(crate) fn are_left_beside(&self, some: u32) -> bool {
        self.free_now() > some
    }

    pub(crate) fn may_take(&self, class: ClassId) -> bool {
        self.headroom(class) > 0
    }

    pub(crate) fn is_below_guarantee(&self, class: ClassId) -> bool {
        unmet(&self.classes[class.index()]) > 0
    }

    /// The seats `class` could have at the most while the others use their guarantees.
    pub(crate) fn reach(&self, class: ClassId) -> u32 {
        self.classes[class.index()].reach
    }

    pub(crate) fn take(&mut self, class: ClassId) {
        let seats = &mut self.classes[class.index()];
        self.unmet -= u32::from(unmet(seats) > 0);
        seats.taken += 1;
        self.taken += 1;
        if seats.limits.kind == Kind::Ai {
            self.taken_ai += 1;
        }
    }

    pub(crate) fn free(&mut self, class: ClassId) {
        let seats = &mut self.classes[class.index()];
        seats.taken -= 1;
        self.unmet += u32::from(unmet(seats) > 0);
        self.taken -= 1;
        if seats.limits.kind == Kind::Ai {
            self.taken_ai -= 1;
        }
    }

    /// When a waiter of `class` that came at `since` is to be told to give up.
    pub(crate) fn deadline(&self, class: ClassId, since: Instant) -> Instant {
        since + self.settings[class.index()].checkout_timeout
    }

    /// How long a waiter of `class` may wait, seconds.
    pub(crate) fn patience(&self, class: ClassId) -> f64 {
        self.settings[class.index()].checkout_timeout.as_secs_f64()
    }

    pub(crate) fn kind(&self, class: ClassId) -> Kind {
        self.classes[class.index()].limits.kind
    }
}

fn unmet(class: &ClassSeats) -> u32 {
    class.limits.guarantee.saturating_sub(class.taken)
}
