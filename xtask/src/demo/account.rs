//! What one call of the demo showed, and whether that is enough.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::lab::capture::Seen;
use crate::lab::road;
use crate::lab::server::Stats;
use crate::lab::transfer::{BLOCK, Direction, Moved};

/// One call.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// Whether MPPE was wanted.
    pub encrypted: bool,
    /// Whether the internet answered before the call was up.
    pub reached_before: bool,
    /// What both sides agreed on, in words.
    pub negotiated: String,
    /// The server's account of the session, as `turnpike sessions --json` gave it.
    pub session: serde_json::Value,
    /// Pings through the tunnel.
    pub ping: Ping,
    /// Streams through the tunnel.
    pub streams: Vec<Stream>,
    /// How XDP is attached, port by port.
    pub xdp: Vec<String>,
    /// Packets on the bridge against packets counted.
    pub account: Account,
    /// Packets that turnpike dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// Pings.
#[derive(Debug, Clone, Serialize)]
pub struct Ping {
    /// How many were sent.
    pub sent: u32,
    /// How many answers came.
    pub received: u32,
    /// Average round trip in milliseconds.
    pub average_ms: f64,
}

/// A stream as both ends saw it.
#[derive(Debug, Clone, Serialize)]
pub struct Stream {
    /// The client's end.
    pub here: Moved,
    /// The end on the internet.
    pub there: Moved,
}

impl Stream {
    /// A word for its direction.
    pub fn name(&self) -> &'static str {
        match self.here.direction {
            Direction::Up => "to internet",
            Direction::Down => "to client",
        }
    }
}

/// Packets on the bridge against packets counted by turnpike and by the interfaces beside it.
#[derive(Debug, Clone, Serialize)]
pub struct Account {
    /// GRE packets to the server that the witness on the bridge saw.
    pub bridge_to_server: u64,
    /// GRE packets from the server that it saw.
    pub bridge_from_server: u64,
    /// Packets in which it found the marker of the stream.
    pub markers: u64,
    /// Frames that turnpike took from its AF_XDP sockets on the access port.
    pub received: u64,
    /// Frames that turnpike gave to them.
    pub transmitted: u64,
    /// Frames to the server that the kernel dropped between bridge and socket.
    pub lost_to_server: u64,
    /// Frames from the server that the kernel dropped between socket and bridge.
    pub lost_from_server: u64,
}

impl Account {
    /// Sets what the bridge saw against `stats`, which a fresh server gave after one call.
    pub fn new(seen: &Seen, stats: &Stats, lost_to_server: u64, lost_from_server: u64) -> Self {
        Self {
            bridge_to_server: seen.to(road::SERVER),
            bridge_from_server: seen.from(road::SERVER),
            markers: seen.markers,
            received: stats.port("access", |port| port.received),
            transmitted: stats.port("access", |port| port.transmitted),
            lost_to_server: lost_to_server
                + stats.port("access", |port| port.rx_dropped + port.rx_ring_full),
            lost_from_server,
        }
    }
}

impl Call {
    /// Everything that has to hold.
    pub fn check(&self) -> Result<()> {
        ensure!(
            !self.reached_before,
            "the client reached the internet before it dialled"
        );
        ensure!(
            self.ping.sent > 0 && self.ping.received == self.ping.sent,
            "pings were lost: {} of {} answered",
            self.ping.received,
            self.ping.sent
        );
        ensure!(self.streams.len() == 2, "not both streams were moved");
        for stream in &self.streams {
            ensure!(
                stream.here.sha256 == stream.there.sha256
                    && stream.here.bytes == stream.there.bytes,
                "what arrived is not what was sent: {stream:?}"
            );
        }
        for direction in ["mppe_receive", "mppe_transmit"] {
            let mode = &self.session[direction];
            let good = if self.encrypted {
                mode["bits"] == 128 && mode["stateless"] == true
            } else {
                mode.is_null()
            };
            ensure!(good, "{direction} is {mode}");
        }
        self.account.check(self)
    }
}

impl Account {
    fn check(&self, call: &Call) -> Result<()> {
        if call.encrypted {
            ensure!(
                self.markers == 0,
                "{} packets of the encrypted call show plaintext",
                self.markers
            );
        } else {
            // A marker now and then lies across two packets.
            let there = call.streams.iter().map(|s| s.here.bytes).sum::<u64>() / BLOCK as u64;
            ensure!(
                self.markers >= there / 2,
                "the witness is blind: it found {} of {there} markers of a call in clear",
                self.markers
            );
        }
        ensure!(
            self.received + self.lost_to_server == self.bridge_to_server,
            "the bridge saw {} GRE packets to the server; AF_XDP counts {} received, {} were dropped before it",
            self.bridge_to_server,
            self.received,
            self.lost_to_server
        );
        ensure!(
            self.transmitted == self.bridge_from_server + self.lost_from_server,
            "the bridge saw {} GRE packets from the server; AF_XDP counts {} transmitted, {} were dropped after it",
            self.bridge_from_server,
            self.transmitted,
            self.lost_from_server
        );
        // What was moved fits in no fewer packets: the stream cannot have gone another way.
        for (direction, packets) in [
            (Direction::Up, self.received),
            (Direction::Down, self.transmitted),
        ] {
            let bytes: u64 = call
                .streams
                .iter()
                .filter(|stream| stream.here.direction == direction)
                .map(|stream| stream.here.bytes)
                .sum();
            ensure!(
                packets >= bytes / 1460,
                "{bytes} octets cannot have passed in {packets} packets"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(encrypted: bool) -> Call {
        let moved = |direction| Moved {
            direction,
            bytes: 1 << 20,
            sha256: "a hash".to_owned(),
            seconds: 1.0,
        };
        let stream = |direction| Stream {
            here: moved(direction),
            there: moved(direction),
        };
        let mode = if encrypted {
            serde_json::json!({"bits": 128, "stateless": true})
        } else {
            serde_json::Value::Null
        };
        Call {
            encrypted,
            reached_before: false,
            negotiated: String::new(),
            session: serde_json::json!({"mppe_receive": mode, "mppe_transmit": mode}),
            ping: Ping {
                sent: 3,
                received: 3,
                average_ms: 0.1,
            },
            streams: vec![stream(Direction::Up), stream(Direction::Down)],
            xdp: Vec::new(),
            account: Account {
                bridge_to_server: 1001,
                bridge_from_server: 1000,
                markers: if encrypted { 0 } else { 30 },
                received: 1000,
                transmitted: 1000,
                lost_to_server: 1,
                lost_from_server: 0,
            },
            drops: BTreeMap::new(),
        }
    }

    #[test]
    fn a_good_call_passes_and_each_fault_shows() {
        for encrypted in [false, true] {
            let good = call(encrypted);
            good.check().unwrap();
            let faults: [fn(&mut Call); 9] = [
                |call| call.reached_before = true,
                |call| call.ping.received = 2,
                |call| call.streams[1].there.sha256 = "another".to_owned(),
                |call| call.streams.truncate(1),
                |call| {
                    call.session["mppe_receive"] =
                        serde_json::json!({"bits": 40, "stateless": true})
                },
                |call| call.account.received -= 1,
                |call| call.account.bridge_from_server += 1,
                |call| {
                    call.streams.iter_mut().for_each(|s| {
                        s.here.bytes <<= 4;
                        s.there.bytes <<= 4;
                    })
                },
                |call| call.account.markers = u64::from(call.encrypted),
            ];
            for (number, fault) in faults.into_iter().enumerate() {
                let mut bad = good.clone();
                fault(&mut bad);
                assert!(bad.check().is_err(), "fault {number} of {encrypted}");
            }
        }
    }
}
