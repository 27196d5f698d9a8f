//! A second server that follows the first by streaming replication, and becomes the primary
//! when it is told to.

use super::{Cluster, ClusterError, PORTS_TRIED, folder, free_port, system};

impl Cluster {
    /// A hot standby of this server, as it is now: it starts as a copy and follows. Blocks for
    /// a second or two.
    ///
    /// # Errors
    /// As [`Cluster::start`]; [`ClusterError::Start`] also when the copy cannot be made.
    pub fn replica(&self) -> Result<Self, ClusterError> {
        let mut replica = Self {
            server: None,
            folder: folder(self.owner)?,
            binaries: self.binaries.clone(),
            owner: self.owner,
            settings: self.settings.clone(),
            port: 0,
            password: self.password.clone(),
        };
        let mut command = replica.program("pg_basebackup");
        command.arg("-D").arg(replica.data()).args(["-h", "127.0.0.1", "-U", self.user(), "-w"]);
        command.args(["-p", &self.port.to_string(), "-R", "-c", "fast", "--no-sync"]);
        let output = command.env("PGPASSWORD", &self.password).output();
        let output = output.map_err(system("run pg_basebackup"))?;
        if !output.status.success() {
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(ClusterError::Start { reason: "it could not be copied".into(), log });
        }
        let mut tries = 1;
        loop {
            replica.port = free_port().map_err(system("find a free port"))?;
            match replica.launch() {
                Err(ClusterError::Start { log, .. })
                    if tries < PORTS_TRIED && log.contains("Address already in use") =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(replica),
            }
        }
    }

    /// Makes a replica the primary: it takes writes from now on.
    ///
    /// # Errors
    /// When it does not become one.
    pub fn promote(&self) -> Result<(), ClusterError> {
        let mut command = self.program("pg_ctl");
        command.arg("promote").arg("-D").arg(self.data());
        let output = command.output().map_err(system("run pg_ctl"))?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        Err(ClusterError::Start { reason: "it was not promoted".into(), log })
    }
}
