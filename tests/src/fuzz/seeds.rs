//! Where mutation starts: vectors and captures.

use std::path::Path;

use turnpike_protocol::wire::ipv4;

use super::input::chunk;
use super::mutate::Random;
use crate::captures::{File, Side};

fn captures() -> Vec<File> {
    File::all().expect("the captures")
}

/// The hexadecimal strings under `keys` in a file of `tests/vectors`.
pub(super) fn vectors(file: &str, keys: &[&str]) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(file);
    let text = std::fs::read_to_string(path).expect("the vectors");
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(" = \"") else {
            continue;
        };
        let digits = value.trim_end_matches('"').as_bytes();
        if keys.contains(&key) && digits.len().is_multiple_of(2) {
            let octets = digits.chunks(2).map(|pair| {
                let pair = std::str::from_utf8(pair).expect("digits");
                u8::from_str_radix(pair, 16).expect("digits")
            });
            found.push(octets.collect());
        }
    }
    assert!(!found.is_empty(), "{file}");
    found
}

/// Control connections of captures, and single messages.
pub fn streams() -> Vec<Vec<u8>> {
    let mut seeds = vectors("pptp-control.toml", &["message"]);
    for file in captures() {
        seeds.extend(
            file.control()
                .expect("a control connection")
                .1
                .into_values(),
        );
    }
    seeds.sort();
    seeds.dedup();
    seeds
}

fn control_scripts(side: Side, between: &[u8]) -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = vectors("pptp-control.toml", &["message"])
        .iter()
        .map(|message| [&[0][..], &chunk(message)].concat())
        .collect();
    for file in captures() {
        let messages = file.messages(usize::MAX).expect("messages");
        let script: Vec<u8> = messages[&side]
            .iter()
            .flat_map(|message| [&[0][..], &chunk(&message.emit()), between].concat())
            .collect();
        seeds.push(script);
    }
    seeds.sort();
    seeds.dedup();
    seeds
}

/// What clients said, answered by connecting (order 220) whatever they asked for.
pub fn server_scripts() -> Vec<Vec<u8>> {
    control_scripts(Side::Client, &[220, 9])
}

/// What servers said to a client that asked for a call (order 220) in the meantime.
pub fn caller_scripts() -> Vec<Vec<u8>> {
    control_scripts(Side::Server, &[220, 0])
}

fn ip_datagrams() -> Vec<crate::captures::Datagram> {
    captures()
        .iter()
        .flat_map(|file| file.datagrams().expect("datagrams"))
        .collect()
}

/// Few of many: enough of each kind.
fn thin(mut seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    seeds.sort();
    seeds.dedup();
    let step = (seeds.len() / 400).max(1);
    seeds.into_iter().step_by(step).collect()
}

/// GRE packets.
pub fn gre_packets() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = ip_datagrams()
        .into_iter()
        .filter(|datagram| datagram.protocol == ipv4::GRE)
        .map(|gre| gre.payload)
        .collect();
    seeds = thin(seeds);
    seeds.extend(vectors("gre.toml", &["packet"]));
    seeds
}

/// Ethernet frames.
pub fn ethernet_frames() -> Vec<Vec<u8>> {
    thin(
        captures()
            .into_iter()
            .flat_map(|file| file.frames)
            .collect(),
    )
}

/// IPv4 packets behind two octets of the target's own.
pub fn ip_packets() -> Vec<Vec<u8>> {
    let frames = ethernet_frames()
        .into_iter()
        .filter(|frame| frame.len() > 34);
    frames
        .map(|frame| [&[5, 0x14], &frame[14..]].concat())
        .collect()
}

/// PPP frames.
pub fn ppp_frames() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for file in captures() {
        for call in file.calls().expect("calls") {
            for side in Side::BOTH {
                for wire in call.from(side).iter().take(60) {
                    seeds.push([&wire.protocol.0.to_be_bytes(), &wire.information[..]].concat());
                }
            }
        }
    }
    let mut seeds = thin(seeds);
    seeds.extend(vectors("ppp.toml", &["frame", "header"]));
    seeds
}

/// Orders of any kind: for targets whose input is nothing that a wire carries.
pub fn scripts() -> Vec<Vec<u8>> {
    let mut random = Random(1);
    (0..64)
        .map(|length| (0..length).map(|_| random.next() as u8).collect())
        .collect()
}
