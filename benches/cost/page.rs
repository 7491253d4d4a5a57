//! The report as a folder: figures for programs, plots, and a page that shows them beside the tables.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::case::Kind;
use crate::measure::Samples;
use crate::plot::{BLUE, Bar, BarChart, Curve, CurveChart, GREEN, Ink, OCHRE, ROSE};
use crate::report::Report;
use crate::sweep::Point;

/// Where reports go unless told otherwise: beside the rest of what cargo makes.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("report")
}

/// The page's file.
pub(crate) const NAME: &str = "report.md";

/// Writes all of it.
pub(crate) fn write(report: &Report, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    serde_json::to_writer_pretty(File::create(folder.join("report.json"))?, report)?;
    let figures = figures(report)?;
    for figure in &figures {
        fs::write(folder.join(figure.file), &figure.svg)?;
    }
    let mut page = File::create(folder.join(NAME))?;
    writeln!(page, "# What a green thread costs\n\n```text\n{}```\n", report.origin())?;
    for Figure { file, title, meaning, .. } in figures {
        writeln!(page, "## {title}\n\n![{title}]({file})\n\n{meaning}\n")?;
    }
    writeln!(page, "## Tables\n\n{}", report.tables())?;
    report.remarks().try_for_each(|remark| writeln!(page, "- {remark}"))
}

/// A plot on the page.
struct Figure {
    file: &'static str,
    title: &'static str,
    meaning: &'static str,
    svg: String,
}

fn figures(report: &Report) -> io::Result<Vec<Figure>> {
    Ok(vec![
        figure(
            "creation.svg",
            "Creation: from spawn to join, all threads alive at the same time",
            "nanoseconds per thread",
            "Each thread is spawned, parks when it has come up, is unparked when all are there, ends, and \
             is joined. The first time its stack is touched for the first time, too; later stacks are \
             warm. The floor is a coroutine on a warm stack that is made, run until it suspends itself, \
             and run to its end.",
            creation(&report.sweep),
        )?,
        figure(
            "switch.svg",
            "Switch: a yield, while all threads yield",
            "nanoseconds per yield",
            "All threads yield in turns. With many of them each finds its stack in a farther cache, or in \
             memory, and so does the floor: coroutines that are resumed in turns, and a write of the \
             thread pointer.",
            curves(&report.sweep, |point| &point.switch),
        )?,
        figure(
            "wake.svg",
            "Wake-up: a parked thread is unparked, runs, and parks again",
            "nanoseconds per wake-up",
            "One thread unparks all the others in turn and parks until the last of them has run and parked \
             again. The floor is that of a switch.",
            curves(&report.sweep, |point| &point.wake),
        )?,
        memory(report)?,
    ])
}

fn figure(
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    meaning: &'static str,
    curves: Vec<Curve>,
) -> io::Result<Figure> {
    let svg = CurveChart { title, unit, curves }.svg()?;
    Ok(Figure { file, title, meaning, svg })
}

type OfPoint = fn(&Point) -> &Samples;

/// A curve for each side.
fn curves(points: &[Point], samples: OfPoint) -> Vec<Curve<'_>> {
    let sides = [
        (Kind::Std, "std", OCHRE, false),
        (Kind::DEFAULT, "uthread", BLUE, false),
        (Kind::Coroutine, "floor: bare coroutines", GREEN, true),
    ];
    let curve = |(kind, name, ink, dashed)| Curve {
        name: String::from(name),
        ink,
        dashed,
        points: of(points, kind, samples),
    };
    sides.map(curve).into()
}

/// Green threads have a curve more: the first ones pay for their stacks.
fn creation(points: &[Point]) -> Vec<Curve<'_>> {
    let first = Curve {
        name: "uthread, the first time".into(),
        ink: BLUE,
        dashed: true,
        points: of(points, Kind::DEFAULT, |point| &point.first_life),
    };
    let mut curves = curves(points, |point| &point.life);
    curves.insert(1, first);
    curves
}

/// The points of one side.
fn of(points: &[Point], kind: Kind, samples: OfPoint) -> Vec<(usize, &Samples)> {
    let points = points.iter().filter(|point| point.kind == kind);
    points.map(|point| (point.threads, samples(point))).collect()
}

fn memory(report: &Report) -> io::Result<Figure> {
    let title = "Memory of a parked thread";
    let sides: [(Kind, Ink, &str); 4] = [
        (Kind::Std, OCHRE, "std"),
        (Kind::DEFAULT, BLUE, "uthread"),
        (Kind::SMALL, ROSE, "uthread, small stacks"),
        (Kind::Coroutine, GREEN, "floor: bare coroutines"),
    ];
    let bars = report.memory.iter().filter_map(|row| {
        let (_, ink, _) = *sides.iter().find(|(kind, ..)| *kind == row.kind)?;
        let parts = [&row.resident, &row.page_tables, &row.kernel].map(|part| part.median);
        Some(Bar { threads: row.threads, ink, parts, sum: &row.all })
    });
    let chart = BarChart {
        title,
        unit: "bytes per thread",
        bars: bars.collect(),
        sides: sides.map(|(_, ink, name)| (ink, name.into())).into(),
        parts: ["resident", "page tables", "kernel"],
    };
    Ok(Figure {
        file: "memory.svg",
        title,
        meaning: "Resident memory is the stack with what lies on it, and what the heap holds of a thread. \
                  What the kernel allocates for itself is known for the whole system only; with few \
                  threads it says little.",
        svg: chart.svg()?,
    })
}
