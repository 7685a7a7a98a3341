//! Reading of pcap files, of the IPv4 datagrams in them, and of the control connection's two streams.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use turnpike_protocol::pptp;
use turnpike_protocol::wire::{ethernet, ipv4};

use super::Side;

/// A capture.
pub struct File {
    /// Without directory, with `.pcap`.
    pub name: String,
    /// Ethernet frames as they were captured; frame 1 is the first.
    pub frames: Vec<Vec<u8>>,
}

/// A whole IPv4 datagram, put together if it came in fragments.
#[derive(Clone)]
pub struct Datagram {
    /// The frame that completed it, from 1.
    pub frame: usize,
    /// In how many frames it came.
    pub fragments: usize,
    /// Where from.
    pub source: Ipv4Addr,
    /// Where to.
    pub destination: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    /// What the IP header is followed by.
    pub payload: Vec<u8>,
}

/// The fragments of a datagram so far: offset, whether more follow, octets.
type Fragments = Vec<(usize, bool, Vec<u8>)>;

impl File {
    /// The directory of all captures.
    pub fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("captures")
    }

    /// Every capture, by name.
    pub fn all() -> Result<Vec<Self>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(Self::directory())? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "pcap")
            {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Reads a pcap file (little-endian, Ethernet): all that there is here.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let number = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        ensure!(
            number(0) == Some(0xa1b2_c3d4) && number(20) == Some(1),
            "{}: not this kind of pcap",
            path.display()
        );
        let mut frames = Vec::new();
        let mut at = 24;
        while at < bytes.len() {
            let (captured, original) = number(at + 8).zip(number(at + 12)).context("cut off")?;
            ensure!(captured == original, "frame {} was cut", frames.len() + 1);
            let end = at + 16 + usize::try_from(captured)?;
            frames.push(bytes.get(at + 16..end).context("cut off")?.to_vec());
            at = end;
        }
        let name = path
            .file_name()
            .context("no name")?
            .to_string_lossy()
            .into_owned();
        Ok(Self { name, frames })
    }

    /// The IPv4 datagrams in the order in which they were complete.
    pub fn datagrams(&self) -> Result<Vec<Datagram>> {
        let mut datagrams = Vec::new();
        let mut parts: BTreeMap<(Ipv4Addr, Ipv4Addr, u8, u16), Fragments> = BTreeMap::new();
        for (index, frame) in self.frames.iter().enumerate() {
            let ethernet = ethernet::Packet::new_checked(&frame[..])?;
            if ethernet.ethertype() != ethernet::IPV4 {
                continue;
            }
            let ip = ipv4::Packet::new_checked(ethernet.payload())?;
            let key = (ip.source(), ip.destination(), ip.protocol(), ip.ident());
            let mut fragments = 1;
            let mut payload = ip.payload().to_vec();
            if ip.is_fragment() {
                let list = parts.entry(key).or_default();
                list.push((ip.fragment_offset(), ip.more_fragments(), payload));
                list.sort();
                let mut whole = Vec::new();
                let joined = list.iter().all(|(offset, _, part)| {
                    let fits = *offset == whole.len();
                    whole.extend_from_slice(part);
                    fits
                });
                if !joined || list.last().is_none_or(|(_, more, _)| *more) {
                    continue;
                }
                fragments = list.len();
                payload = whole;
                parts.remove(&key);
            }
            datagrams.push(Datagram {
                frame: index + 1,
                fragments,
                source: ip.source(),
                destination: ip.destination(),
                protocol: ip.protocol(),
                payload,
            });
        }
        ensure!(
            parts.is_empty(),
            "{}: fragments without their rest",
            self.name
        );
        Ok(datagrams)
    }

    /// The server's address and what each side sent on the control connection.
    pub fn control(&self) -> Result<(Ipv4Addr, BTreeMap<Side, Vec<u8>>)> {
        let mut server = None;
        // Per side: the sequence number that comes next, and the octets before it.
        let mut streams: BTreeMap<Side, (u32, Vec<u8>)> = BTreeMap::new();
        let mut ports = None;
        for datagram in self
            .datagrams()?
            .iter()
            .filter(|datagram| datagram.protocol == ipv4::TCP)
        {
            let segment = &datagram.payload[..];
            ensure!(
                segment.len() >= 20,
                "frame {}: short TCP segment",
                datagram.frame
            );
            let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
            let (side, here, client_port) = match (port(0), port(2)) {
                (pptp::PORT, client) => (Side::Server, datagram.source, client),
                (client, pptp::PORT) => (Side::Client, datagram.destination, client),
                _ => continue,
            };
            ensure!(*server.get_or_insert(here) == here, "two servers");
            ensure!(
                *ports.get_or_insert(client_port) == client_port,
                "two control connections"
            );
            let seq = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
            let data = segment
                .get(usize::from(segment[12] >> 4) * 4..)
                .context("TCP header")?;
            if segment[13] & 0x02 != 0 {
                streams
                    .entry(side)
                    .or_insert((seq.wrapping_add(1), Vec::new()));
                continue;
            }
            let (next, stream) = streams.get_mut(&side).context("no SYN")?;
            let old = next.wrapping_sub(seq);
            if let Some(fresh) = usize::try_from(old).ok().and_then(|old| data.get(old..)) {
                stream.extend_from_slice(fresh);
                *next = next.wrapping_add(u32::try_from(fresh.len())?);
            } else {
                ensure!(
                    data.is_empty() || old < 1 << 31,
                    "frame {}: a segment is missing before it",
                    datagram.frame
                );
            }
        }
        let server = server.context("no control connection")?;
        Ok((
            server,
            streams
                .into_iter()
                .map(|(side, (_, stream))| (side, stream))
                .collect(),
        ))
    }
}
