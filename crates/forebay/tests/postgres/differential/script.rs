//! A script: who sends what, and when it is read. Knows nothing of sockets.
//!
//! Always true: how the end of a turn's answers is told follows from its messages alone, so
//! any message may be left out, and the rest can still be played.

use std::fmt;

use super::message::{Kind, Message};

/// When a client reads what its messages brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// All is answered.
    Answered,
    /// As far as it goes without a Sync.
    Flushed,
    /// All is answered; the statement with the mark is cancelled once it sleeps.
    Cancelled,
}

/// What one client sends before it reads.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) client: usize,
    pub(super) messages: Vec<Message>,
    pub(super) until: Until,
}

/// Turns at one time, woven into each other.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) turns: Vec<Turn>,
    /// Seed of where the turns are cut and how the parts are woven.
    pub(super) weave: u64,
}

/// How a server's bytes reach the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    AsSent,
    /// In pieces that end anywhere.
    InPieces,
}

/// What the gateway makes of unnamed statements that come again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unnamed {
    AsSent,
    /// They get names of its own (`name_unnamed`).
    Named,
}

/// All that a few clients do.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) clients: usize,
    /// Prepared statements that a server connection keeps.
    pub(super) most_statements: usize,
    pub(super) arrival: Arrival,
    pub(super) unnamed: Unnamed,
    pub(super) rounds: Vec<Round>,
}

/// Texts after which a client keeps its server connection.
const PINNING: [&str; 6] =
    ["PREPARE s", "TEMP", "pg_advisory_lock", "WITH HOLD", "LISTEN", "SESSION AUTHORIZATION"];

impl Turn {
    fn has(&self, is: impl Fn(&str) -> bool) -> bool {
        self.messages.iter().filter_map(Message::text).any(is)
    }

    /// May the client keep a server connection for good, once this turn is over?
    pub(super) fn may_pin(&self) -> bool {
        self.has(|text| PINNING.iter().any(|part| text.contains(part)))
    }

    /// May a transaction be open, once this turn is over?
    pub(super) fn may_stay_open(&self) -> bool {
        self.until == Until::Flushed
            || self.has(|text| {
                let text = text.to_uppercase();
                ["BEGIN", "START", "CHAIN"].iter().any(|part| text.contains(part))
            })
    }

    fn copies_in(&self) -> bool {
        self.has(|text| text.contains("FROM STDIN"))
    }

    /// How many ReadyForQuery come, if the messages alone tell.
    pub(super) fn readies(&self) -> Option<usize> {
        let (mut in_batch, mut copying, mut readies) = (false, false, 0);
        for message in &self.messages {
            match message {
                Message::Query(_) | Message::Call { .. } if in_batch || copying => return None,
                Message::Query(text) => {
                    copying = text.contains("FROM STDIN");
                    readies += 1;
                }
                Message::Call { .. } => readies += 1,
                Message::CopyData(_) if copying => {}
                Message::CopyDone | Message::CopyFail if copying => copying = false,
                _ if copying => return None,
                Message::CopyData(_) | Message::CopyDone | Message::CopyFail => {}
                Message::Parse { text, .. } if text.contains("FROM STDIN") => return None,
                Message::Sync => {
                    in_batch = false;
                    readies += 1;
                }
                Message::Parse { .. }
                | Message::Bind { .. }
                | Message::Describe(..)
                | Message::Execute { .. }
                | Message::Close(..) => in_batch = true,
                Message::Flush => {}
            }
        }
        (!in_batch && !copying).then_some(readies)
    }

    /// May PostgreSQL itself be asked this, and a pooler? PostgreSQL 15 dies of an Execute in a
    /// failed transaction whose portal was bound in an earlier batch. In a failed transaction a
    /// server that has not got a statement yet cannot be made to describe it. What is sent behind
    /// a COPY that takes data, before its end, is for tests of their own.
    pub(super) fn is_fair(&self, known_to_work: bool) -> bool {
        let (mut bound, mut parsed): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        let (mut first_batch, mut copying) = (true, false);
        let fails = self.has(|text| text.contains("missing"))
            || self.messages.iter().any(|m| matches!(m, Message::CopyData("oops\n")));
        for message in &self.messages {
            match message {
                Message::Sync if copying && fails => return false,
                Message::Bind { portal, .. } => bound.push(portal),
                Message::Execute { portal, .. } => {
                    if !(bound.contains(portal) || first_batch && known_to_work) {
                        return false;
                    }
                }
                Message::Query(_) | Message::Call { .. } if copying => return false,
                // Whose name it is to be depends on whether the batch before it has failed.
                Message::Query(text)
                    if text.starts_with("DEALLOCATE")
                        && !(parsed.is_empty() && bound.is_empty()) =>
                {
                    return false;
                }
                Message::Query(text) => {
                    first_batch = false;
                    copying = text.contains("FROM STDIN");
                    bound.clear();
                    parsed.clear();
                }
                Message::Parse { name, text } => {
                    copying |= text.contains("FROM STDIN");
                    parsed.push(name);
                }
                Message::Describe(Kind::Statement, name) if !parsed.contains(name) => return false,
                Message::Call { .. } | Message::Sync => {
                    first_batch = false;
                    bound.clear();
                    parsed.clear();
                }
                Message::CopyDone | Message::CopyFail => copying = false,
                Message::Describe(..)
                | Message::Close(..)
                | Message::Flush
                | Message::CopyData(_) => {}
            }
        }
        !(self.until == Until::Flushed && self.copies_in())
    }
}

impl Script {
    /// Without the message at this place; `None` if there is none.
    pub(super) fn without(&self, at: Place) -> Option<Self> {
        let mut script = self.clone();
        let round = script.rounds.get_mut(at.round)?;
        match (at.turn, at.message) {
            (None, _) => drop(script.rounds.remove(at.round)),
            (Some(turn), None) => {
                (turn < round.turns.len() && round.turns.len() > 1).then_some(())?;
                round.turns.remove(turn);
            }
            (Some(turn), Some(message)) => {
                let turn = round.turns.get_mut(turn)?;
                (message < turn.messages.len() && turn.messages.len() > 1).then_some(())?;
                turn.messages.remove(message);
            }
        }
        Some(script)
    }

    /// How many rounds, turns and messages there are.
    pub(super) fn len(&self) -> usize {
        self.places().len()
    }

    /// All that can be left out, the largest first and the last before the first.
    pub(super) fn places(&self) -> Vec<Place> {
        let (mut rounds, mut turns, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        for (r, round) in self.rounds.iter().enumerate().rev() {
            rounds.push(Place { round: r, turn: None, message: None });
            for (t, turn) in round.turns.iter().enumerate().rev() {
                turns.push(Place { round: r, turn: Some(t), message: None });
                for m in (0..turn.messages.len()).rev() {
                    messages.push(Place { round: r, turn: Some(t), message: Some(m) });
                }
            }
        }
        [rounds, turns, messages].concat()
    }
}

/// A round, a turn of it, or a message of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    round: usize,
    turn: Option<usize>,
    message: Option<usize>,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}:", self.client)?;
        for message in &self.messages {
            write!(f, " {message};")?;
        }
        match self.until {
            Until::Answered => Ok(()),
            Until::Flushed => write!(f, " (and reads on)"),
            Until::Cancelled => write!(f, " (and cancels)"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { most_statements, arrival, unnamed, .. } = self;
        writeln!(f, "{most_statements} statements kept, from the server {arrival:?}")?;
        writeln!(f, "unnamed statements {unnamed:?}")?;
        for (number, round) in self.rounds.iter().enumerate() {
            for turn in &round.turns {
                writeln!(f, "{number:>3}. {turn}")?;
            }
        }
        Ok(())
    }
}
