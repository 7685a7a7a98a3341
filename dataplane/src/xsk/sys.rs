//! The system calls that no safe wrapper serves: AF_XDP sockets, their memory, and the ethtool ioctl.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// What a system call returned, as a result.
fn check(returned: c_int) -> io::Result<c_int> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

/// Memory shared with the kernel; unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; nothing in it is bound to the thread that made it.
// Access through `start` is the business of whoever holds the value, and they hold it alone.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` octets of `fd` from `offset`, shared, readable and writable.
    pub(super) fn shared(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: no address is given, so the kernel picks a free range and no memory of ours is replaced; the
        // arguments are plain numbers.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The first octet; aligned to a page.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Octets mapped.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are those of a successful mmap, and this is the only owner.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Makes a file that lives in memory, `len` octets of zeros long. With `huge` it lies in huge pages (of the system's
/// default size, of which `len` must be a multiple).
pub(super) fn memory_file(len: usize, huge: bool) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | if huge { libc::MFD_HUGETLB } else { 0 };
    // SAFETY: the name is a NUL-terminated literal.
    let fd = check(unsafe { libc::memfd_create(c"turnpike-frames".as_ptr(), flags) })?;
    // SAFETY: the descriptor is new and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: plain numbers.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), len) })?;
    Ok(fd)
}

/// Opens an AF_XDP socket.
pub(super) fn xdp_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option of level SOL_XDP (or another level) to a plain value.
fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which outlives the call; the kernel only reads it.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// A type that the kernel may fill with any octets: every bit pattern is a value, and there is no padding that
/// matters.
trait Plain: Copy {}
impl Plain for libc::xdp_mmap_offsets {}
impl Plain for libc::xdp_statistics {}
impl Plain for libc::xdp_options {}

/// Reads an option of level SOL_XDP.
fn get_option<T: Plain>(fd: BorrowedFd<'_>, option: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length describe `value`; the kernel writes at most `len` octets.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    // An older kernel knows shorter structures with other offsets; 5.9 and later fill all of it.
    if (len as usize) < size_of::<T>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: zeroed, then filled by the kernel, and every bit pattern is a `T`.
    Ok(unsafe { value.assume_init() })
}

/// Registers a mapping as the socket's packet memory, in chunks of `chunk` octets.
///
/// The kernel pins the pages themselves, so it keeps to them even when the mapping goes before the socket.
pub(super) fn register_memory(fd: BorrowedFd<'_>, memory: &Mapping, chunk: u32) -> io::Result<()> {
    // SAFETY: a structure of plain numbers, for which zeros are valid.
    let mut registration: libc::xdp_umem_reg = unsafe { zeroed() };
    registration.addr = memory.start.as_ptr() as u64;
    registration.len = memory.len as u64;
    registration.chunk_size = chunk;
    set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
}

/// The four rings of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RingKind {
    Receive,
    Transmit,
    Fill,
    Completion,
}

impl RingKind {
    fn option(self) -> c_int {
        match self {
            Self::Receive => libc::XDP_RX_RING,
            Self::Transmit => libc::XDP_TX_RING,
            Self::Fill => libc::XDP_UMEM_FILL_RING,
            Self::Completion => libc::XDP_UMEM_COMPLETION_RING,
        }
    }

    fn page_offset(self) -> libc::off_t {
        match self {
            Self::Receive => libc::XDP_PGOFF_RX_RING,
            Self::Transmit => libc::XDP_PGOFF_TX_RING,
            Self::Fill => libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
            Self::Completion => libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
        }
    }
}

/// Where the parts of a ring lie in its mapping, in octets.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingLayout {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) slots: usize,
}

/// Makes one ring of a socket, with room for `entries` (a power of two) items of `item` octets, and maps it.
pub(super) fn make_ring(
    fd: BorrowedFd<'_>,
    kind: RingKind,
    entries: u32,
    item: usize,
) -> io::Result<(Mapping, RingLayout)> {
    set_option(fd, libc::SOL_XDP, kind.option(), &entries)?;
    let offsets: libc::xdp_mmap_offsets = get_option(fd, libc::XDP_MMAP_OFFSETS)?;
    let ring = match kind {
        RingKind::Receive => offsets.rx,
        RingKind::Transmit => offsets.tx,
        RingKind::Fill => offsets.fr,
        RingKind::Completion => offsets.cr,
    };
    let layout = RingLayout {
        producer: ring.producer as usize,
        consumer: ring.consumer as usize,
        flags: ring.flags as usize,
        slots: ring.desc as usize,
    };
    let len = layout.slots + entries as usize * item;
    Ok((Mapping::shared(fd, len, kind.page_offset())?, layout))
}

/// Binds a socket to a queue of a device. With `shares` it uses that socket's memory and must have registered none.
pub(super) fn bind(
    fd: BorrowedFd<'_>,
    device: u32,
    queue: u32,
    flags: u16,
    shares: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let shared = if shares.is_some() {
        libc::XDP_SHARED_UMEM
    } else {
        0
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        // Flags other than this one are refused together with it: the mode is the first socket's.
        sxdp_flags: if shared == 0 { flags } else { shared },
        sxdp_ifindex: device,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shares.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: pointer and length describe `address`, which outlives the call.
    check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Lets as many octets wait in the socket as its rings can hold; by default a few dozen frames fill it.
pub(super) fn set_send_buffer(fd: BorrowedFd<'_>, octets: c_int) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &octets)
}

/// Not 0 is all that counts: a call that does not wait polls once.
const BUSY_POLL_MICROSECONDS: c_int = 20;

// linux/if_xdp.h; since Linux 6.17, and libc does not list it.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// Lets one kick send so many frames in copy mode, no more than the transmit ring has entries, which must have been made.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.17: 32 frames then.
pub(super) fn set_send_budget(fd: BorrowedFd<'_>, frames: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &frames)
}

/// Has the driver's queue polled by the system calls of this socket, `frames` at a time, and its interrupts put off while
/// they come often enough (Linux 5.11).
pub(super) fn set_busy_poll(fd: BorrowedFd<'_>, frames: u16) -> io::Result<()> {
    for (option, value) in [
        (libc::SO_PREFER_BUSY_POLL, 1),
        (libc::SO_BUSY_POLL, BUSY_POLL_MICROSECONDS),
        (libc::SO_BUSY_POLL_BUDGET, c_int::from(frames)),
    ] {
        set_option(fd, libc::SOL_SOCKET, option, &value)?;
    }
    Ok(())
}

/// Makes the kernel take frames from the transmit ring.
pub(super) fn kick_transmit(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an empty message: neither data nor address is read.
    let returned = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            std::ptr::null(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null(),
            0,
        )
    };
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes the driver look at the fill ring (zero-copy drivers ask for it), and polls it where that is wanted.
pub(super) fn kick_receive(fd: BorrowedFd<'_>) {
    // SAFETY: an empty message: nothing is written.
    unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

/// The kernel's counters of a socket.
pub(super) fn statistics(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_statistics> {
    get_option(fd, libc::XDP_STATISTICS)
}

/// Whether frames reach the socket without being copied by the kernel.
pub(super) fn zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let options: libc::xdp_options = get_option(fd, libc::XDP_OPTIONS)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Waits until one of the descriptors is ready as its `events` say. A signal ends the wait early.
pub(super) fn poll(fds: &mut [libc::pollfd], timeout: &libc::timespec) {
    // SAFETY: pointer and length describe `fds`; the other pointers are to live values or null, which is allowed.
    unsafe {
        libc::ppoll(
            fds.as_mut_ptr(),
            fds.len() as libc::nfds_t,
            std::ptr::from_ref(timeout),
            std::ptr::null(),
        )
    };
}

/// A switch of a device that the ethtool ioctl turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Feature {
    /// Checksums computed by the device (`tx`).
    TransmitChecksum,
    /// TCP segments cut by the device (`tso`).
    Segmentation,
    /// Segments cut late by Linux (`gso`).
    GenericSegmentation,
    /// Received segments merged by Linux (`gro`).
    GenericReceive,
    /// Received segments merged by the device (`lro`).
    LargeReceive,
    /// VLAN tags taken out of received frames by the device (`rxvlan`).
    ReceiveVlan,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TransmitChecksum => "tx",
            Self::Segmentation => "tso",
            Self::GenericSegmentation => "gso",
            Self::GenericReceive => "gro",
            Self::LargeReceive => "lro",
            Self::ReceiveVlan => "rxvlan",
        })
    }
}

// linux/sockios.h and linux/ethtool.h; a stable part of Linux' interface that libc does not list.
const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GRSSH: u32 = 0x46;
const ETH_RSS_HASH_TOP: u8 = 1;

/// Words for an indirection table and a key: the largest table known has 4,096 entries (ENA has 128, ice 2,048).
const RSS_ROOM: usize = 4096 + 64;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

impl Feature {
    /// The commands that read and write the switch, and its bit in the value.
    fn commands(self) -> (u32, u32, u32) {
        match self {
            Self::TransmitChecksum => (0x16, 0x17, 1),
            Self::Segmentation => (0x1e, 0x1f, 1),
            Self::GenericSegmentation => (0x23, 0x24, 1),
            Self::GenericReceive => (0x2b, 0x2c, 1),
            Self::LargeReceive => (ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_LRO),
            Self::ReceiveVlan => (ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_RXVLAN),
        }
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_rxfh`, with room behind it for a table and a key.
#[repr(C)]
struct EthtoolRss {
    command: u32,
    context: u32,
    /// Entries of the table, 32 bits each.
    table_len: u32,
    /// Octets of the key, which follows the table.
    key_len: u32,
    function: u8,
    transformation: u8,
    reserved: [u8; 2],
    reserved_too: u32,
    room: [u32; RSS_ROOM],
}

/// A structure that begins with an ethtool command and is what that command reads and writes.
///
/// # Safety
/// The type must be `repr(C)`, valid for every bit pattern, and as long as the commands used with it say.
unsafe trait Ethtool {}
// SAFETY: `struct ethtool_value` of linux/ethtool.h.
unsafe impl Ethtool for EthtoolValue {}
// SAFETY: `struct ethtool_channels` of linux/ethtool.h.
unsafe impl Ethtool for EthtoolChannels {}
// SAFETY: `struct ethtool_rxfh` of linux/ethtool.h. The kernel writes as much behind it as it was told there is room for,
// which is only told by `rss`, and not more than there is.
unsafe impl Ethtool for EthtoolRss {}

fn ethtool<T: Ethtool>(device: &str, value: &mut T) -> io::Result<()> {
    // SAFETY: plain numbers.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a structure of numbers and pointers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // One octet stays zero: the name is NUL-terminated.
    if device.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // SAFETY: the request names a device and points to `value`, which lives through the call and has the layout that
    // its command asks for (`Ethtool`).
    check(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) }).map(drop)
}

/// Whether a switch of a device is on.
pub(crate) fn feature(device: &str, feature: Feature) -> io::Result<bool> {
    let (command, _, bit) = feature.commands();
    let mut value = EthtoolValue { command, data: 0 };
    ethtool(device, &mut value)?;
    Ok(value.data & bit != 0)
}

/// Turns a switch of a device.
pub(crate) fn set_feature(device: &str, feature: Feature, on: bool) -> io::Result<()> {
    let (read, write, bit) = feature.commands();
    let mut value = EthtoolValue {
        command: read,
        data: 0,
    };
    ethtool(device, &mut value)?;
    if (value.data & bit != 0) == on {
        return Ok(());
    }
    value.command = write;
    value.data ^= bit;
    ethtool(device, &mut value)
}

/// Queues in use that receive, and that send; `None` when the driver does not say.
pub(crate) fn channels(device: &str) -> Option<(u32, u32)> {
    let mut value = EthtoolChannels {
        command: ETHTOOL_GCHANNELS,
        ..EthtoolChannels::default()
    };
    ethtool(device, &mut value).ok()?;
    let (receive, transmit) = (value.rx + value.combined, value.tx + value.combined);
    (receive > 0 && transmit > 0).then_some((receive, transmit))
}

/// The indirection table and the key by which a device spreads what it receives; `None` when the driver does not tell, when
/// they are larger than any known, or when the function is not Toeplitz's of the packet as it is.
pub(crate) fn rss(device: &str) -> Option<(Vec<u32>, Vec<u8>)> {
    let mut value = Box::new(EthtoolRss {
        command: ETHTOOL_GRSSH,
        context: 0,
        table_len: 0,
        key_len: 0,
        function: 0,
        transformation: 0,
        reserved: [0; 2],
        reserved_too: 0,
        room: [0; RSS_ROOM],
    });
    // First how long they are; with these lengths the second answer brings them.
    ethtool(device, &mut *value).ok()?;
    let (table_len, key_len) = (value.table_len as usize, value.key_len as usize);
    if table_len.checked_add(key_len.div_ceil(4))? > RSS_ROOM {
        return None;
    }
    ethtool(device, &mut *value).ok()?;
    if value.function != ETH_RSS_HASH_TOP || value.transformation != 0 {
        return None;
    }
    let (table, key) = value.room.split_at(table_len);
    let key = key.iter().flat_map(|word| word.to_ne_bytes());
    Some((table.to_vec(), key.take(key_len).collect()))
}
