//! Charts as SVG text: same numbers, same bytes. Colours and line styles come from the page's
//! classes `s0` to `s7` (fills) and `l0` to `l7` (lines), so that they follow light and dark.

use std::fmt::Write as _;

/// Number of colours in the palette.
pub(crate) const COLORS: usize = 8;

/// A drawing under construction.
pub(crate) struct Svg {
    body: String,
    width: f64,
    height: f64,
    label: String,
}

impl Svg {
    /// An empty drawing with a description for those who cannot see it.
    pub(crate) fn new(width: f64, height: f64, label: &str) -> Self {
        Self {
            body: String::new(),
            width,
            height,
            label: escape(label),
        }
    }

    pub(crate) fn rect(&mut self, at: (f64, f64), size: (f64, f64), class: &str, extra: &str, title: &str) {
        let _ = write!(
            self.body,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"{class}\"{extra}><title>{}</title></rect>",
            n(at.0),
            n(at.1),
            n(size.0),
            n(size.1),
            escape(title)
        );
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let _ = write!(
            self.body,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{class}\"/>",
            n(from.0),
            n(from.1),
            n(to.0),
            n(to.1)
        );
    }

    pub(crate) fn text(&mut self, at: (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = write!(
            self.body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            n(at.0),
            n(at.1),
            escape(text)
        );
    }

    /// A staircase: from each point horizontally to the next, then vertically.
    pub(crate) fn steps(&mut self, points: &[(f64, f64)], class: &str, title: &str) {
        let Some(first) = points.first() else { return };
        let mut d = format!("M{} {}", n(first.0), n(first.1));
        for p in &points[1..] {
            let _ = write!(d, "H{}V{}", n(p.0), n(p.1));
        }
        let _ = write!(
            self.body,
            "<path d=\"{d}\" class=\"line {class}\"><title>{}</title></path>",
            escape(title)
        );
    }

    /// Straight lines from point to point.
    pub(crate) fn lines(&mut self, points: &[(f64, f64)], class: &str, title: &str) {
        let Some((first, rest)) = points.split_first() else {
            return;
        };
        let mut d = format!("M{} {}", n(first.0), n(first.1));
        for p in rest {
            let _ = write!(d, "L{} {}", n(p.0), n(p.1));
        }
        let _ = write!(
            self.body,
            "<path d=\"{d}\" class=\"line {class}\"><title>{}</title></path>",
            escape(title)
        );
    }

    /// The finished element.
    pub(crate) fn finish(self) -> String {
        let (w, h) = (n(self.width), n(self.height));
        format!(
            "<svg role=\"img\" aria-label=\"{}\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\">{}</svg>",
            self.label, self.body
        )
    }
}

/// Which end of a text its position means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// One decimal, without a trailing `.0`.
fn n(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Text for element content or a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A logarithmic axis over whole decades.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LogAxis {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl LogAxis {
    /// Decades that hold all of `values` (those above 0), drawn between `from` and `to`.
    pub(crate) fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for v in values.filter(|v| *v > 0.0) {
            low = low.min(v);
            high = high.max(v);
        }
        if high == 0.0 {
            return Self {
                low: 0,
                high: 1,
                from,
                to,
            };
        }
        let low = low.log10().floor() as i32;
        Self {
            low,
            high: (high.log10().ceil() as i32).max(low + 1),
            from,
            to,
        }
    }

    /// Position of a value; values at or below the first decade sit on its line.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let share = if value <= 0.0 {
            0.0
        } else {
            (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low)
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// The decades: value and label.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        (self.low..=self.high)
            .map(|e| {
                let label = match e {
                    0..=3 => 10_u64.pow(e.unsigned_abs()).to_string(),
                    4..=5 => format!("{}k", 10_u64.pow(e.unsigned_abs() - 3)),
                    6..=8 => format!("{}M", 10_u64.pow(e.unsigned_abs() - 6)),
                    9.. => format!("1e{e}"),
                    _ => format!("{:.*}", e.unsigned_abs() as usize, 10_f64.powi(e)),
                };
                (10_f64.powi(e), label)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_sizes_are_given() {
        let mut svg = Svg::new(10.0, 20.5, "a \"label\" <b>");
        svg.text((1.0, 2.0), Anchor::End, "<&>");
        let out = svg.finish();
        assert!(out.contains("width=\"10\" height=\"20.5\""), "{out}");
        assert!(out.contains("&lt;&amp;&gt;") && out.contains("a &quot;label&quot; &lt;b&gt;"));
    }

    #[test]
    fn log_axis_spans_whole_decades() {
        let axis = LogAxis::over([0.0, 0.3, 45.0].into_iter(), 100.0, 0.0);
        let labels: Vec<String> = axis.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["0.1", "1", "10", "100"]);
        assert_eq!(
            (
                axis.place(0.1).round(),
                axis.place(100.0).round(),
                axis.place(0.0)
            ),
            (100.0, 0.0, 100.0)
        );
        assert_eq!(LogAxis::over(std::iter::empty(), 0.0, 1.0).ticks().len(), 2);
    }
}
