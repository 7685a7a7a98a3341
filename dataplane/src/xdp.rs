//! The XDP program in the kernel: loading, attaching, and its maps.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use turnpike_ebpf::{self as shared, Verdict};

use crate::netdev::{self, Netlink};

/// How long a device may stay taken by a program whose process ended a moment ago.
const BUSY: Duration = Duration::from_secs(2);
/// The pause between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Where XDP is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeChoice {
    /// In the driver; in the generic receive path when the driver cannot.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the generic receive path.
    Generic,
}

/// Where XDP runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the generic receive path: any device, but slower.
    Generic,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not take it.
    #[error(
        "the kernel does not take the XDP program: {0} (it needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW)"
    )]
    Load(String),
    /// A map refused an entry.
    #[error("cannot {doing} in the XDP program's map {map}: {reason}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        reason: String,
    },
    /// Another program is there.
    #[error(
        "another XDP program is attached to {0}: find its owner with `ip link show {0}` and `bpftool net`"
    )]
    Busy(String),
    /// The device does not take the program.
    #[error("cannot attach the XDP program to {interface} in {mode} mode: {reason}")]
    Attach {
        /// The device.
        interface: String,
        /// The mode that was tried last.
        mode: Mode,
        /// The kernel's answer.
        reason: String,
    },
}

/// The program, loaded; it is detached from all devices when this value is dropped or the process ends.
pub struct Program {
    /// Dropped first: no packet meets a half-dropped program.
    links: Vec<FdLink>,
    sockets: XskMap<MapData>,
    ports: HashMap<MapData, u32, [u32; 5]>,
    local: HashMap<MapData, [u8; 4], u32>,
    pool: LpmTrie<MapData, [u8; 4], u32>,
    pool6: LpmTrie<MapData, [u8; 16], u32>,
    verdicts: PerCpuArray<MapData, u64>,
    ebpf: Ebpf,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

impl Program {
    /// Loads the program.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn load() -> Result<Self, Error> {
        let load = |e: &dyn std::error::Error| Error::Load(chain(e));
        let mut ebpf = EbpfLoader::new()
            .load(shared::OBJECT)
            .map_err(|e| load(&e))?;
        fn map<T: TryFrom<aya::maps::Map, Error = MapError>>(
            ebpf: &mut Ebpf,
            name: &'static str,
        ) -> Result<T, Error> {
            let map = ebpf
                .take_map(name)
                .ok_or_else(|| Error::Load(format!("the object has no map {name}")))?;
            T::try_from(map).map_err(|e| Error::Load(chain(&e)))
        }
        let mut program = Self {
            links: Vec::new(),
            sockets: map(&mut ebpf, shared::SOCKETS)?,
            ports: map(&mut ebpf, shared::PORTS)?,
            local: map(&mut ebpf, shared::LOCAL)?,
            pool: map(&mut ebpf, shared::POOL)?,
            pool6: map(&mut ebpf, shared::POOL6)?,
            verdicts: map(&mut ebpf, shared::VERDICTS)?,
            ebpf,
        };
        program.xdp()?.load().map_err(|e| load(&e))?;
        Ok(program)
    }

    fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        self.ebpf
            .program_mut(shared::PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| Error::Load(format!("the object has no program {}", shared::PROGRAM)))
    }

    /// Attaches the program to a device and says where it runs.
    ///
    /// # Errors
    /// When the device takes it in none of the modes that `choice` allows, or has a program already.
    pub fn attach(
        &mut self,
        netlink: &mut Netlink,
        index: u32,
        interface: &str,
        choice: ModeChoice,
    ) -> Result<Mode, Error> {
        let modes: &[Mode] = match choice {
            ModeChoice::Auto => &[Mode::Native, Mode::Generic],
            ModeChoice::Native => &[Mode::Native],
            ModeChoice::Generic => &[Mode::Generic],
        };
        let mut refusal = None;
        for &mode in modes {
            match self.attach_in(netlink, index, interface, mode) {
                Ok(link) => {
                    if let Some(e) = refusal {
                        tracing::warn!(interface, "XDP runs in generic mode, which is slower: {e}");
                    }
                    self.links.push(link);
                    return Ok(mode);
                }
                Err(e @ Error::Busy(_)) => return Err(e),
                Err(e) => refusal = Some(e),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::Busy(interface.to_owned())))
    }

    fn attach_in(
        &mut self,
        netlink: &mut Netlink,
        index: u32,
        interface: &str,
        mode: Mode,
    ) -> Result<FdLink, Error> {
        let refused = |reason: String| Error::Attach {
            interface: interface.to_owned(),
            mode,
            reason,
        };
        let flag = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        let start = Instant::now();
        let xdp = self.xdp()?;
        let id = loop {
            match xdp.attach_to_if_index(index, flag) {
                Ok(id) => break id,
                Err(e) if taken(&e) && start.elapsed() < BUSY => std::thread::sleep(BUSY_PAUSE),
                Err(e) if taken(&e) => return Err(Error::Busy(interface.to_owned())),
                Err(e) => return Err(refused(chain(&e))),
            }
        };
        let link = xdp.take_link(id).map_err(|e| refused(chain(&e)))?;
        FdLink::try_from(link).map_err(|_| {
            // The loader fell back to an attachment that stays when the process ends, and gives no way to undo it.
            if let Err(e) = netlink.xdp_detach(index) {
                tracing::warn!(interface, "{e}");
            }
            refused("Linux gives no link that ends with the process".to_owned())
        })
    }

    /// Says what a device is for.
    pub(crate) fn set_port(&mut self, index: u32, port: shared::Port) -> Result<(), Error> {
        self.ports
            .insert(index, <[u32; 5]>::from(port), 0)
            .map_err(|e| map_error(shared::PORTS, "enter a device", &e))
    }

    /// Puts a socket into its place.
    pub(crate) fn set_socket(&mut self, slot: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.sockets
            .set(slot, socket, 0)
            .map_err(|e| map_error(shared::SOCKETS, "enter a socket", &e))
    }

    /// Takes calls' GRE to this address from now on.
    ///
    /// # Errors
    /// When there are too many addresses.
    pub fn local_add(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        self.local
            .insert(address.octets(), 1, 0)
            .map_err(|e| map_error(shared::LOCAL, "enter an address", &e))
    }

    /// Leaves GRE to this address to Linux again.
    ///
    /// # Errors
    /// When the kernel refuses; an address that was not there is none.
    pub fn local_remove(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        gone(self.local.remove(&address.octets()))
            .map_err(|e| map_error(shared::LOCAL, "delete an address", &e))
    }

    /// Takes packets to these inner addresses from now on.
    ///
    /// # Errors
    /// When there are too many prefixes.
    pub fn pool_add(&mut self, net: IpNet) -> Result<(), Error> {
        let (map, result) = match net {
            IpNet::V4(net) => {
                let key = key(net.prefix_len(), net.network().octets());
                (shared::POOL, self.pool.insert(&key, 1, 0))
            }
            IpNet::V6(net) => {
                let key = key(net.prefix_len(), net.network().octets());
                (shared::POOL6, self.pool6.insert(&key, 1, 0))
            }
        };
        result.map_err(|e| map_error(map, "enter a prefix", &e))
    }

    /// Leaves packets to these inner addresses to Linux again.
    ///
    /// # Errors
    /// When the kernel refuses; a prefix that was not there is none.
    pub fn pool_remove(&mut self, net: IpNet) -> Result<(), Error> {
        let (map, result) = match net {
            IpNet::V4(net) => {
                let key = key(net.prefix_len(), net.network().octets());
                (shared::POOL, self.pool.remove(&key))
            }
            IpNet::V6(net) => {
                let key = key(net.prefix_len(), net.network().octets());
                (shared::POOL6, self.pool6.remove(&key))
            }
        };
        gone(result).map_err(|e| map_error(map, "delete a prefix", &e))
    }

    /// Packets by verdict since the program was loaded, over all devices and CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, Error> {
        Verdict::ALL
            .iter()
            .map(|&verdict| {
                let counts = self
                    .verdicts
                    .get(&(verdict as u32), 0)
                    .map_err(|e| map_error(shared::VERDICTS, "read a counter", &e))?;
                Ok((verdict, counts.iter().sum()))
            })
            .collect()
    }
}

fn key<const N: usize>(len: u8, network: [u8; N]) -> Key<[u8; N]> {
    Key::new(u32::from(len), network)
}

/// Deleting what is not there is no error.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn map_error(map: &'static str, doing: &'static str, e: &MapError) -> Error {
    Error::Map {
        map,
        doing,
        reason: chain(e),
    }
}

/// Whether the device has a program already: EBUSY in the same mode, EEXIST in another.
fn taken(e: &ProgramError) -> bool {
    match e {
        ProgramError::SyscallError(e) => {
            matches!(e.io_error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
        }
        _ => false,
    }
}

/// An error with its causes; what says the same twice is left out.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let cause = e.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = e.source();
    }
    text
}

impl Netlink {
    /// Takes whatever XDP program is attached to a device off it.
    fn xdp_detach(&mut self, index: u32) -> Result<(), netdev::Error> {
        use netlink_packet_route::link::{LinkAttribute, LinkXdp};
        self.set(index, LinkAttribute::Xdp(vec![LinkXdp::Fd(-1)]), || {
            format!("take the XDP program off device {index}")
        })
    }
}
