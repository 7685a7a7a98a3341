//! Packets that come in one turn fare like packets that come one by one: the cipher works on them together, and nothing else
//! changes.

#![allow(clippy::unwrap_used, reason = "a test says where it cannot go on")]

mod rig;

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use proptest::prelude::*;
use rig::*;
use turnpike_dataplane::api::{
    CallCounters, CallRef, Command, Direction, Encryption, Event, Forward, FrameBytes, Port,
};
use turnpike_dataplane::counters::Total;
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{RingSizes, channel};
use turnpike_dataplane::worker::{Reordering, WorkerConfig};
use turnpike_protocol::mppe::{Decryptor, Encryptor, Mode, StartKey, Strength};
use turnpike_protocol::wire::ppp;
use turnpike_protocol::{CallId, Role};

/// What calls there are.
const MODES: [Option<(Mode, Strength)>; 6] = [
    Some((Mode::Stateless, Strength::Bits128)),
    Some((Mode::Stateless, Strength::Bits128)),
    Some((Mode::Stateless, Strength::Bits40)),
    Some((Mode::Stateless, Strength::Bits56)),
    Some((Mode::Stateful, Strength::Bits128)),
    None,
];
/// These get packets of other calls, and no CCP: whether such a packet comes before or after it is nobody's to say.
const TARGETS: [usize; 2] = [1, 5];

fn call(number: usize) -> CallRef {
    CallRef {
        local: SERVER,
        peer: Ipv4Addr::new(198, 51, 100, 100 + number as u8),
        id: CallId(700 + number as u16 % 3),
    }
}

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, 100 + number as u8)
}

fn start_key(number: usize, direction: Direction) -> Option<(StartKey, Mode)> {
    let (mode, strength) = MODES[number]?;
    let octet = number as u8 * 2 + u8::from(direction == Direction::Transmit);
    Some((StartKey::new([octet; 16], strength), mode))
}

/// The server with its calls, all of them up.
fn server(reordering: Reordering) -> End {
    let (control, end) = channel(&RingSizes::default()).unwrap();
    let config = WorkerConfig {
        reordering,
        ..config(Role::Server)
    };
    let mut end = End::with(config, MemDevice::new(2048), control, end);
    end.tell(Command::Pool {
        prefix: "10.20.0.0/24".parse().unwrap(),
    });
    for number in 0..MODES.len() {
        let name = call(number);
        for command in [
            Command::Neighbour {
                port: Port::Access,
                address: name.peer,
                mac: Some(CLIENT_MAC),
            },
            Command::Open {
                call: name,
                peer_id: CallId(number as u16),
                via: name.peer,
                window: 64,
            },
            Command::Route {
                prefix: address(number).into(),
                call: name,
            },
        ] {
            end.tell(command);
        }
        end.turn();
        let mut encryption = Encryption::Plain;
        for direction in [Direction::Receive, Direction::Transmit] {
            let Some((key, mode)) = start_key(number, direction) else {
                continue;
            };
            encryption = Encryption::Required;
            end.mode = mode;
            end.secure(name, direction, 1, key);
            if direction == Direction::Receive {
                end.send_frame(name, &configure_request(1));
                let ack = gre_from(name.peer, name.id, Some(0), None, &configure_ack(1));
                end.receive(Port::Access, [ack]);
            } else {
                end.send_frame(name, &configure_ack(1));
            }
        }
        end.tell(Command::Forward {
            call: name,
            forward: Forward {
                address: address(number),
                ..forward(encryption)
            },
        });
        end.turn();
    }
    end.sent(Port::Access);
    end.events.clear();
    end
}

/// A client's sending half.
struct Sender {
    number: usize,
    encryptor: Option<Encryptor>,
    seq: u32,
    /// Packets since the last one that was forged.
    honest: u32,
}

impl Sender {
    fn new(number: usize) -> Self {
        let encryptor =
            start_key(number, Direction::Receive).map(|(key, mode)| Encryptor::new(&key, mode));
        Self {
            number,
            encryptor,
            seq: 1,
            honest: 0,
        }
    }

    fn frame(&mut self, payload: &[u8]) -> Vec<u8> {
        let CallRef { peer, id, .. } = call(self.number);
        let seq = self.seq;
        self.seq += 1;
        gre_from(peer, id, Some(seq), None, payload)
    }

    fn data(&mut self, packet: &[u8]) -> Vec<u8> {
        self.honest += 1;
        let mut data = [&[0x00, 0x21][..], packet].concat();
        let payload = match &mut self.encryptor {
            Some(encryptor) => {
                let sealing = encryptor.seal();
                sealing.cipher.apply(&mut data);
                [&[0x00, 0xfd][..], &sealing.header, &data].concat()
            }
            None => data,
        };
        self.frame(&payload)
    }
}

/// What may come.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// From a client to the internet.
    Up,
    /// From a client to another.
    Across(usize),
    /// To a client: by its uplink, or by Linux.
    Down { linux: bool },
    /// So many that never come.
    Lost(u8),
    /// The one before once more.
    Again,
    /// The one before and this one change places.
    Swapped,
    /// Rubbish with a count so far ahead of the last one.
    Forged(u8),
    /// LCP, which goes up.
    Echo,
    /// CCP (its code), to which keys may not survive.
    Ccp(u8),
    /// In clear.
    Clear,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        12 => Just(Kind::Up),
        4 => prop::sample::select(&TARGETS[..]).prop_map(Kind::Across),
        12 => any::<bool>().prop_map(|linux| Kind::Down { linux }),
        2 => (1_u8..12).prop_map(Kind::Lost),
        1 => Just(Kind::Again),
        2 => Just(Kind::Swapped),
        2 => any::<u8>().prop_map(|by| Kind::Forged(by % 40)),
        1 => Just(Kind::Echo),
        1 => prop::sample::select(&[1_u8, 2, 5, 14][..]).prop_map(Kind::Ccp),
        1 => Just(Kind::Clear),
    ]
}

/// Frames, in the order in which a turn takes them: port by port.
fn frames(
    senders: &mut [Sender],
    stamp: &mut u16,
    kinds: &[(Kind, usize, usize)],
) -> Vec<(Port, Vec<u8>)> {
    let mut access: Vec<Vec<u8>> = Vec::new();
    let mut others = Vec::new();
    for &(kind, number, size) in kinds {
        *stamp += 1;
        let numbered = |packet| {
            changed(packet, |packet: &mut [u8]| {
                packet[4..6].copy_from_slice(&stamp.to_be_bytes());
            })
        };
        let sender = &mut senders[number];
        match kind {
            Kind::Up => {
                let packet = numbered(udp(address(number), INTERNET, size));
                access.push(sender.data(&packet));
            }
            Kind::Across(to) => {
                let packet = numbered(udp(address(number), address(to), size));
                access.push(sender.data(&packet));
            }
            Kind::Down { linux } => {
                let packet = numbered(udp(INTERNET, address(number), size));
                others.push(if linux {
                    (Port::Host, from_linux(&packet))
                } else {
                    let frame = ethernet(UPLINK_MAC, GATEWAY_MAC, &packet);
                    (Port::Uplink, frame)
                });
            }
            Kind::Lost(n) => {
                for _ in 0..n {
                    let _ = sender.data(&udp(address(number), INTERNET, 1));
                }
                sender.honest = 0;
            }
            Kind::Again => access.extend(access.last().cloned()),
            Kind::Swapped => {
                let packet = numbered(udp(address(number), INTERNET, size));
                access.push(sender.data(&packet));
                if let Some(other) = access.len().checked_sub(2) {
                    access.swap(other, other + 1);
                }
            }
            // Where the next key is looked for depends on how often in a row it was not found, and for that packets of one
            // turn count as one.
            Kind::Forged(_) if sender.honest < 3 => {}
            Kind::Forged(ahead) => {
                let mut frame = sender.data(&udp(address(number), INTERNET, size));
                // Behind GRE with a number, and PPP: the count's lower half.
                if sender.encryptor.is_some() {
                    let at = 14 + 20 + 12 + 2 + 1;
                    frame[at] = frame[at].wrapping_add(ahead);
                    for octet in &mut frame[at + 1..] {
                        *octet ^= 0x5a;
                    }
                }
                sender.honest = 0;
                access.push(frame);
            }
            Kind::Echo => {
                access.push(sender.frame(&[
                    0xff,
                    3,
                    0xc0,
                    0x21,
                    9,
                    *stamp as u8,
                    0,
                    8,
                    0,
                    0,
                    0,
                    0,
                ]));
            }
            Kind::Ccp(_) if TARGETS.contains(&number) => {}
            Kind::Ccp(code) => {
                let frame = match code {
                    1 => configure_request(9),
                    2 => configure_ack(1),
                    5 => terminate_request(9),
                    _ => reset_request(9, &[]),
                };
                access.push(sender.frame(&frame));
            }
            Kind::Clear => {
                let packet = numbered(udp(address(number), INTERNET, size));
                access.push(sender.frame(&[&[0x21][..], &packet].concat()));
            }
        }
    }
    others.sort_by_key(|(port, _)| *port as usize);
    let access = access.into_iter().map(|frame| (Port::Access, frame));
    access.chain(others).collect()
}

/// Everything that is to be seen of a server from outside, but acknowledgements, and who of different senders came first.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    /// What left for Linux and for the internet.
    inner: BTreeMap<Ipv4Addr, Vec<Vec<u8>>>,
    /// What each client could read, by who sent it.
    clients: BTreeMap<(usize, Ipv4Addr), Vec<Vec<u8>>>,
    /// PPP frames to clients that are not data.
    control: Vec<(usize, Vec<u8>)>,
    /// Control frames that went up.
    frames: BTreeMap<CallId, Vec<(Ipv4Addr, Vec<u8>)>>,
    counters: Vec<CallCounters>,
    reasons: String,
    totals: [u64; 4],
}

/// Reads what clients get.
fn read(
    number: usize,
    decryptor: &mut Option<Decryptor>,
    payload: &[u8],
) -> (ppp::Protocol, Vec<u8>) {
    let frame = ppp::Frame::parse(payload).unwrap();
    let rest = &payload[frame.header_len..];
    if frame.protocol != ppp::Protocol::COMPRESSED {
        return (frame.protocol, rest.to_vec());
    }
    let decryptor = decryptor.as_mut().unwrap();
    let mut data = rest[2..].to_vec();
    let cipher = decryptor.open([rest[0], rest[1]], 0);
    cipher
        .unwrap_or_else(|refusal| panic!("call {number}: {refusal}"))
        .apply(&mut data);
    decryptor.judge(true);
    let inner = ppp::Frame::parse_protocol(&data).unwrap();
    assert_eq!(inner.protocol, ppp::Protocol::IPV4, "call {number}");
    (inner.protocol, data[inner.header_len..].to_vec())
}

fn observe(mut end: End, sent: Vec<Vec<u8>>, mut inner: Vec<Vec<u8>>) -> Seen {
    let mut seen = Seen {
        inner: BTreeMap::new(),
        clients: BTreeMap::new(),
        control: Vec::new(),
        frames: BTreeMap::new(),
        counters: Vec::new(),
        reasons: format!("{:?}", end.worker.counters().reasons().collect::<Vec<_>>()),
        totals: [
            Total::Encapsulated,
            Total::Decapsulated,
            Total::Missing,
            Total::FramesReceived,
        ]
        .map(|total| end.total(total)),
    };
    let source = |packet: &[u8]| Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    for packet in inner.drain(..) {
        seen.inner.entry(source(&packet)).or_default().push(packet);
    }
    let mut decryptors: Vec<Option<Decryptor>> = (0..MODES.len())
        .map(|number| {
            start_key(number, Direction::Transmit).map(|(key, mode)| Decryptor::new(&key, mode))
        })
        .collect();
    let mut numbers = BTreeMap::new();
    for frame in sent {
        let (gre, payload) = gre_of(&frame);
        let Some(seq) = gre.seq else {
            continue;
        };
        let number = usize::from(gre.call_id.0);
        if let Some(last) = numbers.insert(number, seq.0) {
            assert_eq!(seq.0, last + 1, "call {number}: numbers in order");
        }
        let (protocol, packet) = read(number, &mut decryptors[number], &payload);
        if protocol == ppp::Protocol::IPV4 {
            let key = (number, source(&packet));
            seen.clients.entry(key).or_default().push(packet);
        } else {
            seen.control.push((number, packet));
        }
    }
    for event in end.events.drain(..) {
        if let Event::Frame { call, frame } = event {
            let frames = seen.frames.entry(call.id).or_default();
            frames.push((call.peer, frame.to_vec()));
        }
    }
    for number in 0..MODES.len() {
        let counters = end.counters(call(number));
        // Acknowledgements are sent when they are due. Behind a forged packet the key may have to be found twice.
        seen.counters.push(CallCounters {
            gre_sent: 0,
            mppe_key_changes: 0,
            ..counters
        });
    }
    let balance = end.worker.counters().balance();
    assert_eq!(balance.came, balance.went, "the books");
    seen
}

/// Lets groups of frames arrive, each in turns of so many frames. A turn takes no more than a group has from a port.
fn run(reordering: Reordering, groups: &[Vec<(Port, Vec<u8>)>], at_once: usize) -> Seen {
    let mut end = server(reordering);
    let (mut sent, mut inner) = (Vec::new(), Vec::new());
    for group in groups {
        for frames in group.chunks(at_once) {
            for (port, frame) in frames {
                assert!(end.worker.device_mut().inject(*port, frame));
            }
            while end.turn().busy {}
            sent.extend(end.sent(Port::Access));
            for port in [Port::Host, Port::Uplink] {
                inner.extend(inner_of(end.sent(port)));
            }
        }
        end.pass(core::time::Duration::from_millis(7));
    }
    end.pass(core::time::Duration::from_millis(300));
    sent.extend(end.sent(Port::Access));
    inner.extend(inner_of(end.sent(Port::Host)));
    observe(end, sent, inner)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 1000 } else { 10000 }))]

    #[test]
    fn packets_fare_alike_together_and_one_by_one(
        queue in any::<bool>(),
        groups in prop::collection::vec(
            prop::collection::vec((kind(), 0..MODES.len(), 0_usize..1450), 1..64),
            1..4,
        ),
    ) {
        let reordering = if queue { Reordering::default() } else { Reordering::OFF };
        let mut senders: Vec<Sender> = (0..MODES.len()).map(Sender::new).collect();
        let mut stamp = 0;
        let groups: Vec<_> = groups
            .iter()
            .map(|kinds| frames(&mut senders, &mut stamp, kinds))
            .collect();
        let together = run(reordering, &groups, usize::MAX);
        let alone = run(reordering, &groups, 1);
        prop_assert_eq!(together, alone);
    }
}

#[test]
fn what_a_call_holds_is_decrypted_before_it_ends() {
    let mut pair = Pair::up_reordering(Encryption::Required, Reordering::default());
    let packets: Vec<_> = (1..=4).map(|size| udp(INNER, INTERNET, size)).collect();
    let frames = packets.iter().map(|packet| from_linux(packet));
    pair.client.receive(Port::Host, frames);
    let mut frames = pair.client.sent(Port::Access);
    frames.remove(0);
    pair.server.receive(Port::Access, frames);
    assert!(pair.server.sent(Port::Host).is_empty());
    assert_eq!(pair.server.total(Total::Held), 3);
    pair.server.tell(Command::Close { call: AT_SERVER });
    pair.server.turn();
    assert_eq!(inner_of(pair.server.sent(Port::Host)), packets[1..]);
    let Some(Event::Closed { counters, .. }) = pair.server.events.pop() else {
        panic!("not closed");
    };
    assert_eq!((counters.received_packets, counters.missing), (3, 1));
    pair.server.assert_dropped(&[]);
}

#[test]
fn what_the_control_plane_says_is_sent_before_keys_or_calls_end() {
    let terminate = Command::Send {
        call: AT_SERVER,
        frame: FrameBytes::new(&terminate_request(7)).unwrap(),
    };
    for end in [Command::Close { call: AT_SERVER }, terminate] {
        let mut pair = Pair::up(Encryption::Required);
        let packet = udp(SERVER_INNER, INNER, 30);
        pair.server.tell(Command::SendInner {
            call: AT_SERVER,
            packet: FrameBytes::new(&packet).unwrap(),
        });
        pair.server.tell(end);
        pair.server.turn();
        pair.exchange();
        assert_eq!(inner_of(pair.client.sent(Port::Host)), [packet]);
        pair.server.assert_dropped(&[]);
        pair.client.assert_dropped(&[]);
    }
}
