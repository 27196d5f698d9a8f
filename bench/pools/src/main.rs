//! `beside-pools [ROUNDS [MILLISECONDS [PART...]]]`: every pool under every load (or those
//! whose names contain a PART), turn by turn, in an order that rotates from round to round, so that a slow minute of the machine
//! hurts all alike. Ratios are taken within a round; medians of the rounds are printed.

use std::pin::Pin;
use std::time::Duration;

use beside_pools::candidates::{Bb8, Candidate, Deadpool, Full, Harness, Mobc, Plain, Sqlx};
use beside_pools::run::{Case, Seen, Use, measure};

/// What the others are compared with.
const YARDSTICK: &str = Deadpool::NAME;

type Measurement = Pin<Box<dyn Future<Output = Seen>>>;

struct Contender {
    name: &'static str,
    measure: fn(Case, Duration) -> Measurement,
}

fn contender<C: Candidate>() -> Contender {
    Contender { name: C::NAME, measure: |case, duration| Box::pin(measure::<C>(case, duration)) }
}

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    let mut number = |or: u64| match arguments.peek().and_then(|text| text.parse().ok()) {
        Some(number) => {
            arguments.next();
            number
        }
        None => or,
    };
    let (rounds, millis) = (number(5).max(1), number(400));
    let wanted: Vec<_> = arguments.collect();
    let contenders: Vec<_> = [
        contender::<Full>(),
        contender::<Plain>(),
        contender::<Deadpool>(),
        contender::<Bb8>(),
        contender::<Sqlx>(),
        contender::<Mobc>(),
        contender::<Harness>(),
    ]
    .into_iter()
    .collect();
    let contenders = chosen(contenders, &wanted, |contender| contender.name.to_owned());
    let cases = chosen(cases(), &wanted, Case::to_string);
    println!("2 worker threads, {rounds} rounds of {millis} ms for each pool and load, medians");
    println!("deadline 30 s everywhere; forebay: 3 classes, 1 identity, all tasks in `core`;");
    println!("all on: 16 queries for each request, 16 operations, every policy in observe mode\n");
    // By case, by contender, by round.
    let mut seen = vec![vec![Vec::new(); contenders.len()]; cases.len()];
    for round in 0..usize::try_from(rounds).unwrap_or(1) {
        for (case, seen) in cases.iter().zip(&mut seen) {
            for place in 0..contenders.len() {
                let place = (place + round) % contenders.len();
                let contender = &contenders[place];
                seen[place].push(run_once(contender, *case, Duration::from_millis(millis)));
            }
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    for (case, seen) in cases.iter().zip(&seen) {
        print_case(*case, &contenders, seen);
    }
}

/// Those whose name contains a part that is wanted; all, if none of them does.
fn chosen<T>(all: Vec<T>, wanted: &[String], name: impl Fn(&T) -> String) -> Vec<T> {
    let is_wanted = |one: &T| wanted.iter().any(|part| name(one).contains(part.as_str()));
    if all.iter().any(is_wanted) { all.into_iter().filter(is_wanted).collect() } else { all }
}

fn cases() -> Vec<Case> {
    [Use::AtOnce, Use::OverOneYield]
        .into_iter()
        .flat_map(|used| [1, 8, 64, 512].map(|tasks| Case { tasks, size: 8, used }))
        .collect()
}

fn run_once(contender: &Contender, case: Case, duration: Duration) -> Seen {
    // A runtime of its own: what one pool leaves behind is not the next one's load.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    let seen = runtime.block_on((contender.measure)(case, duration));
    runtime.shutdown_background();
    seen
}

fn print_case(case: Case, contenders: &[Contender], seen: &[Vec<Seen>]) {
    println!("{case}");
    println!(
        "  {:<16} {:>7} {:>24} {:>8} {:>11} {:>11} {:>9} {:>8} {:>8}",
        "",
        "CPU ns",
        "of deadpool's (range)",
        "wall ns",
        "p99 wait µs",
        "p99 of 16",
        "max/min",
        "starved",
        "refused"
    );
    let yardstick = contenders.iter().position(|contender| contender.name == YARDSTICK);
    for (contender, runs) in contenders.iter().zip(seen) {
        let middle = |figure: fn(&Seen) -> f64| median(runs.iter().map(figure).collect());
        let ratio = yardstick.map_or_else(String::new, |place| {
            let mut ratios: Vec<_> =
                runs.iter().zip(&seen[place]).map(|(ours, theirs)| ours.cpu / theirs.cpu).collect();
            ratios.sort_by(f64::total_cmp);
            let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
            format!("{:.2} ({low:.2}..{high:.2})", median(ratios))
        });
        println!(
            "  {:<16} {:>7.0} {ratio:>24} {:>8.0} {:>11.1} {:>11.1} {:>9.2} {:>8} {:>8}",
            contender.name,
            middle(|seen| seen.cpu),
            middle(|seen| seen.wall),
            middle(|seen| seen.p99),
            middle(|seen| seen.request_p99),
            middle(|seen| seen.uneven),
            runs.iter().map(|seen| seen.starved).max().unwrap_or(0),
            runs.iter().map(|seen| seen.refused).sum::<u64>(),
        );
    }
    println!();
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
