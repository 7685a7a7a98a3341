//! The packets of a case: what is sent, and what must arrive.

use core::net::Ipv4Addr;

use turnpike_protocol::CallId;
use turnpike_protocol::gre::Seq;
use turnpike_protocol::mppe::{Encryptor, Mode, StartKey, Strength};
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::{gre, ipv4};

/// The server's outer address, and that of all clients.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
/// The server's next hop towards the network, and whom clients speak to.
pub(super) const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const TARGET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// Inner addresses, from the first call's on.
pub(super) const POOL: &str = "10.64.0.0/16";
const FIRST_INNER: u32 = 0x0a40_0001;

/// The smallest and the largest inner packet, in octets: number and kind of a packet must fit, and what there is room for.
pub(super) const SIZES: core::ops::RangeInclusive<u16> = 40..=1400;

/// Octets in front of the inner packet in a tunnel without and with MPPE, with everything compressed that may be: Ethernet, IPv4,
/// GRE with a sequence number, PPP; MPPE and its inner protocol.
const PLAIN: usize = OUTER + 1;
const ENCRYPTED: usize = OUTER + 1 + 4;
const OUTER: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + 12;
/// Where the sequence number is in a frame with GRE.
const SEQUENCE_AT: usize = OUTER - 4;
/// Octets in front of a packet's number in an inner packet: IPv4, UDP.
const UDP: usize = ipv4::HEADER_LEN + 8;

/// Octets that encapsulation without MPPE adds to a packet.
pub(super) const ADDED: usize = PLAIN - ethernet::HEADER_LEN;

/// Where packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// From clients to the network: out of tunnels.
    Up,
    /// From the network to clients: into tunnels.
    Down,
}

/// What becomes of packets on their way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// They leave as they came, but for link-layer addresses.
    Nothing,
    /// The same, but each is copied into other memory.
    Copy,
    /// A header is put in front, of the length of a tunnel's.
    Header,
    /// What a router does.
    Route,
    /// Out of tunnels, or into them.
    Tunnel {
        /// With MPPE.
        encrypted: bool,
    },
}

/// Link-layer addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Macs {
    pub(super) client: MacAddr,
    pub(super) access: MacAddr,
    pub(super) uplink: MacAddr,
    pub(super) network: MacAddr,
}

/// One kind of packets on one way.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) way: Way,
    pub(super) work: Work,
    /// Octets of the inner packet, from its IP header on.
    pub(super) size: usize,
    pub(super) calls: u16,
    pub(super) macs: Macs,
    /// Whose packets come one after the other, over and over again.
    pub(super) order: Vec<u16>,
    /// The call that is of kind 0; all others are of kind 1. `None`: all are of kind 0.
    pub(super) elephant: Option<u16>,
}

/// A frame, and what is known of it.
pub(super) struct Made {
    /// Sequence number, stride, kind.
    pub(super) head: [u32; 3],
    pub(super) frame: Vec<u8>,
}

impl Case {
    /// Every call has its turn.
    pub(super) fn new(way: Way, work: Work, size: u16, calls: u16, macs: Macs) -> Self {
        Self {
            way,
            work,
            size: usize::from(size),
            calls,
            macs,
            order: (0..calls).collect(),
            elephant: None,
        }
    }

    fn tunnels_in(&self) -> bool {
        self.way == Way::Up && matches!(self.work, Work::Tunnel { .. })
    }

    pub(super) fn encrypted(&self) -> bool {
        self.work == Work::Tunnel { encrypted: true }
    }

    /// Whether no packet can be used again: keys change with every packet.
    pub(super) fn once(&self) -> bool {
        self.tunnels_in() && self.encrypted()
    }

    /// Octets in front of the inner packet as it is sent.
    fn front(&self) -> usize {
        match (self.tunnels_in(), self.encrypted()) {
            (true, true) => ENCRYPTED,
            (true, false) => PLAIN,
            (false, _) => ethernet::HEADER_LEN,
        }
    }

    /// Octets in front of it where it arrives.
    fn front_there(&self) -> usize {
        match (self.way, self.work) {
            (Way::Down, Work::Tunnel { encrypted: true }) => ENCRYPTED,
            (Way::Down, Work::Tunnel { encrypted: false }) | (_, Work::Header) => PLAIN,
            _ => ethernet::HEADER_LEN,
        }
    }

    /// Octets of frames that are sent.
    pub(super) fn len(&self) -> usize {
        self.front() + self.size
    }

    /// Octets of frames that arrive.
    pub(super) fn len_there(&self) -> usize {
        self.front_there() + self.size
    }

    /// Where the number of a packet is written; `None`: it stands in there already.
    pub(super) fn number_at(&self) -> Option<usize> {
        (!self.once()).then(|| self.front() + UDP)
    }

    /// Where the sequence number of its call is written.
    pub(super) fn sequence_at(&self) -> Option<usize> {
        (self.tunnels_in() && !self.once()).then_some(SEQUENCE_AT)
    }

    /// Where the number is read where it arrives; `None`: it is encrypted.
    pub(super) fn number_at_there(&self) -> Option<usize> {
        let hidden = self.way == Way::Down && self.encrypted();
        (!hidden).then(|| self.front_there() + UDP)
    }

    /// Makes the packets: as many as come before the first one comes again, or `once` where none can.
    pub(super) fn packets(&self, once: usize) -> impl Iterator<Item = Made> {
        let count = if self.once() { once } else { self.order.len() };
        let mut strides = vec![0_u32; usize::from(self.calls)];
        for call in &self.order {
            strides[usize::from(*call)] += 1;
        }
        let mut next = vec![0_u32; usize::from(self.calls)];
        let keys = if self.once() { self.calls } else { 0 };
        let mut encryptors: Vec<Encryptor> = (0..keys)
            .map(|call| Encryptor::new(&key_from(call), Mode::Stateless))
            .collect();
        (0..count).map(move |number| {
            let call = self.order[number % self.order.len()];
            let at = usize::from(call);
            let sequence = next[at];
            next[at] += 1;
            Made {
                head: [sequence, strides[at], self.kind(call)],
                frame: self.frame(number as u32, call, sequence, encryptors.get_mut(at)),
            }
        })
    }

    fn kind(&self, call: u16) -> u32 {
        u32::from(self.elephant.is_some_and(|elephant| elephant != call))
    }

    fn frame(
        &self,
        number: u32,
        call: u16,
        sequence: u32,
        encryptor: Option<&mut Encryptor>,
    ) -> Vec<u8> {
        let macs = &self.macs;
        let packet = self.inner(number, call, 64);
        if !self.tunnels_in() {
            let (from, to) = match self.way {
                Way::Up => (macs.client, macs.access),
                Way::Down => (macs.network, macs.uplink),
            };
            return ethernet(from, to, &packet);
        }
        let payload = match encryptor {
            None => [&[0x21][..], &packet].concat(),
            Some(encryptor) => seal(encryptor, &packet),
        };
        let id = CallId(call + 1);
        let packet = tunnel(CLIENT, SERVER, id, sequence, Fragments::default(), &payload);
        ethernet(macs.client, macs.access, &packet)
    }

    /// The inner packet with this number.
    fn inner(&self, number: u32, call: u16, ttl: u8) -> Vec<u8> {
        let (source, destination) = match self.way {
            Way::Up => (inner_address(call), TARGET),
            Way::Down => (TARGET, inner_address(call)),
        };
        let udp_len = self.size - ipv4::HEADER_LEN;
        let header = ipv4::Header {
            source,
            destination,
            protocol: 17,
            ttl,
            traffic_class: 0,
            ident: 0,
            dont_fragment: true,
            payload_len: udp_len as u16,
        };
        let mut packet = header.to_bytes().to_vec();
        // From port 9 ("discard") to port 9, without a checksum, which IPv4 allows (RFC 768).
        packet.extend([0, 9, 0, 9]);
        packet.extend((udp_len as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(number.to_be_bytes());
        packet.extend(self.kind(call).to_be_bytes());
        // Something else in every place, so that nothing that is moved or lost goes unnoticed.
        packet.extend((packet.len()..self.size).map(|at| (at * 7 + usize::from(call)) as u8));
        packet
    }

    /// Whose packet has this number, and how many of that call came before it.
    fn whose(&self, number: u32) -> (u16, u32) {
        let period = self.order.len();
        let (times, at) = (number as usize / period, number as usize % period);
        let call = self.order[at];
        let of = |order: &[u16]| order.iter().filter(|one| **one == call).count();
        (
            call,
            (times * of(&self.order) + of(&self.order[..at])) as u32,
        )
    }

    /// The number of a frame that arrived, and where its packet stands among those of its call, first is 0.
    fn number_of(&self, frame: &[u8]) -> Option<(u32, u32)> {
        let word = |octets: &[u8], at: usize| {
            let octets = octets.get(at..at + 4)?;
            octets.try_into().ok().map(u32::from_be_bytes)
        };
        let number = self.number_at_there().and_then(|at| word(frame, at));
        if !(self.way == Way::Down && matches!(self.work, Work::Tunnel { .. })) {
            let number = number?;
            return Some((number, self.whose(number).1));
        }
        let sequence = word(frame, SEQUENCE_AT)?;
        if let Some(number) = number {
            return Some((number, sequence));
        }
        // The two octets before the sequence number are the call's id.
        let call = ((word(frame, SEQUENCE_AT - 4)? & 0xffff) as u16).checked_sub(1)?;
        let place = sequence.checked_sub(KEY_FRAMES)?;
        let mut data = frame.get(ENCRYPTED - 2..)?.to_vec();
        let mut encryptor = encryptor_at(call, place);
        encryptor.seal().cipher.apply(&mut data);
        Some((word(&data, 2 + UDP)?, place))
    }

    /// What is wrong with a frame that arrived, if anything; else its number. `tag` is what the header of [`Work::Header`] is.
    pub(super) fn check(&self, frame: &[u8], tag: &[u8; ADDED]) -> Result<u32, String> {
        let (number, place) = self.number_of(frame).ok_or("it has no number")?;
        let (call, before) = self.whose(number);
        // Packets that were lost on the way to a tunnel have no place in it.
        if place > before {
            return Err(format!(
                "packet {number} has place {place} in its call, but only {before} were sent before"
            ));
        }
        let macs = &self.macs;
        let (from, to) = match self.way {
            Way::Up => (macs.uplink, macs.network),
            Way::Down => (macs.access, macs.client),
        };
        let routed = matches!(self.work, Work::Route | Work::Tunnel { .. });
        let packet = self.inner(number, call, if routed { 63 } else { 64 });
        let expected = match (self.work, self.way) {
            (Work::Tunnel { encrypted }, Way::Down) => {
                let (payload, first) = if encrypted {
                    (seal(&mut encryptor_at(call, place), &packet), KEY_FRAMES)
                } else {
                    ([&[0x21][..], &packet].concat(), 0)
                };
                // The outer packet's identification, and whether it may be fragmented, are the server's own affair.
                let word = |at: usize| {
                    frame
                        .get(at..at + 2)
                        .map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]))
                };
                let fragments = Fragments {
                    ident: word(18),
                    forbidden: word(20) & 0x4000 != 0,
                };
                tunnel(
                    SERVER,
                    CLIENT,
                    CallId(call + 1),
                    place + first,
                    fragments,
                    &payload,
                )
            }
            (Work::Header, _) => [&tag[..], &packet].concat(),
            _ => packet,
        };
        let expected = ethernet(from, to, &expected);
        match frame
            .iter()
            .zip(&expected)
            .position(|(is, must)| is != must)
        {
            Some(at) => Err(format!(
                "packet {number} has {:#04x} where {:#04x} should be, at octet {at}",
                frame[at], expected[at]
            )),
            None if frame.len() != expected.len() => Err(format!(
                "packet {number} has {} octets, not {}",
                frame.len(),
                expected.len()
            )),
            None => Ok(number),
        }
    }
}

/// Frames that the server sends into a call before data: CCP's request and acknowledgement.
pub(super) const KEY_FRAMES: u32 = 2;

/// The inner address of a call.
pub(super) fn inner_address(call: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_INNER + u32::from(call))
}

fn key(call: u16, direction: u8) -> StartKey {
    let [high, low] = call.to_be_bytes();
    let octets = core::array::from_fn(|at| match at {
        0 => high,
        1 => low,
        2 => direction,
        at => (at * 31) as u8,
    });
    StartKey::new(octets, Strength::Bits128)
}

/// The start key of what a client sends.
pub(super) fn key_from(call: u16) -> StartKey {
    key(call, 1)
}

/// The start key of what is sent to it.
pub(super) fn key_to(call: u16) -> StartKey {
    key(call, 2)
}

/// What encrypts the packet at this place among those to a call.
fn encryptor_at(call: u16, place: u32) -> Encryptor {
    let mut encryptor = Encryptor::new(&key_to(call), Mode::Stateless);
    for _ in 0..place {
        let _ = encryptor.seal();
    }
    encryptor
}

fn seal(encryptor: &mut Encryptor, packet: &[u8]) -> Vec<u8> {
    let mut data = [&[0x00, 0x21][..], packet].concat();
    let sealing = encryptor.seal();
    sealing.cipher.apply(&mut data);
    [&[0xfd][..], &sealing.header, &data].concat()
}

fn ethernet(source: MacAddr, destination: MacAddr, packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Header {
        destination,
        source,
        ethertype: ethernet::IPV4,
    };
    [&header.to_bytes()[..], packet].concat()
}

/// What an IPv4 header says of fragments.
#[derive(Clone, Copy, Default)]
pub(super) struct Fragments {
    ident: u16,
    forbidden: bool,
}

/// GRE in IPv4.
pub(super) fn tunnel(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    call_id: CallId,
    sequence: u32,
    fragments: Fragments,
    payload: &[u8],
) -> Vec<u8> {
    let header = gre::Header {
        call_id,
        seq: Some(Seq(sequence)),
        ack: None,
        payload_len: payload.len() as u16,
    };
    let mut octets = [0; gre::MAX_HEADER_LEN];
    let len = header.emit(&mut octets).unwrap_or(0);
    let outer = ipv4::Header {
        source,
        destination,
        protocol: ipv4::GRE,
        ttl: 64,
        traffic_class: 0,
        ident: fragments.ident,
        dont_fragment: fragments.forbidden,
        payload_len: (len + payload.len()) as u16,
    };
    [&outer.to_bytes()[..], &octets[..len], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: [u8; ADDED] = [7; ADDED];

    fn case(way: Way, work: Work) -> Case {
        let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
        let macs = Macs {
            client: mac(1),
            access: mac(2),
            uplink: mac(3),
            network: mac(4),
        };
        Case::new(way, work, 64, 3, macs)
    }

    /// What a server would send on: link-layer addresses and time to live.
    fn routed(case: &Case, number: u32, call: u16) -> Vec<u8> {
        ethernet(
            case.macs.uplink,
            case.macs.network,
            &case.inner(number, call, 63),
        )
    }

    #[test]
    fn frames_have_the_lengths_that_are_told() {
        for way in [Way::Up, Way::Down] {
            for encrypted in [false, true] {
                let case = case(way, Work::Tunnel { encrypted });
                assert!(case.packets(5).all(|made| made.frame.len() == case.len()));
                assert_eq!(case.packets(5).count(), if case.once() { 5 } else { 3 });
            }
        }
        let up = case(Way::Up, Work::Tunnel { encrypted: true });
        assert_eq!((up.len(), up.len_there()), (115, 78));
        let header = case(Way::Down, Work::Header);
        assert_eq!((header.len(), header.len_there()), (78, 111));
    }

    #[test]
    fn what_comes_out_of_a_tunnel_is_compared_octet_by_octet() {
        let case = case(Way::Up, Work::Tunnel { encrypted: true });
        let mut frame = routed(&case, 4, 1);
        assert_eq!(case.check(&frame, &TAG), Ok(4));
        *frame.last_mut().unwrap() ^= 1;
        assert!(
            case.check(&frame, &TAG)
                .unwrap_err()
                .contains("at octet 77")
        );
        assert!(case.check(&frame[..60], &TAG).is_err());
        assert!(case.check(&routed(&case, 4, 2), &TAG).is_err());
    }

    #[test]
    fn what_goes_into_a_tunnel_is_decrypted() {
        let case = case(Way::Down, Work::Tunnel { encrypted: true });
        let frame = |number: u32, call: u16, place: u32| {
            let packet = case.inner(number, call, 63);
            let payload = seal(&mut encryptor_at(call, place), &packet);
            let id = CallId(call + 1);
            let fragments = Fragments {
                ident: 77,
                forbidden: true,
            };
            let packet = tunnel(SERVER, CLIENT, id, place + KEY_FRAMES, fragments, &payload);
            ethernet(case.macs.access, case.macs.client, &packet)
        };
        // The third packet of the second call; and when the one before it was lost on the way.
        assert_eq!(case.check(&frame(7, 1, 2), &TAG), Ok(7));
        assert_eq!(case.check(&frame(7, 1, 1), &TAG), Ok(7));
        assert!(case.check(&frame(7, 1, 3), &TAG).is_err());
        let mut wrong = frame(7, 1, 2);
        wrong[100] ^= 0x10;
        assert!(case.check(&wrong, &TAG).is_err());
    }

    #[test]
    fn one_call_may_send_more_than_others() {
        let mut case = case(Way::Up, Work::Tunnel { encrypted: false });
        case.order = vec![0, 0, 1, 0, 0, 2];
        case.elephant = Some(0);
        let heads: Vec<_> = case.packets(0).map(|made| made.head).collect();
        assert_eq!(heads[3], [2, 4, 0]);
        assert_eq!(heads[5], [0, 1, 1]);
        assert_eq!(case.whose(9), (0, 6));
        assert_eq!(case.check(&routed(&case, 9, 0), &TAG), Ok(9));
    }
}
