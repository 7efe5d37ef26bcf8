//! A picture of a measurement: latency over time with what happened meanwhile, and the latency
//! that each share of the requests kept below. A sweep has latency against throughput in place
//! of time.

use std::{path::Path, sync::Arc};

use kuva::{
    backend::{png::PngBackend, svg::SvgBackend},
    plot::{LegendPosition, LinePlot},
    render::{
        annotations::{ReferenceLine, ShadedRegion, TextAnnotation},
        figure::Figure,
        layout::{Layout, TickFormat},
        plots::Plot,
    },
};

use super::{
    results::{Point, Results, Spread},
    table,
};
use crate::failure::Failure;

const COLORS: [&str; 8] =
    ["#1b6ca8", "#d1495b", "#2e8b57", "#8d5fd3", "#e08e0b", "#17becf", "#7f5539", "#555555"];
const EVENT: &str = "#444444";
const TROUBLE: &str = "#d1495b";
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 380.0;
/// Width of a letter of a label, about.
const LETTER: f64 = 7.5;
/// Labels below each other before the next is at the top again.
const ROWS: usize = 6;
/// Of pixels on paper to pixels in a PNG.
const SCALE: f32 = 2.0;
/// No curve of percentiles goes further than one request in this many.
const FURTHEST: f64 = 1e6;

/// Writes the picture in the form that the file's name asks for.
///
/// # Errors
/// Where nothing was measured, or the file cannot be written.
pub(super) fn write(results: &Results, file: &Path) -> Result<(), Failure> {
    let cannot =
        |why: &dyn std::fmt::Display| Failure::failed(format!("{} cannot be drawn: {why}", file.display()));
    if results.points.iter().all(|point| point.answered == 0) {
        return Err(cannot(&"nothing was answered"));
    }
    let scene = figure(results).render();
    let bytes = if file.extension().is_some_and(|extension| extension == "png") {
        PngBackend::new().with_scale(SCALE).render_scene(&scene).map_err(|why| cannot(&why))?
    } else {
        SvgBackend::default().render_scene(&scene).into_bytes()
    };
    std::fs::write(file, bytes).map_err(|error| cannot(&error))
}

fn figure(results: &Results) -> Figure {
    let (upper, lower) = match &results.points[..] {
        [point] => {
            (over_time(point), percentiles(&[("latency", &point.latency), ("service", &point.service)]))
        }
        points => {
            let names: Vec<String> = points
                .iter()
                .map(|point| format!("{} {}", point.protocol, table::load(&point.load)))
                .collect();
            let spreads = names.iter().zip(points).map(|(name, point)| (name.as_str(), &point.latency));
            (by_throughput(points), percentiles(&spreads.collect::<Vec<_>>()))
        }
    };
    Figure::new(2, 1)
        .with_title(format!("{} at {} ({})", results.model, results.server, results.security))
        .with_cell_size(WIDTH, HEIGHT)
        .with_plots(vec![upper.0, lower.0])
        .with_layouts(vec![upper.1, lower.1])
}

/// What is drawn in one panel, and its axes.
type Panel = (Vec<Plot>, Layout);

fn over_time(point: &Point) -> Panel {
    let slices = &point.timeline;
    let width = slices.get(1).map_or(point.measured_s, |second| second.from_s);
    type Of = fn(&super::results::TimelineSlice) -> f64;
    let series: [(&str, Of); 3] =
        [("p50", |slice| slice.p50_ms), ("p99", |slice| slice.p99_ms), ("max", |slice| slice.max_ms)];
    let plots = series.iter().enumerate().map(|(index, (name, of))| {
        let answered = slices.iter().filter(|slice| slice.answered > 0);
        line(name, index, answered.map(|slice| (slice.from_s + width / 2.0, of(slice))))
    });
    let plots: Vec<Plot> = plots.collect();
    let mut layout = latency_axis(Layout::auto_from_plots(&plots))
        .with_x_label("seconds since measuring began")
        .with_x_axis_min(0.0)
        .with_x_axis_max(point.measured_s)
        .with_title(format!(
            "{} {}: {}/s answered",
            point.protocol,
            table::load(&point.load),
            table::number(point.answered_per_s)
        ));
    for slice in slices.iter().filter(|slice| slice.failed + slice.unsent > 0) {
        let region = ShadedRegion::vertical(slice.from_s, slice.from_s + width);
        layout = layout.with_shaded_region(region.with_color(TROUBLE).with_opacity(0.25));
    }
    let shown = slices.iter().filter(|slice| slice.answered > 0);
    let heights = Heights::of(shown.flat_map(|slice| [slice.p50_ms, slice.max_ms]));
    for (index, event) in point.events.iter().enumerate() {
        let label = [event.kind.as_str(), event.version.as_str()].join(" ");
        // Right of its line, or left of it where there is no room; text is centred on its place.
        let half = label.len() as f64 * LETTER / 2.0 / WIDTH * point.measured_s;
        let right = event.at_s + 2.2 * half < point.measured_s;
        let middle = if right { event.at_s + 1.1 * half } else { event.at_s - 1.1 * half };
        layout = layout
            .with_reference_line(ReferenceLine::vertical(event.at_s).with_color(EVENT))
            .with_annotation(
                TextAnnotation::new(label.trim_end(), middle, heights.row(index))
                    .with_color(EVENT)
                    .with_font_size(11),
            );
    }
    (plots, layout)
}

/// Places for labels below each other: what belongs together happens within milliseconds.
struct Heights {
    /// The axis, in powers of ten.
    from: f64,
    to: f64,
}

impl Heights {
    fn of(latencies: impl Iterator<Item = f64>) -> Self {
        let powers: Vec<f64> = latencies.filter(|ms| *ms > 0.0).map(f64::log10).collect();
        Self {
            from: powers.iter().copied().fold(0.0, f64::min).floor(),
            to: powers.iter().copied().fold(0.0, f64::max).ceil(),
        }
    }

    fn row(&self, index: usize) -> f64 {
        let down = 0.06 * ((index % ROWS) + 1) as f64;
        10f64.powf(self.to - (self.to - self.from) * down)
    }
}

fn by_throughput(points: &[Point]) -> Panel {
    let mut protocols: Vec<&str> = points.iter().map(|point| point.protocol).collect();
    protocols.dedup();
    type Of = fn(&Spread) -> f64;
    let series: [(&str, Of); 2] = [("p50", |spread| spread.p50_ms), ("p99", |spread| spread.p99_ms)];
    let mut plots = vec![];
    for protocol in protocols {
        for (name, of) in series {
            let own = points.iter().filter(|point| point.protocol == protocol && point.answered > 0);
            let data = own.map(|point| (point.answered_per_s, of(&point.latency)));
            plots.push(line(&format!("{protocol} {name}"), plots.len(), data));
        }
    }
    let layout = latency_axis(Layout::auto_from_plots(&plots))
        .with_x_label("requests answered a second")
        .with_title("latency against throughput");
    (plots, layout)
}

/// Latency below which a share of the requests stayed, for shares that come ever closer to all.
fn percentiles(spreads: &[(&str, &Spread)]) -> Panel {
    let plots = spreads.iter().enumerate();
    let plots: Vec<Plot> =
        plots.map(|(index, (name, spread))| line(name, index, curve(&spread.buckets))).collect();
    let layout = latency_axis(Layout::auto_from_plots(&plots))
        .with_log_x()
        .with_x_label("percent of the requests that were faster")
        .with_x_tick_format(TickFormat::Custom(Arc::new(share)));
    (plots, layout)
}

/// One in how many requests is slower, and how slow that is.
fn curve(buckets: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    let mut curve: Vec<(f64, f64)> = vec![];
    for (up_to, count) in buckets {
        // Where the bucket begins: those before it are faster.
        let slower = all as f64 / (all - below) as f64;
        below += count;
        if slower <= FURTHEST {
            curve.push((slower, *up_to));
        }
    }
    curve
}

/// The tick at one slower request in `slower`, as the percentile that it is.
fn share(slower: f64) -> String {
    let nines = slower.log10().round().max(0.0) as i32;
    if (slower / 10f64.powi(nines) - 1.0).abs() > 1e-6 {
        return String::new();
    }
    match nines {
        0 => "0".into(),
        1 => "90".into(),
        more => format!("{:.*}", (more - 2) as usize, 100.0 - 10f64.powi(2 - more)),
    }
}

fn latency_axis(layout: Layout) -> Layout {
    layout.with_log_y().with_y_label("latency, ms").with_legend_position(LegendPosition::OutsideRightTop)
}

fn line(name: &str, index: usize, data: impl IntoIterator<Item = (f64, f64)>) -> Plot {
    LinePlot::new()
        .with_data(data)
        .with_color(COLORS[index % COLORS.len()])
        .with_stroke_width(1.5)
        .with_legend(name)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::specimen;

    fn drawn(points: usize, name: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(name);
        write(&specimen::results(points), &file).expect("drawn");
        std::fs::read(file).expect("written")
    }

    #[test]
    fn a_picture_has_the_model_both_axes_and_what_happened() {
        let svg = String::from_utf8(drawn(1, "a.svg")).expect("text");
        for said in [
            "digits at https://localhost:8443",
            "seconds since",
            "percent of the requests",
            "split.changed",
            "first.answer 2",
        ] {
            assert!(svg.contains(said), "{said}");
        }
    }

    #[test]
    fn a_sweep_is_drawn_against_throughput_and_a_png_is_one() {
        let svg = String::from_utf8(drawn(2, "a.svg")).expect("text");
        assert!(svg.contains("requests answered a second") && !svg.contains("seconds since"));
        assert!(drawn(1, "a.png").starts_with(b"\x89PNG"));
    }

    #[test]
    fn the_curve_ends_at_the_slowest_and_its_ticks_are_percentiles() {
        let curve = curve(&[(1.0, 90), (2.0, 9), (5.0, 1)]);
        assert_eq!(curve, [(1.0, 1.0), (10.0, 2.0), (100.0, 5.0)]);
        assert_eq!([1.0, 10.0, 100.0, 1e3, 1e5, 20.0].map(share), ["0", "90", "99", "99.9", "99.999", ""]);
    }

    #[test]
    fn nothing_is_no_picture() {
        let failure = write(&specimen::results(0), Path::new("never.svg")).expect_err("nothing");
        assert!(failure.to_string().contains("never.svg"), "{failure}");
    }
}
