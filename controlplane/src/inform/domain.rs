//! A domain name as configuration holds it.

use core::fmt;
use core::ops::Deref;

/// A domain name without the dot at its end: 1 to 253 octets, labels of 1 to 63 letters, digits and hyphens
/// (RFC 1035 §2.3.1, RFC 1123 §2.1), in lower case.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Domain(String);

impl Domain {
    /// Checks a name; a dot at its end is left away.
    pub fn new(name: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let label = |label: &str| {
            let octets = label.as_bytes();
            (1..=63).contains(&octets.len())
                && octets
                    .iter()
                    .all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let good = name.len() <= 253 && name.split('.').all(label);
        good.then(|| Self(name.to_ascii_lowercase()))
    }

    /// As DNS messages have it, uncompressed (RFC 1035 §3.1): each label behind its length, an empty one at the end.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.0.len() + 2);
        for label in self.0.split('.') {
            // At most 63.
            octets.push(label.len() as u8);
            octets.extend_from_slice(label.as_bytes());
        }
        octets.push(0);
        octets
    }
}

impl Deref for Domain {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_domains() {
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63)].join(".");
        let longest = format!("{long}.{}", "d".repeat(61));
        for good in ["office.example", "corp", "a-b.c1.example", &longest] {
            assert_eq!(Domain::new(good).as_deref(), Some(good), "{good}");
        }
        assert_eq!(
            Domain::new("Office.Example.").as_deref(),
            Some("office.example")
        );
        let domain = Domain::new("office.example").unwrap();
        assert_eq!(domain.to_wire(), b"\x06office\x07example\x00");
        let too_long = format!("{long}.{}", "d".repeat(62));
        let label = "a".repeat(64);
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "-a",
            "a-",
            "a b",
            "a_b",
            "ä.example",
            &too_long,
            &label,
        ] {
            assert_eq!(Domain::new(bad), None, "{bad}");
        }
    }
}
