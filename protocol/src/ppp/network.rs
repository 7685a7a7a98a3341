//! The network phase of a link: CCP and IPCP side by side, and what their outcome lets flow.

use std::collections::VecDeque;

use super::action::{Action, Encryption, LcpTerms, MppeTerms, Terms};
use super::ccp::Ccp;
use super::config::Timing;
use super::end::{End, IpcpFailure, MppeRefusal};
use super::fsm::State;
use super::ipcp::Ipcp;
use super::options::{Negotiation, Output};
use super::packet::Packet;
use crate::mppe::{Direction, Policy};
use crate::mschap::MasterKeys;
use crate::wire::ppp::Protocol;
use crate::{Error, Role, Time};

/// Octets that MPPE adds inside the peer's MRU: its header, and the inner protocol field.
const MPPE_OVERHEAD: u16 = 4;

/// Unanswered CCP requests before MPPE that is only preferred counts as refused.
const MAX_CONFIGURE_PREFERRED: u8 = 3;

/// What the network phase starts from.
pub struct Start {
    /// Which end we are.
    pub role: Role,
    /// Encryption.
    pub policy: Policy,
    /// Keys of the authentication, if it gave any.
    pub keys: Option<MasterKeys>,
    /// IPCP's options.
    pub ipcp: Ipcp,
    /// The largest inner packet, in octets.
    pub mtu: u16,
    /// What LCP agreed for frames that we send.
    pub transmit: LcpTerms,
    /// Times and counts.
    pub timing: Timing,
}

/// CCP and IPCP of one call.
#[derive(Clone)]
pub struct Network {
    role: Role,
    mtu: u16,
    transmit: LcpTerms,
    /// `None`: no keys, or policy forbids MPPE.
    ccp: Option<Negotiation<Ccp>>,
    ipcp: Negotiation<Ipcp>,
    ipcp_failure: IpcpFailure,
    up: Option<Terms>,
}

impl Network {
    /// Starts CCP and IPCP; fails when encryption is required and there are no keys.
    pub fn start(start: Start, now: Time) -> Result<Self, End> {
        let Start {
            role,
            policy,
            keys,
            ipcp,
            mtu,
            transmit,
            timing,
        } = start;
        let ccp = match (policy, keys) {
            (Policy::Require, None) => return Err(End::MppeRefused(MppeRefusal::NoKeys)),
            (Policy::Deny, _) | (_, None) => None,
            (Policy::Allow, Some(keys)) => {
                let mut ccp = Negotiation::new(Ccp::new(role, policy, keys), timing);
                ccp.start_passively();
                Some(ccp)
            }
            (Policy::Prefer | Policy::Require, Some(keys)) => {
                let mut timing = timing;
                if policy == Policy::Prefer {
                    // IPCP waits for the outcome, and a peer may know nothing of CCP without saying so.
                    timing.max_configure = timing.max_configure.min(MAX_CONFIGURE_PREFERRED);
                }
                let mut ccp = Negotiation::new(Ccp::new(role, policy, keys), timing);
                ccp.start(now);
                Some(ccp)
            }
        };
        let mut ipcp = Negotiation::new(ipcp, timing);
        // pppd with require-mppe answers an IPCP request that comes before CCP is open with Terminate-Ack, and a
        // repetition by the Restart timer costs seconds: ours waits.
        ipcp.start_held(now);
        Ok(Self {
            role,
            mtu,
            transmit,
            ccp,
            ipcp,
            ipcp_failure: IpcpFailure::NoAnswer,
            up: None,
        })
    }

    /// The terms under which data may flow now.
    pub fn up(&self) -> Option<Terms> {
        self.up
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

    /// CCP's and IPCP's timers.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some(ccp) = &mut self.ccp {
            ccp.handle_timeout(now);
        }
        self.ipcp.handle_timeout(now);
    }

    /// Whether frames of this protocol are taken.
    pub fn speaks(&self, protocol: Protocol) -> bool {
        protocol == Protocol::IPCP || (protocol == Protocol::CCP && self.ccp.is_some())
    }

    /// Takes the information field of a CCP or IPCP frame.
    pub fn receive(
        &mut self,
        protocol: Protocol,
        information: &[u8],
        now: Time,
    ) -> Result<(), Error> {
        let packet = Packet::parse(information)?;
        if protocol == Protocol::IPCP {
            if !self.ipcp.receive(&packet, now)? {
                self.ipcp.receive_unknown(&packet, now);
            }
        } else if let Some(ccp) = &mut self.ccp
            && !ccp.receive(&packet, now)?
            && !Ccp::is_reset(packet.code)
        {
            ccp.receive_unknown(&packet, now);
        }
        Ok(())
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
        if self.encryption().is_some() {
            self.ipcp.release(now);
            if self.is_encrypted() {
                self.ipcp.hurry(now);
            }
        }
        let end = self.settle_ipcp(actions);
        self.refresh(actions);
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
        let overhead = match encryption {
            Encryption::Required => MPPE_OVERHEAD,
            Encryption::Plain => 0,
        };
        agreed.then_some(Terms {
            address: addresses.address,
            server_address: addresses.server_address,
            dns: addresses.dns,
            nbns: addresses.nbns,
            compress_address: self.transmit.compress_address,
            compress_protocol: self.transmit.compress_protocol,
            mtu: self.mtu.min(self.transmit.mru.saturating_sub(overhead)),
            encryption,
        })
    }

    fn refresh(&mut self, actions: &mut VecDeque<Action>) {
        let terms = self.terms();
        if terms != self.up {
            self.up = terms;
            actions.push_back(terms.map_or(Action::Hold, Action::Up));
        }
    }
}
