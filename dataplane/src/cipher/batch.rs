//! Several packets at once: which of them go together, and how packets of different lengths go in lockstep.

use core::cmp::Reverse;

use super::arena::{Arena, BLOCK, DUMMY_BLOCKS, WIDEST};
use super::kernel::{Lanes, Single};

/// Packets that are put in order together.
pub(super) const WINDOW: usize = 64;

/// What a kernel takes for as many packets as it has lanes, in picoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cost {
    /// Key schedules and all else that comes once.
    pub(super) start: u64,
    /// Each block of the longest packet.
    pub(super) block: u64,
}

impl Cost {
    /// For packets up to this length.
    const fn of(self, octets: usize) -> u64 {
        self.start + self.block * octets.div_ceil(BLOCK) as u64
    }
}

/// Kernels, and what they take.
pub(super) struct Plan {
    pub(super) single: (&'static Single, Cost),
    pub(super) lanes: Vec<(&'static Lanes, Cost)>,
}

/// A packet from the start of its key's stream.
#[derive(Clone, Copy)]
pub(super) struct Task {
    /// 8 octets stand twice in it.
    pub(super) key: *const [u8; BLOCK],
    pub(super) data: *mut u8,
    pub(super) len: usize,
}

impl Task {
    pub(super) const NOTHING: Self = Self {
        key: core::ptr::null(),
        data: core::ptr::null_mut(),
        len: 0,
    };

    const fn blocks(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }
}

/// Does tasks in the order that is cheapest. What they leave behind in the arena is cleaned.
///
/// # Safety
/// Keys of tasks must be valid, and so must their octets for loads and stores, to which nobody else may have more than cells.
/// These may be the task's own key, but must not overlap with the arena or with other keys; those of several tasks become
/// rubbish where they overlap. There may be [`WINDOW`] tasks.
pub(super) unsafe fn run(plan: &Plan, arena: &mut Arena, tasks: &mut [Task]) {
    if !tasks.is_sorted_by_key(|task| Reverse(task.len)) {
        tasks.sort_unstable_by_key(|task| Reverse(task.len));
    }
    let mut left = &*tasks;
    let mut any_lanes = false;
    // While there are enough of one length, there is nothing to weigh up.
    while let Some(longest) = left.get(..WIDEST)
        && longest[0].blocks() == longest[WIDEST - 1].blocks()
        && let Some(lanes) = plan.fastest(longest[0].len)
    {
        let (now, rest) = left.split_at(lanes.width);
        left = rest;
        // SAFETY: by contract.
        unsafe { together(lanes, arena, now) };
        any_lanes = true;
    }
    let tasks = left;
    let mut groups = [None; WINDOW];
    plan.group(tasks, &mut groups);
    while let Some((first, _)) = left.split_first() {
        let group = groups[tasks.len() - left.len()];
        let (now, rest) = left.split_at(group.map_or(1, |lanes| left.len().min(lanes.width)));
        left = rest;
        // SAFETY: by contract.
        unsafe {
            match group {
                Some(lanes) => together(lanes, arena, now),
                None => alone(plan.single.0, arena, first),
            }
        }
        any_lanes |= group.is_some();
    }
    if any_lanes {
        arena.clean_lanes();
    }
}

impl Plan {
    /// Who takes least for each of many packets of one length, if it is not better to do them one at a time.
    pub(super) fn fastest(&self, octets: usize) -> Option<&'static Lanes> {
        let mut best = self.single.1.of(octets);
        let mut fastest = None;
        for (lanes, cost) in &self.lanes {
            let each = cost.of(octets) / lanes.width as u64;
            if each < best {
                best = each;
                fastest = Some(*lanes);
            }
        }
        fastest
    }

    /// Who does each task of those that are the first of their group, the longest task first; `None` does one alone.
    ///
    /// A group takes as long as its longest, so packets of like lengths belong together, and a long one among short ones
    /// may be best alone.
    pub(super) fn group(&self, tasks: &[Task], groups: &mut [Option<&'static Lanes>; WINDOW]) {
        // The least cost from each task to the last.
        let mut least = [0_u64; WINDOW + 1];
        for (first, task) in tasks.iter().enumerate().rev() {
            let mut best = self.single.1.of(task.len) + least[first + 1];
            for (lanes, cost) in &self.lanes {
                let next = (first + lanes.width).min(tasks.len());
                let all = cost.of(task.len) + least[next];
                if all < best {
                    best = all;
                    groups[first] = Some(lanes);
                }
            }
            least[first] = best;
        }
    }
}

/// Does one task. The arena is left clean.
///
/// # Safety
/// As for [`run`].
pub(super) unsafe fn alone(single: &Single, arena: &mut Arena, task: &Task) {
    // SAFETY: by contract.
    let octets = unsafe { core::slice::from_raw_parts_mut(task.data, task.len) };
    // SAFETY: as above. It is copied, because key and octets may be the same.
    arena.keys[0] = unsafe { *task.key };
    single.schedule(&mut arena.rc4, &arena.keys[0]);
    single.stream(&mut arena.rc4, octets);
    arena.clean_one();
}

/// Does as many tasks as there are lanes, or fewer. The arena is not clean afterwards.
///
/// Whole blocks are worked on where they are, as many at a time as all lanes have that are not done. A lane's last
/// octets, fewer than a block, go through a bounce buffer; then it works on rubbish.
///
/// # Safety
/// As for [`run`]; and there must be a task, and no more than lanes.
pub(super) unsafe fn together(lanes: &Lanes, arena: &mut Arena, tasks: &[Task]) {
    for (key, task) in arena.keys.iter_mut().zip(tasks) {
        // SAFETY: by contract.
        *key = unsafe { *task.key };
    }
    // SAFETY: kernels are got from `kernel::lanes` only, so that `runs` has said yes.
    unsafe { (lanes.schedule)(arena) };
    let mut own = [Task::NOTHING; WIDEST];
    own[..tasks.len()].copy_from_slice(tasks);
    let own = &own[..lanes.width];
    // From here on lanes may point into the arena, so it is not borrowed as a whole.
    let arena = &raw mut *arena;
    let mut done = 0;
    loop {
        let mut until = done + DUMMY_BLOCKS;
        let mut any = false;
        for (lane, task) in own.iter().enumerate() {
            let (whole, tail) = (task.len / BLOCK, task.len % BLOCK);
            let data = if done < whole {
                until = until.min(whole);
                any = true;
                task.data.wrapping_add(done * BLOCK)
            } else if done == whole && tail > 0 {
                until = until.min(done + 1);
                any = true;
                // SAFETY: by contract the task has these octets, and they are fewer than a block.
                unsafe {
                    let bounce = (&raw mut (*arena).bounce[lane]).cast::<u8>();
                    let octets = task.data.add(done * BLOCK);
                    octets.copy_to_nonoverlapping(bounce, tail);
                    bounce
                }
            } else {
                // SAFETY: the arena is there.
                unsafe { (&raw mut (*arena).dummy).cast() }
            };
            // SAFETY: the arena is there.
            unsafe { (*arena).data[lane] = data };
        }
        if !any {
            return;
        }
        // SAFETY: the arena is there. All blocks up to `until` are in the lane's own octets, are the one block of its
        // bounce buffer, or are in the dummy, which has that many. There is one. The tables are as `schedule` and this
        // left them.
        unsafe {
            (*arena).offset = 0;
            (*arena).left = until - done;
            (lanes.stream)(arena, done);
        }
        for (lane, task) in own.iter().enumerate() {
            let tail = task.len % BLOCK;
            if done == task.len / BLOCK && tail > 0 {
                // SAFETY: as on the way there.
                unsafe {
                    let bounce = (&raw const (*arena).bounce[lane]).cast::<u8>();
                    let octets = task.data.add(done * BLOCK);
                    octets.copy_from_nonoverlapping(bounce, tail);
                }
            }
        }
        done = until;
    }
}
