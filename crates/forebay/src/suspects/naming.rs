//! Which call a client that idles in a transaction may wait for.
//!
//! Pure: what is known of both sides comes in. Always true: without a process or a mapping that
//! both share, no call is named.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use forebay_pool::overlap::Call;
use forebay_postgres::IdleClient;
use serde::Serialize;

use super::SuspectedCall;
use crate::config::ProgramSettings;

/// Why a client and a caller are thought to be one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Both sockets are the same process's.
    Process,
    /// They come from the same address, and `[[holds.programs]]` says so.
    Mapping,
}

impl Basis {
    /// Its name in logs and views.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Mapping => "mapping",
        }
    }
}

/// A call, and the process that makes it, where that is known.
pub(super) struct Caller {
    pub(super) call: Call,
    pub(super) process: Option<u32>,
}

/// All who call, and whose the sockets of this machine are.
pub(super) struct Recognised {
    pub(super) callers: Vec<Caller>,
    pub(super) owners: HashMap<SocketAddr, u32>,
}

/// The call that `client` may wait for.
pub(super) fn call_of(
    client: &IdleClient,
    recognised: &Recognised,
    programs: &[ProgramSettings],
) -> Option<SuspectedCall> {
    let owner = client.peer.and_then(|peer| recognised.owners.get(&peer).copied());
    let process = client.process.or(owner);
    let callers = recognised.callers.iter();
    let (basis, of_program): (_, Vec<_>) = match process {
        Some(process) => {
            (Basis::Process, callers.filter(|one| one.process == Some(process)).collect())
        }
        None => {
            let program = programs
                .iter()
                .find(|program| is_like(&program.application_name, &client.application))?;
            (Basis::Mapping, callers.filter(|one| is_of(one, client, program)).collect())
        }
    };
    // The first call that began after its last answer is the likeliest; else the last before.
    let later = of_program.iter().filter(|one| one.call.since >= client.since);
    let likely = later.min_by_key(|one| one.call.since);
    let likely = likely.or_else(|| of_program.iter().max_by_key(|one| one.call.since))?;
    let call = &likely.call.call;
    Some(SuspectedCall {
        destination: Arc::clone(&call.destination),
        operation: Arc::clone(&call.operation),
        subject: call.subject.clone(),
        feature: Arc::clone(&call.feature),
        basis,
        candidates: of_program.len(),
    })
}

fn is_of(caller: &Caller, client: &IdleClient, program: &ProgramSettings) -> bool {
    let call = &caller.call.call;
    // A Unix socket is on this machine, as is a loopback address.
    let place = |ip: Option<IpAddr>| ip.filter(|ip| !ip.is_loopback());
    let from = |peer: Option<SocketAddr>| place(peer.map(|peer| peer.ip()));
    from(call.peer) == from(client.peer)
        && program.feature.as_ref().is_none_or(|feature| is_like(feature, &call.feature))
        && program.tenant.as_ref().is_none_or(|tenant| **tenant == *call.tenant)
}

/// Is `text` as `pattern` says, where `*` stands for any run of characters?
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_pool::overlap::OutboundCall;
    use forebay_seam::time;

    use super::*;

    fn client(peer: Option<&str>, process: Option<u32>) -> IdleClient {
        IdleClient {
            client: 1,
            database: "app".into(),
            user: "agent".into(),
            application: "worker-7".into(),
            statement: Some("SELECT ?".into()),
            server: "main".into(),
            since: time::now() + Duration::from_secs(10),
            peer: peer.map(|peer| peer.parse().unwrap()),
            process,
        }
    }

    fn caller(operation: &str, peer: &str, process: Option<u32>, after: u64) -> Caller {
        let call = OutboundCall {
            peer: Some(peer.parse().unwrap()),
            feature: "answer".into(),
            tenant: "acme".into(),
            ..OutboundCall::new("llm", operation)
        };
        let since = time::now() + Duration::from_secs(after);
        Caller { call: Call { request: None, call, since }, process }
    }

    fn named(
        client: &IdleClient,
        callers: Vec<Caller>,
        programs: &[ProgramSettings],
    ) -> Option<(String, Basis, usize)> {
        let recognised = Recognised { callers, owners: HashMap::new() };
        let call = call_of(client, &recognised, programs)?;
        Some((call.operation.to_string(), call.basis, call.candidates))
    }

    fn program(feature: Option<&str>, tenant: Option<&str>) -> ProgramSettings {
        let (feature, tenant) = (feature.map(str::to_owned), tenant.map(str::to_owned));
        ProgramSettings { application_name: "worker-*".to_owned(), feature, tenant }
    }

    #[test]
    fn of_the_same_process_the_first_call_after_the_answer_is_named() {
        let callers = || {
            vec![
                caller("before", "127.0.0.1:1", Some(7), 5),
                caller("other", "127.0.0.1:2", Some(8), 11),
                caller("later", "127.0.0.1:3", Some(7), 13),
                caller("first", "127.0.0.1:4", Some(7), 12),
            ]
        };
        let named = |client: &IdleClient| named(client, callers(), &[]);
        let right = Some(("first".to_owned(), Basis::Process, 3));
        assert_eq!(named(&client(None, Some(7))), right);
        assert_eq!(named(&client(None, Some(9))), None);
        assert_eq!(named(&client(Some("127.0.0.1:9"), None)), None, "whose it is is not known");
    }

    #[test]
    fn from_elsewhere_a_mapping_and_the_address_must_agree() {
        let client = client(Some("10.0.0.5:1"), None);
        let callers = || {
            let (there, elsewhere) = ("10.0.0.5:2", "10.0.0.6:2");
            vec![caller("there", there, None, 11), caller("elsewhere", elsewhere, None, 11)]
        };
        let right = Some(("there".to_owned(), Basis::Mapping, 1));
        assert_eq!(named(&client, callers(), &[program(None, None)]), right);
        assert_eq!(named(&client, callers(), &[program(Some("ans*"), Some("acme"))]), right);
        assert_eq!(named(&client, callers(), &[program(Some("x"), None)]), None);
        assert_eq!(named(&client, callers(), &[program(None, Some("x"))]), None);
        assert_eq!(named(&client, callers(), &[]), None, "no mapping, no name");
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, like) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c", false),
            ("", "a", false),
        ] {
            assert_eq!(is_like(pattern, text), like, "{pattern} {text}");
        }
    }
}
