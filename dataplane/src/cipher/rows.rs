//! Eight or four streams at once in x86-64 assembly, their tables interleaved octet by octet.
//!
//! A step of RC4 stores two octets at places of its own, and processors store to one line a cycle: with separate tables
//! no number of streams takes less than two cycles for each octet. But streams in lockstep have the same `i`. If `S[i]`
//! of all of them lie side by side, in a row, their new values are put together in a vector register and stored at once.
//! (They must be loaded octet by octet all the same: a row has just been written in single octets, and a wide load
//! cannot be served from narrow stores that are still on their way.)
//!
//! A row is stored after the octets at the rows of `j`. Where `j` is `i`, the octet stored first is what `S[i]` was,
//! which is also what the row holds for that lane. Key stream octets are loaded after the row is stored and before the
//! lane's next step, as one of the two entries that were swapped may be it.
//!
//! `j`, `x` and `y` are octets in registers whose upper bits are zero, as in [`tied`](super::tied). In the key schedule
//! the keys' octets of all lanes come in one register, which is shifted from lane to lane.

use core::arch::naked_asm;
use core::arch::x86_64::{__m128i, _mm_unpackhi_epi8, _mm_unpacklo_epi8};
use core::mem::offset_of;

use turnpike_protocol::mppe::Rc4State;

use super::arena::{Arena, BLOCK, WIDEST};

/// Whether this processor has the three-operand form of vector instructions.
pub(super) fn runs() -> bool {
    is_x86_feature_detected!("avx")
}

static IDENTITY_8: [u8; 2048] = identity(8);
static IDENTITY_4: [u8; 1024] = identity(4);

const fn identity<const LEN: usize>(lanes: usize) -> [u8; LEN] {
    let mut rows = [0; LEN];
    let mut at = 0;
    while at < LEN {
        rows[at] = Rc4State::IDENTITY[at / lanes];
        at += 1;
    }
    rows
}

/// Goes to the start of eight key streams.
///
/// # Safety
/// [`runs`] must have said yes.
pub(super) unsafe fn schedule_8(arena: &mut Arena) {
    arena.tables = IDENTITY_8;
    transpose(&arena.keys, &mut arena.key_rows);
    arena.j = [0; WIDEST];
    // SAFETY: the instructions are there by contract, and tables and key rows are filled.
    unsafe { schedule_rows_8(arena) };
}

/// Goes to the start of four key streams.
///
/// # Safety
/// [`runs`] must have said yes.
pub(super) unsafe fn schedule_4(arena: &mut Arena) {
    arena.tables[..1024].copy_from_slice(&IDENTITY_4);
    transpose(&arena.keys, &mut arena.key_rows);
    arena.j = [0; WIDEST];
    // SAFETY: as for eight.
    unsafe { schedule_rows_4(arena) };
}

/// Encrypts or decrypts `arena.left` blocks of eight streams, which have done `done` blocks since their starts.
///
/// # Safety
/// [`runs`] must have said yes, `arena.left` must not be 0, the tables must be [`schedule_8`]'s, and for each lane
/// `arena.data + arena.offset` must be valid for loads and stores of so many blocks. They may be the same for several
/// lanes whose octets nobody wants.
pub(super) unsafe fn stream_8(arena: *mut Arena, done: usize) {
    // SAFETY: by contract; the row that comes next is a multiple of 16.
    unsafe { stream_rows_8(arena, done * BLOCK % 256) };
}

/// The same for four streams.
///
/// # Safety
/// As for [`stream_8`], with the tables of [`schedule_4`].
pub(super) unsafe fn stream_4(arena: *mut Arena, done: usize) {
    // SAFETY: as for eight.
    unsafe { stream_rows_4(arena, done * BLOCK % 256) };
}

/// Writes the first octets of all keys, then the second octets, and so on.
#[inline]
fn transpose(keys: &[[u8; BLOCK]; WIDEST], rows: &mut [u64; BLOCK]) {
    // SAFETY: both are 128 octets of which all values are valid.
    let keys: [__m128i; WIDEST] = unsafe { core::mem::transmute_copy(keys) };
    // What is interleaved three times with what is four further on comes to lie in order.
    let interleaved = |octets: [__m128i; WIDEST]| -> [__m128i; WIDEST] {
        core::array::from_fn(|at| {
            let (first, second) = (octets[at / 2], octets[at / 2 + 4]);
            // SAFETY: every x86-64 processor has SSE2.
            unsafe {
                if at % 2 == 0 {
                    _mm_unpacklo_epi8(first, second)
                } else {
                    _mm_unpackhi_epi8(first, second)
                }
            }
        })
    };
    let octets = interleaved(interleaved(interleaved(keys)));
    // SAFETY: as above.
    *rows = unsafe { core::mem::transmute::<[__m128i; WIDEST], [u64; BLOCK]>(octets) };
}

/// One step of one lane's key schedule. The row so far is in `$row`, and this lane's octet is added to it; `dl` is the
/// key's octet.
macro_rules! schedule_lane {
    ($lanes:literal, $at:literal, $lane:literal, $j:literal, $row:literal) => {
        concat!(
            "movzx eax, byte ptr [rdi + ",
            $lanes,
            "*",
            $at,
            " + ",
            $lane,
            "]\n",
            "add ",
            $j,
            "b, dl\n",
            "shr rdx, 8\n",
            "add ",
            $j,
            "b, al\n",
            "vpinsrb xmm0, ",
            $row,
            ", byte ptr [rsi + ",
            $lanes,
            "*",
            $j,
            " + ",
            $lane,
            "], ",
            $lane,
            "\n",
            "mov byte ptr [rsi + ",
            $lanes,
            "*",
            $j,
            " + ",
            $lane,
            "], al\n",
        )
    };
}

/// One step of eight key schedules.
macro_rules! schedule_row_8 {
    ($at:literal) => {
        concat!(
            "mov rdx, [rsi + {keys} + 8*",
            $at,
            "]\n",
            schedule_lane!("8", $at, "0", "r8", "xmm15"),
            schedule_lane!("8", $at, "1", "r9", "xmm0"),
            schedule_lane!("8", $at, "2", "r10", "xmm0"),
            schedule_lane!("8", $at, "3", "r11", "xmm0"),
            schedule_lane!("8", $at, "4", "r12", "xmm0"),
            schedule_lane!("8", $at, "5", "r13", "xmm0"),
            schedule_lane!("8", $at, "6", "r14", "xmm0"),
            schedule_lane!("8", $at, "7", "r15", "xmm0"),
            "vmovq qword ptr [rdi + 8*",
            $at,
            "], xmm0\n",
        )
    };
}

/// One step of four key schedules.
macro_rules! schedule_row_4 {
    ($at:literal) => {
        concat!(
            "mov rdx, [rsi + {keys} + 8*",
            $at,
            "]\n",
            schedule_lane!("4", $at, "0", "r8", "xmm15"),
            schedule_lane!("4", $at, "1", "r9", "xmm0"),
            schedule_lane!("4", $at, "2", "r10", "xmm0"),
            schedule_lane!("4", $at, "3", "r11", "xmm0"),
            "vmovd dword ptr [rdi + 4*",
            $at,
            "], xmm0\n",
        )
    };
}

/// Sixteen of something.
macro_rules! each_16 {
    ($step:ident) => {
        concat!(
            $step!("0"),
            $step!("1"),
            $step!("2"),
            $step!("3"),
            $step!("4"),
            $step!("5"),
            $step!("6"),
            $step!("7"),
            $step!("8"),
            $step!("9"),
            $step!("10"),
            $step!("11"),
            $step!("12"),
            $step!("13"),
            $step!("14"),
            $step!("15"),
        )
    };
}

/// Key schedules over tables that hold the identity: `rsi` tables, `rdi` the row, `r8` to `r15` each lane's `j`.
///
/// # Safety
/// The processor must have AVX. Only `arena.tables` is written: rows go from their beginning to their end, and every
/// `j` is less than 256.
#[unsafe(naked)]
unsafe extern "sysv64" fn schedule_rows_8(arena: *mut Arena) {
    naked_asm!(
        "push r12", "push r13", "push r14", "push r15",
        "mov rsi, rdi",
        "lea rcx, [rdi + 2048]",
        "xor r8d, r8d", "xor r9d, r9d", "xor r10d, r10d", "xor r11d, r11d",
        "xor r12d, r12d", "xor r13d, r13d", "xor r14d, r14d", "xor r15d, r15d",
        "vpxor xmm15, xmm15, xmm15",
        "2:",
        each_16!(schedule_row_8),
        "sub rdi, -128",
        "cmp rdi, rcx",
        "jne 2b",
        "pop r15", "pop r14", "pop r13", "pop r12",
        "ret",
        keys = const offset_of!(Arena, key_rows),
    )
}

/// The same for four.
///
/// # Safety
/// As above.
#[unsafe(naked)]
unsafe extern "sysv64" fn schedule_rows_4(arena: *mut Arena) {
    naked_asm!(
        "mov rsi, rdi",
        "lea rcx, [rdi + 1024]",
        "xor r8d, r8d", "xor r9d, r9d", "xor r10d, r10d", "xor r11d, r11d",
        "vpxor xmm15, xmm15, xmm15",
        "2:",
        each_16!(schedule_row_4),
        "add rdi, 64",
        "cmp rdi, rcx",
        "jne 2b",
        "ret",
        keys = const offset_of!(Arena, key_rows),
    )
}

/// One step of one lane's key stream up to its swap; leaves `x + y` in `$x`. Rows are put together four lanes at a time.
macro_rules! swap_lane {
    ($lanes:literal, $at:literal, $lane:literal, $j:literal, $x:literal, $octet:literal, $row:literal, $to:literal) => {
        concat!(
            "movzx ", $x, ", byte ptr [rdi + ", $lanes, "*", $at, " + ", $lane, "]\n",
            "add ", $j, "b, ", $octet, "\n",
            "movzx ebp, byte ptr [rsi + ", $lanes, "*", $j, " + ", $lane, "]\n",
            "mov byte ptr [rsi + ", $lanes, "*", $j, " + ", $lane, "], ", $octet, "\n",
            "vpinsrb xmm8, ", $row, ", ebp, ", $to, "\n",
            "add ", $octet, ", bpl\n",
        )
    };
}

/// An octet of a lane's key stream, into the lane's vector register.
macro_rules! take_lane {
    ($lanes:literal, $lane:literal, $sum:literal, $to:literal, $from:literal) => {
        concat!(
            "vpinsrb xmm",
            $lane,
            ", ",
            $from,
            $lane,
            ", byte ptr [rsi + ",
            $lanes,
            "*",
            $sum,
            " + ",
            $lane,
            "], ",
            $to,
            "\n",
        )
    };
}

/// One step of four key streams of which the first is lane 0.
macro_rules! stream_first_4 {
    ($lanes:literal, $at:literal, $to:literal) => {
        concat!(
            swap_lane!($lanes, $at, "0", "r8", "eax", "al", "xmm15", "0"),
            swap_lane!($lanes, $at, "1", "r9", "ebx", "bl", "xmm8", "1"),
            swap_lane!($lanes, $at, "2", "r10", "ecx", "cl", "xmm8", "2"),
            swap_lane!($lanes, $at, "3", "r11", "edx", "dl", "xmm8", "3"),
            "vmovd dword ptr [rdi + ",
            $lanes,
            "*",
            $at,
            "], xmm8\n",
            take_lane!($lanes, "0", "rax", $to, "xmm"),
            take_lane!($lanes, "1", "rbx", $to, "xmm"),
            take_lane!($lanes, "2", "rcx", $to, "xmm"),
            take_lane!($lanes, "3", "rdx", $to, "xmm"),
        )
    };
}

/// One step of eight key streams.
macro_rules! stream_row_8 {
    ($at:literal, $to:literal) => {
        concat!(
            stream_first_4!("8", $at, $to),
            swap_lane!("8", $at, "4", "r12", "eax", "al", "xmm15", "0"),
            swap_lane!("8", $at, "5", "r13", "ebx", "bl", "xmm8", "1"),
            swap_lane!("8", $at, "6", "r14", "ecx", "cl", "xmm8", "2"),
            swap_lane!("8", $at, "7", "r15", "edx", "dl", "xmm8", "3"),
            "vmovd dword ptr [rdi + 8*",
            $at,
            " + 4], xmm8\n",
            take_lane!("8", "4", "rax", $to, "xmm"),
            take_lane!("8", "5", "rbx", $to, "xmm"),
            take_lane!("8", "6", "rcx", $to, "xmm"),
            take_lane!("8", "7", "rdx", $to, "xmm"),
        )
    };
}

/// One step of four key streams.
macro_rules! stream_row_4 {
    ($at:literal, $to:literal) => {
        stream_first_4!("4", $at, $to)
    };
}

/// The fifteen steps of a block before `i` may wrap around.
macro_rules! first_15 {
    ($row:ident) => {
        concat!(
            $row!("1", "0"),
            $row!("2", "1"),
            $row!("3", "2"),
            $row!("4", "3"),
            $row!("5", "4"),
            $row!("6", "5"),
            $row!("7", "6"),
            $row!("8", "7"),
            $row!("9", "8"),
            $row!("10", "9"),
            $row!("11", "10"),
            $row!("12", "11"),
            $row!("13", "12"),
            $row!("14", "13"),
            $row!("15", "14"),
        )
    };
}

/// A block of a lane's packet; `rax` is the offset.
macro_rules! write_lane {
    ($lane:literal) => {
        concat!(
            "mov rbx, [rsi + {data} + 8*",
            $lane,
            "]\n",
            "vpxor xmm",
            $lane,
            ", xmm",
            $lane,
            ", xmmword ptr [rbx + rax]\n",
            "vmovdqu xmmword ptr [rbx + rax], xmm",
            $lane,
            "\n",
        )
    };
}

/// Key streams: `rsi` tables, `rdi` the row of `i`, `r8` to `r15` each lane's `j`, `xmm0` to `xmm7` their octets.
///
/// # Safety
/// The processor must have AVX, `i` must be a multiple of 16 less than 256, `arena.left` must not be 0, and `arena.data +
/// arena.offset` must be valid for so many blocks. Besides these only the arena is written: every `j` and `x + y` is
/// less than 256, and so is `i`: tables begin at a multiple of their length, so a row beyond their end is known by one
/// bit of its address.
#[unsafe(naked)]
unsafe extern "sysv64" fn stream_rows_8(arena: *mut Arena, i: usize) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "mov rax, rsi",
        "mov rsi, rdi",
        "lea rdi, [rsi + 8*rax]",
        "mov r8, [rsi + {j}]", "mov r9, [rsi + {j} + 8]",
        "mov r10, [rsi + {j} + 16]", "mov r11, [rsi + {j} + 24]",
        "mov r12, [rsi + {j} + 32]", "mov r13, [rsi + {j} + 40]",
        "mov r14, [rsi + {j} + 48]", "mov r15, [rsi + {j} + 56]",
        "vpxor xmm15, xmm15, xmm15",
        "2:",
        first_15!(stream_row_8),
        "sub rdi, -128",
        "btr rdi, 11",
        stream_row_8!("0", "15"),
        "mov rax, [rsi + {offset}]",
        write_lane!("0"), write_lane!("1"), write_lane!("2"), write_lane!("3"),
        write_lane!("4"), write_lane!("5"), write_lane!("6"), write_lane!("7"),
        "add rax, 16",
        "mov [rsi + {offset}], rax",
        "dec qword ptr [rsi + {left}]",
        "jnz 2b",
        "mov [rsi + {j}], r8", "mov [rsi + {j} + 8], r9",
        "mov [rsi + {j} + 16], r10", "mov [rsi + {j} + 24], r11",
        "mov [rsi + {j} + 32], r12", "mov [rsi + {j} + 40], r13",
        "mov [rsi + {j} + 48], r14", "mov [rsi + {j} + 56], r15",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        data = const offset_of!(Arena, data),
        offset = const offset_of!(Arena, offset),
        left = const offset_of!(Arena, left),
        j = const offset_of!(Arena, j),
    )
}

/// The same for four.
///
/// # Safety
/// As above.
#[unsafe(naked)]
unsafe extern "sysv64" fn stream_rows_4(arena: *mut Arena, i: usize) {
    naked_asm!(
        "push rbx", "push rbp",
        "mov rax, rsi",
        "mov rsi, rdi",
        "lea rdi, [rsi + 4*rax]",
        "mov r8, [rsi + {j}]", "mov r9, [rsi + {j} + 8]",
        "mov r10, [rsi + {j} + 16]", "mov r11, [rsi + {j} + 24]",
        "vpxor xmm15, xmm15, xmm15",
        "2:",
        first_15!(stream_row_4),
        "add rdi, 64",
        "btr rdi, 10",
        stream_row_4!("0", "15"),
        "mov rax, [rsi + {offset}]",
        write_lane!("0"), write_lane!("1"), write_lane!("2"), write_lane!("3"),
        "add rax, 16",
        "mov [rsi + {offset}], rax",
        "dec qword ptr [rsi + {left}]",
        "jnz 2b",
        "mov [rsi + {j}], r8", "mov [rsi + {j} + 8], r9",
        "mov [rsi + {j} + 16], r10", "mov [rsi + {j} + 24], r11",
        "pop rbp", "pop rbx",
        "ret",
        data = const offset_of!(Arena, data),
        offset = const offset_of!(Arena, offset),
        left = const offset_of!(Arena, left),
        j = const offset_of!(Arena, j),
    )
}
