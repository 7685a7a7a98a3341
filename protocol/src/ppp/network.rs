//! The network phase of a link: CCP, IPCP and IPV6CP side by side, and what their outcome lets flow.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::VecDeque;

use super::action::{Action, Encryption, Ipv6Terms, LcpTerms, MppeTerms, Terms};
use super::auth::Grant;
use super::ccp::Ccp;
use super::config::{ClientLink, Timing};
use super::end::{End, IpcpFailure, MppeRefusal};
use super::fsm::State;
use super::ipcp::Ipcp;
use super::ipv6cp::Ipv6cp;
use super::options::{Negotiation, Options as _, Output};
use super::packet::{Packet, code};
use crate::mppe::{Allowed, Direction, Policy};
use crate::mschap::MasterKeys;
use crate::wire::ppp::Protocol;
use crate::{Error, Role, Time};

/// Octets that MPPE adds inside the peer's MRU: its header, and the inner protocol field.
const MPPE_OVERHEAD: u16 = 4;

/// Unanswered CCP requests before MPPE that is only preferred counts as refused.
const MAX_CONFIGURE_PREFERRED: u8 = 3;

/// RFC 8200 §5: a link that carries less in one piece carries no IPv6.
const MIN_IPV6_MTU: u16 = 1280;

/// The interface identifier for a server that has none.
const SERVER_IDENTIFIER: u64 = 1;

/// What the network phase starts from.
pub struct Start {
    /// Which end we are.
    pub role: Role,
    /// Encryption.
    pub policy: Policy,
    /// Key lengths and modes of it.
    pub allowed: Allowed,
    /// Keys of the authentication, if it gave any.
    pub keys: Option<MasterKeys>,
    /// The NCPs' options.
    pub ncps: Ncps,
    /// The largest inner packet, in octets.
    pub mtu: u16,
    /// What LCP agreed for frames that we send.
    pub transmit: LcpTerms,
    /// Times and counts.
    pub timing: Timing,
    /// The Restart timer that suits the path.
    pub restart: Duration,
}

/// The options of the network control protocols.
pub struct Ncps {
    /// IPCP's.
    pub ipcp: Ipcp,
    /// IPV6CP's; `None`: it is not spoken.
    pub ipv6cp: Option<Ipv6cp>,
}

impl Ncps {
    /// The server's end: gives what was granted, and something else to a client that may choose.
    pub fn server(grant: &Grant, choice: bool) -> Self {
        Self {
            ipcp: Ipcp::server(grant, choice),
            ipv6cp: grant.ipv6.map(|ipv6| {
                Ipv6cp::new(Role::Server, ipv6.server_identifier, ipv6.client_identifier)
            }),
        }
    }

    /// The client's end: asks for what its settings say.
    pub fn client(config: &ClientLink) -> Self {
        Self {
            ipcp: Ipcp::client(config.address, config.ask_dns),
            ipv6cp: config
                .ipv6
                .map(|ours| Ipv6cp::new(Role::Client, ours, SERVER_IDENTIFIER)),
        }
    }
}

/// CCP and the NCPs of one call.
#[derive(Clone)]
pub struct Network {
    role: Role,
    mtu: u16,
    transmit: LcpTerms,
    /// `None`: no keys, or policy forbids MPPE.
    ccp: Option<Negotiation<Ccp>>,
    /// Both directions were encrypted when this was last looked at.
    was_encrypted: bool,
    ipcp: Negotiation<Ipcp>,
    ipcp_failure: IpcpFailure,
    /// A client's choice of address that somebody decides on, and its request, which waits.
    question: Option<(Ipv4Addr, Vec<u8>)>,
    /// Not handed out yet.
    asks: bool,
    up: Option<Terms>,
    /// `None`: not wanted, not possible, or given up.
    ipv6cp: Option<Box<Negotiation<Ipv6cp>>>,
    up6: Option<Ipv6Terms>,
}

impl Network {
    /// Starts CCP and the NCPs; fails when encryption is required and there are no keys.
    pub fn start(start: Start, now: Time) -> Result<Self, End> {
        let Start {
            role,
            policy,
            allowed,
            keys,
            ncps: Ncps { ipcp, ipv6cp },
            mtu,
            transmit,
            timing,
            restart,
        } = start;
        let ccp = match Ccp::new(role, policy, allowed, keys) {
            Ok(Some(ccp)) => {
                let mut timing = timing;
                if policy == Policy::Prefer {
                    // IPCP waits for the outcome, and a peer may know nothing of CCP without saying so.
                    timing.max_configure = timing.max_configure.min(MAX_CONFIGURE_PREFERRED);
                }
                let mut ccp = Negotiation::new(ccp, timing);
                ccp.expect(restart);
                if policy == Policy::Allow {
                    ccp.start_passively();
                } else {
                    ccp.start(now);
                }
                Some(ccp)
            }
            Ok(None) => None,
            Err(refusal) => return Err(End::MppeRefused(refusal)),
        };
        let mut ipcp = Negotiation::new(ipcp, timing);
        ipcp.expect(restart);
        // pppd with require-mppe answers an IPCP request that comes before CCP is open with Terminate-Ack, and a
        // repetition by the Restart timer costs seconds: ours waits.
        ipcp.start_held(now);
        let ipv6cp = ipv6cp
            .filter(|_| mtu.min(transmit.mru) >= MIN_IPV6_MTU)
            .map(|ipv6cp| {
                let mut ipv6cp = Negotiation::new(ipv6cp, timing);
                ipv6cp.expect(restart);
                match role {
                    // Clients that know nothing of IPv6 are not asked about it: who wants it begins.
                    Role::Server => ipv6cp.start_passively_held(),
                    Role::Client => ipv6cp.start_held(now),
                }
                Box::new(ipv6cp)
            });
        Ok(Self {
            role,
            mtu,
            transmit,
            ccp,
            was_encrypted: false,
            ipcp,
            ipcp_failure: IpcpFailure::NoAnswer,
            question: None,
            asks: false,
            up: None,
            ipv6cp,
            up6: None,
        })
    }

    /// The terms under which data may flow now.
    pub fn up(&self) -> Option<Terms> {
        self.up
    }

    /// The terms under which IPv6 may flow now.
    pub fn up6(&self) -> Option<Ipv6Terms> {
        self.up6
    }

    /// MPPE of one direction, once CCP is open.
    pub fn mppe(&self, direction: Direction) -> Option<MppeTerms> {
        self.ccp
            .as_ref()
            .filter(|ccp| ccp.state() == State::Opened)
            .and_then(|ccp| ccp.options.terms(direction))
    }

    /// When CCP's timer is due.
    pub fn ccp_deadline(&self) -> Option<Time> {
        self.ccp.as_ref().and_then(Negotiation::deadline)
    }

    /// When IPCP's timer is due.
    pub fn ipcp_deadline(&self) -> Option<Time> {
        self.ipcp.deadline()
    }

    /// When IPV6CP's timer is due.
    pub fn ipv6cp_deadline(&self) -> Option<Time> {
        self.ipv6cp.as_ref().and_then(|ipv6cp| ipv6cp.deadline())
    }

    /// CCP's and the NCPs' timers.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some(ccp) = &mut self.ccp {
            ccp.handle_timeout(now);
        }
        self.ipcp.handle_timeout(now);
        if let Some(ipv6cp) = &mut self.ipv6cp {
            ipv6cp.handle_timeout(now);
        }
    }

    /// Whether frames of this protocol are taken.
    pub fn speaks(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::IPCP => true,
            Protocol::IPV6CP => self.ipv6cp.is_some(),
            Protocol::CCP => self.ccp.is_some(),
            _ => false,
        }
    }

    /// Takes the information field of a CCP, IPCP or IPV6CP frame.
    pub fn receive(
        &mut self,
        protocol: Protocol,
        information: &[u8],
        now: Time,
    ) -> Result<(), Error> {
        let packet = Packet::parse(information)?;
        if protocol == Protocol::IPCP {
            if let Some((_, request)) = &mut self.question {
                // Repeated while it waits; whatever else comes is as good as lost, and will be repeated too.
                if packet.code == code::CONFIGURE_REQUEST {
                    *request = packet.whole.to_vec();
                }
                return Ok(());
            }
            if let Some(asked) = self.ipcp.options.question(&packet) {
                self.question = Some((asked, packet.whole.to_vec()));
                self.asks = true;
                return Ok(());
            }
            if !self.ipcp.receive(&packet, now)? {
                self.ipcp.receive_unknown(&packet, now);
            }
        } else if protocol == Protocol::IPV6CP {
            if let Some(ipv6cp) = &mut self.ipv6cp
                && !ipv6cp.receive(&packet, now)?
            {
                ipv6cp.receive_unknown(&packet, now);
            }
        } else if let Some(ccp) = &mut self.ccp
            && !ccp.receive(&packet, now)?
            && !Ccp::is_reset(packet.code)
        {
            ccp.receive_unknown(&packet, now);
        }
        Ok(())
    }

    /// Whether the client gets the address that it asked for; its request goes on.
    pub fn chosen(&mut self, granted: bool, now: Time) -> Result<(), Error> {
        let Some((asked, request)) = self.question.take() else {
            return Ok(());
        };
        self.ipcp.options.chosen(asked, granted);
        self.receive(Protocol::IPCP, &request, now)
    }

    /// The peer does not speak this protocol (RFC 1661 §5.7).
    pub fn protocol_rejected(&mut self, protocol: Protocol, now: Time) {
        match protocol {
            Protocol::IPCP => {
                self.ipcp_failure = IpcpFailure::ProtocolRejected;
                self.ipcp.protocol_rejected(now);
            }
            Protocol::CCP => {
                if let Some(ccp) = &mut self.ccp {
                    ccp.options.refuse(MppeRefusal::ProtocolRejected);
                    ccp.protocol_rejected(now);
                }
            }
            Protocol::IPV6CP => {
                if let Some(ipv6cp) = &mut self.ipv6cp {
                    ipv6cp.protocol_rejected(now);
                }
            }
            // 00FD among them: the peer rejects MPPE data that overtook, or outlived, our Configure-Ack. It sorts
            // itself out when CCP's timer repeats what was lost.
            _ => {}
        }
    }

    /// Does what CCP and IPCP want, after each of the calls above. An end when the link cannot go on.
    pub fn settle(&mut self, now: Time, actions: &mut VecDeque<Action>) -> Option<End> {
        if let Some(refusal) = self.settle_ccp(actions) {
            return Some(End::MppeRefused(refusal));
        }
        let encrypted = self.is_encrypted();
        let before = core::mem::replace(&mut self.was_encrypted, encrypted);
        if self.encryption().is_some() {
            self.ipcp.release(now);
            if encrypted && !before {
                // Once: a pppd that has lost our CCP Acknowledgement says each time it is asked that it is not ready.
                self.ipcp.hurry(now);
            }
            if let Some(ipv6cp) = &mut self.ipv6cp {
                ipv6cp.release(now);
            }
        }
        if let Some((asked, _)) = &self.question
            && core::mem::take(&mut self.asks)
        {
            actions.push_back(Action::Choose(*asked));
        }
        let end = self.settle_ipcp(actions);
        self.refresh(actions);
        self.settle_ipv6cp(actions);
        self.refresh6(actions);
        end.map(End::IpcpFailed)
    }

    fn settle_ccp(&mut self, actions: &mut VecDeque<Action>) -> Option<MppeRefusal> {
        let ccp = self.ccp.as_mut()?;
        while let Some(output) = ccp.poll() {
            match output {
                Output::Request { identifier, frame } => {
                    actions.extend(ccp.options.load_receive(identifier));
                    actions.push_back(Action::Send(frame));
                }
                Output::Ack { identifier, frame } => {
                    actions.extend(ccp.options.load_transmit(identifier));
                    actions.push_back(Action::Send(frame));
                }
                Output::Send(frame) => actions.push_back(Action::Send(frame)),
                Output::Up => ccp.options.settle(),
                // Data is held while a CCP that must be open is not: see `encryption`.
                Output::Down => {}
                Output::PeerTerminated(_) => ccp.options.refuse(MppeRefusal::Terminated),
                Output::Finished => ccp.options.refuse(MppeRefusal::NoAgreement),
            }
        }
        ccp.options.refusal().filter(|_| ccp.options.is_required())
    }

    fn settle_ipcp(&mut self, actions: &mut VecDeque<Action>) -> Option<IpcpFailure> {
        while let Some(output) = self.ipcp.poll() {
            match output {
                Output::Request { frame, .. } | Output::Ack { frame, .. } => {
                    // The peer may use its address as soon as it has our acknowledgement.
                    self.refresh(actions);
                    actions.push_back(Action::Send(frame));
                }
                Output::Send(frame) => actions.push_back(Action::Send(frame)),
                Output::Up | Output::Down => self.refresh(actions),
                Output::PeerTerminated(_) => self.ipcp_failure = IpcpFailure::Terminated,
                Output::Finished => return Some(self.ipcp_failure),
            }
        }
        self.ipcp.options.failure()
    }

    /// Whatever becomes of IPV6CP, the link goes on.
    fn settle_ipv6cp(&mut self, actions: &mut VecDeque<Action>) {
        while let Some(output) = self.ipv6cp.as_mut().and_then(|ipv6cp| ipv6cp.poll()) {
            match output {
                Output::Request { frame, .. } | Output::Ack { frame, .. } => {
                    self.refresh6(actions);
                    actions.push_back(Action::Send(frame));
                }
                Output::Send(frame) => actions.push_back(Action::Send(frame)),
                Output::Up | Output::Down => self.refresh6(actions),
                // A peer that has come to terms with IPv6 may begin anew.
                Output::PeerTerminated(_) | Output::Finished => {}
            }
        }
        if (self.ipv6cp.as_ref()).is_some_and(|ipv6cp| ipv6cp.options.has_failed()) {
            // The peer's next request is answered with a Protocol-Reject, which ends its trying.
            self.ipv6cp = None;
        }
    }

    fn is_encrypted(&self) -> bool {
        self.mppe(Direction::Receive).is_some() && self.mppe(Direction::Transmit).is_some()
    }

    /// How data may flow as far as CCP is concerned; `None`: not now.
    fn encryption(&self) -> Option<Encryption> {
        let Some(ccp) = &self.ccp else {
            return Some(Encryption::Plain);
        };
        if self.is_encrypted() {
            return Some(Encryption::Required);
        }
        let open = !ccp.options.is_required()
            && (ccp.options.has_given_up()
                || matches!(ccp.state(), State::Stopped | State::Opened | State::Closed));
        open.then_some(Encryption::Plain)
    }

    fn terms(&self) -> Option<Terms> {
        let encryption = self.encryption()?;
        // A server's terms are known beforehand, and hold as soon as it has acknowledged the client's address.
        let agreed = match self.role {
            Role::Server => matches!(self.ipcp.state(), State::AckSent | State::Opened),
            Role::Client => self.ipcp.state() == State::Opened,
        };
        let addresses = self.ipcp.options.addresses();
        agreed.then_some(Terms {
            address: addresses.address,
            server_address: addresses.server_address,
            dns: addresses.dns,
            nbns: addresses.nbns,
            compress_address: self.transmit.compress_address,
            compress_protocol: self.transmit.compress_protocol,
            mtu: self.mtu_with(encryption),
            encryption,
        })
    }

    fn terms6(&self) -> Option<Ipv6Terms> {
        let encryption = self.encryption()?;
        let ipv6cp = self.ipv6cp.as_ref()?;
        let agreed = match self.role {
            Role::Server => matches!(ipv6cp.state(), State::AckSent | State::Opened),
            Role::Client => ipv6cp.state() == State::Opened,
        };
        let (ours, theirs) = ipv6cp.options.identifiers().filter(|_| agreed)?;
        let mtu = self.mtu_with(encryption);
        (mtu >= MIN_IPV6_MTU).then_some(Ipv6Terms {
            ours,
            theirs,
            compress_address: self.transmit.compress_address,
            compress_protocol: self.transmit.compress_protocol,
            mtu,
            encryption,
        })
    }

    /// The largest inner packet to the peer, in octets.
    fn mtu_with(&self, encryption: Encryption) -> u16 {
        let overhead = match encryption {
            Encryption::Required => MPPE_OVERHEAD,
            Encryption::Plain => 0,
        };
        self.mtu.min(self.transmit.mru.saturating_sub(overhead))
    }

    fn refresh(&mut self, actions: &mut VecDeque<Action>) {
        let terms = self.terms();
        if terms != self.up {
            self.up = terms;
            actions.push_back(terms.map_or(Action::Hold, Action::Up));
        }
    }

    fn refresh6(&mut self, actions: &mut VecDeque<Action>) {
        let terms = self.terms6();
        if terms != self.up6 {
            self.up6 = terms;
            actions.push_back(terms.map_or(Action::Hold6, Action::Up6));
        }
    }
}
