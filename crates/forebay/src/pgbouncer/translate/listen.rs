//! Where clients connect: `listen_addr`, `listen_port`, `unix_socket_dir` and what it has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use super::Work;

pub(super) fn translate(work: &mut Work<'_>) {
    let file = work.file;
    let Ok(port) = u16::try_from(file.number("listen_port")) else {
        return work.refuse(file.place("listen_port"), "listen_port: expected a port, 1 to 65535");
    };
    let mut listen = Vec::new();
    for name in file.list("listen_addr") {
        match addresses(name, port) {
            Ok(addresses) => {
                work.is_local &= addresses.iter().all(|address| address.ip().is_loopback());
                listen.extend(addresses.iter().map(SocketAddr::to_string));
            }
            Err(reason) => work.refuse(file.place("listen_addr"), format!("listen_addr: {reason}")),
        }
    }
    match file.nonempty("unix_socket_dir") {
        Some(dir) if dir.starts_with('@') => work.refuse(
            file.place("unix_socket_dir"),
            "unix_socket_dir: sockets without a file (`@…`) are not supported; name a directory",
        ),
        Some(dir) => {
            let socket = Path::new(dir).join(format!(".s.PGSQL.{port}"));
            listen.push(socket.display().to_string());
            socket_file(work);
        }
        None => {}
    }
    listen.dedup();
    if listen.is_empty() && work.mistakes.is_empty() {
        let reason = "nowhere to listen: set `listen_addr`, or a `unix_socket_dir`";
        return work.refuse(file.place("unix_socket_dir"), reason);
    }
    let named = ["listen_addr", "listen_port", "unix_socket_dir"];
    let place = named.iter().find_map(|name| file.place(name));
    let listen = match <[String; 1]>::try_from(listen) {
        Ok([only]) => toml::Value::from(only),
        Err(several) => several.into(),
    };
    work.document.set(&["postgres"], "listen", listen).from(place);
    if file.flag("so_reuseport") {
        work.set("reuse_port", true, "so_reuseport");
    }
}

fn socket_file(work: &mut Work<'_>) {
    let file = work.file;
    let mode = format!("{:04o}", file.number("unix_socket_mode"));
    work.set("unix_socket_mode", mode, "unix_socket_mode");
    if let Some(group) = file.nonempty("unix_socket_group") {
        work.set("unix_socket_group", group, "unix_socket_group");
    }
}

/// What `name` stands for: an address, a host name, or `*`.
fn addresses(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if name == "*" {
        // One socket for both; `bindv6only` is off nearly everywhere.
        let ip: IpAddr =
            if has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = (name, port).to_socket_addrs();
    let mut found: Vec<_> = found.map_err(|error| format!("`{name}`: {error}"))?.collect();
    if !has_ipv6() {
        found.retain(SocketAddr::is_ipv4);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
