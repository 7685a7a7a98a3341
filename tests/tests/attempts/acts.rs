//! What a client does in several attempts.

use core::net::{Ipv4Addr, Ipv6Addr};

use turnpike_protocol::mppe::Policy;
use turnpike_protocol::ppp::packet::code;
use turnpike_protocol::wire::ipv6::link_local;

use turnpike_controlplane::cause::Cause;

use crate::Then;
use crate::packets::{
    CLIENT_ID, GATEWAY, GATEWAY6, INNER, INNER6, OTHER, OTHER6, REMOTE, REMOTE6, ROUTERS,
    SERVER_ID, Version, four, from, from6, six,
};
use crate::stage::{Stage, Terms};

pub const LCP: [u8; 2] = [0xc0, 0x21];
pub const CHAP: [u8; 2] = [0xc2, 0x23];
pub const PAP: [u8; 2] = [0xc0, 0x23];
pub const CCP: [u8; 2] = [0x80, 0xfd];
pub const IPCP: [u8; 2] = [0x80, 0x21];
pub const IPV6CP: [u8; 2] = [0x80, 0x57];

/// Beginnings of what a client's link sends before the protocols of its addresses: logins and CCP.
pub const PRELIMINARIES: [[u8; 5]; 4] = [
    [0xff, 3, CHAP[0], CHAP[1], 2],
    [0xff, 3, PAP[0], PAP[1], 1],
    [0xff, 3, CCP[0], CCP[1], code::CONFIGURE_REQUEST],
    [0xff, 3, CCP[0], CCP[1], code::CONFIGURE_ACK],
];

pub fn nothing(_: &[u8]) -> bool {
    false
}

pub fn everything(_: &[u8]) -> bool {
    true
}

pub fn of(protocol: [u8; 2], frame: &[u8]) -> bool {
    frame[2..4] == protocol
}

pub fn login(frame: &[u8]) -> bool {
    of(CHAP, frame) || of(PAP, frame)
}

pub fn goes_on(_: Policy) -> Then {
    Then::GoesOn
}

pub fn in_clear(_: Policy) -> Then {
    Then::InClear
}

pub fn takes_too_long(_: Policy) -> Then {
    Then::Ends(Cause::SetupTimeout)
}

/// The MPPE option with these bits.
pub fn option(bits: [u8; 4]) -> Vec<u8> {
    [&[18, 6][..], &bits].concat()
}

/// Bits of another strength and mode than the agreed ones.
pub fn other(terms: Terms) -> [u8; 4] {
    let mut bits = terms.bits();
    bits[0] ^= 1;
    bits[3] = if bits[3] == 0x40 { 0x20 } else { 0x40 };
    bits
}

/// A whole frame of a control protocol.
pub fn control(protocol: [u8; 2], code: u8, identifier: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16 + 4).to_be_bytes();
    [
        &[0xff, 3][..],
        &protocol,
        &[code, identifier],
        &length,
        data,
    ]
    .concat()
}

/// A request for the client's addresses, of both versions.
pub fn ncp_requests(identifier: u8) -> [Vec<u8>; 2] {
    let request = |protocol, option: &[u8], value: &[u8]| {
        let data = [option, value].concat();
        control(protocol, code::CONFIGURE_REQUEST, identifier, &data)
    };
    [
        request(IPCP, &[3, 6], &INNER.octets()),
        request(IPV6CP, &[1, 10], &CLIENT_ID.to_be_bytes()),
    ]
}

/// CCP packets that do not hang together.
pub fn malformed_ccp(terms: Terms) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for data in [
        &[18, 9, 1, 0, 0, 0x40][..],
        &[18, 1, 1, 0, 0, 0x40],
        &[18, 6, 1, 0, 0, 0x40, 21],
        &[18],
    ] {
        frames.push(control(CCP, code::CONFIGURE_REQUEST, 77, data));
        frames.push(control(CCP, code::CONFIGURE_ACK, 1, data));
    }
    // Lengths beyond the frame, and under the header's.
    for length in [99, 3] {
        let mut frame = control(CCP, code::CONFIGURE_REQUEST, 77, &option(terms.bits()));
        frame[7] = length;
        frames.push(frame);
    }
    frames.push(vec![0xff, 3, CCP[0], CCP[1], code::CONFIGURE_REQUEST]);
    frames
}

/// Packets of a client that it must not send, with PPP's protocol number in front, and under which name each is dropped.
fn strange() -> Vec<(Vec<u8>, &'static str)> {
    let four_of = |packet: Vec<u8>| Version::Four.ppp(&packet);
    let six_of = |packet: Vec<u8>| Version::Six.ppp(&packet);
    let mut strange = Vec::new();
    // Another call's, the server's, somebody's behind it, nobody's, everybody's, one's own.
    for source in [
        OTHER,
        GATEWAY,
        REMOTE,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::LOCALHOST,
    ] {
        strange.push((four_of(from(source)), "spoofed"));
    }
    for source in [
        OTHER6,
        GATEWAY6,
        REMOTE6,
        Ipv6Addr::UNSPECIFIED,
        ROUTERS,
        Ipv6Addr::LOCALHOST,
    ] {
        strange.push((six_of(from6(source)), "spoofed"));
    }
    // To another call, or to the link, in the name of one that has it not.
    strange.push((four_of(four(OTHER, GATEWAY)), "spoofed"));
    strange.push((six_of(six(OTHER6, GATEWAY6)), "spoofed"));
    strange.push((six_of(six(link_local(CLIENT_ID + 1), ROUTERS)), "spoofed"));
    // What stays on the link must be a question to the server.
    for source in [INNER6, link_local(CLIENT_ID)] {
        strange.push((six_of(six(source, ROUTERS)), "link-scope"));
        strange.push((six_of(six(source, link_local(SERVER_ID))), "link-scope"));
    }
    // A router forwards nothing of the link's own addresses.
    strange.push((six_of(from6(link_local(CLIENT_ID))), "link-scope"));
    strange
}

/// Packets with addresses that are not the client's, from it and for it, in an open call.
pub fn strange_addresses(stage: &mut Stage, encrypted: bool) {
    for (packet, name) in strange() {
        if encrypted {
            stage.refused_encrypted(&packet, name);
        } else {
            stage.refused(&packet, name);
        }
    }
    for packet in [four(REMOTE, OTHER), six(REMOTE6, OTHER6)] {
        stage.send_down(&packet);
        stage.quiet();
        stage.expect_drops(&["pool-without-call"]);
    }
}

/// Packets of one version under the other's protocol number.
pub fn mislabelled() -> [Vec<u8>; 2] {
    [
        Version::Four.ppp(&Version::Six.up()),
        Version::Six.ppp(&Version::Four.up()),
    ]
}

/// The client's link falls silent, and the client sends a frame that its server takes.
pub fn alone(stage: &mut Stage, frame: &[u8]) {
    stage.mute = everything;
    stage.taken(frame);
}

pub fn repeat_request(stage: &mut Stage, bits: [u8; 4]) {
    alone(
        stage,
        &control(CCP, code::CONFIGURE_REQUEST, 77, &option(bits)),
    );
}

/// LCP's request again, with a magic number of its own.
pub fn lcp_anew(stage: &mut Stage) {
    let magic = [5, 6, 1, 2, 3, 4];
    alone(stage, &control(LCP, code::CONFIGURE_REQUEST, 77, &magic));
}

/// Answers the server's last CCP request.
pub fn answer(stage: &mut Stage, code: u8, data: impl FnOnce(&[u8]) -> Vec<u8>) {
    let (identifier, options) = stage.request.clone().unwrap();
    stage.taken(&control(CCP, code, identifier, &data(&options)));
}

/// Answers the server's request, which it sends because the client's has come again.
pub fn answer_anew(stage: &mut Stage, code: u8, data: impl FnOnce(&[u8]) -> Vec<u8>) {
    repeat_request(stage, stage.terms.bits());
    answer(stage, code, data);
}
