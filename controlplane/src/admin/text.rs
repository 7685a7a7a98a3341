//! Answers as people read them.

use core::fmt::Write as _;
use core::time::Duration;
use std::collections::BTreeMap;

use super::types::Mppe;
use super::{Killed, Session, Stats};

/// A table: columns as wide as their widest cell, two spaces apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// `-` for what is not there.
fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn mppe(mppe: Option<Mppe>) -> String {
    match mppe {
        None => "-".to_owned(),
        Some(Mppe { bits, stateless }) => {
            format!("{bits}{}", if stateless { "" } else { "f" })
        }
    }
}

/// A duration with its two largest units: `2d 3h`, `5m 12s`.
fn duration(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let parts: Vec<_> = text.split(' ').take(2).collect();
    parts.join(" ")
}

/// Octets with three digits or so: `12.3 MB`.
fn octets(octets: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = octets as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// One line for each call.
pub fn sessions_text(sessions: &[Session]) -> String {
    if sessions.is_empty() {
        return "no calls\n".to_owned();
    }
    let mut rows = vec![row([
        "CALL",
        "USER",
        "CLIENT",
        "ADDRESS",
        "IPV6",
        "STATE",
        "UP",
        "MPPE in/out",
        "MTU",
        "IN",
        "OUT",
        "DROPPED",
        "WORKER",
        "PORT",
    ])];
    for session in sessions {
        rows.push(vec![
            session.call_id.to_string(),
            or_dash(session.user.as_deref()),
            session.client.to_string(),
            or_dash(session.address),
            or_dash(session.ipv6_prefix),
            session.state.clone(),
            duration(session.up_seconds),
            format!(
                "{}/{}",
                mppe(session.mppe_receive),
                mppe(session.mppe_transmit)
            ),
            or_dash(session.mtu),
            octets(session.counters.received_octets),
            octets(session.counters.sent_octets),
            session.counters.dropped.to_string(),
            session.worker.to_string(),
            format!("{} ({})", session.port, session.xdp_mode),
        ]);
    }
    let count = sessions.len();
    let calls = if count == 1 { "call" } else { "calls" };
    format!("{}{count} {calls}\n", table(&rows))
}

/// What was told to end.
pub fn killed_text(killed: &[Killed]) -> String {
    let mut text = String::new();
    for call in killed {
        let _ = writeln!(
            text,
            "ended call {} of {} ({}{})",
            call.call_id,
            call.user.as_deref().unwrap_or("nobody yet"),
            call.client,
            call.address
                .map(|address| format!(", {address}"))
                .unwrap_or_default(),
        );
    }
    text
}

/// Counters by name, the largest first; nothing when there are none.
fn counters(text: &mut String, title: &str, counters: &BTreeMap<String, u64>) {
    let mut counters: Vec<_> = counters.iter().filter(|(_, count)| **count > 0).collect();
    if counters.is_empty() {
        return;
    }
    counters.sort_by_key(|(name, count)| (core::cmp::Reverse(**count), *name));
    let width = counters
        .iter()
        .map(|(_, count)| count.to_string().len())
        .max()
        .unwrap_or(0);
    let _ = writeln!(text, "  {title}");
    for (name, count) in counters {
        let _ = writeln!(text, "    {count:>width$}  {name}");
    }
}

/// Everything that is counted. Zeros are left out where a name is all they would show.
pub fn stats_text(stats: &Stats) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "turnpike {}, up {}: {} calls in {} control connections",
        stats.version,
        duration(stats.uptime_seconds),
        stats.calls,
        stats.tunnels
    );
    counters(&mut text, "control plane", &stats.control);
    for worker in &stats.workers {
        let core = worker
            .cpu
            .map(|cpu| format!(" on core {cpu}"))
            .unwrap_or_default();
        let _ = writeln!(text, "worker {}{core}", worker.worker);
        let mut rows = vec![row([
            "  PORT",
            "INTERFACE",
            "QUEUE",
            "XDP",
            "COPY",
            "IN",
            "OUT",
            "KERNEL DROPPED",
            "RING FULL",
        ])];
        for port in &worker.ports {
            rows.push(vec![
                format!("  {}", port.port),
                port.interface.clone(),
                port.queue.to_string(),
                port.mode.clone(),
                if port.zero_copy { "zero" } else { "yes" }.to_owned(),
                port.received.to_string(),
                port.transmitted.to_string(),
                port.rx_dropped.to_string(),
                port.rx_ring_full.to_string(),
            ]);
        }
        text.push_str(&table(&rows));
        counters(&mut text, "dropped", &worker.drops);
        counters(&mut text, "totals", &worker.totals);
        for port in &worker.ports {
            counters(
                &mut text,
                &format!("socket of {} queue {}", port.interface, port.queue),
                &port.other,
            );
        }
    }
    counters(&mut text, "verdicts of the XDP program", &stats.xdp);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(octets(0), "0 B");
        assert_eq!(octets(999), "999 B");
        assert_eq!(octets(1000), "1.0 kB");
        assert_eq!(octets(123_456_789), "123 MB");
        assert_eq!(octets(u64::MAX), "18447 PB");
        assert_eq!(duration(0), "0s");
        assert_eq!(duration(3_700), "1h 1m");
        assert_eq!(duration(200_000), "2days 7h");
    }

    #[test]
    fn columns_line_up() {
        let rows = [row(["A", "LONGER"]), row(["long cell", "x"])];
        assert_eq!(table(&rows), "A          LONGER\nlong cell  x\n");
    }
}
