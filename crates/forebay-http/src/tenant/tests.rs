//! Who is let in, as whom, and what stays here.

use forebay_seam::net::Peer;
use forebay_seam::secret::SecretRef;
use rustls::pki_types::CertificateDer;

use super::*;
use crate::settings::AgentSettings;

fn tenant(key: &str) -> TenantSettings {
    TenantSettings { key: Some(SecretRef::new(key)), ..TenantSettings::default() }
}

fn open(settings: &BTreeMap<String, TenantSettings>) -> Tenants {
    Tenants::new(settings, &Digester::new()).unwrap()
}

fn tenants(keys: &[(&str, &str)]) -> Tenants {
    open(&keys.iter().map(|(name, key)| ((*name).to_owned(), tenant(key))).collect())
}

/// Two agents of acme, one of them with a certificate and a user of its own.
fn with_agents() -> Tenants {
    let mut acme = tenant("key-a");
    acme.keys = vec![SecretRef::new("key-a-next")];
    acme.uids = vec![1000];
    let one = AgentSettings { key: Some(SecretRef::new("key-a1")), ..AgentSettings::default() };
    let two = AgentSettings {
        certificates: vec!["dns:two.acme.test".to_owned()],
        uids: vec![1002],
        ..AgentSettings::default()
    };
    acme.agents = BTreeMap::from([("one".to_owned(), one), ("two".to_owned(), two)]);
    let settings = [("acme".to_owned(), acme), ("zeta".to_owned(), tenant("key-z"))];
    open(&settings.into_iter().collect())
}

fn tcp(certificate: Option<&CertificateDer<'_>>) -> Arrival {
    let local = ([127, 0, 0, 1], 6480).into();
    Arrival::new(Some(local), &Peer::Tcp(([127, 0, 0, 1], 5000).into()), certificate)
}

fn unix(uid: u32) -> Arrival {
    Arrival::new(None, &Peer::Unix { uid, gid: 0, pid: None }, None)
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn admit_from(
    tenants: &Tenants,
    arrival: &Arrival,
    fields: &[(&'static str, &str)],
) -> Result<Caller, Problem> {
    let named = fields.iter().find(|(name, _)| *name == "host");
    let host = named.map_or(Host::None, |(_, host)| Host::Other(host));
    tenants.admit(&headers(fields), arrival, host)
}

fn admit(tenants: &Tenants, fields: &[(&'static str, &str)]) -> Result<Caller, Problem> {
    admit_from(tenants, &tcp(None), fields)
}

fn reason(outcome: Result<Caller, Problem>) -> Reason {
    outcome.unwrap_err().reason
}

fn who(caller: &Caller) -> (&str, Option<&str>) {
    (&caller.who.tenant, caller.who.agent.as_deref())
}

/// What is left of `fields` for the service.
fn left(caller: &Caller, fields: &[(&'static str, &str)]) -> Vec<String> {
    let mut headers = headers(fields);
    caller.strip(&mut headers);
    headers.keys().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_key_names_its_tenant_in_every_field_and_stays_here() {
    let tenants = tenants(&[("acme", "key-a"), ("zeta", "key-z")]);
    for fields in [
        [("authorization", "bearer key-z"), ("x-mine", "1")],
        [("x-api-key", "key-z"), ("x-mine", "1")],
        [("x-goog-api-key", "key-z"), ("x-mine", "1")],
    ] {
        let caller = admit(&tenants, &fields).unwrap();
        assert_eq!(who(&caller), ("zeta", None));
        assert_eq!(left(&caller, &fields), ["x-mine"]);
    }
    let own = [("x-forebay-key", "key-a"), ("authorization", "Bearer mine"), ("x-api-key", "m")];
    let caller = admit(&tenants, &own).unwrap();
    assert_eq!(who(&caller), ("acme", None));
    // The first one every call loses by its name.
    assert_eq!(left(&caller, &own), ["x-forebay-key", "authorization", "x-api-key"]);
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_refused() {
    let tenants = tenants(&[("acme", "key-a")]);
    let cases: [&[(&'static str, &str)]; 7] = [
        &[],
        &[("x-forebay-key", "key-b")],
        &[("x-forebay-key", "key-b"), ("authorization", "Bearer key-a")],
        &[("x-forebay-key", "key-a"), ("x-forebay-key", "key-a")],
        &[("authorization", "Basic key-a")],
        &[("x-api-key", "key-b")],
        &[("x-forebay-tenant", "acme")],
    ];
    for fields in cases {
        assert_eq!(reason(admit(&tenants, fields)), Reason::Unauthorized, "{fields:?}");
    }
}

#[tokio::test]
async fn another_tenants_key_beside_the_own_one_is_recognised_and_stays_here() {
    let tenants = tenants(&[("acme", "key-a"), ("zeta", "key-z")]);
    let fields =
        [("x-forebay-key", "key-a"), ("authorization", "Bearer key-z"), ("x-api-key", "key-z")];
    let caller = admit(&tenants, &fields).unwrap();
    assert_eq!(who(&caller), ("acme", None));
    assert_eq!(left(&caller, &fields), ["x-forebay-key"]);
    let two = [("authorization", "Bearer mine"), ("authorization", "Bearer key-a")];
    assert!(left(&admit(&tenants, &two).unwrap(), &two).is_empty());
}

#[tokio::test]
async fn a_tenant_may_have_several_keys_and_an_agent_its_own() {
    let tenants = with_agents();
    for (key, wanted) in [
        ("key-a", ("acme", None)),
        ("key-a-next", ("acme", None)),
        ("key-a1", ("acme", Some("one"))),
        ("key-z", ("zeta", None)),
    ] {
        let caller = admit(&tenants, &[("x-forebay-key", key)]).unwrap();
        assert_eq!(who(&caller), wanted);
    }
}

#[tokio::test]
async fn the_user_of_a_unix_socket_needs_no_key_and_cannot_be_another_tenant() {
    let tenants = with_agents();
    let by_user = |uid, fields: &[(&'static str, &str)]| admit_from(&tenants, &unix(uid), fields);
    assert_eq!(who(&by_user(1000, &[]).unwrap()), ("acme", None));
    assert_eq!(who(&by_user(1002, &[]).unwrap()), ("acme", Some("two")));
    // What means the service is no wrong key, and passes.
    let own = [("authorization", "Bearer mine")];
    let caller = by_user(1000, &own).unwrap();
    assert_eq!(left(&caller, &own), ["authorization"]);
    // A key says more.
    let caller = by_user(1000, &[("x-forebay-key", "key-a1")]).unwrap();
    assert_eq!(who(&caller), ("acme", Some("one")));
    let caller = by_user(1002, &[("x-forebay-key", "key-a")]).unwrap();
    assert_eq!(who(&caller), ("acme", Some("two")));
    for refused in [
        by_user(1000, &[("x-forebay-key", "key-z")]),
        by_user(1000, &[("x-forebay-key", "wrong")]),
        by_user(1001, &[]),
    ] {
        assert_eq!(reason(refused), Reason::Unauthorized);
    }
}

#[tokio::test]
async fn a_certificate_that_was_verified_names_its_agent() {
    let issued = rcgen::generate_simple_self_signed(vec!["two.acme.test".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["three.acme.test".to_owned()]).unwrap();
    let tenants = with_agents();
    let caller = admit_from(&tenants, &tcp(Some(issued.cert.der())), &[]).unwrap();
    assert_eq!(who(&caller), ("acme", Some("two")));
    let refused = admit_from(&tenants, &tcp(Some(other.cert.der())), &[]);
    assert_eq!(reason(refused), Reason::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn whoever_guesses_keys_is_told_to_stop_and_the_others_are_not() {
    let tenants = tenants(&[("acme", "key-a"), ("zeta", "key-z")]);
    let call = |key: &str| admit(&tenants, &[("x-forebay-key", key)]);
    assert!(call("key-a").is_ok());
    let refused: Vec<_> = (0..30).map(|n| reason(call(&format!("guess-{n}")))).collect();
    assert_eq!(refused.iter().filter(|r| **r == Reason::Unauthorized).count(), 20);
    assert_eq!(refused.last(), Some(&Reason::Throttled));
    assert!(call("key-a").is_ok());
    assert_eq!(reason(call("key-z")), Reason::Throttled);
    assert!(admit_from(&tenants, &unix(1), &[("x-forebay-key", "key-z")]).is_ok());
}

#[tokio::test]
async fn without_tenants_everybody_may_call_but_web_pages() {
    let nobody = tenants(&[]);
    let local = admit(&nobody, &[("host", "localhost:6480")]).unwrap();
    assert_eq!(who(&local), ("default", None));
    assert!(admit(&nobody, &[("host", "[::1]:6480")]).is_ok());
    let page = admit(&nobody, &[("host", "localhost"), ("origin", "https://evil.test")]);
    assert_eq!(reason(page), Reason::ForeignOrigin);
    for site in ["cross-site", "same-site", "same-origin"] {
        let image = admit(&nobody, &[("host", "localhost"), ("sec-fetch-site", site)]);
        assert_eq!(reason(image), Reason::ForeignOrigin, "{site}");
    }
    let typed = [("host", "localhost"), ("sec-fetch-site", "none"), ("sec-fetch-mode", "cors")];
    assert!(admit(&nobody, &typed).is_ok());
    let rebound = admit(&nobody, &[("host", "evil.test:6480")]);
    assert_eq!(reason(rebound), Reason::Misdirected);
    assert!(admit_from(&nobody, &unix(7), &[("host", "anything")]).is_ok());
}

#[tokio::test]
async fn what_would_prove_two_things_or_nothing_is_an_error_that_says_where() {
    let wrong = |settings: &[(&str, TenantSettings)]| {
        let settings = settings.iter().map(|(name, s)| ((*name).to_owned(), s.clone())).collect();
        let Err(error) = Tenants::new(&settings, &Digester::new()) else { panic!("an error") };
        assert!(!error.reason.contains("planted"), "{error:?}");
        (error.key, error.reason)
    };
    let (key, reason) = wrong(&[("acme", tenant("planted")), ("zeta", tenant("planted"))]);
    assert_eq!(key, "zeta.key");
    assert!(reason.contains("tenant `acme`"), "{reason}");
    let certificate = |name: &str| TenantSettings {
        certificates: vec![name.to_owned()],
        ..TenantSettings::default()
    };
    let (key, _) = wrong(&[("acme", certificate("cn:x")), ("zeta", certificate("CN: x"))]);
    assert_eq!(key, "zeta.certificates[0]");
    let user = || TenantSettings { uids: vec![7], ..TenantSettings::default() };
    assert_eq!(wrong(&[("acme", user()), ("zeta", user())]).0, "zeta.uids[0]");
    let (key, reason) = wrong(&[("acme", TenantSettings::default())]);
    assert!(key == "acme" && reason.contains("write a `key`"), "{key} {reason}");
    let (key, reason) = wrong(&[("acme", tenant("planted\nplanted"))]);
    assert!(key == "acme.key" && reason.contains("line ends"), "{key} {reason}");
}

#[tokio::test]
async fn a_key_whose_file_is_replaced_opens_and_the_old_one_does_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "key-old\n").unwrap();
    let place = format!("file:{}", file.path().display());
    let tenants = tenants(&[("acme", &place), ("zeta", "key-z")]);
    assert!(admit(&tenants, &[("x-forebay-key", "key-old")]).is_ok());
    std::fs::write(file.path(), "key-newer\n").unwrap();
    let begun = time::now();
    while admit(&tenants, &[("x-forebay-key", "key-old")]).is_ok() {
        assert!(time::now() < begun + std::time::Duration::from_secs(20));
        time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(admit(&tenants, &[("x-forebay-key", "key-newer")]).is_ok());
    // Another one's key is of no use, and changes nothing.
    std::fs::write(file.path(), "key-z\n").unwrap();
    assert!(admit(&tenants, &[("x-forebay-key", "key-newer")]).is_ok());
}
