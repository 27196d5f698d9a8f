use forebay_seam::time;

use super::*;

const ANY: RangeInclusive<u32> = 0..=u32::MAX;

/// Looks each 10 s for `hours`, from the beginning of hour `first` on.
fn watch(
    forecast: &mut Forecast,
    now: &mut Instant,
    first: u32,
    hours: u32,
    demand: impl Fn(u32, u32) -> f64,
) {
    for hour in first..first + hours {
        for second in (0..3600).step_by(10) {
            forecast.observe(demand(hour, second), of_week(hour), *now);
            *now += Duration::from_secs(10);
        }
    }
}

fn of_week(hour: u32) -> HourOfWeek {
    HourOfWeek::new(u8::try_from(hour / 24 % 7).unwrap(), u8::try_from(hour % 24).unwrap())
}

/// 10 at night, 60 from 8 to 18 on five days of the week.
fn office(hour: u32, _: u32) -> f64 {
    let (day, hour) = (hour / 24 % 7, hour % 24);
    if day < 5 && (8..18).contains(&hour) { 60.0 } else { 10.0 }
}

#[test]
fn nothing_is_said_before_a_quarter_of_an_hour() {
    let (mut forecast, now) = (Forecast::default(), time::now());
    for second in 0..900 {
        forecast.observe(5.0, of_week(0), now + Duration::from_secs(second));
        assert_eq!(forecast.advice(of_week(0), &ANY), None);
    }
    forecast.observe(5.0, of_week(0), now + Duration::from_secs(900));
    let advice = forecast.advice(of_week(0), &ANY).unwrap();
    assert_eq!(advice, Advice { budget: 6, because: Because::Trend });
}

#[test]
fn steady_demand_gets_a_fifth_more() {
    let (mut forecast, mut now) = (Forecast::default(), time::now());
    watch(&mut forecast, &mut now, 0, 2, |_, _| 50.0);
    assert_eq!(forecast.advice(of_week(100), &ANY).unwrap().budget, 60);
}

#[test]
fn demand_is_averaged_over_time_and_not_over_looks() {
    let (mut forecast, start) = (Forecast::default(), time::now());
    // 90 for a tenth of the time, seen a hundred times as often as the rest.
    for bucket in 0..4 {
        let from = start + bucket * BUCKET;
        for step in 0..300_u32 {
            forecast.observe(90.0, of_week(0), from + Duration::from_millis(100) * step);
        }
        forecast.observe(0.0, of_week(0), from + BUCKET / 10);
    }
    forecast.observe(0.0, of_week(0), start + 4 * BUCKET);
    assert_eq!(forecast.advice(of_week(0), &ANY).unwrap().budget, 11, "9 erlangs and a fifth");
}

#[test]
fn a_rising_demand_is_met_ahead() {
    let (mut forecast, mut now) = (Forecast::default(), time::now());
    let rise = |_: u32, second: u32| f64::from(second) / 60.0;
    watch(&mut forecast, &mut now, 0, 1, rise);
    let advice = forecast.advice(of_week(0), &ANY).unwrap();
    assert_eq!(advice.because, Because::Trend);
    // At the hour's end demand is 60, five minutes later it will be 65.
    assert!((66..85).contains(&advice.budget), "{advice:?}");
}

#[test]
fn the_same_hour_of_the_week_before_is_foreseen() {
    let (mut forecast, mut now) = (Forecast::default(), time::now());
    // A week, and the night to Monday.
    watch(&mut forecast, &mut now, 0, 7 * 24 + 7, office);
    let night = forecast.advice(of_week(3), &ANY).unwrap();
    assert_eq!(night.budget, 12);
    let morning = forecast.advice(of_week(8), &ANY).unwrap();
    assert_eq!(morning, Advice { budget: 72, because: Because::SameHour });
    let saturday = forecast.advice(of_week(5 * 24 + 8), &ANY).unwrap();
    assert_eq!(saturday.budget, 12, "no work at the weekend");
}

#[test]
fn a_peak_is_forgotten_after_four_weeks() {
    let (mut forecast, mut now) = (Forecast::default(), time::now());
    let week = 7 * 24;
    let peak = |hour: u32, _: u32| if hour == 9 { 100.0 } else { 10.0 };
    watch(&mut forecast, &mut now, 0, 4 * week + 5, peak);
    assert_eq!(forecast.advice(of_week(9), &ANY).unwrap().budget, 120);
    watch(&mut forecast, &mut now, 4 * week + 5, 10, peak);
    assert_eq!(forecast.advice(of_week(9), &ANY).unwrap().budget, 12);
    assert!(forecast.weeks.iter().all(|weeks| weeks.len() <= WEEKS));
    assert!(forecast.this_hour.len() <= 2 * ENOUGH);
}

#[test]
fn five_minutes_that_stand_out_count_and_a_second_does_not() {
    let (mut forecast, mut now) = (Forecast::default(), time::now());
    let spike = |_: u32, second: u32| if second == 1800 { 300.0 } else { 10.0 };
    watch(&mut forecast, &mut now, 0, 2, spike);
    // 10 s of 300 are 10 more in the average of five minutes.
    let advice = forecast.advice(of_week(0), &ANY).unwrap();
    assert_eq!(advice.budget, 24);
}

#[test]
fn an_advice_stays_within_its_bounds() {
    let (mut forecast, mut now) = (Forecast::default(), time::now());
    watch(&mut forecast, &mut now, 0, 2, |_, _| 50.0);
    assert_eq!(forecast.advice(of_week(0), &(0..=40)).unwrap().budget, 40);
    assert_eq!(forecast.advice(of_week(0), &(70..=80)).unwrap().budget, 70);
    // Whatever the bounds are, they make no panic.
    #[expect(clippy::reversed_empty_ranges, reason = "that is the case")]
    let reversed = 70..=10;
    assert_eq!(forecast.advice(of_week(0), &reversed).unwrap().budget, 10);
}

#[test]
fn hours_in_which_nobody_looked_are_not_made_up() {
    let (mut forecast, mut now) = (Forecast::default(), time::now());
    watch(&mut forecast, &mut now, 0, 1, |_, _| 50.0);
    now += Duration::from_secs(36_000);
    forecast.observe(50.0, of_week(11), now);
    assert_eq!(forecast.advice(of_week(11), &ANY), None, "a trend of ten hours ago is none");
    assert!(forecast.weeks[5].is_empty());
}
