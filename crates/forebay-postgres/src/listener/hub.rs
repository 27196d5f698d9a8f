//! Who listens to what in one database, and which channels the connection there has to
//! listen to. Decides; [`super::carrier`] carries it out.
//!
//! Always true: a channel has members or is about to be given up; a member is told that its
//! channel is heard only after the server has said so.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_seam::sync::Mutex;
use tokio::sync::Notify;

use super::mailbox::{Mailbox, Posted};
use super::{Counters, ListenError};

/// One database's listeners.
pub(crate) struct Hub {
    state: Mutex<State>,
    counters: Arc<Counters>,
    /// There are errands, or the end has come.
    changed: Notify,
}

struct State {
    phase: Phase,
    channels: HashMap<Arc<str>, Channel>,
    /// Channels that may need an errand.
    stale: Vec<Arc<str>>,
}

/// `Opening → Serving → Closed`, or `Opening → Closed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Serving,
    Closed,
}

struct Channel {
    members: HashMap<usize, Arc<Mailbox>>,
    carried: Carried,
}

/// Whether the server was asked to notify us: `No → Asked → Yes → Leaving → No`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    No,
    Asked,
    Yes,
    Leaving,
}

/// Whether a channel is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// What is notified from now on arrives.
    Heard,
    /// The mailbox will be stirred.
    Coming,
}

/// What the connection has to tell the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Errand {
    Listen(Arc<str>),
    Unlisten(Arc<str>),
}

impl Errand {
    pub(super) fn sql(&self) -> String {
        let (verb, channel) = match self {
            Self::Listen(channel) => ("LISTEN", channel),
            Self::Unlisten(channel) => ("UNLISTEN", channel),
        };
        format!("{verb} \"{}\"", channel.replace('"', "\"\""))
    }
}

fn id(mailbox: &Arc<Mailbox>) -> usize {
    Arc::as_ptr(mailbox).addr()
}

impl Hub {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        let state = State { phase: Phase::Opening, channels: HashMap::new(), stale: Vec::new() };
        Self { state: Mutex::new(state), counters, changed: Notify::new() }
    }

    /// `mailbox` gets what is notified on `channel`, from the moment at which it is heard.
    ///
    /// # Errors
    /// There are as many channels as may be.
    pub(super) fn join(
        &self,
        channel: &Arc<str>,
        mailbox: &Arc<Mailbox>,
        limit: usize,
    ) -> Result<Standing, ListenError> {
        let mut state = self.state.lock();
        if !state.channels.contains_key(channel) {
            if state.channels.len() >= limit {
                return Err(ListenError::ChannelsOfDatabase { limit });
            }
            let members = HashMap::new();
            state.channels.insert(Arc::clone(channel), Channel { members, carried: Carried::No });
        }
        let Some(joined) = state.channels.get_mut(channel) else { return Ok(Standing::Coming) };
        joined.members.insert(id(mailbox), Arc::clone(mailbox));
        match joined.carried {
            Carried::Yes => return Ok(Standing::Heard),
            Carried::Asked | Carried::Leaving => return Ok(Standing::Coming),
            Carried::No => {}
        }
        state.stale.push(Arc::clone(channel));
        self.changed.notify_one();
        Ok(Standing::Coming)
    }

    /// `mailbox` gets no more of `channel`.
    pub(crate) fn leave(&self, channel: &Arc<str>, mailbox: &Arc<Mailbox>) {
        let mut state = self.state.lock();
        let State { channels, stale, .. } = &mut *state;
        let Some(left) = channels.get_mut(channel) else { return };
        left.members.remove(&id(mailbox));
        if left.members.is_empty() {
            match left.carried {
                Carried::No => drop(channels.remove(channel)),
                Carried::Yes => {
                    stale.push(Arc::clone(channel));
                    self.changed.notify_one();
                }
                Carried::Asked | Carried::Leaving => {}
            }
        }
    }

    /// Waits until there may be errands, or until it is closed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The connection can listen.
    pub(super) fn serves(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Opening {
            state.phase = Phase::Serving;
        }
    }

    /// What the server has to be told now.
    pub(super) fn errands(&self) -> Vec<Errand> {
        let mut errands = Vec::new();
        let State { channels, stale, .. } = &mut *self.state.lock();
        for name in std::mem::take(stale) {
            let Some(channel) = channels.get_mut(&name) else { continue };
            match (channel.carried, channel.members.is_empty()) {
                (Carried::No, false) => {
                    channel.carried = Carried::Asked;
                    errands.push(Errand::Listen(name));
                }
                (Carried::Yes, true) => {
                    channel.carried = Carried::Leaving;
                    errands.push(Errand::Unlisten(name));
                }
                (Carried::No | Carried::Asked | Carried::Leaving, _) | (Carried::Yes, false) => {}
            }
        }
        errands
    }

    /// The server has done an errand, or said why not.
    pub(super) fn done(&self, errand: &Errand, refused: Option<&ListenError>) {
        let State { channels, stale, .. } = &mut *self.state.lock();
        let (Errand::Listen(name) | Errand::Unlisten(name)) = errand;
        let Some(channel) = channels.get_mut(name) else { return };
        match (errand, refused) {
            (Errand::Listen(_), Some(why)) => {
                channel.members.values().for_each(|member| member.refuse(why.clone()));
                channels.remove(name);
            }
            (Errand::Listen(_), None) => {
                channel.carried = Carried::Yes;
                channel.members.values().for_each(|member| member.stir());
            }
            (Errand::Unlisten(_), _) if channel.members.is_empty() => {
                channels.remove(name);
            }
            (Errand::Unlisten(_), _) => channel.carried = Carried::No,
        }
        stale.push(Arc::clone(name));
        self.changed.notify_one();
    }

    /// Hands a notification, as it came, to all who listen to `channel`.
    pub(super) fn hand_out(&self, channel: &str, message: &Bytes) {
        let state = self.state.lock();
        let Some(channel) = state.channels.get(channel) else { return };
        for member in channel.members.values() {
            if member.post(message) == Posted::Overflowed {
                self.counters.overflowed();
            }
        }
    }

    pub(super) fn channels(&self) -> usize {
        self.state.lock().channels.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().phase == Phase::Closed
    }

    /// Nobody is listened for any more. Who only waited to be heard is told `why` and may try
    /// again; who was heard may miss something from now on.
    pub(super) fn close(&self, why: &ListenError) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.phase, Phase::Closed);
        for channel in std::mem::take(&mut state.channels).into_values() {
            for member in channel.members.into_values() {
                match before {
                    Phase::Opening => member.refuse(why.clone()),
                    Phase::Serving if member.end(why.clone()) == Posted::Kept => {
                        self.counters.lost();
                    }
                    Phase::Serving => {}
                    Phase::Closed => {}
                }
            }
        }
        drop(state);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::super::mailbox::{Attention, Verdict};
    use super::*;

    fn hub() -> Hub {
        let hub = Hub::new(Arc::default());
        hub.serves();
        hub
    }

    fn mailbox() -> Arc<Mailbox> {
        Arc::new(Mailbox::new(1_000))
    }

    fn is_stirred(mailbox: &Mailbox) -> bool {
        let cx = Context::from_waker(Waker::noop());
        mailbox.poll_news(&cx, Attention::Channels).is_ready()
    }

    fn mail(mailbox: &Mailbox) -> usize {
        let mut n = 0;
        let mut count = |_: &[u8]| {
            n += 1;
            Ok(Verdict::Gone)
        };
        mailbox.sift(&mut count).unwrap();
        n
    }

    #[test]
    fn a_channel_is_asked_for_once_and_given_up_after_its_last_member() {
        let hub = hub();
        let (a, b, news) = (mailbox(), mailbox(), Arc::from("ne\"ws"));
        assert_eq!(hub.join(&news, &a, 9).unwrap(), Standing::Coming);
        assert_eq!(hub.join(&news, &b, 9).unwrap(), Standing::Coming);
        let errands = hub.errands();
        assert_eq!(errands, [Errand::Listen(Arc::clone(&news))]);
        assert_eq!(errands[0].sql(), "LISTEN \"ne\"\"ws\"");
        assert!(hub.errands().is_empty() && !is_stirred(&a));
        hub.done(&errands[0], None);
        assert!(is_stirred(&a) && is_stirred(&b));
        assert_eq!(hub.join(&news, &a, 9).unwrap(), Standing::Heard);
        hub.hand_out("ne\"ws", &Bytes::from_static(b"x"));
        hub.hand_out("other", &Bytes::from_static(b"x"));
        assert_eq!((mail(&a), mail(&b)), (1, 1));
        hub.leave(&news, &a);
        assert!(hub.errands().is_empty());
        hub.leave(&news, &b);
        assert_eq!(hub.errands(), [Errand::Unlisten(Arc::clone(&news))]);
        // Who comes meanwhile is not heard by what is given up.
        assert_eq!(hub.join(&news, &a, 9).unwrap(), Standing::Coming);
        hub.done(&Errand::Unlisten(Arc::clone(&news)), None);
        assert_eq!(hub.errands(), [Errand::Listen(Arc::clone(&news))]);
        hub.leave(&news, &a);
        hub.done(&Errand::Listen(Arc::clone(&news)), None);
        assert_eq!(hub.errands(), [Errand::Unlisten(Arc::clone(&news))]);
        hub.done(&Errand::Unlisten(news), None);
        assert_eq!(hub.channels(), 0);
    }

    #[test]
    fn channels_are_bounded_and_refusals_reach_those_who_wait() {
        let hub = hub();
        let (a, b) = (mailbox(), mailbox());
        let (one, two) = (Arc::from("one"), Arc::from("two"));
        hub.join(&one, &a, 1).unwrap();
        let full = hub.join(&two, &b, 1).unwrap_err();
        assert!(matches!(full, ListenError::ChannelsOfDatabase { limit: 1 }));
        hub.join(&one, &b, 1).unwrap();
        let why = ListenError::Overflow { limit: 0 };
        hub.done(&hub.errands()[0], Some(&why));
        assert!(is_stirred(&a) && a.take_refusal().is_some() && b.take_refusal().is_some());
        assert_eq!(hub.channels(), 0);
    }

    #[test]
    fn a_lost_connection_ends_sessions_that_were_heard_and_no_others() {
        let lost = ListenError::Overflow { limit: 0 };
        let (opening, a) = (Hub::new(Arc::default()), mailbox());
        opening.join(&Arc::from("news"), &a, 9).unwrap();
        opening.close(&lost);
        assert!(a.take_refusal().is_some() && a.sift(|_| Ok(Verdict::Gone)).is_ok());
        let (serving, b) = (hub(), mailbox());
        serving.join(&Arc::from("news"), &b, 9).unwrap();
        serving.close(&lost);
        assert!(b.sift(|_| Ok(Verdict::Gone)).is_err());
    }
}
