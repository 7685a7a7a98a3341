//! Capture files (pcapng, draft-ietf-opsawg-pcapng): what the server streams and what `turnpike capture` writes.
//!
//! Interface 0 holds Ethernet frames with GRE as they came and went, interface 1 the inner IP packets in clear. Three
//! block types, one byte order and five options are all it takes, so no crate is brought in for it: the stable
//! release of `pcap-file` is years old, and its successor is a release candidate.

use crate::admin::{Packet, Side};

/// Section Header Block; also the file's magic number.
const SECTION: u32 = 0x0a0d_0d0a;
/// Interface Description Block.
const INTERFACE: u32 = 1;
/// Enhanced Packet Block.
const PACKET: u32 = 6;

const LINKTYPE_ETHERNET: u16 = 1;
const LINKTYPE_RAW: u16 = 101;

/// Option of a packet's block (epb_dropcount): how many were lost between it and the one before.
const DROPS: u16 = 4;

/// Longest packet that is kept, in octets; told as the interfaces' snapshot length.
const SNAPLEN: u32 = turnpike_dataplane::api::MAX_CAPTURE as u32;

/// Longest block there is here, in octets.
const MAX_BLOCK: usize = SNAPLEN as usize + 128;

/// Ends every list of options.
const END_OF_OPTIONS: u16 = 0;

/// Gathers one block.
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn new(out: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = out.len();
        out.extend(kind.to_le_bytes());
        // The length, once it is known.
        out.extend([0; 4]);
        Self { out, start }
    }

    fn u16(self, value: u16) -> Self {
        self.out.extend(value.to_le_bytes());
        self
    }

    fn u32(self, value: u32) -> Self {
        self.out.extend(value.to_le_bytes());
        self
    }

    /// Octets, padded to four.
    fn padded(self, octets: &[u8]) -> Self {
        self.out.extend(octets);
        let padding = octets.len().next_multiple_of(4) - octets.len();
        self.out.extend(&[0; 3][..padding]);
        self
    }

    fn option(self, code: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.u16(code).u16(len).padded(&value[..usize::from(len)])
    }

    fn finish(self) {
        let block = self.u16(END_OF_OPTIONS).u16(0);
        // The length stands at both ends, so that files can be read backwards.
        let len = u32::try_from(block.out.len() - block.start + 4).unwrap_or(u32::MAX);
        block.out[block.start + 4..block.start + 8].copy_from_slice(&len.to_le_bytes());
        block.u32(len);
    }
}

/// What a file starts with: a section and its two interfaces.
pub fn header(out: &mut Vec<u8>) {
    const APPLICATION: u16 = 4;
    Block::new(out, SECTION)
        .u32(0x1a2b_3c4d)
        .u16(1)
        .u16(0)
        // Length of the section: not known.
        .u32(u32::MAX)
        .u32(u32::MAX)
        .option(
            APPLICATION,
            concat!("turnpike ", env!("CARGO_PKG_VERSION")).as_bytes(),
        )
        .finish();
    const NAME: u16 = 2;
    const DESCRIPTION: u16 = 3;
    const TIME_RESOLUTION: u16 = 9;
    for (link_type, name, description) in [
        (
            LINKTYPE_ETHERNET,
            "outer",
            "frames with GRE, as they came and went",
        ),
        (LINKTYPE_RAW, "inner", "packets of clients, in clear"),
    ] {
        Block::new(out, INTERFACE)
            .u16(link_type)
            .u16(0)
            .u32(SNAPLEN)
            .option(NAME, name.as_bytes())
            .option(DESCRIPTION, description.as_bytes())
            // Timestamps count 10^-9 seconds.
            .option(TIME_RESOLUTION, &[9])
            .finish();
    }
}

/// Appends a packet.
pub fn packet(out: &mut Vec<u8>, packet: &Packet) {
    const FLAGS: u16 = 2;
    let kept = &packet.bytes[..packet.bytes.len().min(SNAPLEN as usize)];
    let kept_len = u32::try_from(kept.len()).unwrap_or(0);
    let direction: u32 = if packet.inbound { 1 } else { 2 };
    let block = Block::new(out, PACKET)
        .u32(match packet.side {
            Side::Outer => 0,
            Side::Inner => 1,
        })
        .u32((packet.unix_nanos >> 32) as u32)
        .u32(packet.unix_nanos as u32)
        .u32(kept_len)
        .u32(packet.original_len.max(kept_len))
        .padded(kept)
        .option(FLAGS, &direction.to_le_bytes());
    match packet.lost {
        0 => block,
        lost => block.option(DROPS, &lost.to_le_bytes()),
    }
    .finish();
}

/// A stream that is no pcapng of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the server sent something that is not a capture")]
pub struct NotACapture;

/// One whole block of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whole {
    /// The block, to be written as it is.
    pub octets: Vec<u8>,
    /// Whether it holds a packet.
    pub is_packet: bool,
    /// Packets that the capture lost before this one.
    pub lost: u64,
}

/// Cuts a stream into blocks, so that a file never ends in the middle of one.
#[derive(Default)]
pub struct Blocks {
    /// What came of blocks that are not whole yet; never longer than one block and one read.
    pending: Vec<u8>,
}

impl Blocks {
    /// Takes what came of the stream.
    pub fn push(&mut self, octets: &[u8]) {
        self.pending.extend(octets);
    }

    /// The next whole block.
    ///
    /// # Errors
    /// [`NotACapture`] when this cannot be a block; the stream is lost then.
    pub fn pop(&mut self) -> Result<Option<Whole>, NotACapture> {
        let Some((&[a, b, c, d, e, f, g, h], _)) = self.pending.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let kind = u32::from_le_bytes([a, b, c, d]);
        let len = u32::from_le_bytes([e, f, g, h]) as usize;
        if !matches!(kind, SECTION | INTERFACE | PACKET)
            || !(16..=MAX_BLOCK).contains(&len)
            || !len.is_multiple_of(4)
        {
            return Err(NotACapture);
        }
        if self.pending.len() < len {
            return Ok(None);
        }
        let rest = self.pending.split_off(len);
        let octets = core::mem::replace(&mut self.pending, rest);
        let is_packet = kind == PACKET;
        let lost = if is_packet { drops(&octets) } else { None };
        Ok(Some(Whole {
            octets,
            is_packet,
            lost: lost.unwrap_or(0),
        }))
    }
}

/// The drop count among the options of a packet's block; `None` when there is none.
fn drops(block: &[u8]) -> Option<u64> {
    let kept = u32::from_le_bytes(*block.get(20..)?.first_chunk()?) as usize;
    let mut options = block.get(28..)?.get(kept.checked_next_multiple_of(4)?..)?;
    loop {
        let (&[a, b, c, d], rest) = options.split_first_chunk::<4>()?;
        let (code, len) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        match (code, len) {
            (END_OF_OPTIONS, _) => return None,
            (DROPS, 8) => return Some(u64::from_le_bytes(*rest.first_chunk()?)),
            _ => options = rest.get(usize::from(len).next_multiple_of(4)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// An ICMP echo request (0x08) or reply (0) in IPv4, with right checksums.
    fn echo(kind: u8) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 32, 0, 1, 0, 0, 64, 1, 0, 0, 10, 20, 0, 10, 9, 9, 9, 9, kind, 0, 0, 0, 0,
            7, 0, 1, b't', b'e', b's', b't',
        ];
        let sum = |octets: &[u8]| {
            let sum: u32 = octets
                .chunks(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum();
            !(((sum & 0xffff) + (sum >> 16)) as u16)
        };
        let (ip, icmp) = packet.split_at_mut(20);
        let checksum = sum(ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let checksum = sum(icmp);
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// The packet in PPP in GRE in IPv4 in Ethernet.
    fn frame(inner: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let ppp_len = u8::try_from(inner.len() + 4).unwrap();
        let total = u8::try_from(20 + 12 + inner.len() + 4).unwrap();
        frame.extend([
            0x45, 0, 0, total, 0, 1, 0, 0, 64, 47, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1,
        ]);
        frame.extend([0x30, 0x01, 0x88, 0x0b, 0, ppp_len, 0, 17, 0, 0, 0, 1]);
        frame.extend([0xff, 3, 0, 0x21]);
        frame.extend(inner);
        frame
    }

    fn sample(bytes: Vec<u8>, side: Side, inbound: bool) -> Packet {
        Packet {
            call_id: 17,
            unix_nanos: 1_700_000_000_123_456_789,
            side,
            inbound,
            original_len: u32::try_from(bytes.len()).unwrap(),
            bytes,
            lost: 0,
        }
    }

    fn capture(packets: &[Packet]) -> Vec<u8> {
        let mut file = Vec::new();
        header(&mut file);
        for each in packets {
            packet(&mut file, each);
        }
        file
    }

    #[test]
    fn streams_are_cut_into_whole_blocks() {
        let mut late = sample(vec![1; 1791], Side::Outer, false);
        late.lost = 7;
        let stream = capture(&[sample(echo(8), Side::Inner, true), late]);
        for step in [1, 7, 100, 5000] {
            let mut blocks = Blocks::default();
            let (mut whole, mut packets, mut lost) = (Vec::new(), 0, 0);
            for part in stream.chunks(step) {
                blocks.push(part);
                while let Some(block) = blocks.pop().unwrap() {
                    let len = block.octets.len();
                    let lengths = [&block.octets[4..8], &block.octets[len - 4..]];
                    assert_eq!(lengths[0], lengths[1], "both lengths agree");
                    whole.extend(block.octets);
                    packets += u32::from(block.is_packet);
                    lost += block.lost;
                }
            }
            assert_eq!(whole, stream);
            assert_eq!((packets, lost), (2, 7));
        }
        for garbage in [
            b"HTTP/1.1 200".as_slice(),
            &[6, 0, 0, 0, 8, 0, 0, 0],
            &[6, 0, 0, 0, 0xff, 0xff, 0, 0],
        ] {
            let mut blocks = Blocks::default();
            blocks.push(garbage);
            assert_eq!(blocks.pop(), Err(NotACapture));
        }
        // A packet that claims to be longer than its block, and options that never end.
        for (kept, option) in [(u32::MAX, 2), (4, 9)] {
            let mut block = Vec::new();
            block.extend(PACKET.to_le_bytes());
            block.extend(44_u32.to_le_bytes());
            block.extend([0; 12]);
            block.extend(u32::to_le_bytes(kept));
            block.extend([0; 8]);
            block.extend(u16::to_le_bytes(option));
            block.extend([0xff; 10]);
            let mut blocks = Blocks::default();
            blocks.push(&block);
            assert_eq!(blocks.pop().unwrap().unwrap().lost, 0);
        }
    }

    #[test]
    fn tshark_reads_what_was_written() {
        if Command::new("tshark").arg("--version").output().is_err() {
            eprintln!("SKIPPED: tshark is not installed, nobody else looked at the capture file");
            return;
        }
        let request = echo(8);
        let mut cut = sample(request.clone(), Side::Inner, false);
        cut.original_len = 9000;
        cut.lost = 3;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("capture.pcapng");
        std::fs::write(
            &path,
            capture(&[
                sample(frame(&request), Side::Outer, true),
                sample(request.clone(), Side::Inner, true),
                sample(echo(0), Side::Inner, false),
                cut,
            ]),
        )
        .unwrap();
        let output = Command::new("tshark")
            .args([
                "-r",
                path.to_str().unwrap(),
                "-T",
                "fields",
                "-E",
                "separator=|",
            ])
            .args(
                [
                    "frame.interface_name",
                    "frame.time_epoch",
                    "frame.packet_flags_direction",
                    "frame.len",
                    "frame.cap_len",
                    "gre.key.call_id",
                    "icmp.type",
                    "icmp.checksum.status",
                    "_ws.malformed",
                    "frame.drop_count",
                ]
                .iter()
                .flat_map(|field| ["-e", field]),
            )
            .output()
            .unwrap();
        let fault = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{fault}");
        // Some versions print the direction as a hexadecimal number of eight digits.
        let text = String::from_utf8(output.stdout)
            .unwrap()
            .replace("0x0000000", "");
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "outer|1700000000.123456789|1|82|82|17|8|1||",
                "inner|1700000000.123456789|1|32|32||8|1||",
                "inner|1700000000.123456789|2|32|32||0|1||",
                "inner|1700000000.123456789|2|9000|32||8|1||3",
            ]
        );
    }
}
