//! Looks that failed although nothing speaks against the proof: a server that stopped, a
//! connection that was lost, a limit of time.
//!
//! Each costs the transaction that was looked at, so they must stay rare. Always true: within
//! [`WINDOW`] there are no more than [`MOST`], and those that had been asked for already.

use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time::Instant;

use crate::server::ServerFailure;
use crate::wire::backend::ServerError;

/// As many are nothing but bad luck.
const MOST: u32 = 3;
/// Within this; and nothing is looked at for so long when there were more.
const WINDOW: Duration = Duration::from_secs(60);

/// Mishaps of late.
#[derive(Debug, Default)]
pub(super) struct Mishaps {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the first of these was.
    first: Option<Instant>,
    count: u32,
    /// Nothing is looked at before then.
    until: Option<Instant>,
}

/// What came of one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    GoesOn,
    /// From now on nothing is looked at for a while.
    Pauses,
}

impl Mishaps {
    /// One more, `now`.
    pub(super) fn one_more(&self, now: Instant) -> After {
        let mut state = self.state.lock();
        if state.first.is_none_or(|first| first + WINDOW <= now) {
            (state.first, state.count) = (Some(now), 0);
        }
        state.count += 1;
        if state.count < MOST {
            return After::GoesOn;
        }
        let was_paused = state.until.is_some_and(|until| until > now);
        *state = State { until: Some(now + WINDOW), ..State::default() };
        if was_paused { After::GoesOn } else { After::Pauses }
    }

    /// May a transaction be looked at `now`?
    ///
    /// # Errors
    /// Not before then.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Instant> {
        self.state.lock().until.filter(|until| *until > now).map_or(Ok(()), Err)
    }
}

/// Does what failed say that the proof itself cannot be used?
pub(super) fn speaks_against_proof(failure: &ServerFailure) -> bool {
    match failure {
        ServerFailure::Refused(said) => said_against_proof(said),
        ServerFailure::Protocol(_) => true,
        ServerFailure::Io(_)
        | ServerFailure::Tls(_)
        | ServerFailure::Auth(_)
        | ServerFailure::Unfit(_)
        | ServerFailure::Moving(_) => false,
    }
}

/// Does a refusal? What says only that it was not the moment does not: a server that stops, a
/// cancel, a limit of time, of room or of a lock, a deadlock.
pub(super) fn said_against_proof(said: &ServerError) -> bool {
    let of_moment = ["40", "53", "57", "25P0", "55P03"];
    !of_moment.iter().any(|start| said.code.starts_with(start))
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use super::*;
    use crate::wire::Malformed;

    #[test]
    fn repeated_mishaps_make_a_pause_and_single_ones_do_not() {
        let (mishaps, start) = (Mishaps::default(), time::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [0, 30, 60, 90, 120, 121] {
            assert_eq!(mishaps.one_more(at(seconds)), After::GoesOn);
            assert_eq!(mishaps.admit(at(seconds)), Ok(()));
        }
        assert_eq!(mishaps.one_more(at(122)), After::Pauses, "the third within a minute");
        assert_eq!(mishaps.admit(at(123)), Err(at(182)));
        for _ in 0..9 {
            assert_eq!(mishaps.one_more(at(123)), After::GoesOn, "it pauses already");
        }
        assert!(mishaps.admit(at(182)).is_err());
        assert_eq!(mishaps.admit(at(183)), Ok(()));
    }

    #[test]
    fn only_what_speaks_against_the_proof_itself_closes_parking() {
        let refused = |code: &str| {
            let body = format!("SERROR\0C{code}\0Mno\0\0");
            ServerFailure::Refused(ServerError::read(body.as_bytes()))
        };
        for code in ["57014", "57P01", "25P03", "25P04", "40P01", "53200", "55P03"] {
            assert!(!speaks_against_proof(&refused(code)), "{code}");
        }
        for code in ["42501", "42883", "25001", "25P", "XX000"] {
            assert!(speaks_against_proof(&refused(code)), "{code}");
        }
        assert!(speaks_against_proof(&Malformed::Value.into()));
        assert!(!speaks_against_proof(&std::io::Error::other("gone").into()));
    }
}
