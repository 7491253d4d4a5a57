//! What the story claims, beside what was measured.
//!
//! Claims are told, not judged: a machine that is busy with something else, or has one core, cannot keep them. Two
//! figures that differ by less than [`NOISE`] are taken to be equal.

use std::fmt;

use serde::Serialize;

use crate::crowd;
use crate::machine::Place;
use crate::mixed::Variant;
use crate::report::{Report, bytes, figure};
use crate::waiting::{self, Class};
use crate::way::Way;

/// What the same measurement differs by from one time to the next, in short stretches.
const NOISE: f64 = 0.03;

/// A sentence, and whether it came true.
#[derive(Debug, Serialize)]
pub(crate) struct Claim {
    text: String,
    figures: String,
    pub(crate) is_met: bool,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met { "met" } else { "MISSED" };
        write!(f, "{verdict:<7} {}: {}", self.text, self.figures)
    }
}

fn claim(text: impl Into<String>, figures: impl Into<String>, is_met: bool) -> Claim {
    Claim { text: text.into(), figures: figures.into(), is_met }
}

/// Those of which enough was measured.
pub(crate) fn claims(report: &Report) -> Vec<Claim> {
    let mut claims = Vec::new();
    let row = |place, way| {
        let is_it =
            |row: &&waiting::Row| (row.class, row.place, row.way) == (Class::Story, place, way);
        report.waiting.iter().find(is_it)
    };
    for &place in Place::all() {
        if let (Some(one), Some(green)) = (row(place, Way::OneAtATime), row(place, Way::Green)) {
            claims.extend(beside_one_at_a_time(one, green));
        }
        if let (Some(green), Some(tokio)) = (row(place, Way::Green), row(place, Way::Tokio)) {
            claims.extend(beside_tokio(green, tokio));
        }
    }
    let crowd = |way| report.crowd.iter().find(|row| row.way == way);
    if let (Some(green), Some(os)) = (crowd(Way::Green), crowd(Way::OsThreads)) {
        claims.push(memory(green, os, crowd(Way::Tokio)));
    }
    if let Some(row) = report.mixed.iter().find(|row| row.variant == Variant::Green) {
        claims.push(claim(
            "with images on all cores, the p99 of plain requests stays within 5 times its idle value",
            format!(
                "{} ms and {} ms, {} times",
                figure(row.idle.p99_ms),
                figure(row.loaded.p99_ms),
                row.p99_times.map_or_else(|| "no".into(), figure)
            ),
            row.p99_times.is_some_and(|times| times <= 5.0),
        ));
    }
    let (errors, first) = report.errors();
    let example = first.map_or_else(String::new, |first| format!(", for example: {first}"));
    claims.push(claim("no answer is lost or wrong", format!("{errors} are{example}"), errors == 0));
    claims
}

fn beside_one_at_a_time(one: &waiting::Row, green: &waiting::Row) -> Vec<Claim> {
    let place = one.place.name();
    let cores = one.place.of_service().len();
    // One request at a time uses one core at a time.
    let of_a_core = one.cpu_percent * cores as f64;
    let times = green.requests_per_second / one.requests_per_second;
    vec![
        claim(
            format!("{place}: one at a time uses about 4 % of a core"),
            format!("{} %", figure(of_a_core)),
            (3.0..=6.0).contains(&of_a_core),
        ),
        claim(
            format!("{place}: green threads use at least 95 %"),
            format!("{} %", figure(green.cpu_percent)),
            green.cpu_percent >= 95.0,
        ),
        claim(
            format!("{place}: green threads serve at least 20 times as many requests"),
            format!(
                "{} and {} requests/s, {} times",
                figure(one.requests_per_second),
                figure(green.requests_per_second),
                figure(times)
            ),
            times >= 20.0,
        ),
    ]
}

fn beside_tokio(green: &waiting::Row, tokio: &waiting::Row) -> [Claim; 2] {
    let place = green.place.name();
    let both = |value: fn(&waiting::Row) -> f64, unit| {
        format!("{} and {} {unit}", figure(value(green)), figure(value(tokio)))
    };
    let rate = |row: &waiting::Row| row.requests_per_second;
    let p99 = |row: &waiting::Row| row.p99_ms;
    [
        claim(
            format!("{place}: green threads match or beat tokio's throughput"),
            both(rate, "requests/s"),
            rate(green) >= rate(tokio) * (1.0 - NOISE),
        ),
        claim(
            format!("{place}: at a p99 no worse"),
            both(p99, "ms"),
            p99(green) <= p99(tokio) * (1.0 + NOISE),
        ),
    ]
}

fn memory(green: &crowd::Row, os: &crowd::Row, tokio: Option<&crowd::Row>) -> Claim {
    let times = |row: &crowd::Row| row.bytes_per_request / green.bytes_per_request;
    let beside_tokio = tokio.map_or_else(String::new, |tokio| {
        format!(
            "; a task of tokio {} ({} times)",
            bytes(tokio.bytes_per_request),
            figure(times(tokio))
        )
    });
    claim(
        format!(
            "a request that waits on a green thread takes far less memory than on an OS thread, of {}",
            green.under_way
        ),
        format!(
            "{} and {}, 1/{}{beside_tokio}",
            bytes(green.bytes_per_request),
            bytes(os.bytes_per_request),
            figure(times(os))
        ),
        times(os) >= 2.0,
    )
}
