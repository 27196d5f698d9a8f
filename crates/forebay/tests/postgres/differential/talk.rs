//! One client's connection, written and read at once, so that neither side can block it.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_seam::time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::answers::{Answer, Ending};
use crate::client::{Client, Message};

/// So many CloseComplete in a row tell the end of answers that cannot be counted: no script
/// has as many in a row by itself.
pub(super) const CLOSES: usize = 8;

/// How the end of a turn's answers is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// So many ReadyForQuery.
    Readies(usize),
    /// The Closes behind it are answered, and their Sync.
    ClosesAndReady,
    /// The Closes behind it are answered, or an error makes the server skip them.
    ClosesOrError,
}

/// Reads a connection.
pub(super) struct Ear {
    stream: OwnedReadHalf,
    inbox: Vec<u8>,
    pub(super) parameters: BTreeMap<String, String>,
}

/// Writes to a connection.
pub(super) struct Mouth(OwnedWriteHalf);

pub(super) fn split(client: Client) -> (Ear, Mouth) {
    let (reader, writer) = client.stream.into_split();
    let parameters = client.parameters;
    (Ear { stream: reader, inbox: Vec::new(), parameters }, Mouth(writer))
}

impl Mouth {
    /// Who has been left by the server has nobody to write to: reading tells.
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes).await);
    }
}

impl Ear {
    pub(super) async fn hear(&mut self, end: End, patience: Duration) -> Answer {
        let mut messages = Vec::new();
        let heard = self.hear_all(end, &mut messages);
        let ending = time::timeout(patience, heard).await.unwrap_or(Ending::Silence);
        Answer { messages, ending, parameters: self.parameters.clone() }
    }

    async fn hear_all(&mut self, end: End, messages: &mut Vec<Message>) -> Ending {
        let (mut readies, mut closes) = (0, 0);
        if end == End::Readies(0) {
            return Ending::Complete;
        }
        loop {
            let Some(message) = self.message().await else { return Ending::Closed };
            let tag = message.tag;
            if tag == b'S' {
                self.take_parameter(&message.body);
                continue;
            }
            messages.push(message);
            let is_last = match (tag, end) {
                (b'Z', End::Readies(wanted)) => {
                    readies += 1;
                    readies == wanted
                }
                (b'Z', End::ClosesAndReady) => closes >= CLOSES,
                (b'E', End::ClosesOrError) => true,
                (b'3', End::ClosesOrError) => closes + 1 >= CLOSES,
                _ => false,
            };
            if is_last {
                return Ending::Complete;
            }
            closes = if tag == b'3' { closes + 1 } else { 0 };
        }
    }

    fn take_parameter(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let (name, value) = text.split_once('\0').unwrap();
        self.parameters.insert(name.into(), value.trim_end_matches('\0').into());
    }

    async fn message(&mut self) -> Option<Message> {
        loop {
            if let Some([tag, a, b, c, d]) = self.inbox.first_chunk() {
                let (tag, length) = (*tag, u32::from_be_bytes([*a, *b, *c, *d]));
                let whole = usize::try_from(length).unwrap() + 1;
                if self.inbox.len() >= whole {
                    let body = self.inbox.drain(..whole).skip(5).collect();
                    return Some(Message { tag, body });
                }
            }
            if self.stream.read_buf(&mut self.inbox).await.ok()? == 0 {
                return None;
            }
        }
    }
}
