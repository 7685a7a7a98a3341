//! The enhanced GRE header (RFC 2637 §4.1).

use core::ops::Range;

use crate::CallId;
use crate::gre::Seq;
use crate::wire::{read_u16, read_u32, write_u16, write_u32};

/// Octets of the shortest header: flags, protocol and key.
pub const MIN_HEADER_LEN: usize = 8;
/// Octets of the longest header, with sequence and acknowledgement number.
pub const MAX_HEADER_LEN: usize = 16;
/// Protocol type of PPP.
pub const PPP: u16 = 0x880b;
/// The largest payload (RFC 2637 §4.1).
pub const MAX_PAYLOAD: usize = 1532;

const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
const ACKNOWLEDGMENT: u16 = 0x0080;
const VERSION: u16 = 0x0007;

/// Why a packet of IP protocol 47 is not for a PPTP call. All are dropped in silence, each under its own count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Shorter than its header.
    Short,
    /// Version is not 1 (plain GRE is version 0).
    Version,
    /// Protocol type is not PPP.
    Protocol,
    /// A flag that must be 0 is set, or the key is missing.
    Flags,
    /// The payload length runs past the end of the datagram.
    Truncated,
}

/// A checked header, and where the payload lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The id chosen by the receiver of the packet.
    pub call_id: CallId,
    /// Sequence number; only packets that have one carry a payload.
    pub seq: Option<Seq>,
    /// Acknowledgement number.
    pub ack: Option<Seq>,
    /// Octets of the header: 8, 12 or 16.
    pub header_len: usize,
    /// Octets of the payload; 0 without a sequence number, whatever the length field says.
    pub payload_len: usize,
}

impl Packet {
    /// Reads the header of `bytes`, the payload of an IP packet of protocol 47. Octets after the payload are link
    /// padding.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() < MIN_HEADER_LEN {
            return Err(Fault::Short);
        }
        let flags = read_u16(bytes, 0);
        if flags & VERSION != 1 {
            return Err(Fault::Version);
        }
        if read_u16(bytes, 2) != PPP {
            return Err(Fault::Protocol);
        }
        if flags & !(SEQUENCE | ACKNOWLEDGMENT) != KEY | 1 {
            return Err(Fault::Flags);
        }
        let has_seq = flags & SEQUENCE != 0;
        let has_ack = flags & ACKNOWLEDGMENT != 0;
        let header_len = MIN_HEADER_LEN + 4 * (usize::from(has_seq) + usize::from(has_ack));
        if bytes.len() < header_len {
            return Err(Fault::Short);
        }
        let seq = has_seq.then(|| Seq(read_u32(bytes, 8)));
        let ack = has_ack.then(|| Seq(read_u32(bytes, header_len - 4)));
        let payload_len = if has_seq {
            usize::from(read_u16(bytes, 4))
        } else {
            0
        };
        if bytes.len() - header_len < payload_len {
            return Err(Fault::Truncated);
        }
        Ok(Self {
            call_id: CallId(read_u16(bytes, 6)),
            seq,
            ack,
            header_len,
            payload_len,
        })
    }

    /// Where the payload lies in the parsed bytes.
    #[inline]
    pub fn payload_range(&self) -> Range<usize> {
        self.header_len..self.header_len + self.payload_len
    }
}

/// A header to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The id chosen by the receiver of the packet.
    pub call_id: CallId,
    /// Sequence number: given exactly when there is a payload.
    pub seq: Option<Seq>,
    /// Acknowledgement number.
    pub ack: Option<Seq>,
    /// Octets of the payload.
    pub payload_len: u16,
}

impl Header {
    /// Octets of this header.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        MIN_HEADER_LEN
            + if self.seq.is_some() { 4 } else { 0 }
            + if self.ack.is_some() { 4 } else { 0 }
    }

    /// Writes the header to the front of `buffer`; `None` when it does not fit, else the octets written.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        let len = self.len();
        let b = buffer.get_mut(..len)?;
        let mut flags = KEY | 1;
        if let Some(seq) = self.seq {
            flags |= SEQUENCE;
            write_u32(b, 8, seq.0);
        }
        if let Some(ack) = self.ack {
            flags |= ACKNOWLEDGMENT;
            write_u32(b, len - 4, ack.0);
        }
        write_u16(b, 0, flags);
        write_u16(b, 2, PPP);
        write_u16(b, 4, self.payload_len);
        write_u16(b, 6, self.call_id.0);
        Some(len)
    }
}
