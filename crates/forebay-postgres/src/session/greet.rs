//! The end of a login: what the server is like, and the client's key.
//!
//! What a server reports of itself is remembered for each identity, so a login usually needs
//! no server. Settings that were not tried before are tried now, so that a wrong one fails
//! the login and not a later statement.

use forebay_pool::{Ask, Condition};
use forebay_seam::time;

use super::reload::Followed;
use super::{End, Session};
use crate::fault::Fault;
use crate::server::ServerFailure;
use crate::timeouts::Kind;
use crate::welcome::Welcome;
use crate::wire::TxStatus;
use crate::wire::backend;

impl Session {
    /// ParameterStatus, BackendKeyData, ReadyForQuery.
    pub(super) async fn greet(&mut self) -> Result<(), End> {
        let server = self.who.backend.pool.destination();
        let known = self.gateway.welcomes.get(server, &self.who.identity, &self.wanted);
        let welcome = match known {
            Some(welcome) => welcome,
            None => self.meet_server().await?,
        };
        self.wanted = welcome.settings;
        self.wanted_at_start.clone_from(&self.wanted);
        backend::authentication(&mut self.outbox, 0, &[]);
        for (name, value) in welcome.reported.iter() {
            backend::parameter_status(&mut self.outbox, name, value);
        }
        self.reported = welcome.reported;
        let (pid, secret) = self.registration.key(&self.plan.fleet);
        backend::backend_key_data(&mut self.outbox, pid, &secret);
        backend::ready_for_query(&mut self.outbox, TxStatus::Idle);
        Ok(())
    }

    /// Asks a server what a session with these settings looks like. A client that leaves while
    /// it waits in line gives up its place.
    async fn meet_server(&mut self) -> Result<Welcome, End> {
        let mut lease = loop {
            let class = self.who.class(None);
            let ask = Ask::new(self.who.identity.clone(), class);
            match self.check_out(&ask).await? {
                Err(Fault::Stopping) if self.follow_plan()? == Followed::Another => {}
                checkout => break checkout?,
            }
        };
        self.registration.client.rests();
        let server = &mut **lease.connection();
        let mut settings = self.wanted.clone();
        if let Some(replay) = server.settings.replay_of(&settings) {
            let limit = self.plan.settings.login_timeout;
            match time::timeout(limit, server.run(&replay.sql)).await {
                Ok(Ok(())) => {}
                Ok(Err(ServerFailure::Refused(said))) => return Err(Fault::Refused(said).into()),
                Err(_) => {
                    self.gateway.timeouts.count(Kind::Login);
                    return Err(Fault::LoginTimeout.into());
                }
                Ok(Err(failure)) => return Err(Fault::Replay(failure.to_string()).into()),
            }
            server.settings.replayed(&mut settings);
        }
        let welcome = Welcome { reported: server.settings.now.clone(), settings };
        let unnamed = server.settings.base.get("application_name").unwrap_or_default();
        let name = self.who.backend.pool.destination();
        let (welcomes, identity) = (&self.gateway.welcomes, &self.who.identity);
        welcomes.remember(name, identity, &self.wanted, &welcome, unnamed);
        let condition = if server.is_clean() { Condition::Clean } else { Condition::Unknown };
        lease.give_back(condition);
        Ok(welcome)
    }
}
