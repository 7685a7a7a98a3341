//! Which kernels suit this processor: asked once, by trying them.
//!
//! What a processor has does not say what is fast on it: interleaved tables win on one, separate ones on another. So
//! each kernel is timed with fresh keys on whole packets of two lengths, all of them in turns, which takes some six
//! milliseconds when the first worker starts. The shortest of many times counts: whatever else runs on the machine can
//! only make one longer.

use std::sync::OnceLock;
use std::time::Instant;

use turnpike_protocol::mppe::{SessionKey, StartKey, Strength};

use super::arena::{Arena, BLOCK, WIDEST};
use super::batch::{self, Cost, Plan, Task};
use super::kernel::{self, Lanes, Single};
use super::sha1::{self, Digest};
use super::{Link, Name};

/// Times that the shortest is taken of.
const ROUNDS: usize = 96;

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
        let choice = Choice {
            plan: best_plan(),
            digest: best_digest(1, sha1::digests()),
            digests: best_digest(KEYS, sha1::digests()),
        };
        let Name { single, together } = choice.name();
        tracing::debug!("MPPE kernels: {single} for one packet, {together} for many");
        choice
    })
}

/// What it would be if this processor had no SHA instructions.
pub(super) fn without_sha() -> &'static Choice {
    static WITHOUT: OnceLock<Choice> = OnceLock::new();
    WITHOUT.get_or_init(|| Choice {
        plan: best_plan(),
        digest: best_digest(1, sha1::without_sha()),
        digests: best_digest(KEYS, sha1::without_sha()),
    })
}

fn best_plan() -> Plan {
    let single = kernel::singles().next().unwrap_or(&kernel::PORTABLE);
    let mut candidates = vec![Candidate::new(Kernel::Single(single))];
    candidates.extend(kernel::lanes().map(|lanes| Candidate::new(Kernel::Lanes(lanes))));
    let mut trial = Trial::new();
    for _ in 0..ROUNDS {
        for candidate in &mut candidates {
            candidate.short = candidate.short.min(trial.time(SHORT, candidate.kernel));
            candidate.long = candidate.long.min(trial.time(LONG, candidate.kernel));
        }
    }
    let lanes = candidates
        .iter()
        .filter_map(|candidate| match candidate.kernel {
            Kernel::Single(_) => None,
            Kernel::Lanes(lanes) => Some((lanes, candidate.cost())),
        });
    Plan {
        single: (single, candidates[0].cost()),
        lanes: lanes.collect(),
    }
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

#[derive(Clone, Copy)]
enum Kernel {
    Single(&'static Single),
    Lanes(&'static Lanes),
}

/// A kernel, and its shortest times for [`WIDEST`] packets, in picoseconds.
struct Candidate {
    kernel: Kernel,
    short: u64,
    long: u64,
}

impl Candidate {
    const fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            short: u64::MAX,
            long: u64::MAX,
        }
    }

    /// What it takes for as many packets as it has lanes.
    fn cost(&self) -> Cost {
        let width = match self.kernel {
            Kernel::Single(_) => 1,
            Kernel::Lanes(lanes) => lanes.width,
        };
        let groups = (WIDEST / width) as u64;
        let block = self.long.saturating_sub(self.short) / ((LONG - SHORT) / BLOCK) as u64;
        let start = self.short.saturating_sub(block * (SHORT / BLOCK) as u64);
        Cost {
            start: start / groups,
            block: block / groups,
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

    /// The time of [`WIDEST`] packets of this length, in picoseconds.
    fn time(&mut self, octets: usize, kernel: Kernel) -> u64 {
        let tasks: [Task; WIDEST] = core::array::from_fn(|at| Task {
            key: &raw const self.keys[at],
            data: self.packets[at].as_mut_ptr(),
            len: octets,
        });
        let arena = &mut *self.arena;
        let start = Instant::now();
        match kernel {
            Kernel::Single(single) => {
                for task in &tasks {
                    // SAFETY: keys and packets are the trial's own.
                    unsafe { batch::alone(single, arena, task) };
                }
            }
            Kernel::Lanes(lanes) => {
                for tasks in tasks.chunks_exact(lanes.width) {
                    // SAFETY: as above.
                    unsafe { batch::together(lanes, arena, tasks) };
                }
                arena.clean_lanes();
            }
        }
        let time = start.elapsed().as_nanos() as u64 * 1000;
        // A key schedule done again with the same key is one that the processor has learnt.
        for (key, packet) in self.keys.iter_mut().zip(&self.packets) {
            key.copy_from_slice(&packet[..BLOCK]);
        }
        time
    }
}

/// Which of these is the fastest for so many keys.
fn best_digest(keys: usize, among: impl Iterator<Item = &'static Digest>) -> &'static Digest {
    let start = StartKey::new([1; 16], Strength::Bits128);
    let mut keys = vec![SessionKey::initial(&start); keys];
    let mut links: Vec<Link<'_>> = keys
        .iter_mut()
        .map(|key| Link { start: &start, key })
        .collect();
    let mut interim = vec![[0; BLOCK]; links.len()];
    let mut times: Vec<(&'static Digest, u128)> = among.map(|digest| (digest, u128::MAX)).collect();
    for _ in 0..ROUNDS {
        for (digest, shortest) in &mut times {
            let begin = Instant::now();
            digest.interim(&links, &mut interim);
            *shortest = begin.elapsed().as_nanos().min(*shortest);
            for (link, interim) in links.iter_mut().zip(&interim) {
                link.key.replace(interim);
            }
        }
    }
    let fastest = times.into_iter().min_by_key(|(_, shortest)| *shortest);
    fastest.map_or(&sha1::PORTABLE, |(digest, _)| digest)
}
