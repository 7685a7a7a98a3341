//! Runs what `protocol::mppe` planned: RC4 over packets, and key changes.
//!
//! RC4 and the change of a key before each packet are where MPPE's time goes. [`kernel`] is the table of those who can
//! do it, of which a worker chooses one when it starts; [`tied`] is one stream at a time in assembly. The reference,
//! and what runs where there is no assembly, is `protocol`'s own.
//!
//! Kernels that work on the fresh keys of a whole batch belong here and nowhere else: a packet is not looked at before
//! its cipher has run, and verdicts on plaintexts may be given after several packets were opened.
#![allow(unsafe_code, reason = "kernels in assembly")]

mod kernel;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tied;

use turnpike_protocol::mppe::{Changer, Cipher, Rc4State, SessionKey, StartKey};
use zeroize::Zeroize;

use self::kernel::Kernel;

/// One worker's cipher: the kernel that suits the processor, and room for it to work in.
///
/// Tables of fresh keys and interim keys are cleaned as soon as the packet is done, which costs a few wide stores: a
/// worker that has nothing to do, or whose call has ended, holds nothing of it.
pub struct Engine {
    kernel: &'static Kernel,
    room: Box<Room>,
}

/// On a page of its own: loads and stores of tables are not taken for loads and stores of something else that lies at
/// the same offset of another page.
#[repr(C, align(4096))]
struct Room {
    rc4: Rc4State,
    key: [u8; 16],
}

impl Engine {
    /// With the fastest kernel that this processor can run.
    pub fn new() -> Self {
        Self::with(kernel::best())
    }

    /// With the kernel that every processor can run.
    pub fn portable() -> Self {
        Self::with(&kernel::PORTABLE)
    }

    fn with(kernel: &'static Kernel) -> Self {
        Self {
            kernel,
            room: Box::new(Room {
                rc4: Rc4State::empty(),
                key: [0; 16],
            }),
        }
    }

    /// The kernel's name, for people.
    pub fn name(&self) -> &'static str {
        self.kernel.name()
    }

    /// Encrypts or decrypts the octets in place.
    #[inline]
    pub fn run(&mut self, cipher: Cipher<'_>, octets: &mut [u8]) {
        match cipher {
            Cipher::Fresh(key) => self.fresh(&key, octets),
            Cipher::Running(rc4) => self.kernel.stream(rc4, octets),
            // After resets only.
            Cipher::Searching(_) => cipher.apply(octets),
        }
    }

    /// Encrypts or decrypts the octets in place, from the start of the key stream of `key`.
    #[inline]
    pub fn fresh(&mut self, key: &SessionKey, octets: &mut [u8]) {
        self.room.put(key.bytes());
        self.kernel.schedule(&mut self.room.rc4, &self.room.key);
        self.kernel.stream(&mut self.room.rc4, octets);
        self.room.clean();
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Changer for Engine {
    #[inline]
    fn change(&mut self, start: &StartKey, key: &mut SessionKey) {
        let interim = key.interim(start);
        self.room.put(&interim[..key.bytes().len()]);
        let Room { rc4, key: octets } = &mut *self.room;
        self.kernel.schedule(rc4, octets);
        // Of an 8-octet key only the first 8 count, and the rest harms nobody.
        self.kernel.stream(rc4, octets);
        key.replace(octets);
        self.room.clean();
    }
}

impl Room {
    /// RC4 repeats a key until it fills the table, so 8 octets are the same key as 16 in which they stand twice.
    #[inline]
    fn put(&mut self, key: &[u8]) {
        match key.try_into() {
            Ok(key) => self.key = key,
            Err(_) => {
                let (first, second) = self.key.split_at_mut(8);
                first.copy_from_slice(key);
                second.copy_from_slice(key);
            }
        }
    }

    #[inline]
    fn clean(&mut self) {
        self.rc4.clean();
        self.key = [0; 16];
        zeroize::optimization_barrier(&self.key);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // The state cleans itself. Between packets both are clean anyway.
        self.key.zeroize();
    }
}
