//! Lowering the maximum segment size that TCP announces (RFC 9293 §3.7.1), so that segments fit the tunnel.

use crate::wire::{ipv4, ipv6, read_u16, write_u16};

const SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_PADDING: u8 = 1;
const OPTION_MSS: u8 = 2;
const HEADER_LEN: usize = 20;
const CHECKSUM: usize = 16;

/// Whether [`clamp`] changed the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clamped {
    /// Left as it was.
    No,
    /// The announced size is lower now and the checksum fits.
    Yes,
}

/// Lowers the announced segment size of a SYN or SYN-ACK to `max_mss` octets; never raises one, never adds one.
/// `packet` begins at its IPv4 header; anything but a whole TCP SYN is left alone, also what is malformed.
#[inline]
pub fn clamp(packet: &mut [u8], max_mss: u16) -> Clamped {
    let Ok(ip) = ipv4::Packet::new_checked(&mut *packet) else {
        return Clamped::No;
    };
    if ip.protocol() != ipv4::TCP || ip.fragment_offset() != 0 {
        return Clamped::No;
    }
    let segment = ip.payload_range();
    clamp_segment(&mut packet[segment], max_mss)
}

/// The same for a packet that begins at its IPv6 header. TCP behind extension headers is left alone: nobody sends a SYN
/// so, and the path MTU is found by ICMPv6 all the same.
#[inline]
pub fn clamp_ipv6(packet: &mut [u8], max_mss: u16) -> Clamped {
    let Ok(ip) = ipv6::Packet::new_checked(&mut *packet) else {
        return Clamped::No;
    };
    if ip.next_header() != ipv6::TCP {
        return Clamped::No;
    }
    let end = ip.total_len();
    clamp_segment(&mut packet[ipv6::HEADER_LEN..end], max_mss)
}

fn clamp_segment(segment: &mut [u8], max_mss: u16) -> Clamped {
    if segment.len() < HEADER_LEN || segment[13] & SYN == 0 {
        return Clamped::No;
    }
    let header_len = usize::from(segment[12] >> 4) * 4;
    if header_len < HEADER_LEN || header_len > segment.len() {
        return Clamped::No;
    }
    let mut at = HEADER_LEN;
    while at < header_len {
        match segment[at] {
            OPTION_END => return Clamped::No,
            OPTION_PADDING => at += 1,
            kind => {
                if at + 2 > header_len {
                    return Clamped::No;
                }
                let len = usize::from(segment[at + 1]);
                if len < 2 || at + len > header_len {
                    return Clamped::No;
                }
                if kind == OPTION_MSS && len == 4 {
                    return lower(segment, at + 2, max_mss);
                }
                at += len;
            }
        }
    }
    Clamped::No
}

fn lower(segment: &mut [u8], at: usize, max_mss: u16) -> Clamped {
    let old = read_u16(segment, at);
    if old <= max_mss {
        return Clamped::No;
    }
    write_u16(segment, at, max_mss);
    let sum = read_u16(segment, CHECKSUM);
    let sum = if at.is_multiple_of(2) {
        ipv4::checksum_update(sum, old, max_mss)
    } else {
        // The value straddles two words of the sum: RFC 1071 §2(B), the sum of swapped octets is the swapped sum.
        ipv4::checksum_update(sum, old.swap_bytes(), max_mss.swap_bytes())
    };
    write_u16(segment, CHECKSUM, sum);
    Clamped::Yes
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn syn(flags: u8, options: &[u8]) -> Vec<u8> {
        assert!(options.len().is_multiple_of(4));
        let mut segment = vec![0; HEADER_LEN];
        segment[..4].copy_from_slice(&[0x30, 0x39, 0x00, 0x50]);
        segment[12] = u8::try_from((HEADER_LEN + options.len()) / 4 * 16).expect("short options");
        segment[13] = flags;
        segment.extend_from_slice(options);
        let sum = ipv4::transport_checksum(SOURCE, DESTINATION, ipv4::TCP, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = ipv4::Header {
            source: SOURCE,
            destination: DESTINATION,
            protocol: ipv4::TCP,
            ttl: 64,
            traffic_class: 0,
            ident: 1,
            dont_fragment: true,
            payload_len: u16::try_from(segment.len()).expect("short"),
        }
        .to_bytes()
        .to_vec();
        packet.extend(segment);
        packet
    }

    fn checksum_is_right(packet: &[u8]) -> bool {
        ipv4::transport_checksum(SOURCE, DESTINATION, ipv4::TCP, &packet[20..]) == 0
    }

    #[test]
    fn lowers_syn_and_syn_ack() {
        for flags in [0x02, 0x12] {
            // Aligned, and at an odd offset behind one octet of padding.
            for (options, at) in [
                (&[2, 4, 0x05, 0xb4][..], 42),
                (&[1, 2, 4, 0x05, 0xb4, 1, 1, 0][..], 43),
                (&[3, 3, 7, 2, 4, 0x05, 0xb4, 0][..], 45),
            ] {
                let mut packet = syn(flags, options);
                assert!(checksum_is_right(&packet));
                assert_eq!(clamp(&mut packet, 1360), Clamped::Yes);
                assert_eq!(read_u16(&packet, at), 1360);
                assert!(checksum_is_right(&packet), "{options:?}");
            }
        }
    }

    #[test]
    fn lowers_over_ipv6() {
        use core::net::Ipv6Addr;
        let (from, to) = (Ipv6Addr::from(1u128), Ipv6Addr::from(2u128));
        let mut segment = vec![0; HEADER_LEN];
        segment[12] = 6 << 4;
        segment[13] = SYN;
        segment.extend([2, 4, 0x05, 0xa0]);
        let sum = ipv6::transport_checksum(from, to, ipv6::TCP, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = ipv6::Header {
            source: from,
            destination: to,
            next_header: ipv6::TCP,
            hop_limit: 64,
            payload_len: 24,
        }
        .to_bytes()
        .to_vec();
        packet.extend(segment);
        let fragment = {
            let mut fragment = packet.clone();
            fragment[6] = 44;
            fragment
        };
        assert_eq!(clamp_ipv6(&mut packet, 1440), Clamped::No, "equal");
        assert_eq!(clamp_ipv6(&mut packet, 1340), Clamped::Yes);
        assert_eq!(read_u16(&packet, 62), 1340);
        assert_eq!(
            ipv6::transport_checksum(from, to, ipv6::TCP, &packet[40..]),
            0
        );
        let mut copy = fragment.clone();
        assert_eq!(clamp_ipv6(&mut copy, 1340), Clamped::No);
        assert_eq!(copy, fragment);
        assert_eq!(clamp_ipv6(&mut [0x45; 60], 1340), Clamped::No);
    }

    #[test]
    fn leaves_the_rest_alone() {
        for (mut packet, why) in [
            (syn(0x02, &[2, 4, 0x05, 0x50]), "equal"),
            (syn(0x02, &[2, 4, 0x02, 0x18]), "lower already"),
            (syn(0x10, &[2, 4, 0x05, 0xb4]), "no SYN"),
            (syn(0x02, &[0, 2, 4, 0xff]), "end of options"),
            (syn(0x02, &[8, 0, 2, 4]), "option length 0"),
            (syn(0x02, &[8, 9, 2, 4]), "option too long"),
            (syn(0x02, &[]), "no option"),
        ] {
            let before = packet.clone();
            assert_eq!(clamp(&mut packet, 1360), Clamped::No, "{why}");
            assert_eq!(packet, before, "{why}");
        }
        let mut fragment = syn(0x02, &[2, 4, 0x05, 0xb4]);
        fragment[7] = 1;
        assert_eq!(clamp(&mut fragment, 1360), Clamped::No);
    }
}
