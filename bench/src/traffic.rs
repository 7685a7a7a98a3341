//! Numbered datagrams through calls and back: who sent what, and what arrived how often.
//!
//! The datagrams are Linux' own UDP, from a socket bound to each call's inner address: so they take every step that
//! anybody's packets take, and every one of them has a number.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddrV4;

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

/// What begins every datagram of ours.
const MAGIC: [u8; 4] = *b"tpk1";

/// Octets of UDP payload that every datagram has at least: magic, call, number.
pub(crate) const HEADER: usize = 16;

/// Octets of the smallest inner IP packet that traffic can be made of.
pub const MIN_SIZE: usize = 28 + HEADER;

/// Octets of the largest datagram that is understood.
const MAX_DATAGRAM: usize = 2048;

/// Octets of socket buffers that are asked for; Linux may give less.
const BUFFER: usize = 8 << 20;

/// What to send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Flow {
    /// Datagrams per second on each call.
    pub rate: f64,
    /// How long.
    pub time: Duration,
    /// Octets of the inner IP packet.
    pub size: usize,
    /// Who echoes them.
    pub target: SocketAddrV4,
    /// How long to wait for the last echoes.
    pub grace: Duration,
}

/// What one side of one call sent and got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Count {
    /// Datagrams given to Linux.
    pub sent: u64,
    /// Datagrams that Linux did not take.
    pub send_errors: u64,
    /// Datagrams that arrived, repeated ones not counted.
    pub received: u64,
    /// Datagrams that arrived again.
    pub duplicates: u64,
    /// Datagrams that arrived after a later one.
    pub out_of_order: u64,
    /// Datagrams of another call, or not of ours at all.
    pub foreign: u64,
    /// The longest time in milliseconds in which nothing arrived: of the sender, and from its first datagram to its last.
    pub longest_silence_ms: u64,
}

impl Count {
    /// Adds up calls.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.send_errors += other.send_errors;
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.foreign += other.foreign;
        self.longest_silence_ms = self.longest_silence_ms.max(other.longest_silence_ms);
    }
}

/// Which numbers have come: a bit each.
#[derive(Debug, Default)]
struct Seen {
    bits: Vec<u64>,
    highest: Option<u64>,
}

/// Numbers that a side keeps apart at most; 2 MB of bits.
const MOST: u64 = 1 << 24;

impl Seen {
    fn note(&mut self, number: u64, count: &mut Count) {
        if number >= MOST {
            count.foreign += 1;
            return;
        }
        // Below 2²⁴, so it fits.
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit != 0 {
            count.duplicates += 1;
            return;
        }
        self.bits[word] |= bit;
        count.received += 1;
        if self.highest.is_some_and(|highest| number < highest) {
            count.out_of_order += 1;
        }
        self.highest = self.highest.max(Some(number));
    }
}

pub(crate) fn compose(buffer: &mut [u8], call: u32, number: u64) {
    buffer[..4].copy_from_slice(&MAGIC);
    buffer[4..8].copy_from_slice(&call.to_be_bytes());
    buffer[8..16].copy_from_slice(&number.to_be_bytes());
}

pub(crate) fn parse(datagram: &[u8]) -> Option<(u32, u64)> {
    if datagram.len() < HEADER || datagram[..4] != MAGIC {
        return None;
    }
    let call = u32::from_be_bytes(datagram[4..8].try_into().ok()?);
    let number = u64::from_be_bytes(datagram[8..16].try_into().ok()?);
    Some((call, number))
}

/// A UDP socket with large buffers.
fn socket(local: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Less than asked for is no failure: what does not fit is counted by Linux.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from(local).into())?;
    UdpSocket::from_std(socket.into())
}

/// Sends numbered datagrams from `address` as call number `call` and takes their echoes.
pub async fn run(flow: Flow, address: Ipv4Addr, call: u32) -> io::Result<Count> {
    let socket = socket(SocketAddrV4::new(address, 0))?;
    socket.connect(flow.target).await?;
    let mut count = Count::default();
    let mut seen = Seen::default();
    let mut payload = vec![0xa5; flow.size.max(MIN_SIZE) - 28];
    let mut buffer = [0; MAX_DATAGRAM];
    let mut number = 0;
    let mut ticks = interval(Duration::from_secs_f64(1.0 / flow.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + flow.time;
    let over = sleep_until(end);
    tokio::pin!(over);
    let mut heard = Instant::now();
    let mut silence = |count: &mut Count, before: u64| {
        let now = Instant::now();
        let long = now.duration_since(heard).as_millis();
        count.longest_silence_ms = count
            .longest_silence_ms
            .max(long.try_into().unwrap_or(u64::MAX));
        if count.received > before {
            heard = now;
        }
    };
    loop {
        tokio::select! {
            biased;
            () = &mut over => break,
            received = socket.recv(&mut buffer) => {
                let before = count.received;
                take(received, &buffer, call, &mut seen, &mut count);
                silence(&mut count, before);
            }
            _ = ticks.tick() => {
                compose(&mut payload, call, number);
                match socket.send(&payload).await {
                    Ok(_) => {
                        count.sent += 1;
                        number += 1;
                    }
                    Err(_) => count.send_errors += 1,
                }
            }
        }
    }
    let before = count.received;
    silence(&mut count, before);
    let end = Instant::now() + flow.grace;
    while count.received < count.sent {
        match timeout_at(end, socket.recv(&mut buffer)).await {
            Ok(received) => take(received, &buffer, call, &mut seen, &mut count),
            Err(_) => break,
        }
    }
    // What is doubled comes after what is complete.
    let end = end.min(Instant::now() + Duration::from_millis(200));
    while let Ok(received) = timeout_at(end, socket.recv(&mut buffer)).await {
        take(received, &buffer, call, &mut seen, &mut count);
    }
    Ok(count)
}

fn take(received: io::Result<usize>, buffer: &[u8], call: u32, seen: &mut Seen, count: &mut Count) {
    // An ICMP error about an earlier datagram shows here, and means no more than that one was lost.
    let Ok(len) = received else {
        return;
    };
    match parse(&buffer[..len]) {
        Some((of, number)) if of == call => seen.note(number, count),
        _ => count.foreign += 1,
    }
}

/// What an echo responder saw.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct EchoReport {
    /// All calls together. What is sent is the echo of what was received, doubled ones included.
    pub total: Count,
    /// Datagrams that Linux dropped at the socket.
    pub socket_drops: u64,
    /// Each call by the inner address it used.
    pub calls: HashMap<Ipv4Addr, Count>,
}

/// Sends every datagram of ours back to where it came from, until `stop` is done.
pub async fn echo(
    listen: SocketAddrV4,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> io::Result<EchoReport> {
    let socket = socket(listen)?;
    let port = socket.local_addr()?.port();
    ready();
    let mut calls: HashMap<(Ipv4Addr, u32), (Seen, Count)> = HashMap::new();
    let mut foreign = 0;
    let mut buffer = [0; MAX_DATAGRAM];
    tokio::pin!(stop);
    loop {
        let received = tokio::select! {
            biased;
            () = &mut stop => break,
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((len, from)) = received else {
            continue;
        };
        let (SocketAddr::V4(address), Some((call, number))) = (from, parse(&buffer[..len])) else {
            foreign += 1;
            continue;
        };
        let (seen, count) = calls.entry((*address.ip(), call)).or_default();
        seen.note(number, count);
        match socket.send_to(&buffer[..len], from).await {
            Ok(_) => count.sent += 1,
            Err(_) => count.send_errors += 1,
        }
    }
    let mut report = EchoReport {
        socket_drops: socket_drops(port)?,
        ..EchoReport::default()
    };
    report.total.foreign = foreign;
    for ((address, _), (_, count)) in calls {
        report.total.add(&count);
        report.calls.entry(address).or_default().add(&count);
    }
    Ok(report)
}

/// Datagrams that Linux dropped at the UDP socket with this port: the last column of /proc/net/udp.
fn socket_drops(port: u16) -> io::Result<u64> {
    let table = std::fs::read_to_string("/proc/self/net/udp")?;
    let suffix = format!(":{port:04X}");
    Ok(table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            columns
                .nth(1)
                .filter(|local| local.ends_with(&suffix))
                .and(columns.next_back())
                .and_then(|drops| drops.parse::<u64>().ok())
        })
        .sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart() {
        let mut seen = Seen::default();
        let mut count = Count::default();
        for number in [0, 1, 3, 2, 3, 1000, 2, MOST] {
            seen.note(number, &mut count);
        }
        assert_eq!(
            count,
            Count {
                received: 5,
                duplicates: 2,
                out_of_order: 1,
                foreign: 1,
                ..Count::default()
            }
        );
    }

    #[tokio::test]
    async fn everything_comes_back_over_loopback() {
        let local = Ipv4Addr::LOCALHOST;
        // A port that is free now; nobody else wants it in the meantime.
        let port = std::net::UdpSocket::bind((local, 0))
            .and_then(|socket| socket.local_addr())
            .unwrap()
            .port();
        let target = SocketAddrV4::new(local, port);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, listening) = tokio::sync::oneshot::channel();
        let echo = tokio::spawn(async move {
            let started = move || ready.send(()).unwrap();
            echo(target, started, async {
                let _ = stopped.await;
            })
            .await
        });
        listening.await.unwrap();
        let flow = Flow {
            rate: 500.0,
            time: Duration::from_millis(400),
            size: 300,
            target,
            grace: Duration::from_secs(5),
        };
        let (one, two) = tokio::join!(run(flow, local, 1), run(flow, local, 2));
        stop.send(()).unwrap();
        let report = echo.await.unwrap().unwrap();
        let mut sum = one.unwrap();
        sum.add(&two.unwrap());
        assert!(sum.sent > 100, "{sum:?}");
        assert_eq!(sum.received, sum.sent);
        assert_eq!(report.total.received, sum.sent);
        assert_eq!(report.total.sent, sum.sent);
        assert_eq!(report.socket_drops, 0);
        assert_eq!((sum.duplicates, sum.foreign), (0, 0));
        assert_eq!(report.calls.len(), 1);
    }
}
