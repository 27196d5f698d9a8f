//! What is measured: nginx, HAProxy and Forebay as child processes with a file each, or nothing.
//!
//! All have one thread, keep connections to the origins, check their certificates, and stand at a
//! plain port on this machine. Ended when dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::authority::Authority;
use crate::cpu;
use crate::origin::{Origins, TENANTS};

/// Connections to each origin where the run bounds them: 0.7 times the documented 50.
pub const BOUND: usize = 35;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Direct,
    Nginx,
    NginxTokens,
    HaProxy,
    HaProxyTokens,
    Forebay,
}

/// Whether connections to the origins are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    None,
    Bounded,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::NginxTokens => "nginx +tok",
            Self::HaProxy => "HAProxy",
            Self::HaProxyTokens => "HAProxy +tok",
            Self::Forebay => "Forebay",
        }
    }

    /// Whether agents keep their tokens themselves, as nothing but a gateway that holds
    /// credentials would do it for them.
    pub fn keeps_tokens(self) -> bool {
        matches!(self, Self::NginxTokens | Self::HaProxyTokens)
    }
}

/// A running one.
pub struct Proxy {
    pub address: SocketAddr,
    pub configuration: String,
    child: Option<Child>,
    _folder: TempDir,
}

impl Proxy {
    pub async fn start(
        target: Target,
        origins: &Origins,
        authority: &Authority,
        bounds: Bounds,
        forebay: &Path,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = free()?;
        let ca = folder.path().join("ca.pem");
        authority.write(&ca)?;
        let file = folder.path().join("proxy.conf");
        let (configuration, command): (String, Option<Vec<PathBuf>>) = match target {
            Target::Direct => (String::new(), None),
            Target::Nginx | Target::NginxTokens => (
                nginx(address, origins, &ca, bounds, folder.path()),
                Some(vec!["nginx".into(), "-c".into(), file.clone()]),
            ),
            Target::HaProxy | Target::HaProxyTokens => (
                haproxy(address, origins, &ca, bounds),
                Some(vec!["haproxy".into(), "-f".into(), file.clone()]),
            ),
            Target::Forebay => (
                forebay_toml(address, free()?, origins, &ca),
                Some(vec![forebay.to_owned(), "run".into(), file.clone()]),
            ),
        };
        let mut proxy = Self { address, configuration, child: None, _folder: folder };
        let Some(command) = command else { return Ok(proxy) };
        std::fs::write(&file, &proxy.configuration)?;
        let log = file.with_extension("log");
        let output = std::fs::File::create(&log)?;
        let (program, arguments) = command.split_first().context("a program")?;
        let child = Command::new(program)
            .args(arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        proxy.child = Some(child);
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                // Everybody gets the same time to get ready, such as to warm up.
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Ok(proxy);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("{} does not listen: {}", target.name(), std::fs::read_to_string(&log)?)
    }

    /// CPU used so far, with that of its workers.
    pub fn cpu(&self) -> Duration {
        self.id().map(cpu::of_tree).unwrap_or_default()
    }

    /// Resident memory now, bytes, with that of its workers.
    pub fn memory(&self) -> u64 {
        self.id().map(cpu::memory_of_tree).unwrap_or_default()
    }

    fn id(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Ends it, so that nothing of it disturbs the next one.
    pub async fn stop(mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(id) = child.id() {
            std::process::Command::new("kill").arg(id.to_string()).status().ok();
        }
        if tokio::time::timeout(Duration::from_secs(5), child.wait()).await.is_err() {
            child.kill().await.ok();
        }
    }
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Every place that is called, by the first part of its path.
fn places(origins: &Origins) -> impl Iterator<Item = (String, SocketAddr)> {
    let services = origins.services.iter().enumerate();
    let services = services.map(|(number, address)| (format!("service-{number}"), *address));
    services.chain([("issuer".to_owned(), origins.issuer)])
}

fn nginx(
    address: SocketAddr,
    origins: &Origins,
    ca: &Path,
    bounds: Bounds,
    folder: &Path,
) -> String {
    let (ca, folder) = (ca.display(), folder.display());
    let mut text = format!(
        "daemon off;\nworker_processes 1;\nerror_log {folder}/error.log error;\npid {folder}/pid;\n\
         events {{ worker_connections 8192; }}\nhttp {{\n  access_log off;\n  \
         keepalive_requests 1000000;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text.push_str(&format!("  {kind}_temp_path {folder}/{kind};\n"));
    }
    let mut locations = String::new();
    for (name, origin) in places(origins) {
        let bound =
            if bounds == Bounds::Bounded { format!(" max_conns={BOUND}") } else { String::new() };
        text.push_str(&format!(
            "  upstream {name} {{ server {origin}{bound} max_fails=0; keepalive 256; \
             keepalive_requests 1000000; }}\n"
        ));
        locations.push_str(&format!(
            "    location /{name}/ {{ proxy_pass https://{name}/; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_ssl_name localhost; proxy_ssl_server_name on; \
             proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_session_reuse on; }}\n"
        ));
    }
    text.push_str(&format!("  server {{ listen {address};\n{locations}  }}\n}}\n"));
    text
}

fn haproxy(address: SocketAddr, origins: &Origins, ca: &Path, bounds: Bounds) -> String {
    let mut text = "global\n  nbthread 1\n  maxconn 8000\ndefaults\n  mode http\n  option \
                    http-no-delay\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n  \
                    timeout queue 60s\n  http-reuse always\n"
        .to_owned();
    text.push_str(&format!("frontend all\n  bind {address}\n"));
    for (name, _) in places(origins) {
        text.push_str(&format!("  use_backend {name} if {{ path_beg /{name}/ }}\n"));
    }
    for (name, origin) in places(origins) {
        let bound =
            if bounds == Bounds::Bounded { format!(" maxconn {BOUND}") } else { String::new() };
        text.push_str(&format!(
            "backend {name}\n  http-request replace-path /{name}(/.*) \\1\n  server one {origin} ssl \
             verify required ca-file {} verifyhost localhost sni str(localhost){bound}\n",
            ca.display()
        ));
    }
    text
}

/// Forebay is always bounded.
fn forebay_toml(address: SocketAddr, admin: SocketAddr, origins: &Origins, ca: &Path) -> String {
    let mut text = format!("[admin]\nlisten = \"{admin}\"\n\n[http]\nlisten = \"{address}\"\n");
    for tenant in 0..TENANTS {
        text.push_str(&format!(
            "\n[http.tenants.tenant-{tenant}]\nkey = \"key-of-{tenant}-for-the-bench\"\n"
        ));
    }
    for (number, origin) in origins.services.iter().enumerate() {
        text.push_str(&format!(
            "\n[http.destinations.service-{number}]\nurl = \"https://{origin}\"\nca_file = \"{ca}\"\n\
             budget = {BOUND}\nshare_connections = true\nqueue_factor = 100\ncheckout_timeout = \"60s\"\n",
            ca = ca.display()
        ));
        for tenant in 0..TENANTS {
            text.push_str(&format!(
                "\n[http.destinations.service-{number}.tenants.tenant-{tenant}]\n\
                 type = \"oauth2-client-credentials\"\ntoken_url = \"https://{issuer}/token\"\n\
                 ca_file = \"{ca}\"\nclient_id = \"tenant-{tenant}\"\nclient_secret = \"secret\"\n\
                 audience = \"service-{number}\"\n",
                issuer = origins.issuer,
                ca = ca.display()
            ));
        }
    }
    text
}
