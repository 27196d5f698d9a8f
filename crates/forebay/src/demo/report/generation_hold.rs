//! What the generation hold shows: a column for each setup, in two groups.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::table::{milliseconds, rate, thousands};
use super::{a_minute, float, ms, ratio, round};
use crate::demo::gateway::SeenParking;
use crate::demo::generation_hold::agents::Tasks;
use crate::demo::generation_hold::core_clients::Answers;
use crate::demo::generation_hold::{ENFORCE, OFF, ONE_POOL, TWO_POOLS};

/// Goals of the design, which the words compare with.
const TIMES_MORE: f64 = 10.0;
const CORE_WITHIN: f64 = 1.5;
/// Width of the first column.
const LABEL: usize = 38;
/// Width of the others.
const COLUMN: usize = 13;

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct GenerationHoldFigures {
    /// Many agents on few connections.
    pub(crate) crowd: Group,
    /// Fewer agents: who is beside them.
    pub(crate) beside: Group,
    /// What all runs have in common.
    pub(crate) configuration: Vec<String>,
}

/// Runs that differ in nothing but what stands before the database.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Group {
    /// Agents.
    pub(crate) agents: usize,
    /// Server connections.
    pub(crate) connections: usize,
    /// In the order in which they were played.
    pub(crate) runs: Vec<HoldRun>,
    /// Their settings.
    pub(crate) configuration: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct HoldRun {
    /// What stood before the database.
    pub(crate) setup: &'static str,
    /// Agents' tasks that ended well.
    pub(crate) tasks_per_minute: f64,
    /// Agents' tasks that failed.
    pub(crate) tasks_failed: u64,
    /// 99th percentile of a core query beside the agents, milliseconds.
    pub(crate) core_p99_ms: f64,
    /// The same, alone.
    pub(crate) core_unloaded_p99_ms: f64,
    /// The one to the other.
    pub(crate) core_to_unloaded: f64,
    /// Core queries answered beside the agents.
    pub(crate) core_answered: u64,
    /// Core queries that were due and not answered when the run ended.
    pub(crate) core_unanswered: u64,
    /// Core queries that failed.
    pub(crate) core_failed: u64,
    /// Server connections open at the same time, at the most.
    pub(crate) server_connections: u64,
    /// Where Forebay stood there: what it parked, or could have.
    pub(crate) parking: Option<Parked>,
    /// What the first kinds of errors said.
    pub(crate) error_samples: Vec<String>,
}

/// Of parking.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Parked {
    /// Tasks whose connection served others while the model thought; in observe, whose could
    /// have. A task is parked once: what it reads comes before the model, what it writes after.
    pub(crate) tasks_helped: u64,
    /// Of all tasks that asked the model.
    pub(crate) share: f64,
    /// Parked transactions for which no connection came in time.
    pub(crate) not_resumed: u64,
}

impl Parked {
    /// What was `seen` while so many tasks `asked` the model.
    pub(crate) fn of(seen: SeenParking, asked: u64) -> Self {
        let share = round(ratio(float(seen.helped()), float(asked)).min(1.0));
        Self { tasks_helped: seen.helped(), share, not_resumed: seen.lost }
    }
}

impl HoldRun {
    /// What was seen in `length`.
    pub(crate) fn of(
        setup: &'static str,
        length: Duration,
        alone: &Answers,
        beside: &Answers,
        tasks: Tasks,
        connections: u64,
        parking: Option<Parked>,
    ) -> Self {
        let (unloaded, loaded) = (ms(alone.p99()), ms(beside.p99()));
        let errors = [&alone.errors, &beside.errors, &tasks.samples];
        Self {
            setup,
            tasks_per_minute: a_minute(tasks.done, length),
            tasks_failed: tasks.failed,
            core_p99_ms: loaded,
            core_unloaded_p99_ms: unloaded,
            core_to_unloaded: round(ratio(loaded, unloaded)),
            core_answered: beside.answered(),
            core_unanswered: beside.unanswered,
            core_failed: alone.failed + beside.failed,
            server_connections: connections,
            parking,
            error_samples: errors.into_iter().flatten().cloned().collect(),
        }
    }

    fn errors(&self) -> u64 {
        self.tasks_failed + self.core_failed
    }

    /// Every figure of its column, in the order of [`LABELS`].
    fn column(&self) -> [String; LABELS.len()] {
        let parked = |value: fn(&Parked) -> String| {
            self.parking.as_ref().map_or_else(|| "-".to_owned(), value)
        };
        [
            rate(self.tasks_per_minute),
            parked(|parking| format!("{:.0} %", parking.share * 100.0)),
            parked(|parking| thousands(parking.not_resumed)),
            milliseconds(self.core_unloaded_p99_ms),
            milliseconds(self.core_p99_ms),
            format!("{:.1}x", self.core_to_unloaded),
            thousands(self.core_unanswered),
            thousands(self.errors()),
            thousands(self.server_connections),
        ]
    }
}

impl Group {
    /// The table, and how it was set up.
    fn write(&self, f: &mut impl fmt::Write) -> fmt::Result {
        writeln!(f, "{} agents, {} server connections", self.agents, self.connections)?;
        let names = self.runs.iter().map(|run| run.setup.split(", ").collect::<Vec<_>>());
        let names: Vec<_> = names.collect();
        for line in 0..2 {
            write!(f, "{:<LABEL$}", "")?;
            for name in &names {
                write!(f, "{:>COLUMN$}", name.get(line).copied().unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        let columns: Vec<_> = self.runs.iter().map(HoldRun::column).collect();
        for (row, label) in LABELS.into_iter().enumerate() {
            write!(f, "{label:<LABEL$}")?;
            for column in &columns {
                write!(f, "{:>COLUMN$}", column.get(row).map_or("", String::as_str))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn run(&self, setup: &str) -> Option<&HoldRun> {
        self.runs.iter().find(|run| run.setup == setup)
    }
}

/// Of the rows.
const LABELS: [&str; 9] = [
    "tasks a minute",
    "tasks helped by parking (or could be)",
    "parked, not resumed in time",
    "a core query alone, p99",
    "a core query beside the agents, p99",
    "the one to the other",
    "core queries not answered",
    "failed",
    "server connections, most",
];

impl GenerationHoldFigures {
    /// Both tables.
    pub(super) fn write(&self, f: &mut impl fmt::Write) -> fmt::Result {
        for group in [&self.crowd, &self.beside] {
            writeln!(f, "{}", "-".repeat(LABEL + 4 * COLUMN))?;
            f.write_str("Generation hold: ")?;
            group.write(f)?;
        }
        Ok(())
    }

    /// What failed, in the runs in which something did.
    pub(super) fn samples(&self) -> Vec<String> {
        let runs = [&self.crowd, &self.beside].into_iter().flat_map(|group| {
            group.runs.iter().map(|run| (group.agents, run.setup, &run.error_samples))
        });
        runs.filter(|(_, _, samples)| !samples.is_empty())
            .map(|(agents, setup, samples)| {
                format!("{agents} agents, {setup}, failed: {}.", samples.join("; "))
            })
            .collect()
    }

    /// What they say, whoever was better.
    pub(super) fn words(&self) -> String {
        let mut text = String::from("Generation hold.");
        if let Some(on) = self.crowd.run(ENFORCE) {
            for setup in [OFF, ONE_POOL] {
                let Some(other) = self.crowd.run(setup) else { continue };
                let times = ratio(on.tasks_per_minute, other.tasks_per_minute);
                let verdict = if times >= TIMES_MORE { "the goal is" } else { "not the goal of" };
                write!(
                    text,
                    " Over {} connections, agents did {times:.1} times the tasks with parking as \
                     with {setup} ({} and {} a minute; {verdict} {TIMES_MORE:.0}).",
                    self.crowd.connections,
                    rate(on.tasks_per_minute),
                    rate(other.tasks_per_minute),
                )
                .ok();
            }
            let within = if on.core_to_unloaded <= CORE_WITHIN { "within" } else { "not within" };
            write!(
                text,
                " A core query beside them took {} (p99), {:.1} times what it took alone \
                 ({within} {CORE_WITHIN}x); {} failed.",
                milliseconds(on.core_p99_ms),
                on.core_to_unloaded,
                thousands(on.errors()),
            )
            .ok();
        }
        if let (Some(on), Some(other)) = (self.beside.run(ENFORCE), self.beside.run(TWO_POOLS)) {
            write!(
                text,
                " Beside {} agents over {} connections, the p99 of a core query was {} with \
                 Forebay and {} with {TWO_POOLS}; the agents did {} and {} tasks a minute.",
                self.beside.agents,
                self.beside.connections,
                milliseconds(on.core_p99_ms),
                milliseconds(other.core_p99_ms),
                rate(on.tasks_per_minute),
                rate(other.tasks_per_minute),
            )
            .ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::report::Report;

    fn run(setup: &'static str, tasks: f64, core: f64, parked: Option<u64>) -> HoldRun {
        HoldRun {
            setup,
            tasks_per_minute: tasks,
            tasks_failed: 0,
            core_p99_ms: core,
            core_unloaded_p99_ms: 6.0,
            core_to_unloaded: round(core / 6.0),
            core_answered: 1_500,
            core_unanswered: 0,
            core_failed: 0,
            server_connections: 10,
            parking: parked.map(|tasks_helped| Parked {
                tasks_helped,
                share: 0.98,
                not_resumed: 0,
            }),
            error_samples: Vec::new(),
        }
    }

    fn figures(enforced: f64, core: f64) -> GenerationHoldFigures {
        let group = |runs| Group { agents: 200, connections: 10, runs, configuration: Vec::new() };
        GenerationHoldFigures {
            crowd: group(vec![
                run(ONE_POOL, 300.0, 9_000.0, None),
                run(OFF, 240.0, 7.0, Some(0)),
                run(ENFORCE, enforced, core, Some(900)),
            ]),
            beside: group(vec![run(TWO_POOLS, 480.0, 7.0, None), run(ENFORCE, 1_700.0, 6.5, None)]),
            configuration: vec!["as it is".to_owned()],
        }
    }

    fn in_one_line(figures: GenerationHoldFigures) -> String {
        let report = Report { generation_hold: Some(figures), ..Report::default() };
        report.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_setup_is_a_column_and_machines_find_it_by_its_name() {
        let text = in_one_line(figures(3_100.0, 8.0));
        assert!(text.contains("tasks a minute 300 240 3,100"), "{text}");
        assert!(text.contains("tasks helped by parking (or could be) - 98 % 98 %"), "{text}");
        assert!(!text.contains("without Forebay"), "{text}");
        let json = serde_json::json!(figures(3_100.0, 8.0));
        assert_eq!(json["crowd"]["runs"][2]["setup"], "Forebay, enforce");
        assert_eq!(json["crowd"]["runs"][2]["tasks_per_minute"], 3_100.0);
        assert_eq!(json["crowd"]["runs"][2]["parking"]["share"], 0.98);
    }

    #[test]
    fn the_words_hold_whether_or_not_a_goal_was_met() {
        let met = in_one_line(figures(3_100.0, 8.0));
        assert!(met.contains("10.3 times the tasks with parking as with PgBouncer"), "{met}");
        assert!(met.contains("; the goal is 10)") && met.contains("(within 1.5x)"), "{met}");
        let missed = in_one_line(figures(480.0, 60.0));
        assert!(
            missed.contains("2.0 times the tasks with parking as with Forebay, off"),
            "{missed}"
        );
        assert!(missed.contains("not the goal of 10)") && missed.contains("(not within 1.5x)"));
    }

    #[test]
    fn what_failed_is_told_with_the_run_in_which_it_did() {
        let mut figures = figures(3_100.0, 8.0);
        figures.crowd.runs[1].error_samples = vec!["2 x 53300".to_owned()];
        let text = in_one_line(figures);
        assert!(text.contains("200 agents, Forebay, off, failed: 2 x 53300."), "{text}");
    }
}
