//! Which kernels suit this processor: asked once, by trying them.
//!
//! What a processor has does not say what is fast on it: interleaved tables win on one, separate ones on another. So
//! each kernel is timed with fresh keys on whole packets of two lengths, which takes about two milliseconds when the first
//! worker starts. The shortest of many times counts: whatever else runs on the machine can only make one longer.

use std::sync::OnceLock;
use std::time::Instant;

use turnpike_protocol::mppe::{SessionKey, StartKey, Strength};

use super::arena::{Arena, BLOCK, WIDEST};
use super::batch::{self, Cost, Plan, Task};
use super::kernel::{self, Lanes, Single};
use super::sha1::{self, Digest};
use super::{Link, Name};

/// Times that the shortest is taken of.
const ROUNDS: usize = 32;

/// Octets of the packets tried: whole blocks, as tails cost all kernels the same.
const SHORT: usize = 4 * BLOCK;
const LONG: usize = 32 * BLOCK;

/// Octets of a packet between short and long ones.
const TYPICAL: usize = 576;

/// Keys changed in a trial.
const KEYS: usize = 24;

/// What is used for what.
pub(super) struct Choice {
    pub(super) plan: Plan,
    /// For one key.
    pub(super) digest: &'static Digest,
    /// For many.
    pub(super) digests: &'static Digest,
}

/// The choice for this processor.
pub(super) fn best() -> &'static Choice {
    static BEST: OnceLock<Choice> = OnceLock::new();
    BEST.get_or_init(|| {
        let mut trial = Trial::new();
        let single = kernel::singles().next().unwrap_or(&kernel::PORTABLE);
        let lanes = kernel::lanes().map(|lanes| (lanes, trial.cost_of_lanes(lanes)));
        let lanes = lanes.collect();
        let digest = |keys: usize| {
            let fastest = sha1::digests().min_by_key(|digest| time_of_digest(digest, keys));
            fastest.unwrap_or(&sha1::PORTABLE)
        };
        Choice {
            plan: Plan {
                single: (single, trial.cost_of_single(single)),
                lanes,
            },
            digest: digest(1),
            digests: digest(KEYS),
        }
    })
}

/// What every processor can run, as if it were always worth while.
pub(super) fn portable() -> &'static Choice {
    static PORTABLE: OnceLock<Choice> = OnceLock::new();
    PORTABLE.get_or_init(|| {
        // Their relation in plain Rust: a group of four takes about as long as two packets.
        let cost = |start| Cost {
            start,
            block: start / 15,
        };
        Choice {
            plan: Plan {
                single: (&kernel::PORTABLE, cost(500_000)),
                lanes: vec![(&kernel::LOCKSTEP, cost(1_000_000))],
            },
            digest: &sha1::PORTABLE,
            digests: &sha1::PORTABLE,
        }
    })
}

impl Choice {
    pub(super) fn name(&self) -> Name {
        let single = self.plan.single.0.name;
        let together = self
            .plan
            .fastest(TYPICAL)
            .map_or(single, |lanes| lanes.name);
        Name {
            single: format!("{single}, {}", self.digest.name),
            together: format!("{together}, {}", self.digests.name),
        }
    }
}

struct Trial {
    arena: Box<Arena>,
    keys: [[u8; BLOCK]; WIDEST],
    packets: Vec<[u8; LONG]>,
}

impl Trial {
    fn new() -> Self {
        Self {
            arena: Arena::new(),
            keys: core::array::from_fn(|at| [at as u8; BLOCK]),
            packets: vec![[0; LONG]; WIDEST],
        }
    }

    /// The shortest time, in picoseconds, of packets of this length.
    fn time(&mut self, octets: usize, work: impl Fn(&mut Arena, &[Task; WIDEST])) -> u64 {
        let mut best = u64::MAX;
        for _ in 0..ROUNDS {
            let tasks = core::array::from_fn(|at| Task {
                key: &raw const self.keys[at],
                data: self.packets[at].as_mut_ptr(),
                len: octets,
            });
            let start = Instant::now();
            work(&mut self.arena, &tasks);
            best = best.min(start.elapsed().as_nanos() as u64 * 1000);
            // A key schedule done again with the same key is one that the processor has learnt.
            for (key, packet) in self.keys.iter_mut().zip(&self.packets) {
                key.copy_from_slice(&packet[..BLOCK]);
            }
        }
        best
    }

    fn cost(&mut self, groups: usize, work: impl Fn(&mut Arena, &[Task; WIDEST])) -> Cost {
        let short = self.time(SHORT, &work) / groups as u64;
        let long = self.time(LONG, &work) / groups as u64;
        let block = long.saturating_sub(short) / ((LONG - SHORT) / BLOCK) as u64;
        let start = short.saturating_sub(block * (SHORT / BLOCK) as u64);
        Cost { start, block }
    }

    fn cost_of_single(&mut self, single: &'static Single) -> Cost {
        self.cost(WIDEST, |arena, tasks| {
            for task in tasks {
                // SAFETY: keys and packets are the trial's own.
                unsafe { batch::alone(single, arena, task) };
            }
        })
    }

    fn cost_of_lanes(&mut self, lanes: &'static Lanes) -> Cost {
        self.cost(WIDEST / lanes.width, |arena, tasks| {
            for tasks in tasks.chunks_exact(lanes.width) {
                // SAFETY: as above.
                unsafe { batch::together(lanes, arena, tasks) };
            }
            arena.clean_lanes();
        })
    }
}

/// The shortest time for so many keys, in nanoseconds.
fn time_of_digest(digest: &Digest, keys: usize) -> u128 {
    let start = StartKey::new([1; 16], Strength::Bits128);
    let mut keys = vec![SessionKey::initial(&start); keys];
    let mut links: Vec<Link<'_>> = keys
        .iter_mut()
        .map(|key| Link { start: &start, key })
        .collect();
    let mut interim = vec![[0; 16]; links.len()];
    let times = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        digest.interim(&links, &mut interim);
        let time = begin.elapsed().as_nanos();
        for (link, interim) in links.iter_mut().zip(&interim) {
            link.key.replace(interim);
        }
        time
    });
    times.min().unwrap_or_default()
}
