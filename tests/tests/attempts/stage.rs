//! One call: control connection, PPP and worker of the server as they are, and a client that can be made to misbehave.

use core::time::Duration;
use std::collections::BTreeMap;

use turnpike_controlplane::aaa::Login;
use turnpike_controlplane::cause::Cause;
use turnpike_controlplane::tunnel::{Action, Placement, Refusal, Settings, Tunnel};
use turnpike_dataplane::api::{CallRef, Command, Owners, Port, PortInfo, SourceCheck, WorkerId};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{ControlEnd, RingSizes, channel};
use turnpike_dataplane::worker::{Reordering, Worker, WorkerConfig};
use turnpike_protocol::gre::{AckSettings, Seq};
use turnpike_protocol::mppe::{
    Allowed, Decryptor, Direction, Encryptor, Mode, Policy, StartKey, Stateful, Strength, Strengths,
};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::packet::code;
use turnpike_protocol::ppp::{self, AuthProtocol, ClientLink, Grant, Ipv6Grant, Link, Secret};
use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig};
use turnpike_protocol::wire::ethernet;
use turnpike_protocol::wire::ppp::{Frame, Protocol};
use turnpike_protocol::wire::{gre, ipv4};
use turnpike_protocol::{CallId, Role, Time};

use crate::packets::{
    CLIENT, CLIENT_ID, GATEWAY, GATEWAY6, INNER, OURS, SERVER, SERVER_ID, THEIRS, ethernet_frame,
    ip, is_servers, prefix,
};

const OWN_ID: CallId = CallId(7);
/// At most 14 characters: of more, MS-CHAPv1 makes no weak keys.
const PASSWORD: &str = "correct horse";

/// How the client logs in, and what encryption the call has.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub method: AuthProtocol,
    /// The server's policy.
    pub policy: Policy,
    /// The client's.
    pub client: Policy,
    pub strength: Strength,
    pub mode: Mode,
}

/// What whoever judges logins does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judge {
    Grants,
    /// As RADIUS may leave it.
    GrantsWithoutKeys,
    /// Knows no more than the password's NT hash.
    KnowsHash,
    Refuses,
    IsSilent,
}

/// What a call begins with.
#[derive(Clone, Copy)]
pub struct Cast {
    /// What the attempt is called, for who reads that it succeeded.
    pub name: &'static str,
    pub terms: Terms,
    /// What the client's own link never sends: how far it lets the call come.
    pub mute: fn(&[u8]) -> bool,
    pub judge: Judge,
    /// Whether the user gets IPv6.
    pub ipv6: bool,
}

impl Terms {
    fn allowed(self) -> Allowed {
        Allowed {
            strengths: Strengths::NONE.with(self.strength),
            stateful: match self.mode {
                Mode::Stateless => Stateful::Refuse,
                Mode::Stateful => Stateful::Ask,
            },
        }
    }

    /// The bits of RFC 3078 §2.1 that ask for it.
    pub fn bits(self) -> [u8; 4] {
        ppp::MppeBits::of(ppp::MppeTerms {
            strength: self.strength,
            mode: self.mode,
        })
        .0
        .to_be_bytes()
    }
}

/// The client's keys of one direction.
#[derive(Default)]
struct Loaded(Option<(u8, StartKey, Mode)>);

pub struct Stage {
    now: Time,
    /// Which attempt this is.
    pub case: String,
    pub terms: Terms,
    judge: Judge,
    ipv6: bool,
    tunnel: Tunnel,
    worker: Worker<MemDevice>,
    control: ControlEnd,
    caller: Caller,
    link: Option<Link>,
    call: Option<CallRef>,
    seq: Seq,
    /// Frames of the client's link that never leave.
    pub mute: fn(&[u8]) -> bool,
    loaded: [Loaded; 2],
    /// The client's, as long as it lives: a client that misbehaves does not stop at a Configure-Request.
    encryptor: Option<Encryptor>,
    decryptor: Option<Decryptor>,
    /// How the call ended.
    pub ended: Option<Cause>,
    /// The server's last CCP Configure-Request: identifier and options.
    pub request: Option<(u8, Vec<u8>)>,
    dropped: BTreeMap<&'static str, u64>,
}

/// What came out of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Out {
    /// Inner packets to Linux, other than the server's own.
    pub up: usize,
    /// Frames with inner packets in clear to the client; where it requires encryption also the server's own.
    pub clear: usize,
    /// Inner packets that the client decrypted, other than the server's own.
    pub down: usize,
    /// MPPE frames to the client that it has no keys for.
    pub unreadable: usize,
}

impl Stage {
    /// A client that has dialled; the call is up unless something keeps it from that.
    pub fn new(cast: Cast) -> Self {
        let Cast {
            name,
            terms,
            mute,
            judge,
            ipv6,
        } = cast;
        let now = Time::ZERO + Duration::from_secs(1);
        let sizes = RingSizes {
            commands: 64,
            events: 64,
            datagrams: 1,
            captured: 1,
            handoff: 1,
        };
        let port = Some(PortInfo {
            mac: OURS,
            mtu: 1500,
        });
        let (control, end) = channel(&sizes).unwrap();
        let config = WorkerConfig {
            id: WorkerId(0),
            role: Role::Server,
            owners: Owners::round_robin(1),
            calls: 8,
            routes: 8,
            routes6: 8,
            ports: [port, None, port],
            host_peer_mac: THEIRS,
            server_address: Some(GATEWAY),
            server_address6: Some(GATEWAY6),
            source_check: SourceCheck::Strict,
            acks: AckSettings::default(),
            reordering: Reordering::default(),
        };
        let device = MemDevice::new(256).without(Port::Uplink);
        let settings = Settings {
            name: "stage".to_owned(),
            mtu: 1400,
            mppe: terms.policy,
            mppe_allowed: terms.allowed(),
            login: Login {
                methods: vec![terms.method],
                rechallenge: None,
            },
            setup_time: Duration::from_secs(30),
            echo_interval: Duration::from_secs(30),
            calls: 1,
            inform: None,
            dhcp6: None,
        };
        let mut stage = Self {
            now,
            case: format!("{name} ({terms:?}, {judge:?})"),
            terms,
            judge,
            ipv6,
            tunnel: Tunnel::new(settings, SERVER, CLIENT, now),
            worker: Worker::new(config, device, end),
            control,
            caller: Caller::new(CallerConfig::default(), now),
            link: None,
            call: None,
            seq: Seq(0),
            mute,
            loaded: Default::default(),
            encryptor: None,
            decryptor: None,
            ended: None,
            request: None,
            dropped: BTreeMap::new(),
        };
        stage.tell(Command::Neighbour {
            port: Port::Access,
            address: CLIENT,
            mac: Some(THEIRS),
        });
        stage.tell(Command::Pool {
            prefix: "10.20.0.0/24".parse().unwrap(),
        });
        stage.tell(Command::Pool6 {
            prefix: "2001:db8:1::/48".parse().unwrap(),
        });
        stage.caller.call(OWN_ID, now);
        // Nothing gets through by coming up.
        stage.quiet();
        stage
    }

    fn tell(&mut self, command: Command) {
        assert!(self.control.commands.push(command).is_ok());
    }

    /// Lets time go by.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = [
                self.tunnel.deadline(),
                self.caller.deadline(),
                self.link.as_ref().and_then(Link::deadline),
            ];
            let Some(next) = next.into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.tunnel.handle_timeout(self.now);
            self.caller.handle_timeout(self.now);
            if let Some(link) = &mut self.link {
                link.handle_timeout(self.now);
            }
            self.quiet();
        }
        self.now = end;
        self.quiet();
    }

    /// Lets everybody work; no inner packet comes of it.
    pub fn quiet(&mut self) {
        assert_eq!(self.settle(), Out::default(), "{}", self.case);
    }

    /// Lets everybody work until nobody has anything to do; what comes out.
    pub fn settle(&mut self) -> Out {
        let mut out = Out::default();
        loop {
            let mut any = false;
            while let Some(action) = self.tunnel.poll() {
                any = true;
                self.server_acts(action);
            }
            while let Some(action) = self.caller.poll() {
                any = true;
                self.caller_acts(action);
            }
            while let Some(action) = self.link.as_mut().and_then(Link::poll) {
                any = true;
                self.link_acts(action);
            }
            while self.worker.turn(self.now).busy {
                any = true;
            }
            let to_linux = self.worker.device_mut().take(Port::Host);
            out.up += to_linux
                .iter()
                .filter(|frame| !is_servers(&frame[ethernet::HEADER_LEN..]))
                .count();
            for frame in self.worker.device_mut().take(Port::Access) {
                any |= self.client_hears(&frame, &mut out);
            }
            while let Ok(event) = self.control.events.pop() {
                any = true;
                self.tunnel.event(event, self.now);
            }
            if !any {
                return out;
            }
        }
    }

    fn server_acts(&mut self, action: Action) {
        match action {
            Action::Tcp(octets) => {
                // The client's end may be gone.
                let _ = self.caller.receive(&octets, self.now);
            }
            Action::Place { peer_id } => {
                let call = CallRef {
                    local: SERVER,
                    peer: CLIENT,
                    id: CallId(300),
                };
                self.call = Some(call);
                let placement = Placement {
                    call,
                    via: CLIENT,
                    seed: [5; 32],
                };
                self.tunnel.placed(peer_id, Ok(placement), self.now);
            }
            Action::Data(command) => self.tell(*command),
            Action::Authenticate {
                call, credentials, ..
            } => {
                let password = match self.judge {
                    Judge::IsSilent => return,
                    Judge::Refuses => "incorrect horse",
                    _ => PASSWORD,
                };
                let known = match self.judge {
                    Judge::KnowsHash => Secret::from(Password::new(password).nt_hash()),
                    _ => Password::new(password).into(),
                };
                let verdict = credentials
                    .verify(&known)
                    .map(|proof| Grant {
                        limits: Default::default(),
                        proof: match self.judge {
                            Judge::GrantsWithoutKeys => proof.without_keys(),
                            _ => proof,
                        },
                        address: INNER,
                        server_address: GATEWAY,
                        dns: [None; 2],
                        nbns: [None; 2],
                        ipv6: self.ipv6.then(|| Ipv6Grant {
                            server_identifier: SERVER_ID,
                            client_identifier: CLIENT_ID,
                            prefix: prefix(),
                            delegated: None,
                            dns: [None; 2],
                        }),
                    })
                    .map_err(|_| Refusal::new(Cause::AuthenticationFailed));
                self.tunnel.verdict(call, verdict, self.now);
            }
            Action::Ended(ended) => self.ended = Some(ended.cause),
            _ => {}
        }
    }

    fn caller_acts(&mut self, action: CallerAction) {
        match action {
            CallerAction::Send(octets) => self.tunnel.receive(&octets, self.now),
            CallerAction::Connected { .. } => {
                let config = ClientLink {
                    methods: vec![self.terms.method],
                    mppe: self.terms.client,
                    mppe_allowed: self.terms.allowed(),
                    ipv6: Some(CLIENT_ID),
                    ..ClientLink::new(b"alice", Password::new(PASSWORD))
                };
                let mut link = Link::client(config, [9; 32], self.now);
                link.open(self.now);
                self.link = Some(link);
            }
            _ => {}
        }
    }

    fn link_acts(&mut self, action: ppp::Action) {
        match action {
            ppp::Action::Load {
                direction,
                identifier,
                key,
                mode,
            } => self.loaded[direction as usize] = Loaded(Some((identifier, key, mode))),
            ppp::Action::Send(frame) if !(self.mute)(&frame) => {
                self.send_frame(&frame);
                if let [0xff, 3, 0x80, 0xfd, code::CONFIGURE_ACK, identifier, ..] = *frame
                    && let Some((of, key, mode)) = &self.loaded[Direction::Transmit as usize].0
                    && *of == identifier
                {
                    self.encryptor = Some(Encryptor::new(key, *mode));
                }
            }
            _ => {}
        }
    }

    /// A frame of GRE to the client; whether it changed anything there.
    fn client_hears(&mut self, frame: &[u8], out: &mut Out) -> bool {
        let packet = ipv4::Packet::new_checked(&frame[ethernet::HEADER_LEN..]).unwrap();
        let gre = gre::Packet::parse(packet.payload()).unwrap();
        let payload = packet.payload()[gre.payload_range()].to_vec();
        if payload.is_empty() {
            return false;
        }
        let header = Frame::parse(&payload).unwrap();
        match header.protocol {
            Protocol::COMPRESSED => match self.decrypt(&payload[header.header_len..]) {
                Some(packet) => out.down += usize::from(!is_servers(&packet)),
                None => out.unreadable += 1,
            },
            protocol if protocol.is_data() => {
                let packet = &payload[header.header_len..];
                let good = self.terms.client != Policy::Require && is_servers(packet);
                out.clear += usize::from(!good);
            }
            protocol => {
                let control = &payload[header.header_len..];
                if protocol == Protocol::CCP {
                    self.note_ccp(control);
                }
                if let Some(link) = &mut self.link {
                    link.handle_frame(&payload, self.now);
                }
            }
        }
        true
    }

    /// The inner packet of an MPPE frame (from its header on), when the client can read it.
    fn decrypt(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let decryptor = self.decryptor.as_mut()?;
        let (header, data) = frame.split_first_chunk()?;
        let mut data = data.to_vec();
        decryptor.open(*header, 0).ok()?.apply(&mut data);
        let plausible = turnpike_protocol::mppe::plausible(&data);
        decryptor.judge(plausible);
        let inner = Frame::parse_protocol(&data).ok().filter(|_| plausible)?;
        Some(data[inner.header_len..].to_vec())
    }

    fn note_ccp(&mut self, packet: &[u8]) {
        match *packet {
            [code::CONFIGURE_REQUEST, identifier, _, _, ref options @ ..] => {
                self.request = Some((identifier, options.to_vec()));
            }
            [code::RESET_REQUEST, identifier, ..] => {
                if let Some(encryptor) = &mut self.encryptor {
                    encryptor.reset(identifier);
                }
            }
            [code::CONFIGURE_ACK, identifier, ..] => {
                if let Some((of, key, mode)) = &self.loaded[Direction::Receive as usize].0
                    && *of == identifier
                {
                    self.decryptor = Some(Decryptor::new(key, *mode));
                }
            }
            _ => {}
        }
    }

    /// The client sends a PPP frame.
    pub fn send_frame(&mut self, frame: &[u8]) {
        let header = gre::Header {
            call_id: self.call.unwrap().id,
            seq: Some(self.seq),
            ack: None,
            payload_len: frame.len() as u16,
        };
        self.seq = self.seq.next();
        let mut octets = vec![0; header.len()];
        header.emit(&mut octets).unwrap();
        octets.extend(frame);
        let packet = ip(CLIENT, SERVER, ipv4::GRE, &octets);
        let device = self.worker.device_mut();
        assert!(device.inject(Port::Access, &ethernet_frame(&packet)));
    }

    /// The client encrypts by keys that its link has loaded for a Configure-Ack that never left.
    pub fn take_keys(&mut self) {
        let (_, key, mode) = self.loaded[Direction::Transmit as usize]
            .0
            .as_ref()
            .unwrap();
        self.encryptor = Some(Encryptor::new(key, *mode));
    }

    /// Encrypts with the keys that the client has, or with some that are nobody's.
    pub fn send_encrypted(&mut self, plain: &[u8]) {
        let terms = self.terms;
        let encryptor = self.encryptor.get_or_insert_with(|| {
            Encryptor::new(&StartKey::new([0x5a; 16], terms.strength), terms.mode)
        });
        let sealing = encryptor.seal();
        let header = sealing.header;
        let mut data = plain.to_vec();
        sealing.cipher.apply(&mut data);
        self.send_frame(&[&[0x00, 0xfd][..], &header, &data].concat());
    }

    /// Linux forwards a packet into the server.
    pub fn send_down(&mut self, packet: &[u8]) {
        let device = self.worker.device_mut();
        assert!(device.inject(Port::Host, &ethernet_frame(packet)));
    }

    /// Holds the names of the drops since the last time against what they must be.
    pub fn expect_drops(&mut self, names: &[&str]) {
        let drops = self.drops();
        assert!(
            drops.keys().eq(names),
            "{}: {drops:?} where {names:?} were expected",
            self.case
        );
    }

    /// The client sends a frame that is dropped under this name.
    pub fn refused(&mut self, frame: &[u8], name: &str) {
        self.send_frame(frame);
        self.quiet();
        self.expect_drops(&[name]);
    }

    /// The same encrypted, from its inner protocol number on.
    pub fn refused_encrypted(&mut self, plain: &[u8], name: &str) {
        self.send_encrypted(plain);
        self.quiet();
        self.expect_drops(&[name]);
    }

    /// The client sends a frame of PPP that nobody minds.
    pub fn taken(&mut self, frame: &[u8]) {
        self.send_frame(frame);
        self.quiet();
        self.expect_drops(&[]);
    }

    /// Drops under a name since the last time.
    pub fn drops(&mut self) -> BTreeMap<&'static str, u64> {
        let all: BTreeMap<_, _> = self
            .worker
            .counters()
            .reasons()
            .map(|(reason, count)| (reason.name(), count))
            .filter(|(_, count)| *count > 0)
            .collect();
        let new = all
            .iter()
            .map(|(name, count)| (*name, count - self.dropped.get(name).unwrap_or(&0)))
            .filter(|(_, count)| *count > 0)
            .collect();
        self.dropped = all;
        new
    }
}
