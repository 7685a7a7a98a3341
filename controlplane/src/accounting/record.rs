//! What is kept of a session, and when.

use core::fmt;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use ipnet::Ipv6Net;
use turnpike_dataplane::api::CallCounters;

use crate::cause::Cause;

/// A point in time: milliseconds since 1970, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(pub i64);

impl Moment {
    /// What the system's clock says.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self(since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0)))
    }

    /// Whole seconds since 1970, as Event-Timestamp (RFC 2869 §5.3) has them.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whole seconds since `earlier`; 0 when the clock was set back meanwhile.
    pub fn seconds_since(self, earlier: Self) -> u32 {
        u32::try_from((self.0 - earlier.0).max(0) / 1000).unwrap_or(u32::MAX)
    }
}

/// Acct-Session-Id (RFC 2866 §5.5): 16 hexadecimal digits. The first eight are the same for one start of the server and
/// larger for the next, the others count its sessions, so no id comes twice, whatever is restarted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Acct-Status-Type (RFC 2866 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A session began.
    Start,
    /// It is over.
    Stop,
    /// It goes on; how much it moved until now.
    Interim,
    /// The server started; no session of before is left.
    On,
    /// The server stops.
    Off,
    /// A call that never became a session.
    Failed,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Start,
        Self::Stop,
        Self::Interim,
        Self::On,
        Self::Off,
        Self::Failed,
    ];

    /// Its number in Acct-Status-Type.
    pub const fn code(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Stop => 2,
            Self::Interim => 3,
            Self::On => 7,
            Self::Off => 8,
            Self::Failed => 15,
        }
    }

    /// The kind of this number.
    pub fn of(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }
}

/// What moved inside a session, from its beginning: inner IP packets and their octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// From the client.
    pub received_packets: u64,
    /// Octets of these.
    pub received_octets: u64,
    /// To the client.
    pub sent_packets: u64,
    /// Octets of these.
    pub sent_octets: u64,
}

impl Traffic {
    /// What moved since the counters stood at `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            received_packets: self
                .received_packets
                .saturating_sub(before.received_packets),
            received_octets: self.received_octets.saturating_sub(before.received_octets),
            sent_packets: self.sent_packets.saturating_sub(before.sent_packets),
            sent_octets: self.sent_octets.saturating_sub(before.sent_octets),
        }
    }
}

impl From<&CallCounters> for Traffic {
    fn from(counters: &CallCounters) -> Self {
        Self {
            received_packets: counters.received_packets,
            received_octets: counters.received_octets,
            sent_packets: counters.sent_packets,
            sent_octets: counters.sent_octets,
        }
    }
}

/// Who proved the user: Acct-Authentic (RFC 2866 §5.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Authentic {
    /// A RADIUS server.
    Radius,
    /// This server's own users.
    #[default]
    Local,
}

impl Authentic {
    /// Its number in Acct-Authentic.
    pub const fn code(self) -> u8 {
        match self {
            Self::Radius => 1,
            Self::Local => 2,
        }
    }
}

/// What does not change while a session lasts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The user; of a failed attempt as the client gave it, and empty when it gave none.
    pub user: String,
    /// The client's outer address.
    pub client: Ipv4Addr,
    /// The address that it dialled.
    pub server: Ipv4Addr,
    /// Its inner address.
    pub address: Option<Ipv4Addr>,
    /// The prefix of its link.
    pub prefix: Option<Ipv6Net>,
    /// The prefix that is kept for the network behind it.
    pub delegated: Option<Ipv6Net>,
    /// Calling-Station-Id.
    pub calling_station: String,
    /// Called-Station-Id.
    pub called_station: String,
    /// NAS-Port.
    pub nas_port: Option<u32>,
    /// NAS-Port-Id.
    pub nas_port_id: String,
    /// Who proved the user.
    pub authentic: Authentic,
    /// Every Class attribute of the Access-Accept, in their order and as they came (RFC 2865 §5.25).
    pub class: Vec<Vec<u8>>,
}

/// Why a session ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Termination {
    /// The name of a [`Cause`].
    pub cause: String,
    /// Acct-Terminate-Cause (RFC 2866 §5.10).
    pub code: u8,
}

/// One accounting record, as it is delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its place among all records.
    pub number: i64,
    /// What it tells.
    pub kind: Kind,
    /// When that happened: Event-Timestamp.
    pub at: Moment,
    /// The session; `None` with [`Kind::On`] and [`Kind::Off`].
    pub session: Option<(SessionId, Facts)>,
    /// How long the session has lasted, in seconds.
    pub session_time: u32,
    /// What it moved.
    pub traffic: Traffic,
    /// Why it ended, with [`Kind::Stop`] and [`Kind::Failed`].
    pub termination: Option<Termination>,
}

impl Record {
    /// Acct-Delay-Time (RFC 2866 §5.2) of a request that is sent `now`, in seconds.
    pub fn delay(&self, now: Moment) -> u32 {
        now.seconds_since(self.at)
    }

    /// Whose record it is.
    pub fn session_id(&self) -> Option<SessionId> {
        self.session.as_ref().map(|(id, _)| *id)
    }
}

/// One thing to write down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A session begins.
    Begin {
        /// Its id.
        id: SessionId,
        /// What is known of it.
        facts: Box<Facts>,
        /// When.
        at: Moment,
    },
    /// A session that goes on was looked at.
    Reading {
        /// Its id.
        id: SessionId,
        /// When.
        at: Moment,
        /// How long it has lasted, in seconds.
        session_time: u32,
        /// What it moved.
        traffic: Traffic,
        /// Whether an Interim record is made of it.
        interim: bool,
    },
    /// A session is over.
    End {
        /// Its id.
        id: SessionId,
        /// When.
        at: Moment,
        /// How long it lasted, in seconds.
        session_time: u32,
        /// What it moved.
        traffic: Traffic,
        /// Why it is over.
        cause: Cause,
    },
    /// A call ended that never became a session.
    Failed {
        /// Its id.
        id: SessionId,
        /// What is known of it.
        facts: Box<Facts>,
        /// When.
        at: Moment,
        /// Why.
        cause: Cause,
    },
    /// The server can be dialled.
    On {
        /// Since when.
        at: Moment,
    },
    /// The server has stopped.
    Off {
        /// When.
        at: Moment,
    },
    /// A record was delivered.
    Delivered {
        /// Its number.
        number: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_numbers_of_the_rfc() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.code()), Some(*kind));
        }
        assert_eq!(Kind::of(4), None);
        assert_eq!(
            Kind::ALL.iter().map(|kind| kind.code()).collect::<Vec<_>>(),
            [1, 2, 3, 7, 8, 15]
        );
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_large_delay() {
        let (early, late) = (Moment(1_700_000_000_900), Moment(1_700_000_060_100));
        assert_eq!(late.seconds_since(early), 59);
        assert_eq!(early.seconds_since(late), 0);
        assert_eq!((early.seconds(), Moment(-1).seconds()), (1_700_000_000, -1));
        assert_eq!(Moment(i64::MAX).seconds_since(Moment(0)), u32::MAX);
    }

    #[test]
    fn ids_are_sixteen_digits() {
        assert_eq!(
            SessionId(0x6a1b_0000_0000_0011).to_string(),
            "6a1b000000000011"
        );
        assert_eq!(SessionId(1).to_string(), "0000000000000001");
    }
}
