//! The sending half of a direction.

use super::cipher::{Cipher, Rc4State};
use super::keys::Link;
use super::{COUNTS, ENCRYPTED, FLAG_INTERVAL, FLUSHED, HEADER_LEN, Mode, StartKey};

/// Keys and coherency count of the direction we send in. Never printed.
pub struct Encryptor {
    start: StartKey,
    link: Link,
    /// Packets sealed so far; modulo 4096 the coherency count of the next one.
    sealed: u64,
    state: State,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation in a worker"
)]
enum State {
    Stateless,
    Stateful {
        tables: Rc4State,
        /// Initialise the tables before the next packet.
        flush: bool,
    },
}

/// One packet's header and key.
pub struct Sealing<'a> {
    /// The MPPE header, as it goes on the wire before the encrypted octets.
    pub header: [u8; HEADER_LEN],
    /// For the inner protocol and payload.
    pub cipher: Cipher<'a>,
}

impl Encryptor {
    /// At coherency count 0 with the first keys of `start`.
    pub fn new(start: &StartKey, mode: Mode) -> Self {
        let link = Link::first(start);
        let state = match mode {
            Mode::Stateless => State::Stateless,
            // RFC 3078 §3.1 can be read as asking for bit A on the first packet. Linux and npppd leave it clear, and
            // Linux, receiving it, changes its key: clear is what every receiver takes.
            Mode::Stateful => State::Stateful {
                tables: Rc4State::new(&link.key),
                flush: false,
            },
        };
        Self {
            start: start.clone(),
            link,
            sealed: 0,
            state,
        }
    }

    /// Takes the next coherency count. The packet must then be sent, or the peer sees a loss.
    pub fn seal(&mut self) -> Sealing<'_> {
        let index = self.sealed;
        self.sealed += 1;
        let Self {
            start, link, state, ..
        } = self;
        let (flushed, cipher) = match state {
            State::Stateless => {
                // RFC 3078 §7.1: the key changes before every packet, the first included.
                link.advance(start, 1);
                (true, Cipher::Fresh(link.key.clone()))
            }
            State::Stateful { tables, flush } => {
                let flag = index % FLAG_INTERVAL == FLAG_INTERVAL - 1;
                if flag {
                    link.advance(start, 1);
                }
                let flushed = flag || *flush;
                if flushed {
                    *tables = Rc4State::new(&link.key);
                    *flush = false;
                }
                (flushed, Cipher::Running(tables))
            }
        };
        let [high, low] = ((index % COUNTS) as u16).to_be_bytes();
        let bits = ENCRYPTED | if flushed { FLUSHED } else { 0 };
        Sealing {
            header: [high | bits, low],
            cipher,
        }
    }

    /// The peer sent a CCP Reset-Request. Several before the next packet count as one.
    pub fn reset(&mut self) {
        // RFC 3078 §8.2: the tables are initialised with the current key, the key does not change. In stateless mode
        // every packet is a fresh start anyway.
        if let State::Stateful { flush, .. } = &mut self.state {
            *flush = true;
        }
    }
}
