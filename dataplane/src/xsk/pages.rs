//! Memory that is large and read in no order: in huge pages where Linux gives any, and fetched before it is needed.

use std::mem::MaybeUninit;
use std::ops::Range;

/// Octets of a huge page, the usual default size on x86-64 and AArch64.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// Octets of a cache line.
const LINE: usize = 64;

/// So many items, allocated and written now. What fills huge pages lies in such where Linux has any to give
/// (`transparent_hugepage` not `never`): a look-up in small ones costs a walk through page tables for each line it
/// reads, and with a million calls those are in no cache either.
pub(crate) fn slice<T>(len: usize, make: impl FnMut() -> T) -> Box<[T]> {
    let mut items = Vec::with_capacity(len);
    ask_for_huge_pages(items.spare_capacity_mut());
    items.resize_with(len, make);
    items.into_boxed_slice()
}

/// Asks for huge pages for memory that has not been written yet. Without any it stays as it was.
fn ask_for_huge_pages<T>(room: &mut [MaybeUninit<T>]) {
    let Range { start, end } = room.as_mut_ptr_range();
    let first = start.addr().next_multiple_of(HUGE_PAGE);
    let last = end.addr() / HUGE_PAGE * HUGE_PAGE;
    if first >= last || cfg!(miri) {
        return;
    }
    // SAFETY: the pages lie within `room`, which is ours alone; this is advice, which changes nothing that is in them.
    // Where it is not taken, there is nothing else to do.
    unsafe {
        libc::madvise(
            start.with_addr(first).cast(),
            last - first,
            libc::MADV_HUGEPAGE,
        )
    };
}

/// Has `octets` of what lies at `place` fetched into the cache. What comes after it does not wait.
#[inline]
pub(crate) fn fetch<T>(place: &T, octets: Range<usize>) {
    let start = std::ptr::from_ref(place).cast::<i8>();
    for at in octets.step_by(LINE) {
        let line = start.wrapping_add(at);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: every x86-64 has this instruction, which reads nothing into the program and faults at no address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line);
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: as above: a hint, which faults at no address.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
        #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
        std::hint::black_box(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_whole_whatever_its_pages() {
        let mut next = 0_u64;
        let items = slice(3 * HUGE_PAGE / 8 + 5, || {
            next += 1;
            next
        });
        assert!(items.iter().copied().eq(1..=items.len() as u64));
        assert!(slice(0, || 0_u8).is_empty());
        fetch(&items[0], 0..4096);
    }
}
