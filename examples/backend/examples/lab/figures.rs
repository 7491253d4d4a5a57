//! Which plots there are.

use std::io;

use crate::machine::Place;
use crate::mixed::Variant;
use crate::plot::{BLUE, Bars, GREEN, Ink, OCHRE, ROSE, Series};
use crate::report::Report;
use crate::waiting::{self, Class};
use crate::way::Way;
use crate::workers::Kind;

/// A plot on the page.
pub(crate) struct Figure {
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) svg: String,
}

/// Those of which something was measured.
pub(crate) fn all(report: &Report) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (place, part) in Place::all().iter().zip(["one-core", "all-cores"]) {
        let on = place.name();
        let rate = |row: &waiting::Row| row.requests_per_second;
        let cpu = |row: &waiting::Row| row.cpu_percent;
        let title = format!("Requests per second by what they wait for, on {on}");
        figures.push((
            format!("throughput-{part}.svg"),
            waiting(report, *place, title, "requests/s", rate),
        ));
        let title = format!("CPU use by what requests wait for, on {on}");
        figures.push((format!("cpu-{part}.svg"), waiting(report, *place, title, "%", cpu)));
    }
    figures.push(("memory.svg".into(), memory(report)));
    figures.push(("mixed.svg".into(), mixed(report)));
    figures.push(("workers.svg".into(), workers(report)));
    let has_values = |bars: &Bars| {
        !bars.groups.is_empty()
            && bars.series.iter().any(|series| series.values.iter().any(Option::is_some))
    };
    let filled = figures.into_iter().filter(|(_, bars)| has_values(bars));
    filled.map(|(file, bars)| Ok(Figure { file, svg: bars.svg()?, title: bars.title })).collect()
}

fn ink(way: Way) -> Ink {
    match way {
        Way::OneAtATime => GREEN,
        Way::OsThreads => OCHRE,
        Way::Green => BLUE,
        Way::Tokio => ROSE,
    }
}

fn waiting(
    report: &Report,
    place: Place,
    title: String,
    unit: &'static str,
    value: impl Fn(&waiting::Row) -> f64,
) -> Bars {
    let find = |class, way| {
        let is_it = |row: &&waiting::Row| (row.class, row.place, row.way) == (class, place, way);
        report.waiting.iter().find(is_it).map(&value)
    };
    let measured = |class: &Class| Way::ALL.iter().any(|way| find(*class, *way).is_some());
    let classes: Vec<Class> = Class::ALL.into_iter().filter(measured).collect();
    let series = Way::ALL.map(|way| Series {
        name: way.name().into(),
        ink: ink(way),
        opacity: 1.0,
        values: classes.iter().map(|class| find(*class, way)).collect(),
    });
    let groups = classes.iter().map(|class| class.name()).collect();
    Bars { title, unit, groups, series: series.into(), stacked: false }
}

fn memory(report: &Report) -> Bars {
    type Part = fn(&crate::crowd::Row) -> u64;
    let parts: [(&str, f64, Part); 4] = [
        ("resident", 1.0, |row| row.resident_bytes),
        ("page tables", 0.75, |row| row.page_table_bytes),
        ("kernel stacks", 0.5, |row| row.kernel_stack_bytes),
        ("kernel slabs", 0.25, |row| row.kernel_slab_bytes),
    ];
    let series = parts.map(|(name, opacity, part)| Series {
        name: name.into(),
        ink: BLUE,
        opacity,
        values: report.crowd.iter().map(|row| Some(part(row) as f64 / 1024.0 / 1024.0)).collect(),
    });
    Bars {
        title: "Memory while requests wait together".into(),
        unit: "MiB",
        groups: report
            .crowd
            .iter()
            .map(|row| format!("{}, {}", row.way.name(), row.under_way))
            .collect(),
        series: series.into(),
        stacked: true,
    }
}

fn mixed(report: &Report) -> Bars {
    let looks = |variant| match variant {
        Variant::Green => (BLUE, 1.0),
        Variant::GreenWithoutGroups => (BLUE, 0.75),
        Variant::GreenWithoutPreemption => (BLUE, 0.5),
        Variant::GreenWithoutBoth => (BLUE, 0.25),
        Variant::OsThreads => (OCHRE, 1.0),
        Variant::Tokio => (ROSE, 1.0),
        Variant::TokioInline => (ROSE, 0.5),
    };
    let series = report.mixed.iter().map(|row| {
        let (ink, opacity) = looks(row.variant);
        let values = vec![Some(row.idle.p99_ms), Some(row.loaded.p99_ms)];
        Series { name: row.variant.name().into(), ink, opacity, values }
    });
    Bars {
        title: "99 of 100 plain requests take at most".into(),
        unit: "ms",
        groups: vec!["alone".into(), "beside images".into()],
        series: series.collect(),
        stacked: false,
    }
}

fn workers(report: &Report) -> Bars {
    let mut numbers: Vec<usize> = report.workers.iter().map(|row| row.workers).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let series = Kind::ALL.into_iter().zip([GREEN, BLUE]).map(|(kind, ink)| {
        let find = |number: &usize| {
            let row = report.workers.iter().find(|row| (row.kind, row.workers) == (kind, *number));
            row.map(|row| row.requests_per_second)
        };
        let values = numbers.iter().map(find).collect();
        Series { name: kind.name().into(), ink, opacity: 1.0, values }
    });
    let name = |number: &usize| match number {
        1 => "1 worker".into(),
        _ => format!("{number} workers"),
    };
    Bars {
        title: "Green threads: requests per second by number of workers".into(),
        unit: "requests/s",
        groups: numbers.iter().map(name).collect(),
        series: series.collect(),
        stacked: false,
    }
}
