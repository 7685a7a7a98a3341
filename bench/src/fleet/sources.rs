//! Addresses that are dialled from.

use core::net::Ipv4Addr;
use core::str::FromStr;

/// The most: each may take a raw socket.
const MOST: usize = 4096;

/// Addresses that are dialled from, in turn: one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<Ipv4Addr>);

impl Sources {
    /// All of them.
    pub fn all(&self) -> &[Ipv4Addr] {
        &self.0
    }

    /// Whose turn it is for the caller with a number.
    pub fn of(&self, number: u64) -> Option<Ipv4Addr> {
        let at = number.checked_rem(self.0.len() as u64)?;
        self.0.get(at as usize).copied()
    }
}

impl FromStr for Sources {
    type Err = String;

    /// `10.7.1.1,10.7.2.10-10.7.2.99`.
    fn from_str(text: &str) -> Result<Self, String> {
        let address = |text: &str| {
            text.trim()
                .parse::<Ipv4Addr>()
                .map_err(|_| format!("{text} is no IPv4 address"))
        };
        let mut all = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (address(first)?, address(last)?),
                None => (address(part)?, address(part)?),
            };
            if last < first {
                return Err(format!("{part} ends before it begins"));
            }
            for one in first.to_bits()..=last.to_bits() {
                if all.len() == MOST {
                    return Err(format!("{MOST} addresses at most"));
                }
                all.push(Ipv4Addr::from_bits(one));
            }
        }
        Ok(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges_take_turns() {
        let sources: Sources = "10.7.1.1,10.7.1.254-10.7.2.1".parse().unwrap();
        let turns = [
            [10, 7, 1, 1],
            [10, 7, 1, 254],
            [10, 7, 1, 255],
            [10, 7, 2, 0],
            [10, 7, 2, 1],
            [10, 7, 1, 1],
        ];
        for (number, address) in (0..).zip(turns) {
            assert_eq!(sources.of(number), Some(address.into()));
        }
    }

    #[test]
    fn what_are_no_addresses_is_said() {
        for (text, words) in [
            ("", " is no IPv4 address"),
            ("10.7.1.1,host", "host is no IPv4 address"),
            (
                "10.7.1.9-10.7.1.8",
                "10.7.1.9-10.7.1.8 ends before it begins",
            ),
            ("0.0.0.0-255.255.255.255", "4096 addresses at most"),
            ("10.7.0.0-10.7.16.0", "4096 addresses at most"),
        ] {
            let error = text.parse::<Sources>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let whole: Sources = "10.7.0.0-10.7.15.255".parse().unwrap();
        assert_eq!(whole.all().len(), MOST);
    }
}
