//! `forebay pgbouncer`: PgBouncer's command line, and what it does before and around serving.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use clap::{ArgAction, Args};

use super::daemon;
use super::file::Mistake;
use super::identity::{self, IdentityError};
use super::load::{self, LoadError, Loaded};
use super::overrides::Overrides;
use super::pidfile::{self, Pidfile, PidfileError};
use super::reference;
use super::translate::{self, Note, NoteKind};
use crate::config;
use crate::handover::Before;
use crate::run::{self, Conduct, Manners, RunError};

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

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It could not start.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Not as that user.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another instance runs, or nobody could know that this one does.
    #[error(transparent)]
    Pidfile(#[from] PidfileError),
    /// In the background nobody would find it.
    #[error("in the background (`-d`) it needs a `pidfile`: set one in [pgbouncer]")]
    NoPidfile,
    /// In the background nobody would hear it.
    #[error("in the background (`-d`) it needs a `logfile`, or `syslog = 1`, in [pgbouncer]")]
    NoLog,
    /// The system refuses.
    #[error("cannot go into the background: {0}")]
    System(#[from] io::Error),
}

/// Does what `args` ask for.
pub fn run(args: PgBouncerArgs) -> ExitCode {
    let Some(file) = args.file.clone() else {
        return match io::stdout().write_all(reference::markdown().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    match serve(args, file) {
        Ok(code) => code,
        Err(error) => {
            drop(writeln!(io::stderr(), "{error}"));
            // PgBouncer has this one for everything.
            ExitCode::FAILURE
        }
    }
}

fn serve(args: PgBouncerArgs, file: PathBuf) -> Result<ExitCode, CommandError> {
    let overrides = Overrides::of(&file);
    let read = overrides.read().map_err(LoadError::from)?;
    let first = load::load(&file, read, args.forebay.as_deref())?.file;
    let pidfile = first.nonempty("pidfile").map(PathBuf::from);
    if args.daemon {
        if pidfile.is_none() {
            return Err(CommandError::NoPidfile);
        }
        if first.nonempty("logfile").is_none() && !first.flag("syslog") {
            return Err(CommandError::NoLog);
        }
    }
    if let Some(user) = args.user.as_deref().or(first.nonempty("user")) {
        identity::become_user(user)?;
    }
    let before = if args.reboot { Before::TakenOver } else { Before::Nobody };
    if let (Some(pidfile), Before::Nobody) = (&pidfile, before) {
        pidfile::check(pidfile)?;
    }
    if args.daemon && !daemon::is_background() {
        return Ok(daemon::start()?);
    }
    if args.daemon {
        daemon::detach()?;
    }
    // Until we take over, the file is that of the process that runs.
    let written = match (&pidfile, before) {
        (Some(pidfile), Before::Nobody) => Some(Pidfile::write(pidfile)?),
        (Some(_), Before::TakenOver) | (None, _) => None,
    };
    let written = Rc::new(RefCell::new(written));
    let background = args.daemon;
    let changes = overrides.clone();
    let source = Arc::new(move || Ok(configuration(&args, &file, &changes)?));
    let holder = Rc::clone(&written);
    let listening = move || {
        if let (Some(pidfile), Before::TakenOver) = (&pidfile, before) {
            match Pidfile::replace(pidfile) {
                Ok(replaced) => *holder.borrow_mut() = Some(replaced),
                Err(error) => tracing::error!(%error, "the pidfile names the process before"),
            }
        }
        if background && let Err(error) = daemon::listens() {
            tracing::warn!(%error, "the terminal stays ours");
        }
    };
    let conduct = Conduct {
        manners: Manners::PgBouncer,
        before,
        listening: Box::new(listening),
        overrides: Some(overrides),
    };
    run::run_as(source, conduct)?;
    drop(written);
    Ok(ExitCode::SUCCESS)
}

/// The configuration, with what the command line says of it.
fn configuration(
    args: &PgBouncerArgs,
    file: &Path,
    overrides: &Overrides,
) -> Result<config::Loaded, LoadError> {
    let read = overrides.read()?;
    let Loaded { mut loaded, notes, file } = load::load(file, read, args.forebay.as_deref())?;
    let verbose = u32::from(args.verbose).max(file.number("verbose"));
    let log = &mut loaded.config.log;
    log.stderr = !args.quiet && !args.daemon;
    log.level = translate::level(&file, verbose);
    let wanted = notes.iter().filter(|note| note.kind != NoteKind::Needless || verbose > 0);
    loaded.remarks.extend(file.warnings.iter().map(Mistake::to_string));
    loaded.remarks.extend(wanted.map(Note::to_string));
    if identity::is_root() {
        loaded.remarks.push(
            "running as root, which PgBouncer refuses: name a user with `-u` or `user =`".into(),
        );
    }
    if args.reboot && loaded.config.restart.socket.is_none() {
        loaded.remarks.push("-R: nothing can be taken over without a `unix_socket_dir`".into());
    }
    Ok(loaded)
}
