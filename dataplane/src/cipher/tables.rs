//! Eight or two streams at once in x86-64 assembly, each with a table of its own.
//!
//! Eight: where rows ([`rows`](super::rows)) have too many instructions for what a processor starts in a cycle, or putting
//! octets into vector registers is dear. Tables begin at multiples of 256, and `j` is kept as the address of `S[j]`: an
//! 8-bit addition moves it within its table, and stores need no second register for their addresses. Other streams fill
//! the time while one waits, so that loads are seldom early enough to overtake a store to the same octet.
//!
//! Two: that does not hold for two, so they are tied like one ([`tied`](super::tied)), two steps back. Their tables
//! are not a multiple of 256 apart.

use core::arch::naked_asm;
use core::mem::offset_of;

use turnpike_protocol::mppe::Rc4State;

use super::arena::{Arena, BLOCK, WIDEST};

/// Octets from table to table of two.
const STRIDE: usize = 320;

/// Whether this processor has the three-operand form of vector instructions.
pub(super) fn runs_8() -> bool {
    is_x86_feature_detected!("avx")
}

/// Whether it has that and `andn`.
pub(super) fn runs_2() -> bool {
    runs_8() && is_x86_feature_detected!("bmi1")
}

/// Goes to the start of eight key streams.
///
/// # Safety
/// [`runs_8`] must have said yes.
pub(super) unsafe fn schedule_8(arena: &mut Arena) {
    for table in arena.tables.as_chunks_mut::<256>().0 {
        *table = Rc4State::IDENTITY;
    }
    arena.j = [0; WIDEST];
    // SAFETY: the instructions are there by contract, and tables are filled.
    unsafe { schedule_tables_8(arena) };
}

/// Goes to the start of two key streams.
///
/// # Safety
/// [`runs_2`] must have said yes.
pub(super) unsafe fn schedule_2(arena: &mut Arena) {
    for table in arena.tables.chunks_mut(STRIDE).take(2) {
        table[..256].copy_from_slice(&Rc4State::IDENTITY);
    }
    arena.j = [0; WIDEST];
    // SAFETY: as for eight.
    unsafe { schedule_tables_2(arena) };
}

/// Encrypts or decrypts `arena.left` blocks of eight streams, which have done `done` blocks since their starts.
///
/// # Safety
/// [`runs_8`] must have said yes, `arena.left` must not be 0, the tables must be [`schedule_8`]'s, and for each lane
/// `arena.data + arena.offset` must be valid for loads and stores of so many blocks. They may be the same for several
/// lanes whose octets nobody wants.
pub(super) unsafe fn stream_8(arena: *mut Arena, done: usize) {
    // SAFETY: by contract; the index that comes next is a multiple of 16.
    unsafe { stream_tables_8(arena, done * BLOCK % 256) };
}

/// The same for two streams.
///
/// # Safety
/// As for [`stream_8`], with [`runs_2`] and the tables of [`schedule_2`].
pub(super) unsafe fn stream_2(arena: *mut Arena, done: usize) {
    // SAFETY: as for eight.
    unsafe { stream_tables_2(arena, done * BLOCK % 256) };
}

/// Steps 0 to 15 of something.
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

/// The fifteen steps of a block before `i` may wrap around.
macro_rules! first_15 {
    ($step:ident) => {
        concat!(
            $step!("1", "0"),
            $step!("2", "1"),
            $step!("3", "2"),
            $step!("4", "3"),
            $step!("5", "4"),
            $step!("6", "5"),
            $step!("7", "6"),
            $step!("8", "7"),
            $step!("9", "8"),
            $step!("10", "9"),
            $step!("11", "10"),
            $step!("12", "11"),
            $step!("13", "12"),
            $step!("14", "13"),
            $step!("15", "14"),
        )
    };
}

/// Something for each of eight lanes, with the register of its `j`.
macro_rules! each_lane {
    ($step:ident $(, $more:literal)*) => {
        concat!(
            $step!("0", "r8" $(, $more)*), $step!("1", "r9" $(, $more)*),
            $step!("2", "r10" $(, $more)*), $step!("3", "r11" $(, $more)*),
            $step!("4", "r12" $(, $more)*), $step!("5", "r13" $(, $more)*),
            $step!("6", "r14" $(, $more)*), $step!("7", "r15" $(, $more)*),
        )
    };
}

macro_rules! schedule_lane {
    ($lane:literal, $j:literal, $at:literal) => {
        concat!(
            "movzx eax, byte ptr [rdi + 256*",
            $lane,
            " + ",
            $at,
            "]\n",
            "add ",
            $j,
            "b, byte ptr [rsi + {keys} + 16*",
            $lane,
            " + ",
            $at,
            "]\n",
            "add ",
            $j,
            "b, al\n",
            "movzx edx, byte ptr [",
            $j,
            "]\n",
            "mov byte ptr [",
            $j,
            "], al\n",
            "mov byte ptr [rdi + 256*",
            $lane,
            " + ",
            $at,
            "], dl\n",
        )
    };
}

macro_rules! schedule_step_8 {
    ($at:literal) => {
        each_lane!(schedule_lane, $at)
    };
}

macro_rules! stream_lane {
    ($lane:literal, $j:literal, $at:literal, $to:literal) => {
        concat!(
            "movzx eax, byte ptr [rdi + 256*",
            $lane,
            " + ",
            $at,
            "]\n",
            "add ",
            $j,
            "b, al\n",
            "movzx edx, byte ptr [",
            $j,
            "]\n",
            "mov byte ptr [",
            $j,
            "], al\n",
            "mov byte ptr [rdi + 256*",
            $lane,
            " + ",
            $at,
            "], dl\n",
            "add al, dl\n",
            "vpinsrb xmm",
            $lane,
            ", xmm",
            $lane,
            ", byte ptr [rsi + rax + 256*",
            $lane,
            "], ",
            $to,
            "\n",
        )
    };
}

macro_rules! stream_step_8 {
    ($at:literal, $to:literal) => {
        each_lane!(stream_lane, $at, $to)
    };
}

/// A block of a lane's packet; `rax` is the offset.
macro_rules! write_lane {
    ($lane:literal, $j:literal) => {
        concat!(
            "mov rdx, [rsi + {data} + 8*",
            $lane,
            "]\n",
            "vpxor xmm",
            $lane,
            ", xmm",
            $lane,
            ", xmmword ptr [rdx + rax]\n",
            "vmovdqu xmmword ptr [rdx + rax], xmm",
            $lane,
            "\n",
        )
    };
}

/// The address of a lane's first entry.
macro_rules! first_entry {
    ($lane:literal, $j:literal) => {
        concat!("lea ", $j, ", [rsi + 256*", $lane, "]\n")
    };
}

/// The address of `S[j]`.
macro_rules! load_j {
    ($lane:literal, $j:literal) => {
        concat!(
            "mov ",
            $j,
            ", [rsi + {j} + 8*",
            $lane,
            "]\n",
            "lea ",
            $j,
            ", [rsi + ",
            $j,
            " + 256*",
            $lane,
            "]\n",
        )
    };
}

macro_rules! store_j {
    ($lane:literal, $j:literal) => {
        concat!(
            "movzx ",
            $j,
            "d, ",
            $j,
            "b\n",
            "mov [rsi + {j} + 8*",
            $lane,
            "], ",
            $j,
            "\n"
        )
    };
}

/// Key schedules over tables that hold the identity: `rsi` tables, `rdi` `S[i]` of the first, `r8` to `r15` each lane's
/// `S[j]`.
///
/// # Safety
/// The processor must have AVX. Only `arena.tables` is written: `i` goes from 0 to 255, and 8-bit additions leave every
/// `S[j]` within its table, as tables begin at multiples of 256.
#[unsafe(naked)]
unsafe extern "sysv64" fn schedule_tables_8(arena: *mut Arena) {
    naked_asm!(
        "push r12", "push r13", "push r14", "push r15",
        "mov rsi, rdi",
        "lea rcx, [rdi + 256]",
        each_lane!(first_entry),
        "2:",
        each_16!(schedule_step_8),
        "add rdi, 16",
        "cmp rdi, rcx",
        "jne 2b",
        "pop r15", "pop r14", "pop r13", "pop r12",
        "ret",
        keys = const offset_of!(Arena, keys),
    )
}

/// Key streams: registers as above, `xmm0` to `xmm7` their octets.
///
/// # Safety
/// The processor must have AVX, `i` must be a multiple of 16 less than 256, `arena.left` must not be 0, and `arena.data +
/// arena.offset` must be valid for so many blocks. Besides these only the arena is written: 8-bit additions leave
/// `S[i]` and every `S[j]` within their tables, and `x + y` is less than 256.
#[unsafe(naked)]
unsafe extern "sysv64" fn stream_tables_8(arena: *mut Arena, i: usize) {
    naked_asm!(
        "push r12", "push r13", "push r14", "push r15",
        "mov rax, rsi",
        "mov rsi, rdi",
        "add rdi, rax",
        each_lane!(load_j),
        "2:",
        first_15!(stream_step_8),
        "add dil, 16",
        stream_step_8!("0", "15"),
        "mov rax, [rsi + {offset}]",
        each_lane!(write_lane),
        "add rax, 16",
        "mov [rsi + {offset}], rax",
        "dec qword ptr [rsi + {left}]",
        "jnz 2b",
        each_lane!(store_j),
        "pop r15", "pop r14", "pop r13", "pop r12",
        "ret",
        data = const offset_of!(Arena, data),
        offset = const offset_of!(Arena, offset),
        left = const offset_of!(Arena, left),
        j = const offset_of!(Arena, j),
    )
}

/// One step of one of two key schedules.
macro_rules! schedule_tied {
    ($lane:literal, $at:literal, $j:literal, $x:literal, $octet:literal, $tie:literal) => {
        concat!(
            "movzx ", $x, ", byte ptr [rdi + ", $tie, " + 320*", $lane, " + ", $at, "]\n",
            "add ", $j, "b, byte ptr [rsi + {keys} + 16*", $lane, " + ", $at, "]\n",
            "add ", $j, "b, ", $octet, "\n",
            "movzx ecx, byte ptr [rsi + ", $j, " + 320*", $lane, "]\n",
            "mov byte ptr [rsi + ", $j, " + 320*", $lane, "], ", $octet, "\n",
            "mov byte ptr [rdi + 320*", $lane, " + ", $at, "], cl\n",
            "andn ", $tie, ", r14, ", $j, "\n",
        )
    };
}

/// One step of one of two key streams.
macro_rules! stream_tied {
    ($lane:literal, $at:literal, $to:literal, $j:literal, $x:literal, $octet:literal, $tie:literal, $sum:literal) => {
        concat!(
            "movzx ", $x, ", byte ptr [rdi + ", $tie, " + 320*", $lane, " + ", $at, "]\n",
            "add ", $j, "b, ", $octet, "\n",
            "movzx ecx, byte ptr [rsi + ", $j, " + 320*", $lane, "]\n",
            "mov byte ptr [rsi + ", $j, " + 320*", $lane, "], ", $octet, "\n",
            "mov byte ptr [rdi + 320*", $lane, " + ", $at, "], cl\n",
            "andn ", $tie, ", r14, ", $j, "\n",
            "add ", $octet, ", cl\n",
            "vpinsrb xmm", $lane, ", xmm", $lane, ", byte ptr [rsi + ", $sum, " + 320*", $lane, "], ", $to, "\n",
        )
    };
}

/// Ties of even and of odd steps are two steps old when they are used.
macro_rules! schedule_even {
    ($at:literal) => {
        concat!(
            schedule_tied!("0", $at, "r8", "eax", "al", "r10"),
            schedule_tied!("1", $at, "r9", "edx", "dl", "r11"),
        )
    };
}

macro_rules! schedule_odd {
    ($at:literal) => {
        concat!(
            schedule_tied!("0", $at, "r8", "eax", "al", "r12"),
            schedule_tied!("1", $at, "r9", "edx", "dl", "r13"),
        )
    };
}

macro_rules! stream_even {
    ($at:literal, $to:literal) => {
        concat!(
            stream_tied!("0", $at, $to, "r8", "eax", "al", "r10", "rax"),
            stream_tied!("1", $at, $to, "r9", "edx", "dl", "r11", "rdx"),
        )
    };
}

macro_rules! stream_odd {
    ($at:literal, $to:literal) => {
        concat!(
            stream_tied!("0", $at, $to, "r8", "eax", "al", "r12", "rax"),
            stream_tied!("1", $at, $to, "r9", "edx", "dl", "r13", "rdx"),
        )
    };
}

/// Key schedules over tables that hold the identity: `rsi` tables, `rdi` `S[i]` of the first, `r8` and `r9` each lane's
/// `j`, `r10` to `r13` ties.
///
/// # Safety
/// The processor must have BMI1. Only `arena.tables` is written: `i` goes from 0 to 255, every `j` is less than 256, and
/// ties are 0.
#[unsafe(naked)]
unsafe extern "sysv64" fn schedule_tables_2(arena: *mut Arena) {
    naked_asm!(
        "push rbp", "push r12", "push r13", "push r14",
        "mov rsi, rdi",
        "lea rbp, [rdi + 256]",
        "mov r14d, 255",
        "xor r8d, r8d", "xor r9d, r9d", "xor r10d, r10d", "xor r11d, r11d", "xor r12d, r12d", "xor r13d, r13d",
        "2:",
        schedule_even!("0"), schedule_odd!("1"), schedule_even!("2"), schedule_odd!("3"),
        schedule_even!("4"), schedule_odd!("5"), schedule_even!("6"), schedule_odd!("7"),
        schedule_even!("8"), schedule_odd!("9"), schedule_even!("10"), schedule_odd!("11"),
        schedule_even!("12"), schedule_odd!("13"), schedule_even!("14"), schedule_odd!("15"),
        "add rdi, 16",
        "cmp rdi, rbp",
        "jne 2b",
        "pop r14", "pop r13", "pop r12", "pop rbp",
        "ret",
        keys = const offset_of!(Arena, keys),
    )
}

/// Key streams: registers as above, `xmm0` and `xmm1` their octets.
///
/// # Safety
/// The processor must have AVX and BMI1, `i` must be a multiple of 16 less than 256, `arena.left` must not be 0, and
/// `arena.data + arena.offset` must be valid for so many blocks. Besides these only the arena is written: `i`, every
/// `j` and `x + y` are less than 256, and ties are 0.
#[unsafe(naked)]
unsafe extern "sysv64" fn stream_tables_2(arena: *mut Arena, i: usize) {
    naked_asm!(
        "push r12", "push r13", "push r14",
        "mov rax, rsi",
        "mov rsi, rdi",
        "add rdi, rax",
        "mov r14d, 255",
        "mov r8, [rsi + {j}]", "mov r9, [rsi + {j} + 8]",
        "xor r10d, r10d", "xor r11d, r11d", "xor r12d, r12d", "xor r13d, r13d",
        "2:",
        stream_odd!("1", "0"), stream_even!("2", "1"), stream_odd!("3", "2"), stream_even!("4", "3"),
        stream_odd!("5", "4"), stream_even!("6", "5"), stream_odd!("7", "6"), stream_even!("8", "7"),
        stream_odd!("9", "8"), stream_even!("10", "9"), stream_odd!("11", "10"), stream_even!("12", "11"),
        stream_odd!("13", "12"), stream_even!("14", "13"), stream_odd!("15", "14"),
        "add dil, 16",
        stream_even!("0", "15"),
        "mov rax, [rsi + {offset}]",
        write_lane!("0", "r8"), write_lane!("1", "r9"),
        "add rax, 16",
        "mov [rsi + {offset}], rax",
        "dec qword ptr [rsi + {left}]",
        "jnz 2b",
        "mov [rsi + {j}], r8", "mov [rsi + {j} + 8], r9",
        "pop r14", "pop r13", "pop r12",
        "ret",
        data = const offset_of!(Arena, data),
        offset = const offset_of!(Arena, offset),
        left = const offset_of!(Arena, left),
        j = const offset_of!(Arena, j),
    )
}
