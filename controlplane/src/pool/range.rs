//! Addresses that follow each other.

use core::fmt;
use core::net::Ipv4Addr;

/// Addresses from `first` to `last`, both included; `first <= last`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Range {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Range {
    /// From `first` to `last`, both included; `None` when they stand the wrong way round.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        let (first, last) = (u32::from(first), u32::from(last));
        (first <= last).then_some(Self { first, last })
    }

    /// One address.
    pub fn single(address: Ipv4Addr) -> Self {
        let address = u32::from(address);
        Self {
            first: address,
            last: address,
        }
    }

    /// The addresses of a prefix that a client may have: without network and broadcast address, except in prefixes
    /// of 31 and 32 bits, which have none (RFC 3021).
    pub fn hosts(prefix: ipnet::Ipv4Net) -> Self {
        let (network, broadcast) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
        let edge = u32::from(prefix.prefix_len() < 31);
        Self {
            first: network + edge,
            last: broadcast - edge,
        }
    }

    /// The first address.
    pub fn first(self) -> Ipv4Addr {
        self.first.into()
    }

    /// The last address.
    pub fn last(self) -> Ipv4Addr {
        self.last.into()
    }

    /// How many addresses there are.
    pub fn size(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(address))
    }

    /// Whether hosts can have all of these addresses: none of 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3
    /// (RFC 1122 §3.2.1.3).
    pub fn is_unicast(self) -> bool {
        let (first, last) = (self.first().octets()[0], self.last().octets()[0]);
        first > 0 && last < 224 && !(first..=last).contains(&127)
    }

    /// What is left of it without `others`, which are sorted and apart from each other.
    pub fn without(self, others: &[Self]) -> Vec<Self> {
        let mut left = Vec::new();
        let mut rest = Some(self);
        for other in others {
            let Some(range) = rest.filter(|range| range.overlaps(*other)) else {
                continue;
            };
            if let Some(last) = other
                .first
                .checked_sub(1)
                .filter(|last| range.first <= *last)
            {
                left.push(Self { last, ..range });
            }
            let first = other.last.checked_add(1);
            rest = first
                .filter(|first| *first <= range.last)
                .map(|first| Self { first, ..range });
        }
        left.extend(rest);
        left
    }

    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

/// Sorted, and joined where they overlap.
pub fn merged(ranges: impl IntoIterator<Item = Range>) -> Vec<Range> {
    let mut sorted: Vec<_> = ranges.into_iter().collect();
    sorted.sort();
    let mut merged: Vec<Range> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(before) if before.overlaps(range) => before.last = before.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}
