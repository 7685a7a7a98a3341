//! RC4 over packets.

use zeroize::ZeroizeOnDrop;

use super::keys::SessionKey;
use super::stateful::Search;

/// RC4's table and indices: somewhere in the key stream of one key. Cleaned when dropped; never printed.
///
/// What it does itself is the reference for kernels, which get at its parts.
pub struct Rc4State {
    table: [u8; 256],
    i: u8,
    j: u8,
}

impl Rc4State {
    /// What RC4 starts from, before there is a key.
    pub const IDENTITY: [u8; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            table[i] = i as u8;
            i += 1;
        }
        table
    };

    /// Without a key: only room for one.
    pub const fn empty() -> Self {
        Self {
            table: [0; 256],
            i: 0,
            j: 0,
        }
    }

    /// The state at the start of the key stream of `key`.
    pub fn new(key: &SessionKey) -> Self {
        let mut state = Self::empty();
        state.set_key(key.bytes());
        state
    }

    /// Goes to the start of the key stream of `key`, of 1 to 256 octets.
    pub fn set_key(&mut self, key: &[u8]) {
        self.table = Self::IDENTITY;
        let mut j = 0_u8;
        for (i, octet) in (0..=255_u8).zip(key.iter().cycle()) {
            j = j
                .wrapping_add(self.table[usize::from(i)])
                .wrapping_add(*octet);
            self.table.swap(usize::from(i), usize::from(j));
        }
        (self.i, self.j) = (0, 0);
    }

    /// Encrypts or decrypts `octets` in place with the next of the key stream.
    pub fn apply(&mut self, octets: &mut [u8]) {
        let table = &mut self.table;
        for octet in octets {
            self.i = self.i.wrapping_add(1);
            let x = table[usize::from(self.i)];
            self.j = self.j.wrapping_add(x);
            let y = table[usize::from(self.j)];
            table[usize::from(self.i)] = y;
            table[usize::from(self.j)] = x;
            *octet ^= table[usize::from(x.wrapping_add(y))];
        }
    }

    /// Table, `i` and `j`, for kernels that do the same faster. Secret: who copies them cleans the copy.
    pub const fn parts(&mut self) -> (&mut [u8; 256], &mut u8, &mut u8) {
        (&mut self.table, &mut self.i, &mut self.j)
    }

    /// Forgets the key, at the cost of a few wide stores.
    #[inline]
    pub fn clean(&mut self) {
        self.table = [0; 256];
        (self.i, self.j) = (0, 0);
        zeroize::optimization_barrier(self);
    }
}

impl Drop for Rc4State {
    fn drop(&mut self) {
        self.clean();
    }
}

impl ZeroizeOnDrop for Rc4State {}

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
