//! The calls of a worker, and how it finds them.

use core::net::Ipv4Addr;

use turnpike_protocol::CallId;

use crate::api::{CallRef, Direction, SourceCheck};
use crate::call::{Call, Hot, Keys, LINE, Parts, Rest};
use crate::table::Table;
use crate::xsk::pages;

/// The calls of one worker. Its memory is allocated at start.
pub(crate) struct Calls {
    /// The parts of a call have the same place in these two. Apart, so that packets in clear, and what they need of the
    /// processor's caches and page tables, keep to as little memory as can be.
    hot: Box<[Hot]>,
    rest: Box<[Rest]>,
    free: Vec<u32>,
    index: Table<u64>,
    source_check: SourceCheck,
    /// How many calls have each id, to tell a stranger's packet from one for nobody.
    ids: Box<[u16]>,
}

/// A slot that no call has.
pub(crate) const NO_SLOT: u32 = u32::MAX;

impl Calls {
    /// Room for this many calls.
    pub(crate) fn new(limit: usize, source_check: SourceCheck) -> Self {
        let count = u32::try_from(limit).unwrap_or(NO_SLOT);
        Self {
            hot: pages::slice(limit, || Parts::vacant().hot),
            rest: pages::slice(limit, || Parts::vacant().rest),
            free: (0..count).rev().collect(),
            index: Table::new(limit),
            source_check,
            ids: vec![0; 1 << 16].into_boxed_slice(),
        }
    }

    /// What calls are found by.
    #[inline]
    fn key(&self, peer: Ipv4Addr, id: CallId) -> u64 {
        let peer = match self.source_check {
            SourceCheck::Strict => peer.to_bits(),
            SourceCheck::Relaxed => 0,
        };
        u64::from(peer) << 16 | u64::from(id.0)
    }

    /// The slot of the call that this peer's packets with this id belong to. With [`SourceCheck::Relaxed`] of the call
    /// with this id: whether they come from where they should is for the caller to see.
    #[inline]
    pub(crate) fn find(&self, peer: Ipv4Addr, id: CallId) -> Option<u32> {
        self.index.get(self.key(peer, id))
    }

    /// The slot of a call. `hint` is where it may be.
    #[inline]
    pub(crate) fn slot(&self, call: &CallRef, hint: u32) -> Option<u32> {
        if self.is(hint, call) {
            return Some(hint);
        }
        let slot = self.find(call.peer, call.id)?;
        self.is(slot, call).then_some(slot)
    }

    fn is(&self, slot: u32, call: &CallRef) -> bool {
        self.hot(slot)
            .is_some_and(|known| known.encap.call == *call)
    }

    /// Whether any peer's call has this id.
    pub(crate) fn has_id(&self, id: CallId) -> bool {
        self.ids[usize::from(id.0)] > 0
    }

    /// Has memory fetched for [`find`](Self::find).
    #[inline]
    pub(crate) fn fetch_index(&self, peer: Ipv4Addr, id: CallId) {
        self.index.fetch(self.key(peer, id));
    }

    /// Has memory fetched that a packet of a call will need, with its keys where `encrypted`.
    #[inline]
    pub(crate) fn fetch(&self, slot: u32, direction: Direction, encrypted: bool) {
        let at = slot as usize;
        let (Some(hot), Some(rest)) = (self.hot.get(at), self.rest.get(at)) else {
            return;
        };
        for lines in Hot::touched(direction) {
            pages::fetch(hot, lines.start * LINE..lines.end * LINE);
        }
        if encrypted {
            let lines = Keys::touched(direction);
            pages::fetch(rest, lines.start * LINE..lines.end * LINE);
        }
    }

    /// Octets of memory, but for what is there once.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        size_of_val(&*self.hot)
            + size_of_val(&*self.rest)
            + size_of::<u32>() * self.free.capacity()
            + self.index.octets()
    }

    /// Calls that are open.
    pub(crate) fn len(&self) -> usize {
        self.hot.len() - self.free.len()
    }

    /// Whether there is room for one more.
    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    #[inline]
    fn hot(&self, slot: u32) -> Option<&Hot> {
        self.hot.get(slot as usize).filter(|hot| hot.gre.open)
    }

    /// The running keys of a call.
    #[inline]
    pub(crate) fn keys(&self, slot: u32) -> Option<&Keys> {
        self.hot(slot)?;
        Some(&self.rest.get(slot as usize)?.keys)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<Call<'_>> {
        let at = slot as usize;
        let hot = self.hot.get_mut(at).filter(|hot| hot.gre.open)?;
        Some(Call::of(hot, self.rest.get_mut(at)?))
    }

    /// Opens a call. None when there is no room, or one with this peer and id (with [`SourceCheck::Relaxed`]: with
    /// this id).
    pub(crate) fn open(&mut self, call: Parts) -> Option<u32> {
        let CallRef { peer, id, .. } = call.hot.encap.call;
        if self.find(peer, id).is_some() {
            return None;
        }
        let slot = self.free.pop()?;
        let inserted = self.index.insert(self.key(peer, id), slot);
        debug_assert!(inserted, "the table has as much room as there are slots");
        self.ids[usize::from(id.0)] += 1;
        self.hot[slot as usize] = call.hot;
        self.rest[slot as usize] = call.rest;
        Some(slot)
    }

    pub(crate) fn close(&mut self, slot: u32) -> Option<Parts> {
        let at = slot as usize;
        let hot = self.hot.get_mut(at).filter(|hot| hot.gre.open)?;
        let vacant = Parts::vacant();
        let closed = Parts {
            hot: core::mem::replace(hot, vacant.hot),
            rest: core::mem::replace(self.rest.get_mut(at)?, vacant.rest),
        };
        let CallRef { peer, id, .. } = closed.hot.encap.call;
        self.index.remove(self.key(peer, id));
        self.ids[usize::from(id.0)] -= 1;
        self.free.push(slot);
        Some(closed)
    }
}
