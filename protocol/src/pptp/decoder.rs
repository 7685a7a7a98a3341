//! From a TCP stream to messages.

use crate::Error;
use crate::pptp::codec::{HEADER_LEN, check_header};
use crate::pptp::message::{MAX_MESSAGE, Message};
use crate::wire::read_u16;

/// One message out of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "lives for one statement; a box would cost more"
)]
pub enum Incoming {
    /// A message.
    Message(Message),
    /// A message of a type that nobody defined; it was skipped.
    Unknown {
        /// Its control message type.
        control_type: u16,
    },
}

/// Buffers what has come of a message: never more than [`MAX_MESSAGE`] octets, and nothing between messages. Plain data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoder {
    buffer: Option<Box<[u8; MAX_MESSAGE]>>,
    len: usize,
}

impl Decoder {
    /// At the start of a stream.
    pub const fn new() -> Self {
        Self {
            buffer: None,
            len: 0,
        }
    }

    /// Takes octets from the front of `stream` until a message is whole; `None` when all are taken and it is not.
    ///
    /// `Malformed`: framing is lost, and the connection must be closed, never searched for the next message
    /// (RFC 2637 §1.4). It is said as soon as the octets at hand prove it.
    pub fn next(&mut self, stream: &mut &[u8]) -> Result<Option<Incoming>, Error> {
        if stream.is_empty() {
            return Ok(None);
        }
        let mut buffer = (self.buffer.take()).unwrap_or_else(|| Box::new([0; MAX_MESSAGE]));
        loop {
            let wanted = self.wanted(&buffer);
            let take = (wanted - self.len).min(stream.len());
            let (taken, rest) = stream.split_at(take);
            buffer[self.len..self.len + take].copy_from_slice(taken);
            self.len += take;
            *stream = rest;
            check_header(&buffer[..self.len])?;
            if self.len < wanted {
                self.buffer = Some(buffer);
                return Ok(None);
            }
            if self.len < self.wanted(&buffer) {
                // The header came: now its length is known.
                continue;
            }
            let bytes = &buffer[..self.len];
            self.len = 0;
            return match Message::parse(bytes) {
                Ok(message) => Ok(Some(Incoming::Message(message))),
                Err(Error::Incompatible(_)) => Ok(Some(Incoming::Unknown {
                    control_type: read_u16(bytes, 8),
                })),
                Err(error) => Err(error),
            };
        }
    }

    /// Whether a message has begun and is not whole.
    pub const fn is_inside_message(&self) -> bool {
        self.len > 0
    }

    /// How many octets make the header, or the message when the header is there.
    fn wanted(&self, buffer: &[u8; MAX_MESSAGE]) -> usize {
        if self.len < HEADER_LEN {
            HEADER_LEN
        } else {
            usize::from(read_u16(buffer, 0))
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}
