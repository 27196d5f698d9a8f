//! One scenario on one side: sets everything up afresh, runs the workload, reads all the
//! counters, takes everything down again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::authority::{Authority, AuthorityError};
use super::call::Way;
use super::client_pool::{self, ClientPool};
use super::database::{Database, DatabaseError, Server, told};
use super::gateway::{
    self, Forebay, Front, GatewayError, MODEL_BUDGET, SHARED_RULES, shared_settings,
};
use super::generation_hold::HoldError;
use super::issuer::EXCHANGE;
use super::logins::LOGINS;
use super::model::THINKING;
use super::neighbour::{self, Roads};
use super::product::SERVER_CONNECTIONS;
use super::progress::Progress;
use super::report::{Counts, Figures, NeighbourMore, StormMore};
use super::services::{DISTANCE, Outside, SERVICES, TENANTS, WORK};
use super::storm;

/// Connections of the product to Forebay, for each part of the workload.
const CORE_CONNECTIONS: usize = 20;
const RETRIEVAL_CONNECTIONS: usize = 4 * neighbour::FAN_OUT;

/// Which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// As an application has it today.
    Without,
    /// Through Forebay.
    With,
}

/// Why a scenario could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SideError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The services.
    #[error("cannot start the services: {0}")]
    Services(#[from] io::Error),
    /// Their certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Forebay.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The agents' programs, or PgBouncer.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The workload's clients cannot connect.
    #[error("cannot connect the workload's clients: {}", told(.0))]
    Clients(#[from] tokio_postgres::Error),
}

/// Where scenarios are played.
pub(crate) struct Stage<'a> {
    /// The PostgreSQL.
    pub(crate) server: &'a Server,
    /// Signs the services' certificates.
    pub(crate) authority: Authority,
    /// Tells what is going on.
    pub(crate) progress: Progress,
    /// An interpreter with the packages of the agents' programs.
    pub(crate) python: Option<PathBuf>,
}

/// Everything that one run needs, started. Ends when dropped.
pub(crate) struct Scene {
    /// The services.
    pub(crate) outside: Arc<Outside>,
    /// The database.
    pub(crate) database: Database,
    /// Forebay, on its side.
    pub(crate) forebay: Option<Forebay>,
}

impl Side {
    /// As people say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Without => "without Forebay",
            Self::With => "with Forebay",
        }
    }
}

impl Stage<'_> {
    /// Starts services, a database and, on its side, Forebay; all counters at zero.
    pub(crate) async fn set(&self, side: Side) -> Result<Scene, SideError> {
        let outside = Arc::new(Outside::start(&self.authority)?);
        let database = self.server.create().await?;
        let forebay = match side {
            Side::Without => None,
            Side::With => {
                let front = Front {
                    budget: SERVER_CONNECTIONS,
                    model_budget: MODEL_BUDGET,
                    settings: &shared_settings(),
                    rules: &SHARED_RULES,
                    services: Some((&outside, &self.authority)),
                };
                Some(Forebay::start(&database, &front).await?)
            }
        };
        Ok(Scene { outside, database, forebay })
    }

    /// The connection storm.
    pub(crate) async fn storm(&self, side: Side) -> Result<Figures<StormMore>, SideError> {
        let scene = self.set(side).await?;
        let way = scene.way(&self.authority);
        let parts = (storm::AGENTS * storm::TASKS) as u64;
        let step = self.progress.counted(&format!("connection storm, {}", side.name()), parts);
        let seen = storm::run(&way, step).await;
        let counts = scene.counts(None).await?;
        scene.end().await;
        Ok(Figures::of_storm(&seen, &counts, storm_setup(side, self.server)))
    }

    /// The noisy neighbour.
    pub(crate) async fn neighbour(&self, side: Side) -> Result<Figures<NeighbourMore>, SideError> {
        let scene = self.set(side).await?;
        let roads = scene.roads(&self.authority).await?;
        let seen = neighbour::run(&roads, side.name(), self.progress).await;
        drop(roads);
        let counts = scene.counts(Some(self.server)).await?;
        scene.end().await;
        Ok(Figures::of_neighbour(
            &seen,
            &counts,
            neighbour::BESIDE,
            neighbour_setup(side, self.server),
        ))
    }
}

impl Scene {
    fn way(&self, authority: &Authority) -> Way {
        match &self.forebay {
            None => Way::direct(authority, &self.outside),
            Some(forebay) => Way::Forebay(forebay.http()),
        }
    }

    /// The database connections of each part of the product.
    async fn roads(&self, authority: &Authority) -> Result<Roads, tokio_postgres::Error> {
        let way = self.way(authority);
        let Some(forebay) = &self.forebay else {
            let (config, size) = (self.database.config(), SERVER_CONNECTIONS);
            let all = ClientPool::open(config, gateway::CORE_NAME, size).await?;
            let (core, retrieval, agents) = (Arc::clone(&all), Arc::clone(&all), all);
            return Ok(Roads { core, retrieval, agents, way });
        };
        let config = forebay.config();
        let open = async |name, size| ClientPool::open(&config, name, size).await;
        Ok(Roads {
            core: open(gateway::CORE_NAME, CORE_CONNECTIONS).await?,
            retrieval: open(gateway::RETRIEVAL_NAME, RETRIEVAL_CONNECTIONS).await?,
            agents: open(gateway::AGENT_NAME, neighbour::AGENTS).await?,
            way,
        })
    }

    /// Reads every counter; PostgreSQL's where it took part.
    async fn counts(&self, server: Option<&Server>) -> Result<Counts, SideError> {
        let holds = match &self.forebay {
            Some(forebay) => forebay.seen().await?.holds(),
            None => 0,
        };
        let sessions = match server {
            Some(server) => server.sessions(&self.database).await?,
            None => 0,
        };
        let exchanges = self.outside.exchanges().into_values().collect();
        Ok(Counts { services: self.outside.counted(), exchanges, sessions, holds })
    }

    /// Stops Forebay in order; the rest ends by being dropped.
    pub(crate) async fn end(self) {
        if let Some(forebay) = self.forebay {
            forebay.stop().await;
        }
    }
}

fn storm_setup(side: Side, server: &Server) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{} agents of {} tenants, {} tasks each, {}-{} calls at once a task, {} services; \
             agents begin within {:?} and rest {:?} +- 50 % after a task",
            storm::AGENTS,
            TENANTS.len(),
            storm::TASKS,
            storm::CALLS.start(),
            storm::CALLS.end(),
            SERVICES.len(),
            storm::START,
            storm::PAUSE,
        ),
        outside_setup(),
        machine_setup(server),
    ];
    lines.push(match side {
        Side::Without => "each call opens a TLS connection to the issuer for a token and one to \
                          the service, without session resumption, and closes both"
            .to_owned(),
        Side::With => format!(
            "each call opens a plain connection to Forebay on this machine and shows its tenant's \
             key; Forebay: budget {} connections a service, share_connections = true (bearer \
             tokens are stateless), OAuth2 client credentials for each tenant and service",
            gateway::TOOL_BUDGET
        ),
    });
    lines
}

fn neighbour_setup(side: Side, server: &Server) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{} logins a second (2 ms, open loop, timed from when they were due) for {:?} alone \
             and {:?} beside {} retrievals a second of {} parallel queries (15 ms) and {} agents \
             that hold a transaction across a model's answer ({:?}) and then rest {:?} +- 50 %",
            LOGINS,
            neighbour::ALONE,
            neighbour::BESIDE,
            neighbour::RETRIEVALS,
            neighbour::FAN_OUT,
            neighbour::AGENTS,
            THINKING,
            neighbour::REST,
        ),
        outside_setup(),
        machine_setup(server),
    ];
    lines.push(match side {
        Side::Without => format!(
            "one client-side pool of {} connections for all, first come first served, waits up to \
             {:?}; the model is called directly",
            SERVER_CONNECTIONS,
            client_pool::PATIENCE
        ),
        Side::With => format!(
            "each client its own connection to Forebay ({} core, {} retrieval, {} agents); \
             Forebay: {} server connections, transaction pooling; core guarantee {}, waits up to \
             {:?}; ai-read (retrieval) guarantee {}, ai-write (agents) ceiling {}, both wait up to \
             {:?}, queue_factor {}; the model is called through Forebay, budget {}",
            CORE_CONNECTIONS,
            RETRIEVAL_CONNECTIONS,
            neighbour::AGENTS,
            SERVER_CONNECTIONS,
            gateway::CORE_GUARANTEE,
            gateway::CORE_PATIENCE,
            gateway::RETRIEVAL_GUARANTEE,
            gateway::AGENT_CEILING,
            gateway::AI_PATIENCE,
            gateway::QUEUE_FACTOR,
            MODEL_BUDGET,
        ),
    });
    lines
}

fn outside_setup() -> String {
    format!(
        "services: {DISTANCE:?} from accept to the TLS handshake (stands for the round trips), \
         token exchange {EXCHANGE:?}, work {WORK:?} a call"
    )
}

/// What everything runs on.
pub(crate) fn machine_setup(server: &Server) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{server}; Forebay {}; all on this machine, {cpus} CPUs", crate::view::VERSION)
}
