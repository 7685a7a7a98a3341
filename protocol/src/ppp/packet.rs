//! Control packets (RFC 1661 §5) and the options in them (RFC 1661 §6), as LCP, the NCPs and CHAP share them.

use crate::Error;
use crate::wire::ppp::{Frame, Framing, Protocol};

/// Codes of RFC 1661 §5 (1 to 11), RFC 1570 (12, 13) and RFC 1962 §3 (14, 15).
pub mod code {
    #![allow(missing_docs, reason = "named as in the RFCs")]
    pub const CONFIGURE_REQUEST: u8 = 1;
    pub const CONFIGURE_ACK: u8 = 2;
    pub const CONFIGURE_NAK: u8 = 3;
    pub const CONFIGURE_REJECT: u8 = 4;
    pub const TERMINATE_REQUEST: u8 = 5;
    pub const TERMINATE_ACK: u8 = 6;
    pub const CODE_REJECT: u8 = 7;
    pub const PROTOCOL_REJECT: u8 = 8;
    pub const ECHO_REQUEST: u8 = 9;
    pub const ECHO_REPLY: u8 = 10;
    pub const DISCARD_REQUEST: u8 = 11;
    pub const IDENTIFICATION: u8 = 12;
    pub const TIME_REMAINING: u8 = 13;
    pub const RESET_REQUEST: u8 = 14;
    pub const RESET_ACK: u8 = 15;
}

/// Octets of code, identifier and length.
const HEADER_LEN: usize = 4;

/// The most options that one packet may hold. Real peers send up to ten.
const MAX_OPTIONS: usize = 64;

/// The most octets of data in a packet that we send. With its header it fits the smallest MRU that we agree to (576).
pub const MAX_DATA: usize = 560;

/// A control packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// What it is; meaning depends on the protocol.
    pub code: u8,
    /// Matches answers to requests.
    pub identifier: u8,
    /// The rest, without padding.
    pub data: &'a [u8],
    /// All of it, without padding.
    pub whole: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a frame's information field. Octets past the Length field are padding (RFC 1661 §5); a Length under 4 or
    /// beyond the field is malformed.
    pub fn parse(information: &'a [u8]) -> Result<Self, Error> {
        let [code, identifier, high, low, ..] = *information else {
            return Err(Error::Malformed("control packet"));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match information.get(..length) {
            Some(whole) if length >= HEADER_LEN => Ok(Self {
                code,
                identifier,
                data: &whole[HEADER_LEN..],
                whole,
            }),
            _ => Err(Error::Malformed("control packet length")),
        }
    }
}

/// Whether a whole frame is an LCP Echo-Request (RFC 1661 §5.8): who sends it had better know what else has come.
pub fn is_echo_request(frame: &[u8]) -> bool {
    Frame::parse(frame).is_ok_and(|header| {
        header.protocol == Protocol::LCP
            && frame.get(header.header_len) == Some(&code::ECHO_REQUEST)
    })
}

/// A whole frame with FF 03, a two-octet protocol and one control packet; `data` is cut to [`MAX_DATA`] octets.
pub fn frame(protocol: Protocol, code: u8, identifier: u8, data: &[u8]) -> Vec<u8> {
    whole_frame(
        protocol,
        code,
        identifier,
        &data[..data.len().min(MAX_DATA)],
    )
}

/// As [`frame`], but nothing is cut: for packets that are of no use otherwise.
pub fn whole_frame(protocol: Protocol, code: u8, identifier: u8, data: &[u8]) -> Vec<u8> {
    let (header, header_len) = Framing::default().header(protocol);
    let length = u16::try_from(HEADER_LEN + data.len()).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(header_len + HEADER_LEN + data.len());
    frame.extend_from_slice(&header[..header_len]);
    frame.extend_from_slice(&[code, identifier]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(data);
    frame
}

/// One option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigOption<'a> {
    /// Its type.
    pub kind: u8,
    /// What follows type and length.
    pub data: &'a [u8],
    /// All of it.
    pub whole: &'a [u8],
}

impl ConfigOption<'_> {
    /// The data as two octets, big-endian.
    pub fn u16(&self) -> Option<u16> {
        self.data.try_into().ok().map(u16::from_be_bytes)
    }

    /// The data as four octets, big-endian.
    pub fn u32(&self) -> Option<u32> {
        self.data.try_into().ok().map(u32::from_be_bytes)
    }
}

/// The options of a packet, every length checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionList<'a>(&'a [u8]);

impl<'a> OptionList<'a> {
    /// Checks the data of a Configure packet. One bad length spoils all of it: there is no telling where the next
    /// option begins.
    pub fn parse(data: &'a [u8]) -> Result<Self, Error> {
        let mut rest = data;
        let mut count = 0;
        while !rest.is_empty() {
            let length = match *rest {
                [_, length, ..] if length >= 2 => usize::from(length),
                _ => return Err(Error::Malformed("option length")),
            };
            rest = rest
                .get(length..)
                .ok_or(Error::Malformed("option length"))?;
            count += 1;
            if count > MAX_OPTIONS {
                return Err(Error::Malformed("number of options"));
            }
        }
        Ok(Self(data))
    }

    /// The options in order.
    pub fn iter(self) -> impl Iterator<Item = ConfigOption<'a>> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let [kind, length, ..] = *rest else {
                return None;
            };
            let (whole, after) = rest.split_at_checked(usize::from(length))?;
            rest = after;
            Some(ConfigOption {
                kind,
                data: whole.get(2..)?,
                whole,
            })
        })
    }

    /// Whether an option of this type is there.
    pub fn has(self, kind: u8) -> bool {
        self.iter().any(|option| option.kind == kind)
    }
}

/// Options being written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OptionBuffer(Vec<u8>);

impl OptionBuffer {
    /// Appends an option. Data beyond 253 octets does not fit one and is cut.
    pub fn push(&mut self, kind: u8, data: &[u8]) {
        let data = &data[..data.len().min(253)];
        self.0.push(kind);
        self.0.push(u8::try_from(data.len() + 2).unwrap_or(u8::MAX));
        self.0.extend_from_slice(data);
    }

    /// Appends an option as it was received.
    pub fn copy(&mut self, option: ConfigOption<'_>) {
        self.0.extend_from_slice(option.whole);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The octets.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_cut_and_bad_lengths_are_refused() {
        let packet = Packet::parse(&[9, 5, 0, 8, 1, 2, 3, 4, 0, 0]).expect("padded");
        assert_eq!((packet.data, packet.whole.len()), (&[1, 2, 3, 4][..], 8));
        assert!(Packet::parse(&[9, 5, 0]).is_err());
        assert!(Packet::parse(&[9, 5, 0, 3]).is_err());
        assert!(Packet::parse(&[9, 5, 0, 5]).is_err());
    }

    #[test]
    fn options_are_checked_before_they_are_read() {
        assert!(OptionList::parse(&[]).is_ok());
        assert!(OptionList::parse(&[1]).is_err());
        assert!(OptionList::parse(&[1, 0]).is_err());
        assert!(OptionList::parse(&[1, 1]).is_err());
        assert!(OptionList::parse(&[1, 4, 5]).is_err());
        assert!(OptionList::parse(&[7, 2].repeat(MAX_OPTIONS)).is_ok());
        assert!(OptionList::parse(&[7, 2].repeat(MAX_OPTIONS + 1)).is_err());
        let kinds: Vec<(u8, usize)> = OptionList::parse(&[1, 4, 5, 120, 7, 2])
            .expect("good")
            .iter()
            .map(|option| (option.kind, option.data.len()))
            .collect();
        assert_eq!(kinds, [(1, 2), (7, 0)]);
    }
}
