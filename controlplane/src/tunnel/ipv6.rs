//! IPv6 of one call: the prefixes that it was given, their routes, and the router on its link.

use std::collections::VecDeque;

use ipnet::Ipv6Net;
use turnpike_dataplane::api::{CallRef, Command, Encryption, Forward6, FrameBytes};
use turnpike_protocol::Time;
use turnpike_protocol::ppp::{self, Ipv6Grant, Ipv6Terms};
use turnpike_protocol::router::{Advertised, Router};
use turnpike_protocol::wire::ipv6;

use super::action::{Action, Notice};
use crate::dhcp6::{Bound, Dhcp6, Link};

/// What a login was given of IPv6, and what has become of it.
pub(super) struct Link6 {
    grant: Ipv6Grant,
    seed: u64,
    /// The prefixes lead into the call.
    routed: bool,
    /// While IPv6 flows.
    router: Option<Router>,
    /// The link, since IPv6 has flowed.
    link: Option<Link>,
    /// To whom the delegated prefix has been told.
    bound: Option<Bound>,
}

impl Link6 {
    pub(super) fn new(grant: Ipv6Grant, seed: u64) -> Self {
        Self {
            grant,
            seed,
            routed: false,
            router: None,
            link: None,
            bound: None,
        }
    }

    pub(super) fn grant(&self) -> Ipv6Grant {
        self.grant
    }

    fn prefixes(&self) -> impl Iterator<Item = Ipv6Net> + use<> {
        [Some(self.grant.prefix), self.grant.delegated]
            .into_iter()
            .flatten()
    }

    /// IPv6 may flow, or flows on other terms.
    pub(super) fn up(
        &mut self,
        call: CallRef,
        terms: &Ipv6Terms,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        if !self.routed {
            self.routed = true;
            for prefix in self.prefixes() {
                actions.push_back(Action::data(Command::Route6 { prefix, call }));
            }
        }
        actions.push_back(Action::data(Command::Forward6 {
            call,
            forward: Forward6 {
                prefixes: [Some(self.grant.prefix), self.grant.delegated],
                identifier: terms.theirs,
                compress_address: terms.compress_address,
                compress_protocol: terms.compress_protocol,
                mtu: terms.mtu,
                encryption: match terms.encryption {
                    ppp::Encryption::Plain => Encryption::Plain,
                    ppp::Encryption::Required => Encryption::Required,
                },
            },
        }));
        self.link = Some(Link {
            server: ipv6::link_local(terms.ours),
            client: ipv6::link_local(terms.theirs),
            prefix: Some(self.grant.prefix),
            delegated: self.grant.delegated,
            mtu: terms.mtu,
        });
        let advertised = Advertised {
            identifier: terms.ours,
            prefix: self.grant.prefix,
            mtu: terms.mtu,
            dns: self.grant.dns.into_iter().flatten().collect(),
            // What is delegated is asked for by DHCPv6.
            dhcp: self.grant.delegated.is_some(),
        };
        match &mut self.router {
            Some(router) => router.advertise(advertised, now),
            None => {
                self.router = Some(Router::new(advertised, self.seed, now));
                let Ipv6Grant {
                    prefix, delegated, ..
                } = self.grant;
                actions.push_back(Action::Notice(Notice::Ipv6Up {
                    call,
                    prefix,
                    delegated,
                }));
            }
        }
    }

    /// IPv6 must not flow.
    pub(super) fn hold(&mut self, call: CallRef, actions: &mut VecDeque<Action>) {
        self.router = None;
        actions.push_back(Action::data(Command::Hold6 { call }));
    }

    /// Nothing leads into the call any more.
    pub(super) fn unroute(&mut self, actions: &mut VecDeque<Action>) {
        self.router = None;
        if core::mem::take(&mut self.routed) {
            for prefix in self.prefixes() {
                actions.push_back(Action::data(Command::Unroute6 { prefix }));
            }
        }
    }

    /// The client asks its router something, or by DHCPv6.
    pub(super) fn receive(
        &mut self,
        call: CallRef,
        packet: &[u8],
        dhcp6: Option<&Dhcp6>,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        let Some(router) = &mut self.router else {
            return;
        };
        let datagram =
            ipv6::Packet::new_checked(packet).is_ok_and(|packet| packet.next_header() == ipv6::UDP);
        if !datagram {
            // What is malformed is not answered: a host that means it asks again.
            let _ = router.receive(packet, now);
            return;
        }
        let (Some(dhcp6), Some(link)) = (dhcp6, &self.link) else {
            return;
        };
        let answer = dhcp6.answer(&mut self.bound, link, packet);
        actions.push_back(Action::Notice(Notice::Dhcp6 {
            call,
            fault: answer.as_ref().err().copied(),
            bound: self.bound.is_some(),
        }));
        // An answer is no longer than the call's MTU, so it fits.
        if let Some(packet) = answer.ok().and_then(|answer| FrameBytes::new(&answer)) {
            actions.push_back(Action::data(Command::SendInner { call, packet }));
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.router.as_ref().map(Router::deadline)
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        if let Some(router) = &mut self.router {
            router.handle_timeout(now);
        }
    }

    /// What the router has to say.
    pub(super) fn pump(&mut self, call: CallRef, actions: &mut VecDeque<Action>) {
        while let Some(packet) = self.router.as_mut().and_then(Router::poll) {
            // Nothing that a router says is longer than the smallest MTU.
            if let Some(packet) = FrameBytes::new(&packet) {
                actions.push_back(Action::data(Command::SendInner { call, packet }));
            }
        }
    }
}
