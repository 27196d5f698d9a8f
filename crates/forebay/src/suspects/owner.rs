//! Whose a socket of this machine is: the process that has it open (Linux, proc(5)).
//!
//! Blocks: to be called off the runtime. Sees processes of the same user, or all as root; where
//! nothing is to be seen, nobody owns anything. Always true: so many files and lines are read
//! at the most.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Lines of each table of sockets that are read.
const LINES: usize = 200_000;
/// Files of processes that are looked at.
const FILES: usize = 500_000;

/// The processes that have `sockets` open, by their own end's address.
pub(super) fn of(sockets: &HashSet<SocketAddr>) -> HashMap<SocketAddr, u32> {
    let mut inodes = HashMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(file) = File::open(table) else { continue };
        for line in BufReader::new(file).lines().take(LINES).map_while(Result::ok) {
            if let Some((address, inode)) = socket(&line).filter(|(at, _)| sockets.contains(at)) {
                inodes.insert(inode, address);
            }
        }
    }
    processes(inodes)
}

/// Address and inode of a line of `/proc/net/tcp` or `tcp6`.
fn socket(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let inode: u64 = fields.nth(7)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each word of 32 bits is written in the machine's order.
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(ip)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(ip.get(at * 8..at * 8 + 8)?)?);
            }
            let v6 = Ipv6Addr::from(bytes);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        }
        _ => return None,
    };
    (inode > 0).then_some((SocketAddr::new(ip, port), inode))
}

/// Who has the sockets with these inodes open.
fn processes(mut inodes: HashMap<u64, SocketAddr>) -> HashMap<SocketAddr, u32> {
    let mut owners = HashMap::new();
    let Ok(folders) = fs::read_dir("/proc") else { return owners };
    let mut looked_at = 0;
    for folder in folders.flatten() {
        if inodes.is_empty() || looked_at >= FILES {
            break;
        }
        let Some(process) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(folder.path().join("fd")) else { continue };
        for file in files.flatten() {
            looked_at += 1;
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(address) = inode.and_then(|inode: u64| inodes.remove(&inode)) {
                owners.insert(address, process);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn lines_of_both_tables_are_read() {
        let v4 = "   1: 0100007F:1538 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  \
                  1000        0 4711 1 0000 20 4 30 10 -1";
        let v6 = "   0: 0000000000000000FFFF00000100007F:1538 0000000000000000FFFF00000100007F:0001 \
                  01 00000000:00000000 00:00000000 00000000 0 0 12 1 0000";
        if cfg!(target_endian = "little") {
            assert_eq!(socket(v4), Some(("127.0.0.1:5432".parse().unwrap(), 4_711)));
            assert_eq!(socket(v6), Some(("127.0.0.1:5432".parse().unwrap(), 12)));
        }
        for nonsense in ["", "sl local_address", "0: zz:1 1:1 01 0 0 0 0 0 1", "0: 1"] {
            assert_eq!(socket(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_of_this_process_is_found_to_be_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = stream.local_addr().unwrap();
        let nobodys = "127.0.0.1:1".parse().unwrap();
        let owners = of(&HashSet::from([address, nobodys]));
        assert_eq!(owners, HashMap::from([(address, std::process::id())]));
    }
}
