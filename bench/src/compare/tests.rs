//! Comparisons of runs that are made up, of which it is known what is different.

use clap::Parser;
use hdrhistogram::Histogram;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use statrs::distribution::{ContinuousCDF, Normal};

use super::verdict::{Scales, compare};
use super::*;
use crate::report::Origin;
use crate::report::sheet::{Better, Rate, Share, Times};
use crate::spread::Spread;

const SCALES: Scales = Scales {
    confidence: 95.0,
    least: 2.0,
};

/// What a made-up server does.
#[derive(Clone, Copy)]
struct Kind {
    /// Calls per second.
    rate: f64,
    /// Milliseconds that half take.
    median: f64,
    /// How many of a thousand fail.
    failing: u64,
    /// How much one run differs from the next, in its logarithm.
    between: f64,
}

const USUAL: Kind = Kind {
    rate: 400.0,
    median: 8.0,
    failing: 5,
    between: 0.0,
};

struct Chance(ChaCha8Rng);

impl Chance {
    fn share(&mut self) -> f64 {
        (self.0.next_u32() as f64 + 0.5) / (f64::from(u32::MAX) + 1.0)
    }

    fn normal(&mut self) -> f64 {
        Normal::standard().inverse_cdf(self.share())
    }
}

/// A run of twenty seconds.
fn run_of(kind: Kind, seed: u64) -> Sheet {
    let mut chance = Chance(ChaCha8Rng::seed_from_u64(seed));
    let luck = (kind.between * chance.normal()).exp();
    // A second that is slow makes the next one slow as well.
    let mut drift = 0.0;
    let each_second: Vec<f64> = (0..20)
        .map(|_| {
            drift = 0.5 * drift + 0.05 * chance.normal();
            (kind.rate / luck * (1.0 + drift)).max(0.0).round()
        })
        .collect();
    let calls = each_second.iter().sum::<f64>() as u64;
    let mut times = |name: &str, median: f64, principal| {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).unwrap();
        for _ in 0..calls {
            let ms = median * luck * (0.5 * chance.normal()).exp();
            histogram.record((ms * 1e3) as u64).unwrap();
        }
        Times {
            name: name.to_owned(),
            ms: Spread::of(&histogram, 1e3),
            principal,
        }
    };
    let times = vec![
        times("lcp", kind.median / 4.0, false),
        times("network", kind.median / 2.0, false),
        times("all", kind.median, true),
    ];
    let failed = (0..calls)
        .filter(|_| chance.share() * 1e3 < kind.failing as f64)
        .count() as u64;
    Sheet {
        origin: Origin {
            tool: "storm".to_owned(),
            ..Origin::default()
        },
        title: "made up".to_owned(),
        rates: vec![Rate {
            name: "calls set up".to_owned(),
            mean: calls as f64 / 20.0,
            each_second,
        }],
        times,
        shares: vec![Share {
            name: "calls that did not come up".to_owned(),
            part: failed,
            of: calls,
            better: Better::Less,
        }],
        ..Sheet::default()
    }
}

fn side(kind: Kind, runs: u64, seed: u64) -> Vec<Sheet> {
    (0..runs)
        .map(|run| run_of(kind, seed * 1_000 + run))
        .collect()
}

fn verdict<'a>(comparison: &'a Comparison, name: &str) -> &'a Figure {
    let mut figures = comparison.figures.iter();
    figures
        .find(|figure| figure.name == name)
        .unwrap_or_else(|| panic!("no {name}: {}", comparison.text()))
}

#[test]
fn the_same_is_within_noise() {
    // Runs that differ need to be repeated; those that do not may be alone.
    for (kind, runs) in [
        (USUAL, 1),
        (USUAL, 2),
        (
            Kind {
                between: 0.05,
                ..USUAL
            },
            4,
        ),
    ] {
        const TRIALS: u64 = 60;
        let still = (0..TRIALS).filter(|trial| {
            let before = side(kind, runs, 2 * trial);
            let after = side(kind, runs, 2 * trial + 1);
            let comparison = compare(&before, &after, SCALES);
            assert_eq!(comparison.figures.len(), 10, "{}", comparison.text());
            // All figures of a comparison, not most of them.
            let mut verdicts = comparison.figures.iter().map(|figure| figure.verdict);
            verdicts.all(|verdict| matches!(verdict, Verdict::WithinNoise | Verdict::TooFew))
        });
        let still = still.count() as u64;
        assert!(still * 10 >= TRIALS * 9, "{runs} runs: {still} of {TRIALS}");
    }
}

#[test]
fn a_fifth_more_is_found() {
    let slow = Kind {
        rate: USUAL.rate / 1.2,
        median: USUAL.median * 1.2,
        failing: 5,
        between: 0.0,
    };
    // With fewer than five runs a side, chance is too wide for a fifth.
    for runs in [1, 5] {
        for trial in 0..15 {
            let usual = side(USUAL, runs, 100 + trial);
            let slow = side(slow, runs, 200 + trial);
            for (before, after, expected) in [
                (&usual, &slow, Verdict::Slower),
                (&slow, &usual, Verdict::Faster),
            ] {
                let comparison = compare(before, after, SCALES);
                for name in ["calls set up per second", "all p50, ms", "lcp p50, ms"] {
                    let figure = verdict(&comparison, name);
                    assert_eq!(figure.verdict, expected, "{}", comparison.text());
                    assert_eq!(figure.between_runs, runs >= 3);
                }
                assert_eq!(comparison.worse() > 0, expected == Verdict::Slower);
            }
        }
    }
}

#[test]
fn runs_that_vary_are_not_taken_for_a_change() {
    // One run of each says that all is different; three know better.
    let kind = Kind {
        between: 0.2,
        ..USUAL
    };
    let changed = |runs: u64| {
        let trials = (0..10).filter(|trial| {
            let before = side(kind, runs, 300 + trial);
            let after = side(kind, runs, 400 + trial);
            let comparison = compare(&before, &after, SCALES);
            verdict(&comparison, "all p50, ms").verdict != Verdict::WithinNoise
        });
        trials.count()
    };
    assert!(changed(1) >= 5);
    assert!(changed(3) <= 1);
}

#[test]
fn failures_are_compared_too() {
    let bad = Kind {
        failing: 50,
        ..USUAL
    };
    let comparison = compare(&side(USUAL, 1, 1), &side(bad, 1, 2), SCALES);
    let figure = verdict(&comparison, "calls that did not come up, %");
    assert_eq!(figure.verdict, Verdict::Worse, "{}", comparison.text());
    let same = compare(&side(bad, 1, 1), &side(bad, 1, 2), SCALES);
    let figure = verdict(&same, "calls that did not come up, %");
    assert_eq!(figure.verdict, Verdict::WithinNoise, "{}", same.text());
}

#[test]
fn what_is_too_little_or_does_not_matter_is_said_to_be_so() {
    let mut short = side(USUAL, 1, 1);
    short[0].rates[0].each_second.truncate(3);
    short[0].times[2].ms = Spread {
        count: 3,
        buckets: vec![(1.0, 3)],
        ..Spread::default()
    };
    // Without a single call there is no time to compare.
    short[0].times[1].ms = Spread::default();
    let comparison = compare(&short, &side(USUAL, 1, 2), SCALES);
    for name in ["calls set up per second", "all p50, ms"] {
        let figure = verdict(&comparison, name);
        assert_eq!(figure.verdict, Verdict::TooFew);
        assert_eq!(figure.bounds, None);
    }
    assert!(
        comparison
            .figures
            .iter()
            .all(|figure| !figure.name.starts_with("network"))
    );
    let slow = Kind {
        median: USUAL.median * 1.2,
        ..USUAL
    };
    let generous = Scales {
        least: 30.0,
        ..SCALES
    };
    let comparison = compare(&side(USUAL, 1, 1), &side(slow, 1, 2), generous);
    assert_eq!(
        verdict(&comparison, "all p50, ms").verdict,
        Verdict::WithinNoise
    );
}

#[test]
fn what_else_is_different_is_said() {
    let before = side(USUAL, 1, 1);
    let mut after = before.clone();
    after[0].origin.kernel = "6.99".to_owned();
    after[0].origin.options.insert("rate".into(), "5".into());
    after[0].origin.options.insert("json".into(), "true".into());
    let notes = compare(&before, &after, SCALES).notes;
    assert_eq!(
        notes[..2],
        ["Linux: nothing, then 6.99", "--rate: nothing, then 5"]
    );
    assert!(
        notes.len() == 3 && notes[2].contains("from run to run"),
        "{notes:?}"
    );
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    compare: Compare,
}

#[test]
fn two_files_or_two_lists() {
    let parse =
        |words: &[&str]| Cli::try_parse_from([&["x"], words].concat()).map(|cli| cli.compare);
    assert_eq!(parse(&["a", "b"]).unwrap().files.len(), 2);
    let lists = parse(&["--before", "a", "b", "--after", "c"]).unwrap();
    assert_eq!((lists.before.len(), lists.after.len()), (2, 1));
    for words in [
        &["a"][..],
        &[],
        &["--before", "a"],
        &["a", "b", "--after", "c"],
        &["a", "b", "--confidence", "100"],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn files_of_a_tool_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let usual: serde_json::Value =
        serde_json::from_str(include_str!("../report/storm.json")).unwrap();
    let mut worse = usual.clone();
    worse["failed"] = 150.into();
    let write = |name: &str, report: &serde_json::Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, report.to_string()).unwrap();
        path
    };
    let (usual, worse) = (write("usual", &usual), write("worse", &worse));
    let worse_figures = |before: &PathBuf, after: &PathBuf| {
        let words = ["x".as_ref(), before.as_os_str(), after.as_os_str()];
        comparison(&Cli::parse_from(words).compare).unwrap().worse()
    };
    assert_eq!(worse_figures(&usual, &worse), 1);
    assert_eq!(worse_figures(&worse, &usual), 0);
    assert_eq!(worse_figures(&usual, &usual), 0);
}
