//! The generation hold: programs on SQLAlchemy and Django that read, ask a model for two
//! seconds and write, all in one transaction, unchanged; and people who log in beside them.
//!
//! A server connection that waits for a model serves nobody, so ten of them do five tasks a
//! second whatever the database could do. Forebay gives the connection of a transaction that
//! provably holds nothing to others meanwhile (parking). Several setups do the same work one
//! after the other, each with a database of its own; the model is always asked through
//! Forebay, so that its part is the same in all of them.

use std::time::Duration;

use forebay_pool::Mode;
use tokio_postgres::Config;

use self::agents::{AgentsError, Prepared, Python, Told};
use self::core_clients::CoreClients;
use self::pgbouncer::{Installed, PgBouncer, PgBouncerError, Pool};
use super::database::{Database, Server};
use super::gateway::{AGENT_NAME, Forebay, Front, TENANT};
use super::model::THINKING;
use super::report::generation_hold::{GenerationHoldFigures, Group, HoldRun, Parked};
use super::services::Outside;
use super::side::{SideError, Stage, machine_setup};
use crate::demo::call::KEY_PREFIX;

pub(crate) mod agents;
pub(crate) mod core_clients;
pub(crate) mod pgbouncer;

/// How long the core clients are measured alone.
const ALONE: Duration = Duration::from_secs(3);
/// Agents begin within this time: the time of one answer.
const RAMP: Duration = THINKING;
/// How long everybody is measured.
const MEASURED: Duration = Duration::from_secs(15);
/// Connections to the model: enough for everybody at once.
const MODEL_BUDGET: u32 = 250;

/// Many agents on few connections.
const CROWD: Scale = Scale { agents: 200, connections: 10, core: 2, agents_ceiling: 8 };
/// Fewer, and what matters is who is beside them.
const BESIDE: Scale = Scale { agents: 60, connections: 20, core: 4, agents_ceiling: 16 };

/// How large a run is.
#[derive(Debug, Clone, Copy)]
struct Scale {
    agents: usize,
    /// Server connections.
    connections: usize,
    /// Of these, only core's; or the size of its own pool.
    core: usize,
    /// What agents may have at the most; or the size of their own pool.
    agents_ceiling: usize,
}

/// What stands between the product and its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Nothing.
    Nothing,
    /// PgBouncer with one pool for all.
    OnePool,
    /// PgBouncer with a pool for core and one for agents.
    TwoPools,
    /// Forebay, with parking in this mode.
    Forebay(Mode),
}

/// As the report names them.
pub(crate) const ONE_POOL: &str = "PgBouncer, one pool";
/// The same with two.
pub(crate) const TWO_POOLS: &str = "PgBouncer, two pools";
/// Forebay without parking.
pub(crate) const OFF: &str = "Forebay, off";
/// Forebay with it.
pub(crate) const ENFORCE: &str = "Forebay, enforce";

impl Between {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no pooler",
            Self::OnePool => ONE_POOL,
            Self::TwoPools => TWO_POOLS,
            Self::Forebay(Mode::Off) => OFF,
            Self::Forebay(Mode::Observe) => "Forebay, observe",
            Self::Forebay(Mode::Enforce) => ENFORCE,
        }
    }

    /// What is written for parking.
    fn parking(self) -> &'static str {
        match self {
            Self::Forebay(Mode::Enforce) => "enforce",
            Self::Forebay(Mode::Observe) => "observe",
            Self::Nothing | Self::OnePool | Self::TwoPools | Self::Forebay(Mode::Off) => "off",
        }
    }
}

/// The part of the product that is measured, connected.
struct Product {
    core: Config,
    agents: Config,
    prepared: Prepared,
    _pgbouncer: Option<PgBouncer>,
}

/// Why it could not be played.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    /// The agents' programs.
    #[error(transparent)]
    Agents(#[from] AgentsError),
    /// PgBouncer.
    #[error(transparent)]
    PgBouncer(#[from] PgBouncerError),
}

impl Stage<'_> {
    /// All setups, one after the other.
    pub(crate) async fn generation_hold(&self) -> Result<GenerationHoldFigures, SideError> {
        let python = {
            let _step = self.progress.step("getting the agents' programs ready");
            Python::ready(self.python.as_deref()).await.map_err(HoldError::from)?
        };
        let pgbouncer = pgbouncer::find();
        let crowd = self
            .group(
                &python,
                pgbouncer.as_ref(),
                CROWD,
                &[
                    Between::OnePool,
                    Between::Forebay(Mode::Off),
                    Between::Forebay(Mode::Observe),
                    Between::Forebay(Mode::Enforce),
                ],
            )
            .await?;
        let beside = self
            .group(
                &python,
                pgbouncer.as_ref(),
                BESIDE,
                &[
                    Between::Nothing,
                    Between::OnePool,
                    Between::TwoPools,
                    Between::Forebay(Mode::Enforce),
                ],
            )
            .await?;
        let configuration = configuration(self.server, pgbouncer.as_ref());
        Ok(GenerationHoldFigures { crowd, beside, configuration })
    }

    async fn group(
        &self,
        python: &Python,
        pgbouncer: Option<&Installed>,
        scale: Scale,
        setups: &[Between],
    ) -> Result<Group, SideError> {
        let mut runs = Vec::new();
        for between in setups {
            let needed = matches!(between, Between::OnePool | Between::TwoPools);
            if !needed || pgbouncer.is_some() {
                runs.push(self.hold_run(python, pgbouncer, scale, *between).await?);
            }
        }
        Ok(Group {
            agents: scale.agents,
            connections: scale.connections,
            runs,
            configuration: scale.configuration(),
        })
    }

    async fn hold_run(
        &self,
        python: &Python,
        pgbouncer: Option<&Installed>,
        scale: Scale,
        between: Between,
    ) -> Result<HoldRun, SideError> {
        let what = format!("{} agents, {}", scale.agents, between.name());
        let step = self.progress.counted(&what, (ALONE + RAMP + MEASURED).as_secs());
        let outside = Outside::start(&self.authority)?;
        let database = self.server.create().await?;
        let forebay = self.forebay_between(&database, &outside, scale, between).await?;
        let product = product(&database, &forebay, pgbouncer, scale, between).await?;
        let model = format!("http://{}/llm/v1/chat/completions", forebay.http());
        let told = Told {
            database: &product.agents,
            application: AGENT_NAME,
            model: &model,
            key: &format!("{KEY_PREFIX}{TENANT}"),
            agents: scale.agents,
            ramp: RAMP,
            measured: MEASURED,
            prepared: product.prepared,
        };
        let watch = self.server.watch(&database).await?;
        let measuring = async {
            let crew = python.crew(&told).await.map_err(HoldError::from)?;
            let mut core = CoreClients::connect(&product.core).await?;
            let alone = core.ask(ALONE).await;
            let beside = async {
                forebay_seam::time::sleep(RAMP).await;
                core.ask(MEASURED).await
            };
            let (tasks, beside) = tokio::join!(crew.work(), beside);
            Ok::<_, SideError>((alone, beside, tasks.map_err(HoldError::from)?))
        };
        let (measured, connections) = step.beside(watch.beside(measuring)).await?;
        let (alone, beside, tasks) = measured?;
        let seen = forebay.seen().await?;
        forebay.stop().await;
        let asked = outside.counted().calls;
        let parked =
            matches!(between, Between::Forebay(_)).then(|| Parked::of(seen.parking(), asked));
        Ok(HoldRun::of(between.name(), MEASURED, &alone, &beside, tasks, connections, parked))
    }

    /// Forebay: always for the model, and for the database where it stands between.
    async fn forebay_between(
        &self,
        database: &Database,
        outside: &Outside,
        scale: Scale,
        between: Between,
    ) -> Result<Forebay, SideError> {
        let front = Front {
            budget: scale.connections,
            model_budget: MODEL_BUDGET,
            settings: &scale.settings(between.parking()),
            rules: &[(AGENT_NAME, "ai-write")],
            services: Some((outside, &self.authority)),
        };
        Ok(Forebay::start(database, &front).await?)
    }
}

/// How core and agents connect.
async fn product(
    database: &Database,
    forebay: &Forebay,
    pgbouncer: Option<&Installed>,
    scale: Scale,
    between: Between,
) -> Result<Product, SideError> {
    let same = |config: Config| Product {
        core: config.clone(),
        agents: config,
        prepared: Prepared::Default,
        _pgbouncer: None,
    };
    let all = Pool { name: "product", size: scale.connections };
    let core = Pool { name: "core", size: scale.core };
    let agents = Pool { name: "agents", size: scale.agents_ceiling };
    let (pools, core, agents): (&[Pool], _, _) = match (between, pgbouncer) {
        (Between::Forebay(_), _) => return Ok(same(forebay.config())),
        (Between::Nothing, _) | (_, None) => return Ok(same(database.config().clone())),
        (Between::OnePool, Some(_)) => (&[all], all, all),
        (Between::TwoPools, Some(_)) => (&[core, agents], core, agents),
    };
    let Some(installed) = pgbouncer else { return Ok(same(database.config().clone())) };
    let running = installed.start(database, pools).await.map_err(HoldError::from)?;
    let follows = installed.follows_prepared;
    Ok(Product {
        core: running.config(core.name),
        agents: running.config(agents.name),
        prepared: if follows { Prepared::Default } else { Prepared::Never },
        _pgbouncer: Some(running),
    })
}

impl Scale {
    /// Forebay's settings of the server.
    fn settings(self, parking: &str) -> String {
        let Self { core, agents_ceiling, .. } = self;
        format!(
            r#"ai_share = 100
queue_factor = 100
classes.core = {{ kind = "core", guarantee = {core}, checkout_timeout = "30s" }}
classes.ai-write = {{ ceiling = {agents_ceiling}, checkout_timeout = "120s", parking = "{parking}", park_after = "5ms", unpark_timeout = "60s" }}"#
        )
    }

    fn configuration(self) -> Vec<String> {
        let Self { agents, connections, core, agents_ceiling } = self;
        let settings = self.settings("off | observe | enforce");
        vec![
            format!(
                "{agents} agents over {connections} server connections, for {MEASURED:?} after \
                 {RAMP:?} in which they begin"
            ),
            format!("Forebay: {}", settings.lines().collect::<Vec<_>>().join(", ")),
            format!(
                "PgBouncer: transaction pooling, one pool of {connections}, or two pools, {core} \
                 for core and {agents_ceiling} for agents; nobody waits in vain there either"
            ),
        ]
    }
}

fn configuration(server: &Server, pgbouncer: Option<&Installed>) -> Vec<String> {
    let other = match pgbouncer {
        None => "PgBouncer is not on this machine: its rows are missing".to_owned(),
        Some(installed) if installed.follows_prepared => installed.version.clone(),
        Some(installed) => format!(
            "{}, which loses prepared statements in transaction pooling: there alone the agents' \
             driver is told not to prepare",
            installed.version
        ),
    };
    vec![
        format!(
            "a third of the agents each on SQLAlchemy's ORM, the same with asyncio, and Django's \
             atomic() views, on psycopg, in default settings but for client-side pools as large \
             as the agents are many; each task is one transaction: read an account, ask the model \
             ({THINKING:?}) through Forebay, write a row. The programs know nothing of Forebay and \
             send no trace ids; they run at the lowest priority, as they would on machines of \
             their own"
        ),
        format!(
            "beside them {} core clients, each with a connection of its own, ask a query of 5 ms \
             every {:?} (open loop, timed from when it was due); they are measured alone for \
             {ALONE:?} before",
            core_clients::CLIENTS,
            core_clients::EVERY,
        ),
        other,
        machine_setup(server),
    ]
}
