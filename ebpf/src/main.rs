//! The XDP program: one look at the headers, one verdict, one counter.
//!
//! Fixed offsets only: a packet with VLAN tags or (for GRE) IP options goes to Linux, so nothing here loops and the
//! verifier sees a few hundred instructions.
#![no_std]
#![no_main]
#![allow(
    missing_docs,
    reason = "a program has no public items; the xdp macro makes one"
)]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use turnpike_ebpf as shared;
use turnpike_ebpf::Verdict;

#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(shared::MAX_PORTS * shared::MAX_QUEUES, 0);
#[map]
static PORTS: HashMap<u32, shared::Port> = HashMap::with_max_entries(shared::MAX_PORTS, 0);
#[map]
static LOCAL: HashMap<[u8; 4], u32> = HashMap::with_max_entries(shared::MAX_LOCAL, 0);
// BPF_F_NO_PREALLOC: the kernel takes no other trie.
#[map]
static POOL: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(shared::MAX_POOL, 1);
#[map]
static POOL6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(shared::MAX_POOL, 1);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::ALL.len() as u32, 0);

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const GRE: usize = ETHERNET + IPV4;
const PROTOCOL_GRE: u8 = 47;

/// Entry point. What [`classify`] calls ours goes to the socket of its queue; the rest, and what has no socket, to
/// Linux.
#[xdp]
pub fn pptp(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel hands a valid xdp_md to every run of the program; these two fields are plain reads.
    let (interface, queue) = unsafe { ((*ctx.ctx).ingress_ifindex, (*ctx.ctx).rx_queue_index) };
    // SAFETY: entries are written whole by user space before the program is attached and never changed after.
    let Some(port) = (unsafe { PORTS.get(interface) }) else {
        count(Verdict::UnknownPort);
        return xdp_action::XDP_PASS;
    };
    let verdict = classify(&ctx, port);
    count(verdict);
    let first = match verdict {
        Verdict::Gre => port.gre_sockets,
        Verdict::Pool | Verdict::Pool6 => port.pool_sockets,
        _ => return xdp_action::XDP_PASS,
    };
    if queue < shared::MAX_QUEUES
        && let Ok(action) =
            SOCKETS.redirect(first.wrapping_add(queue), u64::from(xdp_action::XDP_PASS))
    {
        return action;
    }
    count(Verdict::NoSocket);
    xdp_action::XDP_PASS
}

/// The verdict on one packet, by its headers and its port.
#[inline(always)]
fn classify(ctx: &XdpContext, port: &shared::Port) -> Verdict {
    let roles = port.roles;
    let Some(ethertype) = read::<[u8; 2]>(ctx, 12) else {
        return Verdict::ShortFrame;
    };
    match u16::from_be_bytes(ethertype) {
        0x0800 => {}
        0x86dd => return classify_ipv6(ctx, port),
        0x8100 | 0x88a8 => {
            return match read::<[u8; 2]>(ctx, 16).map(u16::from_be_bytes) {
                Some(0x8100 | 0x88a8) => Verdict::QinQ,
                _ => Verdict::Vlan,
            };
        }
        _ => return Verdict::NotIp,
    }
    let Some(ip) = read::<[u8; IPV4]>(ctx, ETHERNET) else {
        return Verdict::ShortFrame;
    };
    let total_len = u16::from_be_bytes([ip[2], ip[3]]) as usize;
    if ip[0] >> 4 != 4 || total_len < IPV4 || ctx.data() + ETHERNET + total_len > ctx.data_end() {
        return Verdict::ShortFrame;
    }
    if !is_for(ctx, port) {
        return Verdict::OtherMac;
    }
    let destination = [ip[16], ip[17], ip[18], ip[19]];
    if roles & shared::ROLE_ACCESS != 0 && ip[9] == PROTOCOL_GRE {
        // SAFETY: the value is never read, only whether there is one.
        if unsafe { LOCAL.get(destination) }.is_some() {
            return gre_to_us(ctx, &ip, total_len);
        }
    }
    if roles & shared::ROLE_POOL != 0 && POOL.get(Key::new(32, destination)).is_some() {
        return Verdict::Pool;
    }
    if roles & shared::ROLE_ACCESS != 0 && ip[9] == PROTOCOL_GRE {
        return Verdict::GreForeign;
    }
    Verdict::Other
}

/// The verdict on an IPv6 packet. Neighbour discovery and all that is for Linux itself is for no pool.
#[inline(always)]
fn classify_ipv6(ctx: &XdpContext, port: &shared::Port) -> Verdict {
    let Some(ip) = read::<[u8; IPV6]>(ctx, ETHERNET) else {
        return Verdict::ShortFrame;
    };
    let payload_len = u16::from_be_bytes([ip[4], ip[5]]) as usize;
    if ip[0] >> 4 != 6 || ctx.data() + ETHERNET + IPV6 + payload_len > ctx.data_end() {
        return Verdict::ShortFrame;
    }
    if !is_for(ctx, port) {
        return Verdict::OtherMac;
    }
    let Some(destination) = read::<[u8; 16]>(ctx, ETHERNET + 24) else {
        return Verdict::ShortFrame;
    };
    if port.roles & shared::ROLE_POOL != 0 && POOL6.get(Key::new(128, destination)).is_some() {
        return Verdict::Pool6;
    }
    Verdict::Other6
}

/// Whether a frame is to the port's own link-layer address.
#[inline(always)]
fn is_for(ctx: &XdpContext, port: &shared::Port) -> bool {
    let [a, b, c, d, e, f, ..] = port.mac;
    read::<[u8; 6]>(ctx, 0) == Some([a, b, c, d, e, f])
}

/// GRE to one of our addresses: whole GRE v1/PPP (RFC 2637 §4.1), or why not.
#[inline(always)]
fn gre_to_us(ctx: &XdpContext, ip: &[u8; IPV4], total_len: usize) -> Verdict {
    if ip[0] != 0x45 {
        return Verdict::GreOptions;
    }
    // More Fragments, or an offset.
    if u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0 {
        return Verdict::GreFragment;
    }
    let Some([first, second, protocol_high, protocol_low]) = read::<[u8; 4]>(ctx, GRE) else {
        return Verdict::GreShort;
    };
    if total_len < IPV4 + 4 {
        return Verdict::GreShort;
    }
    if second & 0x07 != 1 {
        return Verdict::GreVersion;
    }
    if [protocol_high, protocol_low] != [0x88, 0x0b] {
        return Verdict::GreProtocol;
    }
    // C, R, s and Recur must be 0, K must be 1; S is free. Of the second octet only A is free.
    if first & 0xef != 0x20 || second & 0x78 != 0 {
        return Verdict::GreFlags;
    }
    let header = 8 + 4 * usize::from(first >> 4 & 1) + 4 * usize::from(second >> 7);
    if total_len < IPV4 + header {
        return Verdict::GreShort;
    }
    Verdict::Gre
}

/// `T` at `offset` octets from the start of the packet, if it is all there.
#[inline(always)]
fn read<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    let start = ctx.data() + offset;
    if start + core::mem::size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: all of T lies before data_end, as just checked (the verifier checks it too); T is an array of octets,
    // valid for any content and without alignment.
    Some(unsafe { *(start as *const T) })
}

/// Adds one to this CPU's counter.
#[inline(always)]
fn count(verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the pointer is to this CPU's own slot and the program is not preempted on it.
        unsafe { *counter += 1 };
    }
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
