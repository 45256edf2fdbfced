//! Charts as inline SVG: lines over steps, and differences with their intervals. Colours and dashes come from the page's
//! style sheet, so that a chart follows light and dark.

use std::fmt::Write;

use super::table::{minus, signed};
use crate::html::{Element, Html, element};

/// Styles of lines that the style sheet tells apart; further lines repeat them.
const STYLES: usize = 8;
/// Lines with more points are averaged down to this many.
const POINTS: usize = 400;
/// Lines with no more points show each of them.
const MARKED: usize = 40;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// What the legend calls it.
    pub(super) name: String,
    /// Its points from left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over a common axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    /// What is seen.
    pub(super) title: String,
    /// The label of the horizontal axis.
    pub(super) x: String,
    /// The label of the vertical axis, with its unit.
    pub(super) y: String,
    /// The lines, in the legend's order.
    pub(super) lines: Vec<Line>,
}

impl Chart {
    /// The figure with its caption and legend; nothing where there is no point.
    pub(super) fn html(&self) -> Option<Html> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Scale::new(points().map(|point| point.0), LEFT, WIDTH - RIGHT)?;
        let y = Scale::new(points().map(|point| point.1), HEIGHT - BOTTOM, TOP)?;
        let picture = picture(&format!("{}; the table below holds its values", self.title), HEIGHT);
        let picture = picture.children(x.ticks(5).iter().flat_map(|tick| vertical_tick(&x, *tick)));
        let picture = picture.children(y.ticks(4).iter().flat_map(|tick| horizontal_tick(&y, *tick)));
        let picture = picture.child(label(((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0), "middle", &self.x));
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let turned =
            label((14.0, middle), "middle", &self.y).attribute("transform", format!("rotate(-90 14 {middle})"));
        let picture = picture.child(turned);
        let picture = picture.children(self.lines.iter().enumerate().flat_map(|(at, line)| drawn(line, at, &x, &y)));
        let caption = element("figcaption").text(&self.title);
        let figure = element("figure").child(caption).child(picture);
        Some(if self.lines.len() > 1 { figure.child(self.legend()) } else { figure }.into())
    }

    fn legend(&self) -> Element {
        let entry = |(at, line): (usize, &Line)| {
            let stroke = element("line").class(format!("line c{}", at % STYLES));
            let stroke = stroke.attribute("x1", 0).attribute("y1", 5).attribute("x2", 30).attribute("y2", 5);
            let key = element("svg").class("key").attribute("viewBox", "0 0 30 10").attribute("aria-hidden", "true");
            element("li").child(key.child(stroke)).text(&line.name)
        };
        element("ul").class("legend").children(self.lines.iter().enumerate().map(entry))
    }
}

/// A difference with its interval: a row of [`intervals`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Interval {
    /// What the row is called.
    pub(super) name: String,
    /// The difference.
    pub(super) mean: f64,
    /// Lower and upper bound.
    pub(super) bounds: (f64, f64),
    /// Whether the row stands for all others.
    pub(super) is_total: bool,
}

/// A figure of differences from 0; filled dots are those whose interval leaves 0 out. Nothing where there is no row.
pub(super) fn intervals(title: &str, unit: &str, rows: &[Interval]) -> Option<Html> {
    const ROW: f64 = 20.0;
    const NAMES: f64 = 118.0;
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let values = rows.iter().flat_map(|row| [row.bounds.0, row.bounds.1, row.mean]).chain([0.0]);
    let x = Scale::new(values.filter(|_| !rows.is_empty()), NAMES, WIDTH - RIGHT)?;
    let bottom = height - BOTTOM;
    let mut picture = picture(&format!("{title}; the table below holds its values"), height);
    for tick in x.ticks(5) {
        let class = if tick.abs() < x.step(5) / 1e6 { "axis" } else { "grid" };
        picture = picture.child(stroke(class, (x.at(tick), TOP), (x.at(tick), bottom)));
        picture = picture.child(label((x.at(tick), bottom + 17.0), "middle", &signed_tick(tick, x.step(5))));
    }
    for (place, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (place as f64 + 0.5);
        let is_apart = row.bounds.0 > 0.0 || row.bounds.1 < 0.0;
        let style = if row.is_total { "c1" } else { "c0" };
        let name = label((NAMES - 10.0, y + 4.0), "end", &row.name);
        picture = picture.child(if row.is_total { name.class("total") } else { name });
        picture = picture.child(stroke(&format!("span {style}"), (x.at(row.bounds.0), y), (x.at(row.bounds.1), y)));
        let dot = if is_apart { format!("dot {style}") } else { format!("dot hollow {style}") };
        picture = picture.child(circle(&dot, (x.at(row.mean), y), 4.0));
    }
    picture = picture.child(label(((NAMES + WIDTH - RIGHT) / 2.0, height - 8.0), "middle", unit));
    Some(element("figure").child(element("figcaption").text(title)).child(picture).into())
}

/// From values to places on the picture.
struct Scale {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// A scale that holds all finite values; none if there are none.
    fn new(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Option<Self> {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let room = if high > low { 0.0 } else { low.abs().max(1.0) / 2.0 };
        (low <= high).then_some(Self { low: low - room, high: high + room, start, end })
    }

    fn at(&self, value: f64) -> f64 {
        self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)
    }

    /// The distance of ticks, 1, 2 or 5 times a power of ten, of which about `count` fit.
    fn step(&self, count: usize) -> f64 {
        let rough = (self.high - self.low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let multiple = [1.0, 2.0, 5.0].into_iter().find(|multiple| multiple * power >= rough * 0.999).unwrap_or(10.0);
        multiple * power
    }

    /// Round values between the ends.
    fn ticks(&self, count: usize) -> Vec<f64> {
        let step = self.step(count);
        let (first, last) = ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        (first..=last).map(|tick| tick as f64 * step).collect()
    }
}

fn drawn(line: &Line, at: usize, x: &Scale, y: &Scale) -> Vec<Element> {
    let style = at % STYLES;
    let finite: Vec<(f64, f64)> =
        line.points.iter().copied().filter(|point| point.0.is_finite() && point.1.is_finite()).collect();
    let points = thinned(&finite);
    let mut path = String::new();
    for (horizontal, vertical) in &points {
        write!(path, "{:.1},{:.1} ", x.at(*horizontal), y.at(*vertical)).expect("a string takes everything");
    }
    let polyline = element("polyline").class(format!("line c{style}")).attribute("points", path.trim_end());
    let shown = if points.len() <= MARKED { points.as_slice() } else { &[] };
    let dots = shown.iter().map(|point| circle(&format!("dot c{style}"), (x.at(point.0), y.at(point.1)), 2.5));
    std::iter::once(polyline).chain(dots).collect()
}

/// Means of neighbours where there are more points than can be seen.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |chunk: &[(f64, f64)]| {
        let count = chunk.len() as f64;
        let sum = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

fn picture(title: &str, height: f64) -> Element {
    let picture = element("svg").class("chart").attribute("viewBox", format!("0 0 {WIDTH} {height}"));
    picture.attribute("role", "img").attribute("aria-label", title)
}

fn vertical_tick(scale: &Scale, tick: f64) -> [Element; 2] {
    let (x, bottom) = (scale.at(tick), HEIGHT - BOTTOM);
    [stroke("grid", (x, TOP), (x, bottom)), label((x, bottom + 17.0), "middle", &plain_tick(tick, scale.step(5)))]
}

fn horizontal_tick(scale: &Scale, tick: f64) -> [Element; 2] {
    let y = scale.at(tick);
    [
        stroke("grid", (LEFT, y), (WIDTH - RIGHT, y)),
        label((LEFT - 7.0, y + 4.0), "end", &plain_tick(tick, scale.step(4))),
    ]
}

fn stroke(class: &str, from: (f64, f64), to: (f64, f64)) -> Element {
    let place = |value: f64| format!("{value:.1}");
    let line = element("line").class(class).attribute("x1", place(from.0)).attribute("y1", place(from.1));
    line.attribute("x2", place(to.0)).attribute("y2", place(to.1))
}

fn circle(class: &str, at: (f64, f64), radius: f64) -> Element {
    let circle = element("circle").class(class).attribute("cx", format!("{:.1}", at.0));
    circle.attribute("cy", format!("{:.1}", at.1)).attribute("r", radius)
}

fn label(at: (f64, f64), anchor: &str, text: &str) -> Element {
    let text = element("text").attribute("x", format!("{:.1}", at.0)).attribute("y", format!("{:.1}", at.1)).text(text);
    text.attribute("text-anchor", anchor)
}

/// A tick with as many decimals as its step has.
fn plain_tick(tick: f64, step: f64) -> String {
    if step < 1e-3 {
        return if tick.abs() < step / 2.0 { "0".to_owned() } else { minus(&format!("{tick:.1e}")) };
    }
    minus(&format!("{:.*}", decimals(step), tick + 0.0))
}

fn signed_tick(tick: f64, step: f64) -> String {
    if tick.abs() < step / 2.0 { "0".to_owned() } else { signed(tick, decimals(step)) }
}

fn decimals(step: f64) -> usize {
    (-step.log10().floor()).max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(low: f64, high: f64) -> Scale {
        Scale::new([low, high].into_iter(), 0.0, 100.0).unwrap()
    }

    #[test]
    fn ticks_are_round() {
        let shown = |low, high| {
            let scale = scale(low, high);
            scale.ticks(5).iter().map(|tick| plain_tick(*tick, scale.step(5))).collect::<Vec<_>>()
        };
        assert_eq!(shown(0.0, 100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(shown(0.31, 0.74), ["0.4", "0.5", "0.6", "0.7"]);
        assert_eq!(shown(0.0, 2e-5), ["0", "5.0e−6", "1.0e−5", "1.5e−5", "2.0e−5"]);
        assert_eq!(shown(3.0, 3.0), ["2", "3", "4"]);
    }

    #[test]
    fn nothing_to_draw_is_no_figure() {
        let chart = |points| Chart {
            title: "t".into(),
            x: "x".into(),
            y: "y".into(),
            lines: vec![Line { name: "n".into(), points }],
        };
        assert_eq!(chart(vec![]).html(), None);
        assert_eq!(chart(vec![(0.0, f64::NAN)]).html(), None);
        assert!(chart(vec![(0.0, 1.0)]).html().is_some());
        assert_eq!(intervals("t", "u", &[]), None);
    }

    #[test]
    fn long_lines_are_thinned_by_means() {
        let points: Vec<(f64, f64)> = (0..1000).map(|step| (f64::from(step), 1.0)).collect();
        let thin = thinned(&points);
        assert_eq!((thin.len(), thin[0]), (334, (1.0, 1.0)));
    }

    #[test]
    fn an_interval_off_zero_has_a_filled_dot() {
        let row = |name: &str, bounds| Interval { name: name.into(), mean: 1.0, bounds, is_total: false };
        let figure = intervals("t", "u", &[row("a", (0.5, 1.5)), row("b", (-0.5, 2.5))]).unwrap();
        assert_eq!(figure.as_str().matches("dot c0").count(), 1);
        assert_eq!(figure.as_str().matches("dot hollow c0").count(), 1);
    }
}
