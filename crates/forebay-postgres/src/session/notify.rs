//! What a client in transaction pooling listens to, and when it is told.
//!
//! A LISTEN goes to the server like any other statement, so that its answer and its errors are
//! the server's; but not before the database's shared connection ([`crate::listener`]) listens
//! to that channel, so that nothing which is notified after the answer is missed. What is
//! heard counts for the client once its transaction has committed, and is told as the server
//! does it: before a ReadyForQuery outside of transactions, or while the client idles.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::outward::Step;
use super::{Change, HIGH_WATER, Intake, Session};
use crate::fault::Fault;
use crate::listener::hub::{Hub, Standing};
use crate::listener::mailbox::{Attention, Mailbox, Verdict};
use crate::listener::{Key, ListenError, Listeners};
use crate::pins::PinReason;
use crate::settings::PoolMode;
use crate::sql::effect::{self, Effect, Effects};
use crate::wire::backend::Notification;
use crate::wire::frontend::{Bind, Parse};
use crate::wire::{HEADER, Header, TxStatus};

/// The encoding in which names of channels can be told apart by their bytes.
const UTF8: &str = "UTF8";

/// A client that listens.
pub(super) struct Listening {
    listeners: Listeners,
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    key: Key,
    /// What the client listens to.
    channels: HashSet<Arc<str>>,
    /// What is listened to for it: besides, what it will listen to if it commits.
    joined: HashMap<Arc<str>, Standing>,
    /// A LISTEN waits to be sent.
    waits: Waits,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    No,
    Yes,
}

/// Whether a statement may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    Now,
    /// When the session's mailbox is stirred.
    Later,
}

impl Drop for Listening {
    fn drop(&mut self) {
        for channel in self.joined.keys() {
            self.hub.leave(channel, &self.mailbox);
        }
        self.listeners.client_left();
    }
}

impl Listening {
    /// Is `channel` listened to for the client by the shared connection?
    pub(super) fn carries(&self, channel: &[u8]) -> bool {
        std::str::from_utf8(channel).is_ok_and(|channel| self.joined.contains_key(channel))
    }

    /// Ready when there is something to do; `rests`: the client may be told things.
    pub(super) fn poll_news(
        &self,
        cx: &Context<'_>,
        outbox: &BytesMut,
        attention: Attention,
    ) -> Poll<()> {
        let attention = match attention {
            Attention::Mail if outbox.len() >= HIGH_WATER => Attention::End,
            Attention::Mail | Attention::End | Attention::Channels => attention,
        };
        self.mailbox.poll_news(cx, attention)
    }

    /// A transaction with `change` has committed.
    pub(super) fn commit(&mut self, change: ListenChange) {
        match change {
            ListenChange::To(channel) if self.joined.contains_key(&channel) => {
                self.channels.insert(channel);
            }
            // The server connection itself is pinned for it.
            ListenChange::To(_) => {}
            ListenChange::NoLonger(Some(channel)) => drop(self.channels.remove(&channel)),
            ListenChange::NoLonger(None) => self.channels.clear(),
        }
    }
}

impl Session {
    /// Before statements with these effects are sent: is what they listen to heard?
    pub(super) fn may_listen(&mut self, effects: &[Effect]) -> Result<May, ListenError> {
        let mut may = Ok(May::Now);
        for effect in effects {
            let Effect::Listen { channel } = effect else { continue };
            match self.join(channel) {
                Ok(Standing::Heard) => {}
                Ok(Standing::Coming) => may = Ok(May::Later),
                Err(why) => {
                    may = Err(why);
                    break;
                }
            }
        }
        if let Some(listening) = &mut self.listening {
            let waits = matches!(may, Ok(May::Later));
            listening.waits = if waits { Waits::Yes } else { Waits::No };
        }
        may
    }

    fn join(&mut self, channel: &Arc<str>) -> Result<Standing, ListenError> {
        if self.who.mode == PoolMode::Session {
            return Ok(Standing::Heard);
        }
        let encoding = self.reported.get("client_encoding").unwrap_or(UTF8);
        let in_utf8 = [encoding, self.reported.get("server_encoding").unwrap_or(UTF8)] == [UTF8; 2];
        let encoding_of_now = self.listening.as_ref().is_none_or(|l| *l.key.encoding == *encoding);
        if !encoding_of_now || (!in_utf8 && !channel.is_ascii()) {
            // Which channel it is, or how its notifications read, the server has to say.
            if self.link.is_some() {
                self.pins.foresee(PinReason::Listen);
            }
            return Ok(Standing::Heard);
        }
        let listeners = &self.who.backend.listeners;
        if let Some(listening) = &self.listening {
            if let Some(why) = listening.mailbox.take_refusal() {
                return Err(why);
            }
            if listening.joined.get(channel) == Some(&Standing::Heard) {
                return Ok(Standing::Heard);
            }
            let limit = listeners.channels_per_client();
            if listening.joined.len() >= limit && !listening.joined.contains_key(channel) {
                return Err(ListenError::ChannelsOfClient { limit });
            }
        }
        let identity = &self.who.identity;
        let key = Key { database: Arc::clone(&identity.database), encoding: Arc::from(encoding) };
        let mailbox = match &self.listening {
            Some(listening) => Arc::clone(&listening.mailbox),
            None => listeners.mailbox(),
        };
        let joined = listeners.join(&key, identity, channel, &mailbox);
        if self.listening.is_none() && joined.is_err() {
            listeners.client_left();
        }
        let (hub, standing) = joined?;
        let listeners = listeners.clone();
        let listening = self.listening.get_or_insert_with(|| {
            let (channels, joined) = (HashSet::new(), HashMap::new());
            let hub = Arc::clone(&hub);
            let waits = Waits::No;
            Box::new(Listening { listeners, hub, mailbox, key, channels, joined, waits })
        });
        if !Arc::ptr_eq(&listening.hub, &hub) {
            // The connection was lost, and this session will be told.
            hub.leave(channel, &listening.mailbox);
            return Ok(Standing::Coming);
        }
        listening.joined.insert(Arc::clone(channel), standing);
        Ok(standing)
    }

    /// Before a server is linked for the message at hand: a LISTEN waits without one.
    pub(super) fn link_for(&mut self, header: Header) -> Step {
        let effects = self.listens_at_hand(header);
        match self.may_listen(&effects) {
            Ok(May::Now) => Step::Link,
            Ok(May::Later) => Step::Wait,
            Err(why) => {
                if self.begin.take().is_some() {
                    self.status = TxStatus::Failed;
                }
                self.refuse_batch(&Fault::Listen(why));
                self.settle_listening();
                Step::Taken
            }
        }
    }

    /// The effects of the message at hand, if it begins with a LISTEN.
    fn listens_at_hand(&self, header: Header) -> Effects {
        let body = self.inbox.get(HEADER..header.whole().min(self.inbox.len())).unwrap_or_default();
        let text = match header.tag {
            b'Q' if self.inbox.len() >= header.whole() => body.strip_suffix(&[0]).unwrap_or(body),
            b'P' => Parse::read(body).map_or(&[][..], |parse| parse.text),
            b'B' => {
                let Ok(bind) = Bind::read(body) else { return Effects::new() };
                let statement = match bind.statement {
                    b"" => self.unnamed.as_ref(),
                    name => self.statements.get(name),
                };
                let effect = statement.map(|statement| &statement.effect);
                return effect
                    .filter(|e| matches!(e, Effect::Listen { .. }))
                    .cloned()
                    .into_iter()
                    .collect();
            }
            _ => return Effects::new(),
        };
        if effect::begins_with_listen(text) { effect::of(text) } else { Effects::new() }
    }

    /// A command that listens, or no longer, has succeeded.
    pub(super) fn listened(&mut self, change: ListenChange) {
        if self.listening.is_some() {
            self.uncommitted.push(Change::Listen(change));
        }
    }

    /// Nothing is under way: what was listened to for the client, and it does not listen to,
    /// is given up.
    pub(super) fn settle_listening(&mut self) {
        let Some(listening) = &mut self.listening else { return };
        if listening.waits == Waits::Yes {
            return;
        }
        let Listening { channels, joined, hub, mailbox, .. } = &mut **listening;
        joined.retain(|channel, _| {
            let stays = channels.contains(channel);
            if !stays {
                hub.leave(channel, mailbox);
            }
            stays
        });
        if joined.is_empty() {
            self.listening = None;
        }
    }

    /// How much the client may be told now.
    pub(super) fn attention(&mut self) -> Attention {
        if self.is_at_rest() && self.intake == Intake::Normal {
            Attention::Mail
        } else {
            Attention::Channels
        }
    }

    /// Tells the client what was notified. Only between its messages, outside of transactions.
    ///
    /// # Errors
    /// The session cannot go on: also the next time it is at rest.
    pub(super) fn tell_notifications(&mut self) -> Result<(), ListenError> {
        if self.listening.is_none() {
            return Ok(());
        }
        self.keep_passed();
        let Some(listening) = &mut self.listening else { return Ok(()) };
        let Listening { listeners, mailbox, key, channels, joined, .. } = &mut **listening;
        let as_they_came = self.reported.get("client_encoding") == Some(&key.encoding);
        let (outbox, mut told) = (&mut self.outbox, 0);
        let sifted = mailbox.sift(|message| {
            let body = message.get(HEADER..).unwrap_or_default();
            let channel = Notification::read(body).map_or(&[][..], |read| read.channel);
            let channel = std::str::from_utf8(channel).unwrap_or_default();
            if !channels.contains(channel) {
                // It may yet commit its LISTEN.
                let joined = joined.contains_key(channel);
                return Ok(if joined { Verdict::Later } else { Verdict::Gone });
            }
            if outbox.len() >= HIGH_WATER {
                return Ok(Verdict::Full);
            }
            // Behind the process that notified is text.
            if !as_they_came && !body.get(4..).is_some_and(<[u8]>::is_ascii) {
                return Err(ListenError::Encoding);
            }
            outbox.extend_from_slice(message);
            told += 1;
            Ok(Verdict::Gone)
        });
        listeners.counters().delivered(told);
        sifted
    }
}

/// What a command did to what the client listens to.
#[derive(Debug)]
pub(super) enum ListenChange {
    To(Arc<str>),
    /// One channel, or all.
    NoLonger(Option<Arc<str>>),
}
