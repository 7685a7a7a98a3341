//! Calls in clear: because the login gives no keys, because the policy or the client will have no encryption, or because
//! nobody has asked for it yet.

use std::time::Duration;

use turnpike_controlplane::cause::Cause;
use turnpike_protocol::mppe::{Mode, Policy, Strength};
use turnpike_protocol::ppp::AuthProtocol;
use turnpike_protocol::ppp::packet::code;

use crate::acts::{
    CCP, CHAP, IPCP, IPV6CP, LCP, PAP, alone, answer, control, everything, goes_on, in_clear,
    lcp_anew, login, malformed_ccp, mislabelled, ncp_requests, nothing, of, option, other,
    repeat_request, strange_addresses, takes_too_long,
};
use crate::stage::{Stage, Terms};
use crate::{
    Attempt, CLEAR, Fate, Fates, METHODS, MODES, NO_ADDRESS, STOPPED, STRENGTHS, Then, print_head,
    probe,
};

const OPEN: Attempt = Attempt {
    name: "encrypted on an open call",
    mute: nothing,
    ipv6: true,
    act: |_| (),
    four: CLEAR,
    six: CLEAR,
    then: goes_on,
};

/// Whatever way the call came to be in clear.
const ATTEMPTS: &[Attempt] = &[
    OPEN,
    Attempt {
        name: "with addresses that are not the call's",
        act: |stage| strange_addresses(stage, false),
        ..OPEN
    },
    Attempt {
        name: "one version of IP under the other's number",
        act: |stage| {
            for packet in mislabelled() {
                stage.refused(&packet, "inner-header");
            }
        },
        ..OPEN
    },
    Attempt {
        name: "control protocols inside MPPE",
        act: |stage| {
            for protocol in [LCP, CCP, IPCP, IPV6CP] {
                let terminate = [&protocol[..], &[5, 1, 0, 4]].concat();
                stage.refused_encrypted(&terminate, "mppe-no-keys");
            }
        },
        ..OPEN
    },
    Attempt {
        name: "before authentication",
        mute: login,
        four: NO_ADDRESS,
        six: NO_ADDRESS,
        then: takes_too_long,
        ..OPEN
    },
    Attempt {
        name: "before authentication, with IPCP and IPV6CP pressed for",
        mute: login,
        act: |stage| {
            for identifier in 50..55 {
                for request in ncp_requests(identifier) {
                    stage.taken(&request);
                }
            }
        },
        four: NO_ADDRESS,
        six: NO_ADDRESS,
        then: takes_too_long,
        ..OPEN
    },
    Attempt {
        name: "before IPCP",
        mute: |frame| of(IPCP, frame),
        four: NO_ADDRESS,
        then: takes_too_long,
        ..OPEN
    },
    Attempt {
        name: "before IPV6CP",
        mute: |frame| of(IPV6CP, frame),
        six: NO_ADDRESS,
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
        six: NO_ADDRESS,
        ..OPEN
    },
    Attempt {
        name: "logins in another name that nobody asked for",
        act: |stage| {
            for identifier in 0..3 {
                let pap = [&[3][..], b"bob", &[3], b"bob"].concat();
                stage.taken(&control(PAP, 1, identifier, &pap));
                for length in [16, 49] {
                    let value = vec![7; usize::from(length)];
                    let chap = [&[length][..], &value, b"bob"].concat();
                    stage.taken(&control(CHAP, 2, identifier, &chap));
                }
            }
        },
        ..OPEN
    },
    Attempt {
        name: "after LCP was begun anew",
        act: lcp_anew,
        four: STOPPED,
        six: STOPPED,
        then: |_| Then::Ends(Cause::LcpFailed),
        ..OPEN
    },
    Attempt {
        name: "after an IPCP Terminate-Request",
        act: |stage| {
            alone(stage, &control(IPCP, code::TERMINATE_REQUEST, 9, &[]));
            // IPv6 until PPP ends, which waits for a repetition first.
            probe(stage, [&STOPPED, &CLEAR]);
            stage.pass(Duration::from_secs(4));
        },
        four: STOPPED,
        six: STOPPED,
        then: |_| Then::Ends(Cause::IpcpFailed),
        ..OPEN
    },
    Attempt {
        name: "after an IPV6CP Terminate-Request",
        act: |stage| alone(stage, &control(IPV6CP, code::TERMINATE_REQUEST, 9, &[])),
        six: STOPPED,
        ..OPEN
    },
];

/// What a client says of CCP in a call that can never be encrypted.
fn every_ccp_packet(stage: &mut Stage) {
    stage.mute = everything;
    let bits = option(stage.terms.bits());
    for code in [
        code::CONFIGURE_REQUEST,
        code::CONFIGURE_ACK,
        code::CONFIGURE_NAK,
        code::CONFIGURE_REJECT,
    ] {
        for identifier in 0..4 {
            for data in [&bits, &option(other(stage.terms)), &option([0; 4]), &vec![]] {
                stage.taken(&control(CCP, code, identifier, data));
            }
            probe(stage, [&CLEAR; 2]);
            stage.pass(Duration::from_secs(5));
        }
    }
    stage.taken(&control(CCP, code::TERMINATE_REQUEST, 9, &[]));
    stage.taken(&control(CCP, code::TERMINATE_ACK, 9, &[]));
    stage.taken(&control(CCP, code::CODE_REJECT, 9, &[15, 1, 0, 4]));
    stage.refused(&control(CCP, code::RESET_REQUEST, 9, &[]), "reset-ignored");
    stage.refused(&control(CCP, code::RESET_ACK, 9, &[]), "reset-ignored");
}

/// Where no login can ever give keys, or the policy wants none.
const WITHOUT_KEYS: &[Attempt] = &[
    Attempt {
        name: "MPPE frames that are too short, or not encrypted",
        act: |stage| {
            for frame in [
                &[0xfd][..],
                &[0xfd, 0x90],
                &[0xfd, 0x80, 0x30, 0, 0x21, 0x45],
                &[0xfd, 0x80, 0x30, 0, 0x57, 0x60],
                &[0xfd, 0xb0, 0x30, 0, 0x21, 0x45],
            ] {
                stage.refused(frame, "mppe-no-keys");
            }
        },
        ..OPEN
    },
    Attempt {
        name: "after CCP packets of every kind",
        act: every_ccp_packet,
        ..OPEN
    },
    Attempt {
        name: "after malformed CCP packets",
        act: |stage| {
            for frame in malformed_ccp(stage.terms) {
                stage.taken(&frame);
            }
        },
        ..OPEN
    },
    Attempt {
        name: "after Protocol-Rejects of CCP and MPPE",
        act: |stage| {
            for protocol in [CCP, [0, 0xfd]] {
                let rejected = [&protocol[..], &[1, 1, 0, 4]].concat();
                stage.taken(&control(LCP, code::PROTOCOL_REJECT, 9, &rejected));
            }
        },
        ..OPEN
    },
];

/// Where encryption is allowed and not asked for until the call is up: then nothing passes until it is agreed, or agreed
/// not to be.
const LATE: &[Attempt] = &[
    Attempt {
        name: "while CCP, begun late, waits for an answer",
        act: |stage| repeat_request(stage, stage.terms.bits()),
        four: STOPPED,
        six: STOPPED,
        then: in_clear,
        ..OPEN
    },
    Attempt {
        name: "while CCP, begun late, is argued about",
        act: |stage| {
            for _ in 0..2 {
                let bits = other(stage.terms);
                repeat_request(stage, bits);
                answer(stage, code::CONFIGURE_NAK, |_| option(bits));
                probe(stage, [&STOPPED; 2]);
            }
        },
        four: STOPPED,
        six: STOPPED,
        then: in_clear,
        ..OPEN
    },
];

/// Where encryption was preferred and the client had none of it, but its keys all the same.
const UNAGREED: Attempt = Attempt {
    name: "encrypted by keys that were never agreed",
    mute: |frame| of(CCP, frame),
    act: |stage| {
        // The server asks three times.
        stage.pass(Duration::from_secs(12));
        for request in ncp_requests(70) {
            stage.taken(&request);
        }
        stage.take_keys();
    },
    four: Fates {
        encrypted: Fate::Dropped("encrypted-refused"),
        ..CLEAR
    },
    six: Fates {
        encrypted: Fate::Dropped("encrypted-refused"),
        ..CLEAR
    },
    then: in_clear,
    ..OPEN
};

/// Where the client has agreed to encrypt and will not have it from the server.
const ONE_WAY: Attempt = Attempt {
    name: "encrypted one way, as it was agreed",
    act: |stage| {
        stage.taken(&control(CCP, code::CONFIGURE_REQUEST, 77, &option([0; 4])));
        answer(stage, code::CONFIGURE_ACK, <[u8]>::to_vec);
        for request in ncp_requests(70) {
            stage.taken(&request);
        }
        stage.take_keys();
    },
    four: Fates {
        encrypted: Fate::Passes,
        ..CLEAR
    },
    six: Fates {
        encrypted: Fate::Passes,
        ..CLEAR
    },
    ..UNAGREED
};

/// How a call comes to be in clear.
fn terms(method: AuthProtocol, policy: Policy) -> Terms {
    let never = policy == Policy::Deny || !method.gives_keys();
    Terms {
        method,
        policy,
        client: if never { Policy::Allow } else { Policy::Deny },
        strength: Strength::Bits128,
        mode: Mode::Stateless,
    }
}

pub fn play() -> usize {
    print_head("in clear");
    let mut cases = 0;
    let policies = [Policy::Prefer, Policy::Allow, Policy::Deny];
    let ways: Vec<_> = METHODS
        .into_iter()
        .flat_map(|method| policies.map(|policy| terms(method, policy)))
        .collect();
    for attempt in ATTEMPTS {
        attempt.print();
        for terms in &ways {
            attempt.play(*terms, &CLEAR);
            cases += 1;
        }
    }
    for attempt in WITHOUT_KEYS {
        attempt.print();
        for terms in ways.iter().filter(|terms| terms.client == Policy::Allow) {
            attempt.play(*terms, &CLEAR);
            cases += 1;
        }
    }
    let offered = LATE.iter().map(|attempt| (attempt, Policy::Allow));
    for (attempt, policy) in
        offered.chain([&UNAGREED, &ONE_WAY].map(|attempt| (attempt, Policy::Prefer)))
    {
        attempt.print();
        for method in METHODS.into_iter().filter(|method| method.gives_keys()) {
            for strength in STRENGTHS {
                for mode in MODES {
                    let terms = Terms {
                        method,
                        policy,
                        client: policy,
                        strength,
                        mode,
                    };
                    attempt.play(terms, &CLEAR);
                    cases += 1;
                }
            }
        }
    }
    cases
}
