//! `forebay demo`: the same agent workload without and with Forebay, measured side by side.
//!
//! Everything runs on this machine: a PostgreSQL of its own (or the one that `--dsn`
//! names), TLS services with the cost of a distance, the agents, and Forebay as a child
//! process. Always true: whatever ends the demo (its end, an error, Ctrl-C, SIGTERM),
//! nothing of it is left.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::authority::Authority;
use self::database::{DatabaseError, Server};
use self::progress::Progress;
use self::report::{Report, Sides};
use self::side::{Scene, Side, SideError, Stage};

mod authority;
mod call;
mod cancellation_storm;
mod client_pool;
pub mod cluster;
mod database;
mod fan_out;
mod gateway;
mod generation_hold;
mod issuer;
mod keeper;
mod label;
mod logins;
mod model;
mod neighbour;
pub mod postgres_binaries;
mod product;
mod progress;
mod report;
mod retry_storm;
mod services;
mod side;
mod storm;
mod watch;
mod workload;
mod write_storm;

/// Wrong usage, or nothing to run on.
const USAGE: u8 = 2;
/// Ended by SIGINT, as shells say it.
const INTERRUPTED: u8 = 130;

/// What `forebay demo` can be told.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// An existing PostgreSQL, as postgres://user:password@host:5432/database; the demo makes
    /// databases of its own there and drops them. Default: a private one in a temporary folder
    #[arg(long, value_name = "DSN")]
    dsn: Option<String>,
    /// Run only this scenario, or all. Default: storm and neighbour, which take two minutes
    #[arg(long, value_name = "NAME")]
    scenario: Option<Scenario>,
    /// An interpreter that has SQLAlchemy, Django, psycopg and httpx, for generation-hold.
    /// Default: a virtual environment in a temporary folder, with the packages from PyPI
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// How to print the figures
    #[arg(long, default_value = "table")]
    format: Format,
    /// Leave everything running at the end, with the addresses printed, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A hundred agents whose tools open connections of their own
    Storm,
    /// Logins beside retrievals, and agents that hold transactions
    Neighbour,
    /// Questions that become fifteen queries at once
    FanOut,
    /// Agents that write their state at the same moment
    WriteStorm,
    /// More requests than can be done, and clients that try again
    RetryStorm,
    /// Agents' tasks that are cancelled half way
    CancellationStorm,
    /// Programs that hold transactions open while a model thinks
    GenerationHold,
    /// All of them
    All,
}

/// For whom the figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For machines
    Json,
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Side(#[from] SideError),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    #[error("interrupted")]
    Interrupted,
}

impl From<DatabaseError> for DemoError {
    fn from(error: DatabaseError) -> Self {
        Self::Side(error.into())
    }
}

impl DemoError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Side(SideError::Database(DatabaseError::NotFound(_) | DatabaseError::Dsn(_))) => {
                ExitCode::from(USAGE)
            }
            Self::Interrupted => ExitCode::from(INTERRUPTED),
            Self::Side(_) | Self::System(_) => ExitCode::FAILURE,
        }
    }
}

/// Runs the demo.
pub fn run(args: DemoArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(play(&args)),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::tell(&error.to_string());
            error.exit_code()
        }
    }
}

/// Runs it until its end or a signal, and then cleans up.
async fn play(args: &DemoArgs) -> Result<(), DemoError> {
    let mut signals = Signals::new()?;
    let progress = Progress::of_stderr();
    let server = {
        let _step = progress.step("starting PostgreSQL");
        tokio::select! {
            server = find(args) => server?,
            () = signals.told() => return Err(DemoError::Interrupted),
        }
    };
    let python = args.python.clone();
    let stage = Stage { server: &server, authority: authority()?, progress, python };
    let done = tokio::select! {
        report = scenarios(&stage, args.scenario) => report.map_err(DemoError::from),
        () = signals.told() => Err(DemoError::Interrupted),
    };
    let done = match done {
        Ok(report) => {
            print(&report, args.format);
            if args.keep { keep(&stage, args.format, &mut signals).await } else { Ok(()) }
        }
        Err(error) => Err(error),
    };
    server.close().await;
    done
}

async fn find(args: &DemoArgs) -> Result<Server, DatabaseError> {
    match &args.dsn {
        Some(dsn) => Server::existing(dsn).await,
        None => Server::private().await,
    }
}

fn authority() -> Result<Authority, SideError> {
    Ok(Authority::new()?)
}

/// Plays what was asked for.
async fn scenarios(stage: &Stage<'_>, asked: Option<Scenario>) -> Result<Report, SideError> {
    let mut report = Report::default();
    for scenario in Scenario::of(asked) {
        match scenario {
            Scenario::Storm => report.storm = Some(both(|side| stage.storm(side)).await?),
            Scenario::Neighbour => {
                report.neighbour = Some(both(|side| stage.neighbour(side)).await?);
            }
            Scenario::FanOut => report.fan_out = Some(both(|side| stage.fan_out(side)).await?),
            Scenario::WriteStorm => {
                report.write_storm = Some(both(|side| stage.write_storm(side)).await?);
            }
            Scenario::RetryStorm => {
                report.retry_storm = Some(both(|side| stage.retry_storm(side)).await?);
            }
            Scenario::CancellationStorm => {
                let played = both(|side| stage.cancellation_storm(side)).await?;
                report.cancellation_storm = Some(played);
            }
            Scenario::GenerationHold => {
                report.generation_hold = Some(stage.generation_hold().await?);
            }
            // It stands for the others.
            Scenario::All => {}
        }
    }
    Ok(report)
}

/// Plays one scenario on both sides.
async fn both<F>(play: impl AsyncFn(Side) -> Result<F, SideError>) -> Result<Sides<F>, SideError> {
    let without = play(Side::Without).await?;
    Ok(Sides { without, with: play(Side::With).await? })
}

impl Scenario {
    /// All that can be played.
    const PLAYS: &[Self] = &[
        Self::Storm,
        Self::Neighbour,
        Self::FanOut,
        Self::WriteStorm,
        Self::RetryStorm,
        Self::CancellationStorm,
        Self::GenerationHold,
    ];

    /// What is played when `asked` was said.
    fn of(asked: Option<Self>) -> Vec<Self> {
        match asked {
            None => vec![Self::Storm, Self::Neighbour],
            Some(Self::All) => Self::PLAYS.to_vec(),
            Some(
                one @ (Self::Storm
                | Self::Neighbour
                | Self::FanOut
                | Self::WriteStorm
                | Self::RetryStorm
                | Self::CancellationStorm
                | Self::GenerationHold),
            ) => vec![one],
        }
    }
}

fn print(report: &Report, format: Format) {
    let text = match format {
        Format::Table => report.to_string(),
        // Maps with text keys and finite numbers can always be written.
        Format::Json => format!("{:#}\n", serde_json::json!(report)),
    };
    // A reader that has gone (`| head`) is no reason to leave without cleaning up.
    io::stdout().write_all(text.as_bytes()).ok();
}

/// Leaves a fresh scene running until a signal.
async fn keep(stage: &Stage<'_>, format: Format, signals: &mut Signals) -> Result<(), DemoError> {
    let scene = tokio::select! {
        scene = stage.set(Side::With) => scene?,
        () = signals.told() => return Err(DemoError::Interrupted),
    };
    let text = addresses(stage, &scene);
    let text = text.as_bytes();
    match format {
        Format::Table => io::stdout().write_all(text).ok(),
        Format::Json => io::stderr().write_all(text).ok(),
    };
    signals.told().await;
    scene.end().await;
    Ok(())
}

/// Where everything is, and what to try.
fn addresses(stage: &Stage<'_>, scene: &Scene) -> String {
    let Some(forebay) = &scene.forebay else { return String::new() };
    let (http, admin) = (forebay.http(), forebay.admin());
    format!(
        "Running until Ctrl-C:
  PostgreSQL, through Forebay   {dsn}
  PostgreSQL itself             {direct}
  services, through Forebay     http://{http}/crm (search, calendar, tickets, billing, llm)
  Forebay's admin port          http://{admin}
  Forebay's configuration       {file}
Try:
  psql '{dsn}' -c 'SELECT count(*) FROM accounts'
  curl -H 'x-forebay-key: key-of-acme' -H 'x-demo-tenant: acme' -d '{{}}' http://{http}/crm/v1/run
  curl -N -H 'x-forebay-key: key-of-acme' -d '{{}}' http://{http}/llm/v1/chat/completions
  curl http://{admin}/metrics
",
        dsn = forebay.dsn(),
        direct = stage.server.dsn(&scene.database),
        file = forebay.file().display(),
    )
}

/// What asks the demo to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        demo: DemoArgs,
    }

    #[test]
    fn an_unknown_scenario_is_an_error_that_lists_the_known_ones() {
        let error = Line::try_parse_from(["demo", "--scenario", "strom"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(USAGE));
        for word in ["strom", "storm", "neighbour", "fan-out", "all"] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn without_a_word_everything_is_run_and_printed_for_people() {
        let line = Line::try_parse_from(["demo"]).unwrap().demo;
        assert_eq!((line.scenario, line.format, line.keep), (None, Format::Table, false));
    }

    #[test]
    fn a_newcomer_sees_two_scenarios_and_who_asks_for_all_sees_each_once() {
        assert_eq!(Scenario::of(None), [Scenario::Storm, Scenario::Neighbour]);
        let line = Line::try_parse_from(["demo", "--scenario", "all"]).unwrap().demo;
        let all = Scenario::of(line.scenario);
        let names = [
            "storm",
            "neighbour",
            "fan-out",
            "write-storm",
            "retry-storm",
            "cancellation-storm",
            "generation-hold",
        ];
        for name in names {
            let line = Line::try_parse_from(["demo", "--scenario", name]).unwrap().demo;
            let only = Scenario::of(line.scenario);
            assert_eq!(only, [line.scenario.unwrap()]);
            assert_eq!(all.iter().filter(|scenario| only.contains(scenario)).count(), 1);
        }
        assert_eq!(all.len(), names.len());
        assert!(!all.contains(&Scenario::All));
    }

    #[test]
    fn no_postgres_is_wrong_usage_and_a_failed_run_is_not() {
        let exit = |error: DatabaseError| format!("{:?}", DemoError::from(error).exit_code());
        let usage = format!("{:?}", ExitCode::from(USAGE));
        assert_eq!(exit(postgres_binaries::NotFound.into()), usage);
        assert_ne!(exit(cluster::ClusterError::Stop.into()), usage);
    }
}
