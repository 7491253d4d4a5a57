//! Curves over the number of threads, both axes logarithmic: equal ratios are equal distances.

use std::io;

use plotters::prelude::*;

use super::{
    Area, DASH, Drawn, FAINT, GAP, GRID, Ink, LINE_HEIGHT, LINE_WIDTH, MARGIN, Swatch, label, plot,
    text,
};
use crate::measure::Samples;
use crate::report::grouped;

/// One line, with error bars from the least to the greatest value.
pub(crate) struct Curve<'a> {
    pub(crate) name: String,
    pub(crate) ink: Ink,
    pub(crate) dashed: bool,
    /// By number of threads.
    pub(crate) points: Vec<(usize, &'a Samples)>,
}

pub(crate) struct CurveChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) curves: Vec<Curve<'a>>,
}

impl CurveChart<'_> {
    pub(crate) fn svg(&self) -> io::Result<String> {
        let entry = |curve: &Curve| {
            let Curve { ink, dashed, .. } = *curve;
            (curve.name.clone(), Swatch::Line { ink, dashed })
        };
        let legend: Vec<_> = self.curves.iter().map(entry).collect();
        plot(self.title, &legend, |area| self.paint(area))
    }

    fn paint(&self, area: &Area) -> Drawn {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let threads = Decades::around(points().map(|(threads, _)| *threads as f64));
        let values = Decades::around(points().flat_map(|(_, samples)| [samples.min, samples.max]));
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .x_label_area_size(2 * LINE_HEIGHT)
            .y_label_area_size(4 * LINE_HEIGHT)
            .build_cartesian_2d(
                threads.padded().log_scale().with_key_points(threads.all()),
                values.range().log_scale().with_key_points(values.all()),
            )?;
        let number = |value: &f64| grouped(*value);
        chart
            .configure_mesh()
            .bold_line_style(GRID.colour())
            .axis_style(FAINT.colour())
            .label_style(label())
            .axis_desc_style(text(12, FAINT))
            .x_desc("threads")
            .y_desc(self.unit)
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .draw()?;
        for curve in &self.curves {
            let style = curve.ink.colour().stroke_width(LINE_WIDTH);
            let medians =
                curve.points.iter().map(|(threads, samples)| (*threads as f64, samples.median));
            match curve.dashed {
                false => _ = chart.draw_series(LineSeries::new(medians, style))?,
                true => _ = chart.draw_series(DashedLineSeries::new(medians, DASH, GAP, style))?,
            }
            chart.draw_series(curve.points.iter().map(|(threads, samples)| {
                let Samples { min, median, max, .. } = **samples;
                ErrorBar::new_vertical(
                    *threads as f64,
                    min,
                    median,
                    max,
                    curve.ink.colour().filled(),
                    8,
                )
            }))?;
        }
        Ok(())
    }
}

/// Whole powers of ten around some values.
struct Decades {
    least: i32,
    greatest: i32,
}

impl Decades {
    fn around(values: impl Iterator<Item = f64>) -> Decades {
        let powers =
            values.map(f64::log10).fold((f64::MAX, f64::MIN), |(least, greatest), power| {
                (least.min(power), greatest.max(power))
            });
        Decades { least: powers.0.floor() as i32, greatest: powers.1.ceil() as i32 }
    }

    fn all(&self) -> Vec<f64> {
        (self.least..=self.greatest).map(|power| 10_f64.powi(power)).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        10_f64.powi(self.least)..10_f64.powi(self.greatest)
    }

    /// With room for error bars at both ends.
    fn padded(&self) -> std::ops::Range<f64> {
        const PADDING: f64 = 1.4;
        self.range().start / PADDING..self.range().end * PADDING
    }
}
