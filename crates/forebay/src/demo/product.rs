//! A product in front of nothing but a database: its people log in, its agents work.
//!
//! Without Forebay the two share one client-side pool as large as the server connections;
//! with it each has connections to Forebay, and Forebay the same number of server
//! connections. The scenarios ask a [`Product`] and do not know which it is.

use std::sync::Arc;

use super::client_pool::{self, ClientPool};
use super::database::{Database, Server};
use super::gateway::{CORE_NAME, Forebay, Front, MODEL_BUDGET, Seen};
use super::side::{Side, SideError, Stage, machine_setup};
use super::watch::Watch;

/// Server connections, of both sides.
pub(crate) const SERVER_CONNECTIONS: usize = 20;
/// Connections of the logins to Forebay.
const CORE_CONNECTIONS: usize = 20;

/// How one scenario has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The application_name of the agents.
    pub(crate) application: &'static str,
    /// Their class in Forebay.
    pub(crate) class: &'static str,
    /// Their connections to Forebay, so many that nobody waits for one of them.
    pub(crate) connections: usize,
    /// Forebay's settings of the server, one a line, beside its address.
    pub(crate) settings: &'static str,
}

/// The product, connected.
pub(crate) struct Product {
    /// For logins.
    pub(crate) core: Arc<ClientPool>,
    /// For agents; without Forebay the same.
    pub(crate) agents: Arc<ClientPool>,
    /// Looks at the database.
    pub(crate) watch: Watch,
    /// On its side.
    pub(crate) forebay: Option<Forebay>,
}

impl Stage<'_> {
    /// A fresh database, Forebay on its side, and the product connected.
    pub(crate) async fn product(&self, side: Side, plan: &Plan) -> Result<Product, SideError> {
        let database = self.server.create().await?;
        let watch = self.server.watch(&database).await?;
        match side {
            Side::Without => Ok(Product::direct(&database, watch).await?),
            Side::With => {
                let front = Front {
                    budget: SERVER_CONNECTIONS,
                    model_budget: MODEL_BUDGET,
                    settings: plan.settings,
                    rules: &[(plan.application, plan.class)],
                    services: None,
                };
                let forebay = Forebay::start(&database, &front).await?;
                Ok(Product::through(forebay, plan, watch).await?)
            }
        }
    }
}

impl Product {
    async fn direct(database: &Database, watch: Watch) -> Result<Self, tokio_postgres::Error> {
        let all = ClientPool::open(database.config(), CORE_NAME, SERVER_CONNECTIONS).await?;
        Ok(Self { core: Arc::clone(&all), agents: all, watch, forebay: None })
    }

    async fn through(
        forebay: Forebay,
        plan: &Plan,
        watch: Watch,
    ) -> Result<Self, tokio_postgres::Error> {
        let config = forebay.config();
        let core = ClientPool::open(&config, CORE_NAME, CORE_CONNECTIONS).await?;
        let agents = ClientPool::open(&config, plan.application, plan.connections).await?;
        Ok(Self { core, agents, watch, forebay: Some(forebay) })
    }

    /// What Forebay saw; nothing without it.
    pub(crate) async fn seen(&self) -> Result<Seen, SideError> {
        match &self.forebay {
            Some(forebay) => Ok(forebay.seen().await?),
            None => Ok(Seen::default()),
        }
    }

    /// Hangs up, and stops Forebay in order.
    pub(crate) async fn end(self) {
        let Self { core, agents, forebay, .. } = self;
        drop((core, agents));
        if let Some(forebay) = forebay {
            forebay.stop().await;
        }
    }
}

/// How `side` is set up for a `workload`, in sentences.
pub(crate) fn setup(workload: String, side: Side, plan: &Plan, server: &Server) -> Vec<String> {
    let configured = match side {
        Side::Without => format!(
            "one client-side pool of {SERVER_CONNECTIONS} connections for all, first come first \
             served, waits up to {:?}",
            client_pool::PATIENCE
        ),
        Side::With => format!(
            "each client its own connection to Forebay ({CORE_CONNECTIONS} for logins, {} for \
             agents, which are of class {}); Forebay: transaction pooling, {}",
            plan.connections,
            plan.class,
            plan.settings.trim().lines().collect::<Vec<_>>().join(", "),
        ),
    };
    vec![workload, machine_setup(server), configured]
}
