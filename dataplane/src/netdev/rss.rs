//! Receive-side scaling: on which queue a device puts a packet of protocol 47.

use core::net::Ipv4Addr;

use crate::xsk::sys;

/// A device's key and indirection table.
///
/// Devices know nothing in GRE that tells flows apart, so they spread it by both addresses alone: all that one peer sends to
/// one of our addresses arrives on one queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rss {
    key: Vec<u8>,
    table: Vec<u32>,
}

impl Rss {
    /// Asks a device of the thread's network namespace, as `ethtool -x` does. `None` when its driver does not tell, or
    /// spreads packets by another function than Toeplitz's.
    pub fn of(device: &str) -> Option<Self> {
        let (table, key) = sys::rss(device)?;
        Self::new(table, key)
    }

    /// With these, the table's entries being queues; `None` without entries, or with a key too short for two addresses.
    pub fn new(table: Vec<u32>, key: Vec<u8>) -> Option<Self> {
        // Two addresses shift a window of 32 bits by 64.
        (!table.is_empty() && key.len() >= 12).then_some(Self { key, table })
    }

    /// The queue that a packet with these addresses arrives on.
    pub fn queue(&self, source: Ipv4Addr, destination: Ipv4Addr) -> u32 {
        let hash = self.toeplitz(source, destination);
        // Tables have as many entries as their drivers like, most a power of two.
        self.table[hash as usize % self.table.len()]
    }

    /// For each bit of the input that is set, the 32 bits of the key that begin there.
    fn toeplitz(&self, source: Ipv4Addr, destination: Ipv4Addr) -> u32 {
        let input = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
        let mut first = [0; 16];
        let len = self.key.len().min(first.len());
        first[..len].copy_from_slice(&self.key[..len]);
        let key = u128::from_be_bytes(first);
        (0..u64::BITS)
            .filter(|bit| input >> (63 - bit) & 1 == 1)
            .fold(0, |hash, bit| hash ^ (key >> (96 - bit)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and hashes of "Verifying the RSS hash calculation", which drivers are tested with.
    #[test]
    fn hashes_are_those_of_the_specification() {
        let key = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
            0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
            0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        let rss = Rss::new((0..128).map(|entry| entry % 4).collect(), key.to_vec()).unwrap();
        for (source, destination, hash) in [
            ("66.9.149.187", "161.142.100.80", 0x323e_8fc2),
            ("199.92.111.2", "65.69.140.83", 0xd718_262a),
            ("24.19.198.95", "12.22.207.184", 0xd2d0_a5de),
            ("38.27.205.30", "209.142.163.6", 0x8298_9176),
            ("153.39.163.191", "202.188.127.2", 0x5d18_09c5),
        ] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(rss.toeplitz(source, destination), hash, "{source}");
            assert_eq!(rss.queue(source, destination), hash % 128 % 4);
        }
    }

    #[test]
    fn what_cannot_be_foretold_is_not() {
        assert_eq!(Rss::new(Vec::new(), vec![1; 40]), None);
        assert_eq!(Rss::new(vec![0, 1], vec![1; 11]), None);
        assert_eq!(Rss::of("lo"), None);
        assert_eq!(Rss::of("a-name-that-no-device-can-have"), None);
    }
}
