//! The credentials that Forebay holds, each bound to the destination it was configured for.
//!
//! Destination first, credential last: nothing in a call chooses a credential, and it is
//! added when nothing else of the head will change. Secrets never show: values are marked
//! sensitive, and nothing here has a `Debug` that prints one. `fixed` are secrets that are
//! sent as they are, `returned` keeps them from coming back, `tokens` those that are exchanged
//! first, `certificate` what a connection is opened with; `registry` makes them of settings, `check` says what is wrong with these.
//! Which of them is whose, [`crate::wallet`] knows.

mod certificate;
mod check;
mod fixed;
mod registry;
mod returned;
mod tokens;

use std::sync::Arc;

use forebay_seam::time;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

use crate::meter::Meter;
use crate::problem::{Problem, Reason, Retry};
use crate::secrets::Rotating;
use crate::token::{Token, TokenSource};

pub(crate) use certificate::ClientCertificate;
pub(crate) use check::{CredentialError, check, read, statefulness};
pub(crate) use fixed::encode;
pub(crate) use registry::Registry;
pub(crate) use tokens::Subject;

use fixed::{Fixed, Piece};
use tokens::Tokens;

/// A credential of one destination. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Credential {
    carried: Carried,
    certificate: Option<Arc<Rotating<ClientCertificate>>>,
}

/// What each call carries.
#[derive(Clone)]
enum Carried {
    /// Nothing: the connection's certificate says it all.
    Nothing,
    Fixed(Arc<Fixed>),
    Token(Arc<Tokens>),
}

/// What is added to one call.
pub(crate) struct Proof(Shown);

enum Shown {
    Nothing,
    Fixed { fixed: Arc<Fixed>, piece: Arc<Piece> },
    Token { source: Arc<TokenSource>, token: Token },
}

/// What there is to be had in place of a proof that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Another {
    /// Another one, at once or as soon as it was fetched.
    Ready,
    /// Perhaps another one in a moment: the secret is being read again.
    Perhaps,
    /// Nothing: it would be the same one.
    None,
}

impl Credential {
    /// What to add to a call now; `subject` is what the agent showed, where that is what
    /// tokens are exchanged for. `meter` counts the exchanges this may need.
    ///
    /// # Cancel safety
    /// Dropped, an exchange on its way goes on for the others.
    pub(crate) async fn proof(
        &self,
        subject: Option<&Subject>,
        meter: &Arc<Meter>,
    ) -> Result<Proof, Problem> {
        match &self.carried {
            Carried::Nothing => Ok(Proof(Shown::Nothing)),
            Carried::Fixed(fixed) => {
                Ok(Proof(Shown::Fixed { piece: fixed.now(), fixed: Arc::clone(fixed) }))
            }
            Carried::Token(tokens) => {
                let source = tokens.source(subject)?;
                let failure = match source.token(meter).await {
                    Ok(token) => return Ok(Proof(Shown::Token { source, token })),
                    Err(failure) => failure,
                };
                let wait = failure.retry_at.saturating_duration_since(time::now());
                let renewed = failure.error.doubts_the_secret() && tokens.doubt();
                let retry = match renewed || failure.error.may_pass() {
                    true => Retry::After(wait),
                    false => Retry::Never,
                };
                Err(Problem::new(Reason::NoCredential, &failure.error).with_retry(retry))
            }
        }
    }

    /// Whether tokens are exchanged for what agents show.
    pub(crate) fn wants_subject(&self) -> bool {
        matches!(&self.carried, Carried::Token(tokens) if tokens.wants_subject())
    }

    fn tokens(&self) -> Option<&Tokens> {
        match &self.carried {
            Carried::Token(tokens) => Some(tokens),
            Carried::Nothing | Carried::Fixed(_) => None,
        }
    }

    /// What connections are opened with.
    pub(crate) fn certificate(&self) -> Option<Arc<ClientCertificate>> {
        self.certificate.as_ref().map(|certificate| certificate.now())
    }
}

impl Proof {
    /// Adds it, over whatever the agent put there. To be called last.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap, uri: &mut Uri) {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Fixed { piece, .. } => piece.add_to(headers, uri),
            Shown::Token { token, .. } => {
                headers.insert(AUTHORIZATION, token.authorization.clone());
            }
        }
    }

    /// Takes it out of the head of the `answer`, wherever services repeat it there.
    pub(crate) fn take_out_of(&self, answer: &mut HeaderMap) {
        if let Shown::Fixed { piece, .. } = &self.0 {
            piece.take_out_of(answer);
        }
    }

    /// Whether it is one that can be withdrawn and replaced.
    pub(crate) fn is_renewable(&self) -> bool {
        match &self.0 {
            Shown::Nothing => false,
            Shown::Fixed { fixed, .. } => fixed.may_change(),
            Shown::Token { .. } => true,
        }
    }

    /// The service refused it. Says what there is in its place.
    pub(crate) fn refused(&self) -> Another {
        match &self.0 {
            Shown::Nothing => Another::None,
            Shown::Fixed { fixed, piece } if !fixed.is_in_force(piece) => Another::Ready,
            Shown::Fixed { fixed, .. } => match fixed.doubt() {
                true => Another::Perhaps,
                false => Another::None,
            },
            Shown::Token { source, token } => match source.refused(token) {
                true => Another::Ready,
                false => Another::None,
            },
        }
    }
}
