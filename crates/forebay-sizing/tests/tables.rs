//! The tables of docs/simulations.md are what the engine of today does, and prove what the
//! document says they prove.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::ops::Range;
use std::time::Duration;

use forebay_sizing::simulate::Figures;
use forebay_sizing::tables::{self, ALL, COMMAND, Table};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulations.md");

/// The block `name` of the document shows just this.
#[track_caller]
fn is_current(name: &str, table: &Table) {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let block = tables::block(&document, name).unwrap();
    assert!(
        block == table.to_string(),
        "docs/simulations.md is out of date; write it anew with\n{COMMAND}\nIt says\n{block}\nand \
         now it is\n{table}"
    );
}

#[test]
fn every_table_has_its_place_and_every_place_its_table() {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let places = document.matches("<!-- table: ").count();
    assert_eq!(places, ALL.len());
    for (name, _) in ALL {
        tables::block(&document, name).unwrap();
    }
}

#[test]
fn started_requests_first_stays_at_capacity_where_a_bounded_queue_of_queries_collapses() {
    let unit = tables::unit::play();
    for row in &unit.rows {
        let [endless, bounded, started, enforced] = row.done();
        let possible = row.load.min(1.0) * tables::unit::CAPACITY;
        assert!(started >= 0.95 * possible, "load {}: {started} of {possible}", row.load);
        assert!(enforced >= 0.95 * possible, "load {}: {enforced} of {possible}", row.load);
        if row.load > 1.0 {
            assert!(bounded <= 0.2 * possible, "load {}: {bounded} of {possible}", row.load);
            let wasted = row.figures.each_ref().map(|f| f.streams[0].wasted_part());
            assert!(wasted[1] >= 0.8, "load {}: {wasted:?}", row.load);
            assert!(wasted[2] <= 0.02 && wasted[3] <= 0.02, "load {}: {wasted:?}", row.load);
        }
        if row.load >= 2.0 {
            assert!(endless <= 0.2 * possible, "load {}: {endless} of {possible}", row.load);
        }
    }
    is_current("unit of admission", &unit.table());
}

#[test]
fn core_beside_agents_at_three_times_their_capacity_is_within_a_fifth_of_core_alone() {
    use tables::borrowing::{Policy, core_p99};

    let borrowing = tables::borrowing::play();
    let most = core_p99(&borrowing.alone).mul_f64(1.2);
    for row in &borrowing.rows {
        let core = &row.figures.streams[0];
        let within = row.core_p99() <= most;
        match row.policy {
            Policy::Shared => assert!(!within && core.refused_part() > 0.3, "{row:?}"),
            Policy::Guarantee(seats) => {
                assert_eq!(within, seats >= 12, "guarantee {seats}: {:?}", row.core_p99());
                assert_eq!(core.refusals(), 0, "guarantee {seats}");
            }
            Policy::Defaults | Policy::Enforced => {
                assert!(within, "{:?}: {:?} of {most:?}", row.policy, row.core_p99());
                assert_eq!(core.refusals(), 0, "{:?}", row.policy);
            }
        }
    }
    is_current("borrowing", &borrowing.table());
}

#[test]
fn retries_without_a_budget_outlive_their_cause_and_with_one_they_cost_a_tenth() {
    use tables::retries::{AFTER, Policy, SLOW};

    let retries = tables::retries::play();
    for row in &retries.rows {
        match row.policy {
            Policy::NoRetries => assert!(row.done(AFTER) > 0.95),
            Policy::NoBudget => {
                assert!(row.amplification(SLOW) > 2.5 && row.amplification(AFTER) > 2.0);
                assert!(row.done(AFTER) < 0.8);
            }
            Policy::Budget => {
                assert!(row.done(AFTER) > 0.95);
                // A tenth of what first tries cost, and ten that are free.
                for begin in 20..AFTER.end - 10 {
                    let tries = row.amplification(begin..begin + 10);
                    assert!(tries <= 1.12, "{tries} from second {begin}");
                }
            }
        }
    }
    is_current("retries", &retries.table());
}

#[test]
fn ten_times_the_load_is_absorbed_without_a_refusal() {
    let burst = tables::burst::play();
    let figures = &burst.figures;
    let ai = &figures.streams[0];
    assert_eq!((ai.refusals(), ai.granted), (0, ai.asked));
    let open = |at: Duration| {
        let slice = at.as_nanos() / tables::burst::SLICE.as_nanos();
        figures.timeline[usize::try_from(slice).unwrap()].open
    };
    let Range { start, end } = tables::burst::BURST;
    assert_eq!(open(start - Duration::from_secs(1)), 5, "a quarter is kept warm");
    assert!(open(end) > 10, "the burst opened more");
    assert_eq!(open(end + Duration::from_secs(55)), 5, "and they were closed again");
    assert_paced(figures, tables::burst::IN_A_BURST, tables::burst::A_SECOND);
    is_current("burst", &burst.table());
}

#[test]
fn after_an_outage_there_is_no_herd() {
    use tables::outage::{A_SECOND, AWAY, IN_A_BURST, Outage};

    let outage = tables::outage::play();
    assert_paced(&outage.paced, IN_A_BURST, A_SECOND);
    assert!(Outage::recovery(&outage.paced).is_some_and(|seconds| seconds <= 15));
    let away = Duration::from_secs(u64::try_from(AWAY.start).unwrap());
    let back = Duration::from_secs(u64::try_from(AWAY.end).unwrap());
    let asked = outage.paced.connects.iter().filter(|at| (away..back).contains(at)).count();
    assert!(asked < 200, "while it is away it is asked about five times a second: {asked}");
    let (paced, herd) = (&outage.paced, &outage.herd);
    let most = |figures| Outage::most_connects(figures, AWAY.end);
    assert!(most(paced) < most(herd), "{} {}", most(paced), most(herd));
    is_current("outage", &outage.table());
}

/// In no interval are more connects begun than the pace allows: rate · t + K.
#[track_caller]
fn assert_paced(figures: &Figures, in_a_burst: u32, a_second: u32) {
    for (number, from) in figures.connects.iter().enumerate() {
        for (more, to) in figures.connects[number..].iter().enumerate() {
            let allowed =
                f64::from(a_second) * (*to - *from).as_secs_f64() + f64::from(in_a_burst) + 1e-6;
            let begun = f64::from(u32::try_from(more + 1).unwrap());
            assert!(begun <= allowed, "{begun} connects from {from:?} to {to:?}");
        }
    }
}
