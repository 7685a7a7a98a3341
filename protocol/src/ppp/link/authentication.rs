//! The authentication method at work, whichever it is.

use std::collections::VecDeque;

use crate::ppp::action::Action;
use crate::ppp::auth::{AuthProtocol, Outcome, Proof, Remedy};
use crate::ppp::chap::{self, Algorithm};
use crate::ppp::config::{ClientLink, ServerLink};
use crate::ppp::end::End;
use crate::ppp::packet::Packet;
use crate::ppp::pap;
use crate::ppp::random::Random;
use crate::wire::ppp::Protocol;
use crate::{Error, Time};

/// One variant per method and role.
#[derive(Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "one per call, moved once per phase"
)]
pub(super) enum Auth {
    /// The server demanded none.
    None,
    ChapAuthenticator(chap::Authenticator),
    ChapPeer(chap::Peer),
    PapAuthenticator(pap::Authenticator),
    PapPeer(pap::Peer),
}

impl Auth {
    /// The server's end of `method`; `None` when it is not one of ours.
    pub(super) fn server(
        method: AuthProtocol,
        config: &ServerLink,
        identifier: u8,
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Option<Self> {
        let timing = config.timing;
        if method == AuthProtocol::Pap {
            return Some(Self::PapAuthenticator(pap::Authenticator::start(
                timing, now,
            )));
        }
        let settings = chap::Settings {
            algorithm: Algorithm::of(method)?,
            name: &config.name,
            identifier,
            retries: config.retries,
            rechallenge: config.rechallenge,
            timing,
        };
        let authenticator = chap::Authenticator::start(settings, random, now, actions);
        Some(Self::ChapAuthenticator(authenticator))
    }

    /// The client's end of `method`; `None` when it is not one of ours.
    pub(super) fn client(
        method: AuthProtocol,
        config: &ClientLink,
        identifier: u8,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Option<Self> {
        let (applicant, timing) = (config.applicant(), config.timing);
        if method == AuthProtocol::Pap {
            let peer = pap::Peer::start(applicant, identifier, timing, now, actions);
            return Some(Self::PapPeer(peer));
        }
        let algorithm = Algorithm::of(method)?;
        Some(Self::ChapPeer(chap::Peer::start(
            algorithm, applicant, timing, now,
        )))
    }

    /// Its PPP protocol.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::None => None,
            Self::ChapAuthenticator(_) | Self::ChapPeer(_) => Some(Protocol::CHAP),
            Self::PapAuthenticator(_) | Self::PapPeer(_) => Some(Protocol::PAP),
        }
    }

    /// Takes a packet. One of a method that LCP did not agree on gets no answer.
    pub(super) fn receive(
        &mut self,
        protocol: Protocol,
        packet: &Packet<'_>,
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Result<Option<Outcome>, Error> {
        if self.protocol() != Some(protocol) {
            return Ok(None);
        }
        match self {
            Self::None => Ok(None),
            Self::ChapAuthenticator(server) => server.receive(packet, now, actions).map(|()| None),
            Self::ChapPeer(client) => client.receive(packet, random, now, actions),
            Self::PapAuthenticator(server) => server.receive(packet, now, actions).map(|()| None),
            Self::PapPeer(client) => client.receive(packet),
        }
    }

    /// The name that a client gave.
    pub(super) fn name(&self) -> Option<&[u8]> {
        match self {
            Self::ChapAuthenticator(server) => server.name(),
            Self::PapAuthenticator(server) => server.name(),
            Self::None | Self::ChapPeer(_) | Self::PapPeer(_) => None,
        }
    }

    /// The last identifier that we chose.
    pub(super) fn identifier(&self) -> Option<u8> {
        match self {
            Self::ChapAuthenticator(server) => Some(server.identifier()),
            Self::PapPeer(client) => Some(client.identifier()),
            _ => None,
        }
    }

    /// Whether a verdict is awaited.
    pub(super) fn is_judging(&self) -> bool {
        match self {
            Self::ChapAuthenticator(server) => server.is_judging(),
            Self::PapAuthenticator(server) => server.is_judging(),
            Self::None | Self::ChapPeer(_) | Self::PapPeer(_) => false,
        }
    }

    /// The verdict is to let the client in; `false`, and nothing is done, when the proof is one of another method.
    pub(super) fn accept(
        &mut self,
        proof: &Proof,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> bool {
        match self {
            Self::ChapAuthenticator(server) if proof.method() == server.method() => {
                server.accept(proof, now, actions);
            }
            Self::PapAuthenticator(server) if proof.method() == AuthProtocol::Pap => {
                server.accept(actions);
            }
            _ => return false,
        }
        true
    }

    /// The verdict is to keep it out: code, message and remedy.
    pub(super) fn refuse(
        &mut self,
        verdict: (u32, String, Remedy),
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        match self {
            Self::ChapAuthenticator(server) => server.refuse(verdict, random, now, actions),
            Self::PapAuthenticator(server) => {
                let (code, message, _) = verdict;
                server.refuse(code, message, now, actions);
            }
            Self::None | Self::ChapPeer(_) | Self::PapPeer(_) => {}
        }
    }

    /// Until when somebody may be typing another password.
    pub(super) fn patience(&self) -> Option<Time> {
        match self {
            Self::ChapAuthenticator(server) => server.patience(),
            _ => None,
        }
    }

    /// The end that a Failure has announced.
    pub(super) fn refusal(&self) -> Option<&End> {
        match self {
            Self::ChapAuthenticator(server) => server.refusal(),
            Self::PapAuthenticator(server) => server.refusal(),
            Self::None | Self::ChapPeer(_) | Self::PapPeer(_) => None,
        }
    }

    /// The client has begun with the next phase: it knows the verdict.
    pub(super) fn note_progress(&mut self) {
        if let Self::ChapAuthenticator(server) = self {
            server.note_progress();
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::None => None,
            Self::ChapAuthenticator(server) => server.deadline(),
            Self::ChapPeer(client) => client.deadline(),
            Self::PapAuthenticator(server) => server.deadline(),
            Self::PapPeer(client) => client.deadline(),
        }
    }

    /// Repeats what may have got lost, or says that it is over.
    pub(super) fn handle_timeout(
        &mut self,
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Option<End> {
        match self {
            Self::None => None,
            Self::ChapAuthenticator(server) => server.handle_timeout(random, now, actions),
            Self::ChapPeer(client) => client.handle_timeout(now, actions),
            Self::PapAuthenticator(server) => server.handle_timeout(now),
            Self::PapPeer(client) => client.handle_timeout(now, actions),
        }
    }
}
