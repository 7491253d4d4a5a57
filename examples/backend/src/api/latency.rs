//! How long an API takes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A range of times, of which each answer takes one by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    least: Duration,
    most: Duration,
}

impl Latency {
    /// In the same rack.
    pub const LOCAL: Latency = Latency::of_millis(1, 2);
    /// In the same region.
    pub const REGION: Latency = Latency::of_millis(20, 30);
    /// On another continent.
    pub const FAR: Latency = Latency::of_millis(90, 100);

    /// From so many milliseconds to so many.
    pub const fn of_millis(least: u64, most: u64) -> Latency {
        Latency { least: Duration::from_millis(least), most: Duration::from_millis(most) }
    }

    /// One of the times.
    pub fn pick(self) -> Duration {
        let span = self.most.saturating_sub(self.least);
        self.least + span.mul_f64(fastrand::f64())
    }
}

/// `local`, `region`, `far` or two numbers of milliseconds, as `240-260`.
impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Latency, String> {
        let range = || {
            let (least, most) = text.split_once('-')?;
            let (least, most) = (least.parse().ok()?, most.parse().ok()?);
            (least <= most).then_some(Latency::of_millis(least, most))
        };
        match text {
            "local" => Ok(Latency::LOCAL),
            "region" => Ok(Latency::REGION),
            "far" => Ok(Latency::FAR),
            _ => range().ok_or_else(|| "local, region, far or MIN-MAX in milliseconds".to_owned()),
        }
    }
}

/// As it is read.
impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.least.as_millis(), self.most.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ranges_are_read_and_written() {
        assert_eq!("region".parse(), Ok(Latency::of_millis(20, 30)));
        assert_eq!("240-260".parse(), Ok(Latency::of_millis(240, 260)));
        assert_eq!(Latency::FAR.to_string().parse(), Ok(Latency::FAR));
        for nonsense in ["near", "3", "3-2", "a-b", ""] {
            nonsense.parse::<Latency>().unwrap_err();
        }
    }

    #[test]
    fn picked_times_are_within_the_range() {
        let latency = Latency::of_millis(3, 5);
        for _ in 0..100 {
            let time = latency.pick();
            assert!((latency.least..=latency.most).contains(&time), "{time:?}");
        }
    }
}
