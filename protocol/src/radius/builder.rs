//! Making a packet.

use core::net::IpAddr;

use super::hidden::{hide_password, hide_salted};
use super::packet::{HEADER_LEN, MAX_LEN};
use super::{Attribute, Code, Secret};

/// How a packet's authenticator is made.
#[derive(Clone, Copy)]
pub enum Seal<'a> {
    /// 16 octets that nobody can foresee: Access-Request, Status-Server (RFC 2865 §3).
    Random([u8; 16]),
    /// From the packet and the secret: Accounting-Request, CoA-Request, Disconnect-Request (RFC 2866 §3).
    Computed,
    /// From the packet, the secret and the authenticator of the request that this answers.
    Response(&'a [u8; 16]),
}

impl Seal<'_> {
    /// What stands in the header while the rest is made, and hides passwords and keys.
    fn authenticator(&self) -> [u8; 16] {
        match self {
            Self::Random(octets) => *octets,
            Self::Computed => [0; 16],
            Self::Response(request) => **request,
        }
    }
}

/// More than the 4,096 octets of a packet, or than the 253 of a value (247 of a vendor's).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too long for RADIUS")]
pub struct TooLong;

/// A packet that is being made. Values are put in order; whatever is too long is told at the end.
pub struct Builder<'a> {
    octets: Vec<u8>,
    seal: Seal<'a>,
    secret: &'a Secret,
    /// Where the Message-Authenticator's value stands.
    signature: Option<usize>,
    too_long: bool,
}

impl<'a> Builder<'a> {
    /// Begins a packet with a Message-Authenticator, as the first attribute: then no prefix of a forger's choice can stand in
    /// front of it (CVE-2024-3596).
    pub fn new(code: Code, identifier: u8, seal: Seal<'a>, secret: &'a Secret) -> Self {
        let mut builder = Self::unsigned(code, identifier, seal, secret);
        builder.signature = Some(builder.octets.len() + 2);
        builder.octets(Attribute::MESSAGE_AUTHENTICATOR, &[0; 16])
    }

    /// Begins one without: Accounting (RFC 2869 §5.19 has no place for it there), and servers of old.
    pub fn unsigned(code: Code, identifier: u8, seal: Seal<'a>, secret: &'a Secret) -> Self {
        let mut octets = vec![code.0, identifier, 0, 0];
        octets.extend_from_slice(&seal.authenticator());
        Self {
            octets,
            seal,
            secret,
            signature: None,
            too_long: false,
        }
    }

    /// Adds a value as it is.
    #[must_use]
    pub fn octets(mut self, attribute: Attribute, value: &[u8]) -> Self {
        self.push(attribute, value);
        self
    }

    /// Adds a value as it is.
    pub fn push(&mut self, attribute: Attribute, value: &[u8]) {
        if value.len() > attribute.max_value() || self.octets.len() + value.len() + 8 > MAX_LEN {
            self.too_long = true;
            return;
        }
        let length = value.len() as u8 + 2;
        if attribute.vendor != 0 {
            let header = [Attribute::VENDOR_SPECIFIC.number, length + 6];
            self.octets.extend_from_slice(&header);
            self.octets
                .extend_from_slice(&attribute.vendor.to_be_bytes());
        }
        self.octets.extend_from_slice(&[attribute.number, length]);
        self.octets.extend_from_slice(value);
    }

    /// Adds text.
    #[must_use]
    pub fn text(self, attribute: Attribute, text: &str) -> Self {
        self.octets(attribute, text.as_bytes())
    }

    /// Adds a number; behind a tag of 0 where the attribute has one (RFC 2868 §3.1), and then of at most 24 bits.
    #[must_use]
    pub fn integer(self, attribute: Attribute, number: u32) -> Self {
        self.octets(attribute, &number.to_be_bytes())
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, attribute: Attribute, address: impl Into<IpAddr>) -> Self {
        match address.into() {
            IpAddr::V4(address) => self.octets(attribute, &address.octets()),
            IpAddr::V6(address) => self.octets(attribute, &address.octets()),
        }
    }

    /// Adds octets that are hidden like User-Password (RFC 2865 §5.2): as many as 128, filled up with zeros to a multiple of 16.
    #[must_use]
    pub fn hidden(mut self, attribute: Attribute, clear: &[u8]) -> Self {
        match hide_password(self.secret, &self.seal.authenticator(), clear) {
            Some(value) => self.push(attribute, &value),
            None => self.too_long = true,
        }
        self
    }

    /// Adds a key that is hidden with a salt (RFC 2548 §2.4.2), whose top bit is set here. Each salt of a packet must be another.
    #[must_use]
    pub fn salted(mut self, attribute: Attribute, salt: u16, clear: &[u8]) -> Self {
        match hide_salted(self.secret, &self.seal.authenticator(), salt, clear) {
            Some(value) => self.push(attribute, &value),
            None => self.too_long = true,
        }
        self
    }

    /// The packet.
    ///
    /// # Errors
    /// [`TooLong`] when something did not fit.
    pub fn finish(mut self) -> Result<Vec<u8>, TooLong> {
        if self.too_long {
            return Err(TooLong);
        }
        let length = self.octets.len() as u16;
        self.octets[2..4].copy_from_slice(&length.to_be_bytes());
        // Over the authenticator that stands there now: the request's in a response, zeros where it is computed.
        if let Some(at) = self.signature {
            let signature = self.secret.hmac(&[&self.octets]);
            self.octets[at..at + 16].copy_from_slice(&signature);
        }
        if !matches!(self.seal, Seal::Random(_)) {
            let authenticator = self.secret.md5_behind(&[&self.octets]);
            self.octets[4..HEADER_LEN].copy_from_slice(&authenticator);
        }
        Ok(self.octets)
    }
}
