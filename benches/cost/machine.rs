//! Where the figures come from: the machine's description, and which cores a row may use.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::process::Command;
use std::sync::LazyLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
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

/// Two different cores.
pub(crate) fn two_cores() -> io::Result<[usize; 2]> {
    match *cores() {
        [first, second, ..] => Ok([first, second]),
        _ => Err(io::Error::other("it takes two cores")),
    }
}

/// Keeps the calling thread, and those it creates meanwhile, on some cores until dropped.
pub(crate) struct Pin {
    before: CpuSet,
}

impl Pin {
    pub(crate) fn to(cores: &[usize]) -> io::Result<Pin> {
        let before = sched_getaffinity(SELF)?;
        let mut only = CpuSet::new();
        cores.iter().try_for_each(|core| only.set(*core))?;
        sched_setaffinity(SELF, &only)?;
        Ok(Pin { before })
    }

    pub(crate) fn to_first() -> io::Result<Pin> {
        Pin::to(&cores()[..1])
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        sched_setaffinity(SELF, &self.before).expect("those cores were allowed before");
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: f64,
    pub(crate) kernel: String,
    pub(crate) glibc: String,
    pub(crate) rustc: String,
    pub(crate) load_average: String,
    /// `vm.max_map_count`: it bounds the number of stacks that are mappings of their own.
    pub(crate) max_map_count: String,
}

impl Machine {
    /// Call it first: it tells the load before the measurements add theirs.
    pub(crate) fn describe() -> io::Result<Machine> {
        let now = jiff::Timestamp::now();
        // SAFETY: it returns a constant C string.
        let glibc = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
        Ok(Machine {
            date: now.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: cores().len(),
            memory_mib: kib("/proc/meminfo", "MemTotal")? / 1024.0,
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            glibc: glibc.to_string_lossy().into_owned(),
            rustc: rustc().unwrap_or_else(unknown),
            load_average: load_average().unwrap_or_else(unknown),
            max_map_count: line("/proc/sys/vm/max_map_count").unwrap_or_else(unknown),
        })
    }
}

fn unknown() -> String {
    "unknown".into()
}

/// The first value called `name` in a file of `name: value` lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let value = fields.filter(|(key, _)| key.trim() == name).map(|(_, value)| value).next()?;
    Some(value.trim().into())
}

/// The value in KiB of a field that has one.
pub(crate) fn kib(path: &str, name: &str) -> io::Result<f64> {
    let value = field(path, name);
    let kib = value.as_deref().and_then(|value| value.strip_suffix(" kB")?.parse().ok());
    kib.ok_or_else(|| io::Error::other(format!("no {name} in {path}")))
}

/// A file of one line.
pub(crate) fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().into())
}

/// The number of threads that ran or wanted to, on average over the last minute.
fn load_average() -> Option<String> {
    Some(line("/proc/loadavg")?.split_whitespace().next()?.into())
}

/// The compiler that cargo uses in this folder. Binaries do not tell which one made them.
fn rustc() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().into())
}
