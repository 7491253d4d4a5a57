//! Distributions of times.
//!
//! **Problem.** How late threads run is told by the tail, so that a sum does not do; and it is counted at every switch,
//! in words that others read meanwhile.
//!
//! **What is not used.** The crate `hdrhistogram` has the same buckets. But what others may read while it is written
//! to is, there, a recorder per OS thread that hands over its counts through a lock and allocates, neither of which a
//! worker may do between two threads; and a plain one behind a lock costs a locked instruction, several times what
//! is spent here.
//!
//! **Choice.** Log-linear buckets: each power of two of nanoseconds, from 64 ns to 69 s, is cut into four equal ones,
//! and what is below into four of 16 ns. A bucket is at most a quarter as wide as the least time in it, so that its
//! middle is at most an eighth off. Which one a time belongs to is told by its highest three bits: a scan for
//! the first bit, two shifts and an addition. To count it is to add one to a word, and the time to a sum. Number,
//! minimum and maximum follow from the buckets when they are read, within the same eighth; for this, they can be
//! merged, and the difference of two readings is exact.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Bits of what is not told apart: 16 ns.
const UNIT_BITS: u32 = 4;
/// Buckets per power of two, and their logarithm.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 2;
/// Times of two to this power, in nanoseconds, and above are not told apart: 69 s.
const LIMIT_BITS: u32 = 36;

/// The last one is for times at or above the limit.
pub(super) const BUCKETS: usize =
    ((LIMIT_BITS - UNIT_BITS - STEP_BITS + 1) as usize) * STEPS as usize + 1;

/// The bucket that a time in nanoseconds belongs to.
#[inline]
pub(super) fn bucket_of(time: u64) -> usize {
    let units = time >> UNIT_BITS;
    let doublings = (units | STEPS).ilog2() - STEP_BITS;
    let bucket = u64::from(doublings) * STEPS + (units >> doublings);
    (bucket as usize).min(BUCKETS - 1)
}

/// The least time in a bucket.
const fn least_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket / STEPS).saturating_sub(1);
    (bucket - doublings * STEPS) << doublings << UNIT_BITS
}

/// How often times of which length were seen.
///
/// Times are told apart by an eighth above 64 ns, by 8 ns below, and not at all above 69 s. Part of [`Stats`](crate::Stats).
///
/// # Examples
///
/// ```
/// let handle = uthread::spawn(|| uthread::sleep(std::time::Duration::from_millis(1)));
/// handle.join().unwrap();
/// let latency = uthread::stats().wakeup_latency;
/// println!("{} wake-ups, half of them within {:?}", latency.count(), latency.quantile(0.5));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Counts by bucket, without the empty ones at the end.
    buckets: Vec<u64>,
    /// Nanoseconds.
    sum: u64,
}

impl Histogram {
    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all times, exactly.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// The average; zero if nothing was counted.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// The time that this part of all times does not exceed, 0.5 for the median; zero if nothing was counted.
    ///
    /// It is within an eighth, or 8 ns, of a time that was counted. If that was 69 s or longer, it is 69 s.
    ///
    /// # Panics
    ///
    /// Panics if `part` is not between 0 and 1.
    pub fn quantile(&self, part: f64) -> Duration {
        assert!((0.0..=1.0).contains(&part), "a quantile is a part of the whole: {part}");
        let wanted = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|n| {
            seen += n;
            seen >= wanted
        });
        found.map_or(Duration::ZERO, |bucket| Duration::from_nanos(middle_of(bucket)))
    }

    /// No time was shorter; zero if nothing was counted.
    pub fn min(&self) -> Duration {
        self.buckets().next().map_or(Duration::ZERO, |(times, _)| times.start)
    }

    /// No time was longer; zero if nothing was counted, [`Duration::MAX`] if one was 69 s or longer.
    pub fn max(&self) -> Duration {
        self.buckets().last().map_or(Duration::ZERO, |(times, _)| times.end)
    }

    /// Times and how many were counted among them, from the shortest on, where there were any.
    pub fn buckets(&self) -> impl Iterator<Item = (Range<Duration>, u64)> + '_ {
        let times = |bucket| {
            let end = (bucket < BUCKETS - 1).then(|| Duration::from_nanos(least_in(bucket + 1)));
            Duration::from_nanos(least_in(bucket))..end.unwrap_or(Duration::MAX)
        };
        let all = self.buckets.iter().enumerate();
        all.filter(|(_, n)| **n > 0).map(move |(bucket, n)| (times(bucket), *n))
    }

    /// What times end at powers of two, and how many were counted among them, with those of which there are none;
    /// without those that are too long.
    #[cfg(feature = "prometheus")]
    pub(super) fn doublings(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        (STEPS as usize..BUCKETS).step_by(STEPS as usize).map(|end| {
            let four = (end - STEPS as usize..end).filter_map(|bucket| self.buckets.get(bucket));
            (Duration::from_nanos(least_in(end)), four.sum())
        })
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Histogram) {
        self.add(other.buckets.iter().copied(), other.sum);
    }

    /// What was counted since an earlier reading of the same.
    #[must_use]
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let before = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        let mut buckets: Vec<u64> =
            self.buckets.iter().zip(before).map(|(n, before)| n.saturating_sub(before)).collect();
        trim(&mut buckets);
        Histogram { buckets, sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// Adds counts by bucket, and the sum of the times.
    pub(super) fn add(&mut self, counts: impl Iterator<Item = u64>, sum: u64) {
        for (bucket, n) in counts.enumerate() {
            match self.buckets.get_mut(bucket) {
                Some(word) => *word += n,
                None => self.buckets.push(n),
            }
        }
        trim(&mut self.buckets);
        self.sum = self.sum.wrapping_add(sum);
    }
}

/// Takes away the empty buckets at the end, so that equal histograms are equal.
fn trim(buckets: &mut Vec<u64>) {
    let full = buckets.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
    buckets.truncate(full);
}

fn middle_of(bucket: usize) -> u64 {
    if bucket == BUCKETS - 1 {
        return least_in(bucket);
    }
    least_in(bucket).midpoint(least_in(bucket + 1))
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("sum", &self.sum())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::stats::words::Times;
    use proptest::prelude::*;

    fn counted(times: &[u64]) -> Histogram {
        let words = Times::default();
        times.iter().for_each(|time| words.record(*time));
        let mut histogram = Histogram::default();
        words.add_to(&mut histogram);
        histogram
    }

    fn exact(times: &[u64], part: f64) -> u64 {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        sorted[((times.len() as f64 * part).ceil() as usize).max(1) - 1]
    }

    /// Times of all magnitudes.
    fn times() -> impl Strategy<Value = Vec<u64>> {
        let time = (0..LIMIT_BITS).prop_flat_map(|bits| (1_u64 << bits) / 2..1 << bits);
        prop::collection::vec(time, 1..300)
    }

    proptest! {
        #[test]
        fn quantiles_are_an_eighth_off_at_most(times in times(), part in 0.0..=1.0) {
            let (got, exact) = (counted(&times).quantile(part).as_nanos() as u64, exact(&times, part));
            prop_assert!(got.abs_diff(exact) <= (exact / 8).max(8), "{got} for {exact}");
        }

        #[test]
        fn number_and_sum_are_exact_and_the_extremes_hold(times in times()) {
            let histogram = counted(&times);
            prop_assert_eq!(histogram.count(), times.len() as u64);
            prop_assert_eq!(histogram.sum(), Duration::from_nanos(times.iter().sum()));
            let (least, most) = (exact(&times, 0.0), exact(&times, 1.0));
            prop_assert!(histogram.min() <= Duration::from_nanos(least));
            prop_assert!(histogram.max() > Duration::from_nanos(most));
            prop_assert!(histogram.max() <= Duration::from_nanos(most + (most / 4).max(16)));
        }

        #[test]
        fn what_is_merged_is_as_if_counted_together_and_the_difference_gives_it_back(a in times(), b in times()) {
            let mut both = counted(&a);
            both.merge(&counted(&b));
            prop_assert_eq!(&both, &counted(&[a.clone(), b.clone()].concat()));
            prop_assert_eq!(both.since(&counted(&b)), counted(&a));
            prop_assert_eq!(both.since(&both), Histogram::default());
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!(least_in(0), 0);
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(least_in(bucket)), bucket);
            if bucket > 0 {
                assert_eq!(bucket_of(least_in(bucket) - 1), bucket - 1);
                let width = least_in(bucket) - least_in(bucket - 1);
                assert!(width == 16 || width * 4 <= least_in(bucket - 1));
            }
        }
        assert_eq!(least_in(BUCKETS - 1), 1 << LIMIT_BITS);
    }

    #[test]
    fn what_is_too_long_is_counted_as_such() {
        let histogram = counted(&[u64::MAX / 2, 1 << LIMIT_BITS]);
        assert_eq!((histogram.count(), histogram.max()), (2, Duration::MAX));
        assert_eq!(histogram.quantile(0.5), Duration::from_nanos(1 << LIMIT_BITS));
    }

    #[test]
    fn without_times_all_is_zero() {
        let empty = Histogram::default();
        assert_eq!((empty.count(), empty.sum(), empty.mean()), (0, Duration::ZERO, Duration::ZERO));
        assert_eq!((empty.min(), empty.max()), (Duration::ZERO, Duration::ZERO));
        assert_eq!(empty.quantile(1.0), Duration::ZERO);
    }

    #[test]
    fn a_difference_to_a_later_reading_is_empty_rather_than_wrong() {
        let (earlier, later) = (counted(&[100]), counted(&[100, 100, 5000]));
        assert_eq!(earlier.since(&later), Histogram::default());
    }
}
