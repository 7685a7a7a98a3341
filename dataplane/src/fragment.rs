//! Fragmenting inner packets that are larger than the tunnel (RFC 791 §3.2).

use turnpike_protocol::Time;
use turnpike_protocol::wire::{ethernet, ipv4};

use crate::api::Port;
use crate::counters::{Reason, Total};
use crate::device::{Device, Frame, MAX_LEN};
use crate::path::Path;

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const COPIED: u8 = 0x80;
const OPTION_END: u8 = 0;
const OPTION_PADDING: u8 = 1;

impl<D: Device> Path<D> {
    /// Sends a packet behind an Ethernet header in pieces.
    #[cold]
    pub(crate) fn fragment(&mut self, mut frame: Frame, slot: u32, mtu: usize, now: Time) {
        // On the stack, because the pieces go into other frames of the same device.
        let mut packet = [0; MAX_LEN];
        let bytes = self.device.bytes(&mut frame);
        let len = bytes.len() - ethernet::HEADER_LEN;
        packet[..len].copy_from_slice(&bytes[ethernet::HEADER_LEN..]);
        let Some(mut pieces) = Pieces::new(&packet[..len], mtu) else {
            return self.drop(frame, Reason::FragmentFailed);
        };
        self.core.counters.add(Total::Fragmented, 1);
        self.device.release(frame);
        loop {
            let Some(mut piece) = self.device.allocate(Port::Access) else {
                self.core.counters.add(Total::FragmentsMade, 1);
                return self.core.counters.dropped(Reason::NoMemory);
            };
            let _ = piece.set_len(mtu.min(MAX_LEN));
            let Some(len) = pieces.next_into(self.device.bytes(&mut piece)) else {
                return self.device.release(piece);
            };
            let _ = piece.set_len(len);
            self.core.counters.add(Total::FragmentsMade, 1);
            self.encap(piece, slot, now);
        }
    }
}

/// The pieces of one packet.
pub(crate) struct Pieces<'a> {
    packet: &'a [u8],
    header_len: usize,
    /// Header of all pieces but the first: options that are not copied are left out.
    later: ([u8; 60], usize),
    mtu: usize,
    /// Octets of payload that are in pieces already.
    done: usize,
}

impl<'a> Pieces<'a> {
    /// Pieces of at most `mtu` octets (at least 68) of `packet`, which must be a whole IPv4 packet. None when its
    /// lengths are wrong.
    pub(crate) fn new(packet: &'a [u8], mtu: usize) -> Option<Self> {
        let ip = ipv4::Packet::new_checked(packet).ok()?;
        let header_len = ip.header_len();
        let packet = &packet[..ip.total_len()];
        Some(Self {
            packet,
            header_len,
            later: later_header(&packet[..header_len])?,
            mtu,
            done: 0,
        })
    }

    /// Writes the next piece to `to`, which has room for `mtu` octets; returns its length. None after the last one.
    pub(crate) fn next_into(&mut self, to: &mut [u8]) -> Option<usize> {
        let payload = self.packet.get(self.header_len + self.done..)?;
        if payload.is_empty() {
            return None;
        }
        let header: &[u8] = if self.done == 0 {
            &self.packet[..self.header_len]
        } else {
            &self.later.0[..self.later.1]
        };
        let room = self.mtu.checked_sub(header.len())?;
        let (len, last) = if payload.len() <= room {
            (payload.len(), true)
        } else {
            (room / 8 * 8, false)
        };
        let total = header.len() + len;
        let piece = to.get_mut(..total)?;
        piece[..header.len()].copy_from_slice(header);
        piece[header.len()..].copy_from_slice(&payload[..len]);
        piece[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        // The packet may itself be a fragment: its offset is where ours begin, and only the last of ours may be last.
        let flags = u16::from_be_bytes([self.packet[6], self.packet[7]]);
        let offset = usize::from(flags & OFFSET) + self.done / 8;
        if offset > usize::from(OFFSET) {
            return None;
        }
        let mut flags = flags & !OFFSET | offset as u16;
        if !last {
            flags |= MORE_FRAGMENTS;
        }
        piece[6..8].copy_from_slice(&flags.to_be_bytes());
        ipv4::Packet::new_checked(piece).ok()?.fill_checksum();
        self.done += len;
        Some(total)
    }
}

/// RFC 791 §3.1: options with the copied flag go into every fragment, others only into the first.
fn later_header(header: &[u8]) -> Option<([u8; 60], usize)> {
    let mut later = [0; 60];
    later[..ipv4::HEADER_LEN].copy_from_slice(&header[..ipv4::HEADER_LEN]);
    let mut len = ipv4::HEADER_LEN;
    let mut options = &header[ipv4::HEADER_LEN..];
    while let [kind, rest @ ..] = options {
        match *kind {
            OPTION_END => break,
            OPTION_PADDING => options = rest,
            kind => {
                let size = usize::from(*rest.first()?);
                if size < 2 {
                    return None;
                }
                let (option, rest) = options.split_at_checked(size)?;
                if kind & COPIED != 0 {
                    later[len..len + size].copy_from_slice(option);
                    len += size;
                }
                options = rest;
            }
        }
    }
    // The rest of the last word is zero: end of options.
    let len = len.next_multiple_of(4);
    later[0] = 0x40 | (len / 4) as u8;
    Some((later, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(options: &[u8], payload: usize, flags: u16) -> Vec<u8> {
        let header = 20 + options.len();
        let mut packet = vec![0; header + payload];
        packet[0] = 0x40 | (header / 4) as u8;
        packet[2..4].copy_from_slice(&((header + payload) as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet[8] = 64;
        packet[20..header].copy_from_slice(options);
        for (n, octet) in packet[header..].iter_mut().enumerate() {
            *octet = (n % 251) as u8;
        }
        packet
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole_again(payload in 1_usize..1700, mtu in 68_usize..1500, first in 0_u16..100, more in any::<bool>()) {
            let flags = first | if more { MORE_FRAGMENTS } else { 0 };
            let packet = packet(&[], payload, flags);
            let mut pieces = Pieces::new(&packet, mtu).unwrap();
            let mut whole = vec![0; payload];
            let mut buffer = [0; 1500];
            let mut last = None;
            let mut expected = 0;
            while let Some(len) = pieces.next_into(&mut buffer) {
                prop_assert!(len <= mtu);
                let piece = ipv4::Packet::new_checked(&buffer[..len]).unwrap();
                prop_assert!(piece.verify_checksum());
                let at = piece.fragment_offset() - usize::from(first) * 8;
                prop_assert_eq!(at, expected);
                whole[at..at + piece.payload().len()].copy_from_slice(piece.payload());
                expected += piece.payload().len();
                last = Some(piece.more_fragments());
                if expected < payload {
                    prop_assert!(piece.more_fragments());
                }
            }
            prop_assert_eq!(last, Some(more));
            prop_assert_eq!(&whole, &packet[20..]);
        }
    }

    #[test]
    fn options_are_copied_as_they_say() {
        // Record route (not copied), padding, security (copied), end.
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x82, 3, 9, 0];
        let packet = packet(&options, 200, 0);
        let mut pieces = Pieces::new(&packet, 100).unwrap();
        let mut buffer = [0; 100];
        let len = pieces.next_into(&mut buffer).unwrap();
        assert_eq!(len, 32 + 64);
        assert_eq!(buffer[20..32], options);
        let len = pieces.next_into(&mut buffer).unwrap();
        assert_eq!(len, 24 + 72);
        assert_eq!(buffer[..1], [0x46]);
        assert_eq!(buffer[20..24], [0x82, 3, 9, 0]);
        assert!(Pieces::new(&[0x46; 24][..], 100).is_none());
    }
}
