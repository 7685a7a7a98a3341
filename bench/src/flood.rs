//! GRE to calls that nobody has, as fast as asked: what a server must shrug off.

mod raw;
mod xdp;

use core::net::Ipv4Addr;
use core::time::Duration;
use std::time::Instant;

use serde::Serialize;
use turnpike_protocol::CallId;
use turnpike_protocol::gre::Seq;
use turnpike_protocol::wire::gre::Header;

/// What to send.
#[derive(Clone, PartialEq, Debug)]
pub struct Flood {
    /// Who gets it.
    pub target: Ipv4Addr,
    /// The interface to send on, over AF_XDP; `None`: a raw socket, which is slower.
    pub interface: Option<String>,
    /// Packets per second; `None`: as many as one core can.
    pub rate: Option<u64>,
    /// How long.
    pub time: Duration,
    /// Octets of the GRE payload.
    pub size: u16,
    /// Call ids, first and last, of which none may be in use.
    pub ids: (u16, u16),
    /// The processor to send from; `None`: Linux chooses.
    pub cpu: Option<usize>,
}

/// What was sent.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct FloodReport {
    /// Packets that Linux took.
    pub sent: u64,
    /// Packets that it did not take, or that the device dropped at once: buffers full.
    pub refused: u64,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Packets per second that were sent.
    pub rate: f64,
}

/// Packets sent between two looks at the clock; as many as go to AF_XDP at a time.
const BURST: u64 = turnpike_dataplane::device::BATCH as u64;

/// The longest pause of a sender that is ahead of its rate. Longer ones make the bursts after them longer.
const PAUSE: Duration = Duration::from_micros(200);

/// Packets that Linux took, and that it did not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Tally {
    sent: u64,
    refused: u64,
}

/// A way to send.
trait Way {
    /// Sends `count` packets, at most [`BURST`], or as many as there is room for; says how many it tried.
    fn burst(&mut self, count: u64, numbers: &mut Numbers) -> anyhow::Result<u64>;

    /// Waits until nothing is under way any more.
    fn finish(&mut self) -> anyhow::Result<Tally>;
}

/// What differs from packet to packet.
#[derive(Debug)]
struct Numbers {
    first: u16,
    last: u16,
    next: u16,
    seq: u32,
}

impl Numbers {
    fn new((first, last): (u16, u16)) -> Self {
        Self {
            first,
            last,
            next: first,
            seq: 0,
        }
    }

    /// Call id and sequence number of the next packet. Every id has its turn; sequence numbers wrap around.
    fn take(&mut self) -> (CallId, Seq) {
        let numbers = (CallId(self.next), Seq(self.seq));
        self.seq = self.seq.wrapping_add(1);
        self.next = if self.next >= self.last {
            self.first
        } else {
            self.next + 1
        };
        numbers
    }
}

/// The GRE header of a packet with `size` octets of payload.
fn header((call_id, seq): (CallId, Seq), size: u16) -> Header {
    Header {
        call_id,
        seq: Some(seq),
        ack: None,
        payload_len: size,
    }
}

/// Sends until the time is over. Needs root (CAP_NET_RAW; over AF_XDP CAP_NET_ADMIN as well).
///
/// # Errors
/// When there is no such interface or processor, no way to the target, or no permission.
pub fn run(flood: &Flood) -> anyhow::Result<FloodReport> {
    if let Some(cpu) = flood.cpu {
        anyhow::ensure!(
            turnpike_dataplane::thread::pin(cpu),
            "cannot send from cpu {cpu}: this process may not use it"
        );
    }
    match &flood.interface {
        Some(interface) => send(flood, xdp::Sender::open(flood, interface)?),
        None => send(flood, raw::Sender::open(flood)?),
    }
}

fn send(flood: &Flood, mut way: impl Way) -> anyhow::Result<FloodReport> {
    let mut numbers = Numbers::new(flood.ids);
    let mut tried: u64 = 0;
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        if elapsed >= flood.time {
            break;
        }
        let due = match flood.rate {
            Some(rate) => (elapsed.as_secs_f64() * rate as f64) as u64,
            None => u64::MAX,
        };
        if tried >= due {
            std::thread::sleep(PAUSE);
            continue;
        }
        tried += way.burst(BURST.min(due - tried), &mut numbers)?;
    }
    let tally = way.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(FloodReport {
        sent: tally.sent,
        refused: tally.refused,
        seconds,
        rate: tally.sent as f64 / seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything, three at a time.
    #[derive(Default)]
    struct Slow {
        packets: Vec<(CallId, Seq)>,
    }

    impl Way for &mut Slow {
        fn burst(&mut self, count: u64, numbers: &mut Numbers) -> anyhow::Result<u64> {
            assert!((1..=BURST).contains(&count));
            let taken = count.min(3);
            self.packets.extend((0..taken).map(|_| numbers.take()));
            Ok(taken)
        }

        fn finish(&mut self) -> anyhow::Result<Tally> {
            Ok(Tally {
                sent: self.packets.len() as u64 - 1,
                refused: 1,
            })
        }
    }

    #[test]
    fn the_rate_is_kept_and_every_number_is_used() {
        let flood = Flood {
            target: Ipv4Addr::LOCALHOST,
            interface: None,
            rate: Some(10_000),
            time: Duration::from_millis(100),
            size: 64,
            ids: (65_533, 65_535),
            cpu: None,
        };
        let mut way = Slow::default();
        let report = send(&flood, &mut way).unwrap();
        // A busy machine may sleep through the end of it, but never sends more than is due.
        let total = way.packets.len() as u64;
        assert_eq!((report.sent, report.refused), (total - 1, 1));
        assert!((1..=1_000).contains(&total), "{total}");
        for (n, packet) in (0_u32..).zip(&way.packets) {
            assert_eq!(*packet, (CallId(65_533 + (n % 3) as u16), Seq(n)));
        }
    }
}
