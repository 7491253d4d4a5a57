//! Stacked bars in groups, one for each number of threads. The axis of values is linear: only then do
//! the parts of a bar add up to its height.

use std::io;

use plotters::prelude::*;

use super::{Area, Drawn, FAINT, GRID, Ink, LINE_HEIGHT, MARGIN, Swatch, TEXT, label, plot, text};
use crate::measure::Samples;
use crate::report::grouped;

/// One side at one number of threads.
pub(crate) struct Bar<'a> {
    pub(crate) threads: usize,
    pub(crate) ink: Ink,
    /// From below.
    pub(crate) parts: [f64; 3],
    pub(crate) sum: &'a Samples,
}

pub(crate) struct BarChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    /// The sides, from left to right in each group.
    pub(crate) sides: Vec<(Ink, String)>,
    pub(crate) parts: [&'a str; 3],
    pub(crate) bars: Vec<Bar<'a>>,
}

/// The width of a group of bars on its axis: key points can be chosen on an axis of integers only.
const GROUP: i32 = 1_000;

/// Of the parts.
const OPACITIES: [f64; 3] = [1.0, 0.65, 0.35];

impl BarChart<'_> {
    pub(crate) fn svg(&self) -> io::Result<String> {
        let block = |name: &str, ink, opacity| (name.to_owned(), Swatch::Block { ink, opacity });
        let sides = self.sides.iter().map(|(ink, name)| block(name, *ink, 1.0));
        let parts = self.parts.iter().zip(OPACITIES);
        let parts = parts.rev().map(|(name, opacity)| block(name, FAINT, opacity));
        let legend: Vec<_> = sides.chain(parts).collect();
        plot(self.title, &legend, |area| self.paint(area))
    }

    fn paint(&self, area: &Area) -> Drawn {
        let mut groups: Vec<usize> = self.bars.iter().map(|bar| bar.threads).collect();
        groups.sort_unstable();
        groups.dedup();
        let most = self.bars.iter().map(|bar| bar.sum.max).fold(0.0, f64::max);
        let middles = (0..groups.len() as i32).map(|group| group * GROUP + GROUP / 2).collect();
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .x_label_area_size(2 * LINE_HEIGHT)
            .y_label_area_size(4 * LINE_HEIGHT)
            .build_cartesian_2d(
                (0..groups.len() as i32 * GROUP).with_key_points(middles),
                0.0..most * 1.05,
            )?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID.colour())
            .light_line_style(TRANSPARENT)
            .axis_style(FAINT.colour())
            .label_style(label())
            .axis_desc_style(text(12, FAINT))
            .x_desc("threads")
            .y_desc(self.unit)
            .x_label_formatter(&|middle| grouped(groups[(middle / GROUP) as usize] as f64))
            .y_label_formatter(&|bytes| grouped(*bytes))
            .draw()?;
        // A bar's width, where there is one more for the gap between groups.
        let width = GROUP / (self.sides.len() as i32 + 1);
        for bar in &self.bars {
            let group = groups.iter().position(|threads| *threads == bar.threads);
            let side = self.sides.iter().position(|(ink, _)| *ink == bar.ink);
            let (Some(group), Some(side)) = (group, side) else { continue };
            let left = group as i32 * GROUP + width / 2 + side as i32 * width;
            let mut below = 0.0;
            for (part, opacity) in bar.parts.into_iter().zip(OPACITIES) {
                // What the whole system adds to a part may be less than nothing.
                let above = below + part.max(0.0);
                let corners = [(left + width / 20, below), (left + width - width / 20, above)];
                let style = bar.ink.colour().mix(opacity).filled();
                chart.draw_series([Rectangle::new(corners, style)])?;
                below = above;
            }
            let Samples { min, median, max, .. } = *bar.sum;
            let middle = left + width / 2;
            let style = TEXT.colour().filled();
            chart.draw_series([ErrorBar::new_vertical(middle, min, median, max, style, 6)])?;
        }
        Ok(())
    }
}
