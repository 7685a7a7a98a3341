//! The packets that are sent.

use turnpike_protocol::wire::ipv4::checksum;

use super::{CLIENT, US};

pub fn ethernet(tags: &[[u8; 4]], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(tags.iter().flatten());
    frame.extend(ethertype);
    frame.extend(payload);
    frame
}

pub fn ipv4(
    protocol: u8,
    destination: [u8; 4],
    fragment: [u8; 2],
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let total = u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x40 | (header / 4) as u8, 0, total[0], total[1], 0, 1];
    packet.extend(fragment);
    packet.extend([64, protocol, 0, 0]);
    packet.extend(CLIENT);
    packet.extend(destination);
    packet.extend(options);
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

/// An Ethernet frame with an IPv6 packet.
pub fn ipv6(destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], 17, 64];
    packet.extend([0x20, 1, 0xd, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    packet.extend(destination);
    packet.extend(payload);
    ethernet(&[], [0x86, 0xdd], &packet)
}

/// LCP in GRE v1 with a sequence number.
pub fn gre() -> Vec<u8> {
    let mut packet = vec![0x30, 0x01, 0x88, 0x0b, 0, 12, 0x12, 0x34, 0, 0, 0, 0];
    packet.extend([0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0x11, 0x22, 0x33, 0x44]);
    packet
}

pub fn to_us(gre: &[u8]) -> Vec<u8> {
    ethernet(&[], [8, 0], &ipv4(47, US, [0, 0], &[], gre))
}
