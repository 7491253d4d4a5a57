//! Plots, as SVG.
//!
//! **Problem.** A plot in a README stands on a light ground for one reader and on a dark one for the next,
//! but plotters writes colours into each element.
//!
//! **Choice.** Plots are drawn in the inks of the light ground. A style sheet that is put into the file
//! replaces each ink by its counterpart where the reader prefers dark: rules come before attributes.

mod bars;
mod curves;

use std::io;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) use bars::{Bar, BarChart};
pub(crate) use curves::{Curve, CurveChart};

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

/// A place to draw on, in pixels.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// Pixels.
const SIZE: (u32, u32) = (860, 400);
const LEGEND_WIDTH: u32 = 190;
const LINE_HEIGHT: i32 = 22;
const MARGIN: i32 = 14;

fn text<'a>(size: u32, ink: Ink) -> TextStyle<'a> {
    // plotters divides sizes by this before it writes them.
    const POINTS: f64 = 1.24;
    ("system-ui, sans-serif", f64::from(size) * POINTS).into_font().color(&ink.colour())
}

fn label<'a>() -> TextStyle<'a> {
    text(12, FAINT).pos(Pos::new(HPos::Left, VPos::Center))
}

/// How an entry of the legend looks.
#[derive(Clone, Copy)]
enum Swatch {
    Line { ink: Ink, dashed: bool },
    Block { ink: Ink, opacity: f64 },
}

/// A plot with its title above and its legend to the right.
fn plot(
    title: &str,
    legend: &[(String, Swatch)],
    paint: impl FnOnce(&Area) -> Drawn,
) -> io::Result<String> {
    let mut svg = String::new();
    let draw = |svg: &mut String| -> Drawn {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&GROUND.colour())?;
        root.draw(&Text::new(title, (MARGIN, MARGIN), text(14, TEXT)))?;
        let below = root.margin(MARGIN + LINE_HEIGHT, 0, 0, 0);
        let (chart, side) = below.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        paint(&chart)?;
        legend.iter().zip(0..).try_for_each(|((name, swatch), row)| {
            draw_entry(&side, MARGIN + row * LINE_HEIGHT, name, *swatch)
        })?;
        root.present()
    };
    draw(&mut svg).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(for_both_grounds(&svg, title))
}

fn draw_entry(side: &Area, y: i32, name: &str, swatch: Swatch) -> Drawn {
    const WIDTH: i32 = 22;
    match swatch {
        Swatch::Line { ink, dashed } => {
            let ends = [(0, y), (WIDTH, y)];
            draw_line(side, ends, ink, dashed)?;
        }
        Swatch::Block { ink, opacity } => {
            let corners = [(0, y - 6), (WIDTH, y + 6)];
            side.draw(&Rectangle::new(corners, ink.colour().mix(opacity).filled()))?;
        }
    }
    side.draw(&Text::new(name.to_owned(), (WIDTH + 8, y), label()))
}

fn draw_line(side: &Area, ends: [(i32, i32); 2], ink: Ink, dashed: bool) -> Drawn {
    let style = ink.colour().stroke_width(LINE_WIDTH);
    match dashed {
        false => side.draw(&PathElement::new(ends, style)),
        true => side.draw(&DashedPathElement::new(ends, DASH, GAP, style)),
    }
}

/// Pixels.
const LINE_WIDTH: u32 = 2;
const DASH: i32 = 6;
const GAP: i32 = 4;

/// Puts in the style sheet, and the title for those who have it read to them.
fn for_both_grounds(svg: &str, title: &str) -> String {
    let rules = INKS.map(Ink::rules).concat();
    let (open, rest) = svg.split_once('>').expect("it opens with a tag");
    format!(
        "{open} role=\"img\" aria-label=\"{title}\">\n\
         <style>@media (prefers-color-scheme: dark){{{rules}}}</style>{rest}"
    )
}
