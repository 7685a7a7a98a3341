//! The rings that the kernel and we share: one side writes, the other reads, and each tells the other how far it is.
//!
//! Writing and reading ends are different types, each with its own copy of the other side's index, so that the shared
//! cache line is touched once per batch. The memory behind a ring is anything that is [`Memory`]: the kernel's mapping,
//! or plain memory in tests, where both ends of the same code meet. So Miri can run it, where there is a nightly
//! compiler: `cargo +nightly miri test -p turnpike-dataplane --lib xsk::ring`.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sys::{Mapping, RingLayout};

/// Memory that both sides see.
///
/// # Safety
/// `start` must return the same address for the value's whole life, also when the value is moved; `len` octets from
/// there must be readable and writable as long as the value lives; the address must be a multiple of 8.
pub(super) unsafe trait Memory {
    /// The first octet.
    fn start(&self) -> NonNull<u8>;
    /// Octets from there.
    fn len(&self) -> usize;
}

// SAFETY: a mapping stays where it is until it is dropped, it was made readable and writable, and pages are aligned.
unsafe impl Memory for Mapping {
    fn start(&self) -> NonNull<u8> {
        self.start()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// What lies in a ring's slots: any bit pattern is a value.
///
/// # Safety
/// Every bit pattern must be a value of the type, and its alignment at most 8.
pub(super) unsafe trait Item: Copy {}
// SAFETY: a number. (Fill and completion rings: the address of a chunk.)
unsafe impl Item for u64 {}
// SAFETY: a structure of numbers. (Receive and transmit rings.)
unsafe impl Item for libc::xdp_desc {}

/// The parts of a ring, found in its memory.
#[derive(Debug)]
struct Parts<T, M> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    entries: u32,
    /// Keeps the pointers valid.
    _memory: M,
    _items: PhantomData<T>,
}

// SAFETY: the pointers lead into `_memory`, which is owned (or shared by an `Arc`) and goes along; nothing in them is
// bound to a thread.
unsafe impl<T: Item + Send, M: Send> Send for Parts<T, M> {}

impl<T: Item, M: Memory> Parts<T, M> {
    /// Finds the parts; `None` when they do not fit the memory, are not aligned, or `entries` is not a power of two.
    fn new(memory: M, layout: RingLayout, entries: u32) -> Option<Self> {
        let start = memory.start();
        let len = memory.len();
        let fits = |offset: usize, octets: usize, align: usize| {
            offset.is_multiple_of(align) && offset.checked_add(octets).is_some_and(|end| end <= len)
        };
        let indices = [layout.producer, layout.consumer, layout.flags];
        let slots = (entries as usize).checked_mul(size_of::<T>())?;
        if !entries.is_power_of_two()
            || !indices.iter().all(|&offset| fits(offset, 4, 4))
            || !fits(layout.slots, slots, align_of::<T>())
        {
            return None;
        }
        // SAFETY: all offsets were found to lie inside the memory, with room for what is read there, and aligned
        // (`start` is a multiple of 8, the offsets of what their types need).
        let (producer, consumer, flags, slots) = unsafe {
            (
                start.add(layout.producer).cast(),
                start.add(layout.consumer).cast(),
                start.add(layout.flags).cast(),
                start.add(layout.slots).cast(),
            )
        };
        Some(Self {
            producer,
            consumer,
            flags,
            slots,
            entries,
            _memory: memory,
            _items: PhantomData,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: points into `_memory`, aligned, and both sides use it only as an atomic.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }
    }

    /// The slot of an index, which counts on without end.
    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: the offset is less than `entries`, and that many slots lie in the memory.
        unsafe { self.slots.add((index & (self.entries - 1)) as usize) }
    }
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Producer<T, M> {
    parts: Parts<T, M>,
    /// Where the next item goes; items before it that are not `published` are not seen yet.
    next: u32,
    /// What the other side was told.
    published: u32,
    /// How far the other side was when we last looked.
    consumed: u32,
}

impl<T: Item, M: Memory> Producer<T, M> {
    /// Takes the writing end of a ring, going on where its shared index stands. `None` when the layout does not fit.
    ///
    /// # Safety
    /// There is no other writing end of this memory while this one lives, the other side only reads slots that were
    /// published and not yet consumed, and the flags and indices are used as atomics by both.
    pub(super) unsafe fn new(memory: M, layout: RingLayout, entries: u32) -> Option<Self> {
        let parts = Parts::new(memory, layout, entries)?;
        let next = parts.producer().load(Ordering::Relaxed);
        let consumed = parts.consumer().load(Ordering::Acquire);
        Some(Self {
            parts,
            next,
            published: next,
            consumed,
        })
    }

    /// How many items fit now; looks at the other side's index only when fewer than `wanted` fit by the last look.
    pub(super) fn room(&mut self, wanted: u32) -> u32 {
        let room = |consumed: u32, next: u32, entries: u32| {
            entries.saturating_sub(next.wrapping_sub(consumed))
        };
        let known = room(self.consumed, self.next, self.parts.entries);
        if known >= wanted {
            return known;
        }
        // Acquire: slots that the other side has read may be written after this load, not before.
        self.consumed = self.parts.consumer().load(Ordering::Acquire);
        room(self.consumed, self.next, self.parts.entries)
    }

    /// Writes an item; the other side sees it after [`Producer::publish`]. False, and nothing done, when it does not
    /// fit.
    pub(super) fn push(&mut self, item: T) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        // SAFETY: there was room: the other side does not read this slot before it is published, and nobody else
        // writes (contract of `new`).
        unsafe { self.parts.slot(self.next).write(item) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows the other side all that was written; returns how many items are new to it.
    pub(super) fn publish(&mut self) -> u32 {
        let new = self.next.wrapping_sub(self.published);
        if new > 0 {
            // Release: the items are written before the index says so.
            self.parts.producer().store(self.next, Ordering::Release);
            self.published = self.next;
        }
        new
    }

    /// Items that were published and not yet taken, by a fresh look.
    pub(super) fn waiting(&mut self) -> u32 {
        self.consumed = self.parts.consumer().load(Ordering::Acquire);
        self.published.wrapping_sub(self.consumed)
    }

    /// Whether the kernel sleeps and wants a system call to go on.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.parts.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Consumer<T, M> {
    parts: Parts<T, M>,
    /// The next item to read.
    next: u32,
    /// What the other side was told.
    released: u32,
    /// How far the other side was when we last looked.
    produced: u32,
    /// The other side had no room left when we looked, or next to none.
    was_full: bool,
}

impl<T: Item, M: Memory> Consumer<T, M> {
    /// Takes the reading end of a ring, going on where its shared index stands. `None` when the layout does not fit.
    ///
    /// # Safety
    /// There is no other reading end of this memory while this one lives, the other side does not write slots that
    /// are published and not yet consumed, and the flags and indices are used as atomics by both.
    pub(super) unsafe fn new(memory: M, layout: RingLayout, entries: u32) -> Option<Self> {
        let parts = Parts::new(memory, layout, entries)?;
        let next = parts.consumer().load(Ordering::Relaxed);
        Some(Self {
            parts,
            next,
            released: next,
            produced: next,
            was_full: false,
        })
    }

    /// Reads the next item; its slot is the other side's again after [`Consumer::release`].
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            // Acquire: the items are read after this load, not before.
            self.produced = self.parts.producer().load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
            // Some that were seen before have been given back since it was full, if it was.
            let full = self.parts.entries - self.parts.entries / 16;
            self.was_full |= self.produced.wrapping_sub(self.released) >= full;
        }
        // SAFETY: the item was published and is not released, so the other side does not write the slot (contract of
        // `new`); every bit pattern is an item.
        let item = unsafe { self.parts.slot(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(item)
    }

    /// Whether the ring was found full, or next to full, since this was asked last: the other side may have had no room for
    /// what came next.
    pub(super) fn was_full(&mut self) -> bool {
        core::mem::take(&mut self.was_full)
    }

    /// Gives the slots that were read back to the other side.
    pub(super) fn release(&mut self) {
        if self.next != self.released {
            // Release: the items were read before the index says so.
            self.parts.consumer().store(self.next, Ordering::Release);
            self.released = self.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::UnsafeCell;
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// Plain memory with the layout of a ring.
    struct Heap(Box<[UnsafeCell<u64>]>);

    // SAFETY: the octets are only touched by the two ends of a ring, whose contract keeps them apart.
    unsafe impl Send for Heap {}
    // SAFETY: as above.
    unsafe impl Sync for Heap {}

    // SAFETY: the boxed slice does not move and lives as long as any `Arc`; `u64` is aligned to 8.
    unsafe impl Memory for Arc<Heap> {
        fn start(&self) -> NonNull<u8> {
            let first: *const UnsafeCell<u64> = self.0.as_ptr();
            NonNull::new(UnsafeCell::raw_get(first).cast()).unwrap()
        }

        fn len(&self) -> usize {
            self.0.len() * 8
        }
    }

    const LAYOUT: RingLayout = RingLayout {
        producer: 0,
        consumer: 64,
        flags: 128,
        slots: 192,
    };

    fn heap(entries: u32, index: u32) -> Arc<Heap> {
        let words = LAYOUT.slots / 8 + entries as usize * 2;
        let heap = Arc::new(Heap((0..words).map(|_| UnsafeCell::new(0)).collect()));
        for offset in [LAYOUT.producer, LAYOUT.consumer] {
            // SAFETY: inside the memory, aligned, and nobody else has it yet.
            unsafe { heap.start().add(offset).cast::<u32>().write(index) };
        }
        heap
    }

    /// Both ends of one ring that start at `index`.
    fn pair<T: Item>(entries: u32, index: u32) -> (Producer<T, Arc<Heap>>, Consumer<T, Arc<Heap>>) {
        let heap = heap(entries, index);
        // SAFETY: one writing and one reading end of memory that nobody else has.
        unsafe {
            (
                Producer::new(Arc::clone(&heap), LAYOUT, entries).unwrap(),
                Consumer::new(heap, LAYOUT, entries).unwrap(),
            )
        }
    }

    #[test]
    fn items_come_out_in_order_and_only_when_published() {
        let (mut producer, mut consumer) = pair::<u64>(4, 0);
        assert!(producer.push(1));
        assert!(producer.push(2));
        assert_eq!(consumer.pop(), None);
        assert_eq!(producer.publish(), 2);
        assert_eq!(producer.publish(), 0);
        assert_eq!(producer.waiting(), 2);
        assert_eq!(consumer.pop(), Some(1));
        assert_eq!(consumer.pop(), Some(2));
        assert_eq!(consumer.pop(), None);
        assert_eq!(producer.waiting(), 2, "read, but not given back");
        consumer.release();
        assert_eq!(producer.waiting(), 0);
    }

    #[test]
    fn a_full_ring_refuses_until_slots_are_given_back() {
        // The indices wrap around while the ring is full.
        let (mut producer, mut consumer) = pair::<u64>(4, u32::MAX - 1);
        for item in 0..4 {
            assert!(producer.push(item));
        }
        assert!(!producer.push(4));
        producer.publish();
        assert_eq!(consumer.pop(), Some(0));
        assert!(!producer.push(4), "not given back yet");
        consumer.release();
        assert_eq!(producer.room(4), 1);
        assert!(producer.push(4));
        producer.publish();
        let rest: Vec<_> = std::iter::from_fn(|| consumer.pop()).collect();
        assert_eq!(rest, [1, 2, 3, 4]);
    }

    #[test]
    fn a_ring_that_was_found_full_is_said_once() {
        let (mut producer, mut consumer) = pair::<u64>(4, 0);
        for (items, full) in [(3, false), (4, true), (1, false)] {
            for item in 0..items {
                assert!(producer.push(item));
            }
            producer.publish();
            assert!(!consumer.was_full(), "not looked at yet");
            while consumer.pop().is_some() {}
            assert_eq!(consumer.was_full(), full, "{items} of 4");
            assert!(!consumer.was_full(), "said before");
            consumer.release();
        }
    }

    #[test]
    fn a_layout_that_does_not_fit_is_refused() {
        let try_new = |layout: RingLayout, entries: u32| {
            // SAFETY: the only end of memory that nobody else has.
            unsafe { Producer::<u64, _>::new(heap(4, 0), layout, entries) }.is_some()
        };
        assert!(try_new(LAYOUT, 4));
        assert!(!try_new(LAYOUT, 3), "not a power of two");
        assert!(!try_new(LAYOUT, 0));
        assert!(!try_new(LAYOUT, 16), "slots beyond the memory");
        let misaligned = RingLayout {
            slots: 196,
            ..LAYOUT
        };
        assert!(!try_new(misaligned, 2));
        let beyond = RingLayout {
            flags: usize::MAX - 3,
            ..LAYOUT
        };
        assert!(!try_new(beyond, 4));
    }

    #[test]
    fn the_wake_up_flag_is_the_other_sides_word() {
        let memory = heap(4, 0);
        // SAFETY: the only writing end.
        let producer = unsafe { Producer::<u64, _>::new(Arc::clone(&memory), LAYOUT, 4) }.unwrap();
        assert!(!producer.needs_wakeup());
        // SAFETY: inside the memory, aligned, used as an atomic by all.
        let flags = unsafe {
            memory
                .start()
                .add(LAYOUT.flags)
                .cast::<AtomicU32>()
                .as_ref()
        };
        flags.store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }

    #[test]
    fn descriptors_cross_threads_whole() {
        let (mut producer, mut consumer) = pair::<libc::xdp_desc>(8, 0);
        let count: u32 = if cfg!(miri) { 200 } else { 200_000 };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..count {
                    let item = libc::xdp_desc {
                        addr: u64::from(n) << 32 | u64::from(n),
                        len: n,
                        options: !n,
                    };
                    while !producer.push(item) {
                        producer.publish();
                        std::thread::yield_now();
                    }
                    if n % 3 == 0 {
                        producer.publish();
                    }
                }
                producer.publish();
            });
            for n in 0..count {
                let item = loop {
                    if let Some(item) = consumer.pop() {
                        break item;
                    }
                    consumer.release();
                    std::thread::yield_now();
                };
                assert_eq!(item.len, n);
                assert_eq!(item.options, !n);
                assert_eq!(item.addr, u64::from(n) << 32 | u64::from(n));
            }
        });
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push,
        Publish,
        Pop,
        Release,
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// A ring behaves like a queue with a bound, whatever the order of steps and wherever its indices stand.
        #[test]
        fn a_ring_is_a_bounded_queue(
            start in any::<u32>(),
            steps in proptest::collection::vec(
                prop_oneof![
                    Just(Step::Push), Just(Step::Push), Just(Step::Publish), Just(Step::Pop), Just(Step::Pop),
                    Just(Step::Release)
                ],
                0..200,
            ),
        ) {
            const ENTRIES: u32 = 8;
            let (mut producer, mut consumer) = pair::<u64>(ENTRIES, start);
            let mut written = VecDeque::new();
            let mut visible = VecDeque::new();
            let mut unreleased = 0;
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Push => {
                        let used = written.len() + visible.len() + unreleased;
                        let fits = used < ENTRIES as usize;
                        prop_assert_eq!(producer.push(next), fits);
                        if fits {
                            written.push_back(next);
                        }
                        next += 1;
                    }
                    Step::Publish => {
                        prop_assert_eq!(producer.publish() as usize, written.len());
                        visible.append(&mut written);
                    }
                    Step::Pop => {
                        let expected = visible.pop_front();
                        prop_assert_eq!(consumer.pop(), expected);
                        unreleased += usize::from(expected.is_some());
                    }
                    Step::Release => {
                        consumer.release();
                        unreleased = 0;
                    }
                }
            }
        }
    }
}
