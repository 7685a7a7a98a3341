//! The tunnel against the client role of the protocol crate, without a worker: frames go straight across.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::VecDeque;

use turnpike_dataplane::api::{CallCounters, CallRef, Command, Event, FrameBytes};
use turnpike_protocol::mppe::{Direction, Policy};
use turnpike_protocol::mschap::NtHash;
use turnpike_protocol::ppp::{self, ClientLink, CloseReason, Grant, Link};
use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig, Message, Text};
use turnpike_protocol::wire::ppp::Frame;
use turnpike_protocol::{CallId, Time};

use super::*;

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const VIA: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 254);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 9);
const PASSWORD: &str = "correct horse";

fn settings() -> Settings {
    Settings {
        name: "turnpike".to_owned(),
        mtu: 1400,
        mppe: Policy::Require,
        setup_time: Duration::from_secs(30),
        echo_interval: Duration::from_secs(30),
        calls: 4,
    }
}

/// A client, a tunnel, and everything that lies between them.
struct World {
    now: Time,
    tunnel: Tunnel,
    caller: Caller,
    /// The client's PPP, by the id the client chose.
    links: Vec<(CallId, Link)>,
    /// Ids of the tunnel's calls, by the id the client chose.
    ids: Vec<(CallId, CallId)>,
    password: &'static str,
    mppe: Policy,
    /// What the tunnel did, in its order.
    did: Vec<String>,
    ended: Vec<Ended>,
    /// Calls that the worker has been told to forget.
    closing: VecDeque<CallRef>,
    /// Whether the worker answers.
    worker: bool,
    /// Whether GRE passes.
    gre: bool,
    /// What to answer when a place is looked for.
    no_place: Option<Cause>,
    next_id: u16,
    tcp: bool,
    /// The client never sees a CHAP Failure, and so waits for our Terminate-Request.
    lose_failure: bool,
}

impl World {
    fn new(settings: Settings) -> Self {
        let now = Time::ZERO;
        let config = CallerConfig {
            host_name: Text::from("client"),
            ..CallerConfig::default()
        };
        Self {
            now,
            tunnel: Tunnel::new(settings, LOCAL, PEER, now),
            caller: Caller::new(config, now),
            links: Vec::new(),
            ids: Vec::new(),
            password: PASSWORD,
            mppe: Policy::Require,
            did: Vec::new(),
            ended: Vec::new(),
            closing: VecDeque::new(),
            worker: true,
            gre: true,
            no_place: None,
            next_id: 100,
            tcp: true,
            lose_failure: false,
        }
    }

    /// A world with calls that are up; what happened until then is forgotten.
    fn up(calls: u16) -> Self {
        let mut world = Self::new(settings());
        for id in 0..calls {
            world.caller.call(CallId(id), world.now);
        }
        world.settle();
        world.pass(Duration::from_millis(10));
        let up = world
            .did
            .iter()
            .filter(|did| did.starts_with("up "))
            .count();
        assert_eq!(up, usize::from(calls), "{:#?}", world.did);
        world.did.clear();
        world
    }

    fn call(&self, id: u16) -> CallRef {
        CallRef {
            local: LOCAL,
            peer: PEER,
            id: CallId(id),
        }
    }

    /// Carries everything across until both ends are silent.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(action) = self.tunnel.poll() {
                quiet = false;
                self.carry_out(action);
                // TCP is faster than what follows on GRE, as it mostly is.
                self.caller_acts();
            }
            quiet &= !self.caller_acts();
            for index in 0..self.links.len() {
                while let Some(action) = self.links[index].1.poll() {
                    quiet = false;
                    if let ppp::Action::Send(frame) = action
                        && self.gre
                    {
                        let peer_id = self.links[index].0;
                        let id = self
                            .ids
                            .iter()
                            .find(|(peer, _)| *peer == peer_id)
                            .unwrap()
                            .1;
                        let event = Event::Frame {
                            call: self.call(id.0),
                            frame: FrameBytes::new(&frame).unwrap(),
                        };
                        self.tunnel.event(event, self.now);
                    }
                }
            }
            if self.worker
                && let Some(call) = self.closing.pop_front()
            {
                quiet = false;
                let counters = CallCounters {
                    received_packets: u64::from(call.id.0),
                    ..CallCounters::default()
                };
                self.tunnel
                    .event(Event::Closed { call, counters }, self.now);
            }
            if quiet {
                return;
            }
        }
    }

    /// Carries across what the client's control connection wants; false when it wants nothing.
    fn caller_acts(&mut self) -> bool {
        let mut acted = false;
        while let Some(action) = self.caller.poll() {
            acted = true;
            match action {
                CallerAction::Send(octets) if self.tcp => self.tunnel.receive(&octets, self.now),
                CallerAction::Connected { id, .. } => {
                    let mut config =
                        ClientLink::new(b"alice", NtHash::from_password(self.password));
                    config.mppe = self.mppe;
                    let mut link = Link::client(config, [id.0 as u8 + 1; 32], self.now);
                    link.open(self.now);
                    self.links.push((id, link));
                }
                CallerAction::Finished(_) if self.tcp => {
                    self.tcp = false;
                    self.tunnel.hung_up(self.now);
                }
                _ => {}
            }
        }
        acted
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Tcp(octets) => {
                let name = Message::parse(&octets).unwrap().name();
                self.did.push(format!("tcp {name}"));
                if self.tcp {
                    self.caller.receive(&octets, self.now).unwrap();
                }
            }
            Action::Place { peer_id } => {
                self.did.push("place".to_owned());
                let placement = match self.no_place {
                    Some(cause) => Err(cause),
                    None => {
                        let id = CallId(self.next_id);
                        self.next_id += 1;
                        self.ids.push((peer_id, id));
                        Ok(Placement {
                            call: self.call(id.0),
                            via: VIA,
                            seed: [7; 32],
                        })
                    }
                };
                self.tunnel.placed(peer_id, placement, self.now);
            }
            Action::Data(command) => {
                self.did.push(describe(&command));
                match command {
                    Command::Send { frame, .. }
                        if self.lose_failure && describe_frame(&frame) == "CHAP Failure" => {}
                    Command::Send { call, frame } if self.gre => {
                        let peer_id = self.ids.iter().find(|(_, id)| *id == call.id).unwrap().0;
                        if let Some((_, link)) =
                            self.links.iter_mut().find(|(id, _)| *id == peer_id)
                        {
                            link.handle_frame(&frame, self.now);
                        }
                    }
                    Command::Close { call } => self.closing.push_back(call),
                    _ => {}
                }
            }
            Action::Authenticate { call, credentials } => {
                self.did.push("authenticate".to_owned());
                let verdict = credentials
                    .verify(&NtHash::from_password(PASSWORD))
                    .map(|success| Grant {
                        authenticator_response: success.authenticator_response,
                        keys: Some(success.keys),
                        address: ADDRESS,
                        server_address: Ipv4Addr::new(10, 20, 0, 1),
                        dns: [None; 2],
                        nbns: [None; 2],
                    })
                    .ok_or(Refusal::new(Cause::AuthenticationFailed));
                self.tunnel.verdict(call, verdict, self.now);
            }
            Action::Notice(notice) => self.did.push(match notice {
                Notice::Started(_) => "started".to_owned(),
                Notice::Refused { cause, .. } => format!("refused {}", cause.name()),
                Notice::LoginFailed { user, code, .. } => format!("login failed {user} {code:?}"),
                Notice::Up {
                    user, address, mtu, ..
                } => format!("up {user} {address} {mtu}"),
                Notice::Over(cause) => format!("over {}", cause.name()),
            }),
            Action::Ended(ended) => {
                self.did
                    .push(format!("ended {} {}", ended.call.id, ended.cause.name()));
                self.ended.push(ended);
            }
            Action::Close => {
                self.did.push("close tcp".to_owned());
                self.tcp = false;
            }
        }
    }

    /// Lets time pass, from one deadline to the next.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            let links = self.links.iter().filter_map(|(_, link)| link.deadline());
            let next = links
                .chain(self.caller.deadline())
                .chain(self.tunnel.deadline())
                .min()
                .filter(|at| *at <= until);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            self.tunnel.handle_timeout(self.now);
            self.caller.handle_timeout(self.now);
            for (_, link) in &mut self.links {
                link.handle_timeout(self.now);
            }
        }
        self.now = until;
    }

    /// The only end there was.
    fn end(&self) -> &Ended {
        assert_eq!(self.ended.len(), 1, "{:#?}", self.did);
        &self.ended[0]
    }

    fn position(&self, what: &str) -> usize {
        self.did
            .iter()
            .position(|did| did == what)
            .unwrap_or_else(|| panic!("{what} is not in {:#?}", self.did))
    }
}

fn describe(command: &Command) -> String {
    match command {
        Command::Open { peer_id, via, .. } => format!("open peer {peer_id} via {via}"),
        Command::Via { via, .. } => format!("via {via}"),
        Command::Send { frame, .. } => describe_frame(frame),
        Command::Secure { direction, .. } => match direction {
            Direction::Receive => "secure receive".to_owned(),
            Direction::Transmit => "secure transmit".to_owned(),
        },
        Command::Forward { forward, .. } => {
            format!("forward {} {}", forward.address, forward.mtu)
        }
        Command::Hold { .. } => "hold".to_owned(),
        Command::Route { prefix, .. } => format!("route {prefix}"),
        Command::Unroute { prefix } => format!("unroute {prefix}"),
        Command::Close { .. } => "close".to_owned(),
        _ => "something else".to_owned(),
    }
}

fn describe_frame(frame: &[u8]) -> String {
    let parsed = Frame::parse(frame).unwrap();
    let code = usize::from(frame[parsed.header_len]);
    let ncp = [
        "?",
        "Configure-Request",
        "Configure-Ack",
        "Configure-Nak",
        "Configure-Reject",
        "Terminate-Request",
        "Terminate-Ack",
        "Code-Reject",
        "Protocol-Reject",
        "Echo-Request",
        "Echo-Reply",
    ];
    let chap = ["?", "Challenge", "Response", "Success", "Failure"];
    match parsed.protocol.0 {
        0xc021 => format!("LCP {}", ncp[code]),
        0xc223 => format!("CHAP {}", chap[code]),
        0x80fd => format!("CCP {}", ncp[code]),
        0x8021 => format!("IPCP {}", ncp[code]),
        other => format!("{other:04x}"),
    }
}

#[test]
fn everything_stands_before_the_client_is_told() {
    let mut world = World::new(settings());
    world.caller.call(CallId(0), world.now);
    world.settle();
    let before = |one: &str, other: &str| {
        assert!(
            world.position(one) < world.position(other),
            "{one} comes after {other} in {:#?}",
            world.did
        );
    };
    before("open peer 0 via 10.7.0.254", "tcp Outgoing-Call-Reply");
    before("tcp Outgoing-Call-Reply", "LCP Configure-Request");
    before("authenticate", "CHAP Success");
    before("secure receive", "CCP Configure-Request");
    before("secure transmit", "CCP Configure-Ack");
    before("route 10.20.0.9/32", "forward 10.20.0.9 1400");
    before("forward 10.20.0.9 1400", "IPCP Configure-Ack");
    assert!(world.ended.is_empty());
}

#[test]
fn a_login_is_this_and_nothing_else() {
    let mut world = World::new(settings());
    world.caller.call(CallId(0), world.now);
    world.settle();
    let expected: Vec<_> = include_str!("login.txt").lines().collect();
    assert_eq!(world.did, expected);
}

/// Ends a call that is up in some way; whatever the way, the books are closed once and in order.
fn tear_down(how: impl FnOnce(&mut World)) -> World {
    let mut world = World::up(1);
    world.worker = false;
    how(&mut world);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.ended, [], "ended before the worker forgot the call");
    assert!(!world.tunnel.is_finished());
    let unroute = world.position("unroute 10.20.0.9/32");
    assert!(unroute < world.position("close"), "{:#?}", world.did);
    world.worker = true;
    world.settle();
    let ended = world.end();
    assert_eq!(ended.user.as_deref(), Some("alice"));
    assert_eq!(ended.address, Some(ADDRESS));
    assert_eq!(
        ended.counters.received_packets, 100,
        "the worker's last count"
    );
    assert!(ended.up.is_some());
    // Whatever comes late changes nothing.
    let (call, counters) = (ended.call, ended.counters);
    let now = world.now;
    world.tunnel.event(Event::Closed { call, counters }, now);
    world.tunnel.kill(call, Cause::Killed, now);
    world.tunnel.hung_up(now);
    world.tunnel.shut_down(Cause::ServerStopping, now);
    world.settle();
    assert_eq!(world.ended.len(), 1);
    assert_eq!(world.did.iter().filter(|did| *did == "close").count(), 1);
    assert!(world.tunnel.is_finished());
    assert_eq!(world.tunnel.deadline(), None);
    world
}

#[test]
fn the_client_clears_the_call() {
    let world = tear_down(|world| {
        world.caller.clear(CallId(0), world.now);
    });
    assert_eq!(world.end().cause, Cause::HungUp);
    world.position("tcp Call-Disconnect-Notify");
}

#[test]
fn the_client_ends_ppp() {
    let world = tear_down(|world| world.links[0].1.close(CloseReason::UserRequest, world.now));
    assert_eq!(world.end().cause, Cause::HungUp);
    assert!(world.position("LCP Terminate-Ack") < world.position("tcp Call-Disconnect-Notify"));
}

#[test]
fn the_client_ends_ppp_and_drops_tcp_at_once() {
    let world = tear_down(|world| {
        world.links[0].1.close(CloseReason::UserRequest, world.now);
        world.settle();
        world.tcp = false;
        world.tunnel.hung_up(world.now);
    });
    assert_eq!(world.end().cause, Cause::HungUp);
}

#[test]
fn the_client_stops_the_connection() {
    let world = tear_down(|world| {
        world
            .caller
            .stop(turnpike_protocol::pptp::StopReason::NONE, world.now);
    });
    assert_eq!(world.end().cause, Cause::HungUp);
    world.position("tcp Stop-Control-Connection-Reply");
    world.position("close tcp");
}

#[test]
fn the_connection_breaks() {
    let world = tear_down(|world| {
        world.tcp = false;
        world.tunnel.hung_up(world.now);
    });
    assert_eq!(world.end().cause, Cause::ConnectionLost);
    assert!(!world.did.iter().any(|did| did.starts_with("tcp ")));
}

#[test]
fn the_client_breaks_the_protocol() {
    let world = tear_down(|world| world.tunnel.receive(b"GET / HTTP/1.0\r\n\r\n", world.now));
    assert_eq!(world.end().cause, Cause::ControlMisbehaved);
    world.position("close tcp");
}

#[test]
fn the_operator_kills_the_call() {
    let world = tear_down(|world| {
        let call = world.call(100);
        world.tunnel.kill(call, Cause::Killed, world.now);
    });
    assert_eq!(world.end().cause, Cause::Killed);
    assert!(world.position("LCP Terminate-Request") < world.position("tcp Call-Disconnect-Notify"));
}

#[test]
fn the_operator_kills_a_call_whose_client_is_gone() {
    let world = tear_down(|world| {
        world.gre = false;
        let call = world.call(100);
        world.tunnel.kill(call, Cause::Killed, world.now);
    });
    assert_eq!(world.end().cause, Cause::Killed);
}

#[test]
fn the_server_stops() {
    let world = tear_down(|world| {
        world.tunnel.shut_down(Cause::ServerStopping, world.now);
    });
    assert_eq!(world.end().cause, Cause::ServerStopping);
    let steps = [
        "LCP Terminate-Request",
        "unroute 10.20.0.9/32",
        "close",
        "tcp Call-Disconnect-Notify",
        "tcp Stop-Control-Connection-Request",
        "close tcp",
    ];
    let positions = steps.map(|step| world.position(step));
    assert!(positions.is_sorted(), "{:#?}", world.did);
}

#[test]
fn the_client_falls_silent() {
    let mut world = World::up(1);
    world.gre = false;
    world.pass(Duration::from_secs(300));
    assert_eq!(world.end().cause, Cause::Silent);
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_comes_in_after_it() {
    let mut world = World::new(settings());
    world.password = "wrong horse";
    world.lose_failure = true;
    world.caller.call(CallId(0), world.now);
    world.settle();
    world.position("login failed alice Some(691)");
    world.position("CHAP Failure");
    // RFC 2759 says nothing of it, but a client that is cut off at once shows "hung up" in place of "wrong password".
    world.pass(Duration::from_millis(500));
    assert!(!world.did.iter().any(|did| did == "LCP Terminate-Request"));
    world.pass(Duration::from_millis(700));
    world.position("LCP Terminate-Request");
    world.pass(Duration::from_secs(8));
    assert_eq!(world.end().cause, Cause::AuthenticationFailed);
    assert_eq!(world.end().user, None);
    assert_eq!(world.end().address, None);
    world.position("tcp Call-Disconnect-Notify");

    world.password = PASSWORD;
    world.links.clear();
    world.caller.call(CallId(1), world.now);
    world.settle();
    world.position("up alice 10.20.0.9 1400");
}

#[test]
fn a_call_without_any_gre_says_so() {
    let mut world = World::new(settings());
    world.gre = false;
    world.caller.call(CallId(0), world.now);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.end().cause, Cause::NoGre);
    assert!(world.end().cause.text().contains("GRE"));
    world.position("tcp Call-Disconnect-Notify");
}

#[test]
fn a_client_that_refuses_encryption_does_not_come_in() {
    let mut world = World::new(settings());
    world.mppe = Policy::Deny;
    world.caller.call(CallId(0), world.now);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.end().cause, Cause::EncryptionRefused);
    assert!(!world.did.iter().any(|did| did.starts_with("forward")));
}

#[test]
fn without_encryption_no_keys_are_loaded() {
    let mut world = World::new(Settings {
        mppe: Policy::Deny,
        ..settings()
    });
    world.mppe = Policy::Deny;
    world.caller.call(CallId(0), world.now);
    world.settle();
    world.position("up alice 10.20.0.9 1400");
    assert!(!world.did.iter().any(|did| did.starts_with("secure")));
}

#[test]
fn a_refused_call_holds_nothing() {
    let mut world = World::new(settings());
    world.no_place = Some(Cause::TooManyCalls);
    world.caller.call(CallId(0), world.now);
    world.settle();
    assert_eq!(
        world.did,
        [
            "tcp Start-Control-Connection-Reply",
            "started",
            "place",
            "refused too_many_calls",
            "tcp Outgoing-Call-Reply",
        ]
    );
    assert_eq!(world.tunnel.snapshots().count(), 0);
    // There may be room a moment later.
    world.no_place = None;
    world.caller.call(CallId(1), world.now);
    world.settle();
    world.position("up alice 10.20.0.9 1400");
}

#[test]
fn calls_of_one_connection_live_apart() {
    let mut world = World::up(3);
    let second = world.call(101);
    world.tunnel.kill(second, Cause::Killed, world.now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.end().call, second);
    assert_eq!(world.tunnel.snapshots().count(), 2);
    assert!(world.tunnel.snapshots().all(|call| call.stage == Stage::Up));
    world.tcp = false;
    world.tunnel.hung_up(world.now);
    world.settle();
    let mut causes: Vec<_> = world.ended.iter().map(|ended| ended.cause).collect();
    assert_eq!(
        causes.split_off(1),
        [Cause::ConnectionLost, Cause::ConnectionLost]
    );
    assert!(world.tunnel.is_finished());
}

#[test]
fn a_place_that_comes_too_late_goes_back() {
    let mut world = World::new(settings());
    world.caller.call(CallId(5), world.now);
    // Up to the request for a place, which is not answered yet.
    let mut asked = false;
    while !asked {
        while let Some(action) = world.caller.poll() {
            if let CallerAction::Send(octets) = action {
                world.tunnel.receive(&octets, world.now);
            }
        }
        while let Some(action) = world.tunnel.poll() {
            match action {
                Action::Place { peer_id } => asked = peer_id == CallId(5),
                other => world.carry_out(other),
            }
        }
    }
    world.tunnel.hung_up(world.now);
    let placement = Placement {
        call: world.call(7),
        via: VIA,
        seed: [0; 32],
    };
    world.tunnel.placed(CallId(5), Ok(placement), world.now);
    world.tcp = false;
    world.settle();
    assert_eq!(world.end().call.id, CallId(7));
    assert!(!world.did.iter().any(|did| did.starts_with("open")));
    assert!(world.tunnel.is_finished());
}

#[test]
fn a_new_way_to_the_client_is_taken_once() {
    let mut world = World::up(2);
    world.tunnel.reroute(VIA);
    world.settle();
    assert!(world.did.is_empty());
    world.tunnel.reroute(PEER);
    world.tunnel.reroute(PEER);
    world.settle();
    assert_eq!(world.did, ["via 10.7.0.2", "via 10.7.0.2"]);
}

#[test]
fn probes_hold_nothing_longer_than_the_set_up_time() {
    for octets in [&b""[..], &[0, 156, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1]] {
        let mut tunnel = Tunnel::new(settings(), LOCAL, PEER, Time::ZERO);
        tunnel.receive(octets, Time::ZERO);
        assert!(tunnel.poll().is_none());
        let deadline = tunnel.deadline().unwrap();
        assert!(deadline <= Time::ZERO + settings().setup_time);
        tunnel.handle_timeout(deadline);
        assert!(matches!(
            tunnel.poll(),
            Some(Action::Notice(Notice::Over(_)))
        ));
        assert!(matches!(tunnel.poll(), Some(Action::Close)));
        assert!(tunnel.is_finished());
    }
    let mut tunnel = Tunnel::new(settings(), LOCAL, PEER, Time::ZERO);
    tunnel.receive(&[0xff; 64], Time::ZERO);
    assert!(matches!(
        tunnel.poll(),
        Some(Action::Notice(Notice::Over(Cause::ControlMisbehaved)))
    ));
    assert!(matches!(tunnel.poll(), Some(Action::Close)));
    assert!(tunnel.is_finished());
}

#[test]
fn a_client_without_room_is_told_so() {
    let mut world = World::new(settings());
    world.tunnel = Tunnel::refusing(settings(), LOCAL, PEER, world.now);
    world.caller.call(CallId(0), world.now);
    world.settle();
    assert_eq!(
        world.did,
        [
            "tcp Start-Control-Connection-Reply",
            "over too_many_connections",
            "close tcp"
        ]
    );
    assert!(world.tunnel.is_finished());
}

#[test]
fn names_are_fit_for_logs() {
    assert_eq!(call::readable(b"HQ\\alice"), "HQ\\alice");
    assert_eq!(call::readable(b"a\x1b[2Jb\n"), "a.[2Jb.");
    assert_eq!(call::readable(b"\xe9"), "\u{fffd}");
    assert_eq!(call::readable(&[b'x'; 300]).len(), 64);
}

#[test]
fn a_client_that_listens_a_moment_late_misses_nothing() {
    let mut world = World::new(settings());
    // GRE of the first 50 ms is lost both ways.
    world.gre = false;
    world.caller.call(CallId(0), world.now);
    world.pass(Duration::from_millis(50));
    world.gre = true;
    world.pass(Duration::from_millis(60));
    let requests = |world: &World| {
        let did = world.did.iter();
        did.filter(|did| *did == "LCP Configure-Request").count()
    };
    assert_eq!(requests(&world), 1, "{:#?}", world.did);
    world.pass(Duration::from_secs(5));
    world.position("up alice 10.20.0.9 1400");
    assert_eq!(requests(&world), 1, "ours was not lost");
}
