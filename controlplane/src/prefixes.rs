//! IPv6 prefixes for calls: the link of each, and what may be delegated into it.

use std::collections::{HashSet, VecDeque};

use core::net::Ipv6Addr;

use ipnet::Ipv6Net;
use turnpike_protocol::ppp::Ipv6Grant;

use crate::config::Ipv6;

/// Length of a call's own prefix, in bits (RFC 4291 §2.5.4).
pub const LINK_LENGTH: u8 = 64;

/// Our interface identifier on every call's link: fe80::1.
const OUR_IDENTIFIER: u64 = 1;

/// Prefixes of one length out of a longer one.
///
/// Those that were never used go out first, in order; then those given back, the longest rested first, so that late
/// packets for one client do not reach the next. Memory: some 60 octets for each prefix in use or given back.
#[derive(Debug)]
pub struct Subnets {
    pool: Ipv6Net,
    length: u8,
    /// Number of the next one to be used for the first time.
    fresh: u128,
    /// Given back, the longest ago in front.
    returned: VecDeque<u128>,
    taken: HashSet<u128>,
}

impl Subnets {
    /// The prefixes of `length` bits in `pool`, which is no longer, without the first `kept` of them.
    pub fn new(pool: Ipv6Net, length: u8, kept: u128) -> Self {
        Self {
            pool: pool.trunc(),
            length,
            fresh: kept,
            returned: VecDeque::new(),
            taken: HashSet::new(),
        }
    }

    /// Takes a prefix: its number in the pool, and itself.
    pub fn allocate(&mut self) -> Option<(u128, Ipv6Net)> {
        let bits = self.length.checked_sub(self.pool.prefix_len())?;
        // All ones has as many bits as numbers may have.
        let last = !(u128::MAX.checked_shl(bits.into()).unwrap_or(0));
        let number = if self.fresh <= last {
            let number = self.fresh;
            self.fresh += 1;
            number
        } else {
            self.returned.pop_front()?
        };
        let shift = u32::from(128 - self.length);
        let offset = number.checked_shl(shift).unwrap_or(0);
        let address = Ipv6Addr::from_bits(self.pool.network().to_bits() | offset);
        let prefix = Ipv6Net::new(address, self.length).ok()?;
        self.taken.insert(number);
        Some((number, prefix))
    }

    /// Gives a prefix back; `false` when it was not in use.
    pub fn release(&mut self, prefix: Ipv6Net) -> bool {
        if prefix.prefix_len() != self.length || !self.pool.contains(&prefix) {
            return false;
        }
        let offset = prefix.network().to_bits() ^ self.pool.network().to_bits();
        let number = offset
            .checked_shr(u32::from(128 - self.length))
            .unwrap_or(0);
        let was_taken = self.taken.remove(&number);
        if was_taken {
            self.returned.push_back(number);
        }
        was_taken
    }

    /// How many are in use.
    pub fn in_use(&self) -> usize {
        self.taken.len()
    }
}

/// Which IPv6 prefixes are in use.
#[derive(Debug)]
pub struct Prefixes {
    links: Subnets,
    delegated: Option<Subnets>,
    dns: [Option<Ipv6Addr>; 2],
}

impl Prefixes {
    /// All that the configuration has, but for the first link, where our own address is.
    pub fn new(config: &Ipv6) -> Self {
        Self {
            links: Subnets::new(config.pool, LINK_LENGTH, 1),
            delegated: config
                .delegated
                .map(|delegated| Subnets::new(delegated.pool, delegated.length, 0)),
            dns: config.dns,
        }
    }

    /// What one more call gets; without a delegated prefix when none is left. `None` when there is no link for it: a
    /// call may do without IPv6.
    pub fn grant(&mut self) -> Option<Ipv6Grant> {
        let (number, prefix) = self.links.allocate()?;
        let delegated = self.delegated.as_mut().and_then(Subnets::allocate);
        Some(Ipv6Grant {
            server_identifier: OUR_IDENTIFIER,
            // Never ours, as no link has number 0.
            client_identifier: u64::try_from(number).unwrap_or(u64::MAX - 1) + OUR_IDENTIFIER,
            prefix,
            delegated: delegated.map(|(_, prefix)| prefix),
            dns: self.dns,
        })
    }

    /// Gives back what a call got; `false` when it was not in use.
    pub fn release(&mut self, grant: &Ipv6Grant) -> bool {
        let was_taken = self.links.release(grant.prefix);
        if was_taken
            && let Some(prefix) = grant.delegated
            && let Some(delegated) = &mut self.delegated
        {
            delegated.release(prefix);
        }
        was_taken
    }

    /// How many links and delegated prefixes are in use.
    pub fn in_use(&self) -> (usize, usize) {
        let delegated = self.delegated.as_ref().map_or(0, Subnets::in_use);
        (self.links.in_use(), delegated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Delegated;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn config(pool: &str, delegated: Option<(&str, u8)>) -> Ipv6 {
        Ipv6 {
            pool: net(pool),
            delegated: delegated.map(|(pool, length)| Delegated {
                pool: net(pool),
                length,
            }),
            dns: ["2001:db8::53".parse().ok(), None],
        }
    }

    #[test]
    fn every_prefix_goes_out_once_and_rests_after_use() {
        let mut subnets = Subnets::new(net("2001:db8:1::/62"), 64, 1);
        let next = |subnets: &mut Subnets| subnets.allocate().map(|(_, prefix)| prefix);
        assert_eq!(next(&mut subnets), Some(net("2001:db8:1:1::/64")));
        assert!(subnets.release(net("2001:db8:1:1::/64")));
        assert!(!subnets.release(net("2001:db8:1:1::/64")), "twice");
        assert_eq!(next(&mut subnets), Some(net("2001:db8:1:2::/64")));
        assert_eq!(next(&mut subnets), Some(net("2001:db8:1:3::/64")));
        assert_eq!(next(&mut subnets), Some(net("2001:db8:1:1::/64")));
        assert_eq!(next(&mut subnets), None);
        assert_eq!(subnets.in_use(), 3);
        assert!(subnets.release(net("2001:db8:1:3::/64")));
        assert!(subnets.release(net("2001:db8:1:2::/64")));
        assert_eq!(next(&mut subnets), Some(net("2001:db8:1:3::/64")));
        // None of ours: kept, elsewhere, of another length.
        for other in ["2001:db8:1::/64", "2001:db8:2:1::/64", "2001:db8:1:1::/65"] {
            assert!(!subnets.release(net(other)), "{other}");
        }
        assert_eq!(subnets.in_use(), 2);
    }

    #[test]
    fn a_pool_may_be_of_any_size() {
        // One prefix, which is the pool; and more than anybody counts.
        let mut one = Subnets::new(net("2001:db8:d:700::/56"), 56, 0);
        assert_eq!(one.allocate(), Some((0, net("2001:db8:d:700::/56"))));
        assert_eq!(one.allocate(), None);
        assert!(one.release(net("2001:db8:d:700::/56")));
        assert_eq!(one.allocate(), Some((0, net("2001:db8:d:700::/56"))));
        let mut many = Subnets::new(net("::/0"), 128, 0);
        assert_eq!(many.allocate(), Some((0, net("::/128"))));
        let mut longer = Subnets::new(net("2001:db8::/64"), 56, 0);
        assert_eq!(longer.allocate(), None);
    }

    #[test]
    fn a_call_gets_a_link_and_what_is_left_to_delegate() {
        let mut prefixes = Prefixes::new(&config("2001:db8:1::/62", Some(("2001:db8:d::/55", 56))));
        let grants: Vec<_> = core::iter::from_fn(|| prefixes.grant()).collect();
        let got: Vec<_> = grants
            .iter()
            .map(|grant| (grant.prefix, grant.delegated))
            .collect();
        assert_eq!(
            got,
            [
                (net("2001:db8:1:1::/64"), Some(net("2001:db8:d::/56"))),
                (net("2001:db8:1:2::/64"), Some(net("2001:db8:d:100::/56"))),
                (net("2001:db8:1:3::/64"), None),
            ]
        );
        assert_eq!(prefixes.in_use(), (3, 2));
        let identifiers: HashSet<_> = grants
            .iter()
            .flat_map(|grant| [grant.client_identifier, grant.server_identifier])
            .collect();
        assert_eq!(identifiers, HashSet::from([1, 2, 3, 4]));
        assert_eq!(grants[0].dns[0], "2001:db8::53".parse().ok());
        for grant in &grants {
            assert!(prefixes.release(grant));
            assert!(!prefixes.release(grant), "twice");
        }
        assert_eq!(prefixes.in_use(), (0, 0));
        assert_eq!(prefixes.grant(), Some(grants[0]));
    }

    #[test]
    fn what_one_call_gave_back_twice_is_not_taken_from_another() {
        let mut prefixes = Prefixes::new(&config("2001:db8:1::/63", Some(("2001:db8:d::/56", 56))));
        let first = prefixes.grant().unwrap();
        assert!(prefixes.release(&first));
        let second = prefixes.grant().unwrap();
        assert_eq!(first.prefix, second.prefix, "there is only one");
        assert_eq!(prefixes.in_use(), (1, 1));
        assert_eq!(prefixes.grant(), None);
    }
}
