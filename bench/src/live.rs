//! What is seen on a terminal while a tool works: a bar, and below it how it goes.

use core::fmt::Write as _;
use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::spread::Spread;

/// How often it changes.
const SHOW: Duration = Duration::from_millis(250);

/// Values of a line of blocks.
const WIDTH: usize = 60;

/// The most causes that are named.
const CAUSES: usize = 3;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar with lines below it. Without a terminal nothing is written.
pub(crate) struct Live {
    pub(crate) bar: ProgressBar,
    shown: Option<Instant>,
}

impl Live {
    /// The bar's line is made by this template of indicatif's.
    pub(crate) fn new(bar: ProgressBar, template: &str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(&format!("{template}{{msg}}")) {
            bar.set_style(style);
        }
        Self { bar, shown: None }
    }

    /// Shows lines, if it is time and somebody sees them.
    pub(crate) fn show(&mut self, lines: impl FnOnce() -> Vec<String>) {
        if self.bar.is_hidden() || self.shown.is_some_and(|shown| shown.elapsed() < SHOW) {
            return;
        }
        self.shown = Some(Instant::now());
        self.bar.set_message(below(&lines()));
    }
}

/// Each line on one of its own, with its beginning in line with the bar.
fn below(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// What was so much in each second, the last on the right; the highest block is the most of those that are seen. The last
/// second is not over yet, and left out.
pub(crate) fn each_second(name: &str, values: impl DoubleEndedIterator<Item = u64>) -> String {
    let mut seen: Vec<u64> = values.rev().skip(1).take(WIDTH).collect();
    seen.reverse();
    let most = seen.iter().copied().max().unwrap_or(0);
    let mut line = format!("{name:<16} ");
    for value in &seen {
        let block = (value * 7).checked_div(most).unwrap_or(0) as usize;
        line.push(BLOCKS[block.min(7)]);
    }
    if let Some(last) = seen.last() {
        let _ = write!(line, " {last}, at most {most}");
    }
    line
}

/// How long something takes, once there is something.
pub(crate) fn times(name: &str, ms: &Spread) -> Option<String> {
    (ms.count > 0).then(|| {
        format!(
            "{name:<16} p50 {:>8.2} ms   p99 {:>8.2} ms   most {:>8.2} ms",
            ms.p50, ms.p99, ms.max
        )
    })
}

/// The most frequent causes.
pub(crate) fn causes(causes: &BTreeMap<String, u64>) -> Vec<String> {
    let mut all: Vec<(&String, &u64)> = causes.iter().collect();
    all.sort_by(|a, b| b.1.cmp(a.1));
    all.truncate(CAUSES);
    all.into_iter()
        .map(|(cause, count)| format!("{count} x {cause}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_blocks() {
        assert_eq!(
            each_second("set up", [0, 7, 14, 3].into_iter()),
            "set up           ▁▄█ 14, at most 14"
        );
        assert_eq!(each_second("set up", [5].into_iter()), "set up           ");
        assert!(each_second("none", [0, 0].into_iter()).ends_with("▁ 0, at most 0"));
        let many = each_second("many", (0..1000).chain([0]));
        assert_eq!(many.matches(BLOCKS).count(), WIDTH);
        assert!(many.ends_with("█ 999, at most 999"), "{many}");
    }

    #[test]
    fn the_most_frequent_causes_are_named() {
        let all = [("a", 1), ("b", 9), ("c", 2), ("d", 5)];
        let all = all.map(|(cause, count)| (cause.to_owned(), count));
        assert_eq!(causes(&all.into()), ["9 x b", "5 x d", "2 x c"]);
        assert!(causes(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn times_are_shown_when_there_are_some() {
        let mut ms = Spread {
            p50: 1.5,
            p99: 20.25,
            max: 300.0,
            ..Spread::default()
        };
        assert_eq!(times("lcp", &ms), None);
        ms.count = 3;
        assert_eq!(
            times("lcp", &ms).unwrap(),
            "lcp              p50     1.50 ms   p99    20.25 ms   most   300.00 ms"
        );
    }
}
