//! Forebay's configuration file, as an operator would write it for what is played.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Login, Ports};
use crate::demo::authority::Authority;
use crate::demo::call::KEY_PREFIX;
use crate::demo::database::Database;
use crate::demo::services::{Outside, SERVICES, TENANTS};

/// Connections to each tool, at the most: 70 % of the 50 that such services allow.
pub(crate) const TOOL_BUDGET: u32 = 35;
/// Connections to the model, at the most.
pub(crate) const MODEL_BUDGET: u32 = 70;
/// Server connections that only core may use.
pub(crate) const CORE_GUARANTEE: u32 = 4;
/// Server connections that only retrievals may use.
pub(crate) const RETRIEVAL_GUARANTEE: u32 = 2;
/// Server connections that agents may have, at the most.
pub(crate) const AGENT_CEILING: u32 = 14;
/// Requests of an AI class that may wait, for each connection it can get.
pub(crate) const QUEUE_FACTOR: u32 = 4;
/// How long core may wait for a server connection.
pub(crate) const CORE_PATIENCE: Duration = Duration::from_secs(30);
/// How long AI classes may wait for a server connection.
pub(crate) const AI_PATIENCE: Duration = Duration::from_secs(60);
/// The application_name of the core part.
pub(crate) const CORE_NAME: &str = "shop";
/// The application_name of retrievals.
pub(crate) const RETRIEVAL_NAME: &str = "retrieval";
/// The application_name of agents.
pub(crate) const AGENT_NAME: &str = "agent";

/// The user of the product, at Forebay.
pub(super) const USER: &str = "shop";
/// The tenant of everybody who uses the database.
pub(crate) const TENANT: &str = TENANTS[0];

/// What Forebay stands in front of, beside the database.
pub(crate) struct Front<'a> {
    /// Server connections, at the most.
    pub(crate) budget: usize,
    /// Connections to the model, at the most.
    pub(crate) model_budget: u32,
    /// Settings of the server beside its address and budget, one a line.
    pub(crate) settings: &'a str,
    /// Which application_name has which class; the others are core.
    pub(crate) rules: &'a [(&'a str, &'a str)],
    /// The services and who signs their certificates, where they take part.
    pub(crate) services: Option<(&'a Outside, &'a Authority)>,
}

/// The server's settings beside retrievals and agents.
pub(crate) fn shared_settings() -> String {
    let (core, ai) = (CORE_PATIENCE.as_secs(), AI_PATIENCE.as_secs());
    format!(
        r#"ai_share = 100                  # the ceilings below say it
queue_factor = {QUEUE_FACTOR}                # agents would rather wait than fail
classes.core = {{ kind = "core", guarantee = {CORE_GUARANTEE}, checkout_timeout = "{core}s" }}
classes.ai-read = {{ guarantee = {RETRIEVAL_GUARANTEE}, checkout_timeout = "{ai}s" }}
classes.ai-write = {{ ceiling = {AGENT_CEILING}, checkout_timeout = "{ai}s" }}"#
    )
}

/// Whose class is not core beside retrievals and agents.
pub(crate) const SHARED_RULES: [(&str, &str); 2] =
    [(RETRIEVAL_NAME, "ai-read"), (AGENT_NAME, "ai-write")];

impl Front<'_> {
    /// The whole file; certificates that it names are written into `folder`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn configuration(
        &self,
        ports: Ports,
        user: &Login,
        database: &Database,
        folder: &Path,
    ) -> io::Result<String> {
        let mut text = format!("[admin]\nlisten = \"{}\"\n\n", ports.admin);
        text.push_str(&self.postgres(ports, user, database));
        if let Some((outside, authority)) = self.services {
            let ca = quoted(&authority.write(folder)?.to_string_lossy());
            write!(text, "\n[http]\nlisten = \"{}\"\n", ports.http).ok();
            self.http(&mut text, outside, &ca);
        }
        Ok(text)
    }

    fn postgres(&self, ports: Ports, user: &Login, database: &Database) -> String {
        let server_user = quoted(database.config().get_user().unwrap_or("postgres"));
        let password = database.config().get_password().unwrap_or(b"");
        let server_password = match &*String::from_utf8_lossy(password) {
            "" => String::new(),
            password => format!("\nserver_password = {}", quoted(password)),
        };
        let mut text = format!(
            r#"[postgres]
listen = "{listen}"

[postgres.servers.main]
address = {address}
sslmode = "disable"
budget = {budget}
{settings}

[postgres.databases.{name}]

[postgres.users.{USER}]
password = "{password}"
server_user = {server_user}{server_password}
tenant = "{TENANT}"
"#,
            listen = ports.postgres,
            address = quoted(&database.address()),
            budget = self.budget,
            settings = self.settings,
            name = database.name(),
            password = user.password,
        );
        for (application, class) in self.rules {
            write!(
                text,
                "\n[[postgres.rules]]\napplication_name = \"{application}\"\nclass = \"{class}\"\n"
            )
            .ok();
        }
        text
    }

    /// Appends the tools and the model.
    fn http(&self, text: &mut String, outside: &Outside, ca: &str) {
        for tenant in TENANTS {
            write!(text, "\n[http.tenants.{tenant}]\nkey = \"{KEY_PREFIX}{tenant}\"\n").ok();
        }
        for service in SERVICES {
            let Some(address) = outside.tool(service) else { continue };
            write!(
                text,
                "\n[http.destinations.{service}]\nurl = \"https://{address}\"\nca_file = {ca}\n\
                 budget = {TOOL_BUDGET}\nshare_connections = true\n"
            )
            .ok();
            for tenant in TENANTS {
                write!(
                    text,
                    "\n[http.destinations.{service}.tenants.{tenant}]\n\
                     type = \"oauth2-client-credentials\"\n\
                     token_url = \"https://{issuer}/token\"\nca_file = {ca}\n\
                     client_id = \"{tenant}\"\nclient_secret = \"{secret}\"\n\
                     audience = \"{service}\"\n",
                    issuer = outside.issuer(),
                    secret = outside.secret(tenant),
                )
                .ok();
            }
        }
        write!(
            text,
            "\n[http.destinations.llm]\nurl = \"https://{model}\"\nca_file = {ca}\n\
             budget = {budget}\n\n[http.destinations.llm.auth]\ntype = \"bearer\"\n\
             secret = \"{key}\"\n",
            budget = self.model_budget,
            model = outside.model(),
            key = outside.model_key(),
        )
        .ok();
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
