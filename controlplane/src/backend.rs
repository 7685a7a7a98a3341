//! Answers to operators, from the tables and counters of a running server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;
use turnpike_dataplane::api::{Owners, Port};
use turnpike_dataplane::ports::Ports;
use turnpike_protocol::ppp::LcpTerms;

use crate::admin::{
    Backend, Killed, Lcp, LcpOptions, Packet, PortStats, Selector, Session, Stats, WorkerStats,
};
use crate::cause::Cause;
use crate::driver::Shared;
use crate::listener::Connections;
use crate::sessions::Entry;

/// Calls whose counters are asked for at the same time.
const QUERIES: usize = 64;

/// What operators ask.
pub struct Operator {
    /// The tunnels.
    pub shared: Arc<Shared>,
    /// The control connections.
    pub connections: Arc<Connections>,
    /// The ports.
    pub ports: Arc<Mutex<Ports>>,
    /// Which worker has which call.
    pub owners: Owners,
    /// The core of each worker.
    pub cpus: Vec<Option<usize>>,
    /// When the workers' clocks started, in nanoseconds since 1970.
    pub origin_unix_nanos: u64,
}

impl Operator {
    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(|e| e.into_inner())
    }

    async fn session(&self, entry: Entry, port: &str, xdp_mode: &str) -> Session {
        let snapshot = entry.snapshot;
        let call = snapshot.call;
        let counters = self
            .shared
            .switchboard
            .query(call)
            .await
            .unwrap_or_default();
        let lcp = snapshot.link.as_ref().map(|link| Lcp {
            receive: options(&link.lcp_receive),
            transmit: options(&link.lcp_transmit),
        });
        let terms = snapshot.link.as_ref().and_then(|link| link.terms);
        let now = self.shared.clock.now();
        Session {
            call_id: call.id.0,
            peer_call_id: snapshot.peer_id.0,
            tunnel: entry.tunnel,
            state: snapshot.stage.name().to_owned(),
            user: snapshot.user,
            client: call.peer,
            local: call.local,
            address: snapshot.address,
            ipv6_prefix: snapshot.ipv6.map(|grant| grant.prefix),
            ipv6_delegated: snapshot.ipv6.and_then(|grant| grant.delegated),
            worker: self.owners.owner(call.id).0,
            port: port.to_owned(),
            xdp_mode: xdp_mode.to_owned(),
            up_seconds: now.since(snapshot.since).as_secs(),
            mppe_receive: counters.mppe_receive,
            mppe_transmit: counters.mppe_transmit,
            mtu: terms.map(|terms| terms.mtu),
            lcp: lcp.unwrap_or_default(),
            counters,
        }
    }
}

fn options(terms: &LcpTerms) -> LcpOptions {
    LcpOptions {
        mru: terms.mru,
        accm: terms.accm,
        magic: terms.magic.is_some(),
        compress_protocol: terms.compress_protocol,
        compress_address: terms.compress_address,
    }
}

impl Backend for Operator {
    async fn sessions(&self) -> Vec<Session> {
        let access = self
            .ports()
            .modes()
            .into_iter()
            .find(|mode| mode.port == Port::Access);
        let (port, mode) = access.map_or_else(Default::default, |access| {
            (access.interface, access.mode.to_string())
        });
        stream::iter(self.shared.sessions.all())
            .map(|entry| self.session(entry, &port, &mode))
            .buffered(QUERIES)
            .collect()
            .await
    }

    async fn stats(&self) -> Stats {
        let shared = &self.shared;
        let losses = shared.switchboard.losses();
        let mut control = shared.counts.by_name();
        control.extend(losses.by_name());
        if let Some(books) = &shared.books {
            let lost = books.clerk().lost();
            control.insert("accounting_records_lost".to_owned(), lost);
            if let Some(waiting) = books.clerk().backlog().await {
                control.insert("accounting_records_waiting".to_owned(), waiting);
            }
        }
        if let Some(radius) = shared.backends.radius() {
            let counts = radius.client.counts().by_name();
            control.extend(counts.map(|(name, count)| (name.to_owned(), count)));
        }
        let (reports, xdp) = {
            let ports = self.ports();
            let verdicts = ports.verdicts().unwrap_or_else(|error| {
                tracing::warn!(%error, "verdicts of the XDP program");
                Vec::new()
            });
            let reports = ports.statistics().unwrap_or_else(|error| {
                tracing::warn!(%error, "statistics of the sockets");
                Vec::new()
            });
            (reports, verdicts)
        };
        let workers = shared.switchboard.counters().iter().zip(0_u8..);
        let workers = workers.map(|(counters, worker)| {
            let mut seen = [false; Port::ALL.len()];
            let own = reports.iter().filter(|report| report.worker.0 == worker);
            let ports = own.map(|report| {
                // A worker counts by port; with several queues on one, the first shows it.
                let first = !std::mem::replace(&mut seen[report.port as usize], true);
                let (received, transmitted) = if first {
                    (
                        counters.received(report.port),
                        counters.transmitted(report.port),
                    )
                } else {
                    Default::default()
                };
                let statistics = &report.statistics;
                let other = [
                    ("received_octets", received.octets),
                    ("transmitted_octets", transmitted.octets),
                    ("rx_invalid_descs", statistics.rx_invalid_descs),
                    ("rx_fill_ring_empty", statistics.rx_fill_ring_empty),
                    ("tx_invalid_descs", statistics.tx_invalid_descs),
                    ("tx_ring_empty", statistics.tx_ring_empty),
                ];
                PortStats {
                    port: report.port,
                    interface: report.interface.clone(),
                    queue: report.queue,
                    mode: report.mode.to_string(),
                    zero_copy: report.zero_copy,
                    received: received.frames,
                    transmitted: transmitted.frames,
                    rx_dropped: statistics.rx_dropped,
                    rx_ring_full: statistics.rx_ring_full,
                    other: named(other),
                }
            });
            WorkerStats {
                worker,
                cpu: self.cpus.get(usize::from(worker)).copied().flatten(),
                ports: ports.collect(),
                drops: named(counters.reasons().map(|(reason, n)| (reason.name(), n))),
                totals: named(counters.totals().map(|(total, n)| (total.name(), n))),
            }
        });
        Stats {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: shared
                .clock
                .now()
                .since(turnpike_protocol::Time::ZERO)
                .as_secs(),
            calls: shared.sessions.len() as u64,
            tunnels: self.connections.len() as u64,
            control,
            workers: workers.collect(),
            xdp: named(xdp),
        }
    }

    async fn kill(&self, selector: Selector, cause: Cause) -> Result<Vec<Killed>, String> {
        let killed = self.shared.sessions.kill(&selector, cause);
        killed.map_err(|ambiguous| ambiguous.to_string())
    }

    async fn capture(&self, selector: Selector) -> Result<mpsc::Receiver<Packet>, String> {
        let (packets, calls) = self
            .shared
            .sessions
            .capture(selector, self.origin_unix_nanos)
            .map_err(|ambiguous| ambiguous.to_string())?;
        for (call, capture) in calls {
            self.shared
                .switchboard
                .capture(call, capture)
                .await
                .map_err(|stopped| stopped.to_string())?;
        }
        Ok(packets)
    }
}

fn named<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    counts
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}
