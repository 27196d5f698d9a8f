//! An OAuth 2.0 token endpoint (RFC 6749, section 4.4) that takes its time, and knows for
//! whom it issued what.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_seam::sync::Mutex;
use forebay_seam::{random, time};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, StatusCode};
use serde_json::json;

use super::services::{Answer, Body, SERVICES, TENANTS, Tally, json};

/// How long an exchange takes.
pub(crate) const EXCHANGE: Duration = Duration::from_millis(100);
/// The longest form that is read, bytes.
const FORM_MAX: usize = 4_096;

/// For whom a token was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Holder {
    /// The tenant.
    pub(crate) tenant: &'static str,
    /// The service it is good for.
    pub(crate) service: &'static str,
}

/// The tokens issued, and who may have some.
pub(crate) struct Tokens {
    secrets: BTreeMap<&'static str, String>,
    issued: Mutex<HashMap<String, Holder>>,
    exchanges: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            secrets: TENANTS.into_iter().map(|tenant| (tenant, hex(random::bytes()))).collect(),
            issued: Mutex::default(),
            exchanges: Mutex::default(),
        }
    }
}

impl Tokens {
    /// For whom `token` was issued.
    pub(crate) fn holder(&self, token: &str) -> Option<Holder> {
        self.issued.lock().get(token).copied()
    }

    /// The client secret of `tenant`; empty for strangers, and then good for nothing.
    pub(crate) fn secret(&self, tenant: &str) -> &str {
        self.secrets.get(tenant).map_or("", String::as_str)
    }

    /// Token exchanges by (tenant, service).
    pub(crate) fn exchanges(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.exchanges.lock().clone()
    }

    /// A new token for the client and the audience that `form` names.
    fn issue(&self, form: &Form) -> Option<String> {
        let tenant = TENANTS.into_iter().find(|tenant| *tenant == form.client)?;
        let service = SERVICES.into_iter().find(|service| *service == form.audience)?;
        if form.secret.is_empty() || form.secret != self.secret(tenant) {
            return None;
        }
        let token = hex(random::bytes());
        self.issued.lock().insert(token.clone(), Holder { tenant, service });
        *self.exchanges.lock().entry((tenant, service)).or_default() += 1;
        Some(token)
    }
}

/// 16 random bytes as text.
pub(crate) fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// What a client asks for.
#[derive(Default, PartialEq, Eq)]
struct Form {
    client: String,
    secret: String,
    audience: String,
}

impl Form {
    /// From the body, and from the header where the client names itself there (section
    /// 2.3.1). All values here are plain words, so that nothing needs decoding.
    fn read(body: &str, basic: Option<&str>) -> Option<Self> {
        let mut form = Self::default();
        let mut grant = "";
        for (name, value) in body.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "grant_type" => grant = value,
                "client_id" => form.client = value.to_owned(),
                "client_secret" => form.secret = value.to_owned(),
                "audience" => form.audience = value.to_owned(),
                _ => {}
            }
        }
        if let Some(basic) = basic.and_then(|value| value.strip_prefix("Basic ")) {
            let text = String::from_utf8(BASE64.decode(basic).ok()?).ok()?;
            let (client, secret) = text.split_once(':')?;
            (form.client, form.secret) = (client.to_owned(), secret.to_owned());
        }
        (grant == "client_credentials").then_some(form)
    }
}

/// The token endpoint.
pub(crate) struct Issuer {
    tokens: Arc<Tokens>,
}

impl Issuer {
    /// Issues into `tokens`.
    pub(crate) fn new(tokens: Arc<Tokens>) -> Self {
        Self { tokens }
    }
}

impl Answer for Issuer {
    async fn answer(&self, request: Request<Incoming>, tally: &Tally) -> Response<Body> {
        let basic = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let basic = basic.map(str::to_owned);
        let body = Limited::new(request.into_body(), FORM_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let form =
            std::str::from_utf8(&body).ok().and_then(|body| Form::read(body, basic.as_deref()));
        time::sleep(EXCHANGE).await;
        let Some(token) = form.and_then(|form| self.tokens.issue(&form)) else {
            tally.refusal();
            return json(StatusCode::UNAUTHORIZED, &json!({"error": "invalid_client"}));
        };
        tally.call();
        let issued = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
        json(StatusCode::OK, &issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_names_itself_in_the_body_or_in_the_header() {
        let said = Form { client: "acme".into(), secret: "s".into(), audience: "crm".into() };
        let body = "grant_type=client_credentials&client_id=acme&client_secret=s&audience=crm";
        assert!(Form::read(body, None).as_ref() == Some(&said));
        let basic = format!("Basic {}", BASE64.encode("acme:s"));
        let body = "grant_type=client_credentials&audience=crm";
        assert!(Form::read(body, Some(&basic)).as_ref() == Some(&said));
        assert!(Form::read("grant_type=password&client_id=acme", None).is_none());
    }

    #[test]
    fn a_token_belongs_to_one_tenant_and_one_service_and_is_counted_there() {
        let tokens = Tokens::default();
        let form = |secret: &str| Form {
            client: "acme".into(),
            secret: secret.into(),
            audience: "crm".into(),
        };
        assert_eq!(tokens.issue(&form("wrong")), None);
        let token = tokens.issue(&form(tokens.secret("acme"))).unwrap();
        assert_eq!(tokens.holder(&token), Some(Holder { tenant: "acme", service: "crm" }));
        assert_eq!(tokens.holder("another"), None);
        assert_eq!(tokens.exchanges(), BTreeMap::from([(("acme", "crm"), 1)]));
    }
}
