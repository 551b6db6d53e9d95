//! A plot as SVG, for light and dark pages: lines over a few named places, on a logarithmic scale.

use std::fmt::Write as _;

pub(crate) struct Plot {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What is counted, and the names of the places.
    pub(crate) across: (&'static str, &'static [&'static str]),
    /// The unit.
    pub(crate) up: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// What was measured of one: the number of the place as its name says it, and the value.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    /// Of what was measured of all together, the part of each.
    pub(crate) fn for_each(self) -> Self {
        Self { points: self.points.into_iter().map(|(x, y)| (x, y / x)).collect(), ..self }
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 48.0;
const STYLE: &str = "text{fill:#24292f;font:13px system-ui,sans-serif}.s{fill:#57606a;font-size:12px}.t{font-weight:600;font-size:14px}\
    .g{stroke:#d0d7de}path{fill:none;stroke-width:2}.c0{stroke:#0969da}.c1{stroke:#9a6700}.c2{stroke:#8250df}.c3{stroke:#1a7f37}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.g{stroke:#3d444d}.c0{stroke:#4493f8}.c1{stroke:#d29922}.c2{stroke:#ab7df8}.c3{stroke:#3fb950}}";

impl Plot {
    pub(crate) fn svg(&self) -> String {
        let (least, greatest) = self.decades();
        let up = |value: f64| {
            let share = (value.log10() - least) / (greatest - least);
            HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
        };
        let (counted, places) = self.across;
        let step = (WIDTH - LEFT - RIGHT) / (places.len().max(2) - 1) as f64;
        let across = |at: usize| LEFT + at as f64 * step;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"t\">\n\
             <title id=\"t\">{0}</title>\n<style>{STYLE}</style>\n<text class=\"t\" x=\"{LEFT}\" y=\"22\">{0}</text>\n",
            self.title
        );
        let mut decade = least;
        while decade <= greatest {
            let (y, value) = (up(10_f64.powf(decade)), readable(10_f64.powf(decade), self.up));
            let _ = write!(
                svg,
                "<path class=\"g\" stroke-width=\"1\" d=\"M{LEFT} {y:.1}H{:.1}\"/>\n<text class=\"s\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>\n",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
            );
            decade += 1.0;
        }
        for (at, place) in places.iter().enumerate() {
            let (x, y) = (across(at), HEIGHT - BOTTOM + 18.0);
            let _ = writeln!(svg, "<text class=\"s\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{place}</text>");
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<text class=\"s\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{counted}</text>",
            HEIGHT - 10.0
        );
        self.lines(&mut svg, up, across);
        svg + "</svg>\n"
    }

    fn lines(&self, svg: &mut String, up: impl Fn(f64) -> f64, across: impl Fn(usize) -> f64) {
        let place = |x: f64| self.across.1.iter().position(|name| name.parse() == Ok(x));
        // The names stand beside the ends of their lines, one below the other where those are close.
        let mut ends: Vec<(f64, usize, &Line)> = Vec::new();
        for (number, line) in self.lines.iter().enumerate() {
            let points: Vec<(f64, f64)> =
                line.points.iter().filter_map(|(x, y)| Some((across(place(*x)?), up(*y)))).collect();
            let Some((_, end)) = points.last() else { continue };
            ends.push((*end, number, line));
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            let _ = writeln!(svg, "<path class=\"c{number}\" d=\"M{}\"/>", path.join("L"));
            for (x, y) in points {
                let _ = writeln!(svg, "<path class=\"c{number}\" d=\"M{x:.1} {:.1}v6m-3 -3h6\"/>", y - 3.0);
            }
        }
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut above = f64::MIN;
        for (end, number, line) in ends {
            let y = end.max(above + 17.0);
            above = y;
            let (from, value) = (WIDTH - RIGHT + 6.0, line.points.last().map_or(0.0, |(_, value)| *value));
            let _ = write!(
                svg,
                "<path class=\"c{number}\" d=\"M{from:.1} {y:.1}h14\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{} <tspan class=\"s\">{}</tspan></text>\n",
                from + 19.0,
                y + 4.0,
                line.name,
                readable(value, self.up),
            );
        }
    }

    /// The powers of ten between which all values lie.
    fn decades(&self) -> (f64, f64) {
        let values = self.lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| value.max(1.0).log10()));
        let (least, greatest) =
            values.fold((f64::MAX, f64::MIN), |(least, greatest), value| (least.min(value), greatest.max(value)));
        (least.floor(), greatest.ceil().max(least.floor() + 1.0))
    }
}

/// In the unit in which people say it.
pub(crate) fn readable(value: f64, unit: &str) -> String {
    let times = |value: f64, unit: &str| {
        let decimals = match value {
            _ if value.fract() < 0.005 => 0,
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        format!("{value:.decimals$} {unit}")
    };
    match (unit, value) {
        ("ns", ..1e3) => times(value, "ns"),
        ("ns", ..1e6) => times(value / 1e3, "µs"),
        ("ns", ..1e9) => times(value / 1e6, "ms"),
        ("ns", _) => times(value / 1e9, "s"),
        (_, 1e6..) => times(value / 1e6, "M/s"),
        (_, 1e3..) => times(value / 1e3, "k/s"),
        _ => times(value, "/s"),
    }
}
