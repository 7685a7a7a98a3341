//! One call: its GRE packets put in order, what was negotiated in it, and its MPPE packets in clear.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use turnpike_protocol::Role;
use turnpike_protocol::gre::{Arrival, Receiver};
use turnpike_protocol::mppe::{self, Decryptor, Direction, HEADER_LEN, Refusal};
use turnpike_protocol::mschap::MasterKeys;
use turnpike_protocol::ppp::packet::{OptionList, Packet, code};
use turnpike_protocol::ppp::{AuthProtocol, MppeBits, MppeTerms};
use turnpike_protocol::pptp::{CallId, CallResult, Decoder, Incoming, Message};
use turnpike_protocol::wire::{gre, ipv4, ppp};

use super::{File, Side};

/// A PPP frame as GRE carried it.
pub struct Wire {
    /// The Ethernet frame that completed it, from 1.
    pub frame: usize,
    /// GRE numbers before it that never came.
    pub missing: u32,
    /// PPP protocol.
    pub protocol: ppp::Protocol,
    /// What follows the PPP header.
    pub information: Vec<u8>,
}

/// An MPPE packet, decrypted.
pub struct Clear {
    /// The Ethernet frame that completed it, from 1.
    pub frame: usize,
    /// Its MPPE header.
    pub header: [u8; HEADER_LEN],
    /// From the inner protocol field on.
    pub plain: Vec<u8>,
}

/// A call that was connected.
pub struct Call {
    /// The id that the client chose, in packets of the server.
    pub client_id: CallId,
    /// The id that the server chose.
    pub server_id: CallId,
    /// What each side sent, in the order of the GRE numbers.
    pub sent: BTreeMap<Side, Vec<Wire>>,
}

/// The control messages of each side.
pub type Messages = BTreeMap<Side, Vec<Message>>;

impl File {
    /// The messages of the control connection. `segment` octets are handed to the decoder at a time.
    pub fn messages(&self, segment: usize) -> Result<Messages> {
        let mut messages = Messages::new();
        for (side, stream) in self.control()?.1 {
            let mut decoder = Decoder::new();
            let list = messages.entry(side).or_default();
            for mut octets in stream.chunks(segment) {
                while let Some(incoming) = decoder.next(&mut octets)? {
                    match incoming {
                        Incoming::Message(message) => list.push(message),
                        Incoming::Unknown { control_type } => {
                            bail!("control message of type {control_type}")
                        }
                    }
                }
            }
            ensure!(
                !decoder.is_inside_message(),
                "{side:?} ended inside a message"
            );
        }
        Ok(messages)
    }

    /// The calls that were connected, in the order of their replies. Every GRE packet must belong to one.
    pub fn calls(&self) -> Result<Vec<Call>> {
        let server = self.control()?.0;
        let mut calls: Vec<Call> = Vec::new();
        for message in self
            .messages(usize::MAX)?
            .remove(&Side::Server)
            .unwrap_or_default()
        {
            if let Message::OutgoingCallReply(reply) = message
                && reply.result == CallResult::CONNECTED
            {
                calls.push(Call {
                    client_id: reply.peer_call_id,
                    server_id: reply.call_id,
                    sent: BTreeMap::new(),
                });
            }
        }
        // GRE number, frame and payload.
        type Payloads = Vec<(u32, usize, Vec<u8>)>;
        let mut packets: BTreeMap<(usize, Side), Payloads> = BTreeMap::new();
        for datagram in self
            .datagrams()?
            .iter()
            .filter(|datagram| datagram.protocol == ipv4::GRE)
        {
            let header = match gre::Packet::parse(&datagram.payload) {
                Ok(header) => header,
                Err(fault) => bail!("frame {}: {fault:?}", datagram.frame),
            };
            let side = if datagram.source == server {
                Side::Server
            } else {
                Side::Client
            };
            let call = calls
                .iter()
                .position(|call| {
                    let id = if side == Side::Server {
                        call.client_id
                    } else {
                        call.server_id
                    };
                    id == header.call_id
                })
                .with_context(|| format!("frame {}: no such call", datagram.frame))?;
            let Some(seq) = header.seq else { continue };
            let payload = datagram.payload[header.payload_range()].to_vec();
            packets
                .entry((call, side))
                .or_default()
                .push((seq.0, datagram.frame, payload));
        }
        for ((call, side), mut list) in packets {
            list.sort();
            let mut receiver = Receiver::default();
            for (number, frame, payload) in list {
                let missing = match receiver.accept(turnpike_protocol::gre::Seq(number)) {
                    Arrival::First | Arrival::InOrder => 0,
                    Arrival::Ahead { missing } => missing,
                    Arrival::Duplicate | Arrival::Late => continue,
                    Arrival::Held | Arrival::Awaited { .. } | Arrival::Beyond => {
                        bail!("frame {frame}: held without a queue")
                    }
                };
                let header =
                    ppp::Frame::parse(&payload).with_context(|| format!("frame {frame}"))?;
                calls[call].sent.entry(side).or_default().push(Wire {
                    frame,
                    missing,
                    protocol: header.protocol,
                    information: payload[header.header_len..].to_vec(),
                });
            }
        }
        Ok(calls)
    }
}

impl Call {
    /// The frames of one side.
    pub fn from(&self, side: Side) -> &[Wire] {
        self.sent.get(&side).map_or(&[], Vec::as_slice)
    }

    /// Control packets of `protocol` from both sides in the order of the capture.
    pub fn control(&self, protocol: ppp::Protocol) -> Result<Vec<(Side, Packet<'_>)>> {
        let mut packets = Vec::new();
        for side in Side::BOTH {
            for wire in self
                .from(side)
                .iter()
                .filter(|wire| wire.protocol == protocol)
            {
                let packet = Packet::parse(&wire.information)
                    .with_context(|| format!("frame {}", wire.frame))?;
                packets.push((wire.frame, side, packet));
            }
        }
        packets.sort_by_key(|(frame, ..)| *frame);
        Ok(packets
            .into_iter()
            .map(|(_, side, packet)| (side, packet))
            .collect())
    }

    /// The options of the last request of `side` that the other end acknowledged.
    pub fn acknowledged(
        &self,
        side: Side,
        protocol: ppp::Protocol,
    ) -> Result<Option<OptionList<'_>>> {
        let mut request = None;
        let mut acknowledged = None;
        for (from, packet) in self.control(protocol)? {
            match packet.code {
                code::CONFIGURE_REQUEST if from == side => request = Some(packet),
                code::CONFIGURE_ACK
                    if from != side
                        && request.is_some_and(|request| {
                            (request.identifier, request.data) == (packet.identifier, packet.data)
                        }) =>
                {
                    acknowledged = Some(OptionList::parse(packet.data)?);
                }
                _ => {}
            }
        }
        Ok(acknowledged)
    }

    /// How the client proved who it is, if the two agreed on that.
    pub fn authentication(&self) -> Result<Option<AuthProtocol>> {
        let options = self.acknowledged(Side::Server, ppp::Protocol::LCP)?;
        Ok(options.and_then(|options| {
            options
                .iter()
                .find(|option| option.kind == 3)
                .and_then(|option| AuthProtocol::parse(option.data))
        }))
    }

    /// What was agreed about the encryption of what `side` sends.
    pub fn mppe(&self, side: Side) -> Result<Option<MppeTerms>> {
        // RFC 1962 §2: a request speaks of what its sender will receive.
        let Some(options) = self.acknowledged(side.other(), ppp::Protocol::CCP)? else {
            return Ok(None);
        };
        let Some(bits) = options
            .iter()
            .find(|option| option.kind == 18)
            .map(|option| option.u32())
        else {
            return Ok(None);
        };
        let bits = bits.context("MPPE option")?;
        let terms = MppeBits(bits).terms();
        Ok(Some(
            terms.with_context(|| format!("MPPE bits {bits:08x}"))?,
        ))
    }

    /// Decrypts what `side` sent.
    ///
    /// Every packet must decrypt to something plausible, but for those that wait for a reset.
    pub fn decrypt(&self, side: Side, keys: &MasterKeys) -> Result<Vec<Clear>> {
        let agreed = self.mppe(side)?.context("no MPPE")?;
        let role = if side == Side::Client {
            Role::Server
        } else {
            Role::Client
        };
        let start = keys
            .start_key(role, Direction::Receive, agreed.strength)
            .context("no key of this strength")?;
        let mut decryptor = Decryptor::new(&start, agreed.mode);
        let mut clear = Vec::new();
        let mut missing = 0;
        let other = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        let mut requests = self
            .from(other)
            .iter()
            .filter(|wire| wire.protocol == ppp::Protocol::CCP)
            .filter(|wire| wire.information.first() == Some(&code::RESET_REQUEST))
            .map(|wire| wire.frame)
            .peekable();
        for wire in self.from(side) {
            missing += wire.missing;
            while requests.next_if(|frame| *frame < wire.frame).is_some() {
                decryptor.requested();
            }
            match wire.protocol {
                // Its own Configure-Ack is the last frame before the first that may be encrypted.
                ppp::Protocol::CCP if wire.information.first() == Some(&code::CONFIGURE_ACK) => {
                    missing = 0;
                }
                ppp::Protocol::COMPRESSED => {
                    let (header, octets) = wire
                        .information
                        .split_first_chunk::<HEADER_LEN>()
                        .context("short MPPE packet")?;
                    let mut octets = octets.to_vec();
                    let cipher = match decryptor.open(*header, std::mem::take(&mut missing)) {
                        Ok(cipher) => cipher,
                        Err(Refusal::NeedReset) => continue,
                        Err(refusal) => bail!("frame {}: {refusal}", wire.frame),
                    };
                    cipher.apply(&mut octets);
                    let plausible = mppe::plausible(&octets);
                    ensure!(plausible, "frame {} decrypts to garbage", wire.frame);
                    decryptor.judge(plausible);
                    clear.push(Clear {
                        frame: wire.frame,
                        header: *header,
                        plain: octets,
                    });
                }
                _ => {}
            }
        }
        Ok(clear)
    }
}
