//! The command line: `forebay run`, `check`, …, and their exit codes (0 done, 1 failed, 2
//! wrong usage or configuration).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::summary::Summary;
use crate::config::{Config, ConfigError, reference};
use crate::console;
use crate::demo::{self, DemoArgs};
use crate::pgbouncer::{self, command::PgBouncerArgs, migrate::Migration};
use crate::report::{self, HoldsArgs};
use crate::run::{self, EXIT_USAGE};
use crate::size::SizeArgs;

/// The connection gateway for AI agents.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateways that FILE configures, until SIGTERM or SIGINT.
    Run {
        /// The configuration, TOML.
        #[arg(env = "FOREBAY_CONFIG")]
        file: PathBuf,
    },
    /// Say all that is wrong with FILE, or what it comes to.
    Check {
        /// The configuration, TOML.
        #[arg(env = "FOREBAY_CONFIG")]
        file: PathBuf,
    },
    /// Print what can be configured.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Run with PgBouncer's own configuration, in place of PgBouncer.
    #[command(version, disable_help_flag = true, disable_version_flag = true)]
    Pgbouncer(PgBouncerArgs),
    /// Write settings of ours that do what PgBouncer's FILE.ini does, and list what changed its
    /// meaning.
    Migrate {
        /// PgBouncer's configuration.
        file: PathBuf,
        /// Where to write; passwords go into files beside it. Default: to stdout, with
        /// variables of the environment in place of passwords.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Show on this machine what Forebay changes: an agent workload without and with it.
    Demo(DemoArgs),
    /// Say how many connections a workload needs, and show the arithmetic.
    Size(SizeArgs),
    /// Say what a running Forebay has seen.
    Report {
        #[command(subcommand)]
        what: ReportCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ReportCommand {
    /// What transactions cost that idle while their request calls out, the worst first, and
    /// what would save it.
    Holds(HoldsArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// The reference of all settings, Markdown.
    Reference,
    /// The JSON schema, for editors.
    Schema,
    /// The console's views, Markdown.
    Views,
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run { file } => match run::run(&file) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&error.to_string());
                    error.exit_code()
                }
            },
            Command::Demo(args) => demo::run(args),
            Command::Check { file } => match Config::load(&file) {
                Ok(config) => print(&format!("{}: ok\n{}", file.display(), Summary(&config))),
                Err(error) => {
                    complain(&error.to_string());
                    if let ConfigError::Invalid(report) = &error {
                        let count = report.problems().len();
                        let errors = if count == 1 { "error" } else { "errors" };
                        complain(&format!("{}: {count} {errors}", file.display()));
                    }
                    ExitCode::from(EXIT_USAGE)
                }
            },
            Command::Pgbouncer(args) => pgbouncer::command::run(args),
            Command::Migrate { file, output } => migrate(&file, output.as_deref()),
            Command::Size(args) => match args.advice() {
                Ok(advice) => print(&advice),
                Err(error) => {
                    complain(&error.to_string());
                    ExitCode::from(EXIT_USAGE)
                }
            },
            Command::Report { what: ReportCommand::Holds(args) } => match report::holds(&args) {
                Ok(text) => print(&text),
                Err(error) => {
                    complain(&error.to_string());
                    ExitCode::FAILURE
                }
            },
            Command::Config { what: ConfigCommand::Reference } => print(&reference::markdown()),
            Command::Config { what: ConfigCommand::Views } => {
                print(&console::reference::markdown())
            }
            Command::Config { what: ConfigCommand::Schema } => {
                print(&format!("{:#}\n", reference::schema()))
            }
        }
    }
}

fn migrate(file: &Path, output: Option<&Path>) -> ExitCode {
    let migration = match Migration::of(file, output) {
        Ok(migration) => migration,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let Some(output) = output else {
        complain(migration.report());
        return print(migration.text());
    };
    match migration.write(output) {
        Ok(()) => print(migration.report()),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Prints a result. A reader that has gone (`| head`) is no reason to panic.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says what went wrong. Where nobody reads stderr, there is nobody to tell.
fn complain(text: &str) {
    drop(writeln!(io::stderr(), "{}", text.trim_end()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
