use forebay_seam::time;

use super::*;

struct World {
    features: Features,
    id: FeatureId,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = time::now();
        let mut features = Features::new(now);
        let id = features.find(&"answer".into(), now);
        Self { features, id, now }
    }

    fn request(&mut self, leases: u32) -> Option<FanOutJump> {
        self.now += Duration::from_secs(1);
        let figures = RequestFigures {
            leases,
            used: Duration::from_millis(20) * leases,
            residence: Duration::from_secs(2),
            peak: leases.min(4),
            nested: 1,
        };
        self.features.request_over(self.id, &figures, self.now)
    }

    fn requests(&mut self, count: usize, leases: u32) -> Vec<FanOutJump> {
        (0..count).filter_map(|_| self.request(leases)).collect()
    }
}

#[test]
fn what_a_request_takes_is_learnt_when_it_is_over() {
    let mut world = World::new();
    assert_eq!(world.features.expected(world.id), None);
    world.requests(40, 5);
    let expected = world.features.expected(world.id).unwrap();
    assert_eq!(expected.used, Duration::from_millis(100));
    assert_eq!(expected.residence, Duration::from_secs(2));
    assert!((expected.leases - 5.0).abs() < 1e-9 && (expected.peak - 4.0).abs() < 1e-9);
    assert_eq!(expected.nested, 1);
}

#[test]
fn the_highest_nested_need_counts_even_if_it_is_rare() {
    let mut world = World::new();
    for n in 0..100 {
        let figures = RequestFigures {
            leases: 3,
            used: Duration::from_millis(1),
            residence: Duration::from_millis(1),
            peak: 1,
            nested: if n == 20 { 3 } else { 1 },
        };
        world.features.request_over(world.id, &figures, world.now);
    }
    assert_eq!(world.features.expected(world.id).unwrap().nested, 3);
}

#[test]
fn a_jump_of_the_fan_out_is_told_once() {
    let mut world = World::new();
    assert_eq!(world.requests(200, 5), []);
    let jumps = world.requests(200, 40);
    let [jump] = &jumps[..] else { panic!("told {} times", jumps.len()) };
    assert_eq!(&*jump.feature, "answer");
    assert!((jump.before - 5.0).abs() < 0.1 && jump.now > 10.0, "{jump:?}");
    assert_eq!(world.features.snapshot()[0].fan_out_jumps, 1);
}

#[test]
fn a_second_jump_is_told_once_the_first_has_become_usual_or_is_over() {
    let mut world = World::new();
    world.requests(200, 5);
    assert_eq!(world.requests(20, 40).len(), 1);
    assert_eq!(world.requests(300, 5), [], "back to what it was");
    assert_eq!(world.requests(500, 40).len(), 1, "and up again, until that is usual");
    assert_eq!(world.requests(100, 200).len(), 1);
}

#[test]
fn one_outlier_is_no_jump() {
    let mut world = World::new();
    world.requests(200, 5);
    for _ in 0..20 {
        assert_eq!(world.request(500), None);
        assert_eq!(world.requests(30, 5), []);
    }
}

#[test]
fn a_steady_spread_of_fan_outs_is_no_jump() {
    let mut world = World::new();
    for n in 0..5_000 {
        assert_eq!(world.request([1, 1, 2, 3, 5, 8, 30][n * n % 7]), None);
    }
}

#[test]
fn an_unknown_feature_is_not_compared_with_nothing() {
    let mut world = World::new();
    assert_eq!(world.requests(4, 1), []);
    assert_eq!(world.requests(8, 100), [], "four requests are no past");
}

#[test]
fn features_beyond_the_bound_share_other() {
    let now = time::now();
    let mut features = Features::new(now);
    let ids: Vec<_> = (0..3_000).map(|n| features.find(&format!("{n}").into(), now)).collect();
    assert_eq!(ids.iter().filter(|id| **id != FeatureId::OTHER).count(), NAMED);
    assert_eq!(features.find(&"7".into(), now), ids[7]);
    assert_eq!(features.find(&"other".into(), now), FeatureId::OTHER);
    assert_eq!(features.find(&"".into(), now), FeatureId::UNTAGGED);
    assert_eq!(&*features.features[ids[7].index()].name, "7");
}

#[test]
fn times_are_counted_in_the_buckets_that_metrics_show() {
    let mut world = World::new();
    let (id, millis) = (world.id, Duration::from_millis);
    for (waited, held) in [(0, 1), (1, 2_000), (3_000, 90_000)] {
        world.features.lent(id, millis(waited));
        world.features.returned(id, millis(held));
    }
    let snapshot = world.features.snapshot();
    let [answer] = &snapshot[..] else { panic!("features without leases are not shown") };
    assert_eq!((answer.checkouts, answer.wait.count, answer.hold.count), (3, 3, 3));
    assert_eq!(answer.wait.buckets[2], (0.001, 2));
    assert_eq!(answer.wait.buckets[12], (10.0, 3));
    assert_eq!(answer.hold.buckets[12], (60.0, 2), "above the last bound only the count knows");
    assert!((answer.hold.sum - 92.001).abs() < 1e-9);
}
