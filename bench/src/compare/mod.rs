//! `turnpike-bench compare`: what changed from one report to another, and whether it is more than noise.
//!
//! Of one report a side, rates are as sure as their seconds vary, and quantiles as order statistics say. What varies from run
//! to run does not show in one run; from three reports a side on, it is what counts, and nothing else.

mod interval;
mod verdict;

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

pub use verdict::{Bounds, Comparison, Figure, Verdict};

use crate::dial::Outcome;
use crate::report::sheet::Sheet;

/// Say what changed between reports, and whether it is more than noise
///
/// Reports are what a tool printed with --json. Three or more of each side, better five, say more than one: what varies
/// from run to run does not show within a run.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  turnpike-bench compare old.json new.json
  turnpike-bench compare --before old1.json old2.json old3.json --after new1.json new2.json new3.json
  turnpike-bench compare old.json new.json --fail-on-worse --least 5
      for a test: fails when something is worse by 5 % or more

Exit status: 0 compared; 1 something is worse, with --fail-on-worse; 2 a report cannot be read.")]
pub struct Compare {
    /// Two reports: before and after
    #[arg(value_name = "FILE.json", num_args = 2, conflicts_with_all = ["before", "after"])]
    #[arg(required_unless_present_all = ["before", "after"])]
    pub files: Vec<PathBuf>,
    /// Reports from before
    #[arg(long, value_name = "FILE.json", num_args = 1.., requires = "after")]
    pub before: Vec<PathBuf>,
    /// Reports from after
    #[arg(long, value_name = "FILE.json", num_args = 1.., requires = "before")]
    pub after: Vec<PathBuf>,
    /// How sure to be that no change is reported where there is none, in per cent, over all figures together
    #[arg(long, default_value = "95", value_parser = confidence)]
    pub confidence: f64,
    /// A change below so many per cent does not matter (shares: each that is sure does)
    #[arg(long, default_value = "2", value_parser = percent)]
    pub least: f64,
    /// Exit status 1 when a figure is worse
    #[arg(long)]
    pub fail_on_worse: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| "not a number from 0 on".to_owned())
}

fn confidence(text: &str) -> Result<f64, String> {
    percent(text)
        .ok()
        .filter(|number| (50.0..=99.99).contains(number))
        .ok_or_else(|| "not a number from 50 to 99.99".to_owned())
}

/// Compares and prints.
///
/// # Errors
/// When a report cannot be read, or they are of different tools.
pub fn run(options: &Compare) -> anyhow::Result<Outcome> {
    let comparison = comparison(options)?;
    let text = if options.json {
        serde_json::to_string(&comparison)? + "\n"
    } else {
        comparison.text()
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(if options.fail_on_worse && comparison.worse() > 0 {
        Outcome::SomeFailed
    } else {
        Outcome::AllGood
    })
}

fn comparison(options: &Compare) -> anyhow::Result<Comparison> {
    let (before, after) = match &options.files[..] {
        [before, after] => (core::slice::from_ref(before), core::slice::from_ref(after)),
        _ => (&options.before[..], &options.after[..]),
    };
    let read = |files: &[PathBuf]| -> anyhow::Result<Vec<Sheet>> {
        files.iter().map(|file| Sheet::read(file)).collect()
    };
    let (before, after) = (read(before)?, read(after)?);
    let mut tools: Vec<&str> = before
        .iter()
        .chain(&after)
        .map(|sheet| &*sheet.origin.tool)
        .collect();
    tools.dedup();
    anyhow::ensure!(
        tools.len() == 1,
        "reports of {} cannot be compared",
        tools.join(" and ")
    );
    let scales = verdict::Scales {
        confidence: options.confidence,
        least: options.least,
    };
    let comparison = verdict::compare(&before, &after, scales);
    anyhow::ensure!(
        !comparison.figures.is_empty(),
        "these reports have no figure in common that can be compared"
    );
    Ok(comparison)
}

#[cfg(test)]
mod tests;
