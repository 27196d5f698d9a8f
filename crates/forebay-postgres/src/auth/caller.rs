//! A client, as its connection shows it: nothing that it says itself.

use nix::unistd::{Uid, User};
use tokio::task::spawn_blocking;

use super::hba::From;

/// How a client came, and what that proves of it.
pub(crate) struct Caller {
    pub(crate) from: From,
    /// The hash of the certificate that we showed it, where there is TLS.
    pub(crate) binding: Option<Vec<u8>>,
    /// The certificate that it showed, and that is trusted.
    pub(crate) certificate: Option<Shown>,
    /// The user of the process at the other end of a Unix socket.
    pub(crate) uid: Option<u32>,
}

/// A client's certificate, as far as it matters.
pub(crate) struct Shown {
    /// The only common name of its subject.
    pub(crate) common_name: Option<String>,
}

impl Caller {
    /// The name in its certificate.
    pub(crate) fn common_name(&self) -> Option<String> {
        self.certificate.as_ref()?.common_name.clone()
    }

    /// The name of the user that the process at the other end runs as. Names may come from
    /// the network, so this is asked elsewhere.
    pub(crate) async fn process_user(&self) -> Option<String> {
        let uid = Uid::from_raw(self.uid?);
        let asked = spawn_blocking(move || User::from_uid(uid).ok().flatten());
        asked.await.ok().flatten().map(|user| user.name)
    }
}
