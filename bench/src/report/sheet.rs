//! A report of any tool, in the terms in which reports are shown and compared.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::origin::Origin;
use super::tools;
use crate::spread::Spread;

/// Which way a figure gets better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// Upwards.
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
    /// One of those that matter most: the sum of the others, or what the tool is there to measure.
    pub principal: bool,
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

/// Something that has a value in each second.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// What.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// Whether small and large ones are to be seen at once.
    pub logarithmic: bool,
    /// What each line is, and its values.
    pub lines: Vec<(&'static str, Vec<f64>)>,
}

/// Figures side by side, which belong to no time.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Chart {
    /// What of.
    pub name: String,
    /// In what.
    pub unit: String,
    /// What the groups of bars are, such as sizes of packets.
    pub groups: Vec<String>,
    /// What the bars of a group are, and their heights, one for each group; 0 where there is none.
    pub bars: Vec<(String, Vec<f64>)>,
    /// A height to compare with.
    #[serde(default)]
    pub level: Option<f64>,
}

/// Figures that are neither drawn nor compared.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    /// What of.
    pub name: &'static str,
    /// The heads of its columns.
    pub heads: Vec<&'static str>,
    /// As many cells each.
    pub rows: Vec<Vec<String>>,
}

/// A report.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Sheet {
    /// Where it comes from.
    pub origin: Origin,
    /// What was done to whom.
    pub title: String,
    /// Names and values that are worth a place at the top.
    pub summary: Vec<(String, String)>,
    /// Counted second by second.
    pub rates: Vec<Rate>,
    /// Second by second, but not counted.
    pub series: Vec<Series>,
    /// How long things took, in the order in which they come.
    pub times: Vec<Times>,
    /// How many of how many.
    pub shares: Vec<Share>,
    /// Side by side.
    pub charts: Vec<Chart>,
    /// What else there is to say.
    pub tables: Vec<Table>,
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
        tools::sheet(value)
    }

    /// Of what a tool is about to print.
    pub(crate) fn of(report: &impl Serialize) -> anyhow::Result<Self> {
        tools::sheet(serde_json::to_value(report)?)
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
    fn what_is_no_report_is_refused_in_words() {
        for (text, words) in [
            ("", "not one JSON object"),
            ("{}", "no \"tool\""),
            (r#"{"tool":"hammer"}"#, "\"hammer\" is none of the tools"),
            (
                r#"{"tool":"storm"}"#,
                "all that storm reports: missing field",
            ),
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
