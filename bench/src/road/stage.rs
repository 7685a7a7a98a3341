//! The whole run: who has its turn when, and at which rate.

use core::time::Duration;

use anyhow::Context as _;

use super::device::{self, Bench};
use super::meter::{Found, Meter, Pace};
use super::packets::{Case, Macs, Way, Work};
use super::peers::Peers;
use super::places::{Place, find};
use super::report::{Cell, Contender, Latency, Loss, Mice, Report, Times};
use super::{Road, cipher};

/// Of l2fwd's rate: where nothing should be lost.
const EASY: f64 = 0.4;
/// Of the most that somebody forwards: where times are taken.
const SHARES: [f64; 3] = [0.1, 0.5, 0.9];
/// Calls beside the one that sends more than all of them, and how many packets that one sends for each of theirs.
const MICE: u16 = 1000;
const ELEPHANT: usize = 9;

/// Everything that is there for the whole run.
pub(super) struct Stage<'a> {
    options: &'a Road,
    time: Duration,
    clients: Place,
    network: Place,
    macs: Macs,
}

impl<'a> Stage<'a> {
    pub(super) fn open(options: &'a Road, time: Duration) -> anyhow::Result<Self> {
        let clients = Place::open(&options.clients)
            .with_context(|| format!("--clients {}", options.clients))?;
        let network = Place::open(&options.network)
            .with_context(|| format!("--network {}", options.network))?;
        let macs = Macs {
            client: clients.link.mac,
            access: find(&options.access)?.mac,
            uplink: find(&options.uplink)?.mac,
            network: network.link.mac,
        };
        Ok(Self {
            options,
            time,
            clients,
            network,
            macs,
        })
    }

    fn wanted(&self, contender: Contender) -> bool {
        let only = &self.options.only;
        only.is_empty() || only.contains(&contender)
    }

    fn case(&self, contender: Contender, size: u16) -> Option<Case> {
        let (way, work) = work(contender)?;
        Some(Case::new(way, work, size, self.options.calls, self.macs))
    }

    fn open_bench(&self) -> anyhow::Result<Bench> {
        let options = self.options;
        Bench::open(&options.access, &options.uplink, options.cpu)
    }

    fn run(&self, meter: &mut Meter, pace: Pace, time: Duration) -> anyhow::Result<Found> {
        let tag = device::tag(&self.macs);
        let cpu = self.options.generator_cpu;
        meter.run(&self.clients, &self.network, cpu, pace, time, &tag)
    }

    /// The same by one of those on AF_XDP ports.
    fn forward(
        &self,
        bench: &mut Bench,
        meter: &mut Meter,
        pace: Pace,
        time: Duration,
    ) -> anyhow::Result<Found> {
        let serving = bench.serve(meter.case())?;
        let found = self.run(meter, pace, time);
        let counters = bench.stop(serving)?;
        found.with_context(|| match counters {
            Some(counters) => {
                let reasons: Vec<_> = counters.reasons().collect();
                format!("turnpike (which dropped {reasons:?})")
            }
            None => "a bare loop".to_owned(),
        })
    }

    /// The most that each one forwards.
    pub(super) fn rates(&self, size: u16, report: &mut Report) -> anyhow::Result<()> {
        let options = self.options;
        // More than fit a turn at any rate that was ever seen here.
        let most = if size < 400 { 1.3e6 } else { 0.8e6 };
        let once = (self.time.as_secs_f64() * most) as usize;
        let mut meters = Vec::new();
        for contender in Contender::ALL {
            if self.wanted(contender)
                && let Some(case) = self.case(contender, size)
            {
                meters.push((contender, Meter::open(case, once)?));
            }
        }
        let peers = Peers::prepare(
            &options.access,
            &options.uplink,
            self.macs,
            options.cpu,
            options.calls,
        )?;
        for round in 0..options.rounds {
            // Nobody is always the first one after the ports were opened.
            if round > 0 {
                meters.rotate_left(1);
            }
            let mut bench = self.open_bench()?;
            report.modes = bench.modes();
            for (contender, meter) in &mut meters {
                if contender.is_peer() {
                    continue;
                }
                let found = self
                    .forward(&mut bench, meter, Pace::Most, self.time)
                    .with_context(|| format!("{} with {size} octets", contender.name()))?;
                report.add(*contender, size, cell(round, *contender, &found));
            }
            drop(bench);
            if self.wanted(Contender::Cipher) {
                let rate = cipher::rate(size.into(), options.calls, options.cpu, self.time)?;
                let cell = Cell {
                    rate,
                    ..Cell::default()
                };
                report.add(Contender::Cipher, size, cell);
            }
            for (contender, meter) in &mut meters {
                if !contender.is_peer() {
                    continue;
                }
                let peer = peers.start(meter.case())?;
                let found = self.run(meter, Pace::Most, self.time);
                peer.stop()?;
                let found =
                    found.with_context(|| format!("{} with {size} octets", contender.name()))?;
                report.add(*contender, size, cell(round, *contender, &found));
            }
        }
        Ok(())
    }

    /// What is lost where there is time enough for every packet.
    pub(super) fn losses(
        &self,
        size: u16,
        time: Duration,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let Some(rate) = report.best(Contender::L2fwd, size).map(|rate| rate * EASY) else {
            return Ok(());
        };
        let mut bench = self.open_bench()?;
        for contender in [Contender::L2fwd, Contender::ClearUp, Contender::ClearDown] {
            let Some(case) = self
                .case(contender, size)
                .filter(|_| self.wanted(contender))
            else {
                continue;
            };
            let mut meter = Meter::open(case, 0)?;
            let found = self.forward(&mut bench, &mut meter, Pace::Rate(rate), time)?;
            report.losses.push(Loss {
                contender,
                size,
                rate,
                sent: found.sent,
                lost: found.sent.saturating_sub(found.arrived),
            });
        }
        Ok(())
    }

    /// How long packets take, by how busy whoever forwards them is.
    pub(super) fn latencies(
        &self,
        size: u16,
        time: Duration,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut bench = self.open_bench()?;
        let mut l2fwd = match self.case(Contender::L2fwd, size) {
            Some(case) => Meter::open(case, 0)?,
            None => return Ok(()),
        };
        // With MPPE downwards a packet's number cannot be read where it arrives.
        for of in [Contender::ClearUp, Contender::ClearDown, Contender::MppeUp] {
            let (Some(most), Some(case)) = (report.best(of, size), self.case(of, size)) else {
                continue;
            };
            for share in SHARES {
                let rate = most * share;
                let once = (rate * time.as_secs_f64()) as usize + 1;
                let mut meter = Meter::open(case.clone(), once)?;
                for (contender, meter) in [(Contender::L2fwd, &mut l2fwd), (of, &mut meter)] {
                    let found = self.forward(&mut bench, meter, Pace::Rate(rate), time)?;
                    report.latencies.push(Latency {
                        contender,
                        of,
                        size,
                        share,
                        rate,
                        lost: found.sent.saturating_sub(found.arrived),
                        us: Times::of(&found.times[0]),
                    });
                }
            }
        }
        Ok(())
    }

    /// One call that sends more than a thousand others.
    pub(super) fn mice(
        &self,
        size: u16,
        time: Duration,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut bench = self.open_bench()?;
        for contender in [Contender::ClearUp, Contender::ClearDown, Contender::MppeUp] {
            let Some((way, work)) = work(contender).filter(|_| self.wanted(contender)) else {
                continue;
            };
            let mut case = Case::new(way, work, size, MICE + 1, self.macs);
            case.elephant = Some(0);
            case.order = (1..=MICE)
                .flat_map(|mouse| std::iter::repeat_n(0, ELEPHANT).chain([mouse]))
                .collect();
            let once = (self.time.as_secs_f64() * 1.3e6) as usize;
            let mut meter = Meter::open(case.clone(), once)?;
            let most = self
                .forward(&mut bench, &mut meter, Pace::Most, self.time)?
                .rate;
            let rate = most * SHARES[2];
            let once = (rate * time.as_secs_f64()) as usize + 1;
            let mut meter = Meter::open(case, once)?;
            let found = self.forward(&mut bench, &mut meter, Pace::Rate(rate), time)?;
            let [elephant, mice] = &found.times;
            report.mice.push(Mice {
                contender,
                size,
                most,
                rate,
                lost: found.sent.saturating_sub(found.arrived),
                packets: mice.len(),
                elephant_us: Times::of(elephant),
                mice_us: Times::of(mice),
            });
        }
        Ok(())
    }
}

fn cell(round: u16, contender: Contender, found: &Found) -> Cell {
    let cell = Cell {
        rate: found.rate,
        sent: found.sent,
        arrived: found.arrived,
        others: found.others,
        checked: found.checked,
    };
    tracing::info!(round, contender = contender.name(), ?cell, "measured");
    cell
}

/// What a contender does with packets, and on which way they are.
fn work(contender: Contender) -> Option<(Way, Work)> {
    let clear = Work::Tunnel { encrypted: false };
    let mppe = Work::Tunnel { encrypted: true };
    Some(match contender {
        Contender::L2fwd => (Way::Down, Work::Nothing),
        Contender::L2fwdCopy => (Way::Down, Work::Copy),
        Contender::L2fwdHeader => (Way::Down, Work::Header),
        Contender::ClearUp | Contender::TunUp => (Way::Up, clear),
        Contender::ClearDown | Contender::TunDown => (Way::Down, clear),
        Contender::MppeUp => (Way::Up, mppe),
        Contender::MppeDown => (Way::Down, mppe),
        Contender::Linux => (Way::Down, Work::Route),
        Contender::Cipher => return None,
    })
}
