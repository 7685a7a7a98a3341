//! One stream at a time in x86-64 assembly.
//!
//! What holds RC4 back is neither latency nor the number of instructions. The load of `S[i]` of a later step has its
//! address early and runs ahead of stores to `S[j]` whose addresses are not known yet; now and then one of them goes to
//! the same octet, and all that was done since is done again, which costs more than 20 cycles. So that load is *tied* to
//! `j` of four steps before: its address contains `j & !0xff`, which is always 0, but a processor cannot know that. It
//! can then be no more than four steps ahead. Closer ties make the chain of steps too tight, wider ones help less.
//!
//! `j`, `x` and `y` are octets in registers whose upper bits are zero: an 8-bit addition keeps them so, and the whole
//! register is an index. (A compiler would extend after each addition.) The key stream is put together in a vector
//! register, 16 octets at a time.

use core::arch::asm;

use turnpike_protocol::mppe::Rc4State;

/// Octets of key stream that [`blocks`] makes at a time. `i` is a multiple of it before and after.
const BLOCK: usize = 16;

/// Whether this processor has `pinsrb` and `andn`.
pub(super) fn runs() -> bool {
    is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("bmi1")
}

/// One step of the key schedule at `S[p + at]`: swaps it with `S[j]`, `j` having gone on by it and by the key's octet.
macro_rules! schedule_step {
    ($tie:literal, $at:literal) => {
        concat!(
            "movzx eax, byte ptr [{p} + {",
            $tie,
            "} + ",
            $at,
            "]\n",
            "mov edx, eax\n",
            "add dl, byte ptr [{key} + ",
            $at,
            "]\n",
            "add cl, dl\n",
            "movzx edx, byte ptr [{s} + rcx]\n",
            "mov byte ptr [{s} + rcx], al\n",
            "mov byte ptr [{p} + ",
            $at,
            "], dl\n",
            "andn {",
            $tie,
            ":e}, {octet:e}, ecx\n",
        )
    };
}

/// One step of the key stream at `S[p + at]`, into an octet of `{stream}`.
macro_rules! stream_step {
    ($tie:literal, $at:literal, $into:literal) => {
        concat!(
            "movzx eax, byte ptr [{p} + {",
            $tie,
            "} + ",
            $at,
            "]\n",
            "add cl, al\n",
            "movzx edx, byte ptr [{s} + rcx]\n",
            "mov byte ptr [{s} + rcx], al\n",
            "mov byte ptr [{p} + ",
            $at,
            "], dl\n",
            "andn {",
            $tie,
            ":e}, {octet:e}, ecx\n",
            "add al, dl\n",
            "pinsrb {stream}, byte ptr [{s} + rax], ",
            $into,
            "\n",
        )
    };
}

/// Goes to the start of the key stream of `key`.
///
/// # Safety
/// [`runs`] must have said yes.
pub(super) unsafe fn schedule(rc4: &mut Rc4State, key: &[u8; 16]) {
    let (table, i, j) = rc4.parts();
    *table = Rc4State::IDENTITY;
    (*i, *j) = (0, 0);
    // SAFETY: `p` goes over `table` in 16 rounds of 16 octets, `j` and the offsets into `key` are less than 256 and 16,
    // and ties are 0. Nothing else is written, and the stack is not used. The instructions are there by contract.
    unsafe {
        asm!(
            "2:",
            schedule_step!("tie0", "0"), schedule_step!("tie1", "1"),
            schedule_step!("tie2", "2"), schedule_step!("tie3", "3"),
            schedule_step!("tie0", "4"), schedule_step!("tie1", "5"),
            schedule_step!("tie2", "6"), schedule_step!("tie3", "7"),
            schedule_step!("tie0", "8"), schedule_step!("tie1", "9"),
            schedule_step!("tie2", "10"), schedule_step!("tie3", "11"),
            schedule_step!("tie0", "12"), schedule_step!("tie1", "13"),
            schedule_step!("tie2", "14"), schedule_step!("tie3", "15"),
            "add {p}, 16",
            "dec {rounds:e}",
            "jnz 2b",
            s = in(reg) table.as_mut_ptr(),
            p = inout(reg) table.as_mut_ptr() => _,
            key = in(reg) key.as_ptr(),
            rounds = inout(reg) 16_u64 => _,
            octet = in(reg) 0xff_u64,
            tie0 = inout(reg) 0_u64 => _,
            tie1 = inout(reg) 0_u64 => _,
            tie2 = inout(reg) 0_u64 => _,
            tie3 = inout(reg) 0_u64 => _,
            inout("rcx") 0_u64 => _,
            out("rax") _,
            out("rdx") _,
            options(nostack),
        );
    }
}

/// Encrypts or decrypts `octets` in place with the next of the key stream.
///
/// # Safety
/// [`runs`] must have said yes.
pub(super) unsafe fn stream(rc4: &mut Rc4State, octets: &mut [u8]) {
    let (table, i, j) = rc4.parts();
    // Blocks begin where `i` is a multiple of their length; a fresh key's are there already.
    let head = usize::from(i.wrapping_neg()) % BLOCK;
    let (head, rest) = octets.split_at_mut(head.min(octets.len()));
    // SAFETY: the instructions are there by contract.
    unsafe { singly(table, i, j, head) };
    let (whole, tail) = rest.as_chunks_mut();
    // SAFETY: as above. If there is a block, the head was not cut short, so that `i` is a multiple of 16 now.
    unsafe { blocks(table, i, j, whole) };
    // SAFETY: as above.
    unsafe { singly(table, i, j, tail) };
}

/// # Safety
/// [`runs`] must have said yes, and `i` must be a multiple of [`BLOCK`] unless there are no blocks.
#[inline]
unsafe fn blocks(table: &mut [u8; 256], i: &mut u8, j: &mut u8, blocks: &mut [[u8; BLOCK]]) {
    if blocks.is_empty() {
        return;
    }
    let s = table.as_mut_ptr();
    let mut index = u64::from(*j);
    // SAFETY: `p` is `S + i`, with `i` a multiple of 16 that wraps around at 256 for the last step of each block: each
    // block visits `S[i + 1]` to `S[i + 15]`, which lie in the table, and then `S[i + 16 mod 256]`. `j` and `x + y` are
    // less than 256, and ties are 0. `data` goes over `blocks` and ends with them. Nothing else is written, and the stack
    // is not used. The instructions are there by contract.
    unsafe {
        asm!(
            "2:",
            stream_step!("tie0", "1", "0"), stream_step!("tie1", "2", "1"),
            stream_step!("tie2", "3", "2"), stream_step!("tie3", "4", "3"),
            stream_step!("tie0", "5", "4"), stream_step!("tie1", "6", "5"),
            stream_step!("tie2", "7", "6"), stream_step!("tie3", "8", "7"),
            stream_step!("tie0", "9", "8"), stream_step!("tie1", "10", "9"),
            stream_step!("tie2", "11", "10"), stream_step!("tie3", "12", "11"),
            stream_step!("tie0", "13", "12"), stream_step!("tie1", "14", "13"),
            stream_step!("tie2", "15", "14"),
            "sub {p}, {s}",
            "add {p:l}, 16",
            "add {p}, {s}",
            stream_step!("tie3", "0", "15"),
            "movdqu {data_block}, xmmword ptr [{data}]",
            "pxor {data_block}, {stream}",
            "movdqu xmmword ptr [{data}], {data_block}",
            "add {data}, 16",
            "dec {left}",
            "jnz 2b",
            s = in(reg) s,
            p = inout(reg) s.add(usize::from(*i)) => _,
            data = inout(reg) blocks.as_mut_ptr() => _,
            left = inout(reg) blocks.len() => _,
            octet = in(reg) 0xff_u64,
            tie0 = inout(reg) 0_u64 => _,
            tie1 = inout(reg) 0_u64 => _,
            tie2 = inout(reg) 0_u64 => _,
            tie3 = inout(reg) 0_u64 => _,
            stream = out(xmm_reg) _,
            data_block = out(xmm_reg) _,
            inout("rcx") index,
            out("rax") _,
            out("rdx") _,
            options(nostack),
        );
    }
    // Only the lowest octets of both ever differ from 0.
    *j = index as u8;
    *i = i.wrapping_add((blocks.len() * BLOCK) as u8);
}

/// For octets before and after whole blocks.
///
/// # Safety
/// [`runs`] must have said yes.
#[inline]
unsafe fn singly(table: &mut [u8; 256], i: &mut u8, j: &mut u8, octets: &mut [u8]) {
    if octets.is_empty() {
        return;
    }
    let mut at = u64::from(*i);
    let mut index = u64::from(*j);
    // SAFETY: `i`, `j` and `x + y` are less than 256, and ties are 0, so all accesses by `s` and `p` are to the table.
    // `data` goes over `octets` and ends with them. Nothing else is written, and the stack is not used. The instructions
    // are there by contract.
    unsafe {
        asm!(
            "2:",
            "inc {i:l}",
            "lea {p}, [{s} + {i}]",
            "movzx eax, byte ptr [{p} + {tie0}]",
            "add cl, al",
            "movzx edx, byte ptr [{s} + rcx]",
            "mov byte ptr [{s} + rcx], al",
            "mov byte ptr [{p}], dl",
            "mov {tie0:e}, {tie1:e}",
            "mov {tie1:e}, {tie2:e}",
            "andn {tie2:e}, {octet:e}, ecx",
            "add al, dl",
            "movzx eax, byte ptr [{s} + rax]",
            "xor byte ptr [{data}], al",
            "inc {data}",
            "dec {left}",
            "jnz 2b",
            s = in(reg) table.as_mut_ptr(),
            p = out(reg) _,
            i = inout(reg) at,
            data = inout(reg) octets.as_mut_ptr() => _,
            left = inout(reg) octets.len() => _,
            octet = in(reg) 0xff_u64,
            tie0 = inout(reg) 0_u64 => _,
            tie1 = inout(reg) 0_u64 => _,
            tie2 = inout(reg) 0_u64 => _,
            inout("rcx") index,
            out("rax") _,
            out("rdx") _,
            options(nostack),
        );
    }
    *i = at as u8;
    *j = index as u8;
}
