//! What a server is in a cluster, as it says itself, and which of them a pool wants.
//!
//! Nothing is guessed from configuration or from an error: the server reports its role with
//! each login since version 14 (`in_hot_standby`, `default_transaction_read_only`), older ones
//! are asked.

use super::{Server, ServerFailure};
use crate::params::Applied;
use crate::settings::SessionAttrs;

/// What older servers are asked: as libpq does.
const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery()::text || ' ' || \
     pg_catalog.current_setting('default_transaction_read_only')";

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A primary whose sessions may write.
    Primary,
    /// A primary whose sessions are read only unless they say otherwise.
    ReadOnlyPrimary,
    /// A replica.
    Standby,
}

impl Role {
    fn of(standby: &str, read_only: &str) -> Option<Self> {
        match (standby, read_only) {
            ("on" | "true", _) => Some(Self::Standby),
            ("off" | "false", "on") => Some(Self::ReadOnlyPrimary),
            ("off" | "false", "off") => Some(Self::Primary),
            _ => None,
        }
    }

    /// As a server of version 14 or later reports it.
    pub(crate) fn reported(settings: &Applied) -> Option<Self> {
        let standby = settings.now.get("in_hot_standby")?;
        Self::of(standby, settings.base.get("default_transaction_read_only")?)
    }

    /// The role of `server`: reported, or asked for.
    pub(crate) async fn of_server(server: &mut Server) -> Result<Option<Self>, ServerFailure> {
        if let Some(role) = Self::reported(&server.settings) {
            return Ok(Some(role));
        }
        let answer = match server.ask(QUESTION).await {
            Ok(answer) => answer,
            // Something that speaks PostgreSQL and is none.
            Err(ServerFailure::Refused(_)) => None,
            Err(failure) => return Err(failure),
        };
        let parts = answer.as_deref().and_then(|answer| answer.split_once(' '));
        Ok(parts.and_then(|(standby, read_only)| Self::of(standby, read_only)))
    }

    /// As metrics and views name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::ReadOnlyPrimary => "read-only-primary",
            Self::Standby => "standby",
        }
    }
}

/// How well a role fits what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    Wanted,
    /// If there is no better one.
    Acceptable,
    Not,
}

impl SessionAttrs {
    /// libpq's meanings ("Connection Control Functions, target_session_attrs"). A server that
    /// does not say what it is fits where nothing is asked of it.
    pub(crate) fn fit(self, role: Option<Role>) -> Fit {
        let fits = match (self, role) {
            (Self::Any, _) => true,
            (Self::PreferStandby, Some(Role::Standby)) => true,
            (Self::PreferStandby, _) => return Fit::Acceptable,
            (_, None) => false,
            (Self::ReadWrite, Some(role)) => role == Role::Primary,
            (Self::ReadOnly, Some(role)) => role != Role::Primary,
            (Self::Primary, Some(role)) => role != Role::Standby,
            (Self::Standby, Some(role)) => role == Role::Standby,
        };
        if fits { Fit::Wanted } else { Fit::Not }
    }

    /// Is it one server of the cluster that is wanted, the one that takes writes?
    pub(crate) fn is_of_the_primary(self) -> bool {
        matches!(self, Self::ReadWrite | Self::Primary)
    }

    /// May a primary be used, so that it matters whether another one has replaced it?
    pub(crate) fn asks_primaries_for_history(self) -> bool {
        self.is_of_the_primary() || self == Self::PreferStandby
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_fit_as_libpq_says() {
        let roles = [Role::Primary, Role::ReadOnlyPrimary, Role::Standby];
        for (attrs, fits) in [
            (SessionAttrs::Any, [true, true, true]),
            (SessionAttrs::ReadWrite, [true, false, false]),
            (SessionAttrs::ReadOnly, [false, true, true]),
            (SessionAttrs::Primary, [true, true, false]),
            (SessionAttrs::Standby, [false, false, true]),
            (SessionAttrs::PreferStandby, [false, false, true]),
        ] {
            for (role, fits) in roles.into_iter().zip(fits) {
                assert_eq!(attrs.fit(Some(role)) == Fit::Wanted, fits, "{attrs:?} {role:?}");
            }
        }
        assert_eq!(SessionAttrs::PreferStandby.fit(Some(Role::Primary)), Fit::Acceptable);
        assert_eq!(SessionAttrs::ReadWrite.fit(None), Fit::Not);
        assert_eq!(SessionAttrs::Any.fit(None), Fit::Wanted);
    }

    #[test]
    fn what_servers_say_is_read_in_both_spellings() {
        assert_eq!(Role::of("on", "off"), Some(Role::Standby));
        assert_eq!(Role::of("false", "on"), Some(Role::ReadOnlyPrimary));
        assert_eq!(Role::of("off", "off"), Some(Role::Primary));
        assert_eq!(Role::of("maybe", "off"), None);
    }
}
