//! What PPP costs at set-up: both ends' state machines over nothing but memory, and checking a password.
//!
//! `cargo bench -p turnpike-bench --bench set_up`. Each time is of one call, from LCP's first packet until data may flow
//! both ways: LCP, the login, CCP (where keys come of it) and IPCP. Nothing gets lost, and no time passes.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark's functions are made by macros, and it may stop at any fault"
)]

use core::time::Duration;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use turnpike_protocol::Time;
use turnpike_protocol::mppe::Policy;
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{
    Action, AuthProtocol, ClientLink, Credentials, Grant, Link, ServerLink, Verdict,
};

const PASSWORD: &str = "correct horse";

/// One way to log in, and whether calls are encrypted then.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    method: AuthProtocol,
    mppe: Policy,
}

const CASES: [Case; 3] = [
    Case {
        name: "MS-CHAPv2, MPPE",
        method: AuthProtocol::MsChapV2,
        mppe: Policy::Require,
    },
    Case {
        name: "CHAP-MD5, in clear",
        method: AuthProtocol::ChapMd5,
        mppe: Policy::Deny,
    },
    Case {
        name: "PAP, in clear",
        method: AuthProtocol::Pap,
        mppe: Policy::Deny,
    },
];

/// Two ends, and what is on its way to each.
struct Pair {
    ends: [Link; 2],
    up: [bool; 2],
    /// The password is checked as for a stored one.
    judged: Option<Credentials>,
    frames: Vec<(usize, Vec<u8>)>,
    /// What the server's end has taken, verdicts not counted.
    server: Duration,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    fn new(case: Case) -> Self {
        let client = ClientLink {
            methods: vec![case.method],
            mppe: case.mppe,
            ..ClientLink::new(b"alice", Password::new(PASSWORD))
        };
        let server = ServerLink {
            methods: vec![case.method],
            mppe: case.mppe,
            ..ServerLink::default()
        };
        Self {
            ends: [
                Link::client(client, [1; 32], Time::ZERO),
                Link::server(server, [2; 32], Time::ZERO),
            ],
            up: [false; 2],
            judged: None,
            frames: Vec::with_capacity(8),
            server: Duration::ZERO,
        }
    }

    fn timed(&mut self, end: usize, work: impl FnOnce(&mut Link)) {
        let start = Instant::now();
        work(&mut self.ends[end]);
        self.drain(end);
        if end == SERVER {
            self.server += start.elapsed();
        }
    }

    fn drain(&mut self, end: usize) {
        while let Some(action) = self.ends[end].poll() {
            match action {
                Action::Send(frame) => self.frames.push((1 - end, frame)),
                Action::Authenticate(credentials) => self.judged = Some(credentials),
                Action::Up(_) => self.up[end] = true,
                Action::Finished(why) => panic!("{why:?}"),
                _ => {}
            }
        }
    }

    /// Both ends up.
    fn set_up(&mut self) {
        self.timed(SERVER, |link| link.open(Time::ZERO));
        self.timed(CLIENT, |link| link.open(Time::ZERO));
        loop {
            if let Some(credentials) = self.judged.take() {
                let verdict = verdict(&credentials);
                self.timed(SERVER, |link| assert!(link.verdict(verdict, Time::ZERO)));
            }
            if self.frames.is_empty() {
                break;
            }
            let (to, frame) = self.frames.remove(0);
            self.timed(to, |link| link.handle_frame(&frame, Time::ZERO));
        }
        assert_eq!(self.up, [true; 2]);
    }
}

fn verdict(credentials: &Credentials) -> Verdict {
    let proof = credentials.verify(&Password::new(PASSWORD).into()).unwrap();
    Verdict::Accept(Grant {
        limits: Default::default(),
        proof,
        address: [10, 20, 0, 10].into(),
        server_address: [10, 20, 0, 1].into(),
        dns: [None; 2],
        nbns: [None; 2],
        ipv6: None,
    })
}

fn set_ups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("set-up");
    group.throughput(Throughput::Elements(1));
    for case in CASES {
        group.bench_function(format!("both ends: {}", case.name), |bencher| {
            bencher.iter_batched(
                || Pair::new(case),
                |mut pair| {
                    pair.set_up();
                    pair
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("the server's end: {}", case.name), |bencher| {
            bencher.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let mut pair = Pair::new(case);
                        pair.set_up();
                        pair.server
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

fn passwords(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("password");
    group.throughput(Throughput::Elements(1));
    for case in CASES {
        let mut pair = Pair::new(case);
        pair.ends[SERVER].open(Time::ZERO);
        pair.ends[CLIENT].open(Time::ZERO);
        pair.drain(SERVER);
        pair.drain(CLIENT);
        while pair.judged.is_none() {
            let (to, frame) = pair.frames.remove(0);
            pair.ends[to].handle_frame(&frame, Time::ZERO);
            pair.drain(to);
        }
        let credentials = pair.judged.take().unwrap();
        group.bench_function(case.name, |bencher| bencher.iter(|| verdict(&credentials)));
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = set_ups, passwords
}
criterion_main!(all);
