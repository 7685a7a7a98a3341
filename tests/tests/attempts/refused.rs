//! Calls that must never come up: nothing passes as long as they last, and they end for a named cause.

use turnpike_controlplane::cause::Cause;
use turnpike_protocol::mppe::{Policy, Strength};
use turnpike_protocol::ppp::AuthProtocol;
use turnpike_protocol::ppp::packet::code;

use crate::acts::{CCP, LCP, PAP, control, ncp_requests, nothing, option};
use crate::stage::{Cast, Judge, Stage, Terms};
use crate::{METHODS, MODES, NO_ADDRESS, OVER, STRENGTHS, go_on, probe};

/// Someone who must not get in.
struct Stranger {
    name: &'static str,
    /// The server's policy and the client's.
    policies: (Policy, Policy),
    judge: Judge,
    /// Whether it is about methods that give keys, or about those that do not.
    methods: fn(AuthProtocol) -> bool,
    strengths: &'static [Strength],
    /// What the client does besides.
    act: fn(&mut Stage),
    end: Cause,
}

fn gives_keys(method: AuthProtocol) -> bool {
    method.gives_keys()
}

fn gives_no_keys(method: AuthProtocol) -> bool {
    !method.gives_keys()
}

const KEYLESS: Stranger = Stranger {
    name: "a method without keys where encryption is required",
    policies: (Policy::Require, Policy::Allow),
    judge: Judge::Grants,
    methods: gives_no_keys,
    strengths: &STRENGTHS,
    act: |_| (),
    end: Cause::AuthenticationRefused,
};

const STRANGERS: &[Stranger] = &[
    KEYLESS,
    Stranger {
        name: "the same, logging in unasked",
        act: |stage| {
            let right = [&[5][..], b"alice", &[13], b"correct horse"].concat();
            for identifier in 0..3 {
                stage.taken(&control(PAP, 1, identifier, &right));
                for request in ncp_requests(identifier) {
                    stage.taken(&request);
                }
            }
        },
        ..KEYLESS
    },
    Stranger {
        name: "the same, asking for PAP in place of what is demanded",
        act: |stage| {
            for identifier in 0..3 {
                let pap = [3, 4, 0xc0, 0x23];
                stage.taken(&control(LCP, code::CONFIGURE_NAK, identifier, &pap));
                stage.taken(&control(LCP, code::CONFIGURE_REQUEST, identifier, &pap));
            }
        },
        ..KEYLESS
    },
    Stranger {
        name: "a login that leaves no keys",
        judge: Judge::GrantsWithoutKeys,
        methods: gives_keys,
        end: Cause::NoKeys,
        ..KEYLESS
    },
    Stranger {
        name: "weak keys where only the hash of the password is known",
        judge: Judge::KnowsHash,
        methods: |method| method == AuthProtocol::MsChapV1,
        strengths: &[Strength::Bits56, Strength::Bits40],
        end: Cause::NoLmHash,
        ..KEYLESS
    },
    Stranger {
        name: "a client that will have no encryption",
        policies: (Policy::Require, Policy::Deny),
        methods: gives_keys,
        act: |stage| {
            for identifier in 0..3 {
                let none = option([0; 4]);
                stage.taken(&control(CCP, code::CONFIGURE_REQUEST, identifier, &none));
            }
        },
        end: Cause::EncryptionRefused,
        ..KEYLESS
    },
    WRONG,
    Stranger {
        name: "a wrong password, where there is no encryption",
        policies: (Policy::Deny, Policy::Allow),
        methods: |_| true,
        ..WRONG
    },
    SLOW,
    Stranger {
        name: "the same, where there is no encryption",
        policies: (Policy::Deny, Policy::Allow),
        methods: |_| true,
        ..SLOW
    },
];

const WRONG: Stranger = Stranger {
    name: "a wrong password",
    judge: Judge::Refuses,
    methods: gives_keys,
    end: Cause::AuthenticationFailed,
    ..KEYLESS
};

const SLOW: Stranger = Stranger {
    name: "a login without a verdict, with addresses pressed for",
    judge: Judge::IsSilent,
    methods: gives_keys,
    act: |stage| {
        for identifier in 0..5 {
            for request in ncp_requests(identifier) {
                stage.taken(&request);
            }
        }
    },
    end: Cause::SetupTimeout,
    ..KEYLESS
};

impl Stranger {
    fn play(&self, terms: Terms) {
        let mut stage = Stage::new(Cast {
            name: self.name,
            terms,
            mute: nothing,
            judge: self.judge,
            ipv6: true,
        });
        if stage.ended.is_none() {
            probe(&mut stage, [&NO_ADDRESS; 2]);
            (self.act)(&mut stage);
            if stage.ended.is_none() {
                probe(&mut stage, [&NO_ADDRESS; 2]);
            }
        }
        go_on(&mut stage, [&NO_ADDRESS; 2], Some(self.end));
        // Nobody comes back to life.
        probe(&mut stage, [&OVER; 2]);
    }
}

pub fn play() -> usize {
    println!("\n{:<60} cause", "refused");
    let mut cases = 0;
    for stranger in STRANGERS {
        println!("{:<60} {}", stranger.name, stranger.end.name());
        for method in METHODS
            .into_iter()
            .filter(|method| (stranger.methods)(*method))
        {
            for strength in stranger.strengths {
                for mode in MODES {
                    let (policy, client) = stranger.policies;
                    let terms = Terms {
                        method,
                        policy,
                        client,
                        strength: *strength,
                        mode,
                    };
                    stranger.play(terms);
                    cases += 1;
                }
            }
        }
    }
    cases
}
