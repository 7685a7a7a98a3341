//! Two sides, figure by figure.

use core::fmt::Write as _;

use serde::Serialize;

use super::interval::{
    self, Estimate, Mean, difference_of_means, difference_of_shares, ratio_of_means,
};
use crate::report::sheet::{Better, Sheet, Times, three};

/// Quantiles that are compared; of times that matter most there is [`OF_PRINCIPAL`] as well.
const QUANTILES: [(f64, &str); 2] = [(0.5, "p50"), (0.99, "p99")];
const OF_PRINCIPAL: [(f64, &str); 2] = [(0.9, "p90"), (0.999, "p99.9")];

/// From this many runs on each side the variation between them says how sure a figure is.
const RUNS: usize = 3;

/// What became of a figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better: more in a second, or in less time.
    Faster,
    /// Worse.
    Slower,
    /// Of a share: better.
    Better,
    /// Of a share: worse.
    Worse,
    /// No change that is more than chance, or than what is too little to matter.
    WithinNoise,
    /// There is too little to tell.
    TooFew,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Better => "better",
            Self::Worse => "worse",
            Self::WithinNoise => "within noise",
            Self::TooFew => "too few to tell",
        }
    }

    /// Whether it is for the worse.
    pub fn is_worse(self) -> bool {
        matches!(self, Self::Slower | Self::Worse)
    }
}

/// Between what a change lies.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Bounds {
    /// The least, in per cent (of a share: in points).
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// One figure of both sides.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// What, with its unit.
    pub name: String,
    /// Before.
    pub before: f64,
    /// After.
    pub after: f64,
    /// By how much it changed, in per cent of before (of a share: in points).
    pub change: Option<f64>,
    /// Between what the change lies at the confidence that was asked for, all figures together.
    pub bounds: Option<Bounds>,
    /// Whether it varies between runs, or within one, that this was seen from.
    pub between_runs: bool,
    /// What became of it.
    pub verdict: Verdict,
}

/// A comparison.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// Always `compare`.
    pub tool: &'static str,
    /// How sure all figures together are, in per cent.
    pub confidence: f64,
    /// What else is different between the sides, or within one.
    pub notes: Vec<String>,
    /// All figures.
    pub figures: Vec<Figure>,
}

/// How to judge.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Scales {
    /// In per cent, over all figures.
    pub(super) confidence: f64,
    /// A change below this does not matter, in per cent.
    pub(super) least: f64,
}

/// Compares all figures that both sides have.
pub(super) fn compare(before: &[Sheet], after: &[Sheet], scales: Scales) -> Comparison {
    let jobs = jobs(before, after);
    // Among many figures one is off by chance; so each has to be surer than all together.
    let each = 1.0 - (1.0 - scales.confidence / 100.0) / jobs.len().max(1) as f64;
    let figures = jobs
        .iter()
        .map(|job| job.judge(before, after, each, scales.least))
        .collect();
    Comparison {
        tool: "compare",
        confidence: scales.confidence,
        notes: notes(before, after),
        figures,
    }
}

/// A figure to look at.
enum Job {
    Rate(String),
    Quantile(String, f64, &'static str),
    Share(String, Better),
}

fn jobs(before: &[Sheet], after: &[Sheet]) -> Vec<Job> {
    let Some(first) = before.first() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for rate in &first.rates {
        all.push(Job::Rate(rate.name.clone()));
    }
    for times in &first.times {
        let more = if times.principal {
            &OF_PRINCIPAL[..]
        } else {
            &[]
        };
        let mut quantiles = [&QUANTILES[..], more].concat();
        quantiles.sort_by(|a, b| a.0.total_cmp(&b.0));
        let jobs = quantiles
            .into_iter()
            .map(|(quantile, name)| Job::Quantile(times.name.clone(), quantile, name));
        all.extend(jobs);
    }
    for share in &first.shares {
        all.push(Job::Share(share.name.clone(), share.better));
    }
    let sheets = || before.iter().chain(after);
    all.retain(|job| sheets().all(|sheet| job.is_in(sheet)));
    all
}

fn times<'a>(sheet: &'a Sheet, name: &str) -> Option<&'a Times> {
    let mut all = sheet.times.iter();
    all.find(|times| times.name == name && !times.ms.buckets.is_empty())
}

impl Job {
    fn is_in(&self, sheet: &Sheet) -> bool {
        match self {
            Self::Rate(name) => sheet.rates.iter().any(|rate| rate.name == *name),
            Self::Quantile(name, ..) => times(sheet, name).is_some(),
            Self::Share(name, _) => sheet.shares.iter().any(|share| share.name == *name),
        }
    }

    fn judge(&self, before: &[Sheet], after: &[Sheet], confidence: f64, least: f64) -> Figure {
        let between_runs = before.len() >= RUNS && after.len() >= RUNS;
        match self {
            Self::Rate(name) => {
                let figures = |side: &[Sheet]| -> Vec<f64> {
                    rates(side, name).map(|rate| rate.mean).collect()
                };
                let mean = |side: &[Sheet]| -> Option<Mean> {
                    if between_runs {
                        return interval::over_runs(&figures(side));
                    }
                    let runs: Vec<&[f64]> =
                        rates(side, name).map(|rate| &*rate.each_second).collect();
                    interval::over_time(&runs)
                };
                let change = mean(before)
                    .zip(mean(after))
                    .map(|(before, after)| ratio_of_means(before, after, confidence));
                Figure {
                    between_runs,
                    ..Figure::ratio(
                        format!("{name} per second"),
                        [average(&figures(before)), average(&figures(after))],
                        change,
                        Better::More,
                        least,
                    )
                }
            }
            Self::Quantile(name, quantile, called) => {
                let value = |side: &[Sheet]| {
                    let merged = merged(side, name);
                    let n: u64 = merged.iter().map(|(_, count)| count).sum();
                    value_at(&merged, n, *quantile)
                };
                let change = if between_runs {
                    let figures =
                        |side: &[Sheet]| -> Vec<f64> { side.chunks(1).map(value).collect() };
                    interval::over_runs(&figures(before))
                        .zip(interval::over_runs(&figures(after)))
                        .map(|(before, after)| ratio_of_means(before, after, confidence))
                } else {
                    let estimate = |side: &[Sheet]| {
                        interval::quantile(&merged(side, name), *quantile, confidence)
                    };
                    estimate(before)
                        .zip(estimate(after))
                        .and_then(|(before, after)| interval::ratio(before, after))
                };
                Figure {
                    between_runs,
                    ..Figure::ratio(
                        format!("{name} {called}, ms"),
                        [value(before), value(after)],
                        change,
                        Better::Less,
                        least,
                    )
                }
            }
            Self::Share(name, better) => {
                let counts = |side: &[Sheet]| {
                    shares(side, name).fold((0, 0), |sum, (part, of)| (sum.0 + part, sum.1 + of))
                };
                let mean = |side: &[Sheet]| {
                    let each: Vec<f64> = shares(side, name)
                        .map(|(part, of)| part as f64 / of.max(1) as f64)
                        .collect();
                    interval::shares_over_runs(&each)
                };
                let change = if between_runs {
                    mean(before)
                        .zip(mean(after))
                        .map(|(before, after)| difference_of_means(before, after, confidence))
                } else {
                    difference_of_shares(counts(before), counts(after), confidence)
                };
                Figure {
                    between_runs,
                    ..Figure::share(
                        format!("{name}, %"),
                        [counts(before), counts(after)],
                        change,
                        *better,
                    )
                }
            }
        }
    }
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn rates<'a>(
    side: &'a [Sheet],
    name: &str,
) -> impl Iterator<Item = &'a crate::report::sheet::Rate> {
    side.iter()
        .flat_map(|sheet| &sheet.rates)
        .filter(move |rate| rate.name == name)
}

fn shares(side: &[Sheet], name: &str) -> impl Iterator<Item = (u64, u64)> {
    side.iter()
        .flat_map(|sheet| &sheet.shares)
        .filter(move |share| share.name == name)
        .map(|share| (share.part, share.of))
}

/// All runs of a side in one histogram.
fn merged(side: &[Sheet], name: &str) -> Vec<(f64, u64)> {
    let mut all: Vec<(f64, u64)> = side
        .iter()
        .filter_map(|sheet| times(sheet, name))
        .flat_map(|times| times.ms.buckets.iter().copied())
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

fn value_at(buckets: &[(f64, u64)], n: u64, quantile: f64) -> f64 {
    let rank = (n as f64 * quantile).ceil();
    let mut below = 0;
    let found = buckets.iter().find(|(_, count)| {
        below += count;
        below as f64 >= rank
    });
    found.map_or(0.0, |(value, _)| *value)
}

impl Figure {
    /// A change is one where chance cannot explain it, and where it is large enough to matter.
    fn ratio(
        name: String,
        [before, after]: [f64; 2],
        change: Option<Estimate>,
        better: Better,
        least: f64,
    ) -> Self {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let verdict = match change {
            None => Verdict::TooFew,
            Some(change) if change.low <= 1.0 && change.high >= 1.0 => Verdict::WithinNoise,
            Some(change) if percent(change.value).abs() < least => Verdict::WithinNoise,
            Some(change) if (change.value > 1.0) == (better == Better::More) => Verdict::Faster,
            Some(_) => Verdict::Slower,
        };
        Self {
            name,
            before,
            after,
            change: (before > 0.0).then(|| percent(after / before)),
            bounds: change.map(|change| Bounds {
                low: percent(change.low),
                high: percent(change.high),
            }),
            between_runs: false,
            verdict,
        }
    }

    fn share(
        name: String,
        counts: [(u64, u64); 2],
        change: Option<Estimate>,
        better: Better,
    ) -> Self {
        let [before, after] = counts.map(|(part, of)| 100.0 * part as f64 / of.max(1) as f64);
        let verdict = match change {
            None => Verdict::TooFew,
            Some(change) if change.low <= 0.0 && change.high >= 0.0 => Verdict::WithinNoise,
            Some(change) if (change.value > 0.0) == (better == Better::More) => Verdict::Better,
            Some(_) => Verdict::Worse,
        };
        Self {
            name,
            before,
            after,
            change: Some(after - before),
            bounds: change.map(|change| Bounds {
                low: 100.0 * change.low,
                high: 100.0 * change.high,
            }),
            between_runs: false,
            verdict,
        }
    }
}

/// What besides the figures is not the same everywhere: who reads them has to know.
fn notes(before: &[Sheet], after: &[Sheet]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differ = |what: &str, of: &dyn Fn(&Sheet) -> String| {
        let mut sides = [before, after].map(|side| {
            let mut values: Vec<String> = side.iter().map(of).collect();
            values.sort();
            values.dedup();
            values
        });
        if sides[0] != sides[1] || sides[0].len() > 1 {
            for value in sides.iter_mut().flatten() {
                if value.is_empty() {
                    "nothing".clone_into(value);
                }
            }
            let [before, after] = sides.map(|side| side.join(" and "));
            notes.push(format!("{what}: {before}, then {after}"));
        }
    };
    differ("processor", &|sheet| {
        format!("{} x {}", sheet.origin.cpus, sheet.origin.cpu)
    });
    differ("Linux", &|sheet| sheet.origin.kernel.clone());
    differ("version", &|sheet| sheet.origin.version.clone());
    let sheets = || before.iter().chain(after);
    let names: std::collections::BTreeSet<&String> = sheets()
        .flat_map(|sheet| sheet.origin.options.keys())
        .filter(|name| !["json", "html"].contains(&name.as_str()))
        .collect();
    for name in names {
        differ(&format!("--{}", name.replace('_', "-")), &|sheet| {
            sheet.origin.options.get(name).cloned().unwrap_or_default()
        });
    }
    if before.len() < RUNS || after.len() < RUNS {
        notes.push(format!(
            "what varies from run to run is not known here: give {RUNS} reports or more of each side (--before, --after)"
        ));
    }
    notes
}

impl Comparison {
    /// How many figures are for the worse.
    pub fn worse(&self) -> usize {
        let verdicts = self.figures.iter().map(|figure| figure.verdict);
        verdicts.filter(|verdict| verdict.is_worse()).count()
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let names = self.figures.iter().map(|figure| figure.name.len());
        let wide = names.max().unwrap_or(0);
        let mut text = format!(
            "{:<wide$}{:>10}{:>10}{:>9}  lies between\n",
            "", "before", "after", "change"
        );
        for figure in &self.figures {
            let signed = |number: f64| format!("{number:+.1}");
            let change = figure.change.map_or_else(|| "-".to_owned(), signed);
            let bounds = figure.bounds.map_or_else(String::new, |bounds| {
                format!("{} and {}", signed(bounds.low), signed(bounds.high))
            });
            let _ = writeln!(
                text,
                "{:<wide$}{:>10}{:>10}{change:>9}  {bounds:<17}  {}",
                figure.name,
                three(figure.before),
                three(figure.after),
                figure.verdict.words()
            );
        }
        let _ = writeln!(
            text,
            "\nchanges in per cent, of shares in points; {} % sure of all together",
            self.confidence
        );
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }
}
