//! A received packet, and whether it is from who shares the secret.

use subtle::ConstantTimeEq;

use super::{Attribute, Code, Secret};
use crate::Error;

/// Code, identifier, length and authenticator (RFC 2865 §3).
pub const HEADER_LEN: usize = 20;

/// The most octets of a packet (RFC 2865 §3).
pub const MAX_LEN: usize = 4096;

/// Type, length, vendor: what stands in front of the attributes of a vendor.
const VENDOR_HEADER: usize = 6;

/// A packet whose lengths are right: header and attributes, and nothing behind them.
#[derive(Clone, Copy)]
pub struct Packet<'a>(&'a [u8]);

/// Whether a packet that was verified had a Message-Authenticator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signature {
    /// It had one, and it was right.
    Signed,
    /// It had none: what the sender proves rests on MD5 alone, which can be forged (CVE-2024-3596) by who can change packets on
    /// their way.
    Unsigned,
}

/// Why a packet is not from who shares the secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Forgery {
    /// The header's authenticator is wrong: another secret, an answer to another request, or a forgery.
    #[error("the authenticator is wrong")]
    Authenticator,
    /// The Message-Authenticator is wrong, though the other is right, or there is more than one.
    #[error("the Message-Authenticator is wrong")]
    MessageAuthenticator,
}

impl<'a> Packet<'a> {
    /// Checks the lengths. Octets behind the packet's own length are padding (RFC 2865 §3).
    ///
    /// # Errors
    /// [`Error::Malformed`]: to be dropped without an answer.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Error> {
        let length = match *datagram {
            [_, _, high, low, ..] => usize::from(u16::from_be_bytes([high, low])),
            _ => return Err(Error::Malformed("RADIUS header")),
        };
        if !(HEADER_LEN..=MAX_LEN).contains(&length) {
            return Err(Error::Malformed("RADIUS length"));
        }
        let octets = datagram
            .get(..length)
            .ok_or(Error::Malformed("RADIUS length"))?;
        let mut rest = &octets[HEADER_LEN..];
        while !rest.is_empty() {
            let length = match *rest {
                [_, length, ..] if length >= 2 => usize::from(length),
                _ => return Err(Error::Malformed("RADIUS attribute")),
            };
            rest = rest
                .get(length..)
                .ok_or(Error::Malformed("RADIUS attribute"))?;
        }
        Ok(Self(octets))
    }

    /// What it is.
    pub fn code(&self) -> Code {
        Code(self.0[0])
    }

    /// Which request it is, or answers.
    pub fn identifier(&self) -> u8 {
        self.0[1]
    }

    /// The authenticator in its header.
    pub fn authenticator(&self) -> &'a [u8; 16] {
        let octets = self.0[4..].first_chunk();
        // Checked by `parse`.
        octets.unwrap_or(&[0; 16])
    }

    /// All of it.
    pub fn octets(&self) -> &'a [u8] {
        self.0
    }

    /// Its attributes in order; those of vendors one by one.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            rest: &self.0[HEADER_LEN..],
            vendor: 0,
            within: &[],
        }
    }

    /// The values of this attribute, in order.
    pub fn all(&self, attribute: Attribute) -> impl Iterator<Item = &'a [u8]> {
        self.attributes()
            .filter(move |(other, _)| *other == attribute)
            .map(|(_, value)| value)
    }

    /// The first value of this attribute.
    pub fn find(&self, attribute: Attribute) -> Option<&'a [u8]> {
        self.all(attribute).next()
    }

    /// Checks an answer to the request that had this authenticator.
    ///
    /// # Errors
    /// Says what is wrong: the answer is to be dropped, and the request stays unanswered.
    pub fn verify_response(
        &self,
        request: &[u8; 16],
        secret: &Secret,
    ) -> Result<Signature, Forgery> {
        let expected = secret.md5_behind(&[&self.0[..4], request, &self.0[HEADER_LEN..]]);
        if !bool::from(expected.ct_eq(self.authenticator())) {
            return Err(Forgery::Authenticator);
        }
        self.verify_message(request, secret)
    }

    /// Checks a request: its Message-Authenticator, and its own authenticator where that is made with the secret.
    ///
    /// # Errors
    /// Says what is wrong: the request is to be dropped.
    pub fn verify_request(&self, secret: &Secret) -> Result<Signature, Forgery> {
        if self.code().is_random() {
            return self.verify_message(self.authenticator(), secret);
        }
        let expected = secret.md5_behind(&[&self.0[..4], &[0; 16], &self.0[HEADER_LEN..]]);
        if !bool::from(expected.ct_eq(self.authenticator())) {
            return Err(Forgery::Authenticator);
        }
        // RFC 5176 §3.4: computed over an authenticator of zeros.
        self.verify_message(&[0; 16], secret)
    }

    fn verify_message(
        &self,
        authenticator: &[u8; 16],
        secret: &Secret,
    ) -> Result<Signature, Forgery> {
        let mut at = HEADER_LEN;
        let mut found = None;
        while let [number, length, ..] = self.0[at..] {
            if number == Attribute::MESSAGE_AUTHENTICATOR.number
                && found.replace((at, length)).is_some()
            {
                return Err(Forgery::MessageAuthenticator);
            }
            at += usize::from(length);
        }
        match found {
            None => Ok(Signature::Unsigned),
            Some((at, 18)) => {
                let (before, own) = self.0.split_at(at + 2);
                let (own, behind) = own.split_at(16);
                let expected = secret.hmac(&[
                    &before[..4],
                    authenticator,
                    &before[HEADER_LEN..],
                    &[0; 16],
                    behind,
                ]);
                if bool::from(expected.ct_eq(own)) {
                    Ok(Signature::Signed)
                } else {
                    Err(Forgery::MessageAuthenticator)
                }
            }
            Some(_) => Err(Forgery::MessageAuthenticator),
        }
    }
}

/// Walks the attributes of a [`Packet`]. A Vendor-Specific whose inside is not a row of attributes comes as it is.
#[derive(Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    /// Of whom those in `within` are.
    vendor: u32,
    /// What is left of a Vendor-Specific.
    within: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (Attribute, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.within.is_empty() {
            let (number, value, rest) = split(self.rest)?;
            self.rest = rest;
            match vendor(number, value) {
                Some((vendor, within)) => (self.vendor, self.within) = (vendor, within),
                None => return Some((Attribute { vendor: 0, number }, value)),
            }
        }
        let (number, value, within) = split(self.within)?;
        self.within = within;
        let vendor = self.vendor;
        Some((Attribute { vendor, number }, value))
    }
}

/// The first attribute of a row: type, value, and what follows.
fn split(row: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let &[number, length, ..] = row else {
        return None;
    };
    let (own, rest) = row.split_at_checked(usize::from(length))?;
    Some((number, own.get(2..)?, rest))
}

/// The vendor and the attributes inside a Vendor-Specific, if it has this usual form (RFC 2865 §5.26).
fn vendor(number: u8, value: &[u8]) -> Option<(u32, &[u8])> {
    let (vendor, within) = value.split_first_chunk::<{ VENDOR_HEADER - 2 }>()?;
    let vendor = u32::from_be_bytes(*vendor);
    let specific = number == Attribute::VENDOR_SPECIFIC.number && vendor != 0 && !within.is_empty();
    let mut rest = within;
    while specific && !rest.is_empty() {
        rest = split(rest)?.2;
    }
    specific.then_some((vendor, within))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(attributes: &[u8]) -> Vec<u8> {
        let length = (HEADER_LEN + attributes.len()) as u16;
        [&[1, 7], &length.to_be_bytes()[..], &[9; 16], attributes].concat()
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for wrong in [
            &b""[..],
            &[1, 2, 0],
            &[1; 19],
            &packet(&[1]),
            &packet(&[1, 1]),
            &packet(&[1, 0]),
            &packet(&[1, 4, 0]),
            &packet(b"")[..19],
            &[&[1, 1, 0x10, 0x01][..], &[0; 5000]].concat(),
            &[&[1, 1, 0, 19][..], &[0; 30]].concat(),
        ] {
            assert!(Packet::parse(wrong).is_err(), "{wrong:?}");
        }
        // Padding is no part of it.
        let padded = [&packet(&[1, 3, b'a'])[..], &[0xff; 9]].concat();
        let parsed = Packet::parse(&padded).unwrap();
        assert_eq!(parsed.octets().len(), 23);
        assert_eq!(parsed.find(Attribute::USER_NAME), Some(&b"a"[..]));
        assert_eq!(
            (parsed.code(), parsed.identifier()),
            (Code::ACCESS_REQUEST, 7)
        );
        assert_eq!(parsed.authenticator(), &[9; 16]);
    }

    #[test]
    fn attributes_of_vendors_come_one_by_one() {
        let octets = packet(&[
            26, 14, 0, 0, 1, 55, 28, 6, 10, 0, 0, 1, 99, 2, // two of Microsoft's
            1, 2, // an empty name
            26, 7, 0, 0, 0, 9, 1, // not in the usual form
            26, 6, 0, 0, 1, 55, // nothing inside
            26, 2,
        ]);
        let found: Vec<_> = Packet::parse(&octets).unwrap().attributes().collect();
        let unknown = Attribute {
            vendor: 311,
            number: 99,
        };
        assert_eq!(
            found,
            [
                (Attribute::MS_PRIMARY_DNS_SERVER, &[10, 0, 0, 1][..]),
                (unknown, &[]),
                (Attribute::USER_NAME, &[]),
                (Attribute::VENDOR_SPECIFIC, &[0, 0, 0, 9, 1]),
                (Attribute::VENDOR_SPECIFIC, &[0, 0, 1, 55]),
                (Attribute::VENDOR_SPECIFIC, &[]),
            ]
        );
    }
}
