//! One end of a captured call, brought back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use turnpike_protocol::mschap::{self, NtHash, Password, v1};
use turnpike_protocol::ppp::packet::{OptionList, Packet, code, frame};
use turnpike_protocol::ppp::{AuthProtocol, Credentials, Proof, chap_md5};
use turnpike_protocol::wire::ppp::{Frame, Protocol};
use turnpike_tests::captures::{Call, Login, Side};

pub const MPPE: u8 = 18;
pub const IP_ADDRESS: u8 = 3;
pub const LCP_AUTHENTICATION: u8 = 3;
/// Naks of one option before the ghost gives in.
const MAX_NAKS: u8 = 3;

/// Options by type, in order.
type Request = Vec<(u8, Vec<u8>)>;

/// One end of a captured call, brought back.
pub struct Ghost {
    side: Side,
    /// Its first login.
    pub login: Option<Login>,
    /// The method that was agreed on.
    method: Option<AuthProtocol>,
    /// What it asks for, by protocol.
    requests: BTreeMap<u16, Request>,
    pub rejects: BTreeSet<(u16, u8)>,
    pub naks: BTreeMap<(u16, u8), (Vec<u8>, u8)>,
    identifiers: BTreeMap<u16, u8>,
    /// Its request was acknowledged, or it acknowledged ours.
    asked: BTreeSet<u16>,
    answered: BTreeSet<u16>,
    authenticated: bool,
    /// IPCP requests that came before CCP was open, and were answered as pppd does.
    pub too_early: usize,
    pub out: VecDeque<Vec<u8>>,
}

/// The first login of a call.
fn login(call: &Call) -> Option<Login> {
    call.logins().unwrap().into_iter().next()
}

/// The authentication protocol in a request of LCP's.
fn demanded(request: &[(u8, Vec<u8>)]) -> Option<AuthProtocol> {
    let (_, data) = request
        .iter()
        .find(|(kind, _)| *kind == LCP_AUTHENTICATION)?;
    AuthProtocol::parse(data)
}

/// A field with its length in front.
fn field(data: &[u8]) -> (&[u8], &[u8]) {
    data[1..].split_at(usize::from(data[0]))
}

fn options(data: &[u8]) -> Request {
    OptionList::parse(data)
        .unwrap()
        .iter()
        .map(|option| (option.kind, option.data.to_vec()))
        .collect()
}

fn octets(request: &[(u8, Vec<u8>)]) -> Vec<u8> {
    request
        .iter()
        .flat_map(|(kind, data)| {
            let head = [*kind, u8::try_from(data.len() + 2).unwrap()];
            head.into_iter().chain(data.iter().copied())
        })
        .collect()
}

pub const INTERFACE_IDENTIFIER: u8 = 1;

pub fn number(identifier: &[u8]) -> u64 {
    u64::from_be_bytes(identifier.try_into().unwrap())
}

impl Ghost {
    pub fn of(call: &Call, side: Side) -> Self {
        let mut ghost = Self {
            side,
            login: login(call),
            method: None,
            requests: BTreeMap::new(),
            rejects: BTreeSet::new(),
            naks: BTreeMap::new(),
            identifiers: BTreeMap::new(),
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            authenticated: false,
            too_early: 0,
            out: VecDeque::new(),
        };
        for protocol in [
            Protocol::LCP,
            Protocol::CCP,
            Protocol::IPCP,
            Protocol::IPV6CP,
        ] {
            for (from, packet) in call.control(protocol).unwrap() {
                if from != side {
                    continue;
                }
                match packet.code {
                    code::CONFIGURE_REQUEST => {
                        // A server may have come down to MS-CHAPv2 by Naks; a client says first what it wants.
                        let request = options(packet.data);
                        if side == Side::Server && protocol == Protocol::LCP {
                            ghost.requests.insert(protocol.0, request);
                        } else {
                            ghost.requests.entry(protocol.0).or_insert(request);
                        }
                    }
                    code::CONFIGURE_REJECT => {
                        let kinds = options(packet.data).into_iter().map(|(kind, _)| kind);
                        ghost.rejects.extend(kinds.map(|kind| (protocol.0, kind)));
                    }
                    code::CONFIGURE_NAK => {
                        for (kind, data) in options(packet.data) {
                            ghost.naks.insert((protocol.0, kind), (data, 0));
                        }
                    }
                    _ => {}
                }
            }
        }
        if side == Side::Client {
            // It insists on the method that it used.
            let agreed = call.acknowledged(Side::Server, Protocol::LCP).unwrap();
            let method = agreed.and_then(|options| {
                let mut options = options.iter();
                options.find(|option| option.kind == LCP_AUTHENTICATION)
            });
            if let Some(method) = method {
                let place = (Protocol::LCP.0, LCP_AUTHENTICATION);
                ghost.naks.insert(place, (method.data.to_vec(), 0));
            }
            // One that never got as far would have asked for an address.
            let request = vec![(IP_ADDRESS, vec![0; 4])];
            ghost.requests.entry(Protocol::IPCP.0).or_insert(request);
        }
        ghost
    }

    /// The identifier that the peer asks with, in the end.
    pub fn interface_identifier(&self) -> Option<u64> {
        let request = self.requests.get(&Protocol::IPV6CP.0)?;
        let (_, data) = (request.iter()).find(|(kind, _)| *kind == INTERFACE_IDENTIFIER)?;
        Some(number(data))
    }

    pub fn wants_mppe(&self) -> bool {
        let request = self.requests.get(&Protocol::CCP.0);
        request.is_some_and(|request| request.iter().any(|(kind, _)| *kind == MPPE))
    }

    pub fn ask(&mut self, protocol: Protocol) {
        if let Some(request) = self.requests.get(&protocol.0) {
            let identifier = self.identifiers.entry(protocol.0).or_insert(0);
            *identifier += 1;
            let frame = frame(
                protocol,
                code::CONFIGURE_REQUEST,
                *identifier,
                &octets(request),
            );
            self.out.push_back(frame);
        }
    }

    fn is_open(&self, protocol: Protocol) -> bool {
        self.asked.contains(&protocol.0) && self.answered.contains(&protocol.0)
    }

    /// Takes a frame of our link.
    pub fn hear(&mut self, octets: &[u8]) {
        let header = Frame::parse(octets).unwrap();
        let packet = Packet::parse(&octets[header.header_len..]).unwrap();
        match header.protocol {
            Protocol::CHAP => self.hear_chap(&packet),
            Protocol::PAP => self.hear_pap(&packet),
            protocol => self.hear_control(protocol, &packet),
        }
    }

    fn hear_control(&mut self, protocol: Protocol, packet: &Packet<'_>) {
        let reply = |code, data: &[u8]| frame(protocol, code, packet.identifier, data);
        match packet.code {
            code::CONFIGURE_REQUEST => self.judge(protocol, packet),
            code::CONFIGURE_ACK => {
                assert_eq!(packet.identifier, self.identifiers[&protocol.0]);
                assert_eq!(packet.data, octets(&self.requests[&protocol.0]));
                self.asked.insert(protocol.0);
                self.advance(protocol);
            }
            code::CONFIGURE_NAK => {
                let request = self.requests.get_mut(&protocol.0).unwrap();
                for (kind, data) in options(packet.data) {
                    // What was not asked for is not taken up.
                    for (_, old) in request.iter_mut().filter(|(asked, _)| *asked == kind) {
                        old.clone_from(&data);
                    }
                }
                self.ask(protocol);
            }
            code::CONFIGURE_REJECT => {
                let request = self.requests.get_mut(&protocol.0).unwrap();
                let rejected = options(packet.data);
                let before = request.len();
                request.retain(|option| !rejected.contains(option));
                assert_eq!(before - request.len(), rejected.len(), "as they were");
                self.ask(protocol);
            }
            code::TERMINATE_REQUEST => self.out.push_back(reply(code::TERMINATE_ACK, &[])),
            code::ECHO_REQUEST => self.out.push_back(reply(code::ECHO_REPLY, &[0, 0, 0, 0])),
            code::PROTOCOL_REJECT => {
                assert_eq!(packet.data[..2], Protocol::IPV6CP.0.to_be_bytes());
            }
            code::TERMINATE_ACK | code::ECHO_REPLY => {}
            other => panic!("{protocol}: code {other}"),
        }
    }

    fn judge(&mut self, protocol: Protocol, packet: &Packet<'_>) {
        let id = packet.identifier;
        if protocol != Protocol::LCP {
            assert!(self.authenticated, "an NCP before the verdict");
        }
        if protocol == Protocol::CCP && !self.requests.contains_key(&protocol.0) {
            let mut data = protocol.0.to_be_bytes().to_vec();
            data.extend(packet.whole);
            self.out
                .push_back(frame(Protocol::LCP, code::PROTOCOL_REJECT, 77, &data));
            return;
        }
        if protocol == Protocol::IPCP && self.wants_mppe() && !self.is_open(Protocol::CCP) {
            self.too_early += 1;
            self.out
                .push_back(frame(protocol, code::TERMINATE_ACK, id, &[]));
            return;
        }
        let request = options(packet.data);
        let no_mppe = protocol == Protocol::CCP && !self.wants_mppe();
        let rejected: Request = request
            .iter()
            .filter(|(kind, _)| {
                self.rejects.contains(&(protocol.0, *kind)) || no_mppe && *kind == MPPE
            })
            .cloned()
            .collect();
        let mut naks = Request::new();
        for (kind, data) in &request {
            if let Some((better, count)) = self.naks.get_mut(&(protocol.0, *kind))
                && better != data
                && *count < MAX_NAKS
            {
                *count += 1;
                naks.push((*kind, better.clone()));
            }
        }
        let answer = if !rejected.is_empty() {
            frame(protocol, code::CONFIGURE_REJECT, id, &octets(&rejected))
        } else if !naks.is_empty() {
            frame(protocol, code::CONFIGURE_NAK, id, &octets(&naks))
        } else {
            self.answered.insert(protocol.0);
            if protocol == Protocol::LCP && self.side == Side::Client {
                self.method = demanded(&request);
            }
            frame(protocol, code::CONFIGURE_ACK, id, packet.data)
        };
        self.out.push_back(answer);
        self.advance(protocol);
    }

    /// A layer has got further: what follows from that.
    fn advance(&mut self, protocol: Protocol) {
        if !self.is_open(protocol) {
            return;
        }
        match protocol {
            Protocol::LCP => self.begin_authentication(),
            Protocol::CCP if self.wants_mppe() => self.ask(Protocol::IPCP),
            _ => {}
        }
    }

    fn begin_network(&mut self) {
        self.authenticated = true;
        self.ask(Protocol::CCP);
        self.ask(Protocol::IPV6CP);
        if !self.wants_mppe() {
            self.ask(Protocol::IPCP);
        }
    }

    /// The password that it knows.
    fn password(&self) -> &'static str {
        match &self.login {
            Some(login) if login.answer.is_err() => "wrong horse",
            _ => "correct horse",
        }
    }

    fn name(&self) -> &[u8] {
        (self.login.as_ref()).map_or(b"alice", |login| login.credentials.name())
    }

    fn begin_authentication(&mut self) {
        if self.side == Side::Server {
            self.method = demanded(&self.requests[&Protocol::LCP.0]);
        }
        match (self.side, self.method.unwrap()) {
            (Side::Client, AuthProtocol::Pap) => {
                let mut data = Vec::new();
                for text in [self.name(), self.password().as_bytes()] {
                    data.push(u8::try_from(text.len()).unwrap());
                    data.extend(text);
                }
                self.out.push_back(frame(Protocol::PAP, 1, 9, &data));
            }
            (Side::Client, _) | (Side::Server, AuthProtocol::Pap) => {}
            (Side::Server, method) => {
                let value = self.challenge(method);
                let mut data = vec![u8::try_from(value.len()).unwrap()];
                data.extend(value);
                data.extend(b"pptpd");
                self.out.push_back(frame(Protocol::CHAP, 1, 9, &data));
            }
        }
    }

    /// What it asked then.
    fn challenge(&self, method: AuthProtocol) -> Vec<u8> {
        match (&self.login.as_ref().unwrap().credentials, method) {
            (Credentials::ChapMd5 { challenge, .. }, AuthProtocol::ChapMd5) => challenge.clone(),
            (Credentials::MsChapV1 { challenge, .. }, AuthProtocol::MsChapV1) => challenge.to_vec(),
            (Credentials::MsChapV2 { challenge, .. }, AuthProtocol::MsChapV2) => challenge.to_vec(),
            (_, other) => panic!("{other} was not agreed on then"),
        }
    }

    fn hear_pap(&mut self, packet: &Packet<'_>) {
        match (self.side, packet.code) {
            (Side::Server, 1) => {
                let (name, rest) = field(packet.data);
                let credentials = Credentials::Pap {
                    name: name.to_vec(),
                    password: field(rest).0.to_vec().into(),
                };
                let answer = self.judge_login(&credentials);
                let (code, text) = match &answer {
                    Ok(text) => (2, text),
                    Err(text) => (3, text),
                };
                let mut data = vec![u8::try_from(text.len()).unwrap()];
                data.extend(text);
                let reply = frame(Protocol::PAP, code, packet.identifier, &data);
                self.out.push_back(reply);
                if answer.is_ok() {
                    self.begin_network();
                }
            }
            (Side::Client, 2) => self.begin_network(),
            (Side::Client, 3) => {}
            other => panic!("PAP {other:?}"),
        }
    }

    /// What it says to a login: as it did then, but with a proof of its own.
    fn judge_login(&self, credentials: &Credentials) -> Result<Vec<u8>, Vec<u8>> {
        let mut message = self.login.as_ref().unwrap().answer.clone()?;
        assert_eq!(credentials.name(), b"alice");
        let proof = credentials.verify(&Password::new("correct horse").into());
        if let Proof::MsChapV2 {
            authenticator_response,
            ..
        } = proof.unwrap()
        {
            // The captured text after the proof stays.
            message[..42].copy_from_slice(&authenticator_response);
        }
        Ok(message)
    }

    fn hear_chap(&mut self, packet: &Packet<'_>) {
        let method = self.method.unwrap();
        match (self.side, packet.code) {
            (Side::Client, 1) => {
                let (challenge, _) = field(packet.data);
                let hash = NtHash::from_password(self.password());
                let value = match method {
                    AuthProtocol::ChapMd5 => {
                        let password = Password::new(self.password());
                        chap_md5(packet.identifier, &password, challenge).to_vec()
                    }
                    AuthProtocol::MsChapV1 => {
                        let response = v1::nt_response(&hash, challenge.try_into().unwrap());
                        [&[0; 24][..], &response, &[1]].concat()
                    }
                    AuthProtocol::MsChapV2 => {
                        let peer = [0x35; 16];
                        let challenge = challenge.try_into().unwrap();
                        let response = mschap::nt_response(&hash, challenge, &peer, self.name());
                        [&peer[..], &[0; 8], &response, &[0]].concat()
                    }
                    other => panic!("challenged for {other}"),
                };
                let size = [u8::try_from(value.len()).unwrap()];
                let data = [&size, &value[..], self.name()].concat();
                let response = frame(Protocol::CHAP, 2, packet.identifier, &data);
                self.out.push_back(response);
            }
            (Side::Server, 2) => {
                let (value, name) = field(packet.data);
                let name = name.to_vec();
                let part = |from: usize| value[from..from + 24].try_into().unwrap();
                let challenge = self.challenge(method);
                let credentials = match method {
                    AuthProtocol::ChapMd5 => Credentials::ChapMd5 {
                        identifier: packet.identifier,
                        challenge,
                        response: value.try_into().unwrap(),
                        name,
                    },
                    AuthProtocol::MsChapV1 => Credentials::MsChapV1 {
                        identifier: packet.identifier,
                        challenge: challenge.try_into().unwrap(),
                        lm_response: part(0),
                        nt_response: part(24),
                        name,
                    },
                    _ => Credentials::MsChapV2 {
                        identifier: packet.identifier,
                        challenge: challenge.try_into().unwrap(),
                        peer_challenge: value[..16].try_into().unwrap(),
                        nt_response: part(24),
                        name,
                    },
                };
                let answer = self.judge_login(&credentials);
                let (code, text) = match &answer {
                    Ok(text) => (3, text),
                    Err(text) => (4, text),
                };
                let reply = frame(Protocol::CHAP, code, packet.identifier, text);
                self.out.push_back(reply);
                if answer.is_ok() {
                    self.begin_network();
                }
            }
            (Side::Client, 3) => self.begin_network(),
            (Side::Client, 4) if method == AuthProtocol::ChapMd5 => {}
            (Side::Client, 4) => assert!(packet.data.starts_with(b"E=691 R=0 C=")),
            other => panic!("CHAP {other:?}"),
        }
    }
}
