//! GRE to calls that nobody has, as fast as asked: what a server must shrug off.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::io;
use std::net::SocketAddrV4;
use std::time::Instant;

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use turnpike_protocol::CallId;
use turnpike_protocol::gre::Seq;
use turnpike_protocol::wire::gre::{Header, MAX_HEADER_LEN};
use turnpike_protocol::wire::ipv4;

/// What to send.
#[derive(Clone, PartialEq, Debug)]
pub struct Flood {
    /// Who gets it.
    pub target: Ipv4Addr,
    /// Packets per second; `None`: as many as one core can.
    pub rate: Option<u64>,
    /// How long.
    pub time: Duration,
    /// Octets of the GRE payload.
    pub size: usize,
    /// Call ids, first and last, of which none may be in use.
    pub ids: (u16, u16),
}

/// What was sent.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct FloodReport {
    /// Packets that Linux took.
    pub sent: u64,
    /// Packets that it did not take: buffers full.
    pub refused: u64,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Packets per second.
    pub rate: f64,
}

/// Packets sent between two looks at the clock.
const BURST: u64 = 64;

/// Sends until the time is over. Needs the right to open raw sockets (root).
pub fn run(flood: &Flood) -> io::Result<FloodReport> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::RAW,
        Some(Protocol::from(i32::from(ipv4::GRE))),
    )?;
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.connect(&SocketAddrV4::new(flood.target, 0).into())?;
    let mut packet = vec![0; MAX_HEADER_LEN + flood.size];
    let (first, last) = flood.ids;
    let mut id = first;
    let mut report = FloodReport {
        sent: 0,
        refused: 0,
        seconds: 0.0,
        rate: 0.0,
    };
    let start = Instant::now();
    let mut number: u64 = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= flood.time {
            report.seconds = elapsed.as_secs_f64();
            report.rate = report.sent as f64 / report.seconds;
            return Ok(report);
        }
        let due = match flood.rate {
            Some(rate) => (elapsed.as_secs_f64() * rate as f64) as u64,
            None => u64::MAX,
        };
        if number >= due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        for _ in 0..BURST.min(due - number) {
            let header = Header {
                call_id: CallId(id),
                // 32 bits of it are the point.
                seq: Some(Seq(number as u32)),
                ack: None,
                payload_len: u16::try_from(flood.size).unwrap_or(u16::MAX),
            };
            let len = header.emit(&mut packet).unwrap_or(0) + flood.size;
            match socket.send(&packet[..len]) {
                Ok(_) => report.sent += 1,
                Err(error) if refused(&error) => report.refused += 1,
                Err(error) => return Err(error),
            }
            number += 1;
            id = if id >= last { first } else { id + 1 };
        }
    }
}

/// Errors that mean no more than one packet lost.
fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(
            error.raw_os_error(),
            // ICMP errors about earlier packets, too.
            Some(
                libc::ENOBUFS
                    | libc::ECONNREFUSED
                    | libc::ENOPROTOOPT
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH
                    | libc::EPERM
            )
        )
}
