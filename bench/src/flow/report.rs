//! What was measured, as text and as JSON, from the same type.

use core::fmt::Write as _;
use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use serde::Serialize;

use super::generator::Generator;
use super::plan::{Size, Way};
use super::receiver::{Receiver, Second};
use crate::dial::{FaultReport, WorkerReport};
use crate::report::Origin;
use crate::spread::Spread;

/// Nanoseconds in a millisecond.
const UNITS: f64 = 1e6;

/// A generator whose 99 of 100 packets are later than this, in milliseconds, is late.
const LATE: f64 = 1.0;

fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / UNITS
}

/// What happened in one second of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SecondReport {
    /// Packets sent.
    pub sent: u64,
    /// Packets received, each once.
    pub received: u64,
    /// Bits of inner IP packets received.
    pub bits: u64,
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// 999 of 1000 took no longer.
    pub p999_ms: f64,
    /// The most.
    pub max_ms: f64,
}

/// One flow one way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowReport {
    /// Its number.
    pub flow: u32,
    /// The inner address of its call.
    pub address: Ipv4Addr,
    /// Packets sent.
    pub sent: u64,
    /// Packets received, each once.
    pub received: u64,
    /// Packets that did not come.
    pub lost: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Half of them took no longer, in milliseconds, to within some 5 %.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The most.
    pub max_ms: f64,
}

/// One way of a trial.
#[derive(Clone, Debug, Serialize)]
pub struct WayReport {
    /// Which.
    pub way: Way,
    /// Packets that were to be sent.
    pub planned: u64,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that this machine was too slow to send.
    pub unsent: u64,
    /// Packets received, each once.
    pub received: u64,
    /// Packets sent that did not come.
    pub lost: u64,
    /// Their share of those sent, of 1.
    pub lost_share: f64,
    /// Packets that came after a later one of their flow.
    pub reordered: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Packets that came so late that nobody knows whether they had come before; they count as lost.
    pub stale: u64,
    /// Packets that came and were none of this trial's.
    pub foreign: u64,
    /// Packets sent per second, until the last one.
    pub sent_pps: f64,
    /// Packets received per second, until the last one.
    pub received_pps: f64,
    /// Bits of inner IP packets received per second.
    pub received_bps: f64,
    /// From when packets were to be sent until they came.
    pub latency_ms: Spread,
    /// From when packets were to be sent until they were: how late this machine was.
    pub lateness_ms: Spread,
    /// Second by second; packets that came after the last one was sent are in a second of their own.
    pub each_second: Vec<SecondReport>,
    /// The flows that lost most, then those that were slowest.
    pub worst_flows: Vec<FlowReport>,
}

/// A time of packets of one size, or of one mix.
#[derive(Clone, Debug, Serialize)]
pub struct TrialReport {
    /// Octets of inner IP packets.
    pub size: Size,
    /// Packets per second each way that were asked for.
    pub rate: f64,
    /// How long.
    pub seconds: f64,
    /// Each way.
    pub ways: Vec<WayReport>,
}

/// Calls.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CallsReport {
    /// Calls that were begun.
    pub begun: u64,
    /// Calls that came up.
    pub up: u64,
    /// Calls that came up, and ended when nobody here wanted it.
    pub lost: u64,
    /// Times that data stopped in a call that was up because something was negotiated anew.
    pub held: u64,
    /// From the first call's begin until all had come up or had not.
    pub setup_seconds: f64,
    /// Why calls did not come up, or did not stay.
    pub failures: BTreeMap<String, u64>,
}

/// One way of the verification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct VerifiedWay {
    /// Flows that delivered a packet.
    pub verified: u32,
    /// Packets sent for that.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
}

/// Flows that delivered a packet before the first trial.
#[derive(Clone, Debug, Serialize)]
pub struct VerifiedReport {
    /// Flows each way.
    pub flows: u32,
    /// Each way.
    pub ways: BTreeMap<&'static str, VerifiedWay>,
    /// How many were verified all ways.
    pub all_ways: u32,
    /// How long it took.
    pub seconds: f64,
}

/// What this machine could not do.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct EndReport {
    /// Packets that could not be sent, acknowledgements among them.
    pub refused: u64,
    /// Packets that came and found no room.
    pub dropped: u64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// With what this was measured, when, and where.
    #[serde(flatten)]
    pub origin: Origin,
    /// The server.
    pub server: Ipv4Addr,
    /// The calls.
    pub calls: CallsReport,
    /// The flows; none where no call came up.
    pub flows: Option<VerifiedReport>,
    /// One for each size.
    pub trials: Vec<TrialReport>,
    /// The end where the calls are.
    pub access: EndReport,
    /// The end behind the server.
    pub network: EndReport,
    /// What the worker counted that carried the calls.
    pub worker: Option<WorkerReport>,
    /// What --fault did to GRE.
    pub faults: Option<FaultReport>,
    /// What may be lost each way, of 1.
    pub allowed_loss: f64,
    /// It ended before its time.
    pub interrupted: bool,
}

impl WayReport {
    pub(super) fn new(sent: &Generator, received: &Receiver, worst: usize) -> Self {
        let schedule = &sent.trial.schedule;
        // Rates are those of the whole time that it took, which is longer than planned where something is too slow.
        let until = |last: u64| {
            let last = last.max(schedule.end());
            ((last - schedule.start) as f64 / 1e9).max(1e-9)
        };
        let mut flows: Vec<FlowReport> = received
            .flows
            .iter()
            .zip(sent.trial.flows.iter())
            .zip(0_u32..)
            .map(|((flow, address), number)| {
                let sent = schedule.share(number, sent.next);
                FlowReport {
                    flow: number,
                    address: *address,
                    sent,
                    received: flow.received,
                    lost: sent.saturating_sub(flow.received),
                    reordered: flow.reordered,
                    duplicates: flow.duplicates,
                    p50_ms: ms(flow.latency.value_at_quantile(0.5)),
                    p99_ms: ms(flow.latency.value_at_quantile(0.99)),
                    max_ms: ms(flow.latency.max()),
                }
            })
            .collect();
        let sum = |of: fn(&FlowReport) -> u64| flows.iter().map(of).sum::<u64>();
        let (lost, reordered, duplicates) = (
            sum(|flow| flow.lost),
            sum(|flow| flow.reordered),
            sum(|flow| flow.duplicates),
        );
        flows.sort_by(|a, b| {
            b.lost
                .cmp(&a.lost)
                .then(b.p99_ms.total_cmp(&a.p99_ms))
                .then(a.flow.cmp(&b.flow))
        });
        flows.truncate(worst);
        let amount = received.received;
        let count = sent.each_second.len().max(received.each_second.len());
        Self {
            way: sent.way,
            planned: schedule.count,
            sent: sent.sent.packets,
            unsent: schedule.count - sent.next,
            received: amount.packets,
            lost,
            lost_share: lost as f64 / sent.sent.packets.max(1) as f64,
            reordered,
            duplicates,
            stale: received.flows.iter().map(|flow| flow.stale).sum(),
            foreign: received.foreign,
            sent_pps: sent.sent.packets as f64 / until(sent.last),
            received_pps: amount.packets as f64 / until(received.last),
            received_bps: amount.octets as f64 * 8.0 / until(received.last),
            latency_ms: Spread::of(&received.latency, UNITS),
            lateness_ms: Spread::of(&sent.lateness, UNITS),
            each_second: (0..count)
                .map(|second| {
                    let came: Second = received
                        .each_second
                        .get(second)
                        .copied()
                        .unwrap_or_default();
                    let went = sent.each_second.get(second).copied().unwrap_or_default();
                    SecondReport {
                        sent: went.packets,
                        received: came.amount.packets,
                        bits: came.amount.octets * 8,
                        p50_ms: ms(came.p50),
                        p99_ms: ms(came.p99),
                        p999_ms: ms(came.p999),
                        max_ms: ms(came.max),
                    }
                })
                .collect(),
            worst_flows: flows,
        }
    }

    fn text(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "  {:<4} {} sent, {} received, {} lost ({:.4} %), {} reordered, {} duplicates: {:.0} packets/s, {:.2} Mbit/s",
            self.way.name(),
            self.sent,
            self.received,
            self.lost,
            self.lost_share * 100.0,
            self.reordered,
            self.duplicates,
            self.received_pps,
            self.received_bps / 1e6
        );
        if self.unsent > 0 {
            let _ = writeln!(
                text,
                "       {} of {} packets were not sent: this machine is too slow for the rate",
                self.unsent, self.planned
            );
        }
        if self.lateness_ms.p99 > LATE {
            let _ = writeln!(
                text,
                "       sent late: half by more than {:.2} ms, 1 % by more than {:.2} ms; latencies contain that",
                self.lateness_ms.p50, self.lateness_ms.p99
            );
        }
    }
}

impl Report {
    /// Whether everything was as it should be; see `--help`.
    pub fn is_good(&self) -> bool {
        let ways = || self.trials.iter().flat_map(|trial| &trial.ways);
        !self.interrupted
            && self.calls.up == self.calls.begun
            && self.calls.lost == 0
            && self
                .flows
                .as_ref()
                .is_some_and(|flows| flows.all_ways == flows.flows)
            && ways().count() > 0
            && ways().all(|way| way.unsent == 0 && way.lost_share <= self.allowed_loss)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let calls = &self.calls;
        let mut text = format!(
            "{} of {} calls came up in {:.2} s\n",
            calls.up, calls.begun, calls.setup_seconds
        );
        for (reason, count) in &calls.failures {
            let _ = writeln!(text, "{count:>8}  {reason}");
        }
        if calls.held > 0 {
            let _ = writeln!(
                text,
                "{} times a call that was up stopped, to negotiate something anew",
                calls.held
            );
        }
        if let Some(flows) = &self.flows {
            for (name, way) in &flows.ways {
                let _ = writeln!(
                    text,
                    "{} of {} flows verified {name}",
                    way.verified, flows.flows
                );
            }
        }
        for trial in &self.trials {
            let _ = writeln!(
                text,
                "\nsize {}, {:.0} packets/s each way, {:.1} s",
                trial.size, trial.rate, trial.seconds
            );
            for way in &trial.ways {
                way.text(&mut text);
            }
            let _ = writeln!(text, "  {:<13}{}", "ms", Spread::HEADS);
            for way in &trial.ways {
                let spreads = [("latency", &way.latency_ms), ("late", &way.lateness_ms)];
                for (what, spread) in spreads.into_iter().filter(|(_, spread)| spread.count > 0) {
                    let name = format!("{} {what}", way.way.name());
                    let _ = writeln!(text, "  {name:<13}{}", spread.columns());
                }
            }
            for way in &trial.ways {
                for flow in way.worst_flows.iter().filter(|flow| flow.lost > 0) {
                    let _ = writeln!(
                        text,
                        "  {} {}: {} of {} lost, {} reordered, {} duplicates",
                        way.way.name(),
                        flow.address,
                        flow.lost,
                        flow.sent,
                        flow.reordered,
                        flow.duplicates
                    );
                }
            }
        }
        for (end, what) in [(&self.access, "calls"), (&self.network, "network")] {
            if end.refused > 0 || end.dropped > 0 {
                let _ = writeln!(
                    text,
                    "\nlost by this machine at the {what} end: {} could not be sent, {} found no room when they came",
                    end.refused, end.dropped
                );
            }
        }
        if self.interrupted {
            text.push_str("\ninterrupted\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::generator::tests::trial;
    use super::super::packet::FRONT;
    use super::super::plan::Script;
    use super::*;

    /// Three flows of four packets each; the network loses some, doubles one and lets one overtake.
    fn measured() -> WayReport {
        let script = Arc::new(Script::new(9, 3));
        let trial = trial(1, 3, 12, Size::Fixed(100));
        let mut generator = Generator::new(trial.clone(), Way::Up, script.clone()).unwrap();
        let mut receiver = Receiver::new(trial, Way::Up, script).unwrap();
        let sent: Vec<Vec<u8>> = core::iter::from_fn(|| generator.take(2_000_000_000))
            .map(|stamp| {
                let mut octets = vec![0; 100 - FRONT];
                stamp.write(&mut octets);
                octets
            })
            .collect();
        // Packet n is number n / 3 of flow n % 3. Lost: 1 and 4 (flow 1), 8 (flow 2). Doubled: 9. Overtaken: 3 by 6.
        for n in [0, 2, 5, 6, 3, 7, 9, 9, 10, 11] {
            receiver.take(&sent[n], 2_500_000_000).unwrap();
        }
        receiver.close_second();
        WayReport::new(&generator, &receiver, 2)
    }

    fn report(way: WayReport) -> Report {
        Report {
            origin: Origin {
                tool: "flow".to_owned(),
                ..Origin::default()
            },
            server: Ipv4Addr::LOCALHOST,
            calls: CallsReport {
                begun: 3,
                up: 3,
                ..CallsReport::default()
            },
            flows: Some(VerifiedReport {
                flows: 3,
                ways: [(
                    "up",
                    VerifiedWay {
                        verified: 3,
                        sent: 3,
                        received: 3,
                    },
                )]
                .into(),
                all_ways: 3,
                seconds: 0.1,
            }),
            trials: vec![TrialReport {
                size: Size::Fixed(100),
                rate: 1000.0,
                seconds: 0.012,
                ways: vec![way],
            }],
            access: EndReport::default(),
            network: EndReport::default(),
            worker: None,
            faults: None,
            allowed_loss: 0.25,
            interrupted: false,
        }
    }

    #[test]
    fn every_packet_is_accounted_for() {
        let way = measured();
        assert_eq!((way.planned, way.sent, way.unsent), (12, 12, 0));
        assert_eq!((way.received, way.lost), (9, 3));
        assert_eq!((way.reordered, way.duplicates), (1, 1));
        assert_eq!((way.lost_share, way.stale, way.foreign), (0.25, 0, 0));
        let worst: Vec<(u32, u64, u64)> = way
            .worst_flows
            .iter()
            .map(|flow| (flow.flow, flow.sent, flow.lost))
            .collect();
        assert_eq!(worst, [(1, 4, 2), (2, 4, 1)]);
        assert_eq!(way.each_second.len(), 2);
        assert_eq!(way.each_second[1].sent, 12);
        assert_eq!(way.each_second[1].received, 9);
        assert_eq!(way.each_second[1].bits, 9 * 800);
        // The first was to be sent 1.5 s before it came.
        assert!((way.latency_ms.max / 1_500.0 - 1.0).abs() < 0.01);
        assert!((way.lateness_ms.max / 1_000.0 - 1.0).abs() < 0.01);
        let text = report(way).text();
        for part in [
            "3 of 3 calls came up",
            "3 of 3 flows verified up",
            "12 sent, 9 received, 3 lost (25.0000 %), 1 reordered, 1 duplicates",
            "sent late: half by more than",
            "10.20.0.11: 2 of 4 lost",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn good_is_only_what_was_measured_whole() {
        let good = report(measured());
        assert!(good.is_good());
        let spoil = |change: fn(&mut Report)| {
            let mut report = good.clone();
            change(&mut report);
            report.is_good()
        };
        assert!(!spoil(|report| report.allowed_loss = 0.249));
        assert!(!spoil(|report| report.calls.up = 2));
        assert!(!spoil(|report| report.calls.lost = 1));
        assert!(!spoil(|report| report.interrupted = true));
        assert!(!spoil(|report| report.trials.clear()));
        assert!(!spoil(|report| report.trials[0].ways[0].unsent = 1));
        assert!(!spoil(|report| report.flows = None));
    }
}
