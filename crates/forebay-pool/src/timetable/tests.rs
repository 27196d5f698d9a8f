use super::*;
use crate::class::Share;

fn window(from: &str, hours: u64, time_zone: &str, budget: u32) -> WindowSettings {
    WindowSettings {
        from: from.to_owned(),
        length: Duration::from_secs(hours * 3600),
        time_zone: time_zone.to_owned(),
        budget,
    }
}

fn timetable(windows: &[WindowSettings]) -> Timetable {
    Timetable::new(windows).unwrap()
}

fn at(timetable: &Timetable, moment: &str) -> Entry {
    timetable.at(moment.parse().unwrap(), |_| Duration::ZERO)
}

fn moment(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

/// All changes between two moments: when, and to what.
fn changes(timetable: &Timetable, from: &str, to: &str) -> Vec<(String, Option<u32>)> {
    let (mut now, to): (Timestamp, Timestamp) = (from.parse().unwrap(), to.parse().unwrap());
    let mut seen = Vec::new();
    while let Some(next) = timetable.at(now, |_| Duration::ZERO).until
        && next < to
    {
        assert!(next > now, "time goes on");
        now = next;
        seen.push((now.to_string(), timetable.at(now, |_| Duration::ZERO).budget));
    }
    seen
}

fn begins(timetable: &Timetable, from: &str, to: &str) -> Vec<String> {
    let all = changes(timetable, from, to).into_iter();
    all.filter(|(_, budget)| budget.is_some()).map(|(at, _)| at).collect()
}

#[test]
fn a_window_holds_from_its_beginning_to_its_end_in_its_time_zone() {
    let office = timetable(&[window("0 8 * * MON-FRI", 10, "Europe/Berlin", 80)]);
    // A Friday in winter: 08:00 in Berlin is 07:00 UTC.
    let before = at(&office, "2026-11-20T06:59:59Z");
    assert_eq!((before.budget, before.until), (None, moment("2026-11-20T07:00:00Z")));
    let inside = at(&office, "2026-11-20T07:00:00Z");
    assert_eq!((inside.budget, inside.until), (Some(80), moment("2026-11-20T17:00:00Z")));
    let after = at(&office, "2026-11-20T17:00:00Z");
    assert_eq!((after.budget, after.until), (None, moment("2026-11-23T07:00:00Z")));
}

#[test]
fn of_windows_that_overlap_the_largest_counts() {
    let both = timetable(&[
        window("0 8 * * *", 10, "UTC", 40),
        window("0 12 * * *", 2, "UTC", 90),
        window("0 9 * * *", 1, "UTC", 10),
    ]);
    let seen = changes(&both, "2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z");
    let expected = [
        ("2026-06-01T08:00:00Z", Some(40)),
        ("2026-06-01T12:00:00Z", Some(90)),
        ("2026-06-01T14:00:00Z", Some(40)),
        ("2026-06-01T18:00:00Z", None),
    ];
    assert_eq!(seen, expected.map(|(at, budget)| (at.to_owned(), budget)));
}

#[test]
fn a_window_that_begins_again_before_it_ends_goes_on() {
    let always = timetable(&[window("0 * * * *", 2, "UTC", 7)]);
    let now = at(&always, "2026-06-01T10:30:00Z");
    assert_eq!(now.budget, Some(7));
    assert!(now.until > moment("2026-06-02T00:00:00Z"), "nothing changes for long");
}

#[test]
fn a_window_across_the_jump_forward_keeps_its_length() {
    // In Berlin, 2026-03-29 has no 02:00 to 03:00.
    let night = timetable(&[window("0 22 * * SAT", 10, "Europe/Berlin", 5)]);
    let seen = changes(&night, "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z");
    // 22:00 CET is 21:00 UTC; ten hours later it is 09:00 CEST.
    let expected = [("2026-03-28T21:00:00Z", Some(5)), ("2026-03-29T07:00:00Z", None)];
    assert_eq!(seen, expected.map(|(at, budget)| (at.to_owned(), budget)));
}

#[test]
fn an_hour_that_does_not_exist_begins_where_the_clocks_have_gone_to() {
    let gap = timetable(&[window("30 2 * * *", 1, "Europe/Berlin", 5)]);
    let days = begins(&gap, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
    // 02:30 CET; 03:30 CEST in place of 02:30; 02:30 CEST.
    assert_eq!(days, ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
}

#[test]
fn of_an_hour_that_exists_twice_the_first_counts() {
    let fold = timetable(&[window("30 2 * * *", 1, "Europe/Berlin", 5)]);
    let days = begins(&fold, "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z");
    // 02:30 CEST on both first days, once; 02:30 CET.
    assert_eq!(days, ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    // In the second of the two hours, the first is what began last.
    let second = at(&fold, "2026-10-25T01:10:00Z");
    assert_eq!((second.budget, second.until), (Some(5), moment("2026-10-25T01:30:00Z")));
    let later = at(&fold, "2026-10-25T01:31:00Z");
    assert_eq!((later.budget, later.until), (None, moment("2026-10-26T01:30:00Z")));
}

#[test]
fn every_day_of_a_year_has_one_beginning_in_every_zone() {
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
    {
        let daily = timetable(&[window("15 2 * * *", 1, zone, 5)]);
        let days = begins(&daily, "2026-01-01T12:00:00Z", "2027-01-01T12:00:00Z");
        assert_eq!(days.len(), 365, "{zone}");
    }
}

#[test]
fn a_window_counts_ahead_of_its_beginning() {
    let office = timetable(&[window("0 8 * * *", 1, "UTC", 80)]);
    let ahead = |budget: u32| Duration::from_secs(u64::from(budget) / 40);
    let early: Timestamp = "2026-06-01T07:59:58Z".parse().unwrap();
    let before = office.at(early - SignedDuration::from_secs(1), ahead);
    assert_eq!((before.budget, before.until), (None, Some(early)));
    let entry = office.at(early, ahead);
    assert_eq!((entry.budget, entry.until), (Some(80), moment("2026-06-01T09:00:00Z")));
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (window("0 8 * *", 1, "UTC", 1), "from", "is no cron expression"),
        (window("0 25 * * *", 1, "UTC", 1), "from", "is no cron expression"),
        (window("", 1, "UTC", 1), "from", "is no cron expression"),
        (window("0 0 8 * * *", 1, "UTC", 1), "from", "is no cron expression"),
        (window("0 0 31 2 *", 1, "UTC", 1), "from", "never comes"),
        (window("0 8 * * *", 0, "UTC", 1), "for", "some time"),
        (window("0 8 * * *", 24 * 400, "UTC", 1), "for", "366 days"),
        (window("0 8 * * *", 1, "Mars/Olympus", 1), "time_zone", "`Mars/Olympus` is no time zone"),
        (window("0 8 * * *", 1, "UTC", 0), "budget", "at least one"),
    ];
    for (bad, key, says) in cases {
        let good = window("0 8 * * *", 1, "UTC", 1);
        let error = Timetable::new(&[good, bad.clone()]).unwrap_err();
        assert_eq!((error.window, error.key), (Some(1), key), "{bad:?}");
        assert!(error.reason.contains(says), "{}", error.reason);
    }
    let many = vec![window("0 8 * * *", 1, "UTC", 1); MOST + 1];
    assert_eq!(Timetable::new(&many).unwrap_err().window, None);
}

#[test]
fn promises_must_be_kept_in_each_window() {
    let classes = ClassSettings::defaults();
    let ten_seats = ClassSettings { guarantee: Share::Seats(10), ..classes[0].1.clone() };
    let classes = [(ClassName::new("core"), ten_seats)];
    let wide = window("0 8 * * *", 1, "UTC", 10);
    let narrow = window("0 20 * * *", 1, "UTC", 9);
    assert_eq!(check(std::slice::from_ref(&wide), &classes, 100), Ok(()));
    let error = check(&[wide, narrow], &classes, 100).unwrap_err();
    assert_eq!(error.place(), "timetable[1].budget");
    assert!(error.reason.contains("the budget is 9"), "{error}");
}

#[test]
fn an_empty_timetable_says_nothing() {
    let none = Timetable::default();
    assert!(none.is_empty() && none.largest().is_none());
    assert_eq!(at(&none, "2026-06-01T00:00:00Z"), Entry { budget: None, until: None });
}
