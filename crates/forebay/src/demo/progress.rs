//! Tells on stderr what the demo is doing: a bar for people, a few lines for logs.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use forebay_seam::time;
use indicatif::{ProgressBar, ProgressStyle};

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Somebody watches: bars that move.
    Terminal,
    /// A file or a pipe: one line for each step.
    Lines,
}

impl Progress {
    /// As stderr is.
    pub(crate) fn of_stderr() -> Self {
        if stderr().is_terminal() { Self::Terminal } else { Self::Lines }
    }

    /// A step of unknown length.
    pub(crate) fn step(self, what: &str) -> Step {
        self.show(what, None)
    }

    /// A step of so many parts.
    pub(crate) fn counted(self, what: &str, parts: u64) -> Step {
        self.show(what, Some(parts))
    }

    fn show(self, what: &str, parts: Option<u64>) -> Step {
        let bar = match (self, parts) {
            (Self::Lines, _) => {
                tell(what);
                ProgressBar::hidden()
            }
            (Self::Terminal, Some(parts)) => {
                let bar = ProgressBar::new(parts);
                let look = "{spinner} {msg:<58} {wide_bar:.cyan/dim} {pos}/{len} {elapsed:>4}";
                bar.set_style(style(look));
                bar
            }
            (Self::Terminal, None) => {
                let bar = ProgressBar::new_spinner();
                bar.set_style(style("{spinner} {msg} {elapsed:>4}"));
                bar
            }
        };
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Step(bar)
    }
}

/// Says something on stderr. Where nobody reads it, there is nobody to tell.
pub(super) fn tell(what: &str) {
    writeln!(stderr(), "forebay demo: {what}").ok();
}

fn style(look: &str) -> ProgressStyle {
    ProgressStyle::with_template(look).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A step under way, until dropped.
pub(crate) struct Step(ProgressBar);

impl Step {
    /// One more part is done.
    pub(crate) fn advance(&self) {
        self.0.inc(1);
    }

    /// Does `work`, and advances once a second meanwhile.
    pub(crate) async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let ticking = async {
            loop {
                time::sleep(Duration::from_secs(1)).await;
                self.advance();
            }
        };
        tokio::select! {
            done = work => done,
            never = ticking => never,
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
