//! From a loop to a figure: calibration, interleaved rounds, median and range.
//!
//! **Problem.** On a shared machine the speed of everything drifts within seconds,
//! so two figures taken one after the other differ even where the code does not.
//!
//! **Alternatives.** Criterion measures one function for some seconds, then the next one, and compares
//! with a stored earlier run: the drift goes into the comparison.
//!
//! **Choice.** What is to be compared takes turns, in stretches short enough to see the same weather
//! (floor, uthread, std, floor, uthread, std, ...). Ratios are those of the medians. The clock is read
//! twice per stretch, never per operation: a reading can cost as much as a switch.

use std::io;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

/// What one stretch of a measured loop took.
pub(crate) struct Timed {
    pub(crate) operations: usize,
    pub(crate) elapsed: Duration,
}

impl Timed {
    pub(crate) fn nanoseconds_each(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.operations as f64
    }
}

/// A loop that does at least so many operations, and what that took, preparations excluded.
pub(crate) type Stretch<'a> = Box<dyn FnMut(usize) -> Timed + 'a>;

/// The loop that calls `operation`.
pub(crate) fn repeated<'a>(mut operation: impl FnMut() + 'a) -> Stretch<'a> {
    Box::new(move |operations| {
        let start = Instant::now();
        for _ in 0..operations {
            operation();
        }
        Timed { operations, elapsed: start.elapsed() }
    })
}

/// How long and how often to measure.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// How long one side is measured in one round.
    #[serde(rename = "stretch_ms", serialize_with = "as_milliseconds")]
    pub(crate) stretch: Duration,
}

fn as_milliseconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64() * 1e3)
}

impl Plan {
    /// Measures them in turns; the result is in the same order, nanoseconds per operation.
    pub(crate) fn in_turns<'a>(
        &self,
        stretches: impl IntoIterator<Item = Stretch<'a>>,
    ) -> Vec<Samples> {
        let calibrated = |stretch| Meter::calibrated(stretch, self.stretch);
        let mut meters: Vec<_> = stretches.into_iter().map(calibrated).collect();
        let mut values = vec![Vec::with_capacity(self.rounds); meters.len()];
        for _ in 0..self.rounds {
            for (meter, values) in meters.iter_mut().zip(&mut values) {
                values.push(meter.sample());
            }
        }
        values.into_iter().map(Samples::from).collect()
    }

    /// Measures uthread, std and the floor in turns. The floor is a sum of parts; a part that this
    /// machine does not have leaves the comparison without a floor, and a remark says why.
    pub(crate) fn compare<'a>(
        &self,
        uthread: Stretch<'a>,
        std: Stretch<'a>,
        floor: io::Result<Vec<Part>>,
    ) -> Comparison {
        let (parts, remarks) = match floor {
            Ok(parts) => (parts, Vec::new()),
            Err(reason) => (Vec::new(), vec![format!("no floor: {reason}")]),
        };
        let (times, mut stretches): (Vec<f64>, Vec<Stretch>) =
            parts.into_iter().map(|part| (part.times, part.stretch)).unzip();
        stretches.extend([uthread, std]);
        let mut samples = self.in_turns(stretches);
        let std = samples.pop().expect("one per stretch");
        let uthread = samples.pop().expect("one per stretch");
        let floor = (!samples.is_empty()).then(|| Samples::weighted_sum(&times, &samples));
        Comparison { uthread, std, floor, remarks }
    }
}

/// One summand of a floor: an operation that cannot be avoided, and how often it happens.
pub(crate) struct Part {
    pub(crate) times: f64,
    pub(crate) stretch: Stretch<'static>,
}

/// The outcome of one comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) uthread: Samples,
    pub(crate) std: Samples,
    pub(crate) floor: Option<Samples>,
    pub(crate) remarks: Vec<String>,
}

impl Comparison {
    pub(crate) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }
}

/// A stretch and the number of operations that makes it as long as it should be.
struct Meter<'a> {
    stretch: Stretch<'a>,
    operations: usize,
    /// The last one that calibrated it.
    last: Timed,
}

impl<'a> Meter<'a> {
    /// Runs ever longer stretches until one nears `target`. They are the warm-up, too.
    fn calibrated(mut stretch: Stretch<'a>, target: Duration) -> Meter<'a> {
        let mut operations = 1;
        loop {
            let timed = stretch(operations);
            let missing = target.as_secs_f64() / timed.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
            // The first stretches are slow with first touches and would mislead a longer leap.
            let growth = missing.min(10.0);
            operations = (timed.operations as f64 * growth).ceil() as usize;
            if missing < 2.0 {
                return Meter { stretch, operations, last: timed };
            }
        }
    }

    fn sample(&mut self) -> f64 {
        (self.stretch)(self.operations).nanoseconds_each()
    }
}

/// Measures it once, for about that long, in nanoseconds per operation. Stretches that cannot be that
/// short need no other one after their calibration.
pub(crate) fn once(stretch: Stretch, target: Duration) -> f64 {
    let mut meter = Meter::calibrated(stretch, target);
    if meter.last.elapsed < target { meter.sample() } else { meter.last.nanoseconds_each() }
}

/// The values of all rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Samples {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// In the order of the rounds.
    values: Vec<f64>,
}

impl From<Vec<f64>> for Samples {
    fn from(values: Vec<f64>) -> Samples {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Samples { median, min: sorted[0], max: sorted[sorted.len() - 1], values }
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Samples {
        Samples::from(values.into_iter().collect::<Vec<_>>())
    }
}

impl Samples {
    /// The sum of the parts, round by round.
    fn weighted_sum(times: &[f64], parts: &[Samples]) -> Samples {
        let round = |i: usize| -> f64 {
            times.iter().zip(parts).map(|(times, part)| times * part.values[i]).sum()
        };
        (0..parts[0].values.len()).map(round).collect()
    }
}
