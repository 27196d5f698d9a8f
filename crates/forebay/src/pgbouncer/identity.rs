//! As which user of the system the program runs.

use std::ffi::CString;

use nix::unistd::{User, getuid, initgroups, setgid, setuid};

/// Why the user cannot be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is none of that name.
    #[error("there is no user `{0}` on this system")]
    Unknown(String),
    /// The system refuses.
    #[error("cannot run as user `{user}`: {reason}; only root may change it")]
    Refused {
        /// The user.
        user: String,
        /// What the system says.
        reason: nix::Error,
    },
}

/// Becomes the user `name`, with its groups, for good. Nothing happens where it is that user
/// already.
///
/// # Errors
/// When there is no such user, or the system refuses.
pub(super) fn become_user(name: &str) -> Result<(), IdentityError> {
    let refused = |reason| IdentityError::Refused { user: name.to_owned(), reason };
    let user = User::from_name(name).map_err(refused)?;
    let user = user.ok_or_else(|| IdentityError::Unknown(name.to_owned()))?;
    if user.uid == getuid() {
        return Ok(());
    }
    let unknown = |_| IdentityError::Unknown(name.to_owned());
    initgroups(&CString::new(name).map_err(unknown)?, user.gid).map_err(refused)?;
    setgid(user.gid).map_err(refused)?;
    setuid(user.uid).map_err(refused)
}

/// Does it run as root?
pub(super) fn is_root() -> bool {
    getuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_is_not_there_is_an_error_and_our_own_is_none() {
        assert!(matches!(become_user("no-such-user"), Err(IdentityError::Unknown(_))));
        let own = User::from_uid(getuid()).unwrap().unwrap();
        become_user(&own.name).unwrap();
    }
}
