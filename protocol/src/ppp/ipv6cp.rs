//! The IPv6 Control Protocol (RFC 5072): interface identifiers, and nothing else.
//!
//! A link without IPv6 is a good link: nothing here ends a call. What fails is given up ([`Options::has_failed`]), and
//! the peer hears that the protocol is not spoken.

use super::options::{Judgement, Options};
use super::packet::{ConfigOption, OptionBuffer, OptionList};
use crate::Role;
use crate::wire::ppp::Protocol;

/// Interface-Identifier (RFC 5072 §4.1). Option 2, compression, is rejected like all others.
const INTERFACE_IDENTIFIER: u8 = 1;

/// Naks of a server's own identifier before it takes what the peer names.
const MAX_NAKS: u8 = 3;

/// IPV6CP of one call, either end.
#[derive(Clone, Debug)]
pub struct Ipv6cp {
    role: Role,
    /// Ours; 0 on a client that wants to be given one.
    ours: u64,
    /// Whether it is in our request.
    names_itself: bool,
    /// What a peer is told that asks with none, 0 or ours.
    suggestion: u64,
    /// The peer's, once we have acknowledged it.
    theirs: Option<u64>,
    /// Of our own, from the peer.
    naks: u8,
    failed: bool,
}

impl Ipv6cp {
    /// An end whose interface identifier is `ours`; to a peer that has none `suggestion` is given, which must not be 0.
    pub fn new(role: Role, ours: u64, suggestion: u64) -> Self {
        Self {
            role,
            ours,
            names_itself: true,
            suggestion,
            theirs: None,
            naks: 0,
            failed: false,
        }
    }

    /// Our identifier and the peer's, when both have one.
    pub fn identifiers(&self) -> Option<(u64, u64)> {
        self.theirs
            .filter(|_| self.ours != 0)
            .map(|theirs| (self.ours, theirs))
    }

    /// A good identifier for the peer.
    fn suggested(&self) -> Vec<u8> {
        let mut suggestion = self.suggestion;
        while suggestion == 0 || suggestion == self.ours {
            suggestion = suggestion.wrapping_add(1);
        }
        suggestion.to_be_bytes().to_vec()
    }
}

fn identifier(option: ConfigOption<'_>) -> Option<u64> {
    option
        .data
        .try_into()
        .ok()
        .filter(|_| option.kind == INTERFACE_IDENTIFIER)
        .map(u64::from_be_bytes)
}

impl Options for Ipv6cp {
    const PROTOCOL: Protocol = Protocol::IPV6CP;

    fn request(&mut self) -> OptionBuffer {
        let mut request = OptionBuffer::default();
        if self.names_itself {
            request.push(INTERFACE_IDENTIFIER, &self.ours.to_be_bytes());
        }
        request
    }

    fn judge(&mut self, option: ConfigOption<'_>) -> Judgement {
        if option.kind != INTERFACE_IDENTIFIER {
            return Judgement::Reject;
        }
        // RFC 5072 §4.1: zero, or the same as ours, is answered with one that differs and is not zero.
        match identifier(option) {
            Some(asked) if asked != 0 && asked != self.ours => Judgement::Ack,
            _ => Judgement::Nak(self.suggested()),
        }
    }

    fn absent(&mut self, request: OptionList<'_>) -> OptionBuffer {
        let mut absent = OptionBuffer::default();
        if !request.has(INTERFACE_IDENTIFIER) {
            absent.push(INTERFACE_IDENTIFIER, &self.suggested());
        }
        absent
    }

    fn insisted(&mut self, option: Option<ConfigOption<'_>>) {
        // Without an identifier of its own the peer has no address that we could know it by.
        self.failed |= option.is_none();
    }

    fn acknowledging(&mut self, request: OptionList<'_>) {
        self.theirs = request.iter().find_map(identifier);
    }

    fn acknowledged(&mut self) {
        // RFC 5072 §4.1: a server that has none for us rejects the option; a zero that it acknowledges is none.
        self.failed |= self.ours == 0;
    }

    fn naked(&mut self, option: ConfigOption<'_>) {
        self.naks = self.naks.saturating_add(1);
        // Of two that chose alike only the client gives way, or both would; a peer that goes on has its reasons.
        if let Some(given) = identifier(option).filter(|&given| given != 0)
            && (self.role == Role::Client || self.naks > MAX_NAKS)
        {
            self.ours = given;
        }
    }

    fn rejected(&mut self, option: ConfigOption<'_>) {
        if option.kind == INTERFACE_IDENTIFIER {
            self.names_itself = false;
            // A server knows its own name anyway.
            self.failed |= self.role == Role::Client;
        }
    }

    fn diverged(&mut self) {
        self.failed = true;
    }

    fn has_failed(&self) -> bool {
        self.failed
    }
}
