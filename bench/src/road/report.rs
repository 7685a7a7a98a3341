//! What was found, for people and for programs.

use std::io::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Road;
use crate::dial::Outcome;
use crate::report::Origin;

/// Who forwards, and what.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// A bare AF_XDP loop
    L2fwd,
    /// The same, and each frame is copied
    L2fwdCopy,
    /// A bare AF_XDP loop with a header in front
    L2fwdHeader,
    /// turnpike without MPPE, out of tunnels
    ClearUp,
    /// turnpike without MPPE, into tunnels
    ClearDown,
    /// turnpike with MPPE-128, stateless, out of tunnels
    MppeUp,
    /// turnpike with MPPE-128, stateless, into tunnels
    MppeDown,
    /// MPPE's cipher alone
    Cipher,
    /// Linux' own forwarding
    Linux,
    /// A loop over a raw socket and a tun device, out of tunnels
    TunUp,
    /// A loop over a raw socket and a tun device, into tunnels
    TunDown,
}

impl Contender {
    /// All, in the order of their turns.
    pub const ALL: [Self; 11] = [
        Self::L2fwd,
        Self::L2fwdCopy,
        Self::ClearUp,
        Self::L2fwdHeader,
        Self::ClearDown,
        Self::Cipher,
        Self::MppeUp,
        Self::MppeDown,
        Self::Linux,
        Self::TunUp,
        Self::TunDown,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2fwd => "l2fwd",
            Self::L2fwdCopy => "l2fwd+copy",
            Self::L2fwdHeader => "l2fwd+header",
            Self::ClearUp => "turnpike clear, up",
            Self::ClearDown => "turnpike clear, down",
            Self::MppeUp => "turnpike MPPE-128, up",
            Self::MppeDown => "turnpike MPPE-128, down",
            Self::Cipher => "cipher alone",
            Self::Linux => "Linux' forwarding",
            Self::TunUp => "tun loop, up",
            Self::TunDown => "tun loop, down",
        }
    }

    /// Whether it goes without AF_XDP.
    pub(super) const fn is_peer(self) -> bool {
        matches!(self, Self::Linux | Self::TunUp | Self::TunDown)
    }
}

/// One turn.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    /// Packets per second that arrived.
    pub rate: f64,
    /// Packets that were made.
    pub sent: u64,
    /// Packets that arrived.
    pub arrived: u64,
    /// Other frames that arrived with them.
    pub others: u64,
    /// Packets that were compared with what they should be.
    pub checked: u64,
}

/// All turns of one contender with packets of one size.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Who.
    pub contender: Contender,
    /// Octets of inner packets.
    pub size: u16,
    /// The highest rate, in packets per second.
    pub best: f64,
    /// The median.
    pub median: f64,
    /// Packets that did not arrive, of all turns.
    pub lost: u64,
    /// Each turn.
    pub turns: Vec<Cell>,
}

/// A rate over another.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// Of what.
    pub name: String,
    /// Octets of inner packets.
    pub size: u16,
    /// By the best of both.
    pub best: f64,
    /// The median of the rounds' ratios.
    pub median: f64,
    /// What it should be at least, by the best.
    pub target: f64,
    /// Whether it is.
    pub met: bool,
}

/// What is lost at a rate that leaves time enough for every packet.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// Who.
    pub contender: Contender,
    /// Octets of inner packets.
    pub size: u16,
    /// Packets per second.
    pub rate: f64,
    /// Packets that were made.
    pub sent: u64,
    /// Packets that did not arrive.
    pub lost: u64,
}

/// How long packets took from when they were due, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// Half took less.
    pub p50: f64,
    /// 99 of 100 did.
    pub p99: f64,
    /// 999 of 1,000 did.
    pub p999: f64,
    /// All did.
    pub max: f64,
}

impl Times {
    pub(super) fn of(ns: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        Self {
            p50: us(ns.value_at_quantile(0.5)),
            p99: us(ns.value_at_quantile(0.99)),
            p999: us(ns.value_at_quantile(0.999)),
            max: us(ns.max()),
        }
    }
}

/// Times at one rate.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Whose packets.
    pub contender: Contender,
    /// Whose rate is the measure.
    pub of: Contender,
    /// Octets of inner packets.
    pub size: u16,
    /// Of the most that that one forwards.
    pub share: f64,
    /// Packets per second.
    pub rate: f64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Times of those that did.
    pub us: Times,
}

/// One call that sends nine times as much as a thousand others together.
#[derive(Clone, Debug, Serialize)]
pub struct Mice {
    /// Who forwards them.
    pub contender: Contender,
    /// Octets of inner packets.
    pub size: u16,
    /// The most that it forwards of them.
    pub most: f64,
    /// Packets per second.
    pub rate: f64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Packets of the thousand.
    pub packets: u64,
    /// Times of the one's packets.
    pub elephant_us: Times,
    /// Times of theirs.
    pub mice_us: Times,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    origin: Origin,
    /// Where XDP ran.
    pub(super) modes: String,
    calls: u16,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    pub(super) losses: Vec<Loss>,
    pub(super) latencies: Vec<Latency>,
    pub(super) mice: Vec<Mice>,
}

impl Report {
    pub(super) fn new(options: &Road, origin: Origin) -> Self {
        Self {
            origin,
            modes: String::new(),
            calls: options.calls,
            rows: Vec::new(),
            ratios: Vec::new(),
            losses: Vec::new(),
            latencies: Vec::new(),
            mice: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, contender: Contender, size: u16, cell: Cell) {
        let known = self
            .rows
            .iter()
            .position(|row| (row.contender, row.size) == (contender, size));
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row {
                contender,
                size,
                best: 0.0,
                median: 0.0,
                lost: 0,
                turns: Vec::new(),
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.lost += cell.sent.saturating_sub(cell.arrived);
        row.turns.push(cell);
        let rates: Vec<f64> = row.turns.iter().map(|cell| cell.rate).collect();
        row.best = rates.iter().copied().fold(0.0, f64::max);
        row.median = median(rates);
    }

    /// The highest rate of a contender.
    pub(super) fn best(&self, contender: Contender, size: u16) -> Option<f64> {
        self.row(contender, size).map(|row| row.best)
    }

    fn row(&self, contender: Contender, size: u16) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| (row.contender, row.size) == (contender, size))
    }

    /// A figure of some contenders' rates: by the best of each, and the median over rounds.
    fn figure(
        &self,
        size: u16,
        of: &[Contender],
        figure: impl Fn(&[f64]) -> f64,
    ) -> Option<(f64, f64)> {
        let rows: Vec<&Row> = of
            .iter()
            .map(|one| self.row(*one, size))
            .collect::<Option<_>>()?;
        let rounds = rows.iter().map(|row| row.turns.len()).min()?;
        let best = figure(&rows.iter().map(|row| row.best).collect::<Vec<_>>());
        let each = (0..rounds).map(|round| {
            let rates: Vec<f64> = rows.iter().map(|row| row.turns[round].rate).collect();
            figure(&rates)
        });
        Some((best, median(each.collect())))
    }

    fn compare(
        &mut self,
        name: &str,
        size: u16,
        of: &[Contender],
        target: f64,
        figure: impl Fn(&[f64]) -> f64,
    ) {
        if let Some((best, median)) = self.figure(size, of, figure) {
            self.ratios.push(Ratio {
                name: name.to_owned(),
                size,
                best,
                median,
                target,
                met: best >= target,
            });
        }
    }

    /// Works out the ratios.
    pub(super) fn judge(&mut self) {
        use Contender::{
            Cipher, ClearDown, ClearUp, L2fwd, L2fwdHeader, MppeDown, MppeUp, TunDown, TunUp,
        };
        self.rows.sort_by_key(|row| {
            let mut all = Contender::ALL.iter();
            (row.size, all.position(|one| *one == row.contender))
        });
        let mut sizes: Vec<u16> = self.rows.iter().map(|row| row.size).collect();
        sizes.dedup();
        for size in sizes {
            // With large packets copying counts, so those of the same length are what to compare with.
            let (bare, words) = if size < 400 {
                (L2fwd, "l2fwd")
            } else {
                (L2fwdHeader, "l2fwd+header")
            };
            for (one, way) in [(ClearUp, "up"), (ClearDown, "down")] {
                let name = format!("clear {way} / {words}");
                self.compare(&name, size, &[one, bare], 0.85, |r| r[0] / r[1]);
            }
            let target = if size < 400 { 3.0 } else { 2.7 };
            let four = [ClearUp, ClearDown, TunUp, TunDown];
            self.compare(
                "clear / tun loop, mean of both ways",
                size,
                &four,
                target,
                |r| (r[0] + r[1]) / (r[2] + r[3]),
            );
            for (one, way) in [(MppeUp, "up"), (MppeDown, "down")] {
                let name = format!("MPPE {way} / (1/(1/l2fwd + 1/cipher))");
                self.compare(&name, size, &[one, L2fwd, Cipher], 0.85, |r| {
                    r[0] * (1.0 / r[1] + 1.0 / r[2])
                });
            }
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        // What l2fwd loses nobody could have kept.
        let allowed = |loss: &Loss| {
            let mut all = self.losses.iter();
            let bare = all.find(|one| (one.contender, one.size) == (Contender::L2fwd, loss.size));
            bare.map_or(0, |bare| bare.lost)
        };
        if self.ratios.iter().all(|ratio| ratio.met)
            && self.losses.iter().all(|loss| loss.lost <= allowed(loss))
        {
            Outcome::AllGood
        } else {
            Outcome::SomeFailed
        }
    }

    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string(self)?;
        writeln!(std::io::stdout().lock(), "{text}")?;
        Ok(())
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let origin = &self.origin;
        writeln!(
            out,
            "{}, Linux {}; XDP: {}; {} calls",
            origin.cpu, origin.kernel, self.modes, self.calls
        )?;
        writeln!(
            out,
            "\n{:<26} {:>6} {:>9} {:>9} {:>9} {:>8}",
            "", "octets", "best M/s", "median", "Gbit/s", "lost"
        )?;
        for row in &self.rows {
            writeln!(
                out,
                "{:<26} {:>6} {:>9.3} {:>9.3} {:>9.2} {:>8}",
                row.contender.name(),
                row.size,
                row.best / 1e6,
                row.median / 1e6,
                row.best * f64::from(row.size) * 8e-9,
                row.lost
            )?;
        }
        writeln!(
            out,
            "\n{:<44} {:>6} {:>6} {:>6} {:>6}",
            "", "octets", "best", "median", "target"
        )?;
        for ratio in &self.ratios {
            writeln!(
                out,
                "{:<44} {:>6} {:>6.2} {:>6.2} {:>6.2}{}",
                ratio.name,
                ratio.size,
                ratio.best,
                ratio.median,
                ratio.target,
                if ratio.met { "" } else { "  missed" }
            )?;
        }
        self.print_later(&mut out)
    }

    /// What is measured at rates that are known by then.
    fn print_later(&self, out: &mut impl Write) -> anyhow::Result<()> {
        for loss in &self.losses {
            writeln!(
                out,
                "{}, {} octets: {} of {} lost at {:.3} M/s",
                loss.contender.name(),
                loss.size,
                loss.lost,
                loss.sent,
                loss.rate / 1e6
            )?;
        }
        if !self.latencies.is_empty() {
            writeln!(
                out,
                "\nMicroseconds from when packets were due, by the rate of the one that is named, of the most that it forwards"
            )?;
        }
        for one in &self.latencies {
            writeln!(
                out,
                "{:<24} {:>5} {:>3.0} % of {:<22} {:>6.3} M/s  p50 {:>7.1}  p99 {:>7.1}  p99.9 {:>7.1}  max {:>8.1}  lost {}",
                one.contender.name(),
                one.size,
                one.share * 100.0,
                one.of.name(),
                one.rate / 1e6,
                one.us.p50,
                one.us.p99,
                one.us.p999,
                one.us.max,
                one.lost
            )?;
        }
        for one in &self.mice {
            writeln!(
                out,
                "\n{}, one call with nine of ten packets beside a thousand: {:.3} of {:.3} M/s, {} lost, {} packets of the thousand",
                one.contender.name(),
                one.rate / 1e6,
                one.most / 1e6,
                one.lost,
                one.packets
            )?;
            for (name, us) in [("the one", one.elephant_us), ("the thousand", one.mice_us)] {
                writeln!(
                    out,
                    "  {name:<14} p50 {:>7.1}  p99 {:>7.1}  p99.9 {:>7.1}  max {:>8.1} us",
                    us.p50, us.p99, us.p999, us.max
                )?;
            }
        }
        Ok(())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}
