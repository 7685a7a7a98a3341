//! The PPP of a scripted client: it follows its profile, and says what does not fit.

mod answers;
mod login;

use std::collections::{BTreeMap, VecDeque};

use turnpike_protocol::Time;
use turnpike_protocol::ppp::packet::{OptionList, Packet, code};
use turnpike_protocol::wire::ppp::{Frame, Protocol};

use super::profile::{Counting, Method, Mppe, Omission, Profile, octets};
use super::secrets::{self, Keys};
use super::{Outcome, Wish};
use crate::concentrator::{PASSWORD, USER};

const ACSCP: u16 = 0x8235;
const MPPE: u8 = 18;
const ADDRESS: u8 = 3;
/// Repetitions of a request before it is given up.
const MOST_TRIES: u8 = 10;

/// Options by type, in order.
type Request = Vec<(u8, Vec<u8>)>;

fn request(lines: &[String], magic: u32) -> Request {
    let whole: Vec<u8> = lines.iter().flat_map(|line| octets(line, magic)).collect();
    parse(&whole).expect("options of a profile")
}

fn parse(data: &[u8]) -> Outcome<Request> {
    let list = OptionList::parse(data).map_err(|error| error.to_string())?;
    Ok(list
        .iter()
        .map(|option| (option.kind, option.data.to_vec()))
        .collect())
}

fn emit(request: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (kind, value) in request {
        data.push(*kind);
        data.push(u8::try_from(value.len() + 2).expect("a short option"));
        data.extend(value);
    }
    data
}

/// One control protocol.
#[derive(Default)]
struct Layer {
    request: Request,
    /// Of the request that is out.
    identifier: u8,
    begun: bool,
    /// The server does not speak it, or said goodbye to it.
    over: bool,
    /// Our request was acknowledged.
    agreed: bool,
    /// We acknowledged the server's.
    agreeing: bool,
    due: Option<Time>,
    tries: u8,
}

impl Layer {
    fn is_open(&self) -> bool {
        self.agreed && self.agreeing && !self.over
    }
}

/// What the server asked for and was agreed.
#[derive(Default)]
struct Terms {
    omit_address: bool,
    compress_protocol: bool,
    method: Option<Method>,
}

/// The PPP of one call.
pub(super) struct Link<'a> {
    profile: &'a Profile,
    wish: Wish,
    magic: u32,
    identifiers: BTreeMap<u16, u8>,
    layers: BTreeMap<u16, Layer>,
    terms: Terms,
    naks: u8,
    /// Frames to be sent.
    pub out: VecDeque<Vec<u8>>,
    /// What the server is expected to say in Success.
    expected: Option<String>,
    /// The last answer to a Challenge or PAP's request, which is repeated until there is a verdict.
    login: Option<(u8, Vec<u8>)>,
    login_due: Option<Time>,
    keys: Option<Keys>,
    pub logged_in: bool,
    /// Who it says it is, and with which password.
    pub user: String,
    pub password: String,
    /// What a Failure said.
    pub failure: Option<String>,
    pub up: Option<secrets::Mppe>,
    pub down: Option<secrets::Mppe>,
    down_bits: Option<u32>,
    up_bits: Option<u32>,
    echo_due: Option<Time>,
    /// Echo-Requests without an answer.
    pub echoes: u32,
    /// The server asked for echoes this often.
    pub asked_for_echo: u32,
    /// Its Terminate-Request came, with this text.
    pub dismissed: Option<String>,
    pub goodbye_answered: bool,
    /// Protocols that the server rejected, in order.
    pub rejected: Vec<u16>,
}

impl<'a> Link<'a> {
    pub fn new(profile: &'a Profile, wish: Wish) -> Self {
        Self {
            profile,
            wish,
            magic: 0x5a3b_1c02,
            identifiers: BTreeMap::new(),
            layers: BTreeMap::new(),
            terms: Terms::default(),
            naks: 0,
            out: VecDeque::new(),
            expected: None,
            login: None,
            login_due: None,
            keys: None,
            logged_in: false,
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            failure: None,
            up: None,
            down: None,
            down_bits: None,
            up_bits: None,
            echo_due: None,
            echoes: 0,
            asked_for_echo: 0,
            dismissed: None,
            goodbye_answered: false,
            rejected: Vec::new(),
        }
    }

    /// LCP begins.
    pub fn start(&mut self, now: Time) {
        let lines = self.profile.lcp.request.clone();
        self.begin(Protocol::LCP, &lines, now);
    }

    pub fn deadline(&self) -> Option<Time> {
        let layers = self.layers.values().filter_map(|layer| layer.due);
        layers.chain(self.echo_due).chain(self.login_due).min()
    }

    pub fn handle_timeout(&mut self, now: Time) -> Outcome {
        let restart = core::time::Duration::from_secs(self.profile.lcp.restart);
        let mut again = Vec::new();
        for (protocol, layer) in &mut self.layers {
            if layer.due.is_some_and(|due| due <= now) {
                layer.tries += 1;
                if layer.tries > MOST_TRIES {
                    return Err(format!("{:?}: no answer", Protocol(*protocol)));
                }
                layer.due = Some(now + restart);
                let data = emit(&layer.request);
                again.push((*protocol, layer.identifier, data));
            }
        }
        for (protocol, identifier, data) in again {
            self.send(
                Protocol(protocol),
                code::CONFIGURE_REQUEST,
                identifier,
                &data,
            );
        }
        if self.login_due.is_some_and(|due| due <= now)
            && let Some((_, packet)) = self.login.clone()
        {
            self.login_due = Some(now + restart);
            self.push(self.login_protocol(), &packet);
        }
        if self.echo_due.is_some_and(|due| due <= now) {
            self.echo(now);
        }
        Ok(())
    }

    /// Whether everything is open that its user wants.
    pub fn is_up(&self) -> bool {
        let encrypted = match self.wish.mppe {
            Mppe::Clear => true,
            Mppe::Keys { .. } => self.up.is_some() && self.down.is_some(),
        };
        self.logged_in && encrypted && self.is_open(Protocol::IPCP)
    }

    fn is_open(&self, protocol: Protocol) -> bool {
        self.layers.get(&protocol.0).is_some_and(Layer::is_open)
    }

    /// The inner address.
    pub fn address(&self) -> Option<[u8; 4]> {
        let layer = self.layers.get(&Protocol::IPCP.0)?;
        let (_, data) = layer.request.iter().find(|(kind, _)| *kind == ADDRESS)?;
        data[..].try_into().ok()
    }

    /// The bits agreed for packets up and down.
    pub fn bits(&self) -> [Option<u32>; 2] {
        [self.up_bits, self.down_bits]
    }

    /// Options of the request that stands.
    pub fn asked(&self, protocol: Protocol) -> Vec<u8> {
        self.layers
            .get(&protocol.0)
            .map(|layer| layer.request.iter().map(|(kind, _)| *kind).collect())
            .unwrap_or_default()
    }

    /// Says goodbye.
    pub fn terminate(&mut self) {
        let data = octets(&self.profile.lcp.terminate, self.magic);
        let identifier = self.next_identifier(Protocol::LCP);
        self.send(Protocol::LCP, code::TERMINATE_REQUEST, identifier, &data);
        self.echo_due = None;
    }

    /// Begins anew what is open: LCP and all that follows, or one protocol.
    pub fn renegotiate(&mut self, protocol: Protocol, now: Time) {
        if protocol == Protocol::LCP {
            self.start_over(now);
            return;
        }
        if let Some(layer) = self.layers.get_mut(&protocol.0) {
            (layer.agreed, layer.agreeing) = (false, false);
        }
        if protocol == Protocol::CCP {
            (self.up, self.down) = (None, None);
        }
        self.ask(protocol, now);
    }

    /// A frame with this inside MPPE.
    pub fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut frame = self.header(Protocol::COMPRESSED);
        frame.extend(self.up.as_mut().expect("keys").seal(plain));
        frame
    }

    /// An IP packet on its way up.
    pub fn carry(&mut self, packet: &[u8]) {
        match self.wish.mppe {
            Mppe::Clear => {
                let mut frame = self.header(Protocol::IPV4);
                frame.extend(packet);
                self.out.push_back(frame);
            }
            Mppe::Keys { .. } => {
                let mut plain = Protocol::IPV4.0.to_be_bytes().to_vec();
                plain.extend(packet);
                let frame = self.sealed(&plain);
                self.out.push_back(frame);
            }
        }
    }

    fn omits_address(&self, protocol: Protocol) -> bool {
        match self.profile.lcp.omits_address {
            Omission::Agreed => self.terms.omit_address && protocol != Protocol::LCP,
            Omission::Always => protocol != Protocol::LCP,
            Omission::Everywhere => true,
        }
    }

    fn header(&self, protocol: Protocol) -> Vec<u8> {
        let mut header = Vec::with_capacity(4);
        if !self.omits_address(protocol) {
            header.extend([0xff, 0x03]);
        }
        let [high, low] = protocol.0.to_be_bytes();
        if !(high == 0 && self.terms.compress_protocol) {
            header.push(high);
        }
        header.push(low);
        header
    }

    fn push(&mut self, protocol: Protocol, packet: &[u8]) {
        let mut frame = self.header(protocol);
        frame.extend(packet);
        self.out.push_back(frame);
    }

    fn send(&mut self, protocol: Protocol, code: u8, identifier: u8, data: &[u8]) {
        let length = u16::try_from(data.len() + 4).expect("a short packet");
        let mut packet = vec![code, identifier];
        packet.extend(length.to_be_bytes());
        packet.extend(data);
        self.push(protocol, &packet);
    }

    fn next_identifier(&mut self, protocol: Protocol) -> u8 {
        let row = match self.profile.lcp.identifiers {
            Counting::Shared => 0,
            Counting::Each => protocol.0,
        };
        let first = self.profile.lcp.first_identifier;
        let next = self.identifiers.entry(row).or_insert(first);
        let identifier = *next;
        *next = next.wrapping_add(1);
        identifier
    }

    fn begin(&mut self, protocol: Protocol, lines: &[String], now: Time) {
        let request = request(lines, self.magic);
        let layer = self.layers.entry(protocol.0).or_default();
        if layer.begun || layer.over {
            return;
        }
        layer.begun = true;
        layer.request = request;
        self.ask(protocol, now);
    }

    /// Sends the request as it stands now.
    fn ask(&mut self, protocol: Protocol, now: Time) {
        let identifier = self.next_identifier(protocol);
        let restart = core::time::Duration::from_secs(self.profile.lcp.restart);
        let Some(layer) = self.layers.get_mut(&protocol.0) else {
            return;
        };
        layer.identifier = identifier;
        layer.due = Some(now + restart);
        layer.tries = 0;
        let data = emit(&layer.request);
        self.send(protocol, code::CONFIGURE_REQUEST, identifier, &data);
    }

    /// Takes a frame of the server; a packet of data is given back.
    pub fn hear(&mut self, frame: &[u8], now: Time) -> Outcome<Option<Vec<u8>>> {
        let header = Frame::parse(frame).map_err(|error| error.to_string())?;
        let information = &frame[header.header_len..];
        let protocol = header.protocol;
        if protocol == Protocol::LCP && header.header_len != 4 {
            return Err("LCP with a compressed header".to_owned());
        }
        let asked = self.layers.get(&Protocol::LCP.0);
        let allowed = |kind: u8| {
            asked.is_some_and(|lcp| {
                lcp.agreed && lcp.request.iter().any(|(option, _)| *option == kind)
            })
        };
        let [pfc, acfc] = [allowed(7), allowed(8)];
        if !acfc && !frame.starts_with(&[0xff, 0x03]) {
            return Err(format!("{protocol:?} without FF 03, which was not agreed"));
        }
        let short = header.header_len
            - if frame.starts_with(&[0xff, 0x03]) {
                2
            } else {
                0
            }
            == 1;
        if short && !pfc {
            return Err(format!("{protocol:?} in one octet, which was not agreed"));
        }
        // RFC 1661 §3.4 to §3.7: what belongs to a later phase is thrown away.
        let login = [Protocol::PAP, Protocol::CHAP].contains(&protocol);
        let early = match protocol {
            Protocol::LCP => false,
            _ if !self.is_open(Protocol::LCP) => true,
            _ => !login && !self.logged_in,
        };
        if early {
            return Ok(None);
        }
        match protocol {
            Protocol::LCP | Protocol::CCP | Protocol::IPCP | Protocol::IPV6CP => {
                let packet = Packet::parse(information).map_err(|error| error.to_string())?;
                self.control(protocol, &packet, now)?;
                Ok(None)
            }
            Protocol::PAP | Protocol::CHAP => {
                let packet = Packet::parse(information).map_err(|error| error.to_string())?;
                self.hear_login(protocol, &packet, now)?;
                Ok(None)
            }
            Protocol::IPV4 => {
                if self.wish.mppe != Mppe::Clear {
                    return Err("data in clear where encryption is wanted".to_owned());
                }
                Ok(Some(information.to_vec()))
            }
            Protocol::COMPRESSED => {
                let down = self.down.as_mut().ok_or("MPPE that was not agreed")?;
                let plain = down.open(information)?;
                match plain.strip_prefix(&[0x00, 0x21]) {
                    Some(packet) => Ok(Some(packet.to_vec())),
                    None => Err(format!("it decrypts to {:02x?}", plain.get(..4))),
                }
            }
            other => Err(format!("the server begins {other:?}")),
        }
    }

    fn control(&mut self, protocol: Protocol, packet: &Packet<'_>, now: Time) -> Outcome {
        let waiting = protocol == Protocol::IPCP
            && self.profile.ipcp.waits_for_ccp
            && self.wish.mppe != Mppe::Clear
            && !self.is_open(Protocol::CCP);
        match packet.code {
            code::CONFIGURE_REQUEST if waiting => {
                self.send(protocol, code::TERMINATE_ACK, packet.identifier, &[]);
            }
            code::CONFIGURE_REQUEST => {
                if protocol == Protocol::LCP && self.is_open(protocol) {
                    self.start_over(now);
                }
                self.judge(protocol, packet, now)?;
            }
            code::CONFIGURE_ACK | code::CONFIGURE_NAK | code::CONFIGURE_REJECT => {
                let layer = self.layers.get_mut(&protocol.0).filter(|l| l.begun);
                let layer = layer.ok_or(format!("an answer in {protocol:?}: nobody asked"))?;
                if packet.identifier != layer.identifier || layer.due.is_none() {
                    // Of a request that was repeated or changed since.
                    return Ok(());
                }
                layer.due = None;
                self.answered(protocol, packet, now)?;
            }
            code::TERMINATE_REQUEST if protocol == Protocol::LCP => {
                self.send(protocol, code::TERMINATE_ACK, packet.identifier, &[]);
                let text = String::from_utf8_lossy(packet.data).into_owned();
                self.dismissed.get_or_insert(text);
                for layer in self.layers.values_mut() {
                    layer.due = None;
                }
                (self.echo_due, self.login_due) = (None, None);
            }
            code::TERMINATE_REQUEST => {
                self.send(protocol, code::TERMINATE_ACK, packet.identifier, &[]);
                let layer = self.layers.entry(protocol.0).or_default();
                layer.over = true;
                layer.due = None;
            }
            code::TERMINATE_ACK if protocol == Protocol::LCP => self.goodbye_answered = true,
            code::TERMINATE_ACK => {}
            code::PROTOCOL_REJECT => self.protocol_rejected(packet)?,
            code::ECHO_REQUEST => {
                self.asked_for_echo += 1;
                let mut data = self.magic.to_be_bytes().to_vec();
                data.extend(packet.data.get(4..).unwrap_or_default());
                self.send(protocol, code::ECHO_REPLY, packet.identifier, &data);
            }
            code::ECHO_REPLY => self.echoes = 0,
            other => return Err(format!("{protocol:?}: code {other}")),
        }
        Ok(())
    }

    fn protocol_rejected(&mut self, packet: &Packet<'_>) -> Outcome {
        let number = packet.data.first_chunk::<2>();
        let number = u16::from_be_bytes(*number.ok_or("a Protocol-Reject of nothing")?);
        self.rejected.push(number);
        let optional = [Protocol::IPV6CP.0, ACSCP].contains(&number);
        let unwanted = number == Protocol::CCP.0 && self.wish.mppe == Mppe::Clear;
        if !optional && !unwanted {
            return Err(format!("the server rejects {:?}", Protocol(number)));
        }
        let layer = self.layers.entry(number).or_default();
        layer.over = true;
        layer.due = None;
        Ok(())
    }

    /// RFC 1661 §4.3: a Configure-Request on an open link takes everything down.
    fn start_over(&mut self, now: Time) {
        self.layers
            .retain(|protocol, _| *protocol == Protocol::LCP.0);
        if let Some(lcp) = self.layers.get_mut(&Protocol::LCP.0) {
            (lcp.agreed, lcp.agreeing) = (false, false);
        }
        (self.up, self.down, self.keys) = (None, None, None);
        (self.up_bits, self.down_bits) = (None, None);
        (self.login, self.login_due, self.echo_due) = (None, None, None);
        self.logged_in = false;
        self.ask(Protocol::LCP, now);
    }

    /// A layer may have been opened.
    fn opened(&mut self, protocol: Protocol, now: Time) {
        if !self.is_open(protocol) {
            return;
        }
        match protocol {
            Protocol::LCP => {
                for text in self.profile.lcp.identification.clone() {
                    let mut data = self.magic.to_be_bytes().to_vec();
                    match text.strip_prefix("0x") {
                        Some(digits) => data.extend(octets(digits, self.magic)),
                        None => data.extend(text.as_bytes()),
                    }
                    let identifier = self.next_identifier(protocol);
                    self.send(protocol, code::IDENTIFICATION, identifier, &data);
                }
                if self.profile.lcp.echo_at_once {
                    self.echo(now);
                } else if self.profile.lcp.echo > 0 {
                    let every = core::time::Duration::from_secs(self.profile.lcp.echo);
                    self.echo_due = Some(now + every);
                }
                if self.terms.method == Some(Method::Pap) {
                    self.ask_by_pap(now);
                }
            }
            Protocol::CCP if self.profile.ipcp.waits_for_ccp => self.begin_networks(now),
            _ => {}
        }
    }

    fn echo(&mut self, now: Time) {
        self.echoes += 1;
        let magic = self.magic.to_be_bytes();
        let identifier = self.next_identifier(Protocol::LCP);
        self.send(Protocol::LCP, code::ECHO_REQUEST, identifier, &magic);
        self.echo_due = match self.profile.lcp.echo {
            0 => None,
            every => Some(now + core::time::Duration::from_secs(every)),
        };
    }

    /// The verdict was good.
    fn begin_network_phase(&mut self, now: Time) {
        if self.logged_in {
            return;
        }
        self.logged_in = true;
        (self.login, self.login_due) = (None, None);
        let clear = self.wish.mppe == Mppe::Clear;
        let ccp = if clear {
            &self.profile.ccp.clear
        } else {
            &self.profile.ccp.request
        };
        if !ccp.is_empty() {
            self.begin(Protocol::CCP, &ccp.clone(), now);
        }
        if clear || !self.profile.ipcp.waits_for_ccp {
            self.begin_networks(now);
        }
    }

    fn begin_networks(&mut self, now: Time) {
        let profile = self.profile;
        if let Some(ipv6cp) = &profile.ipv6cp {
            self.begin(Protocol::IPV6CP, &ipv6cp.request, now);
        }
        self.begin(Protocol::IPCP, &profile.ipcp.request, now);
        for other in &profile.other {
            let [high, low] = octets(&other.protocol, 0)[..] else {
                continue;
            };
            let protocol = u16::from_be_bytes([high, low]);
            self.begin(Protocol(protocol), &other.request, now);
        }
    }
}
