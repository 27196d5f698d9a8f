//! `forebay pgbouncer`: PgBouncer's command line, and what it does before and around serving.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args};

use super::file::Mistake;
use super::load::{self, Loaded};
use super::reference;
use super::translate::{Note, NoteKind};
use crate::run::{self, Given};

/// The options of PgBouncer, and two of ours.
#[derive(Debug, Args)]
pub struct PgBouncerArgs {
    /// Run in the background.
    #[arg(short, long)]
    daemon: bool,
    /// Do not log to stderr.
    #[arg(short, long)]
    quiet: bool,
    /// Take over from the process that runs, without refusing anybody.
    #[arg(short = 'R', long)]
    reboot: bool,
    /// Run as this user of the system.
    #[arg(short, long)]
    user: Option<String>,
    /// Say more; may be given several times.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Show the version.
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: (),
    /// Show this help.
    #[arg(short, long, action = ArgAction::Help)]
    help: (),
    /// More settings, TOML: whatever PgBouncer has no words for.
    #[arg(long, value_name = "FILE.toml")]
    forebay: Option<PathBuf>,
    /// Print what becomes of each setting of PgBouncer, Markdown.
    #[arg(long)]
    settings: bool,
    /// PgBouncer's configuration.
    #[arg(required_unless_present = "settings")]
    file: Option<PathBuf>,
}

/// Does what `args` ask for.
pub fn run(args: PgBouncerArgs) -> ExitCode {
    let Some(file) = args.file else {
        return match io::stdout().write_all(reference::markdown().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    let load = || {
        let Loaded { config, notes, file } = load::load(&file, args.forebay.as_deref())?;
        let wanted = notes.iter().filter(|note| {
            note.kind != NoteKind::Needless || args.verbose > 0 || file.flag("verbose")
        });
        let remarks = file.warnings.iter().map(Mistake::to_string);
        Ok(Given { config, remarks: remarks.chain(wanted.map(Note::to_string)).collect() })
    };
    match run::run_from(&load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "{error}"));
            // PgBouncer has this one for everything.
            ExitCode::FAILURE
        }
    }
}
