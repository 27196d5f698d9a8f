//! The command line: `forebay run`, `check`, …, and their exit codes (0 done, 1 failed, 2
//! wrong usage or configuration).

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use forebay_sizing::Workload;
use humantime_serde::re::humantime::parse_duration;

use crate::config::summary::Summary;
use crate::config::{Config, ConfigError, reference};
use crate::run::{self, EXIT_USAGE};

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
    /// Say how many connections a workload needs, and show the arithmetic.
    Size(SizeArgs),
}

/// What is known of a workload.
#[derive(Debug, Args)]
struct SizeArgs {
    /// Requests a second.
    #[arg(long)]
    arrivals: f64,
    /// How long one request has connections on lease, all of its queries together: `200ms`.
    #[arg(long, value_parser = parse_duration)]
    hold: Duration,
    /// Queries of one request that run at the same time.
    #[arg(long, default_value_t = 1)]
    fan_out: u32,
    /// Queries that arrive at once, at the worst.
    #[arg(long)]
    burst: Option<u32>,
    /// The server's `max_connections`.
    #[arg(long)]
    max_connections: Option<u32>,
    /// How long a query may wait for a connection.
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    checkout_timeout: Duration,
}

impl SizeArgs {
    fn workload(&self) -> Workload {
        Workload {
            arrivals: self.arrivals,
            hold: self.hold,
            fan_out: self.fan_out,
            burst: self.burst,
            max_connections: self.max_connections,
            checkout_timeout: self.checkout_timeout,
        }
    }
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// The reference of all settings, Markdown.
    Reference,
    /// The JSON schema, for editors.
    Schema,
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
            Command::Size(args) => match args.workload().advice() {
                Ok(advice) => print(&advice.to_string()),
                Err(error) => {
                    complain(&error.to_string());
                    ExitCode::from(EXIT_USAGE)
                }
            },
            Command::Config { what: ConfigCommand::Reference } => print(&reference::markdown()),
            Command::Config { what: ConfigCommand::Schema } => {
                print(&format!("{:#}\n", reference::schema()))
            }
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
