//! The router's part in neighbour discovery on the link of one call (RFC 4861 §6.2): advertisements by themselves and
//! when asked, and answers to whoever looks for us or wants an echo.
//!
//! A call's link has two nodes and no link-layer addresses. Packets and `now` come in as arguments; packets to be sent
//! and the next deadline are polled out.

use core::net::Ipv6Addr;
use core::time::Duration;
use std::collections::VecDeque;

use ipnet::Ipv6Net;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::wire::ipv6;
use crate::wire::ndp::{
    ALL_NODES, ALL_ROUTERS, Query, RouterAdvertisement, echo_reply, neighbor_advertisement,
};
use crate::{Error, Time};

/// RFC 4861 §6.2.1, MaxRtrAdvInterval and what follows from it, as they are by default.
const MAX_INTERVAL: Duration = Duration::from_secs(600);
const MIN_INTERVAL: Duration = Duration::from_secs(198);
const ROUTER_LIFETIME: Duration = Duration::from_secs(1800);

/// RFC 4861 §10: the first few advertisements follow each other faster.
const MAX_INITIAL_INTERVAL: Duration = Duration::from_secs(16);
const INITIAL_ADVERTISEMENTS: u8 = 3;

/// RFC 4861 §10: how long an answer waits at most, and how far advertisements to everybody are apart at least.
const MAX_DELAY: Duration = Duration::from_millis(500);
const MIN_DELAY_BETWEEN: Duration = Duration::from_secs(3);

/// The prefix is the call's for as long as it lasts, and both end together; these only have to outlast the loss of many
/// advertisements (RFC 4862 §5.5.3 shortens none that is longer than two hours to less than that).
const VALID: Duration = Duration::from_secs(7200);
const PREFERRED: Duration = Duration::from_secs(3600);

/// Answers that wait to be sent, at most; one that has no place is not given, and will be asked for again.
const MAX_WAITING: usize = 8;

/// What a router tells the node on a call's link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertised {
    /// Our interface identifier on the link.
    pub identifier: u64,
    /// The prefix of the link.
    pub prefix: Ipv6Net,
    /// The largest packet, in octets.
    pub mtu: u16,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Other settings, delegated prefixes among them, are to be had by DHCPv6 (the O flag of RFC 4861 §4.2). Addresses
    /// never are.
    pub dhcp: bool,
}

/// A router on the link of one call.
#[derive(Clone, Debug)]
pub struct Router {
    advertised: Advertised,
    random: ChaCha8Rng,
    /// When everybody on the link hears of us again.
    next: Time,
    /// Advertisements to everybody that were sent, up to [`INITIAL_ADVERTISEMENTS`].
    sent: u8,
    /// The last of them.
    last: Option<Time>,
    /// Whoever asked, and when the answer is due.
    asked: Option<(Ipv6Addr, Time)>,
    packets: VecDeque<Vec<u8>>,
}

impl Router {
    /// A router on a link that has just come up. `seed` tells the times of its advertisements apart from those of
    /// others.
    pub fn new(advertised: Advertised, seed: u64, now: Time) -> Self {
        Self {
            advertised,
            random: ChaCha8Rng::seed_from_u64(seed),
            next: now,
            sent: 0,
            last: None,
            asked: None,
            packets: VecDeque::new(),
        }
    }

    /// Other things to tell: everybody hears of them soon (RFC 4861 §6.2.4).
    pub fn advertise(&mut self, advertised: Advertised, now: Time) {
        if advertised != self.advertised {
            self.advertised = advertised;
            self.sent = 0;
            self.next = self.apart(now);
        }
    }

    /// What is told.
    pub fn advertised(&self) -> &Advertised {
        &self.advertised
    }

    /// Takes an inner packet that is addressed to the link. True when it was a question.
    ///
    /// # Errors
    /// When it is malformed, as far as it can be a question.
    pub fn receive(&mut self, packet: &[u8], now: Time) -> Result<bool, Error> {
        let ip = ipv6::Packet::new_checked(packet)?;
        let (source, destination) = (ip.source(), ip.destination());
        let us = self.address();
        match Query::parse(packet)? {
            Some(Query::Router) => self.solicited(source, now),
            Some(Query::Neighbor(target)) if target == us => {
                // RFC 4861 §7.2.4: who has no address yet asks whether somebody else has the one that it wants.
                let solicited = !source.is_unspecified();
                let to = if solicited { source } else { ALL_NODES };
                self.push(neighbor_advertisement(us, to, solicited));
            }
            Some(Query::Echo(content))
                if [us, ALL_NODES, ALL_ROUTERS].contains(&destination)
                    && !source.is_unspecified() =>
            {
                self.push(echo_reply(us, source, content));
            }
            Some(Query::Neighbor(_) | Query::Echo(_)) | None => return Ok(false),
        }
        Ok(true)
    }

    /// RFC 4861 §6.2.6.
    fn solicited(&mut self, source: Ipv6Addr, now: Time) {
        let delay = self.between(Duration::ZERO, MAX_DELAY);
        if source.is_unspecified() {
            // An advertisement to everybody, not too soon after the last.
            let at = self.apart(now) + delay;
            self.next = self.next.min(at);
        } else if self.asked.is_none() {
            self.asked = Some((source, now + delay));
        }
    }

    /// The earliest time for an advertisement to everybody.
    fn apart(&self, now: Time) -> Time {
        self.last
            .map_or(now, |last| now.max(last + MIN_DELAY_BETWEEN))
    }

    /// When [`Router::handle_timeout`] wants to be called next.
    pub fn deadline(&self) -> Time {
        self.asked.map_or(self.next, |(_, at)| at.min(self.next))
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some((source, at)) = self.asked
            && at <= now
        {
            self.asked = None;
            self.push(self.advertisement(source));
        }
        if self.next <= now {
            self.push(self.advertisement(ALL_NODES));
            self.last = Some(now);
            self.sent = self.sent.saturating_add(1);
            let mut interval = self.between(MIN_INTERVAL, MAX_INTERVAL);
            if self.sent < INITIAL_ADVERTISEMENTS {
                interval = interval.min(MAX_INITIAL_INTERVAL);
            }
            self.next = now + interval;
        }
    }

    /// The next packet to be sent into the call.
    pub fn poll(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    fn push(&mut self, packet: Vec<u8>) {
        if self.packets.len() < MAX_WAITING {
            self.packets.push_back(packet);
        }
    }

    /// Our address on the link.
    fn address(&self) -> Ipv6Addr {
        ipv6::link_local(self.advertised.identifier)
    }

    fn advertisement(&self, destination: Ipv6Addr) -> Vec<u8> {
        let Advertised {
            prefix,
            mtu,
            dns,
            dhcp,
            ..
        } = &self.advertised;
        RouterAdvertisement {
            managed: false,
            other: *dhcp,
            lifetime: ROUTER_LIFETIME,
            mtu: Some(*mtu),
            prefix: Some((*prefix, VALID, PREFERRED)),
            // RFC 8106 §5.1: three times the longest interval.
            dns: (dns.clone(), ROUTER_LIFETIME),
        }
        .to_packet(self.address(), destination)
    }

    /// A time from `least` to `most`, both less than an hour.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(0);
        least + Duration::from_micros(self.random.next_u64() % (span + 1))
    }
}
