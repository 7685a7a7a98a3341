//! Text fields of fixed width.

use core::fmt;

/// A text field of `N` octets: what stands before the first NUL (Windows 95 leaves rubbish behind it). Octets are
/// kept as they came; [`fmt::Display`] escapes whatever could upset a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const N: usize> {
    len: usize,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const EMPTY: Self = Self {
        len: 0,
        bytes: [0; N],
    };

    /// The octets of `text` up to the first NUL, cut at `N`.
    pub fn new(text: &[u8]) -> Self {
        let len = text
            .iter()
            .position(|octet| *octet == 0)
            .unwrap_or(text.len())
            .min(N);
        let mut bytes = [0; N];
        bytes[..len].copy_from_slice(&text[..len]);
        Self { len, bytes }
    }

    /// The octets of the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The whole field, filled up with zeros.
    pub const fn field(&self) -> &[u8; N] {
        &self.bytes
    }

    /// Whether there is no text.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_and_escapes() {
        assert_eq!(Text::<8>::new(b"abc\0rubbish").as_bytes(), b"abc");
        assert_eq!(Text::<4>::new(b"abcdef").as_bytes(), b"abcd");
        assert_eq!(Text::<8>::new(b"a\x1b[2J\n").to_string(), "a\\x1b[2J\\n");
        assert_eq!(Text::<3>::from("ab").field(), b"ab\0");
        assert!(Text::<3>::EMPTY.is_empty());
    }
}
