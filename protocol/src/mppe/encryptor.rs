//! The sending half of a direction.

use super::cipher::{Cipher, Rc4State};
use super::keys::{Chain, Changer, Link, Reference, SessionKey};
use super::{COUNTS, Dialect, ENCRYPTED, FLAG_INTERVAL, FLUSHED, HEADER_LEN, Mode, StartKey};

/// Keys and coherency count of the direction we send in. Never printed.
#[repr(C)]
pub struct Encryptor {
    start: StartKey,
    link: Link,
    /// Packets sealed so far; modulo 4096 the coherency count of the next one.
    sealed: u64,
    state: State,
}

/// Stateful keys are rare and four times as large: they alone are allocated, when they start.
#[repr(u8)]
enum State {
    Stateless,
    Stateful(Box<Running>),
}

/// Tables that run on.
struct Running {
    tables: Rc4State,
    /// `None`: not known yet. The RFC's is used.
    dialect: Option<Dialect>,
    /// Initialise the tables before the next packet.
    flush: Option<Flush>,
    /// The last Reset-Request that was obeyed.
    last: Option<Flush>,
    /// Flushed packets between flag packets that were sent while the dialect was not known.
    guessed: u64,
    /// How often since the last Reset-Request the peer seemed to have another key than we, modulo 4.
    doubts: u8,
}

/// A Reset-Request of the peer.
#[derive(Clone, Copy)]
struct Flush {
    /// Its identifier.
    identifier: u8,
    /// The peer's key when it lost its thread, in key changes, less those that flag packets before the packet that
    /// is next then have made: what the Linux dialect counts from.
    origin: u64,
}

/// One packet's header and key.
pub struct Sealing<'a> {
    /// The MPPE header, as it goes on the wire before the encrypted octets.
    pub header: [u8; HEADER_LEN],
    /// For the inner protocol and payload.
    pub cipher: Cipher<'a>,
}

impl Encryptor {
    /// So many octets at the beginning are all that a packet with stateless keys touches.
    pub const PER_PACKET: usize = core::mem::offset_of!(Self, state) + 1;

    /// At coherency count 0 with the first keys of `start`.
    pub fn new(start: &StartKey, mode: Mode) -> Self {
        let link = Link::first(start);
        let state = match mode {
            Mode::Stateless => State::Stateless,
            // RFC 3078 §3.1 can be read as asking for bit A on the first packet. Linux and npppd leave it clear, and
            // Linux, receiving it, changes its key: clear is what every receiver takes.
            Mode::Stateful => State::Stateful(Box::new(Running {
                tables: Rc4State::new(&link.key),
                dialect: None,
                flush: None,
                last: None,
                guessed: 0,
                doubts: 0,
            })),
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
        self.seal_with(&mut Reference)
    }

    /// [`seal`](Self::seal) with key changes by `changer`.
    pub fn seal_with(&mut self, changer: &mut impl Changer) -> Sealing<'_> {
        let index = self.sealed;
        self.sealed += 1;
        let Self {
            start, link, state, ..
        } = self;
        let (flushed, cipher) = match state {
            State::Stateless => {
                // RFC 3078 §7.1: the key changes before every packet, the first included.
                link.advance(start, 1, changer);
                (true, Cipher::Fresh(link.key.clone()))
            }
            State::Stateful(running) => {
                let flushed = running.step(start, link, index, changer);
                (flushed, Cipher::Running(&mut running.tables))
            }
        };
        Sealing {
            header: header(index, flushed),
            cipher,
        }
    }

    /// Takes the next coherency count as [`seal`](Self::seal) does and returns the packet's header, but leaves the key change
    /// to the caller: the key of [`chain`](Self::chain) has to be changed once, [`follow`](Self::follow) be told, and that is
    /// the packet's. Several packets may be sealed before any change is made, which are then made one packet after the other,
    /// and before anything else is asked of this. None, and nothing done, with stateful keys.
    pub fn seal_later(&mut self) -> Option<[u8; HEADER_LEN]> {
        let State::Stateless = self.state else {
            return None;
        };
        let index = self.sealed;
        self.sealed += 1;
        self.link.changes += 1;
        Some(header(index, true))
    }

    /// Where stateless keys are, for the changes that [`seal_later`](Self::seal_later) asks for. None with stateful keys.
    pub fn chain(&self) -> Option<Chain<'_>> {
        match self.state {
            State::Stateless => Some(Chain {
                start: &self.start,
                key: &self.link.key,
            }),
            State::Stateful(_) => None,
        }
    }

    /// The next key of the [`chain`](Self::chain).
    pub fn follow(&mut self, key: &SessionKey) {
        self.link.key.clone_from(key);
    }

    /// The peer sent a CCP Reset-Request. Several before the next packet count as one; one with the identifier of the
    /// last repeats it.
    pub fn reset(&mut self, identifier: u8) {
        // In stateless mode every packet is a fresh start anyway.
        let State::Stateful(running) = &mut self.state else {
            return;
        };
        running.doubts = 0;
        running.flush = Some(match (running.flush, running.last) {
            (Some(pending), _) => Flush {
                identifier,
                ..pending
            },
            // The flushed packet was lost, or ignored because the Reset-Ack before it was lost: the peer is where it was.
            (None, Some(last)) if last.identifier == identifier => last,
            _ => Flush {
                identifier,
                origin: self.link.changes - self.sealed / FLAG_INTERVAL,
            },
        });
    }

    /// What resets do to keys, as the peer has shown it in the other direction.
    pub fn set_dialect(&mut self, dialect: Dialect) {
        let State::Stateful(running) = &mut self.state else {
            return;
        };
        let before = running.dialect.replace(dialect);
        if before.is_none() && dialect == Dialect::Linux && running.guessed > 0 {
            // Each reset that was obeyed as the RFC has it was a key change for the peer, which notices nothing and
            // reads garbage. The next flushed packet is one more.
            let origin = self.link.changes - self.sealed / FLAG_INTERVAL + running.guessed;
            let identifier = running.last.map_or(0, |last| last.identifier);
            running.flush = Some(Flush { identifier, origin });
            running.guessed = 0;
        }
    }

    /// The peer reads garbage: it has rejected a protocol that was never sent (RFC 1661 §5.7). Linux does so, and asks for
    /// no reset, when its key is another than ours, which is so after a wrong guess: it does not say whether a
    /// Reset-Request is about the loss of the last flushed packet, or about one after it.
    pub fn doubt(&mut self) {
        let State::Stateful(running) = &mut self.state else {
            return;
        };
        match running.dialect {
            None if running.guessed > 0 => self.set_dialect(Dialect::Linux),
            Some(Dialect::Linux) if running.last.is_some() => {
                let ours = self.link.changes - self.sealed / FLAG_INTERVAL;
                // A flushed packet that we took for received was lost: the peer is behind, and comes nearer by each
                // flushed packet that leaves our key as it is. If that does not help it was ahead by one, and by now is
                // by four.
                let origin = if running.doubts < 3 {
                    ours.saturating_sub(1)
                } else {
                    ours + 4
                };
                running.doubts = (running.doubts + 1) % 4;
                let identifier = running.last.map_or(0, |last| last.identifier);
                running.flush = Some(Flush { identifier, origin });
            }
            _ => {}
        }
    }

    /// What resets are taken to do to keys; `None` in stateless mode, and while it is not known.
    pub fn dialect(&self) -> Option<Dialect> {
        match &self.state {
            State::Stateless => None,
            State::Stateful(running) => running.dialect,
        }
    }
}

/// The header of the packet with this number.
fn header(index: u64, flushed: bool) -> [u8; HEADER_LEN] {
    let [high, low] = ((index % COUNTS) as u16).to_be_bytes();
    let bits = ENCRYPTED | if flushed { FLUSHED } else { 0 };
    [high | bits, low]
}

impl Running {
    /// Makes the tables ready for packet `index`; says whether they were initialised.
    fn step(
        &mut self,
        start: &StartKey,
        link: &mut Link,
        index: u64,
        changer: &mut impl Changer,
    ) -> bool {
        let flag = index % FLAG_INTERVAL == FLAG_INTERVAL - 1;
        let flush = self.flush.take();
        match (flush, self.dialect) {
            // One change for each block of 256 that the peer has to catch up with, and one for the flushed packet,
            // which in a flag packet is the same.
            (Some(flush), Some(Dialect::Linux)) => {
                let target = flush.origin + index / FLAG_INTERVAL + 1;
                link.advance(start, target.saturating_sub(link.changes), changer);
            }
            // RFC 3078 §8.2: the tables are initialised with the current key.
            (flush, _) => {
                link.advance(start, u64::from(flag), changer);
                self.guessed += u64::from(flush.is_some() && self.dialect.is_none() && !flag);
            }
        }
        if flush.is_some() {
            self.last = flush;
        }
        let flushed = flag || flush.is_some();
        if flushed {
            self.tables = Rc4State::new(&link.key);
        }
        flushed
    }
}
