//! A report as one HTML page that needs nothing else: no network, no script.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::origin::Origin;
use super::plot::{self, Axis, COLOURS, Mark, Plot, Scale};
use super::sheet::{Chart, Rate, Series, Sheet, Table, Times, three};
use crate::spread::Spread;

/// Most bars of a histogram.
const BARS: f64 = 48.0;

/// Most bars in a factor of two: buckets are no finer than 1 %.
const BARS_PER_OCTAVE: f64 = 16.0;

/// The page.
pub(super) fn page(sheet: &Sheet) -> String {
    let origin = &sheet.origin;
    let plots: Vec<Plot> = plots(sheet);
    let (charts, rest) = plots.split_at(sheet.charts.len());
    let (over_time, histograms) = rest.split_at(rest.len() - sheet.times.len());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Should anything ever get past the escaping: it could neither run nor fetch.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                title { (sheet.title) }
                style { (PreEscaped(plot::STYLE)) (PreEscaped(include_str!("page.css"))) }
            }
            body {
                h1 { (sheet.title) }
                p.from { (from(origin)) }
                dl.summary {
                    @for (name, value) in &sheet.summary { div { dt { (name) } dd { (value) } } }
                }
                (reasons(sheet))
                div.plots { @for plot in charts { (plot.figure()) } }
                @for chart in &sheet.charts { (chart_table(chart)) }
                @if !over_time.is_empty() {
                    h2 { "Over time, and how long" }
                    div.plots { @for plot in over_time { (plot.figure()) } }
                }
                (times_table(&sheet.times))
                @for table in &sheet.tables { (other_table(table)) }
                @if !histograms.is_empty() {
                    h2 { "Histograms" }
                    div.plots { @for plot in histograms { (plot.figure()) } }
                }
                @if !origin.options.is_empty() {
                    h2 { "Options" }
                    div.wide { table { tbody {
                        @for (name, value) in &origin.options {
                            tr { td { (name) } td.words { (value) } }
                        }
                    } } }
                }
            }
        }
    };
    cleaned(page.into_string())
}

/// All plots of a report: of each chart, each rate, each series, all times together, and each time.
fn plots(sheet: &Sheet) -> Vec<Plot> {
    let rates = sheet.rates.iter().map(over_time);
    let series = sheet.series.iter().map(lines);
    let colours = colours(&sheet.times);
    let histograms = sheet.times.iter().zip(&colours);
    let all = (!sheet.times.is_empty()).then(|| percentiles(&sheet.times, &colours));
    let charts = sheet.charts.iter().map(side_by_side);
    charts
        .chain(rates)
        .chain(series)
        .chain(all)
        .chain(histograms.map(|(times, colour)| histogram(times, *colour)))
        .collect()
}

/// The same as SVG files with their names.
pub(super) fn files(sheet: &Sheet) -> Vec<(String, String)> {
    let rates = sheet.rates.iter().map(|rate| &*rate.name);
    let series = sheet.series.iter().map(|series| &*series.name);
    let times = sheet.times.iter().map(|times| &*times.name);
    let all = (!sheet.times.is_empty()).then_some("percentiles");
    let charts = sheet.charts.iter().map(|chart| &*chart.name);
    charts
        .chain(rates)
        .chain(series)
        .chain(all)
        .chain(times)
        .zip(plots(sheet))
        .map(|(name, plot)| {
            let whole = format!("{}-{name}", sheet.origin.tool);
            let words = whole.split(|c: char| !c.is_ascii_alphanumeric());
            let name = words
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
                .join("-");
            (format!("{name}.svg"), cleaned(plot.file()))
        })
        .collect()
}

/// One colour each; the last one is the most prominent, for what matters most if that is one thing.
fn colours(times: &[Times]) -> Vec<usize> {
    let one = times.iter().filter(|times| times.principal).count() == 1;
    let colour = |(at, times): (usize, &Times)| match one && times.principal {
        true => COLOURS - 1,
        false => at % (COLOURS - 1),
    };
    times.iter().enumerate().map(colour).collect()
}

/// Without characters that a page or an SVG file must not have: what a server sent is in there.
fn cleaned(text: String) -> String {
    let shown = |c: char| match c {
        '\n' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        // Marks that make text run the other way, over what stands next to it; and what XML has no place for.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    };
    text.chars().map(shown).collect()
}

fn reasons(sheet: &Sheet) -> Markup {
    let mut sorted: Vec<(&String, &u64)> = sheet.reasons.iter().collect();
    sorted.sort_by_key(|(_, count)| core::cmp::Reverse(**count));
    html! {
        @if !sorted.is_empty() {
            h2 { "What went wrong" }
            div.wide { table { tbody {
                @for (reason, count) in sorted { tr { td { (count) } td.words { (reason) } } }
            } } }
        }
    }
}

fn times_table(times: &[Times]) -> Markup {
    if times.is_empty() {
        return Markup::default();
    }
    html! {
        h2 { "Times in milliseconds" }
        div.wide { table {
            thead { tr {
                th {}
                @for head in ["count", "min", "p50", "p90", "p99", "p99.9", "max"] { th { (head) } }
            } }
            tbody {
                @for Times { name, ms, principal } in times {
                    tr.principal[*principal] {
                        td { (name) }
                        td { (ms.count) }
                        @for value in [ms.min, ms.p50, ms.p90, ms.p99, ms.p999, ms.max] {
                            td { (three(value)) }
                        }
                    }
                }
            }
        } }
    }
}

/// What nobody knows is left out.
fn from(origin: &Origin) -> String {
    let mut parts = vec![format!("turnpike-bench {}", origin.version)];
    for (part, known) in [
        (origin.started.clone(), !origin.started.is_empty()),
        (
            format!("{} x {}", origin.cpus, origin.cpu),
            !origin.cpu.is_empty(),
        ),
        (
            format!("Linux {}", origin.kernel),
            !origin.kernel.is_empty(),
        ),
    ] {
        if known {
            parts.push(part);
        }
    }
    parts.join(" \u{b7} ")
}

fn chart_table(chart: &Chart) -> Markup {
    html! {
        h2 { (chart.name) ", " (chart.unit) }
        div.wide { table {
            thead { tr { th {} @for group in &chart.groups { th { (group) } } } }
            tbody {
                @for (name, values) in &chart.bars {
                    tr { td { (name) } @for value in values { td { (three(*value)) } } }
                }
            }
        } }
    }
}

fn other_table(table: &Table) -> Markup {
    html! {
        @if !table.rows.is_empty() {
            h2 { (table.name) }
            div.wide { table {
                thead { tr { @for head in &table.heads { th { (head) } } } }
                tbody { @for row in &table.rows { tr { @for cell in row { td { (cell) } } } } }
            } }
        }
    }
}

/// Groups of bars, a group for each name on the axis.
fn side_by_side(chart: &Chart) -> Plot {
    // A little room between groups.
    let width = 0.86 / chart.bars.len().max(1) as f64;
    let highest = chart
        .bars
        .iter()
        .flat_map(|(_, values)| values.iter().copied());
    let highest = highest.chain(chart.level).fold(0.0, f64::max);
    let sets = chart.bars.iter().enumerate().map(|(at, (name, values))| {
        let bar = |(group, value): (usize, &f64)| {
            let from = group as f64 + 0.07 + at as f64 * width;
            (
                from,
                from + width,
                *value,
                format!("{name}: {} {}", three(*value), chart.unit),
            )
        };
        Mark::Bars {
            name: Some(name.clone()),
            colour: at,
            bars: values.iter().enumerate().map(bar).collect(),
        }
    });
    let level = chart.level.map(|value| Mark::Level {
        name: three(value),
        value,
    });
    Plot {
        title: chart.name.clone(),
        x: Axis::named(chart.groups.clone()),
        y: Axis::new(&chart.unit, Scale::up_to(highest)),
        marks: sets.chain(level).collect(),
    }
}

fn over_time(rate: &Rate) -> Plot {
    let highest = rate.each_second.iter().copied().fold(rate.mean, f64::max);
    let bars = rate.each_second.iter().enumerate().map(|(second, count)| {
        let from = second as f64;
        (
            from,
            from + 1.0,
            *count,
            format!("second {}: {}", second + 1, three(*count)),
        )
    });
    Plot {
        title: format!(
            "{} in each second, {} on average",
            rate.name,
            three(rate.mean)
        ),
        x: Axis::new(
            "seconds",
            Scale::Linear(0.0, (rate.each_second.len() as f64).max(1.0)),
        ),
        y: Axis::new("per second", Scale::up_to(highest)),
        marks: vec![
            Mark::Bars {
                name: None,
                colour: 0,
                bars: bars.collect(),
            },
            Mark::Level {
                name: format!("{} on average", three(rate.mean)),
                value: rate.mean,
            },
        ],
    }
}

fn lines(series: &Series) -> Plot {
    let values = || {
        series
            .lines
            .iter()
            .flat_map(|(_, values)| values.iter().copied())
    };
    let seconds = series.lines.iter().map(|(_, values)| values.len()).max();
    let marks = series
        .lines
        .iter()
        .enumerate()
        .map(|(colour, (name, values))| Mark::Line {
            name: (*name).to_owned(),
            colour,
            // A value is of a whole second; it stands in the middle of it.
            points: (0..)
                .map(|second| f64::from(second) + 0.5)
                .zip(values.iter().copied())
                .collect(),
        });
    Plot {
        title: series.name.clone(),
        x: Axis::new(
            "seconds",
            Scale::Linear(0.0, seconds.unwrap_or(0).max(1) as f64),
        ),
        y: Axis::new(
            series.unit,
            match series.logarithmic {
                true => Scale::log(values()),
                false => Scale::up_to(values().fold(0.0, f64::max)),
            },
        ),
        marks: marks.collect(),
    }
}

/// How long so many took at most: a curve for each, each nine as wide as the one before.
fn percentiles(times: &[Times], colours: &[usize]) -> Plot {
    let most = times.iter().map(|one| one.ms.count).max().unwrap_or(0);
    // Beyond this there is one call or less.
    let highest = (1.0 - 1.0 / most.max(10) as f64).min(0.999_999);
    let lines = times.iter().zip(colours);
    let lines = lines.filter(|(one, _)| one.ms.count > 0);
    let marks = lines.map(|(one, colour)| Mark::Line {
        name: one.name.clone(),
        colour: *colour,
        points: curve(&one.ms),
    });
    Plot {
        title: "how long so many took at most".to_owned(),
        x: Axis::new("share", Scale::Nines(highest)),
        y: Axis::new(
            "milliseconds",
            Scale::log(times.iter().flat_map(|one| [one.ms.min, one.ms.max])),
        ),
        marks: marks.collect(),
    }
}

/// Quantiles and values: of the buckets, or, in a report that has none, of what else it says.
fn curve(spread: &Spread) -> Vec<(f64, f64)> {
    let mut points = vec![(0.0, spread.min)];
    if spread.buckets.is_empty() {
        points.extend([
            (0.5, spread.p50),
            (0.9, spread.p90),
            (0.99, spread.p99),
            (0.999, spread.p999),
        ]);
    } else {
        let mut below = 0;
        for (value, count) in &spread.buckets {
            below += count;
            let upper = below as f64 / spread.count.max(1) as f64;
            points.push((upper.min(1.0), *value));
        }
    }
    points.push((1.0, spread.max));
    points
}

/// Bars of equal width on a logarithmic axis, and how many of a hundred are in each.
fn histogram(times: &Times, colour: usize) -> Plot {
    let spread = &times.ms;
    let octaves = (spread.max / spread.min).log2();
    let per_octave = match octaves {
        octaves if octaves > 0.0 => (BARS / octaves).clamp(1.0, BARS_PER_OCTAVE).floor(),
        _ => 1.0,
    };
    let mut bars: Vec<(i64, u64)> = Vec::new();
    for (value, count) in spread.buckets.iter().filter(|(value, _)| *value > 0.0) {
        let bin = (value.log2() * per_octave).floor() as i64;
        match bars.last_mut() {
            Some((last, sum)) if *last == bin => *sum += count,
            _ => bars.push((bin, *count)),
        }
    }
    let bars: Vec<(f64, f64, f64, String)> = bars
        .into_iter()
        .map(|(bin, count)| {
            let edge = |bin: i64| (bin as f64 / per_octave).exp2();
            let (from, to) = (edge(bin), edge(bin + 1));
            let share = 100.0 * count as f64 / spread.count.max(1) as f64;
            let tip = format!(
                "{} to {} ms: {count} ({} %)",
                three(from),
                three(to),
                three(share)
            );
            (from, to, share, tip)
        })
        .collect();
    let highest = bars.iter().map(|bar| bar.2).fold(0.0, f64::max);
    let ends = bars.iter().flat_map(|bar| [bar.0, bar.1]);
    Plot {
        title: format!("{}: how long {} took", times.name, spread.count),
        x: Axis::new("milliseconds", Scale::log(ends)),
        y: Axis::new("%", Scale::up_to(highest)),
        marks: vec![Mark::Bars {
            name: None,
            colour,
            bars,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::tests::STORM;
    use super::*;

    #[test]
    fn a_page_has_everything_and_needs_nothing() {
        let sheet = Sheet::parse(STORM).unwrap();
        let text = page(&sheet);
        for part in [
            "<title>storm on 10.7.0.1</title>",
            "AMD EPYC, family 25 model 17",
            "calls set up in each second",
            "authentication: how long 290 took",
            "prefers-color-scheme:dark",
            "@media print",
        ] {
            assert!(text.contains(part), "no {part}");
        }
        assert_eq!(text.matches("<svg").count(), 5);
        // Nothing is fetched, nothing runs; the one address is the name of SVG's namespace.
        for part in ["<script", "src=", "href=", "url(", "@import"] {
            assert!(!text.contains(part), "{part}");
        }
        let rest = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!rest.contains("://"));
    }

    #[test]
    fn what_a_server_sent_is_text() {
        let mut sheet = Sheet::parse(STORM).unwrap();
        sheet
            .origin
            .options
            .insert("user".to_owned(), "</style><img onerror=x>".to_owned());
        sheet.reasons.insert("\u{202e}backwards\0".to_owned(), 1);
        let text = page(&sheet);
        assert!(text.contains("M=&lt;script&gt;alert(&quot;&amp;'&quot;)&lt;/script&gt;\u{fffd}"));
        assert!(text.contains("&lt;/style&gt;&lt;img onerror=x&gt;"));
        assert!(text.contains("\u{fffd}backwards\u{fffd}"));
    }

    #[test]
    fn nothing_came_up_and_there_is_still_a_page() {
        let mut sheet = Sheet::parse(STORM).unwrap();
        for times in &mut sheet.times {
            times.ms = Spread::default();
        }
        for rate in &mut sheet.rates {
            rate.each_second.clear();
            rate.mean = 0.0;
        }
        let text = page(&sheet);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn figures_stand_side_by_side() {
        let sheet = Sheet {
            charts: vec![Chart {
                name: "times as fast".to_owned(),
                unit: "x".to_owned(),
                groups: vec!["64".to_owned(), "1400".to_owned()],
                bars: vec![
                    ("a".to_owned(), vec![1.5, 2.0]),
                    ("b".to_owned(), vec![3.0, 0.0]),
                ],
                level: Some(1.0),
            }],
            ..Sheet::default()
        };
        let text = page(&sheet);
        assert_eq!(text.matches("<svg").count(), 1);
        assert!(
            text.contains("b: 3.00 x") && !text.contains("Histograms"),
            "{text}"
        );
        assert_eq!(files(&sheet)[0].0, "times-as-fast.svg");
    }

    #[test]
    fn histograms_and_curves_keep_all() {
        let sheet = Sheet::parse(STORM).unwrap();
        let times = &sheet.times[0];
        let Mark::Bars { bars, .. } = &histogram(times, 0).marks[0] else {
            panic!("no bars");
        };
        let sum: f64 = bars.iter().map(|bar| bar.2).sum();
        assert!((sum - 100.0).abs() < 1e-6, "{sum}");
        let points = curve(&times.ms);
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        assert_eq!(points.last(), Some(&(1.0, 6.3)));
        assert_eq!(curve(&sheet.times[2].ms).len(), 6);
    }
}
