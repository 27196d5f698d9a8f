//! What an operator has closed: new work of a database or of all, and logins to a database.
//!
//! Knows neither pools nor clients. It outlives each configuration. Always true: only what is
//! closed takes memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_seam::sync::Mutex;
use serde::Serialize;

/// What the gateway as a whole does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// It serves.
    #[default]
    Running,
    /// New work waits, of all databases.
    Paused,
    /// Nothing is read and nobody accepted.
    Suspended,
}

/// What an operator has closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ControlSnapshot {
    /// What the gateway as a whole does.
    pub flow: Flow,
    /// Databases whose new work waits, beside a pause of all.
    pub paused: Vec<Arc<str>>,
    /// Databases that take no new clients.
    pub disabled: Vec<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Closed,
}

/// Of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    work: Door,
    logins: Door,
}

const OPEN: Pair = Pair { work: Door::Open, logins: Door::Open };

#[derive(Default)]
struct State {
    flow: Flow,
    databases: BTreeMap<Arc<str>, Pair>,
}

impl State {
    fn change(&mut self, database: &str, change: impl FnOnce(&mut Pair)) {
        let mut pair = self.databases.remove(database).unwrap_or(OPEN);
        change(&mut pair);
        if pair != OPEN {
            self.databases.insert(database.into(), pair);
        }
    }

    fn of(&self, database: &str) -> Pair {
        self.databases.get(database).copied().unwrap_or(OPEN)
    }
}

/// All doors.
#[derive(Default)]
pub(super) struct Doors(Mutex<State>);

impl Doors {
    pub(super) fn flow(&self) -> Flow {
        self.0.lock().flow
    }

    /// From `expected` to `next`; else says what it is.
    pub(super) fn turn(&self, expected: Flow, next: Flow) -> Result<(), Flow> {
        let mut state = self.0.lock();
        if state.flow != expected {
            return Err(state.flow);
        }
        state.flow = next;
        Ok(())
    }

    /// Does new work of `database` wait, for whatever reason?
    pub(super) fn is_paused(&self, database: &str) -> bool {
        let state = self.0.lock();
        state.flow == Flow::Paused || state.of(database).work == Door::Closed
    }

    /// Was `database` itself paused?
    pub(super) fn is_paused_itself(&self, database: &str) -> bool {
        self.0.lock().of(database).work == Door::Closed
    }

    pub(super) fn is_any_paused(&self) -> bool {
        self.0.lock().databases.values().any(|pair| pair.work == Door::Closed)
    }

    pub(super) fn is_disabled(&self, database: &str) -> bool {
        self.0.lock().of(database).logins == Door::Closed
    }

    pub(super) fn pause(&self, database: &str) {
        self.0.lock().change(database, |pair| pair.work = Door::Closed);
    }

    /// Was it paused?
    pub(super) fn resume(&self, database: &str) -> bool {
        let mut state = self.0.lock();
        let was = state.of(database).work == Door::Closed;
        state.change(database, |pair| pair.work = Door::Open);
        was
    }

    pub(super) fn disable(&self, database: &str) {
        self.0.lock().change(database, |pair| pair.logins = Door::Closed);
    }

    pub(super) fn enable(&self, database: &str) {
        self.0.lock().change(database, |pair| pair.logins = Door::Open);
    }

    pub(super) fn snapshot(&self) -> ControlSnapshot {
        let state = self.0.lock();
        let those = |which: fn(&Pair) -> bool| {
            let chosen = state.databases.iter().filter(|(_, pair)| which(pair));
            chosen.map(|(name, _)| Arc::clone(name)).collect()
        };
        ControlSnapshot {
            flow: state.flow,
            paused: those(|pair| pair.work == Door::Closed),
            disabled: those(|pair| pair.logins == Door::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_closed_takes_memory() {
        let doors = Doors::default();
        doors.pause("a");
        doors.disable("a");
        doors.disable("b");
        assert!(doors.is_paused("a") && doors.is_disabled("b") && !doors.is_paused("b"));
        assert!(doors.resume("a") && !doors.resume("a") && !doors.resume("c"));
        doors.enable("a");
        doors.enable("b");
        assert!(doors.0.lock().databases.is_empty());
    }

    #[test]
    fn a_pause_of_all_is_none_of_one() {
        let doors = Doors::default();
        doors.turn(Flow::Running, Flow::Paused).unwrap();
        assert!(doors.is_paused("a") && !doors.is_paused_itself("a"));
        assert_eq!(doors.turn(Flow::Running, Flow::Suspended), Err(Flow::Paused));
        doors.pause("a");
        doors.turn(Flow::Paused, Flow::Running).unwrap();
        assert!(doors.is_paused("a") && !doors.is_paused("b"));
        assert_eq!(doors.snapshot().paused, [Arc::from("a")]);
    }
}
