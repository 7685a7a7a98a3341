//! Link-layer addresses of next hops, as Linux knows them.

use core::net::Ipv4Addr;

use turnpike_protocol::wire::ethernet::MacAddr;

use crate::api::Port;
use crate::table::Table;

/// Index of an entry that has a user; valid until it is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hop(u32);

impl Hop {
    /// No entry's; must not be asked for.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

#[derive(Clone, Copy, Default)]
struct Entry {
    key: u64,
    mac: Option<MacAddr>,
    users: u32,
}

/// Next hops by port and address: those that calls use, and those that Linux told of, whoever came first.
pub(crate) struct NextHops {
    index: Table<u64>,
    entries: Box<[Entry]>,
    free: Vec<u32>,
}

fn key(port: Port, address: Ipv4Addr) -> u64 {
    (port as u64) << 32 | u64::from(address.to_bits())
}

impl NextHops {
    /// Room for this many, allocated now.
    pub(crate) fn new(limit: usize) -> Self {
        let count = u32::try_from(limit).unwrap_or(u32::MAX - 1);
        Self {
            index: Table::new(limit),
            entries: vec![Entry::default(); limit].into_boxed_slice(),
            free: (0..count).rev().collect(),
        }
    }

    /// Octets of memory.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        size_of_val(&*self.entries) + size_of::<u32>() * self.free.capacity() + self.index.octets()
    }

    fn entry(&mut self, key: u64) -> Option<u32> {
        if let Some(at) = self.index.get(key) {
            return Some(at);
        }
        let at = self.free.pop()?;
        let inserted = self.index.insert(key, at);
        debug_assert!(inserted, "the table has as much room as there are entries");
        self.entries[at as usize] = Entry {
            key,
            mac: None,
            users: 0,
        };
        Some(at)
    }

    fn forget_if_idle(&mut self, at: u32) {
        let entry = self.entries[at as usize];
        if entry.users == 0 && entry.mac.is_none() {
            self.index.remove(entry.key);
            self.free.push(at);
        }
    }

    /// Registers a user of a next hop. None when there is no room.
    pub(crate) fn acquire(&mut self, port: Port, address: Ipv4Addr) -> Option<Hop> {
        let at = self.entry(key(port, address))?;
        self.entries[at as usize].users += 1;
        Some(Hop(at))
    }

    /// Takes a user back.
    pub(crate) fn release(&mut self, hop: Hop) {
        self.entries[hop.0 as usize].users -= 1;
        self.forget_if_idle(hop.0);
    }

    /// What Linux says of a neighbour. False when there is no room to remember it.
    #[must_use]
    pub(crate) fn set(&mut self, port: Port, address: Ipv4Addr, mac: Option<MacAddr>) -> bool {
        let key = key(port, address);
        if mac.is_none() && self.index.get(key).is_none() {
            return true;
        }
        let Some(at) = self.entry(key) else {
            return false;
        };
        self.entries[at as usize].mac = mac;
        self.forget_if_idle(at);
        true
    }

    /// The link-layer address, when it is known.
    #[inline]
    pub(crate) fn mac(&self, hop: Hop) -> Option<MacAddr> {
        self.entries[hop.0 as usize].mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    #[test]
    fn whoever_comes_first() {
        let mut hops = NextHops::new(4);
        assert!(hops.set(Port::Access, A, Some(MAC)));
        let hop = hops.acquire(Port::Access, A).unwrap();
        assert_eq!(hops.mac(hop), Some(MAC));
        let other = hops.acquire(Port::Uplink, A).unwrap();
        assert_eq!(hops.mac(other), None, "the same address on another port");
        assert!(hops.set(Port::Uplink, A, Some(MAC)));
        assert_eq!(hops.mac(other), Some(MAC));
        assert!(hops.set(Port::Access, A, None));
        assert_eq!(hops.mac(hop), None);
    }

    #[test]
    fn entries_without_user_and_address_make_room() {
        let mut hops = NextHops::new(1);
        for n in 0..10 {
            let address = Ipv4Addr::new(10, 0, 0, n);
            let hop = hops.acquire(Port::Access, address).unwrap();
            assert!(hops.acquire(Port::Uplink, address).is_none());
            assert!(!hops.set(Port::Host, address, Some(MAC)));
            assert!(hops.set(Port::Access, address, Some(MAC)));
            hops.release(hop);
            assert!(hops.set(Port::Access, address, None));
            assert!(hops.set(Port::Access, address, None), "twice is fine");
        }
    }
}
