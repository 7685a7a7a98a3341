//! Sets of key strengths.

use core::fmt;

use super::Strength;

/// A set of strengths.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Strengths(u8);

impl Strengths {
    /// None.
    pub const NONE: Self = Self(0);
    /// 128 bits only.
    pub const STRONG: Self = Self::NONE.with(Strength::Bits128);
    /// All three.
    pub const ALL: Self = Self::STRONG.with(Strength::Bits56).with(Strength::Bits40);

    const fn bit(strength: Strength) -> u8 {
        1 << strength as u8
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, strength: Strength) -> Self {
        Self(self.0 | Self::bit(strength))
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether this strength is in it.
    pub const fn contains(self, strength: Strength) -> bool {
        self.0 & Self::bit(strength) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// From the weakest to the strongest.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Strength> {
        [Strength::Bits40, Strength::Bits56, Strength::Bits128]
            .into_iter()
            .filter(move |strength| self.contains(*strength))
    }

    /// The strongest.
    pub fn strongest(self) -> Option<Strength> {
        self.iter().next_back()
    }

    /// What is not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The only one.
    pub fn only(self) -> Option<Strength> {
        self.strongest().filter(|_| self.0.is_power_of_two())
    }
}

impl FromIterator<Strength> for Strengths {
    fn from_iter<I: IntoIterator<Item = Strength>>(strengths: I) -> Self {
        strengths.into_iter().fold(Self::NONE, Self::with)
    }
}

/// `40, 56 or 128`.
impl fmt::Display for Strengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.count_ones();
        for strength in self.iter() {
            left -= 1;
            let gap = match left {
                0 => "",
                1 => " or ",
                _ => ", ",
            };
            write!(f, "{}{gap}", strength.bits())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Strengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Strength::bits))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_one() {
        let weak: Strengths = [Strength::Bits56, Strength::Bits40].into_iter().collect();
        assert_eq!(weak.strongest(), Some(Strength::Bits56));
        assert_eq!(weak.only(), None);
        assert!(weak.and(Strengths::STRONG).is_empty());
        assert_eq!(Strengths::STRONG.only(), Some(Strength::Bits128));
        assert_eq!(Strengths::NONE.only(), None);
        assert_eq!(weak.with(Strength::Bits128), Strengths::ALL);
        assert_eq!(format!("{weak:?}"), "{40, 56}");
        assert_eq!(Strengths::ALL.without(Strengths::STRONG), weak);
        assert_eq!(Strengths::ALL.to_string(), "40, 56 or 128");
        assert_eq!(weak.to_string(), "40 or 56");
        assert_eq!(Strengths::STRONG.to_string(), "128");
    }
}
