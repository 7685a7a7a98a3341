//! Into the tunnel: MPPE, PPP, GRE and the outer headers, written backwards in front of what is there already.

use core::net::Ipv4Addr;

use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::ppp::Protocol;
use turnpike_protocol::wire::{gre, ipv4};

use crate::call::{Call, Encap, Gate};
use crate::cipher::Engine;
use crate::counters::Reason;
use crate::version::Version;

/// Octets that the longest headers in front of an inner packet take: Ethernet, IPv4, GRE, PPP, MPPE and inner PPP
/// protocol.
pub(crate) const ROOM: usize = OUTER_LEN + gre::MAX_HEADER_LEN + 4 + 2 + 2;

/// Octets of the Ethernet and the outer IPv4 header.
const OUTER_LEN: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;

/// Octets around an inner packet within the outer IPv4 packet, at most.
pub(crate) const OVERHEAD: usize = ROOM - ethernet::HEADER_LEN;

/// PPP protocol in front of the inner packet, encrypted with it.
const INNER_IPV4: [u8; 2] = Protocol::IPV4.0.to_be_bytes();
const INNER_IPV6: [u8; 2] = Protocol::IPV6.0.to_be_bytes();

/// Ethernet and outer IPv4 header of a call's packets, complete but for destination address on the link, length,
/// identification and checksum.
pub(crate) struct OuterHeader {
    bytes: [u8; OUTER_LEN],
    /// Sum of the IPv4 header's words as it stands.
    sum: u32,
}

impl OuterHeader {
    pub(crate) fn new(mac: MacAddr, local: Ipv4Addr, peer: Ipv4Addr) -> Self {
        let mut bytes = [0; OUTER_LEN];
        let ethernet = ethernet::Header {
            destination: MacAddr::default(),
            source: mac,
            ethertype: ethernet::IPV4,
        };
        let ip = ipv4::Header {
            source: local,
            destination: peer,
            protocol: ipv4::GRE,
            ttl: 64,
            traffic_class: 0,
            ident: 0,
            // Networks on the way may fragment: a path with a smaller MTU must not swallow packets.
            dont_fragment: false,
            payload_len: 0,
        };
        bytes[..ethernet::HEADER_LEN].copy_from_slice(&ethernet.to_bytes());
        bytes[ethernet::HEADER_LEN..].copy_from_slice(&ip.to_bytes());
        // What changes per packet counts as zero.
        bytes[16..18].fill(0);
        bytes[24..26].fill(0);
        let sum = bytes[ethernet::HEADER_LEN..]
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        Self { bytes, sum }
    }

    /// Writes the header for an IPv4 packet of `len` octets.
    #[inline]
    fn write(&self, to: &mut [u8; OUTER_LEN], mac: MacAddr, len: u16, ident: u16) {
        *to = self.bytes;
        to[..6].copy_from_slice(&mac.0);
        to[16..18].copy_from_slice(&len.to_be_bytes());
        to[18..20].copy_from_slice(&ident.to_be_bytes());
        let sum = self.sum + u32::from(len) + u32::from(ident);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        to[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

/// Puts GRE and outer headers in front of the PPP frame `bytes[at..]`. Returns where the Ethernet frame begins.
/// `at` must be at least [`OUTER_LEN`] + 16.
#[inline]
pub(crate) fn wrap(
    call: &mut Call<'_>,
    bytes: &mut [u8],
    at: usize,
    mac: MacAddr,
) -> Result<usize, Reason> {
    let header = gre::Header {
        call_id: call.encap.peer_id,
        seq: Some(call.gre.sender.next()),
        ack: call.gre.receiver.ack_to_send(),
        payload_len: (bytes.len() - at) as u16,
    };
    finish(call.encap, &header, bytes, at, mac)
}

/// Writes a GRE packet that only acknowledges, ending where `bytes` end. Returns where the Ethernet frame begins, or
/// None when nothing is owed.
pub(crate) fn acknowledge(
    call: &mut Call<'_>,
    bytes: &mut [u8],
    mac: MacAddr,
) -> Option<Result<usize, Reason>> {
    let header = gre::Header {
        call_id: call.encap.peer_id,
        seq: None,
        ack: Some(call.gre.receiver.ack_to_send()?),
        payload_len: 0,
    };
    let at = bytes.len();
    Some(finish(call.encap, &header, bytes, at, mac))
}

#[inline]
fn finish(
    encap: &mut Encap,
    header: &gre::Header,
    bytes: &mut [u8],
    at: usize,
    mac: MacAddr,
) -> Result<usize, Reason> {
    let gre_at = at.checked_sub(header.len()).ok_or(Reason::NoHeadroom)?;
    let start = gre_at.checked_sub(OUTER_LEN).ok_or(Reason::NoHeadroom)?;
    header.emit(&mut bytes[gre_at..at]);
    let len = (bytes.len() - start - ethernet::HEADER_LEN) as u16;
    let to = bytes[start..].first_chunk_mut().ok_or(Reason::NoHeadroom)?;
    encap.outer.write(to, mac, len, encap.ident);
    encap.ident = encap.ident.wrapping_add(1);
    encap.gre_sent += 1;
    Ok(start)
}

/// An inner packet in its tunnel.
pub(crate) struct Tunnelled {
    /// Where the Ethernet frame begins.
    pub(crate) start: usize,
    /// What follows is to be encrypted, after one key change.
    pub(crate) encrypt: Option<usize>,
}

/// Puts an inner packet `bytes[at..]` into the tunnel. `at` must be at least [`ROOM`]. The packet has been checked and fits
/// the call's MTU; `mac` is the next hop's address.
#[inline]
pub(crate) fn inner(
    call: &mut Call<'_>,
    engine: &mut Engine,
    bytes: &mut [u8],
    at: usize,
    mac: MacAddr,
) -> Result<Tunnelled, Reason> {
    let octets = (bytes.len() - at) as u64;
    let mut encrypt = None;
    let (gate, plain_header, protocol) = match Version::of(&bytes[at..]) {
        Version::Four => (call.encap.gate, call.encap.plain_header, INNER_IPV4),
        Version::Six => (call.six.gate, call.six.plain_header, INNER_IPV6),
    };
    let (at, (header, len)) = match gate {
        Gate::Closed => return Err(Reason::NotYetForwarding),
        Gate::Plain => (at, plain_header),
        Gate::Encrypted => {
            if call.keys.decryptor.is_none() {
                return Err(Reason::NotYetEncrypted);
            }
            let encryptor = call
                .keys
                .encryptor
                .as_mut()
                .ok_or(Reason::NotYetEncrypted)?;
            let at = at - 2;
            bytes[at..at + 2].copy_from_slice(&protocol);
            let header = match encryptor.seal_later() {
                Some(header) => {
                    encrypt = Some(at);
                    header
                }
                None => {
                    let sealing = encryptor.seal_with(engine);
                    engine.run(sealing.cipher, &mut bytes[at..]);
                    sealing.header
                }
            };
            let at = at - 2;
            bytes[at..at + 2].copy_from_slice(&header);
            (at, call.encap.mppe_header)
        }
    };
    let len = usize::from(len);
    let ppp_at = at - len;
    bytes[ppp_at..at].copy_from_slice(&header[..len]);
    call.encap.packets += 1;
    call.encap.octets += octets;
    let start = wrap(call, bytes, ppp_at, mac)?;
    Ok(Tunnelled { start, encrypt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_outer_header_fits() {
        let header = OuterHeader::new(
            MacAddr([2; 6]),
            Ipv4Addr::new(255, 255, 255, 254),
            Ipv4Addr::new(255, 255, 254, 255),
        );
        for (len, ident) in [(40, 0), (1500, 1), (0xffff, 0xffff), (1444, 0x8000)] {
            let mut bytes = [0; OUTER_LEN];
            header.write(&mut bytes, MacAddr([3; 6]), len, ident);
            assert_eq!(ipv4::checksum(&bytes[14..]), 0);
            assert_eq!(bytes[..6], [3; 6]);
            assert_eq!(bytes[6..12], [2; 6]);
        }
    }
}
