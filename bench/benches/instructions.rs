//! Instructions that a packet takes, counted by callgrind: the same in every run and on a busy machine, unlike times.
//!
//! `cargo bench -p turnpike-bench --bench instructions` (`--json` for programs) runs itself under valgrind, which must be
//! there (Debian: `apt install valgrind`). 64 octets, 64 packets in a turn, one call, all in cache. Receiving packets from
//! the device, a whole turn of the worker and giving them to the device count, as in `packet_path`.
//!
//! The processor that valgrind shows has no SHA instructions and no AVX-512; cipher kernels are chosen for it, by time, so
//! with MPPE the rows named after a kernel tell how the work is divided, and "portable" what it takes anywhere.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may stop at any fault, and prints"
)]

use core::cell::Cell;
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};

use turnpike_dataplane::api::{Encryption, Port};
use turnpike_dataplane::cipher::{Engine, Link, Packet};
use turnpike_protocol::mppe::SessionKey;

#[path = "../../dataplane/tests/rig/mod.rs"]
mod rig;

use rig::{End, Pair, from_linux, udp};

/// Packets that a turn finds.
const BATCH: usize = 64;

/// Octets of inner packets, headers included.
const SIZE: usize = 64;

/// Turns of the shorter and the longer run: what only the first ones take is in both.
const TURNS: [usize; 2] = [10, 60];

const CASES: [&str; 5] = [
    "decap in clear",
    "encap in clear",
    "decap MPPE-128",
    "encap MPPE-128",
    "cipher, portable",
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, case, turns] = &words[..]
        && flag == "--case"
    {
        run(case, turns.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let json = words.iter().any(|word| word == "--json");
    if Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        println!(
            "instructions are not counted: there is no valgrind (Debian: apt install valgrind)"
        );
        return ExitCode::FAILURE;
    }
    let mut found = Vec::new();
    for case in CASES {
        let [short, long] = TURNS.map(|turns| counted(case, turns));
        let packets = (TURNS[1] - TURNS[0]) * BATCH;
        let each = (long - short) as f64 / packets as f64;
        if !json {
            println!("{case:<18} {each:>8.0} instructions a packet");
        }
        found.push(serde_json::json!({"name": case, "octets": SIZE, "instructions": each}));
    }
    if json {
        println!("{}", serde_json::Value::Array(found));
    }
    ExitCode::SUCCESS
}

/// Runs a case under callgrind; what it counted.
fn counted(case: &str, turns: usize) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*measured*"])
        .arg(std::env::current_exe().unwrap())
        .args(["--case", case, &turns.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "valgrind fails: {text}");
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind says no count: {text}"))
}

fn run(case: &str, turns: usize) {
    match case {
        "decap in clear" => decap(Encryption::Plain, turns),
        "decap MPPE-128" => decap(Encryption::Required, turns),
        "encap in clear" => encap(Encryption::Plain, turns),
        "encap MPPE-128" => encap(Encryption::Required, turns),
        _ => cipher(&mut Engine::portable(), turns),
    }
}

fn decap(encryption: Encryption, turns: usize) {
    let mut pair = Pair::up(encryption);
    let packet = from_linux(&udp(rig::INNER, rig::INTERNET, SIZE - 20));
    for _ in 0..turns {
        for _ in 0..BATCH {
            assert!(pair.client.worker.device_mut().inject(Port::Host, &packet));
        }
        pair.client.turn();
        let frames = pair.client.sent(Port::Access);
        for frame in &frames {
            assert!(pair.server.worker.device_mut().inject(Port::Access, frame));
        }
        measured_turn(&mut pair.server);
        assert_eq!(pair.server.sent(Port::Host).len(), BATCH);
        pair.server.sent(Port::Access);
    }
}

fn encap(encryption: Encryption, turns: usize) {
    let mut pair = Pair::up(encryption);
    let packet = from_linux(&udp(rig::INTERNET, rig::INNER, SIZE - 20));
    for _ in 0..turns {
        for _ in 0..BATCH {
            assert!(pair.server.worker.device_mut().inject(Port::Host, &packet));
        }
        measured_turn(&mut pair.server);
        assert_eq!(pair.server.sent(Port::Access).len(), BATCH);
    }
}

/// A key change and RC4 for each packet, of as many calls.
fn cipher(engine: &mut Engine, turns: usize) {
    let start = rig::key(1);
    let mut keys = vec![SessionKey::initial(&start); BATCH];
    let packets = vec![[0_u8; SIZE + 2]; BATCH];
    let packets: Vec<Vec<Cell<u8>>> = packets
        .iter()
        .map(|packet| packet.iter().copied().map(Cell::new).collect())
        .collect();
    for _ in 0..turns {
        let mut links: Vec<Link<'_>> = keys
            .iter_mut()
            .map(|key| Link { start: &start, key })
            .collect();
        measured_changes(engine, &mut links);
        let packets: Vec<Packet<'_>> = keys
            .iter()
            .zip(&packets)
            .map(|(key, octets)| Packet { key, octets })
            .collect();
        measured_run(engine, &packets);
    }
}

#[inline(never)]
fn measured_turn(end: &mut End) {
    black_box(end.worker.turn(end.now));
}

#[inline(never)]
fn measured_changes(engine: &mut Engine, links: &mut [Link<'_>]) {
    engine.change_all(black_box(links));
}

#[inline(never)]
fn measured_run(engine: &mut Engine, packets: &[Packet<'_>]) {
    engine.run_all(black_box(packets));
}
