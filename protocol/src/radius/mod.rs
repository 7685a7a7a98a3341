//! RADIUS (RFC 2865, 2866, 2868, 2869, 5176, 5997; Microsoft's attributes of RFC 2548) as bytes, for both ends: client and server
//! use the same [`Builder`] and [`Packet`].
//!
//! A datagram is parsed before it is believed: [`Packet::parse`] checks lengths, [`Packet::verify_response`] and
//! [`Packet::verify_request`] check who sent it. What the shared secret hides (passwords, keys) is in `hidden`, what MS-CHAP
//! and MPPE put into attributes in [`microsoft`].

mod attribute;
mod builder;
mod hidden;
pub mod microsoft;
mod packet;
mod secret;

pub use attribute::{
    Attribute, CISCO, Kind, MICROSOFT, MIKROTIK, WISPR, address, address6, integer, prefix6,
    prefix6_octets, show, untagged,
};
pub use builder::{Builder, Seal, TooLong};
pub use hidden::{HiddenFault, reveal_password, reveal_salted, reveal_tunnel_password};
pub use packet::{Attributes, Forgery, HEADER_LEN, MAX_LEN, Packet, Signature};
pub use secret::Secret;

/// What a packet is (RFC 2865 §4, RFC 5176 §2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Code(pub u8);

impl Code {
    /// Access-Request.
    pub const ACCESS_REQUEST: Self = Self(1);
    /// Access-Accept.
    pub const ACCESS_ACCEPT: Self = Self(2);
    /// Access-Reject.
    pub const ACCESS_REJECT: Self = Self(3);
    /// Accounting-Request.
    pub const ACCOUNTING_REQUEST: Self = Self(4);
    /// Accounting-Response.
    pub const ACCOUNTING_RESPONSE: Self = Self(5);
    /// Access-Challenge.
    pub const ACCESS_CHALLENGE: Self = Self(11);
    /// Status-Server (RFC 5997).
    pub const STATUS_SERVER: Self = Self(12);
    /// Disconnect-Request (RFC 5176).
    pub const DISCONNECT_REQUEST: Self = Self(40);
    /// Disconnect-ACK.
    pub const DISCONNECT_ACK: Self = Self(41);
    /// Disconnect-NAK.
    pub const DISCONNECT_NAK: Self = Self(42);
    /// CoA-Request.
    pub const COA_REQUEST: Self = Self(43);
    /// CoA-ACK.
    pub const COA_ACK: Self = Self(44);
    /// CoA-NAK.
    pub const COA_NAK: Self = Self(45);

    /// Whether the authenticator of such a request is random, and its sender known by a Message-Authenticator only. That of
    /// the others is made with the secret (RFC 2866 §3, RFC 5176 §2.3).
    pub const fn is_random(self) -> bool {
        matches!(self, Self::ACCESS_REQUEST | Self::STATUS_SERVER)
    }

    /// Whether such a packet may answer a `request`.
    pub const fn answers(self, request: Self) -> bool {
        match request {
            Self::ACCESS_REQUEST => matches!(
                self,
                Self::ACCESS_ACCEPT | Self::ACCESS_REJECT | Self::ACCESS_CHALLENGE
            ),
            Self::ACCOUNTING_REQUEST => matches!(self, Self::ACCOUNTING_RESPONSE),
            // RFC 5997 §3: each port answers as it answers what it is for.
            Self::STATUS_SERVER => {
                matches!(self, Self::ACCESS_ACCEPT | Self::ACCOUNTING_RESPONSE)
            }
            Self::DISCONNECT_REQUEST => {
                matches!(self, Self::DISCONNECT_ACK | Self::DISCONNECT_NAK)
            }
            Self::COA_REQUEST => matches!(self, Self::COA_ACK | Self::COA_NAK),
            _ => false,
        }
    }
}
