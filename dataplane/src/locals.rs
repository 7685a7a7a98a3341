//! Addresses of the machine itself: packets for them are Linux', whatever lies behind the uplink.

use core::net::Ipv4Addr;

/// Addresses that one worker remembers. A machine has a handful; more are counted as not remembered, and packets for
/// them go the way of all others.
pub(crate) const MAX_LOCALS: usize = 1024;

/// The machine's addresses, sorted: a few comparisons for each packet that would take the uplink, and for no other.
pub(crate) struct Locals(Vec<u32>);

impl Locals {
    /// None yet; room for all is allocated now.
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(MAX_LOCALS))
    }

    /// Adds an address. False when there is no room.
    #[must_use]
    pub(crate) fn add(&mut self, address: Ipv4Addr) -> bool {
        match self.0.binary_search(&address.to_bits()) {
            Ok(_) => true,
            Err(_) if self.0.len() == MAX_LOCALS => false,
            Err(at) => {
                self.0.insert(at, address.to_bits());
                true
            }
        }
    }

    /// Takes an address back; unknown ones are none.
    pub(crate) fn remove(&mut self, address: Ipv4Addr) {
        if let Ok(at) = self.0.binary_search(&address.to_bits()) {
            self.0.remove(at);
        }
    }

    /// Whether an address is the machine's.
    #[inline]
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.binary_search(&address.to_bits()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let address = |n: usize| Ipv4Addr::from_bits(0x0a00_0000 + n as u32);
        let mut locals = Locals::new();
        let room = locals.0.capacity();
        // Not in their order.
        for n in (0..MAX_LOCALS).rev() {
            assert!(locals.add(address(n)));
        }
        assert!(locals.add(address(7)), "twice is once");
        assert!(!locals.add(address(MAX_LOCALS)));
        assert!(!locals.contains(address(MAX_LOCALS)));
        locals.remove(address(7));
        locals.remove(address(7));
        assert!(!locals.contains(address(7)));
        assert!(locals.contains(address(6)) && locals.contains(address(8)));
        assert!(locals.add(address(MAX_LOCALS)));
        assert_eq!(locals.0.capacity(), room, "nothing was allocated");
    }
}
