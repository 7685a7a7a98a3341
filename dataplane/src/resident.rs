//! How much memory the process has, and of what pages.

use std::fs;
use std::io;

/// Resident memory of this process, in octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resident {
    /// All of it.
    pub octets: u64,
    /// What of it lies in huge pages. Packet memory in reserved ones (`huge_pages` of a port) is counted in neither.
    pub huge: u64,
}

impl Resident {
    /// As Linux has it now. Takes time in proportion to the memory: milliseconds for a gigabyte.
    pub fn now() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/self/smaps_rollup")?)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str) -> Option<Self> {
        let octets = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        Some(Self {
            octets: octets("Rss:")?,
            huge: octets("AnonHugePages:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        let text = "55d0-7ffe ---p 00000000 00:00 0   [rollup]\nRss:                3144 kB\n\
                    Pss:                1120 kB\nAnonHugePages:      2048 kB\nSwap: 0 kB\n";
        let expected = Resident {
            octets: 3144 << 10,
            huge: 2048 << 10,
        };
        assert_eq!(Resident::parse(text), Some(expected));
        assert_eq!(Resident::parse("Rss: many kB\nAnonHugePages: 0 kB"), None);
        #[cfg(not(miri))]
        assert!(Resident::now().unwrap().octets > 0);
    }
}
