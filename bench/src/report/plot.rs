//! Plots as SVG: lines, steps and bars over linear and logarithmic axes.
//!
//! Colours are variables of the page's or the file's style, so that light and dark come from one drawing.

use maud::{Markup, PreEscaped, html};

/// Units of a drawing; a phone shows about as many pixels across.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;

/// Room for tick labels and names of axes: left, right, above, below.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const ABOVE: f64 = 14.0;
const BELOW: f64 = 42.0;

/// Height of a row of names in a file of its own.
const ROW: f64 = 15.0;

/// How many colours there are; more lines begin again.
pub(super) const COLOURS: usize = 7;

/// What SVG files of their own, and pages, have for style.
pub(super) const STYLE: &str = include_str!("plot.css");

/// How values lie on an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Scale {
    /// From and to.
    Linear(f64, f64),
    /// From and to, both above 0.
    Log(f64, f64),
    /// Quantiles from 0 to the highest that is told apart, such as 0.999: each nine is as wide as the one before.
    Nines(f64),
}

impl Scale {
    /// From 0 to a round number.
    pub(super) fn up_to(highest: f64) -> Self {
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let step = round_step(highest / 6.0);
        Self::Linear(0.0, (highest / step).ceil() * step)
    }

    /// Over all values above 0, at least a factor of 2.
    pub(super) fn log(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut from, mut to) = (f64::INFINITY, 0.0_f64);
        for value in values.into_iter().filter(|value| *value > 0.0) {
            from = from.min(value);
            to = to.max(value);
        }
        if from > to {
            return Self::Log(1.0, 10.0);
        }
        let middle = (from * to).sqrt();
        Self::Log(from.min(middle / 1.5) / 1.05, to.max(middle * 1.5) * 1.05)
    }

    /// Where a value lies, from 0 to 1.
    fn place(self, value: f64) -> f64 {
        let part = match self {
            Self::Linear(from, to) => (value - from) / (to - from),
            Self::Log(from, to) => (value.max(from) / from).ln() / (to / from).ln(),
            Self::Nines(highest) => (1.0 - value.min(highest)).ln() / (1.0 - highest).ln(),
        };
        part.clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear(from, to) => {
                let step = round_step((to - from) / 6.0);
                let first = (from / step).ceil() as i64;
                let last = (to / step + 1e-9).floor() as i64;
                (first..=last)
                    .map(|n| n as f64 * step)
                    .map(|value| (value, plain(value)))
                    .collect()
            }
            Self::Log(from, to) => {
                let decades = (to / from).log10();
                let digits: &[f64] = if decades < 2.5 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                let first = from.log10().floor() as i32;
                let last = to.log10().ceil() as i32;
                (first..=last)
                    .flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)))
                    .filter(|value| (from..=to).contains(value))
                    .map(|value| (value, plain(value)))
                    .collect()
            }
            Self::Nines(highest) => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999]
                .into_iter()
                .filter(|quantile| *quantile <= highest)
                .map(|quantile| (quantile, format!("{}%", plain(quantile * 100.0))))
                .collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(least)
}

/// A tick's number, in as few characters as it needs.
fn plain(value: f64) -> String {
    let rounded = format!("{value:.4}");
    let short = match rounded.contains('.') {
        true => rounded.trim_end_matches('0').trim_end_matches('.'),
        false => &rounded,
    };
    match short.strip_suffix("000000") {
        Some(millions) if !short.contains('.') => format!("{millions}M"),
        _ => short.to_owned(),
    }
}

/// An axis with its name.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) scale: Scale,
    /// Of whole numbers from 0 on, in place of the numbers: what lies between each and the next.
    pub(super) names: Vec<String>,
}

impl Axis {
    pub(super) fn new(name: &str, scale: Scale) -> Self {
        Self {
            name: name.to_owned(),
            scale,
            names: Vec::new(),
        }
    }

    /// For groups that have names and no numbers.
    pub(super) fn named(names: Vec<String>) -> Self {
        Self {
            scale: Scale::Linear(0.0, names.len().max(1) as f64),
            names,
            ..Self::new("", Scale::Nines(0.5))
        }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        if self.names.is_empty() {
            return self.scale.ticks();
        }
        let names = self.names.iter().cloned();
        (0..).map(|n| f64::from(n) + 0.5).zip(names).collect()
    }
}

/// What is drawn, in the colour of its number.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Mark {
    /// Points, joined.
    Line {
        name: String,
        colour: usize,
        points: Vec<(f64, f64)>,
    },
    /// Bars from the bottom: from, to, height, and what a pointer over it shows; with a name, where there are several sets.
    Bars {
        name: Option<String>,
        colour: usize,
        bars: Vec<(f64, f64, f64, String)>,
    },
    /// A level across the whole plot.
    Level { name: String, value: f64 },
}

/// A plot.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) marks: Vec<Mark>,
}

impl Plot {
    /// As a part of a page: a figure with its title and, for several lines, what each is.
    pub(super) fn figure(&self) -> Markup {
        let lines: Vec<(&str, usize)> = self.lines().collect();
        html! {
            figure {
                figcaption { (self.title) }
                (self.svg(false))
                @if lines.len() > 1 {
                    p.legend {
                        @for (name, colour) in lines {
                            span { i.{ "c" (colour % COLOURS) } {} (name) } " "
                        }
                    }
                }
            }
        }
    }

    /// As a file of its own.
    pub(super) fn file(&self) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n",
            self.svg(true).into_string()
        )
    }

    fn lines(&self) -> impl Iterator<Item = (&str, usize)> {
        self.marks.iter().filter_map(|mark| match mark {
            Mark::Line { name, colour, .. } => Some((&**name, *colour)),
            Mark::Bars {
                name: Some(name),
                colour,
                ..
            } => Some((&**name, *colour)),
            _ => None,
        })
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.scale.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BELOW - self.y.scale.place(value) * (HEIGHT - ABOVE - BELOW)
    }

    fn svg(&self, alone: bool) -> Markup {
        let (bottom, right) = (HEIGHT - BELOW, WIDTH - RIGHT);
        let legend = if alone { self.legend() } else { Vec::new() };
        let rows = legend.last().map_or(0, |(.., row)| row + 1);
        let head = if alone { 24.0 + ROW * rows as f64 } else { 0.0 };
        let view = format!("0 {} {WIDTH} {}", -head, HEIGHT + head);
        html! {
            svg.plot xmlns="http://www.w3.org/2000/svg" viewBox=(view) width=[alone.then_some(WIDTH)] height=[alone.then_some(HEIGHT + head)]
                role="img" aria-label=(self.title) {
                @if alone {
                    style { (PreEscaped(STYLE)) }
                    rect.paper x="0" y=(-head) width=(WIDTH) height=(HEIGHT + head) {}
                    text.title x="10" y=(18.0 - head) { (self.title) }
                    @for (name, colour, x, row) in legend {
                        @let y = 24.0 - head + ROW * row as f64;
                        rect.{ "f" (colour % COLOURS) } x=(tenth(x)) y=(y + 3.0) width="9" height="9" {}
                        text.tick x=(tenth(x + 13.0)) y=(y + 11.0) { (name) }
                    }
                }
                @for (value, label) in self.x.ticks() {
                    @let x = tenth(self.x(value));
                    line.grid x1=(x) x2=(x) y1=(ABOVE) y2=(bottom) {}
                    text.tick x=(x) y=(bottom + 15.0) text-anchor="middle" { (label) }
                }
                @for (value, label) in self.y.ticks() {
                    @let y = tenth(self.y(value));
                    line.grid x1=(LEFT) x2=(right) y1=(y) y2=(y) {}
                    text.tick x=(LEFT - 5.0) y=(tenth(y + 4.0)) text-anchor="end" { (label) }
                }
                text.axis x=((LEFT + right) / 2.0) y=(HEIGHT - 8.0) text-anchor="middle" { (self.x.name) }
                text.axis x="0" y="0" text-anchor="middle"
                    transform={ "translate(12 " ((ABOVE + bottom) / 2.0) ") rotate(-90)" } { (self.y.name) }
                @for mark in &self.marks { (self.mark(mark)) }
                line.frame x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
            }
        }
    }

    /// What each colour is, in a file of its own, where there are several; and where it stands, in rows from the top.
    fn legend(&self) -> Vec<(&str, usize, f64, usize)> {
        let lines: Vec<(&str, usize)> = self.lines().collect();
        if lines.len() < 2 {
            return Vec::new();
        }
        let (mut at, mut row) = (10.0, 0);
        lines
            .into_iter()
            .map(|(name, colour)| {
                let width = 26.0 + 6.4 * name.chars().count() as f64;
                if at + width > WIDTH && at > 10.0 {
                    (at, row) = (10.0, row + 1);
                }
                let place = (name, colour, at, row);
                at += width;
                place
            })
            .collect()
    }

    fn mark(&self, mark: &Mark) -> Markup {
        match mark {
            Mark::Line {
                name,
                colour,
                points,
            } => html! {
                path.line.{ "l" (colour % COLOURS) } d=(self.path(points)) { title { (name) } }
            },
            Mark::Bars { colour, bars, .. } => html! {
                @for (from, to, height, tip) in bars {
                    @let (x, y) = (self.x(*from), self.y(*height));
                    rect.{ "f" (colour % COLOURS) } x=(tenth(x)) y=(tenth(y))
                        width=(tenth((self.x(*to) - x - 0.5).max(0.5)))
                        height=(tenth(HEIGHT - BELOW - y)) { title { (tip) } }
                }
            },
            Mark::Level { name, value } => {
                let y = tenth(self.y(*value));
                html! {
                    line.level x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) { title { (name) } }
                }
            }
        }
    }

    /// Points that would lie on one another are drawn once.
    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        let mut last: Option<(f64, f64)> = None;
        for (at, (x, y)) in points.iter().enumerate() {
            let point = (tenth(self.x(*x)), tenth(self.y(*y)));
            let near =
                |last: (f64, f64)| (last.0 - point.0).abs() < 0.7 && (last.1 - point.1).abs() < 0.7;
            if last.is_some_and(near) && at + 1 < points.len() {
                continue;
            }
            path.push(if last.is_none() { 'M' } else { 'L' });
            path.push_str(&format!("{} {}", point.0, point.1));
            last = Some(point);
        }
        path
    }
}

/// To a tenth: finer than any screen.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_lie_on_the_axis() {
        let labels = |scale: Scale| -> Vec<String> {
            let ticks = scale.ticks();
            for (value, _) in &ticks {
                assert!((0.0..=1.0).contains(&scale.place(*value)));
            }
            ticks.into_iter().map(|(_, label)| label).collect()
        };
        assert_eq!(
            labels(Scale::up_to(101.0)),
            ["0", "20", "40", "60", "80", "100", "120"],
            "101 lies below the end"
        );
        assert_eq!(
            labels(Scale::up_to(0.0)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(labels(Scale::Log(0.9, 11.0)), ["1", "2", "5", "10"]);
        assert_eq!(
            labels(Scale::Log(0.01, 10_000.0)),
            ["0.01", "0.1", "1", "10", "100", "1000", "10000"]
        );
        assert_eq!(
            labels(Scale::Nines(0.999)),
            ["0%", "50%", "90%", "99%", "99.9%"]
        );
        assert_eq!(labels(Scale::up_to(4e6)), ["0", "1M", "2M", "3M", "4M"]);
    }

    #[test]
    fn scales_span_what_they_were_given() {
        assert_eq!(Scale::Nines(0.999).place(0.0), 0.0);
        assert_eq!(Scale::Nines(0.999).place(0.999), 1.0);
        assert_eq!(Scale::Nines(0.999).place(1.0), 1.0);
        assert!((Scale::Nines(0.999).place(0.9) - 1.0 / 3.0).abs() < 1e-9);
        let scale = Scale::log([3.0, 0.0, 700.0]);
        assert!(scale.place(3.0) > 0.0 && scale.place(700.0) < 1.0);
        let one = Scale::log([5.0]);
        assert!((one.place(5.0) - 0.5).abs() < 1e-9, "{one:?}");
        assert_eq!(Scale::log([]), Scale::Log(1.0, 10.0));
    }

    #[test]
    fn names_of_many_bars_take_several_rows() {
        let bars = |n: usize| Mark::Bars {
            name: Some(format!("a name of some length {n}")),
            colour: n,
            bars: Vec::new(),
        };
        let plot = Plot {
            title: String::new(),
            x: Axis::named(vec!["a".to_owned(), "b".to_owned()]),
            y: Axis::new("y", Scale::up_to(1.0)),
            marks: (0..6).map(bars).collect(),
        };
        let legend = plot.legend();
        assert_eq!(legend.last().unwrap().3, 2, "{legend:?}");
        let ticks: Vec<(f64, String)> = plot.x.ticks();
        assert_eq!(ticks, [(0.5, "a".to_owned()), (1.5, "b".to_owned())]);
    }

    #[test]
    fn whatever_is_drawn_stays_inside_and_is_escaped() {
        let plot = Plot {
            title: "<b>&".to_owned(),
            x: Axis::new("x", Scale::Linear(0.0, 10.0)),
            y: Axis::new("y", Scale::Linear(0.0, 10.0)),
            marks: vec![
                Mark::Line {
                    name: "\"l\"".to_owned(),
                    colour: 9,
                    points: vec![(-5.0, 0.0), (5.0, 5.0), (5.01, 5.01), (99.0, 99.0)],
                },
                Mark::Level {
                    name: "<level>".to_owned(),
                    value: 3.0,
                },
            ],
        };
        let text = plot.file();
        assert!(!text.contains("<b>") && !text.contains("<level>"), "{text}");
        assert!(text.contains("&lt;b&gt;&amp;"), "{text}");
        let path = plot.path(&[(-5.0, 0.0), (5.0, 5.0), (5.01, 5.01), (99.0, 99.0)]);
        assert_eq!(path, "M52 228L260 121L468 14");
    }
}
