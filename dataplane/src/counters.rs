//! What a worker counts: drops by name, totals, and octets per port.
//!
//! One writer, the worker; anybody may read at any time. Relaxed loads and stores: no figure depends on another.

use core::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::api::Port;

/// Declares an enum whose values have a stable name for machines and a text for people.
macro_rules! named {
    ($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $value:ident = $name:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $enum {
            $(#[doc = $text] $(#[$doc])* $value,)*
        }

        impl $enum {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$value,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name, as in `stats --json`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$value => $name,)* }
            }

            /// What it means, for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$value => $text,)* }
            }
        }

        impl core::fmt::Display for $enum {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// Why a packet was dropped, or a command not carried out.
    Reason {
        NotIpv4 = "not-ipv4", "Ethernet frame that does not hold IPv4, or behind a pool port IPv6";
        OuterHeader = "outer-header", "outer IPv4 header with impossible lengths";
        OuterChecksum = "outer-checksum", "outer IPv4 header with a wrong checksum";
        OuterFragment = "outer-fragment", "fragment of an outer IPv4 packet that was not reassembled";
        OuterProtocol = "outer-protocol", "IPv4 packet on the access port that is neither GRE nor for a route";
        GreShort = "gre-short", "GRE header cut short";
        GreVersion = "gre-version", "GRE of another version than 1";
        GreProtocol = "gre-protocol", "GRE that does not carry PPP";
        GreFlags = "gre-flags", "GRE with flags that RFC 2637 forbids";
        GreTruncated = "gre-truncated", "GRE payload shorter than its header says";
        UnknownCall = "unknown-call", "GRE for a call id that nobody has";
        WrongSource = "wrong-source", "GRE for a known call id from another address than its peer's";
        SourceUnknown = "source-unknown", "GRE for a call that has not shown by a valid LCP frame where its GRE comes from";
        WrongDestination = "wrong-destination", "GRE for a known call to another of our addresses than it was dialled on";
        GreLate = "gre-late", "GRE number before the last one delivered";
        GreDuplicate = "gre-duplicate", "GRE number that came before";
        EmptyPayload = "empty-payload", "GRE packet with a number and no payload";
        PppShort = "ppp-short", "PPP frame without a whole protocol number";
        FrameTooLong = "frame-too-long", "control frame, or packet for ourselves, longer than RFC 2637 allows";
        FrameRate = "frame-rate", "control frame beyond what one call may send";
        EventRingFull = "event-ring-full", "control frame, or packet for ourselves, that found the event ring full";
        InnerRate = "inner-rate", "packet for ourselves inside a call beyond what one call may send";
        MppeNoKeys = "mppe-no-keys", "MPPE packet while no receive keys are running";
        MppeShort = "mppe-short", "MPPE packet shorter than its header";
        MppeNotEncrypted = "mppe-not-encrypted", "MPPE packet without the encrypted bit";
        MppeCompressed = "mppe-compressed", "MPPE packet with compression bits";
        MppeNotFlushed = "mppe-not-flushed", "stateless MPPE packet without the flushed bit";
        MppeLate = "mppe-late", "MPPE count before the last one";
        MppeTooFarAhead = "mppe-too-far-ahead", "MPPE count more key changes away than one packet may cost";
        MppeNeedReset = "mppe-need-reset", "stateful MPPE packet after a loss";
        MppeGarbage = "mppe-garbage", "MPPE packet that decrypts to nothing sensible";
        ControlInMppe = "control-in-mppe", "control protocol inside MPPE";
        UnknownInMppe = "unknown-in-mppe", "PPP protocol inside MPPE that is neither IPv4 nor IPv6";
        PlainRefused = "plain-refused", "data in clear while encryption is required";
        EncryptedRefused = "encrypted-refused", "data encrypted by keys that were offered and not acknowledged, in a call in clear";
        NotYetForwarding = "not-yet-forwarding", "data before the call may carry any";
        NotYetEncrypted = "not-yet-encrypted", "data while not both directions are encrypted as required";
        InnerHeader = "inner-header", "inner packet that is not what its PPP protocol says or has impossible lengths";
        InnerChecksum = "inner-checksum", "inner IPv4 header with a wrong checksum";
        Spoofed = "spoofed", "inner source address that is not the client's";
        LinkScope = "link-scope", "inner IPv6 packet for the link itself, to which there is no answer";
        SameLink = "same-link", "inner IPv6 packet from a call for an address of the same call";
        WrongInnerDestination = "wrong-inner-destination", "inner destination that is not ours";
        TtlExpired = "ttl-expired", "inner packet at the end of its life with no host port to answer it";
        NoRoute = "no-route", "inner packet for an address without a route";
        PoolWithoutCall = "pool-without-call", "inner packet for a pool address that no call has";
        TooBig = "too-big", "inner packet larger than the tunnel that no router may fragment";
        FragmentFailed = "fragment-failed", "inner packet larger than the tunnel that could not be fragmented";
        NoNeighbour = "no-neighbour", "next hop whose link-layer address is not known";
        NoHeadroom = "no-headroom", "frame without room for its headers";
        TransmitFull = "transmit-full", "transmit ring full";
        NoMemory = "no-memory", "no free chunk of packet memory";
        NoPort = "no-port", "packet for a port that there is not";
        HandoffFull = "handoff-full", "ring to another worker full";
        DatagramTooLong = "datagram-too-long", "reassembled datagram that fits no chunk";
        ResetIgnored = "reset-ignored", "CCP reset for a direction without keys, or one that nobody asked for";
        ResetUnacknowledged = "reset-unacknowledged", "CCP Reset-Request obeyed without a Reset-Ack, which its peer has rejected";
        NoSuchPort = "no-such-port", "command for a port that there is not";
        NoSuchCall = "no-such-call", "command for a call that does not exist";
        CallExists = "call-exists", "command to open a call that is open";
        CallsFull = "calls-full", "command to open a call beyond the configured number";
        RoutesFull = "routes-full", "command for a route beyond the configured number";
        NeighboursFull = "neighbours-full", "command for a neighbour beyond the configured number";
        LocalsFull = "locals-full", "command for an address of the machine beyond what a worker remembers";
        CaptureRingFull = "capture-ring-full", "captured packet that found the capture ring full";
    }
}

named! {
    /// What a worker counts besides drops.
    Total {
        AcksReceived = "acks-received", "GRE packets from peers that only acknowledge";
        AcksSent = "acks-sent", "GRE packets to peers that only acknowledge";
        FramesReceived = "frames-received", "control frames handed to the control plane";
        FramesSent = "frames-sent", "control frames that the control plane sent to peers";
        InnerReceived = "inner-received", "packets inside calls handed to the control plane";
        InnerSent = "inner-sent", "packets that the control plane sent inside calls";
        EchoesAnswered = "echoes-answered", "LCP Echo-Requests answered";
        ResetsAnswered = "resets-answered", "CCP Reset-Requests answered";
        ResetsRequested = "resets-requested", "CCP Reset-Requests sent after a loss in stateful MPPE";
        Decapsulated = "decapsulated", "inner packets taken out of tunnels and forwarded";
        Encapsulated = "encapsulated", "inner packets put into tunnels";
        Missing = "missing", "GRE numbers that never came";
        Held = "reorder-held", "GRE packets that waited for earlier ones";
        Released = "reorder-released", "GRE packets that waited and were delivered in order";
        ReorderTimeouts = "reorder-timeouts", "times a call stopped waiting because a packet had waited long enough";
        ReorderFull = "reorder-full", "times a call stopped waiting because there was no room for one more packet";
        ReorderFlushed = "reorder-flushed", "GRE packets that waited until their call ended, and were delivered";
        Fragmented = "fragmented", "inner packets that went into their tunnel in pieces";
        FragmentsMade = "fragments-made", "fragments of inner packets made";
        IcmpSent = "icmp-sent", "ICMP errors sent";
        IcmpSuppressed = "icmp-suppressed", "ICMP errors not sent because too many were or the rules forbid them";
        MssClamped = "mss-clamped", "TCP SYN packets whose MSS was lowered";
        HandedOver = "handed-over", "packets given to other workers";
        TakenOver = "taken-over", "packets taken from other workers";
        Datagrams = "datagrams", "reassembled datagrams received back from Linux";
        Commands = "commands", "commands carried out";
        EventStalls = "event-stalls", "turns in which commands waited for room in the event ring";
        Captured = "captured", "packets copied to the capture ring";
        Turns = "turns", "turns that found something to do";
        Sleeps = "sleeps", "times the worker slept";
    }
}

impl Reason {
    /// Whether this is the end of a packet, rather than of a command or of a copy.
    pub const fn is_packet(self) -> bool {
        !matches!(
            self,
            Self::NoSuchPort
                | Self::NoSuchCall
                | Self::CallExists
                | Self::CallsFull
                | Self::RoutesFull
                | Self::NeighboursFull
                | Self::LocalsFull
                | Self::CaptureRingFull
        )
    }
}

/// A worker's books of packets: both figures are equal between turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Balance {
    /// Packets received from ports, from other workers and from Linux, and those that the worker made.
    pub came: u64,
    /// Packets given to ports and other workers, those that ended with the worker, and those dropped under any name.
    pub went: u64,
}

/// Frames and octets of one port in one direction. Octets are those of whole Ethernet frames without their checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Octets.
    pub octets: u64,
}

#[derive(Debug, Default)]
struct TrafficCell {
    frames: AtomicU64,
    octets: AtomicU64,
}

impl TrafficCell {
    fn add(&self, frames: u64, octets: u64) {
        add(&self.frames, frames);
        add(&self.octets, octets);
    }

    fn get(&self) -> Traffic {
        Traffic {
            frames: self.frames.load(Ordering::Relaxed),
            octets: self.octets.load(Ordering::Relaxed),
        }
    }
}

/// A page of counters; see the module's text.
#[derive(Debug)]
pub struct Counters {
    reasons: CachePadded<[AtomicU64; Reason::COUNT]>,
    totals: CachePadded<[AtomicU64; Total::COUNT]>,
    received: CachePadded<[TrafficCell; Port::ALL.len()]>,
    transmitted: CachePadded<[TrafficCell; Port::ALL.len()]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            reasons: CachePadded::new([const { AtomicU64::new(0) }; Reason::COUNT]),
            totals: CachePadded::new([const { AtomicU64::new(0) }; Total::COUNT]),
            received: CachePadded::default(),
            transmitted: CachePadded::default(),
        }
    }
}

impl Counters {
    /// How often something was dropped for this reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize].load(Ordering::Relaxed)
    }

    /// Every reason that has occurred.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL
            .iter()
            .map(|reason| (*reason, self.reason(*reason)))
            .filter(|(_, count)| *count > 0)
    }

    /// A total.
    pub fn total(&self, total: Total) -> u64 {
        self.totals[total as usize].load(Ordering::Relaxed)
    }

    /// Every total.
    pub fn totals(&self) -> impl Iterator<Item = (Total, u64)> {
        Total::ALL.iter().map(|total| (*total, self.total(*total)))
    }

    /// What was taken from a port.
    pub fn received(&self, port: Port) -> Traffic {
        self.received[port as usize].get()
    }

    /// What was given to a port to send.
    pub fn transmitted(&self, port: Port) -> Traffic {
        self.transmitted[port as usize].get()
    }

    /// The books. Figures that are read while a turn runs may be apart by what that turn has in hand.
    pub fn balance(&self) -> Balance {
        let totals = |totals: &[Total]| totals.iter().map(|total| self.total(*total)).sum::<u64>();
        let ports = |cells: &[TrafficCell]| cells.iter().map(|cell| cell.get().frames).sum::<u64>();
        let dropped = self.reasons().filter(|(reason, _)| reason.is_packet());
        Balance {
            came: ports(&*self.received)
                + totals(&[
                    Total::TakenOver,
                    Total::Datagrams,
                    Total::FramesSent,
                    Total::InnerSent,
                    Total::AcksSent,
                    Total::FragmentsMade,
                    Total::IcmpSent,
                    // What is held has gone to the queue, and comes again from there.
                    Total::Released,
                ]),
            went: ports(&*self.transmitted)
                + totals(&[
                    Total::HandedOver,
                    Total::FramesReceived,
                    Total::InnerReceived,
                    Total::AcksReceived,
                    Total::Fragmented,
                    Total::Held,
                ])
                + dropped.map(|(_, count)| count).sum::<u64>(),
        }
    }

    pub(crate) fn dropped(&self, reason: Reason) {
        add(&self.reasons[reason as usize], 1);
    }

    pub(crate) fn add(&self, total: Total, n: u64) {
        add(&self.totals[total as usize], n);
    }

    pub(crate) fn add_received(&self, port: Port, frames: u64, octets: u64) {
        self.received[port as usize].add(frames, octets);
    }

    pub(crate) fn add_transmitted(&self, port: Port, frames: u64, octets: u64) {
        self.transmitted[port as usize].add(frames, octets);
    }
}

/// There is one writer, so a load and a store do; they cost less than a locked addition.
fn add(cell: &AtomicU64, n: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_machines() {
        let names: Vec<_> = Reason::ALL
            .iter()
            .map(|r| r.name())
            .chain(Total::ALL.iter().map(|t| t.name()))
            .collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        for name in names {
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
        }
    }

    #[test]
    fn counts_what_it_is_told() {
        let counters = Counters::default();
        counters.dropped(Reason::Spoofed);
        counters.dropped(Reason::Spoofed);
        counters.add(Total::Missing, 7);
        counters.add_received(Port::Host, 2, 120);
        assert_eq!(
            counters.reasons().collect::<Vec<_>>(),
            [(Reason::Spoofed, 2)]
        );
        assert_eq!(counters.total(Total::Missing), 7);
        assert_eq!(
            counters.received(Port::Host),
            Traffic {
                frames: 2,
                octets: 120
            }
        );
        assert_eq!(counters.received(Port::Access), Traffic::default());
    }
}
