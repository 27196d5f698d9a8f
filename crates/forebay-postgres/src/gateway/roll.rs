//! Who is logged in: each client by a number, with what ends it; and how many there are of each
//! database, each user and each pair.
//!
//! Knows no sessions. Always true: a client is counted as long as its entry exists, whichever
//! way it goes, and nothing is kept of names that nobody uses.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use forebay_seam::sync::Mutex;

use super::pairs::ClientLimits;
use crate::cancel::Cancelable;
use crate::fault::Fault;
use crate::server::connector::Identity;

/// Everybody who is logged in.
#[derive(Default)]
pub(crate) struct Roll(Mutex<Lists>);

#[derive(Default)]
struct Lists {
    clients: HashMap<u64, Client>,
    databases: HashMap<Arc<str>, u32>,
    users: HashMap<Arc<str>, u32>,
    pairs: HashMap<Identity, u32>,
}

struct Client {
    user: Arc<str>,
    identity: Identity,
    handle: Arc<Cancelable>,
}

/// Whom an entry is for.
pub(super) struct Newcomer<'a> {
    /// Its number, which no other has had.
    pub(super) id: u64,
    /// The user as the client calls itself.
    pub(super) user: &'a Arc<str>,
    /// The pair it works as.
    pub(super) identity: &'a Identity,
    pub(super) handle: &'a Arc<Cancelable>,
}

/// A client's place on the roll, until dropped.
pub(crate) struct Entry {
    roll: Arc<Roll>,
    id: u64,
}

impl Entry {
    /// The client's number, which no other has had.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut lists = self.roll.0.lock();
        let Lists { clients, databases, users, pairs, .. } = &mut *lists;
        let Some(Client { user, identity, .. }) = clients.remove(&self.id) else { return };
        one_less(databases, &identity.name);
        one_less(users, &user);
        one_less(pairs, &identity);
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Roll {
    /// One more client, if `limits` allow.
    pub(super) fn enter(
        self: &Arc<Self>,
        newcomer: &Newcomer<'_>,
        limits: ClientLimits,
    ) -> Result<Entry, Fault> {
        let Newcomer { id, user, identity, handle } = *newcomer;
        let mut lists = self.0.lock();
        let of = |counts: &HashMap<Arc<str>, u32>, name| counts.get(name).copied().unwrap_or(0);
        let is_full = |limit: u32, count: u32| limit > 0 && count >= limit;
        if is_full(limits.database, of(&lists.databases, &identity.name)) {
            return Err(Fault::TooManyOf { limit: "max_db_client_connections" });
        }
        if is_full(limits.user, of(&lists.users, user)) {
            return Err(Fault::TooManyOf { limit: "max_user_client_connections" });
        }
        let handle = Arc::clone(handle);
        let client = Client { user: Arc::clone(user), identity: identity.clone(), handle };
        lists.clients.insert(id, client);
        *lists.databases.entry(Arc::clone(&identity.name)).or_default() += 1;
        *lists.users.entry(Arc::clone(user)).or_default() += 1;
        *lists.pairs.entry(identity.clone()).or_default() += 1;
        drop(lists);
        Ok(Entry { roll: Arc::clone(self), id })
    }

    /// Ends client number `id`; `false`: there is none.
    pub(super) fn end(&self, id: u64) -> bool {
        let client = self.0.lock().clients.get(&id).map(|client| Arc::clone(&client.handle));
        client.inspect(|handle| handle.end()).is_some()
    }

    /// Ends the clients of the databases that `which` says.
    pub(super) fn end_all_of(&self, which: impl Fn(&str) -> bool) {
        self.handles(|client| which(&client.identity.name)).iter().for_each(|handle| handle.end());
    }

    /// Every client's task looks around.
    pub(super) fn wake_all(&self) {
        self.handles(|_| true).iter().for_each(|handle| handle.wake());
    }

    /// Those whose buffers were not empty in `round` of stillness.
    pub(super) fn not_still_in(&self, round: u64) -> Vec<Arc<Cancelable>> {
        self.handles(|client| !client.handle.was_still_in(round))
    }

    fn handles(&self, which: impl Fn(&Client) -> bool) -> Vec<Arc<Cancelable>> {
        let lists = self.0.lock();
        let those = lists.clients.values().filter(|client| which(client));
        those.map(|client| Arc::clone(&client.handle)).collect()
    }

    /// Cancel requests under way, by pair: those that no server has been told of yet, and those
    /// on their way to one.
    pub(crate) fn cancel_requests(&self) -> Vec<(Identity, u16, u16)> {
        let lists = self.0.lock();
        let all = lists.clients.values().map(|client| {
            let (waiting, sent) = client.handle.requests();
            (client, waiting, sent)
        });
        let some = all.filter(|(_, waiting, sent)| waiting + sent > 0);
        some.map(|(client, waiting, sent)| (client.identity.clone(), waiting, sent)).collect()
    }

    pub(super) fn has_clients_of(&self, identity: &Identity) -> bool {
        self.0.lock().pairs.contains_key(identity)
    }

    /// Databases that have clients.
    pub(super) fn databases(&self) -> Vec<Arc<str>> {
        self.0.lock().databases.keys().map(Arc::clone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: ClientLimits = ClientLimits { database: 0, user: 0 };

    fn enter(
        roll: &Arc<Roll>,
        id: u64,
        name: &str,
        user: &str,
        limits: ClientLimits,
    ) -> Result<Entry, Fault> {
        let user: Arc<str> = user.into();
        let identity =
            Identity { name: name.into(), database: name.into(), user: Arc::clone(&user) };
        let handle = Arc::default();
        roll.enter(&Newcomer { id, user: &user, identity: &identity, handle: &handle }, limits)
    }

    fn count(roll: &Roll, name: &str, user: &str) -> (u32, u32) {
        let lists = roll.0.lock();
        let of = |counts: &HashMap<Arc<str>, u32>, name| counts.get(name).copied().unwrap_or(0);
        (of(&lists.databases, name), of(&lists.users, user))
    }

    #[test]
    fn a_client_is_counted_until_its_entry_is_gone() {
        let roll = Arc::<Roll>::default();
        let one = enter(&roll, 1, "a", "ann", NO_LIMITS).unwrap();
        let two = enter(&roll, 2, "a", "bob", NO_LIMITS).unwrap();
        assert_eq!((count(&roll, "a", "ann"), count(&roll, "b", "eve")), ((2, 1), (0, 0)));
        let id = one.id();
        let identity = Identity { name: "a".into(), database: "a".into(), user: "ann".into() };
        assert!(roll.end(id) && roll.has_clients_of(&identity));
        drop(one);
        assert!(!roll.end(id) && !roll.has_clients_of(&identity));
        drop(two);
        let lists = roll.0.lock();
        assert!(lists.clients.is_empty() && lists.databases.is_empty());
        assert!(lists.users.is_empty() && lists.pairs.is_empty());
    }

    #[test]
    fn who_comes_above_a_limit_is_refused_and_counted_nowhere() {
        let roll = Arc::<Roll>::default();
        let limits = ClientLimits { database: 2, user: 1 };
        let one = enter(&roll, 1, "a", "ann", limits).unwrap();
        let refused = |name, user| enter(&roll, 9, name, user, limits).err().unwrap().to_string();
        assert_eq!(
            refused("b", "ann"),
            "no more connections allowed (max_user_client_connections)"
        );
        let two = enter(&roll, 2, "a", "bob", limits).unwrap();
        assert_eq!(refused("a", "eve"), "no more connections allowed (max_db_client_connections)");
        drop((one, two));
        assert!(enter(&roll, 1, "a", "ann", limits).is_ok());
    }
}
