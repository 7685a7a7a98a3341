//! The text of a Failure (RFC 2433 §8, RFC 2759 §6).

use core::fmt::Write as _;

use super::Algorithm;
use crate::ppp::end::printable;

/// "Authentication failure" (RFC 2759 §6).
pub const AUTHENTICATION_FAILURE: u32 = 691;

/// What MS-CHAP's text says; for CHAP-MD5, whose text is for people, as much as can be made of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// `E=`; 691 when it is not there.
    pub code: u32,
    /// `R=1`: the peer may answer again.
    pub retry: bool,
    /// `C=`, the challenge for the next answer.
    pub challenge: Option<Vec<u8>>,
    /// What follows `M=`, or all of a text without fields; printable.
    pub message: String,
}

impl Failure {
    /// The text that we send. No `M=`: a macOS client hangs on it.
    pub fn text(&self, algorithm: Algorithm) -> String {
        let version = match algorithm {
            // RFC 1994 §4.2: whatever people can read.
            Algorithm::Md5 => return "Authentication failed".to_owned(),
            Algorithm::MsChapV1 => 2,
            Algorithm::MsChapV2 => 3,
        };
        let mut text = format!("E={} R={}", self.code, u8::from(self.retry));
        if let Some(challenge) = &self.challenge {
            text += " C=";
            for octet in challenge {
                let _ = write!(text, "{octet:02X}");
            }
        }
        let _ = write!(text, " V={version}");
        text
    }

    /// Reads what a server sent.
    pub fn parse(text: &[u8]) -> Self {
        let text = printable(text);
        let (fields, message) = match text.split_once("M=") {
            Some((fields, message)) => (fields, message),
            None if text.starts_with("E=") => (text.as_str(), ""),
            None => ("", text.as_str()),
        };
        let field = |name| {
            fields
                .split_ascii_whitespace()
                .find_map(|field| field.strip_prefix(name))
        };
        Self {
            code: field("E=")
                .and_then(|code| code.parse().ok())
                .unwrap_or(AUTHENTICATION_FAILURE),
            retry: field("R=") == Some("1"),
            challenge: field("C=").and_then(hex),
            message: message.to_owned(),
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| Some(digit.to_digit(16)? as u8))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(
        digits
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[high, low]| high << 4 | low)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_rfcs() {
        let failure = Failure {
            code: 691,
            retry: true,
            challenge: Some(vec![
                0x5b, 0x5d, 0x7c, 0x7d, 0x7b, 0x3f, 0x2f, 0x3e, 0x3c, 0x2c, 0x60, 0x21, 0x32, 0x26,
                0x26, 0x28,
            ]),
            message: String::new(),
        };
        let text = failure.text(Algorithm::MsChapV2);
        assert_eq!(text, "E=691 R=1 C=5B5D7C7D7B3F2F3E3C2C602132262628 V=3");
        assert_eq!(Failure::parse(text.as_bytes()), failure);
        let failure = Failure {
            challenge: Some(vec![0x10, 0x2d, 0xb5, 0xdf, 0x08, 0x5d, 0x30, 0x41]),
            ..failure
        };
        let text = failure.text(Algorithm::MsChapV1);
        assert_eq!(text, "E=691 R=1 C=102DB5DF085D3041 V=2");
        assert_eq!(Failure::parse(text.as_bytes()), failure);
    }

    #[test]
    fn other_servers_write_it_otherwise() {
        let failure =
            Failure::parse(b"E=649 R=0 C=5b5d7c7d7b3f2f3e3c2c602132262628 V=3 M=No dial-in E=1");
        assert_eq!((failure.code, failure.retry), (649, false));
        assert_eq!(failure.challenge.unwrap().len(), 16);
        assert_eq!(failure.message, "No dial-in E=1");
        for (text, code, message) in [
            (&b""[..], 691, ""),
            (b"E=", 691, ""),
            (b"E=691 R=1 C=123", 691, ""),
            (b"Access denied", 691, "Access denied"),
            (b"M=", 691, ""),
            (b"E=99999999999 R=2 C=zz", 691, ""),
        ] {
            let failure = Failure::parse(text);
            assert_eq!((failure.code, failure.message.as_str()), (code, message));
            assert_eq!(failure.challenge, None);
        }
    }
}
