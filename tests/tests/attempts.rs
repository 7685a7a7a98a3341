//! Attempts to get packets past an encryption that was agreed, or is about to be, past a login, or past the addresses that
//! it gave: none passes, in either direction, of either version of IP, and each has the name under which it is dropped.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print the table they check"
)]

#[path = "attempts/acts.rs"]
mod acts;
#[path = "attempts/clear.rs"]
mod clear;
#[path = "attempts/encrypted.rs"]
mod encrypted;
#[path = "attempts/packets.rs"]
mod packets;
#[path = "attempts/refused.rs"]
mod refused;
#[path = "attempts/stage.rs"]
mod stage;

use std::time::Duration;

use packets::Version;
use stage::{Cast, Judge, Out, Stage, Terms};
use turnpike_controlplane::cause::Cause;
use turnpike_protocol::mppe::{Mode, Policy, Strength};
use turnpike_protocol::ppp::AuthProtocol;

const STRENGTHS: [Strength; 3] = [Strength::Bits128, Strength::Bits56, Strength::Bits40];
const MODES: [Mode; 2] = [Mode::Stateless, Mode::Stateful];
const METHODS: [AuthProtocol; 4] = [
    AuthProtocol::MsChapV2,
    AuthProtocol::MsChapV1,
    AuthProtocol::ChapMd5,
    AuthProtocol::Pap,
];

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It is dropped under this name.
    Dropped(&'static str),
    /// It passes: to a client, encrypted.
    Passes,
    /// It passes in clear.
    PassesInClear,
}

/// What becomes of packets of one version of IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fates {
    /// From the client, in clear.
    clear: Fate,
    /// From the client, encrypted: by its keys, or by some that are nobody's where it has none.
    encrypted: Fate,
    /// To the client.
    down: Fate,
}

const NOT_YET: Fate = Fate::Dropped("not-yet-forwarding");
const NO_KEYS: Fate = Fate::Dropped("mppe-no-keys");

/// Encrypted, and nothing else.
const ENCRYPTED: Fates = Fates {
    clear: Fate::Dropped("plain-refused"),
    encrypted: Fate::Passes,
    down: Fate::Passes,
};
/// In clear, and nothing else.
const CLEAR: Fates = Fates {
    clear: Fate::PassesInClear,
    encrypted: NO_KEYS,
    down: Fate::PassesInClear,
};
/// The client has been given no address yet.
const NO_ADDRESS: Fates = Fates {
    clear: NOT_YET,
    encrypted: NO_KEYS,
    down: Fate::Dropped("pool-without-call"),
};
/// The same where the keys run already.
const NO_ADDRESS_BUT_KEYS: Fates = Fates {
    encrypted: NOT_YET,
    ..NO_ADDRESS
};
/// It has an address, and no keys any more, or none ever.
const STOPPED: Fates = Fates {
    clear: NOT_YET,
    encrypted: NO_KEYS,
    down: NOT_YET,
};
/// It has an address, and its keys run on.
const HELD: Fates = Fates {
    encrypted: NOT_YET,
    ..STOPPED
};
/// The call is over.
const OVER: Fates = Fates {
    clear: Fate::Dropped("unknown-call"),
    encrypted: Fate::Dropped("unknown-call"),
    down: Fate::Dropped("pool-without-call"),
};

/// What comes of an attempt in the end.
enum Then {
    /// Everything stays as it is.
    GoesOn,
    /// The call ends.
    Ends(Cause),
    /// The policy lets the call go on in clear, as nobody wants its encryption.
    InClear,
}

/// Something that a client does.
struct Attempt {
    name: &'static str,
    /// What its own link never sends: how far it lets the call come.
    mute: fn(&[u8]) -> bool,
    /// Whether the user gets IPv6.
    ipv6: bool,
    /// What it does once the call has come so far. Holds the names of its own drops against what they must be.
    act: fn(&mut Stage),
    /// What becomes of IPv4 afterwards.
    four: Fates,
    /// What becomes of IPv6.
    six: Fates,
    /// What a minute more of it brings, by the server's policy.
    then: fn(Policy) -> Then,
}

impl Attempt {
    /// Whether a version of IP flows before the attempt.
    fn opens(&self, version: Version) -> bool {
        let ncp = [0xff, 3, 0x80, version.protocol(), 1];
        let user = version == Version::Four || self.ipv6;
        let mut needed = acts::PRELIMINARIES.iter().chain([&ncp]);
        user && !needed.any(|frame| (self.mute)(frame))
    }

    /// Plays it in a call in which packets pass like this before.
    fn play(&self, terms: Terms, before: &Fates) {
        let mut stage = Stage::new(Cast {
            name: self.name,
            terms,
            mute: self.mute,
            judge: Judge::Grants,
            ipv6: self.ipv6,
        });
        stage.expect_drops(&[]);
        let open = Version::BOTH.map(|version| self.opens(version));
        for _ in 0..20 {
            for (version, _) in Version::BOTH
                .into_iter()
                .zip(open)
                .filter(|(_, open)| *open)
            {
                probe_one(&mut stage, version, before);
            }
        }
        (self.act)(&mut stage);
        stage.quiet();
        stage.expect_drops(&[]);
        let fates = [&self.four, &self.six];
        probe(&mut stage, fates);
        match (self.then)(terms.policy) {
            Then::GoesOn => go_on(&mut stage, fates, None),
            Then::Ends(cause) => go_on(&mut stage, fates, Some(cause)),
            Then::InClear => {}
        }
    }

    /// Its line of the table.
    fn print(&self) {
        let [four, six] = [self.four, self.six].map(|fates| {
            [fates.clear, fates.encrypted, fates.down]
                .map(|fate| match fate {
                    Fate::Dropped(name) => name,
                    Fate::Passes => "passes",
                    Fate::PassesInClear => "in clear",
                })
                .map(|name| format!("{name:<20}"))
                .concat()
        });
        println!("{:<60} {four}", self.name);
        if six != four {
            println!("{:<60} {six}", "    IPv6");
        }
    }
}

/// A minute in which packets keep coming: their fate stays what it is until the call ends, and then it is another.
fn go_on(stage: &mut Stage, fates: [&Fates; 2], end: Option<Cause>) {
    for _ in 0..60 {
        stage.pass(Duration::from_secs(1));
        stage.expect_drops(&[]);
        if stage.ended.is_some() {
            break;
        }
        probe(stage, fates);
    }
    assert_eq!(stage.ended, end, "{}", stage.case);
    if end.is_some() {
        probe(stage, [&OVER; 2]);
    }
}

/// Sends one packet of each kind, and holds what becomes of it against what must.
fn probe(stage: &mut Stage, fates: [&Fates; 2]) {
    for (version, fates) in Version::BOTH.into_iter().zip(fates) {
        probe_one(stage, version, fates);
    }
}

fn probe_one(stage: &mut Stage, version: Version, fates: &Fates) {
    let up = Out {
        up: 1,
        ..Out::default()
    };
    let down = match fates.down {
        Fate::PassesInClear => Out {
            clear: 1,
            ..Out::default()
        },
        _ => Out {
            down: 1,
            ..Out::default()
        },
    };
    let long = version.ppp(&version.up());
    let whole = [&[0xff, 3][..], &long].concat();
    for frame in [&long[1..], &long, &whole] {
        stage.send_frame(frame);
        hold(stage, version, "in clear", fates.clear, up);
    }
    stage.send_encrypted(&long);
    hold(stage, version, "encrypted", fates.encrypted, up);
    stage.send_down(&version.down());
    hold(stage, version, "to the client", fates.down, down);
}

/// What became of the packet that was sent last; `passed` is what comes out when it passes.
fn hold(stage: &mut Stage, version: Version, way: &str, fate: Fate, passed: Out) {
    let out = stage.settle();
    let drops: Vec<_> = stage.drops().into_iter().collect();
    let expected = match fate {
        Fate::Dropped(name) => (Out::default(), vec![(name, 1)]),
        Fate::Passes | Fate::PassesInClear => (passed, vec![]),
    };
    assert_eq!((out, drops), expected, "{}: {version:?} {way}", stage.case);
}

fn print_head(title: &str) {
    println!(
        "\n{title:<60} {:<20}{:<20}{:<20}",
        "up, in clear", "up, encrypted", "down"
    );
}

#[test]
fn nothing_passes_an_encryption() {
    println!("{} cases", encrypted::play());
}

#[test]
fn what_is_in_clear_stays_between_its_addresses() {
    println!("{} cases", clear::play());
}

#[test]
fn nobody_gets_in_whom_the_policy_keeps_out() {
    println!("{} cases", refused::play());
}
