//! What a run says, as text for people and as JSON, from the same types.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;
use std::io::{self, Write as _};

use serde::Serialize;
use turnpike_dataplane::api::{CallCounters, Mppe, Port};
use turnpike_dataplane::counters::{Counters, Traffic};
use turnpike_dataplane::ports::{DeviceReport, PortMode, SocketReport};
use turnpike_protocol::ppp::{LinkInfo, MppeTerms, Terms};

use super::inform::Told;
use crate::faults::{Books, Tally};
use crate::traffic::Count;

/// A line of output. With `--json`, one object a line, told apart by `event`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
#[allow(
    clippy::large_enum_variant,
    reason = "written at once; a box would cost more"
)]
pub enum Line<'a> {
    /// A call is up.
    Up(&'a UpLine),
    /// A call did not come up.
    Failed(&'a OverLine),
    /// The server told what is behind a call.
    Informed(&'a InformedLine),
    /// It did not.
    Uninformed(&'a UninformedLine),
    /// A call that was up is over.
    Ended(&'a OverLine),
    /// The traffic is over.
    Traffic(&'a TrafficLine),
    /// The last line: everything.
    End(&'a Report),
}

/// A call is up.
#[derive(Clone, Debug, Serialize)]
pub struct UpLine {
    /// The id that we chose.
    pub call_id: u16,
    /// Our inner address.
    pub address: Ipv4Addr,
    /// The server's inner address.
    pub server_address: Ipv4Addr,
    /// DNS servers it told us.
    pub dns: Vec<Ipv4Addr>,
    /// Octets of the largest inner packet.
    pub mtu: u16,
    /// MPPE from the server to us.
    pub mppe_receive: Option<Mppe>,
    /// MPPE from us to the server.
    pub mppe_transmit: Option<Mppe>,
    /// From the first TCP packet until now.
    pub seconds: f64,
}

impl UpLine {
    /// From what was agreed.
    pub fn new(call_id: u16, terms: &Terms, info: &LinkInfo, seconds: f64) -> Self {
        let mppe = |terms: Option<MppeTerms>| terms.map(|t| Mppe::new(t.strength, t.mode));
        Self {
            call_id,
            address: terms.address,
            server_address: terms.server_address,
            dns: terms.dns.into_iter().flatten().collect(),
            mtu: terms.mtu,
            mppe_receive: mppe(info.mppe_receive),
            mppe_transmit: mppe(info.mppe_transmit),
            seconds,
        }
    }
}

/// What the server told by DHCP.
#[derive(Clone, Debug, Serialize)]
pub struct InformedLine {
    /// The id that we chose.
    pub call_id: u16,
    /// What it told.
    pub told: Told,
}

/// The server told nothing.
#[derive(Clone, Debug, Serialize)]
pub struct UninformedLine {
    /// The id that we chose.
    pub call_id: u16,
    /// Why, in words.
    pub reason: String,
}

/// A call is over.
#[derive(Clone, Debug, Serialize)]
pub struct OverLine {
    /// The id that we chose.
    pub call_id: u16,
    /// Why, in words.
    pub reason: String,
    /// The code that Windows would show, where there is a usual one.
    pub error: Option<u32>,
}

/// What traffic did.
#[derive(Clone, Debug, Serialize)]
pub struct TrafficLine {
    /// All calls together, seen from here.
    pub total: Count,
    /// Each call.
    pub calls: BTreeMap<u16, Count>,
    /// Calls whose traffic could not run, and why.
    pub errors: BTreeMap<u16, String>,
}

/// One call in the last line.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    /// The id that we chose.
    pub call_id: u16,
    /// Whether it ever came up.
    pub came_up: bool,
    /// It did not come up, or ended before we hung up.
    pub failed: bool,
    /// Its inner address, while it had one.
    pub inner_address: Option<Ipv4Addr>,
    /// How it ended, in words.
    pub reason: String,
    /// The code that Windows would show, where there is a usual one.
    pub error: Option<u32>,
    /// What it moved.
    pub counters: CallCounters,
}

/// A port of the worker.
#[derive(Clone, Debug, Serialize)]
pub struct PortReport {
    /// Frames and octets taken from it.
    pub received: Traffic,
    /// Frames and octets given to it.
    pub transmitted: Traffic,
}

/// The worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerReport {
    /// Drops by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Everything else it counts.
    pub totals: BTreeMap<&'static str, u64>,
    /// Its ports.
    pub ports: BTreeMap<Port, PortReport>,
}

impl WorkerReport {
    /// The figures now.
    pub fn new(counters: &Counters) -> Self {
        Self {
            drops: counters
                .reasons()
                .map(|(reason, count)| (reason.name(), count))
                .collect(),
            totals: counters
                .totals()
                .map(|(total, count)| (total.name(), count))
                .collect(),
            ports: [Port::Access, Port::Host]
                .map(|port| {
                    (
                        port,
                        PortReport {
                            received: counters.received(port),
                            transmitted: counters.transmitted(port),
                        },
                    )
                })
                .into(),
        }
    }
}

/// The injector's books.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FaultReport {
    /// From the network to us.
    pub receive: Tally,
    /// From us to the network.
    pub transmit: Tally,
}

impl FaultReport {
    /// The figures now.
    pub fn new(books: &Books) -> Self {
        Self {
            receive: books.receive.tally(),
            transmit: books.transmit.tally(),
        }
    }
}

/// The last line.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Every call, by id.
    pub calls: Vec<CallReport>,
    /// Calls that came up.
    pub came_up: usize,
    /// Calls that did not come up, or ended before we hung up.
    pub failed: usize,
    /// The worker.
    pub worker: WorkerReport,
    /// Faults injected on the access port.
    pub faults: FaultReport,
    /// AF_XDP sockets.
    pub sockets: Vec<SocketReport>,
    /// Devices.
    pub devices: Vec<DeviceReport>,
    /// How XDP is attached.
    pub modes: Vec<PortMode>,
    /// Packets by the XDP program's verdict.
    pub xdp: BTreeMap<&'static str, u64>,
}

/// Where lines go.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// JSON, one object a line.
    pub json: bool,
}

impl Printer {
    /// Writes a line. A reader that has gone away is no reason to leave calls hanging.
    pub fn line(self, line: &Line<'_>) {
        let text = if self.json {
            serde_json::to_string(line).unwrap_or_default()
        } else {
            text(line)
        };
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}

fn text(line: &Line<'_>) -> String {
    match line {
        Line::Up(up) => format!(
            "call {} up after {:.2} s: address {}, {}, MTU {}",
            up.call_id,
            up.seconds,
            up.address,
            mppe(up),
            up.mtu
        ),
        Line::Failed(over) => format!("call {} failed: {}", over.call_id, reason(over)),
        Line::Informed(informed) => {
            let told = &informed.told;
            let routes: Vec<_> = told
                .routes
                .iter()
                .map(|route| route.prefix.to_string())
                .collect();
            format!(
                "call {}: behind {} are {}; domain {}, DNS {:?}",
                informed.call_id,
                told.server,
                match routes.is_empty() {
                    true => "no networks".to_owned(),
                    false => routes.join(", "),
                },
                told.domain.as_deref().unwrap_or("unknown"),
                told.dns
            )
        }
        Line::Uninformed(uninformed) => format!(
            "call {}: nobody says what is behind it: {}",
            uninformed.call_id, uninformed.reason
        ),
        Line::Ended(over) => format!("call {} ended: {}", over.call_id, reason(over)),
        Line::Traffic(traffic) => {
            let total = traffic.total;
            format!(
                "traffic on {} calls: {} sent, {} came back, {} came twice, {} late, {} not ours",
                traffic.calls.len(),
                total.sent,
                total.received,
                total.duplicates,
                total.out_of_order,
                total.foreign
            )
        }
        Line::End(report) => serde_json::to_string_pretty(report).unwrap_or_default(),
    }
}

fn reason(over: &OverLine) -> String {
    match over.error {
        Some(error) => format!("{} (Windows would say {error})", over.reason),
        None => over.reason.clone(),
    }
}

fn mppe(up: &UpLine) -> String {
    let one = |mppe: &Mppe| {
        format!(
            "MPPE {}-bit {}",
            mppe.bits,
            if mppe.stateless {
                "stateless"
            } else {
                "stateful"
            }
        )
    };
    match (&up.mppe_receive, &up.mppe_transmit) {
        (Some(receive), Some(transmit)) if receive == transmit => {
            format!("{} both ways", one(receive))
        }
        (None, None) => "not encrypted".to_owned(),
        (receive, transmit) => format!(
            "received {}, sent {}",
            receive.as_ref().map_or("in clear".to_owned(), one),
            transmit.as_ref().map_or("in clear".to_owned(), one)
        ),
    }
}
