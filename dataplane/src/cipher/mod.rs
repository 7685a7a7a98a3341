//! Runs what `protocol::mppe` planned: RC4 over packets, and key changes, one at a time or many at once.
//!
//! RC4, twice for a packet with a fresh key, is where MPPE's time goes. [`kernel`] lists who can do it: [`tied`] for one
//! stream, [`rows`], [`tables`] and [`lockstep`] for several, which are faster still, as one waits while another goes on. [`sha1`]
//! lists who can do the other half of key changes. [`choice`] tries them once on the processor that is there, and
//! [`batch`] groups packets for the cheapest of them. The reference is `protocol`'s own.
//!
//! A packet is not looked at before its cipher has run, and verdicts on plaintexts may be given after several packets
//! were opened: so keys of a burst can be changed together ([`Engine::change_all`]), then its packets be done together
//! ([`Engine::run_all`]).
#![allow(unsafe_code, reason = "kernels in assembly")]

mod arena;
mod batch;
mod choice;
mod kernel;
mod lockstep;
#[cfg(target_arch = "x86_64")]
mod rows;
mod sha1;
#[cfg(target_arch = "x86_64")]
mod tables;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tied;

use core::cell::Cell;

use turnpike_protocol::mppe::{Changer, Cipher, SessionKey, StartKey};
use zeroize::Zeroize;

use self::arena::{Arena, twice};
use self::batch::{Task, WINDOW};
use self::choice::Choice;

/// One worker's cipher: the kernels that suit the processor, and room for them to work in.
///
/// Nothing is allocated after it was made.
pub struct Engine {
    choice: &'static Choice,
    arena: Box<Arena>,
    keys: Box<Keys>,
}

/// A key to be changed, and the start key that it came from.
pub struct Link<'a> {
    /// The start key.
    pub start: &'a StartKey,
    /// Becomes the next.
    pub key: &'a mut SessionKey,
}

/// A packet with a key of its own.
pub struct Packet<'a> {
    /// Its key.
    pub key: &'a SessionKey,
    /// Inner protocol and payload, encrypted or decrypted in place. Cells, as the octets of many frames can be lent at a time
    /// so; those of different packets should not overlap, or they become rubbish.
    pub octets: &'a [Cell<u8>],
}

/// Names of kernels, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// Of those for one packet: RC4 and SHA-1.
    pub single: String,
    /// Of those for many: RC4 and SHA-1.
    pub together: String,
}

/// Keys of packets, or interim keys; those of 8 octets stand twice in them. Clean between calls.
///
/// In a part of a page where the arena has nothing: key schedules load octets of a key between stores to tables, and
/// those that were guessed to be the same cost more than the schedule itself.
#[repr(C, align(4096))]
struct Keys {
    pad: [u8; arena::USED],
    keys: [[u8; 16]; WINDOW],
}

const _: () = assert!(size_of::<Keys>() == 4096);

impl Engine {
    /// With the fastest kernels on this processor. The first one to be made in a process takes some milliseconds to find
    /// out which these are.
    pub fn new() -> Self {
        Self::with(choice::best())
    }

    /// With the fastest of what this processor would have without SHA instructions, so that one which has them can show
    /// what others do.
    pub fn without_sha() -> Self {
        Self::with(choice::without_sha())
    }

    /// With what every processor can run.
    pub fn portable() -> Self {
        Self::with(choice::portable())
    }

    fn with(choice: &'static Choice) -> Self {
        Self {
            choice,
            arena: Arena::new(),
            keys: Box::new(Keys {
                pad: [0; arena::USED],
                keys: [[0; 16]; WINDOW],
            }),
        }
    }

    /// The kernels' names.
    pub fn name(&self) -> Name {
        self.choice.name()
    }

    /// Encrypts or decrypts the octets in place.
    #[inline]
    pub fn run(&mut self, cipher: Cipher<'_>, octets: &mut [u8]) {
        match cipher {
            Cipher::Fresh(key) => self.fresh(&key, octets),
            Cipher::Running(rc4) => self.choice.plan.single.0.stream(rc4, octets),
            // After resets only.
            Cipher::Searching(_) => cipher.apply(octets),
        }
    }

    /// Encrypts or decrypts the octets in place, from the start of the key stream of `key`.
    #[inline]
    fn fresh(&mut self, key: &SessionKey, octets: &mut [u8]) {
        let (single, arena) = (self.choice.plan.single.0, &mut *self.arena);
        arena.keys[0] = twice(key.bytes());
        single.schedule(&mut arena.rc4, &arena.keys[0]);
        single.stream(&mut arena.rc4, octets);
        arena.clean_one();
    }

    /// Encrypts or decrypts packets in place, of any number and any lengths. They are worked on in no particular order.
    pub fn run_all(&mut self, packets: &[Packet<'_>]) {
        for packets in packets.chunks(WINDOW) {
            let mut tasks = [Task::NOTHING; WINDOW];
            let tasks = &mut tasks[..packets.len()];
            for ((packet, key), task) in packets.iter().zip(&mut self.keys.keys).zip(&mut *tasks) {
                *key = twice(packet.key.bytes());
                *task = Task {
                    key,
                    data: packet.octets.as_ptr().cast_mut().cast(),
                    len: packet.octets.len(),
                };
            }
            // SAFETY: keys are this engine's. Cells may be written, and are lent to this thread alone; should those of several
            // packets overlap, they are loaded and stored by raw pointers only. There are at most `WINDOW`.
            unsafe { batch::run(&self.choice.plan, &mut self.arena, tasks) };
            self.keys.clean(packets.len());
        }
    }

    /// Changes keys, each once. They must be of different chains, which exclusive borrows make sure of.
    pub fn change_all(&mut self, links: &mut [Link<'_>]) {
        for links in links.chunks_mut(WINDOW) {
            let keys = &mut self.keys.keys[..links.len()];
            self.choice.digests.interim(links, keys);
            let mut tasks = [Task::NOTHING; WINDOW];
            let tasks = &mut tasks[..links.len()];
            for ((link, key), task) in links.iter().zip(keys).zip(&mut *tasks) {
                *key = twice(&key[..link.key.bytes().len()]);
                // Of a key of 8 octets only the first 8 will count.
                let key = &raw mut *key;
                *task = Task {
                    key,
                    data: key.cast(),
                    len: 16,
                };
            }
            // SAFETY: keys are this engine's, and each is its own task's octets only. There are at most `WINDOW`.
            unsafe { batch::run(&self.choice.plan, &mut self.arena, tasks) };
            for (link, key) in links.iter_mut().zip(&self.keys.keys) {
                link.key.replace(key);
            }
            self.keys.clean(links.len());
        }
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
        let len = key.bytes().len();
        let link = Link { start, key };
        let interim = &mut self.keys.keys[..1];
        let links = core::slice::from_ref(&link);
        self.choice.digest.interim(links, interim);
        let octets = &mut interim[0];
        let (single, arena) = (self.choice.plan.single.0, &mut *self.arena);
        *octets = twice(&octets[..len]);
        single.schedule(&mut arena.rc4, octets);
        single.stream(&mut arena.rc4, octets);
        link.key.replace(octets);
        arena.clean_one();
        self.keys.clean(1);
    }
}

impl Keys {
    #[inline]
    fn clean(&mut self, used: usize) {
        self.keys[..used].fill([0; 16]);
        zeroize::optimization_barrier(self);
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}
