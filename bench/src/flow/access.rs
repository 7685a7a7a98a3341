//! The end where the calls are: a worker's device whose host port is the generator and the receiver themselves.
//!
//! No packet is copied or queued between worker and generator: what is due is written into a frame when the worker asks
//! for frames of its host port, and what comes out of a call is looked at and released when the worker sends it there.

use core::cell::Cell;
use core::net::SocketAddrV4;
use core::time::Duration;

use turnpike_dataplane::api::Port;
use turnpike_dataplane::device::{Accounts, Batch, Device, Frame, Refused};
use turnpike_dataplane::wake::Wake;
use turnpike_dataplane::xsk::Xsk;
use turnpike_protocol::wire::ethernet::{self, MacAddr};

use super::packet::datagram;
use super::sending;
use super::side::Side;
use crate::faults::Faulty;

/// The longest sleep: a new order does not ring.
const LONGEST_SLEEP: Duration = Duration::from_millis(5);

/// An access port that can say how much it takes.
pub(super) trait Line: Device {
    /// Frames that can be sent before any are lost.
    fn room(&self) -> usize;

    /// Notes what was dropped before it could be received.
    fn count_drops(&mut self) {}
}

impl Line for Xsk {
    fn room(&self) -> usize {
        usize::MAX
    }
}

impl<D: Line> Line for Faulty<D> {
    fn room(&self) -> usize {
        self.inner().room()
    }

    fn count_drops(&mut self) {
        self.inner_mut().count_drops();
    }
}

/// The device.
pub(super) struct Access<D> {
    line: D,
    side: Side,
    /// Whom the calls' packets are for.
    target: SocketAddrV4,
    /// Never sleep.
    spin: bool,
    awake: bool,
}

impl<D: Line> Access<D> {
    pub(super) fn new(line: D, side: Side, target: SocketAddrV4, spin: bool) -> Self {
        Self {
            line,
            side,
            target,
            spin,
            awake: false,
        }
    }

    /// Makes frames of what is due.
    fn generate(&mut self, batch: &mut Batch) -> usize {
        self.side.follow();
        let before = batch.len();
        let now = self.side.now();
        let most = self.line.room().min(batch.remaining_capacity());
        while batch.len() - before < most {
            let Some(mut frame) = self.line.allocate(Port::Access) else {
                break;
            };
            let Some((stamp, address)) = self.side.next(now) else {
                self.line.release(frame);
                break;
            };
            // The largest size fits a frame.
            let _ = frame.set_len(ethernet::HEADER_LEN + usize::from(stamp.size));
            let bytes = self.line.bytes(&mut frame);
            let (header, packet) = bytes.split_at_mut(ethernet::HEADER_LEN);
            ethernet::Header {
                destination: MacAddr::default(),
                source: MacAddr::default(),
                ethertype: ethernet::IPV4,
            }
            .emit(header);
            stamp.write_packet(address, self.target, packet);
            batch.push(frame);
        }
        batch.len() - before
    }
}

impl<D: Line> Device for Access<D> {
    fn has(&self, port: Port) -> bool {
        port != Port::Uplink
    }

    fn receive(&mut self, port: Port, batch: &mut Batch) -> usize {
        match port {
            Port::Host => self.generate(batch),
            _ => self.line.receive(port, batch),
        }
    }

    fn overrun(&mut self, port: Port) -> bool {
        self.line.overrun(port)
    }

    fn transmit(&mut self, port: Port, mut frame: Frame) -> Result<(), Refused> {
        if port != Port::Host {
            return self.line.transmit(port, frame);
        }
        let bytes = self.line.bytes(&mut frame);
        match bytes.get(ethernet::HEADER_LEN..).and_then(datagram) {
            Some(datagram) => {
                self.side.take(datagram);
            }
            None => self.side.take_foreign(),
        }
        self.line.release(frame);
        Ok(())
    }

    fn allocate(&mut self, _port: Port) -> Option<Frame> {
        self.line.allocate(Port::Access)
    }

    fn release(&mut self, frame: Frame) {
        self.line.release(frame);
    }

    fn bytes<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.line.bytes(frame)
    }

    fn lend<'a>(&'a self, frame: &'a Frame) -> &'a [Cell<u8>] {
        self.line.lend(frame)
    }

    fn flush(&mut self) {
        self.line.flush();
    }

    fn accounts(&self) -> Accounts {
        self.line.accounts()
    }

    fn wait(&mut self, wake: &Wake, timeout: Duration) {
        if !core::mem::replace(&mut self.awake, true) {
            sending::sleep_exactly();
        }
        let now = self.side.now();
        let due = self.side.due().map_or(LONGEST_SLEEP, |due| {
            Duration::from_nanos(due.saturating_sub(now))
        });
        if self.spin || due.is_zero() {
            return;
        }
        self.line.wait(wake, timeout.min(due).min(LONGEST_SLEEP));
    }
}
