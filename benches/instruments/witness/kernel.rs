//! What the kernel says.

use std::fs;
use std::io;
use std::ops::Range;
use std::time::Duration;

use nix::time::ClockId;

/// For how long an OS thread of this process has run.
pub(super) fn cpu_time(os_thread: u32) -> io::Result<Duration> {
    /// A clock of one OS thread (CPUCLOCK_PERTHREAD), which counts what the scheduler gave it (CPUCLOCK_SCHED).
    const OF_THREAD: i32 = 4 | 2;
    let clock = (!os_thread.cast_signed()) << 3 | OF_THREAD;
    Ok(ClockId::from_raw(clock).now()?.into())
}

/// For how long it has been runnable, but had to wait for its core.
pub(super) fn waited(os_thread: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{os_thread}/schedstat"))?;
    let word = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    word.map(Duration::from_nanos).ok_or_else(|| io::Error::other("a schedstat without figures"))
}

/// Bytes of memory that the mappings have in which one of these addresses lies at least.
pub(super) fn resident(addresses: &[usize]) -> io::Result<u64> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    let is_meant = |range: Range<usize>| {
        let first = addresses.partition_point(|address| *address < range.start);
        addresses.get(first).is_some_and(|address| range.contains(address))
    };
    let (mut sum, mut counts) = (0, false);
    for line in fs::read_to_string("/proc/self/smaps")?.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if counts => {
                let kib = words.next().and_then(|word| word.parse::<u64>().ok());
                sum += kib.ok_or_else(|| io::Error::other("an Rss without a number"))? * 1024;
            }
            Some(word) => {
                let Some((start, end)) = word.split_once('-') else { continue };
                let address = |text| usize::from_str_radix(text, 16);
                if let (Ok(start), Ok(end)) = (address(start), address(end)) {
                    counts = is_meant(start..end);
                }
            }
            None => {}
        }
    }
    Ok(sum)
}
