use forebay_seam::time;
use proptest::prelude::*;

use super::*;
use crate::class::ClassId;
use crate::cost::Costs;
use crate::feature::Features;
use crate::operation::Operation;

struct World {
    shedding: Shedding,
    costs: Costs,
    features: Features,
    dice: Dice,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = time::now();
        Self {
            shedding: Shedding::new(0.80, now),
            costs: Costs::new(1, now),
            features: Features::new(now),
            dice: Dice::new(7),
            now,
        }
    }

    fn kind(&mut self, name: &str) -> CostId {
        let operation = Operation::new("answer", name);
        self.costs.find(ClassId(0), &operation, &mut self.features, self.now)
    }

    fn pass_time(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    /// Utilisation is this, and has been for long: in thousandths.
    fn settle(&mut self, leased: u32) {
        self.shedding.observe(leased, 1_000, self.now);
        self.pass_time(60.0);
        self.shedding.observe(leased, 1_000, self.now);
    }

    fn ask(&mut self, kind: CostId, millis: u64) -> Verdict {
        let cost = Some(Duration::from_millis(millis));
        self.shedding.verdict(cost, kind, self.now, &mut self.dice)
    }

    /// Five minutes of cheap, usual and dear work, a third of the time each; then the part of
    /// each kind that comes in.
    fn admitted(&mut self) -> [f64; 3] {
        let kinds = ["cheap", "usual", "dear"].map(|name| self.kind(name));
        let mut came = [0.0_f64; 3];
        for n in 0..30_000_u32 {
            self.pass_time(0.01);
            self.shedding.observe(self.leased(), 1_000, self.now);
            // As often as it is cheap, so that each takes as much time.
            for (place, millis, every) in [(0, 10, 1), (1, 100, 10), (2, 1_000, 100)] {
                if n % every == 0 && self.ask(kinds[place], millis) == Verdict::Admit {
                    came[place] += f64::from(every);
                }
            }
        }
        came.map(|times| times / 30_000.0)
    }

    fn leased(&self) -> u32 {
        let part = self.shedding.utilisation.present * 1_000.0;
        (0..=1_000).find(|n| f64::from(*n) >= part - 0.5).unwrap_or(1_000)
    }
}

#[test]
fn nothing_is_shed_below_eighty_percent() {
    let mut world = World::new();
    world.settle(799);
    assert_eq!(world.admitted(), [1.0; 3]);
    assert!(world.shedding.passed.is_empty(), "it takes no memory before it sheds");
}

#[test]
fn expensive_work_is_shed_first_and_gradually() {
    // By the curve: of three thirds, the ranks are 0, 1/3 and 2/3, and θ is 1 at 0.80 and 0.10
    // at 1. Of the dear kind, asked for once a second, one in ten passes whatever happens.
    for (leased, usual, dear) in [
        (860, 1.0, 1.0),
        (880, 1.0, 0.73),
        (890, 1.0, 0.28),
        (900, 1.0, 0.1),
        (940, 1.0, 0.1),
        (960, 0.47, 0.1),
        (1_000, 0.01, 0.1),
    ] {
        let mut world = World::new();
        world.settle(leased);
        let came = world.admitted();
        assert_eq!(came[0], 1.0, "cheap at {leased}");
        assert!((came[1] - usual).abs() < 0.05, "usual at {leased}: {came:?}");
        assert!((came[2] - dear).abs() < 0.10, "dear at {leased}: {came:?}");
    }
}

#[test]
fn a_kind_alone_in_its_class_is_the_cheapest_there_is() {
    let mut world = World::new();
    world.settle(1_000);
    let only = world.kind("only");
    for _ in 0..1_000 {
        world.pass_time(0.1);
        assert_eq!(world.ask(only, 500), Verdict::Admit);
    }
}

#[test]
fn unknown_costs_come_in() {
    let mut world = World::new();
    world.settle(1_000);
    let (known, unknown) = (world.kind("known"), world.kind("unknown"));
    (0..100).for_each(|_| _ = world.ask(known, 1));
    let verdict = world.shedding.verdict(None, unknown, world.now, &mut world.dice);
    assert_eq!(verdict, Verdict::Admit);
}

#[test]
fn each_kind_passes_once_in_ten_seconds() {
    let mut world = World::new();
    world.settle(1_000);
    let cheap = world.kind("cheap");
    let dear = [world.kind("dear"), world.kind("dearer")];
    let mut came = [0; 2];
    for _ in 0..600 {
        world.pass_time(0.1);
        (0..100).for_each(|_| _ = world.ask(cheap, 10));
        for (came, kind) in came.iter_mut().zip(dear) {
            *came += u32::from(world.ask(kind, 1_000) == Verdict::Admit);
        }
    }
    assert_eq!(came, [6, 6]);
}

#[test]
fn no_more_is_admitted_than_can_be_done_long_before_all_is_in_use() {
    let mut world = World::new();
    // Half the reach is asked for as cheap work, and as much as the whole as dear work.
    let (cheap, dear) = (world.kind("cheap"), world.kind("dear"));
    world.shedding.observe(81, 100, world.now);
    world.pass_time(60.0);
    let mut admitted = [0.0_f64; 2];
    for n in 0..60_000_u32 {
        world.pass_time(0.01);
        let late = n >= 6_000;
        for _ in 0..5 {
            let came = world.ask(cheap, 100) == Verdict::Admit && late;
            admitted[0] += if came { 0.1 } else { 0.0 };
        }
        let came = world.ask(dear, 1_000) == Verdict::Admit && late;
        admitted[1] += if came { 1.0 } else { 0.0 };
    }
    let [cheap, dear] = admitted.map(|time| time / 540.0);
    assert!((cheap - 50.0).abs() < 0.1, "cheap work keeps {cheap} connections busy");
    assert!((cheap + dear - 95.0).abs() < 1.5, "and dear work the rest: {dear}");
}

#[test]
fn pressure_says_how_close_shedding_is() {
    let mut told = Vec::new();
    for leased in [0, 600, 700, 800, 900, 1_000] {
        let mut world = World::new();
        world.settle(leased);
        told.push(world.shedding.pressure(world.now));
    }
    for (told, expected) in told.iter().zip([0.0, 0.0, 0.25, 0.5, 0.75, 1.0]) {
        assert!((told - expected).abs() < 1e-6, "{told:?}");
    }
}

#[test]
fn pressure_knows_of_more_than_can_be_done() {
    let mut world = World::new();
    world.settle(810);
    let kind = world.kind("a");
    for _ in 0..20_000 {
        world.pass_time(0.001);
        world.ask(kind, 4_000);
    }
    assert!(world.shedding.pressure(world.now) > 0.9);
    world.pass_time(60.0);
    assert!(world.shedding.pressure(world.now) < 0.6, "and forgets it");
}

#[test]
fn a_class_that_can_get_nothing_and_has_nothing_is_not_busy() {
    let mut world = World::new();
    world.shedding.observe(0, 0, world.now);
    world.pass_time(10.0);
    assert_eq!(world.shedding.utilisation(world.now), 0.0);
    world.shedding.observe(1, 0, world.now);
    world.pass_time(60.0);
    assert!(world.shedding.utilisation(world.now) > 0.99);
}

#[test]
fn a_long_silence_leaves_no_ranks() {
    let mut world = World::new();
    let (cheap, dear) = (world.kind("cheap"), world.kind("dear"));
    (0..100).for_each(|_| _ = world.ask(cheap, 10));
    world.pass_time(1e8);
    world.settle(1_000);
    assert_eq!(world.ask(dear, 1_000), Verdict::Admit);
    assert_eq!(world.ask(dear, 1_000), Verdict::Admit, "the cheapest known");
}

/// A class of 20 connections is asked for 1.5 times what it can do, a third of it cheap: it
/// stays busy, cheap work is untouched, and dear work is thinned out without swinging.
#[test]
fn under_overload_it_settles_and_does_not_swing() {
    let mut world = World::new();
    let (cheap, dear) = (world.kind("cheap"), world.kind("dear"));
    let mut ends: Vec<Instant> = Vec::new();
    let (mut shed, mut turned_away) = ([0; 2], 0);
    let (mut busy, mut felt) = (0.0, Vec::new());
    for n in 0..120_000_u32 {
        world.pass_time(0.001);
        let now = world.now;
        ends.retain(|end| *end > now);
        // 10 connections' worth of cheap work, 20 of dear.
        for (place, kind, millis, rate) in [(0, cheap, 20, 0.5), (1, dear, 400, 0.05)] {
            if world.dice.unit() >= rate {
                continue;
            }
            if world.ask(kind, millis) != Verdict::Admit {
                shed[place] += 1;
            } else if ends.len() == 20 {
                turned_away += 1;
            } else {
                ends.push(now + Duration::from_millis(millis));
            }
        }
        let leased = u32::try_from(ends.len()).unwrap();
        world.shedding.observe(leased, 20, now);
        if n >= 20_000 {
            busy += f64::from(leased) / 20.0 / 100_000.0;
            felt.push(world.shedding.utilisation(now));
        }
    }
    assert_eq!(shed[0], 0);
    assert!((0.82..0.97).contains(&busy), "it stays busy: {busy}");
    assert!((1_500..4_000).contains(&shed[1]), "{} of 6,000 dear ones shed", shed[1]);
    let arrived = 66_000.0;
    assert!(f64::from(turned_away) / arrived < 0.10, "{turned_away} found no seat");
    let (low, high) = felt.iter().fold((1.0_f64, 0.0_f64), |(l, h), u| (l.min(*u), h.max(*u)));
    assert!(low > 0.6 && high <= 1.0, "utilisation between {low} and {high}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn utilisation_is_the_exact_average_however_often_it_is_told(
        steps in prop::collection::vec((0..3_000_u32, 0..=20_u32), 1..60),
    ) {
        let mut world = World::new();
        // The average in steps of a millisecond, by the definition.
        let (mut exact, mut present) = (0.0_f64, 0.0_f64);
        let decay = (-0.001_f64).exp();
        for (millis, leased) in steps {
            for _ in 0..millis {
                exact = present + (exact - present) * decay;
            }
            world.now += Duration::from_millis(u64::from(millis));
            present = f64::from(leased) / 20.0;
            world.shedding.observe(leased, 20, world.now);
            prop_assert!((world.shedding.utilisation(world.now) - exact).abs() < 1e-6);
        }
    }

    #[test]
    fn ranks_are_the_faded_shares(
        steps in prop::collection::vec((0..120_000_u64, 1..100_000_u32), 1..100),
    ) {
        let mut ranks = Ranks::new();
        let mut told = Vec::new();
        let mut at = 0;
        for (gap, cost) in steps {
            at += gap;
            ranks.fade(Duration::from_millis(gap));
            ranks.add(bucket(cost), f64::from(cost));
            told.push((Duration::from_millis(at).as_secs_f64(), cost));
        }
        let end = Duration::from_millis(at).as_secs_f64();
        let share = |which: &dyn Fn(u32) -> bool| -> f64 {
            told.iter()
                .filter(|(_, cost)| which(*cost))
                .map(|(then, cost)| f64::from(*cost) * ((then - end) / 60.0).exp())
                .sum()
        };
        for edge in 0..BUCKETS {
            let exact = share(&|cost| bucket(cost) < edge) / share(&|_| true);
            prop_assert!((ranks.below(edge) - exact).abs() < 1e-6);
        }
    }

    /// Whatever was asked for and however busy it is: no kind comes in more than a cheaper one.
    #[test]
    fn the_cheapest_is_kept(
        asked in prop::collection::vec(1..100_000_u64, 1..60), leased in 0..=1_000_u32,
    ) {
        let mut world = World::new();
        let kind = world.kind("any");
        world.settle(leased);
        for millis in asked {
            world.pass_time(0.05);
            world.ask(kind, millis);
            let parts: Vec<_> = (0..BUCKETS).map(|n| world.shedding.admitted_part(n)).collect();
            prop_assert!(parts.windows(2).all(|pair| pair[0] >= pair[1] - 1e-6), "{parts:?}");
        }
    }

    /// Whatever utilisation does within the play, θ stays as it is; pressure too.
    #[test]
    fn inside_the_hysteresis_nothing_oscillates(
        top in 830..=1_000_u32, steps in prop::collection::vec(0..30_u32, 1..50),
    ) {
        let mut world = World::new();
        world.settle(top);
        let felt = world.shedding.felt;
        let pressure = world.shedding.pressure(world.now);
        for below in steps {
            world.settle(top - below);
            prop_assert!((world.shedding.felt - felt).abs() < 1e-9);
            prop_assert!((world.shedding.pressure(world.now) - pressure).abs() < 1e-9);
        }
        world.settle(top - 100);
        prop_assert!(world.shedding.felt < felt);
    }
}
