//! What looking costs.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use uthread::inspect::protocol::SnapshotRequest;

use crate::client::Client;
use crate::format::{grouped, time};

/// Looks so many times, and prints how long it took until the answer was there, and how long a processor was busy
/// with it in the process that is looked at. The first look, which finds nothing remembered from one before, is told
/// apart.
///
/// # Errors
///
/// The server is gone, or the output.
pub(crate) fn print(
    mut client: Client,
    request: &SnapshotRequest,
    looks: usize,
    delay: Duration,
) -> io::Result<()> {
    let (mut answered, mut busy) = (Vec::new(), Vec::new());
    let mut threads = 0;
    for look in 0..=looks {
        if look > 0 {
            sleep(delay);
        }
        let began = Instant::now();
        let snapshot = client.snapshot(request)?;
        answered.push(nanoseconds(began.elapsed()));
        busy.push(snapshot.cpu_ns);
        threads = snapshot.threads.total;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{looks} looks at {} threads, and one before", grouped(threads))?;
    writeln!(out, "{:<10}  {:>7}  {:>7}  {:>7}  {:>7}", "", "FIRST", "LEAST", "MEDIAN", "MOST")?;
    for (what, times) in [("answered", answered), ("processor", busy)] {
        let [first, least, median, most] = summary(times).map(time);
        writeln!(out, "{what:<10}  {first:>7}  {least:>7}  {median:>7}  {most:>7}")?;
    }
    Ok(())
}

/// The first one; and of the others the least one, the median and the largest one.
fn summary(times: Vec<u64>) -> [u64; 4] {
    let mut times = times.into_iter();
    let first = times.next().unwrap_or_default();
    let mut others: Vec<u64> = times.collect();
    others.sort_unstable();
    let at = |place: usize| others.get(place).copied().unwrap_or_default();
    [first, at(0), at(others.len() / 2), at(others.len().saturating_sub(1))]
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_is_none_of_the_others() {
        assert_eq!(summary(vec![90, 3, 1, 2]), [90, 1, 2, 3]);
        assert_eq!(summary(vec![90]), [90, 0, 0, 0]);
    }
}
