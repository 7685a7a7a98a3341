//! Calls that are encrypted, or are to be.

use std::time::Duration;

use turnpike_controlplane::cause::Cause;
use turnpike_protocol::mppe::Policy;
use turnpike_protocol::ppp::packet::code;

use crate::acts::{
    CCP, IPCP, IPV6CP, LCP, alone, answer, answer_anew, control, everything, goes_on, lcp_anew,
    login, malformed_ccp, mislabelled, ncp_requests, nothing, of, option, other, repeat_request,
    strange_addresses, takes_too_long,
};
use crate::packets::{Version, solicitation};
use crate::stage::{Stage, Terms};
use crate::{
    Attempt, ENCRYPTED, HELD, METHODS, MODES, NO_ADDRESS, NO_ADDRESS_BUT_KEYS, STOPPED, STRENGTHS,
    Then, print_head, probe,
};

const OPEN: Attempt = Attempt {
    name: "in clear on an open call",
    mute: nothing,
    ipv6: true,
    act: |stage| {
        // Questions to the server itself are data too.
        stage.refused(&Version::Six.ppp(&solicitation()), "plain-refused");
    },
    four: ENCRYPTED,
    six: ENCRYPTED,
    then: goes_on,
};

/// Stateful keys are reset after a packet that makes no sense.
fn still_flows(stage: &mut Stage) {
    stage.send_encrypted(&Version::Four.ppp(&Version::Four.up()));
    assert_eq!(stage.settle().up, 1, "{}", stage.case);
}

/// CCP goes down, and packets of all kinds follow so closely that only the worker has seen it.
fn at_once(stage: &mut Stage, frame: &[u8], drops: &[&str]) {
    stage.mute = everything;
    stage.send_frame(frame);
    for version in Version::BOTH {
        let packet = version.ppp(&version.up());
        stage.send_frame(&packet);
        stage.send_encrypted(&packet);
        stage.send_down(&version.down());
    }
    stage.quiet();
    stage.expect_drops(drops);
}

/// Before the keys, or without them any more.
const SHUT: Attempt = Attempt {
    four: STOPPED,
    six: STOPPED,
    then: |_| Then::Ends(Cause::EncryptionLost),
    ..OPEN
};

const EARLY: Attempt = Attempt {
    mute: |frame| of(CCP, frame),
    act: |_| (),
    four: NO_ADDRESS,
    six: NO_ADDRESS,
    // Who prefers encryption may find that there is none to be had.
    then: |policy| match policy {
        Policy::Require => Then::Ends(Cause::SetupTimeout),
        _ => Then::InClear,
    },
    ..OPEN
};

const ATTEMPTS: &[Attempt] = &[
    OPEN,
    Attempt {
        name: "encrypted, with addresses that are not the call's",
        act: |stage| strange_addresses(stage, true),
        ..OPEN
    },
    Attempt {
        name: "encrypted, one version of IP under the other's number",
        act: |stage| {
            for packet in mislabelled() {
                // Nobody can tell it from garbage.
                stage.refused_encrypted(&packet, "mppe-garbage");
                still_flows(stage);
            }
        },
        ..OPEN
    },
    Attempt {
        name: "control protocols inside MPPE",
        act: |stage| {
            for protocol in [LCP, CCP, IPCP, IPV6CP] {
                let terminate = [&protocol[..], &[5, 1, 0, 4]].concat();
                stage.refused_encrypted(&terminate, "control-in-mppe");
                still_flows(stage);
            }
        },
        ..OPEN
    },
    Attempt {
        name: "MPPE frames that are too short, or not encrypted",
        act: |stage| {
            for (frame, name) in [
                (&[0xfd][..], "mppe-short"),
                (&[0xfd, 0x90], "mppe-short"),
                (&[0xfd, 0x80, 0x30, 0, 0x21, 0x45], "mppe-not-encrypted"),
                (&[0xfd, 0x80, 0x30, 0, 0x57, 0x60], "mppe-not-encrypted"),
                (&[0xfd, 0xb0, 0x30, 0, 0x21, 0x45], "mppe-compressed"),
            ] {
                stage.refused(frame, name);
            }
        },
        ..OPEN
    },
    Attempt {
        name: "before authentication",
        mute: login,
        then: takes_too_long,
        ..EARLY
    },
    Attempt {
        name: "before CCP",
        ..EARLY
    },
    Attempt {
        name: "before CCP, with IPCP and IPV6CP pressed for",
        act: |stage| {
            for identifier in 50..55 {
                for request in ncp_requests(identifier) {
                    stage.taken(&request);
                }
            }
        },
        ..EARLY
    },
    Attempt {
        name: "with only the server's request acknowledged",
        mute: |frame| of(CCP, frame) && frame[4] == code::CONFIGURE_REQUEST,
        four: NO_ADDRESS_BUT_KEYS,
        six: NO_ADDRESS_BUT_KEYS,
        ..EARLY
    },
    Attempt {
        name: "with only the client's request acknowledged",
        mute: |frame| of(CCP, frame) && frame[4] == code::CONFIGURE_ACK,
        ..EARLY
    },
    Attempt {
        name: "while CCP is argued about",
        act: |stage| {
            for round in 0..2 {
                let bits = option(other(stage.terms));
                stage.taken(&control(CCP, code::CONFIGURE_REQUEST, 80 + round, &bits));
                answer(stage, code::CONFIGURE_NAK, |_| bits);
                probe(stage, [&NO_ADDRESS; 2]);
            }
        },
        ..EARLY
    },
    Attempt {
        name: "before IPCP",
        mute: |frame| of(IPCP, frame),
        act: |_| (),
        four: NO_ADDRESS_BUT_KEYS,
        then: takes_too_long,
        ..OPEN
    },
    Attempt {
        name: "before IPV6CP",
        mute: |frame| of(IPV6CP, frame),
        act: |_| (),
        six: NO_ADDRESS_BUT_KEYS,
        ..OPEN
    },
    Attempt {
        name: "IPv6 of a user who has none",
        ipv6: false,
        act: |stage| {
            for [_, request] in [60, 61].map(ncp_requests) {
                stage.taken(&request);
            }
        },
        six: NO_ADDRESS_BUT_KEYS,
        ..OPEN
    },
    Attempt {
        name: "after malformed CCP requests",
        act: |stage| {
            for frame in malformed_ccp(stage.terms) {
                stage.taken(&frame);
            }
        },
        ..OPEN
    },
    Attempt {
        name: "after a repeated CCP request",
        act: |stage| repeat_request(stage, stage.terms.bits()),
        ..SHUT
    },
    Attempt {
        name: "at once after a repeated CCP request",
        act: |stage| {
            let bits = option(stage.terms.bits());
            let request = control(CCP, code::CONFIGURE_REQUEST, 77, &bits);
            at_once(stage, &request, &["not-yet-encrypted", "plain-refused"]);
        },
        ..SHUT
    },
    Attempt {
        name: "after a CCP request for other bits",
        act: |stage| repeat_request(stage, other(stage.terms)),
        ..SHUT
    },
    Attempt {
        name: "after a CCP request for no encryption",
        act: |stage| repeat_request(stage, [0; 4]),
        ..SHUT
    },
    Attempt {
        name: "after a CCP request without options",
        act: |stage| alone(stage, &control(CCP, code::CONFIGURE_REQUEST, 77, &[])),
        ..SHUT
    },
    Attempt {
        name: "after a late Configure-Reject of MPPE",
        act: |stage| {
            answer_anew(stage, code::CONFIGURE_REJECT, <[u8]>::to_vec);
            // Where stateful keys were asked for, stateless ones are asked for before it is believed.
            answer(stage, code::CONFIGURE_REJECT, <[u8]>::to_vec);
        },
        ..SHUT
    },
    Attempt {
        name: "after a late Nak without encryption",
        act: |stage| answer_anew(stage, code::CONFIGURE_NAK, |_| option([0; 4])),
        ..SHUT
    },
    Attempt {
        name: "after a Protocol-Reject of CCP",
        act: |stage| {
            let rejected = [&CCP[..], &[1, 1, 0, 4]].concat();
            alone(stage, &control(LCP, code::PROTOCOL_REJECT, 9, &rejected));
        },
        ..SHUT
    },
    Attempt {
        name: "after a CCP Terminate-Request",
        act: |stage| alone(stage, &control(CCP, code::TERMINATE_REQUEST, 9, &[])),
        ..SHUT
    },
    Attempt {
        name: "at once after a CCP Terminate-Request",
        act: |stage| {
            let request = control(CCP, code::TERMINATE_REQUEST, 9, &[]);
            let drops = ["mppe-no-keys", "not-yet-encrypted", "plain-refused"];
            at_once(stage, &request, &drops);
        },
        ..SHUT
    },
    Attempt {
        name: "after a CCP Terminate-Ack that nobody asked for",
        act: |stage| alone(stage, &control(CCP, code::TERMINATE_ACK, 9, &[])),
        ..SHUT
    },
    Attempt {
        name: "after LCP was begun anew",
        act: lcp_anew,
        four: HELD,
        six: HELD,
        then: |_| Then::Ends(Cause::LcpFailed),
        ..OPEN
    },
    Attempt {
        name: "after an IPCP Terminate-Request",
        act: |stage| {
            alone(stage, &control(IPCP, code::TERMINATE_REQUEST, 9, &[]));
            // IPv6 until PPP ends, which waits for a repetition first.
            probe(stage, [&HELD, &ENCRYPTED]);
            stage.pass(Duration::from_secs(4));
        },
        four: HELD,
        six: HELD,
        then: |_| Then::Ends(Cause::IpcpFailed),
        ..OPEN
    },
    Attempt {
        name: "after an IPV6CP Terminate-Request",
        act: |stage| alone(stage, &control(IPV6CP, code::TERMINATE_REQUEST, 9, &[])),
        six: HELD,
        ..OPEN
    },
    Attempt {
        name: "after a Protocol-Reject of IPV6CP",
        act: |stage| {
            let rejected = [&IPV6CP[..], &[1, 1, 0, 4]].concat();
            alone(stage, &control(LCP, code::PROTOCOL_REJECT, 9, &rejected));
        },
        six: HELD,
        ..OPEN
    },
    Attempt {
        name: "after IPV6CP requests that ask for nothing",
        act: |stage| {
            stage.mute = everything;
            for identifier in 60..64 {
                let data = [&[1, 10][..], &0_u64.to_be_bytes()].concat();
                stage.taken(&control(IPV6CP, code::CONFIGURE_REQUEST, identifier, &data));
            }
        },
        six: HELD,
        ..OPEN
    },
];

pub fn play() -> usize {
    print_head("encrypted");
    let mut cases = 0;
    for attempt in ATTEMPTS {
        attempt.print();
        let opens = Version::BOTH.iter().any(|version| attempt.opens(*version));
        for method in METHODS.into_iter().filter(|method| method.gives_keys()) {
            for policy in [Policy::Require, Policy::Prefer, Policy::Allow] {
                // Who only allows encryption may be in clear for as long as nobody asks for it.
                if policy == Policy::Allow && !opens {
                    continue;
                }
                for strength in STRENGTHS {
                    for mode in MODES {
                        let terms = Terms {
                            method,
                            policy,
                            client: Policy::Require,
                            strength,
                            mode,
                        };
                        attempt.play(terms, &ENCRYPTED);
                        cases += 1;
                    }
                }
            }
        }
    }
    cases
}
