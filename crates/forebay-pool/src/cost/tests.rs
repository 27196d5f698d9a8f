use forebay_seam::random::Dice;
use forebay_seam::time;
use proptest::prelude::*;

use super::*;

const READ: ClassId = ClassId(0);
const WRITE: ClassId = ClassId(1);

struct World {
    costs: Costs,
    features: Features,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = time::now();
        Self { costs: Costs::new(2, now), features: Features::new(now), now }
    }

    fn find(&mut self, class: ClassId, name: &str) -> CostId {
        let operation = Operation::new("answer", name);
        self.costs.find(class, &operation, &mut self.features, self.now)
    }

    fn learn(&mut self, class: ClassId, name: &str, millis: u64) {
        let id = self.find(class, name);
        self.costs.learn(id, Duration::from_millis(millis), self.now);
    }

    fn mean(&mut self, class: ClassId, name: &str) -> Option<f64> {
        let id = self.find(class, name);
        self.costs.mean(id, None).map(|mean| mean.as_secs_f64() * 1e3)
    }
}

#[test]
fn nothing_is_estimated_before_the_class_returned_anything() {
    let mut world = World::new();
    assert_eq!(world.mean(READ, "a"), None);
    world.learn(WRITE, "a", 10);
    assert_eq!(world.mean(READ, "a"), None, "classes learn apart");
    assert!(world.mean(WRITE, "b").is_some());
}

#[test]
fn the_unknown_costs_what_the_dearer_part_of_its_class_costs() {
    let mut world = World::new();
    for n in 0..300 {
        world.learn(READ, &format!("known {}", n % 3), [10, 20, 400][n % 3]);
    }
    let unknown = world.mean(READ, "unknown").unwrap();
    assert!((267.0..=600.0).contains(&unknown), "400 ms to half an octave: {unknown} ms");
    let cheap = world.mean(READ, "known 0").unwrap();
    assert!(cheap < 100.0, "own experience outweighs the class's: {cheap} ms");
}

#[test]
fn twenty_values_of_its_own_weigh_as_much_as_the_class() {
    let mut world = World::new();
    (0..100_000).for_each(|_| world.learn(READ, "usual", 100));
    let prior = world.mean(READ, "unknown").unwrap();
    (0..20).for_each(|_| world.learn(READ, "rare", 10));
    let rare = world.mean(READ, "rare").unwrap();
    assert!((rare - f64::midpoint(prior, 10.0)).abs() < 2.0, "{rare} ms");
}

#[test]
fn a_declared_cost_pins_the_estimate() {
    let mut world = World::new();
    (0..100).for_each(|_| world.learn(READ, "a", 10));
    let id = world.find(READ, "a");
    let second = Duration::from_secs(1);
    let (mean, p95) = (world.costs.mean(id, Some(second)), world.costs.p95(id, Some(second)));
    assert_eq!([mean, p95], [Some(second); 2]);
}

#[test]
fn unnamed_work_costs_what_its_class_costs_on_average() {
    let mut world = World::new();
    let id = CostId::unnamed(READ);
    for millis in [10, 20, 30] {
        world.costs.learn(id, Duration::from_millis(millis), world.now);
    }
    assert_eq!(world.costs.mean(id, None), Some(Duration::from_millis(20)));
    assert_eq!(id.feature(), FeatureId::UNTAGGED);
}

#[test]
fn a_flood_of_names_is_bounded_and_drives_out_none_that_are_used() {
    let mut world = World::new();
    let used: Vec<_> = (0..500).map(|n| format!("used {n}")).collect();
    for name in &used {
        world.learn(READ, name, 1);
        world.find(READ, name);
    }
    let kept: Vec<_> = used.iter().map(|name| world.find(READ, name)).collect();
    for n in 0..20_000 {
        world.find(WRITE, &format!("once {n}"));
        // Every now and then somebody asks for what is used.
        world.find(READ, &used[n % used.len()]);
    }
    assert_eq!(world.costs.entries.len(), ENTRIES);
    assert_eq!(world.costs.slots.iter().map(HashMap::len).sum::<usize>(), ENTRIES);
    let again: Vec<_> = used.iter().map(|name| world.find(READ, name)).collect();
    assert_eq!(kept, again);
}

#[test]
fn a_return_to_a_forgotten_operation_teaches_only_its_class() {
    let mut world = World::new();
    let old = world.find(READ, "old");
    (0..ENTRIES * 2).for_each(|n| {
        world.find(READ, &format!("once {n}"));
    });
    let heir = world.costs.entries[usize::from(old.entry.unwrap().slot)].took.is_empty();
    assert!(heir && world.costs.entry(old).is_none());
    world.costs.learn(old, Duration::from_millis(7), world.now);
    assert!(world.costs.entries.iter().all(|entry| entry.took.is_empty()));
    assert!(world.costs.mean(old, None).is_some());
}

#[test]
fn the_clock_of_entries_goes_round_even_if_all_are_asked_for() {
    let mut world = World::new();
    for _ in 0..2 {
        (0..ENTRIES).for_each(|n| {
            world.find(READ, &format!("{n}"));
        });
    }
    assert!(world.costs.asked.iter().all(|word| *word == u64::MAX));
    for n in 0..3 * ENTRIES {
        world.find(READ, &format!("new {n}"));
        world.find(READ, &format!("new {n}"));
    }
    assert_eq!(world.costs.entries.len(), ENTRIES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// I14: what is charged by estimates and what was used differ less and less.
    #[test]
    fn charges_converge_to_what_was_used(
        seed in 0..u64::MAX, kinds in 1..6_usize, cheapest in 1_000.0..50_000.0_f64,
    ) {
        let mut world = World::new();
        let mut dice = Dice::new(seed);
        let names: Vec<_> = (0..kinds).map(|n| format!("kind {n}")).collect();
        let (mut charged, mut used) = (0.0, 0.0);
        for n in 0..20_000 {
            if n == 5_000 {
                (charged, used) = (0.0, 0.0);
            }
            world.now += Duration::from_millis(5);
            let kind = n % kinds;
            let id = world.find(READ, &names[kind]);
            // Exponential around 1, 2, 4 … times the cheapest.
            let mean = cheapest * f64::from(1_u32 << kind);
            let held = as_time(-mean * (1.0 - dice.unit()).ln());
            if let Some(mean) = world.costs.mean(id, None) {
                charged += mean.as_secs_f64();
                used += held.as_secs_f64();
            }
            world.costs.learn(id, held, world.now);
        }
        let error = (charged - used).abs() / used;
        prop_assert!(error < 0.05, "charged {charged}, used {used}");
    }
}

#[test]
fn one_operation_is_told_apart_by_table_and_class_wherever_it_was_found_last() {
    let (mut here, mut there) = (World::new(), World::new());
    here.find(READ, "another");
    let operation = Operation::new("answer", "a");
    let find = |world: &mut World, class| {
        world.costs.find(class, &operation, &mut world.features, world.now)
    };
    let read = find(&mut here, READ);
    let others = (find(&mut here, WRITE), find(&mut there, READ));
    for _ in 0..2 {
        assert_eq!(find(&mut here, READ), read);
        assert_eq!(find(&mut here, READ), read);
        assert_eq!((find(&mut here, WRITE), find(&mut there, READ)), others);
    }
    assert_eq!(here.find(READ, "a"), read, "nor does it matter who names it");
    for n in 0..3 * ENTRIES {
        here.find(READ, &n.to_string());
    }
    assert_eq!(here.costs.operation(read), None, "its place was given to another");
    let again = find(&mut here, READ);
    assert_eq!(here.costs.operation(again), Some(&operation));
}
