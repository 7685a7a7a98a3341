//! A report of any tool, in the terms in which reports are shown and compared.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::origin::Origin;
use crate::spread::Spread;
use crate::storm;

/// Which way a figure gets better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// Upwards.
    #[allow(dead_code, reason = "no tool has such a share yet")]
    More,
    /// Downwards.
    Less,
}

/// Something counted second by second.
#[derive(Clone, PartialEq, Debug)]
pub struct Rate {
    /// What of, such as `calls set up`.
    pub name: String,
    /// In each whole second, from the first on.
    pub each_second: Vec<f64>,
    /// Per second, over the whole time.
    pub mean: f64,
}

/// How long something took.
#[derive(Clone, PartialEq, Debug)]
pub struct Times {
    /// What, such as `authentication`.
    pub name: String,
    /// In milliseconds.
    pub ms: Spread,
    /// The sum of the others.
    pub whole: bool,
}

/// How many of how many.
#[derive(Clone, PartialEq, Debug)]
pub struct Share {
    /// What they have in common, such as `calls that did not come up`.
    pub name: String,
    /// So many have it.
    pub part: u64,
    /// Of so many.
    pub of: u64,
    /// Whether it had better be more or less.
    pub better: Better,
}

/// A report.
#[derive(Clone, PartialEq, Debug)]
pub struct Sheet {
    /// Where it comes from.
    pub origin: Origin,
    /// What was done to whom.
    pub title: String,
    /// Names and values that are worth a place at the top.
    pub summary: Vec<(String, String)>,
    /// Counted second by second.
    pub rates: Vec<Rate>,
    /// How long things took, in the order in which they come.
    pub times: Vec<Times>,
    /// How many of how many.
    pub shares: Vec<Share>,
    /// What went wrong, in words, and how often.
    pub reasons: BTreeMap<String, u64>,
}

impl Sheet {
    /// Reads a file that one of the tools wrote with `--json`.
    ///
    /// # Errors
    /// When it cannot be read, or is no such file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// From the text of such a file.
    ///
    /// # Errors
    /// When it is not JSON, or of none of the tools whose reports are known here.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let value: Value =
            serde_json::from_str(text).context("this is not one JSON object, as --json prints")?;
        match value.get("tool").and_then(Value::as_str) {
            Some("storm") => {
                let report: storm::report::Report = serde_json::from_value(value)
                    .context("this does not have all that storm reports")?;
                Ok(Self::from(&report))
            }
            Some(other) => anyhow::bail!("{other:?} is none of the tools known here: storm"),
            None => anyhow::bail!("it does not say what it is of (there is no \"tool\")"),
        }
    }
}

impl From<&storm::report::Report> for Sheet {
    fn from(report: &storm::report::Report) -> Self {
        // What is begun of the last second says nothing about a whole one.
        let whole = report.seconds as usize;
        let mut each_second: Vec<f64> = report.each_second.iter().map(|&n| n as f64).collect();
        each_second.resize(whole, 0.0);
        let phases = report.phases.iter().map(|one| Times {
            name: one.phase.name().to_owned(),
            ms: one.ms.clone(),
            whole: false,
        });
        let all = Times {
            name: "all".to_owned(),
            ms: report.total_ms.clone(),
            whole: true,
        };
        let share = |name: &str, part, of| Share {
            name: name.to_owned(),
            part,
            of,
            better: Better::Less,
        };
        let ms = &report.total_ms;
        let mut summary = vec![
            ("calls set up per second".to_owned(), three(report.rate)),
            ("calls that came up".to_owned(), report.up.to_string()),
            ("did not".to_owned(), report.failed.to_string()),
            ("lost later".to_owned(), report.lost.to_string()),
            ("half took, ms".to_owned(), three(ms.p50)),
            ("99 of 100 took, ms".to_owned(), three(ms.p99)),
            ("seconds".to_owned(), three(report.seconds)),
        ];
        for (name, count) in [
            ("begun late: --outstanding", report.held_back),
            ("packets without room", report.refused),
        ] {
            if count > 0 {
                summary.push((name.to_owned(), count.to_string()));
            }
        }
        Self {
            origin: report.origin.clone(),
            title: format!("storm on {}", report.server),
            summary,
            rates: vec![Rate {
                name: "calls set up".to_owned(),
                each_second,
                mean: report.rate,
            }],
            times: phases.chain([all]).collect(),
            shares: vec![
                share("calls that did not come up", report.failed, report.begun),
                share("calls lost", report.lost, report.up),
            ],
            reasons: report.failures.clone(),
        }
    }
}

/// A number with three significant digits, or more where it has more before the point.
pub fn three(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let before = number.abs().log10().floor() as i32 + 1;
    let decimals = usize::try_from(3 - before).unwrap_or(0).min(6);
    format!("{number:.decimals$}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What `storm --json` prints, with less of everything.
    pub(crate) const STORM: &str = include_str!("storm.json");

    #[test]
    fn a_storm_is_read() {
        let sheet = Sheet::parse(STORM).unwrap();
        assert_eq!(sheet.title, "storm on 10.7.0.1");
        assert_eq!(sheet.origin.options["rate"], "100");
        let [rate] = &sheet.rates[..] else {
            panic!("{:?}", sheet.rates);
        };
        // 4.9 s: four whole seconds, in the last of which nothing came up.
        assert_eq!(rate.each_second, [90.0, 101.0, 99.0, 0.0]);
        let names: Vec<&str> = sheet.times.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["lcp", "authentication", "all"]);
        assert_eq!((sheet.shares[0].part, sheet.shares[0].of), (3, 293));
        assert_eq!(sheet.reasons.len(), 1);
    }

    #[test]
    fn what_is_no_report_is_refused_in_words() {
        for (text, words) in [
            ("", "not one JSON object"),
            ("{}", "no \"tool\""),
            (r#"{"tool":"hammer"}"#, "\"hammer\" is none of the tools"),
            (r#"{"tool":"storm"}"#, "all that storm reports"),
        ] {
            let error = format!("{:#}", Sheet::parse(text).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [0.0, 0.012_345, 1.2345, 12.345, 1234.5, 9.999e-9];
        let texts: Vec<String> = numbers.into_iter().map(three).collect();
        assert_eq!(texts, ["0", "0.0123", "1.23", "12.3", "1234", "0.000000"]);
    }
}
