//! How many requests of a class may be under way, counted in the connections that they need
//! (engine notes c.6, B1).
//!
//! A request that works needs `d = S / T` connections on average, of `P` at its peak, where S
//! is its connection time, T the time that it is counted: its residence and what it may idle
//! before it is over. Both are learnt by feature. A new one fits while
//! `D + d ≤ φ·L` and the burst fits seats and queue: `D + d + 1.64·√(Σ d·P) ≤ 3·L` (the 95th
//! percentile of a sum of independent demands). φ follows what continuations wait (WeChat's
//! DAGOR, SoCC 2018: down fast, up slowly). Always true: with nothing under way anything fits.

use crate::class::ClassId;

/// φ to begin with, and its bounds.
const START: f64 = 0.9;
const LEAST: f64 = 0.5;
const MOST: f64 = 1.2;
/// More than this share of continuations that waited long lowers φ.
const SLOW_SHARE: f64 = 0.05;
/// The 95th percentile of a normal distribution, in standard deviations.
const NORMAL_P95: f64 = 1.64;
/// Seats and a queue of twice as many.
const WITH_QUEUE: f64 = 3.0;

/// What a request needs while it is under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Need {
    /// Connections on average.
    pub(crate) mean: f64,
    /// Connections at its peak.
    pub(crate) peak: f64,
}

impl Need {
    /// One connection all the time: what is assumed of work of which nothing is known.
    pub(crate) const ONE: Self = Self { mean: 1.0, peak: 1.0 };

    fn variance(self) -> f64 {
        self.mean * self.peak
    }
}

/// Whether a new request may begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fit {
    Fits,
    /// Those under way need what there is.
    Demand {
        demand: f64,
    },
    /// As many are under way as are allowed.
    Requests {
        limit: u32,
    },
}

/// What is under way, of all classes.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    classes: Vec<Load>,
}

#[derive(Debug, Clone)]
struct Load {
    demand: f64,
    variance: f64,
    requests: u32,
    phi: f64,
    /// Continuations since the last step, and those of them that waited long.
    continued: u32,
    slow: u32,
}

impl Load {
    const NONE: Self =
        Self { demand: 0.0, variance: 0.0, requests: 0, phi: START, continued: 0, slow: 0 };
}

impl Admission {
    pub(crate) fn new(classes: usize) -> Self {
        Self { classes: vec![Load::NONE; classes] }
    }

    /// There are `classes` classes by now.
    pub(crate) fn grow(&mut self, classes: usize) {
        self.classes.resize(classes, Load::NONE);
    }

    /// May a request that needs `need` begin, where the class can get `reach` connections and
    /// may have `most` requests under way?
    pub(crate) fn fit(&self, class: ClassId, need: Need, reach: u32, most: Option<u32>) -> Fit {
        let load = &self.classes[class.index()];
        if let Some(limit) = most.filter(|limit| load.requests >= (*limit).max(1)) {
            return Fit::Requests { limit };
        }
        let demand = load.demand + need.mean;
        let reach = f64::from(reach);
        let burst = demand + NORMAL_P95 * (load.variance + need.variance()).sqrt();
        if load.requests == 0 || (demand <= load.phi * reach && burst <= WITH_QUEUE * reach) {
            return Fit::Fits;
        }
        Fit::Demand { demand: load.demand }
    }

    /// A request is under way.
    pub(crate) fn enter(&mut self, class: ClassId, need: Need) {
        let load = &mut self.classes[class.index()];
        load.requests += 1;
        load.demand += need.mean;
        load.variance += need.variance();
    }

    /// It is over, or idles.
    pub(crate) fn leave(&mut self, class: ClassId, need: Need) {
        let load = &mut self.classes[class.index()];
        load.requests -= 1;
        if load.requests == 0 {
            // What is left is rounding.
            (load.demand, load.variance) = (0.0, 0.0);
        } else {
            load.demand -= need.mean;
            load.variance -= need.variance();
        }
    }

    /// An operation of a request under way was served, after a wait that was long or not.
    pub(crate) fn continued(&mut self, class: ClassId, wait: Wait) {
        let load = &mut self.classes[class.index()];
        load.continued += 1;
        load.slow += u32::from(wait == Wait::Long);
    }

    /// Adapts φ; once a second.
    pub(crate) fn step(&mut self) {
        for load in &mut self.classes {
            let slow = f64::from(load.slow) > SLOW_SHARE * f64::from(load.continued);
            load.phi = if slow { load.phi * 0.95 } else { load.phi + 0.01 }.clamp(LEAST, MOST);
            (load.continued, load.slow) = (0, 0);
        }
    }

    /// Requests under way.
    pub(crate) fn requests(&self, class: ClassId) -> u32 {
        self.classes[class.index()].requests
    }

    /// Connections that they need on average.
    pub(crate) fn demand(&self, class: ClassId) -> f64 {
        self.classes[class.index()].demand
    }
}

/// How long a continuation waited: more than 50 ms is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Short,
    Long,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLASS: ClassId = ClassId(0);

    fn small() -> Need {
        Need { mean: 0.1, peak: 1.0 }
    }

    fn fill(admission: &mut Admission, need: Need, reach: u32) -> u32 {
        let mut count = 0;
        while admission.fit(CLASS, need, reach, None) == Fit::Fits {
            admission.enter(CLASS, need);
            count += 1;
        }
        count
    }

    #[test]
    fn requests_are_counted_by_the_connections_that_they_need() {
        assert_eq!(fill(&mut Admission::new(1), Need::ONE, 10), 9);
        assert_eq!(fill(&mut Admission::new(1), small(), 10), 90);
    }

    #[test]
    fn with_nothing_under_way_anything_fits() {
        let need = Need { mean: 50.0, peak: 400.0 };
        assert_eq!(fill(&mut Admission::new(1), need, 10), 1);
    }

    #[test]
    fn bursts_must_fit_seats_and_queue() {
        let bursty = Need { mean: 0.5, peak: 30.0 };
        let some = fill(&mut Admission::new(1), bursty, 10);
        assert!(some < 18, "by its average 18 would fit, {some} did");
    }

    #[test]
    fn a_cap_counts_requests() {
        let mut admission = Admission::new(1);
        admission.enter(CLASS, small());
        assert_eq!(admission.fit(CLASS, small(), 10, Some(1)), Fit::Requests { limit: 1 });
        admission.leave(CLASS, small());
        assert_eq!(admission.fit(CLASS, small(), 10, Some(1)), Fit::Fits);
    }

    #[test]
    fn long_waits_of_continuations_let_fewer_begin_and_short_ones_more_again() {
        let mut admission = Admission::new(1);
        for _ in 0..100 {
            admission.continued(CLASS, Wait::Long);
            admission.step();
        }
        assert_eq!(fill(&mut admission, Need::ONE, 10), 5);
        let mut admission = Admission { ..admission };
        while admission.requests(CLASS) > 0 {
            admission.leave(CLASS, Need::ONE);
        }
        for _ in 0..100 {
            admission.continued(CLASS, Wait::Short);
            admission.step();
        }
        assert_eq!(fill(&mut admission, Need::ONE, 10), 12);
    }

    proptest! {
        #[test]
        fn what_entered_and_left_leaves_nothing(needs in prop::collection::vec(0.01..20.0_f64, 0..50)) {
            let mut admission = Admission::new(1);
            for mean in &needs {
                admission.enter(CLASS, Need { mean: *mean, peak: 2.0 * mean });
            }
            for mean in needs.iter().rev() {
                admission.leave(CLASS, Need { mean: *mean, peak: 2.0 * mean });
            }
            prop_assert_eq!((admission.requests(CLASS), admission.demand(CLASS)), (0, 0.0));
        }
    }
}
