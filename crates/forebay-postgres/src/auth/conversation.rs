//! What is said to a client while it proves who it is, and what it answers.
//!
//! Always true: nothing is read that is longer than PostgreSQL takes, and only the one message
//! that is due is taken.

use bytes::{Buf, BytesMut};

use crate::fault::{Fault, Limit};
use crate::stream::Stream;
use crate::wire::{HEADER, Header, Malformed, backend};

/// The longest password or token, with its zero (PG_MAX_AUTH_TOKEN_LENGTH).
const LONGEST_PASSWORD: usize = 65_536;
/// The longest SASL message that makes sense.
const LONGEST_SASL: usize = 4 * 1024;

/// Why a login came to nothing.
pub(crate) enum Failure {
    /// The client is told.
    Fault(Fault),
    /// It has gone.
    Gone,
}

impl<T: Into<Fault>> From<T> for Failure {
    fn from(fault: T) -> Self {
        Self::Fault(fault.into())
    }
}

/// What a client is asked for ("Message Formats", AuthenticationOk and the following).
#[derive(Clone, Copy)]
pub(crate) enum Say<'a> {
    Cleartext,
    Md5 {
        salt: [u8; 4],
    },
    /// The mechanisms, each with its zero.
    Sasl(&'a [u8]),
    SaslContinue(&'a str),
    SaslFinal(&'a str),
}

/// The two ends of a login.
pub(crate) struct Conversation<'a> {
    pub(crate) client: &'a mut Stream,
    pub(crate) inbox: &'a mut BytesMut,
    pub(crate) outbox: &'a mut BytesMut,
}

impl Conversation<'_> {
    /// Says it with what is sent next.
    pub(crate) fn say(&mut self, say: Say<'_>) {
        let (code, data) = match &say {
            Say::Cleartext => (3, &[][..]),
            Say::Md5 { salt } => (5, &salt[..]),
            Say::Sasl(mechanisms) => (10, *mechanisms),
            Say::SaslContinue(text) => (11, text.as_bytes()),
            Say::SaslFinal(text) => (12, text.as_bytes()),
        };
        backend::authentication(self.outbox, code, data);
    }

    /// Sends what was said, and takes the client's SASL message.
    pub(crate) async fn sasl(&mut self) -> Result<BytesMut, Failure> {
        self.answer(LONGEST_SASL).await
    }

    /// Sends what was said, and takes the client's password.
    pub(crate) async fn password(&mut self) -> Result<BytesMut, Failure> {
        let mut body = self.answer(LONGEST_PASSWORD).await?;
        // Exactly one string.
        match memchr::memchr(0, &body) {
            Some(end) if end + 1 == body.len() => {
                body.truncate(end);
                Ok(body)
            }
            Some(end) => Err(Malformed::Trailing(body.len() - end - 1).into()),
            None => Err(Malformed::Unterminated.into()),
        }
    }

    async fn answer(&mut self, longest: usize) -> Result<BytesMut, Failure> {
        self.client.drain(self.outbox).await.map_err(|_| Failure::Gone)?;
        loop {
            if let Some(header) = Header::read(self.inbox)? {
                if header.tag != b'p' {
                    return Err(Fault::Unexpected { tag: header.tag, state: "during login" }.into());
                }
                if header.body > longest {
                    let limit = Limit::Login(longest);
                    return Err(Fault::TooLong { length: header.body, limit }.into());
                }
                if self.inbox.len() >= header.whole() {
                    let mut message = self.inbox.split_to(header.whole());
                    message.advance(HEADER);
                    return Ok(message);
                }
            }
            self.client.fill_more(self.inbox).await.map_err(|_| Failure::Gone)?;
        }
    }
}
