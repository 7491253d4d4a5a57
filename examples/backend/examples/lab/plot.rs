//! Bars in groups, as SVG.
//!
//! A plot stands on a light ground for one reader and on a dark one for the next, but plotters writes colours into each
//! element. So plots are drawn in the inks of the light ground, and a style sheet in the file replaces each by its
//! counterpart where the reader prefers dark: rules come before attributes. The axis of values is linear: only then can
//! bars be compared by their heights, and their parts add up.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A colour of the light ground, and its counterpart on the dark one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ink {
    light: u32,
    dark: u32,
}

const GROUND: Ink = Ink { light: 0xFFFFFF, dark: 0x0D1117 };
const TEXT: Ink = Ink { light: 0x24292F, dark: 0xE6EDF3 };
const FAINT: Ink = Ink { light: 0x59636E, dark: 0x9198A1 };
const GRID: Ink = Ink { light: 0xD1D9E0, dark: 0x30363D };
pub(crate) const BLUE: Ink = Ink { light: 0x2F78C4, dark: 0x5AA2EE };
pub(crate) const OCHRE: Ink = Ink { light: 0xA86400, dark: 0xE3A44A };
pub(crate) const GREEN: Ink = Ink { light: 0x2E8B57, dark: 0x56C088 };
pub(crate) const ROSE: Ink = Ink { light: 0xC2375F, dark: 0xF2708F };

const INKS: [Ink; 8] = [GROUND, TEXT, FAINT, GRID, BLUE, OCHRE, GREEN, ROSE];

impl Ink {
    fn colour(self) -> RGBColor {
        let [_, red, green, blue] = self.light.to_be_bytes();
        RGBColor(red, green, blue)
    }

    /// The rules that replace it; plotters writes digits in capitals.
    fn rules(self) -> String {
        let Ink { light, dark } = self;
        ["fill", "stroke"]
            .map(|paint| format!("[{paint}=\"#{light:06X}\"]{{{paint}:#{dark:06X}}}"))
            .concat()
    }
}

/// What has a bar, or a part of one, in each group.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) ink: Ink,
    pub(crate) opacity: f64,
    /// One for each group, if it was measured.
    pub(crate) values: Vec<Option<f64>>,
}

pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) groups: Vec<String>,
    pub(crate) series: Vec<Series>,
    /// The series are parts of one bar, from below.
    pub(crate) stacked: bool,
}

/// A place to draw on, in pixels.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// Pixels.
const SIZE: (u32, u32) = (860, 380);
const LEGEND_WIDTH: u32 = 220;
const LINE_HEIGHT: i32 = 22;
const MARGIN: i32 = 14;

/// The width of a group of bars on its axis: key points can be chosen on an axis of integers only.
const GROUP: i32 = 1_000;

impl Bars {
    pub(crate) fn svg(&self) -> io::Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| io::Error::other(error.to_string()))?;
        let rules = INKS.map(Ink::rules).concat();
        let (open, rest) = svg.split_once('>').expect("it opens with a tag");
        Ok(format!(
            "{open} role=\"img\" aria-label=\"{}\">\n\
             <style>@media (prefers-color-scheme: dark){{{rules}}}</style>{rest}",
            self.title
        ))
    }

    fn draw(&self, svg: &mut String) -> Drawn {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&GROUND.colour())?;
        root.draw(&Text::new(self.title.as_str(), (MARGIN, MARGIN), text(14, TEXT)))?;
        let below = root.margin(MARGIN + LINE_HEIGHT, 0, 0, 0);
        let (chart, side) = below.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        self.draw_bars(&chart)?;
        for (series, row) in self.series.iter().zip(0..) {
            let y = MARGIN + row * LINE_HEIGHT;
            side.draw(&Rectangle::new([(0, y - 6), (22, y + 6)], series.style()))?;
            side.draw(&Text::new(series.name.as_str(), (30, y), label()))?;
        }
        root.present()
    }

    fn draw_bars(&self, area: &Area) -> Drawn {
        let groups = self.groups.len() as i32;
        let middles = (0..groups).map(|group| group * GROUP + GROUP / 2).collect();
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .x_label_area_size(LINE_HEIGHT)
            .y_label_area_size(4 * LINE_HEIGHT)
            .build_cartesian_2d(
                (0..groups * GROUP).with_key_points(middles),
                0.0..(self.highest() * 1.05).max(f64::MIN_POSITIVE),
            )?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID.colour())
            .light_line_style(TRANSPARENT)
            .axis_style(FAINT.colour())
            .label_style(label())
            .axis_desc_style(text(12, FAINT))
            .y_desc(self.unit)
            .x_label_formatter(&|middle| self.groups[(middle / GROUP) as usize].clone())
            .draw()?;
        // A bar's width, where there is one more for the gap between groups.
        let bars = if self.stacked { 1 } else { self.series.len() as i32 };
        let width = GROUP / (bars + 1);
        for group in 0..groups {
            let mut below = 0.0;
            for (series, bar) in self.series.iter().zip(0..) {
                let Some(value) = series.values[group as usize] else { continue };
                let bar = if self.stacked { 0 } else { bar };
                let left = group * GROUP + width / 2 + bar * width;
                let corners =
                    [(left + width / 20, below), (left + width - width / 20, below + value)];
                chart.draw_series([Rectangle::new(corners, series.style())])?;
                below += if self.stacked { value } else { 0.0 };
            }
        }
        Ok(())
    }

    fn highest(&self) -> f64 {
        let of_group = |group: usize| {
            let values = self.series.iter().filter_map(|series| series.values[group]);
            if self.stacked { values.sum() } else { values.fold(0.0, f64::max) }
        };
        (0..self.groups.len()).map(of_group).fold(0.0, f64::max)
    }
}

impl Series {
    fn style(&self) -> ShapeStyle {
        self.ink.colour().mix(self.opacity).filled()
    }
}

fn text<'a>(size: u32, ink: Ink) -> TextStyle<'a> {
    // plotters divides sizes by this before it writes them.
    const POINTS: f64 = 1.24;
    ("system-ui, sans-serif", f64::from(size) * POINTS).into_font().color(&ink.colour())
}

fn label<'a>() -> TextStyle<'a> {
    text(12, FAINT).pos(Pos::new(HPos::Left, VPos::Center))
}
