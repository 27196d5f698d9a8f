use forebay_seam::time;

use super::*;
use crate::forecast::Because;
use crate::settings::Budget;
use crate::timetable::WindowSettings;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> PoolSettings {
    PoolSettings { forecast: Mode::Off, ..PoolSettings::new("t", Budget::Fixed(40)) }
}

/// 80 connections from eight to six, of every day.
fn office() -> Timetable {
    let window = WindowSettings {
        from: "0 8 * * *".to_owned(),
        length: Duration::from_secs(36_000),
        time_zone: "Europe/Berlin".to_owned(),
        budget: 80,
    };
    Timetable::new(&[window]).unwrap()
}

fn seen(demand: u32) -> Seen {
    Seen { demand, configured: 40, warm: 10 }
}

/// A Monday in winter, by the clocks in Berlin.
fn berlin(hour: u8, minute: u8, second: u8) -> SystemTime {
    let text = format!("2026-11-23T{hour:02}:{minute:02}:{second:02}[Europe/Berlin]");
    text.parse::<jiff::Zoned>().unwrap().into()
}

#[test]
fn without_a_wish_the_configuration_counts() {
    let now = time::now();
    let mut wishes = Wishes::new(&settings(), now);
    assert!(wishes.look(seen(0), berlin(9, 0, 0), now).is_empty());
    assert_eq!(wishes.budget(40), None);
}

#[test]
fn the_timetable_counts_from_as_long_before_as_opening_takes() {
    let now = time::now();
    let mut wishes = Wishes::new(&PoolSettings { timetable: office(), ..settings() }, now);
    assert!(wishes.look(seen(0), berlin(7, 59, 57), now).is_empty());
    assert_eq!(wishes.budget(40), None);
    // Eighty connections at forty a second.
    let news = wishes.look(seen(0), berlin(7, 59, 58), now + SECOND);
    assert_eq!(news.as_slice(), [Event::Window { budget: Some(80) }]);
    assert_eq!(wishes.budget(40), Some(80));
    assert!(wishes.look(seen(0), berlin(17, 59, 59), now + 2 * SECOND).is_empty());
    let news = wishes.look(seen(0), berlin(18, 0, 0), now + 3 * SECOND);
    assert_eq!(news.as_slice(), [Event::Window { budget: None }]);
    assert_eq!(wishes.budget(40), None);
}

#[test]
fn a_wall_clock_that_is_set_back_is_followed() {
    let now = time::now();
    let mut wishes = Wishes::new(&PoolSettings { timetable: office(), ..settings() }, now);
    wishes.look(seen(0), berlin(8, 0, 0), now);
    assert_eq!(wishes.budget(40), Some(80));
    wishes.look(seen(0), berlin(7, 0, 0), now + SECOND);
    assert_eq!(wishes.budget(40), None);
}

#[test]
fn what_is_set_by_hand_counts_until_it_is_taken_back() {
    let now = time::now();
    let mut wishes = Wishes::new(&PoolSettings { timetable: office(), ..settings() }, now);
    wishes.look(seen(0), berlin(8, 0, 0), now);
    wishes.set_by_hand(Some(20));
    assert_eq!(wishes.budget(40), Some(20));
    wishes.set_by_hand(Some(0));
    assert_eq!(wishes.budget(40), Some(1), "a pool without connections is none");
    wishes.set_by_hand(None);
    assert_eq!(wishes.budget(40), Some(80));
}

/// Looks each second for so long.
fn watch(wishes: &mut Wishes, demand: u32, wall: SystemTime, now: Instant, time: Duration) {
    for second in 0..=time.as_secs() {
        let passed = Duration::from_secs(second);
        wishes.look(seen(demand), wall + passed, now + passed);
    }
}

#[test]
fn a_forecast_is_only_shown_until_it_may_act() {
    let now = time::now();
    for (mode, expected) in [(Mode::Observe, None), (Mode::Enforce, Some(24)), (Mode::Off, None)] {
        let mut wishes = Wishes::new(&PoolSettings { forecast: mode, ..settings() }, now);
        watch(&mut wishes, 20, berlin(9, 0, 0), now, 1_200 * SECOND);
        assert_eq!(wishes.budget(40), expected, "{mode:?}");
        let advice = wishes.snapshot(40).advice;
        let shown = (mode != Mode::Off).then_some(Advice { budget: 24, because: Because::Trend });
        assert_eq!(advice, shown, "{mode:?}");
    }
}

#[test]
fn a_forecast_stays_between_what_is_warm_and_what_is_configured() {
    let now = time::now();
    for (demand, expected) in [(1, 10), (100, 40)] {
        let enforced = PoolSettings { forecast: Mode::Enforce, ..settings() };
        let mut wishes = Wishes::new(&enforced, now);
        watch(&mut wishes, demand, berlin(9, 0, 0), now, 1_200 * SECOND);
        assert_eq!(wishes.budget(40), Some(expected));
    }
}

#[test]
fn demand_never_takes_away_what_the_timetable_gives() {
    let now = time::now();
    let enforced = PoolSettings { timetable: office(), forecast: Mode::Enforce, ..settings() };
    let mut wishes = Wishes::new(&enforced, now);
    watch(&mut wishes, 1, berlin(9, 0, 0), now, 1_200 * SECOND);
    assert_eq!(wishes.budget(40), Some(80));
    let mut wishes = Wishes::new(&enforced, now);
    watch(&mut wishes, 50, berlin(4, 0, 0), now, 1_200 * SECOND);
    assert_eq!(wishes.budget(40), Some(60), "as much as the largest window");
}

#[test]
fn evidence_counts_only_where_it_may_act_and_never_over_a_hand() {
    let now = time::now();
    for (mode, expected) in [(Mode::Off, None), (Mode::Observe, None), (Mode::Enforce, Some(36))] {
        let mut wishes = Wishes::new(&PoolSettings { evidence: mode, ..settings() }, now);
        wishes.was_busy();
        let news = wishes.look(seen(0), berlin(9, 0, 0), now);
        assert_eq!(wishes.budget(40), expected, "{mode:?}");
        assert_eq!(news.is_empty(), mode == Mode::Off);
        wishes.set_by_hand(Some(50));
        assert_eq!(wishes.budget(40), Some(50));
    }
}

#[test]
fn an_advice_is_told_when_it_moves_by_a_tenth() {
    let now = time::now();
    let mut wishes = Wishes::new(&PoolSettings { forecast: Mode::Observe, ..settings() }, now);
    let advice = |budget| Advice { budget, because: Because::Trend };
    assert_eq!(wishes.tell(advice(100)), Some(Event::Advised { advice: advice(100) }));
    assert_eq!(wishes.tell(advice(109)), None);
    assert_eq!(wishes.tell(advice(91)), None);
    assert_eq!(wishes.tell(advice(110)), Some(Event::Advised { advice: advice(110) }));
}
