//! The tables, medians over the rounds, and the goals beside what was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Rounds;
use crate::proxies::Target;
use crate::scenarios::{Figures, at};

type Column = (&'static str, fn(&Figures) -> f64);

const BURST: [Column; 13] = [
    ("p50 ms", |f| f.p50_ms),
    ("p95", |f| f.p95_ms),
    ("p99", |f| f.p99_ms),
    ("1st p99", |f| f.first_p99_ms),
    ("later p50", |f| f.later_p50_ms),
    ("p99", |f| f.later_p99_ms),
    ("errors", |f| f.errors as f64),
    ("conns", |f| f.connections as f64),
    ("tokens", |f| f.exchanges as f64),
    ("mixed", |f| f.mixed_connections as f64),
    ("wrong", |f| f.wrong_tenant as f64),
    ("cpu us", |f| f.proxy_cpu_us_per_call),
    ("RSS MB", |f| f.memory_mb),
];
const STALE: [Column; 6] = [
    ("calls", |f| f.calls as f64),
    ("errors", |f| f.errors as f64),
    ("of GETs", |f| f.errors_retriable as f64),
    ("p50 ms", |f| f.p50_ms),
    ("p99", |f| f.p99_ms),
    ("conns", |f| f.connections as f64),
];
const STREAMS: [Column; 6] = [
    ("1st p50 ms", |f| f.later_p50_ms),
    ("1st p99", |f| f.first_p99_ms),
    ("event p50", |f| f.p50_ms),
    ("event p99", |f| f.p99_ms),
    ("errors", |f| f.errors as f64),
    ("us/event", |f| f.proxy_cpu_us_per_call),
];
const STEADY: [Column; 6] = [
    ("calls/s", |f| f.calls_per_second),
    ("cpu us/call", |f| f.proxy_cpu_us_per_call),
    ("p50 ms", |f| f.p50_ms),
    ("p99", |f| f.p99_ms),
    ("errors", |f| f.errors as f64),
    ("RSS MB", |f| f.memory_mb),
];

/// The table of the scenario `name`.
pub fn of(name: &str, rounds: &Rounds) -> String {
    let columns: &[Column] = match name {
        "burst" | "limit" => &BURST,
        "stale" => &STALE,
        "sse" => &STREAMS,
        _ => &STEADY,
    };
    let mut text = format!("\n{name}\n{:<14}", "");
    for (label, _) in columns {
        write!(text, "{label:>12}").expect("a string takes everything");
    }
    for (target, figures) in rounds {
        write!(text, "\n{:<14}", target.name()).expect("a string takes everything");
        for (_, value) in columns {
            let value = median(figures, *value);
            let shown = if value < 10.0 && value.fract() != 0.0 {
                format!("{value:.2}")
            } else {
                format!("{value:.0}")
            };
            write!(text, "{shown:>12}").expect("a string takes everything");
        }
    }
    for (target, figures) in rounds {
        for sample in figures.iter().flat_map(|figures| &figures.samples).take(2) {
            write!(text, "\n  {} failed: {sample}", target.name())
                .expect("a string takes everything");
        }
    }
    text
}

/// Each goal, and what was measured: medians of ratios within a round.
pub fn goals(seen: &BTreeMap<String, Rounds>) -> String {
    let mut text = String::from("\ngoals\n");
    let mut say = |what: &str, goal: &str, value: Option<f64>| {
        if let Some(value) = value {
            writeln!(text, "{what:<62}{goal:>10}{value:>10.3}").expect("a string takes everything");
        }
    };
    let ratio = |name: &str, other: Target, of: fn(&Figures) -> f64| -> Option<f64> {
        let rounds = seen.get(name)?;
        let pairs = rounds.get(&Target::Forebay)?.iter().zip(rounds.get(&other)?);
        Some(at(&pairs.map(|(ours, theirs)| of(ours) / of(theirs)).collect::<Vec<_>>(), 0.5))
    };
    let ours = |name: &str, of: fn(&Figures) -> f64| -> Option<f64> {
        let figures = seen.get(name)?.get(&Target::Forebay)?;
        Some(figures.iter().map(of).fold(0.0, f64::max))
    };
    let direct = Target::Direct;
    say("burst: connections / direct", "<= 0.05", ratio("burst", direct, |f| f.connections as f64));
    say(
        "burst: exchanges / distinct token keys, most",
        "1",
        ours("burst", |f| f.exchanges as f64 / f.token_keys as f64),
    );
    say("burst: first burst p99 / direct", "<= 0.6", ratio("burst", direct, |f| f.first_p99_ms));
    say("burst: later bursts p99 / direct", "<= 0.25", ratio("burst", direct, |f| f.later_p99_ms));
    say(
        "burst: calls with another tenant's token, most",
        "0",
        ours("burst", |f| f.wrong_tenant as f64),
    );
    say("limit: errors, most", "0", ours("limit", |f| f.errors as f64));
    say(
        "stale: errors of retriable calls, most",
        "0",
        ours("stale", |f| f.errors_retriable as f64),
    );
    let later = seen.get("sse").and_then(|rounds| {
        let pairs = rounds.get(&Target::Forebay)?.iter().zip(rounds.get(&direct)?);
        let late = pairs.map(|(ours, theirs)| ours.later_p50_ms - theirs.later_p50_ms);
        Some(at(&late.collect::<Vec<_>>(), 0.5))
    });
    say("sse: first event later than direct, p50 ms", "<= 1", later);
    let nginx = Target::NginxTokens;
    say(
        "steady: CPU a call / nginx",
        "<= 1.2",
        ratio("steady", nginx, |f| f.proxy_cpu_us_per_call),
    );
    text
}

/// A configuration without what repeats for each tenant and service.
pub fn shortened(configuration: &str) -> String {
    let lines: Vec<&str> = configuration.lines().collect();
    let shown = lines.iter().take(40).copied().collect::<Vec<_>>().join("\n");
    let left = lines.len().saturating_sub(40);
    if left > 0 { format!("{shown}\n(and {left} lines more of the same)\n") } else { shown }
}

fn median(figures: &[Figures], value: fn(&Figures) -> f64) -> f64 {
    at(&figures.iter().map(value).collect::<Vec<_>>(), 0.5)
}
