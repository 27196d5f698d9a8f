//! Forebay's HTTP gateway beside no proxy, nginx and HAProxy, in one interleaved run.
//!
//!     beside-proxies FOREBAY [--rounds N] [--only burst,limit,stale,sse,steady] [--json PATH]
//!
//! Each round plays each scenario with each target, in another order than the round before, with
//! origins and proxy started afresh; the table has medians over the rounds. It judges nothing: it
//! prints each goal beside what was measured.

mod agents;
mod authority;
mod cpu;
mod origin;
mod proxies;
mod scenarios;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::authority::Authority;
use crate::origin::Manner;
use crate::proxies::{Bounds, Target};
use crate::scenarios::{Bench, Bursts, Figures};

/// All figures of a scenario, round by round.
pub type Rounds = BTreeMap<Target, Vec<Figures>>;

struct Arguments {
    forebay: PathBuf,
    rounds: usize,
    only: Vec<String>,
    json: Option<PathBuf>,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut given = std::env::args().skip(1);
        let forebay = given.next().context("which forebay?")?.into();
        let names = ["burst", "limit", "stale", "sse", "steady"];
        let mut arguments =
            Self { forebay, rounds: 3, only: names.map(str::to_owned).to_vec(), json: None };
        while let Some(option) = given.next() {
            let value = given.next().with_context(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--rounds" => arguments.rounds = value.parse().context("--rounds")?,
                "--only" => arguments.only = value.split(',').map(str::to_owned).collect(),
                "--json" => arguments.json = Some(value.into()),
                _ => bail!("unknown option {option}"),
            }
        }
        if let Some(unknown) = arguments.only.iter().find(|name| !names.contains(&name.as_str())) {
            bail!("unknown scenario {unknown}: one of {}", names.join(", "));
        }
        Ok(arguments)
    }
}

const ALL: [Target; 6] = [
    Target::Direct,
    Target::Nginx,
    Target::NginxTokens,
    Target::HaProxy,
    Target::HaProxyTokens,
    Target::Forebay,
];
const KEEPING: [Target; 4] =
    [Target::Direct, Target::NginxTokens, Target::HaProxyTokens, Target::Forebay];
const PROXIES: [Target; 3] = [Target::NginxTokens, Target::HaProxyTokens, Target::Forebay];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let bench = Bench { authority: Authority::new()?, forebay: arguments.forebay.clone() };
    let mut seen: BTreeMap<String, Rounds> = BTreeMap::new();
    let mut configurations = BTreeMap::new();
    for round in 0..arguments.rounds {
        for name in &arguments.only {
            let targets: &[Target] = match name.as_str() {
                "burst" | "limit" => &ALL,
                "sse" => &KEEPING,
                _ => &PROXIES,
            };
            for place in 0..targets.len() {
                let target = targets[(place + round) % targets.len()];
                eprintln!("round {} of {}: {name}, {}", round + 1, arguments.rounds, target.name());
                let seed = round as u64;
                let bursts = |manner, bounds, bursts| Bursts { manner, bounds, bursts };
                let figures = match name.as_str() {
                    "burst" => {
                        let plan = bursts(Manner::Usual, Bounds::None, 5);
                        let (figures, configuration) = bench.bursts(target, plan, seed).await?;
                        configurations.insert(target, configuration);
                        figures
                    }
                    "limit" => {
                        bench
                            .bursts(target, bursts(Manner::Limited, Bounds::Bounded, 3), seed)
                            .await?
                            .0
                    }
                    "stale" => {
                        bench
                            .bursts(target, bursts(Manner::Closing, Bounds::Bounded, 6), seed)
                            .await?
                            .0
                    }
                    "sse" => bench.streams(target).await?,
                    _ => bench.steady(target).await?,
                };
                let rounds = seen.entry(name.clone()).or_default();
                rounds.entry(target).or_default().push(figures);
            }
        }
    }
    for (target, configuration) in &configurations {
        println!(
            "--- configuration of {} (burst)\n{}",
            target.name(),
            table::shortened(configuration)
        );
    }
    for name in &arguments.only {
        if let Some(rounds) = seen.get(name) {
            println!("{}", table::of(name, rounds));
        }
    }
    println!("{}", table::goals(&seen));
    if let Some(path) = arguments.json {
        let named: BTreeMap<&str, BTreeMap<&str, &Vec<Figures>>> = seen
            .iter()
            .map(|(name, rounds)| {
                let targets = rounds.iter().map(|(target, figures)| (target.name(), figures));
                (name.as_str(), targets.collect())
            })
            .collect();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, serde_json::to_string_pretty(&named)?)?;
    }
    Ok(())
}
