//! The load tester's programs: one makes packets, one counts them, one throws them away.
#![no_std]
#![no_main]
#![allow(
    missing_docs,
    reason = "a program has no public items; the macros make some"
)]

use core::ptr;

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect, bpf_skb_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{TcContext, XdpContext};
use turnpike_bench_ebpf::{self as shared, Control, Counted, Head, Sent};

type Orders = [u64; Control::Words as usize];
type Small = [u8; shared::HEAD_LEN + shared::SMALL_LEN];
type Large = [u8; shared::HEAD_LEN + shared::LARGE_LEN];

#[map]
static CONTROL: Array<Orders> = Array::with_max_entries(1, 0);
#[map]
static SENT: Array<[u64; Sent::Words as usize]> = Array::with_max_entries(1, 0);
#[map]
static COUNTED: Array<[u64; Counted::Words as usize]> = Array::with_max_entries(1, 0);
#[map]
static PUBLISHED: Array<u64> = Array::with_max_entries(1, 0);
// The loader says how many.
#[map]
static SMALL: Array<Small> = Array::with_max_entries(1, 0);
#[map]
static LARGE: Array<Large> = Array::with_max_entries(1, 0);
#[map]
static SAMPLES: Array<[u8; shared::SAMPLE_LEN]> = Array::with_max_entries(shared::SAMPLES_KEPT, 0);
#[map]
static TIMES: Array<u64> = Array::with_max_entries(shared::KINDS * shared::BUCKETS, 0);

/// Makes the next packet, if one is due.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let (Some(control), Some(sent)) = (CONTROL.get(0), SENT.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the only program that writes it, on one processor at a time; others only read it.
    let sent = unsafe { &mut *sent };
    let number = sent[Sent::Packets as usize];
    if number >= order(control, Control::Total) || !is_due(control, sent, number) {
        return xdp_action::XDP_DROP;
    }
    if make(&ctx, control, number).is_none() {
        sent[Sent::Faults as usize] += 1;
        return xdp_action::XDP_DROP;
    }
    sent[Sent::Packets as usize] = number + 1;
    // SAFETY: plain numbers.
    unsafe { bpf_redirect(order(control, Control::Device) as u32, 0) as u32 }
}

/// Whether the packet with this number may be made.
#[inline(always)]
fn is_due(control: &Orders, sent: &mut [u64; Sent::Words as usize], number: u64) -> bool {
    let interval = order(control, Control::Interval);
    if interval != 0 {
        let now = now();
        return now < order(control, Control::End) && now >= due(control, number);
    }
    let window = order(control, Control::Window);
    if number.wrapping_sub(sent[Sent::Arrived as usize]) >= window {
        let published = PUBLISHED.get_ptr(0);
        // SAFETY: an aligned word, which another processor writes whole.
        let published = published.map_or(0, |published| unsafe { ptr::read_volatile(published) });
        sent[Sent::Arrived as usize] = published + order(control, Control::Lost);
        if number.wrapping_sub(sent[Sent::Arrived as usize]) >= window {
            return false;
        }
    }
    // The clock costs as much as all the rest.
    number % 64 != 0 || now() < order(control, Control::End)
}

/// Writes the packet.
#[inline(always)]
fn make(ctx: &XdpContext, control: &Orders, number: u64) -> Option<()> {
    let packets = order(control, Control::Packets);
    if packets == 0 {
        return None;
    }
    let place = (number % packets) as u32;
    let length = order(control, Control::Length) as usize;
    let packet: *const u8 = if order(control, Control::Large) != 0 {
        if !(14..=shared::LARGE_LEN).contains(&length) {
            return None;
        }
        LARGE.get_ptr(place)?.cast()
    } else {
        if !(14..=shared::SMALL_LEN).contains(&length) {
            return None;
        }
        SMALL.get_ptr(place)?.cast()
    };
    // SAFETY: the value begins with the head, and `length` octets of the frame lie behind it, as just checked.
    let (head, frame) = unsafe {
        (
            *packet.cast::<[u32; shared::HEAD_LEN / 4]>(),
            packet.add(shared::HEAD_LEN),
        )
    };
    store(ctx, 0, frame, length)?;
    let at = order(control, Control::NumberAt);
    if at != 0 {
        let words = [(number as u32).to_be(), head[Head::Kind as usize].to_be()];
        store(ctx, at, words.as_ptr().cast(), 8)?;
    }
    let at = order(control, Control::SequenceAt);
    if at != 0 {
        let times = (number / packets) as u32;
        let sequence = head[Head::Sequence as usize]
            .wrapping_add(times.wrapping_mul(head[Head::Stride as usize]));
        store(ctx, at, [sequence.to_be()].as_ptr().cast(), 4)?;
    }
    Some(())
}

#[inline(always)]
fn store(ctx: &XdpContext, at: u64, octets: *const u8, length: usize) -> Option<()> {
    // SAFETY: `octets` are `length` octets that live (the verifier checks it, too), and the kernel checks where they go.
    let result =
        unsafe { bpf_xdp_store_bytes(ctx.ctx, at as u32, octets.cast_mut().cast(), length as u32) };
    (result == 0).then_some(())
}

/// Counts a frame.
#[classifier]
pub fn count(ctx: TcContext) -> i32 {
    let (Some(control), Some(counted)) = (CONTROL.get(0), COUNTED.get_ptr_mut(0)) else {
        return TC_ACT_SHOT;
    };
    // SAFETY: nobody else writes it, and frames arrive on one processor.
    let counted = unsafe { &mut *counted };
    let length = ctx.len();
    if u64::from(length) != order(control, Control::CountLength) {
        counted[Counted::Others as usize] += 1;
        return TC_ACT_SHOT;
    }
    let packets = counted[Counted::Packets as usize] + 1;
    counted[Counted::Packets as usize] = packets;
    if packets % shared::PUBLISH == 0
        && let Some(published) = PUBLISHED.get_ptr_mut(0)
    {
        // SAFETY: an aligned word that nobody else writes.
        unsafe { ptr::write_volatile(published, packets) };
    }
    let at = order(control, Control::CountNumberAt);
    if at != 0
        && let Ok([number, kind]) = ctx.load::<[u32; 2]>(at as usize)
    {
        let number = u64::from(u32::from_be(number));
        counted[Counted::Numbers as usize] += number;
        if number != counted[Counted::Next as usize] {
            counted[Counted::OutOfOrder as usize] += 1;
        }
        counted[Counted::Next as usize] = number + 1;
        if order(control, Control::Times) != 0 {
            time(control, number, u32::from_be(kind));
        }
    }
    if packets % 64 == 0 {
        mark(control, counted, packets);
    }
    if packets & order(control, Control::SampleEvery).wrapping_sub(1) == 0 {
        sample(&ctx, control, packets, length);
    }
    TC_ACT_SHOT
}

/// Notes how long a packet took since it was due.
#[inline(always)]
fn time(control: &Orders, number: u64, kind: u32) {
    let time = now().saturating_sub(due(control, number));
    let bucket = (kind % shared::KINDS) * shared::BUCKETS + shared::bucket(time);
    if let Some(count) = TIMES.get_ptr_mut(bucket) {
        // SAFETY: nobody else writes it.
        unsafe { *count += 1 };
    }
}

/// Notes the count at two times.
#[inline(always)]
fn mark(control: &Orders, counted: &mut [u64; Counted::Words as usize], packets: u64) {
    let now = now();
    if counted[Counted::BeginTime as usize] == 0 && now >= order(control, Control::Begin) {
        counted[Counted::BeginTime as usize] = now;
        counted[Counted::BeginCount as usize] = packets;
    }
    if counted[Counted::StopTime as usize] == 0 && now >= order(control, Control::Stop) {
        counted[Counted::StopTime as usize] = now;
        counted[Counted::StopCount as usize] = packets;
    }
}

/// Keeps a frame.
#[inline(always)]
fn sample(ctx: &TcContext, control: &Orders, packets: u64, length: u32) {
    let every = order(control, Control::SampleEvery);
    // In this form, so that the verifier understands it.
    let length = length & (shared::SAMPLE_LEN - 1) as u32;
    if every == 0 || length == 0 {
        return;
    }
    let slot = (packets / every) as u32 % shared::SAMPLES_KEPT;
    if let Some(to) = SAMPLES.get_ptr_mut(slot) {
        // SAFETY: the value has room for `length` octets, which is less than its own length; user space reads it afterwards.
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), 0, to.cast(), length) };
    }
}

/// Throws a frame away.
#[classifier]
pub fn discard(_: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// When the packet with this number is due.
#[inline(always)]
fn due(control: &Orders, number: u64) -> u64 {
    order(control, Control::Start) + (number.wrapping_mul(order(control, Control::Interval)) >> 16)
}

#[inline(always)]
fn order(control: &Orders, word: Control) -> u64 {
    let word: *const u64 = &control[word as usize];
    // SAFETY: an aligned word, which user space may write at any time, so it is read as it is now.
    unsafe { ptr::read_volatile(word) }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Nothing here panics; the language wants one all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Says to the kernel what its helpers ask for (`gpl_compatible`); the source is MIT OR Apache-2.0 like the rest.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
