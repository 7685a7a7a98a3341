//! The tunnel against the client role of the protocol crate, without a worker: frames go straight across.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::collections::VecDeque;

use ipnet::Ipv6Net;
use turnpike_dataplane::api::{CallCounters, CallRef, Command, Event, FrameBytes};
use turnpike_protocol::mppe::{Allowed, Direction, Policy};
use turnpike_protocol::mschap::{NtHash, Password};
use turnpike_protocol::ppp::{self, ClientLink, CloseReason, Grant, Ipv6Grant, Link, Remedy};
use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig, Message, Text};
use turnpike_protocol::wire;
use turnpike_protocol::wire::ppp::Frame;
use turnpike_protocol::{CallId, Time};

use super::*;

mod ends;
mod inform;
mod ipv6;
mod logins;
mod set_up;

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const VIA: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 254);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 9);
/// What a client may ask for instead.
const CHOSEN: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 77);
const PASSWORD: &str = "correct horse";

/// 2001:db8:1:7::/64 and 2001:db8:d:700::/56.
const GRANT6: Ipv6Grant = Ipv6Grant {
    server_identifier: 1,
    client_identifier: 8,
    prefix: Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 1, 7, 0, 0, 0, 0), 64),
    delegated: Some(Ipv6Net::new_assert(
        Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0x700, 0, 0, 0, 0),
        56,
    )),
    dns: [None; 2],
};

fn settings() -> Settings {
    Settings {
        name: "turnpike".to_owned(),
        mtu: 1400,
        mppe: Policy::Require,
        mppe_allowed: Allowed::default(),
        login: Login::default(),
        setup_time: Duration::from_secs(30),
        echo_interval: Duration::from_secs(30),
        calls: 4,
        inform: None,
        dhcp6: None,
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
    /// What the client asks for.
    address: Ipv4Addr,
    mppe: Policy,
    mppe_allowed: Allowed,
    /// Whether logins are given IPv6, and whether the client wants it.
    ipv6: bool,
    client_ipv6: bool,
    /// What the tunnel did, in its order.
    did: Vec<String>,
    ended: Vec<Ended>,
    /// Calls that the worker has been told to forget.
    closing: VecDeque<CallRef>,
    /// Whether the worker answers.
    worker: bool,
    /// Whether GRE passes.
    gre: bool,
    /// Whether data comes from the client, which only the worker sees; how often it was asked.
    data: bool,
    queries: u64,
    /// What to answer when a place is looked for.
    no_place: Option<Cause>,
    next_id: u16,
    tcp: bool,
    /// The client never sees a CHAP Failure, and so waits for our Terminate-Request.
    lose_failure: bool,
    /// Changes the client's settings.
    adjust: fn(&mut ClientLink),
    /// What the next logins are refused for, right or wrong.
    refusals: VecDeque<Refusal>,
    /// What a wrong password is refused with.
    remedy: Remedy,
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
            address: Ipv4Addr::UNSPECIFIED,
            mppe: Policy::Require,
            mppe_allowed: Allowed::default(),
            ipv6: false,
            client_ipv6: true,
            did: Vec::new(),
            ended: Vec::new(),
            closing: VecDeque::new(),
            worker: true,
            gre: true,
            data: false,
            queries: 0,
            no_place: None,
            next_id: 100,
            tcp: true,
            lose_failure: false,
            adjust: |_| {},
            refusals: VecDeque::new(),
            remedy: Remedy::None,
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
                    config.address = self.address;
                    config.mppe_allowed = self.mppe_allowed;
                    config.ipv6 = (self.ipv6 && self.client_ipv6).then_some(7);
                    (self.adjust)(&mut config);
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
                match *command {
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
                    Command::Query { call } => {
                        self.queries += u64::from(self.data);
                        let counters = CallCounters {
                            gre_received: self.queries,
                            ..CallCounters::default()
                        };
                        let event = Event::Counters { call, counters };
                        self.tunnel.event(event, self.now);
                    }
                    _ => {}
                }
            }
            Action::Authenticate {
                call,
                credentials,
                holds,
            } => {
                self.did.push("authenticate".to_owned());
                let verdict = credentials
                    .verify(&Password::new(PASSWORD).into())
                    .map(|proof| Grant {
                        limits: Default::default(),
                        proof,
                        address: holds.unwrap_or(ADDRESS),
                        server_address: Ipv4Addr::new(10, 20, 0, 1),
                        dns: [None; 2],
                        nbns: [None; 2],
                        ipv6: self.ipv6.then_some(GRANT6),
                    })
                    .map_err(|_| Refusal::new(Cause::AuthenticationFailed).with(self.remedy));
                let verdict = self.refusals.pop_front().map_or(verdict, Err);
                self.tunnel.verdict(call, verdict, self.now);
            }
            Action::Notice(notice) => self.did.push(match notice {
                Notice::Started(_) => "started".to_owned(),
                Notice::Refused { cause, .. } => format!("refused {}", cause.name()),
                Notice::LoginFailed { user, code, .. } => format!("login failed {user} {code:?}"),
                Notice::Up {
                    user, address, mtu, ..
                } => format!("up {user} {address} {mtu}"),
                Notice::Dhcp6 { fault, bound, .. } => match fault {
                    None => format!("dhcpv6, bound {bound}"),
                    Some(fault) => format!("no dhcpv6: {}", fault.name()),
                },
                Notice::Informed { fault, .. } => match fault {
                    None => "informed".to_owned(),
                    Some(fault) => format!("not informed {}", fault.name()),
                },
                Notice::Ipv6Up { prefix, .. } => format!("ipv6 up {prefix}"),
                Notice::Over(cause) => format!("over {}", cause.name()),
            }),
            Action::Choose { call, held, asked } => {
                self.did.push(format!("choose {asked} for {held}"));
                let address = (asked == CHOSEN).then_some(asked);
                self.tunnel.chosen(call, address, self.now);
            }
            Action::Bound { call, source } => self.did.push(format!("bound {} {source}", call.id)),
            Action::Begin(begun) => {
                let user = begun.user;
                self.did.push(format!("begin {user} {}", begun.address));
            }
            Action::Cease(_) => self.did.push("cease".to_owned()),
            Action::Release { address, .. } => self.did.push(format!("release {address}")),
            Action::Release6(grant) => self.did.push(format!("release6 {}", grant.prefix)),
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
        Command::Echo { .. } => "answer echoes".to_owned(),
        Command::Hold { .. } => "hold".to_owned(),
        Command::Forward6 { forward, .. } => {
            format!("forward6 {} {}", forward.identifier, forward.mtu)
        }
        Command::Hold6 { .. } => "hold6".to_owned(),
        Command::Route6 { prefix, .. } => format!("route6 {prefix}"),
        Command::Unroute6 { prefix } => format!("unroute6 {prefix}"),
        Command::SendInner { packet, .. } => match wire::ipv6::Packet::new_checked(&packet[..]) {
            Ok(ip) if ip.next_header() == wire::ipv6::UDP => {
                format!("udp6 to {}", ip.destination())
            }
            Ok(ip) => format!("icmpv6 {} to {}", ip.payload()[0], ip.destination()),
            Err(_) => format!("inner {} octets", packet.len()),
        },
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
        0x8057 => format!("IPV6CP {}", ncp[code]),
        other => format!("{other:04x}"),
    }
}
