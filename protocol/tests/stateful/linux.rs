//! Linux' halves of stateful MPPE: the kernel's `ppp_mppe`, and pppd's `ccp` beside it.

use turnpike_protocol::mppe::{Rc4State, SessionKey};

use super::{SECOND, start};

/// Linux' sender: every flushed packet changes the key.
pub struct LinuxSender {
    key: SessionKey,
    tables: Rc4State,
    index: u64,
    pub flush: bool,
}

impl LinuxSender {
    pub fn new() -> Self {
        let key = SessionKey::initial(&start());
        Self {
            tables: Rc4State::new(&key),
            key,
            index: 0,
            flush: false,
        }
    }

    pub fn seal(&mut self, octets: &mut [u8]) -> [u8; 2] {
        let [high, low] = ((self.index % 4096) as u16).to_be_bytes();
        let flushed = self.flush || self.index % 256 == 255;
        if flushed {
            self.key.change(&start());
            self.tables = Rc4State::new(&self.key);
            self.flush = false;
        }
        self.index += 1;
        self.tables.apply(octets);
        [high | 0x10 | if flushed { 0x80 } else { 0 }, low]
    }
}

/// Linux' receiver, and what pppd does about it.
pub struct LinuxReceiver {
    key: SessionKey,
    tables: Rc4State,
    count: u16,
    pub discard: bool,
    /// Throws everything away until a Reset-Ack comes.
    error: bool,
    identifier: u8,
    /// A Reset-Ack is waited for since this step.
    pending: Option<u32>,
    repeat: bool,
}

impl LinuxReceiver {
    pub fn new() -> Self {
        let key = SessionKey::initial(&start());
        Self {
            tables: Rc4State::new(&key),
            key,
            count: 4095,
            discard: false,
            error: false,
            identifier: 0,
            pending: None,
            repeat: false,
        }
    }

    pub fn rekey(&mut self) {
        self.key.change(&start());
        self.tables = Rc4State::new(&self.key);
    }

    /// The plaintext, right or not. An error is a Reset-Request.
    pub fn open(&mut self, header: [u8; 2], octets: &[u8]) -> Result<Option<Vec<u8>>, ()> {
        if self.error {
            return Ok(None);
        }
        let flushed = header[0] & 0x80 != 0;
        let count = u16::from_be_bytes([header[0] & 0x0f, header[1]]);
        if self.discard {
            if !flushed {
                return Err(());
            }
            while count & !0xff != self.count & !0xff {
                self.rekey();
                self.count = (self.count + 256) % 4096;
            }
            self.discard = false;
            self.count = count;
        } else {
            self.count = (self.count + 1) % 4096;
            if count != self.count {
                self.discard = true;
                return Err(());
            }
        }
        if flushed {
            self.rekey();
        }
        let mut octets = octets.to_vec();
        self.tables.apply(&mut octets);
        Ok(Some(octets))
    }

    /// pppd hears of an error: the identifier of a Reset-Request to send.
    pub fn failed(&mut self, now: u32) -> Option<u8> {
        self.error = true;
        if self.pending.is_some() {
            self.repeat = true;
            return None;
        }
        self.identifier = self.identifier.wrapping_add(1);
        self.pending = Some(now);
        Some(self.identifier)
    }

    pub fn acknowledged(&mut self, identifier: u8) {
        self.error = false;
        if self.pending.is_some() && identifier == self.identifier {
            self.pending = None;
            self.repeat = false;
        }
    }

    /// pppd's timer of one second.
    pub fn timeout(&mut self, now: u32) -> Option<u8> {
        if self.pending.is_none_or(|since| now - since < SECOND) {
            return None;
        }
        self.pending = self.repeat.then_some(now);
        std::mem::take(&mut self.repeat).then_some(self.identifier)
    }
}
