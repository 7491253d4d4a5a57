//! The machine: which cores a process may use, its limits, and what the figures were taken on.

use std::fs;
use std::io;
use std::sync::LazyLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use serde::Serialize;

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The cores that the process was given, however its threads are pinned now.
pub(crate) fn cores() -> &'static [usize] {
    // Pins are made of these, so the first call comes before the first pin.
    static CORES: LazyLock<Vec<usize>> = LazyLock::new(|| {
        let given = sched_getaffinity(SELF).expect("the calling thread exists");
        (0..CpuSet::count()).filter(|core| given.is_set(*core) == Ok(true)).collect()
    });
    &CORES
}

/// Where the service runs. The load and the external service have the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Place {
    OneCore,
    AllCores,
}

impl Place {
    /// Both, unless they are the same.
    pub(crate) fn all() -> &'static [Place] {
        match cores().len() {
            1 => &[Place::AllCores],
            _ => &[Place::OneCore, Place::AllCores],
        }
    }

    pub(crate) fn name(self) -> String {
        match (self, cores().len()) {
            (Place::OneCore, _) | (_, 1) => "one core".into(),
            (Place::AllCores, 2) => "both cores".into(),
            (Place::AllCores, cores) => format!("all {cores} cores"),
        }
    }

    pub(crate) fn of_service(self) -> &'static [usize] {
        match self {
            Place::OneCore => &cores()[..1],
            Place::AllCores => cores(),
        }
    }

    pub(crate) fn of_others(self) -> &'static [usize] {
        match self {
            Place::OneCore => &cores()[1..],
            Place::AllCores => cores(),
        }
    }
}

/// Keeps the calling thread, and those it creates from now on, on some cores.
pub(crate) fn pin_to(only: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    only.iter().try_for_each(|core| set.set(*core))?;
    Ok(sched_setaffinity(SELF, &set)?)
}

/// Lets the process have as many descriptors as it may; how many those are.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    /// For ten thousand requests and the calls they make, in one process, generously.
    const ENOUGH: u64 = 100_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Beyond the hard limit with privileges only.
    let most = ENOUGH.max(hard);
    let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Where the figures come from.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) load_average: String,
}

impl Machine {
    /// Call it first: it tells the load before the measurements add theirs.
    pub(crate) fn describe() -> Machine {
        let unknown = || "unknown".to_owned();
        let first_word = |text: String| text.split_whitespace().next().map(str::to_owned);
        Machine {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: cores().len(),
            memory_mib: kib("/proc/meminfo", "MemTotal").unwrap_or(0) / 1024,
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            load_average: line("/proc/loadavg").and_then(first_word).unwrap_or_else(unknown),
        }
    }
}

/// The first value called `name` in a file of `name: value` lines.
pub(crate) fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().into())
}

/// The value in KiB of a field that has one.
pub(crate) fn kib(path: &str, name: &str) -> io::Result<u64> {
    let value = field(path, name);
    let kib = value.as_deref().and_then(|value| value.strip_suffix(" kB")?.parse().ok());
    kib.ok_or_else(|| io::Error::other(format!("no {name} in {path}")))
}

/// A file of one line.
fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().into())
}

/// A file of one number.
pub(crate) fn number(path: &str) -> Option<usize> {
    line(path)?.parse().ok()
}
