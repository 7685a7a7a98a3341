//! Four streams at once in plain Rust: while one waits for its table, others go on.

use turnpike_protocol::mppe::Rc4State;

use super::arena::{Arena, BLOCK, WIDEST};

/// Streams.
pub(super) const WIDTH: usize = 4;

/// Octets from table to table. Not 256, so that equal indices of two tables do not fall into the same set of a cache.
const STRIDE: usize = 320;

/// The tables of four streams.
fn tables(tables: &mut [u8; 2048]) -> [&mut [u8; 256]; WIDTH] {
    let mut parts = tables.chunks_exact_mut(STRIDE);
    core::array::from_fn(|_| {
        let part = parts.next().and_then(<[u8]>::first_chunk_mut);
        part.expect("2048 octets have room for four times 320")
    })
}

/// Goes to the start of four key streams.
pub(super) fn schedule(arena: &mut Arena) {
    let mut tables = tables(&mut arena.tables);
    for table in &mut tables {
        **table = Rc4State::IDENTITY;
    }
    let mut j = [0_u8; WIDTH];
    for i in 0..256 {
        for lane in 0..WIDTH {
            let x = tables[lane][i];
            j[lane] = j[lane]
                .wrapping_add(x)
                .wrapping_add(arena.keys[lane][i % BLOCK]);
            let at = usize::from(j[lane]);
            tables[lane][i] = tables[lane][at];
            tables[lane][at] = x;
        }
    }
    arena.j = [0; WIDEST];
}

/// Encrypts or decrypts `arena.left` blocks of four streams, which have done `done` blocks since their starts.
///
/// # Safety
/// The tables must be [`schedule`]'s, and for each lane `arena.data + arena.offset` must be valid for loads and stores of
/// so many blocks. These may be in the arena, but not in what is borrowed here.
pub(super) unsafe fn stream(arena: *mut Arena, done: usize) {
    // SAFETY: the arena is valid by contract, and no other reference to these parts is in use.
    let (tables, kept, data, offset, left) = unsafe {
        (
            tables(&mut (*arena).tables),
            &mut (*arena).j,
            (*arena).data,
            (*arena).offset,
            (*arena).left,
        )
    };
    let mut j: [u8; WIDTH] = core::array::from_fn(|lane| kept[lane] as u8);
    let mut i = (done * BLOCK) as u8;
    for at in (0..left * BLOCK).step_by(8) {
        let mut words = [0_u64; WIDTH];
        for _ in 0..8 {
            i = i.wrapping_add(1);
            for lane in 0..WIDTH {
                let table = &mut *tables[lane];
                let x = table[usize::from(i)];
                j[lane] = j[lane].wrapping_add(x);
                let y = table[usize::from(j[lane])];
                table[usize::from(i)] = y;
                table[usize::from(j[lane])] = x;
                let octet = table[usize::from(x.wrapping_add(y))];
                words[lane] = words[lane] >> 8 | u64::from(octet) << 56;
            }
        }
        for (word, data) in words.into_iter().zip(data) {
            // SAFETY: by contract there are two words for each of the blocks.
            unsafe {
                let place = data.add(offset + at).cast::<u64>();
                let octets = u64::from_le(place.read_unaligned()) ^ word;
                place.write_unaligned(octets.to_le());
            }
        }
    }
    for (kept, j) in kept.iter_mut().zip(j) {
        *kept = u64::from(j);
    }
}
