//! RC4 over packets.

use rc4::{Rc4, StreamCipher};

use super::keys::{self, SessionKey};
use super::stateful::Search;

/// RC4 tables that run on from packet to packet (stateful mode). Cleaned when dropped; never printed.
pub struct Rc4State(Rc4);

impl Rc4State {
    /// The tables at the start of the key stream of `key`.
    pub fn new(key: &SessionKey) -> Self {
        Self(keys::rc4(key.bytes()))
    }

    /// Encrypts or decrypts `octets` in place with the next of the key stream.
    pub fn apply(&mut self, octets: &mut [u8]) {
        self.0.apply_keystream(octets);
    }
}

/// What to encrypt or decrypt one packet with.
pub enum Cipher<'a> {
    /// A key of its own: the packet can be worked on in any order, also together with others.
    Fresh(SessionKey),
    /// Tables that the next packet of this direction continues: the packets must be worked on in order.
    Running(&'a mut Rc4State),
    /// One of several keys, after a reset: it is found while the packet is worked on, before the next one is opened.
    Searching(Search<'a>),
}

impl Cipher<'_> {
    /// Encrypts or decrypts the inner protocol and payload in place. RC4 is its own inverse.
    pub fn apply(self, octets: &mut [u8]) {
        match self {
            Self::Fresh(key) => Rc4State::new(&key).apply(octets),
            Self::Running(state) => state.apply(octets),
            Self::Searching(search) => search.apply(octets),
        }
    }
}
