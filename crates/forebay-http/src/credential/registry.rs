//! Makes credentials out of settings, and knows every source of tokens.
//!
//! Always true: two credentials that ask the same issuer for the same, with the same secrets,
//! share one source, and so one token; those that have the same refresh token for the same
//! client share the newest that descends from it, whatever else they differ in; a source lives
//! as long as somebody may ask it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use forebay_seam::secret::{SecretRef, SecretString};
use forebay_seam::sync::Mutex;
use rustls::crypto::aws_lc_rs::default_provider;

use super::certificate::ClientCertificate;
use super::check::{CredentialError, error, header_name, token_target};
use super::fixed::{self, Place};
use super::tokens::{Kind, Layout, Presence, Secrets, Tokens};
use super::{Carried, Credential};
use crate::oauth::{Doors, Issuer, RefreshToken, Terms};
use crate::secrets::{Digest, Digester, Rotating, Source};
use crate::settings::{ClientAuthentication, CredentialSettings};
use crate::tls::Trust;
use crate::token::TokenSource;

/// Sources that may be dead before it is looked for them.
const DEAD: usize = 64;

/// Which token: two credentials with the same key share one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    token_url: String,
    /// Whose certificates the issuer's are signed by.
    trust: Digest,
    grant: &'static str,
    client_id: String,
    client_auth: ClientAuthentication,
    scopes: Vec<String>,
    audience: Option<String>,
    resource: Option<String>,
    types: [String; 2],
    pub(super) secrets: [Digest; 3],
    /// The tenant and the token of an agent that it is for.
    pub(super) subject: Option<(Arc<str>, Digest)>,
}

/// Every source of tokens that is in use.
#[derive(Default)]
pub(crate) struct Sources(Mutex<Shelf>);

#[derive(Default)]
struct Shelf {
    by_key: HashMap<TokenKey, Weak<TokenSource>>,
    /// By issuer, client and the configured one.
    refresh: HashMap<(String, String, Digest), Weak<RefreshToken>>,
    tidy_at: usize,
}

impl Sources {
    /// The source of `key`, made of what `issuer` gives if there is none.
    pub(super) fn find(&self, key: TokenKey, issuer: impl FnOnce() -> Issuer) -> Arc<TokenSource> {
        let mut shelf = self.0.lock();
        if let Some(known) = shelf.by_key.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if shelf.by_key.len() >= shelf.tidy_at.max(DEAD) {
            shelf.by_key.retain(|_, source| source.strong_count() > 0);
            shelf.tidy_at = shelf.by_key.len() * 2;
        }
        let source = Arc::new(TokenSource::new(issuer()));
        shelf.by_key.insert(key, Arc::downgrade(&source));
        source
    }

    /// The refresh token that descends from `configured`, the main secret of `key`.
    pub(super) fn refresh_token(
        &self,
        key: &TokenKey,
        configured: &SecretString,
    ) -> Arc<RefreshToken> {
        let [_, main, _] = key.secrets;
        let key = (key.token_url.clone(), key.client_id.clone(), main);
        let mut shelf = self.0.lock();
        if let Some(known) = shelf.refresh.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        shelf.refresh.retain(|_, token| token.strong_count() > 0);
        let token = Arc::new(RefreshToken::new(configured));
        shelf.refresh.insert(key, Arc::downgrade(&token));
        token
    }

    fn holding(&self) -> usize {
        let sources: Vec<_> = self.0.lock().by_key.values().filter_map(Weak::upgrade).collect();
        sources.iter().filter(|source| source.holds_one()).count()
    }
}

/// Makes credentials.
pub(crate) struct Registry {
    digester: Digester,
    sources: Arc<Sources>,
    doors: Doors,
}

/// The settings that all ways of getting a token share.
struct Tokened<'s> {
    token_url: &'s str,
    client_id: &'s str,
    client_secret: Option<&'s SecretRef>,
    client_auth: ClientAuthentication,
    scopes: &'s [String],
    audience: &'s Option<String>,
    ca_file: &'s Option<PathBuf>,
    resource: Option<&'s String>,
    types: [&'s str; 2],
    /// The refresh token or the subject's, and the actor's, each with its key.
    main: Option<(&'static str, &'s SecretRef)>,
    actor: Option<&'s SecretRef>,
    kind: Kind,
}

impl Tokened<'_> {
    /// The key of the secret that is read as number `which`.
    fn key(&self, which: usize) -> &'static str {
        let client = self.client_secret.map(|_| "client_secret");
        let main = self.main.map(|(key, _)| key);
        let keys = [client, main, self.actor.map(|_| "actor_token")];
        keys.into_iter().flatten().nth(which).unwrap_or("client_secret")
    }
}

impl Registry {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { digester: Digester::new(), sources: Arc::default(), doors: Doors::default() }
    }

    /// Makes digests that can be compared with those of this registry.
    pub(crate) fn digester(&self) -> &Digester {
        &self.digester
    }

    /// The credential of `settings`, in place of the one `before`, whose tokens stay good if
    /// it is the same. Reads its secrets, and follows them.
    pub(crate) fn credential(
        &self,
        settings: &CredentialSettings,
        before: Option<&Credential>,
        trust: &mut Trust,
    ) -> Result<Credential, CredentialError> {
        let fixed = |place, key, secret: &SecretRef| {
            let fixed = fixed::open(place, Source::Line(secret.clone()), &self.digester);
            let carried = Carried::Fixed(fixed.map_err(|reason| error(key, reason))?);
            Ok(Credential { carried, certificate: None })
        };
        match settings {
            CredentialSettings::Bearer { secret } => fixed(Place::Bearer, "secret", secret),
            CredentialSettings::Header { name, prefix, secret } => {
                let place = Place::Header { name: header_name(name)?, prefix: prefix.clone() };
                fixed(place, "secret", secret)
            }
            CredentialSettings::Query { name, secret } => {
                fixed(Place::Query { name: name.clone() }, "secret", secret)
            }
            CredentialSettings::Basic { user, password } => {
                fixed(Place::Basic { user: user.clone() }, "password", password)
            }
            CredentialSettings::ClientCertificate { certificate, key, with } => {
                let carried = match with {
                    None => Carried::Nothing,
                    Some(with) => {
                        self.credential(with, before, trust)
                            .map_err(CredentialError::within)?
                            .carried
                    }
                };
                let sources = vec![Source::Text(certificate.clone()), Source::Text(key.clone())];
                let (digester, provider) = (self.digester.clone(), default_provider());
                let read = Rotating::new(sources, &self.digester, move |secrets| {
                    ClientCertificate::read(secrets, &digester, &provider)
                });
                let certificate = read.map_err(|reason| match reason.which() {
                    0 => error("certificate", reason),
                    _ => error("key", reason),
                })?;
                Ok(Credential { carried, certificate: Some(certificate) })
            }
            CredentialSettings::Oauth2ClientCredentials {
                token_url,
                client_id,
                client_secret,
                client_auth,
                scopes,
                audience,
                ca_file,
            } => self.tokens(
                &Tokened {
                    token_url,
                    client_id,
                    client_secret: Some(client_secret),
                    client_auth: *client_auth,
                    scopes,
                    audience,
                    ca_file,
                    resource: None,
                    types: [""; 2],
                    main: None,
                    actor: None,
                    kind: Kind::ClientCredentials,
                },
                before,
                trust,
            ),
            CredentialSettings::Oauth2RefreshToken {
                token_url,
                client_id,
                client_secret,
                refresh_token,
                keep_in,
                client_auth,
                scopes,
                audience,
                ca_file,
            } => self.tokens(
                &Tokened {
                    token_url,
                    client_id,
                    client_secret: client_secret.as_ref(),
                    client_auth: *client_auth,
                    scopes,
                    audience,
                    ca_file,
                    resource: None,
                    types: [""; 2],
                    main: Some(("refresh_token", refresh_token)),
                    actor: None,
                    kind: Kind::Refresh { keep_in: keep_in.as_deref().map(Arc::from) },
                },
                before,
                trust,
            ),
            CredentialSettings::Oauth2TokenExchange {
                token_url,
                client_id,
                client_secret,
                subject_token,
                subject_token_type,
                actor_token,
                actor_token_type,
                resource,
                client_auth,
                scopes,
                audience,
                ca_file,
            } => self.tokens(
                &Tokened {
                    token_url,
                    client_id,
                    client_secret: client_secret.as_ref(),
                    client_auth: *client_auth,
                    scopes,
                    audience,
                    ca_file,
                    resource: resource.as_ref(),
                    types: [subject_token_type, actor_token_type],
                    main: subject_token.as_ref().map(|token| ("subject_token", token)),
                    actor: actor_token.as_ref(),
                    kind: match subject_token {
                        Some(_) => Kind::Ours,
                        None => Kind::Agents,
                    },
                },
                before,
                trust,
            ),
        }
    }

    fn tokens(
        &self,
        settings: &Tokened<'_>,
        before: Option<&Credential>,
        trust: &mut Trust,
    ) -> Result<Credential, CredentialError> {
        let (target, endpoint) = token_target(settings.token_url)?;
        let ca_file = settings.ca_file.as_deref();
        let tls = trust.connector(ca_file).map_err(|reason| error("ca_file", reason))?;
        let believed = trust.fingerprint(ca_file).map_err(|reason| error("ca_file", reason))?;
        let layout = Layout {
            client: Presence::from(&settings.client_secret),
            main: Presence::from(&settings.main),
            actor: Presence::from(&settings.actor),
        };
        let main = settings.main.map(|(_, token)| token);
        let places = [settings.client_secret, main, settings.actor];
        let sources = places.into_iter().flatten().cloned().map(Source::Line).collect();
        let digester = self.digester.clone();
        let secrets = Rotating::new(sources, &self.digester, move |secrets| {
            Secrets::read(secrets, layout, &digester)
        });
        let secrets = secrets.map_err(|reason| error(settings.key(reason.which()), reason))?;
        let [subject_type, actor_type] = settings.types.map(str::to_owned);
        let terms = Arc::new(Terms {
            door: self.doors.find(&target),
            turns: Terms::turns(),
            target,
            endpoint,
            tls,
            client_id: settings.client_id.to_owned(),
            client_auth: settings.client_auth,
            scopes: settings.scopes.to_vec(),
            audience: settings.audience.clone(),
            resource: settings.resource.cloned(),
            subject_type: subject_type.clone(),
            actor_type: actor_type.clone(),
        });
        let key = TokenKey {
            token_url: settings.token_url.to_owned(),
            trust: believed,
            grant: match &settings.kind {
                Kind::ClientCredentials => "client-credentials",
                Kind::Refresh { .. } => "refresh-token",
                Kind::Ours | Kind::Agents => "token-exchange",
            },
            client_id: settings.client_id.to_owned(),
            client_auth: settings.client_auth,
            scopes: settings.scopes.to_vec(),
            audience: settings.audience.clone(),
            resource: settings.resource.cloned(),
            types: [subject_type, actor_type],
            secrets: [Digest::default(); 3],
            subject: None,
        };
        let sources = Arc::clone(&self.sources);
        let before = before.and_then(Credential::tokens);
        let tokens = Tokens::new(terms, key, settings.kind.clone(), secrets, sources, before);
        Ok(Credential { carried: Carried::Token(Arc::new(tokens)), certificate: None })
    }

    /// Tokens at hand.
    pub(crate) fn cached_tokens(&self) -> u32 {
        u32::try_from(self.sources.holding()).unwrap_or(u32::MAX)
    }
}
