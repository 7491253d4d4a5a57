//! How many threads there is room for.
//!
//! **Problem.** A sweep goes as far as the machine lets it, but whoever runs into a limit of the kernel
//! takes others along: without process ids nobody can start a process, without memory somebody is
//! killed, and where the signal stack of a new thread cannot be mapped, `std` aborts.
//!
//! **Choice.** The limits are read beforehand, and half of what is left is left alone. Where the room
//! ends, it is said why.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use crate::machine::{self, kib};
use crate::report::grouped;

/// Lines of the process's map.
pub(crate) fn map_lines() -> io::Result<usize> {
    Ok(BufReader::new(File::open("/proc/self/maps")?).lines().count())
}

/// How many threads there is room for, and why not more.
pub(crate) struct Room {
    pub(crate) threads: usize,
    pub(crate) limit: Option<String>,
}

impl Room {
    /// Mappings to leave alone: buffers, arenas of malloc.
    const SPARE_MAPPINGS: usize = 256;

    pub(crate) fn of(threads: usize) -> Room {
        Room { threads, limit: None }
    }

    pub(crate) fn narrow(&mut self, threads: usize, reason: impl Display) {
        if threads < self.threads {
            let most = grouped(threads as f64);
            self.limit = Some(format!("no more than {most} threads: {reason}"));
            self.threads = threads;
        }
    }

    /// `sample` threads have raised the number of mappings from `before` to `after`.
    pub(crate) fn narrow_to_mappings(
        &mut self,
        before: usize,
        after: usize,
        sample: usize,
    ) -> io::Result<()> {
        let each = after.saturating_sub(before) as f64 / sample as f64;
        let most = number("/proc/sys/vm/max_map_count")
            .ok_or_else(|| io::Error::other("no vm.max_map_count"))?;
        let room = most.saturating_sub(before + Room::SPARE_MAPPINGS) as f64 / each;
        let reason = format!("vm.max_map_count is {most}, and each takes {each:.1} mappings");
        // Without any mappings of its own a thread divides by zero, which is room enough.
        self.narrow(room as usize, reason);
        Ok(())
    }

    /// Threads of at most `each` bytes are to fit into half of the memory that is available.
    pub(crate) fn narrow_to_memory(&mut self, each: usize) -> io::Result<()> {
        let free = 1024.0 * kib("/proc/meminfo", "MemAvailable")?;
        let free = MEMORY.left().map_or(free, |left| free.min(left as f64));
        let reason = format!("they may take half of {} MiB", grouped(free / 1024.0 / 1024.0));
        self.narrow((free / 2.0 / each as f64) as usize, reason);
        Ok(())
    }

    /// OS threads are to take at most half of the ids and the processes that are left.
    pub(crate) fn narrow_to_processes(&mut self) {
        let running = running_threads().unwrap_or(0);
        let system = |name| Some((name, number(format!("/proc/sys/kernel/{name}"))?));
        let user = getrlimit(Resource::RLIMIT_NPROC).map(|(soft, _)| soft as usize);
        let totals = [
            system("pid_max"),
            system("threads-max"),
            user.ok().map(|limit| ("RLIMIT_NPROC", limit)),
        ];
        // All threads count against each of them: for the user's limit that is too cautious.
        let left = |(name, total): (_, usize)| (name, total.saturating_sub(running));
        let cgroup = PROCESSES.left().map(|left| ("the cgroup's pids.max", left));
        for (name, left) in totals.into_iter().flatten().map(left).chain(cgroup) {
            let reason = format!("{name} leaves {}, half of them for others", grouped(left as f64));
            self.narrow(left / 2, reason);
        }
    }

    /// A crowd is to be there within `most`, at `each` nanoseconds for a thread.
    pub(crate) fn narrow_to_time(&mut self, each: f64, most: Duration) {
        let reason = format!("more would take over {most:?} to create");
        self.narrow((most.as_nanos() as f64 / each) as usize, reason);
    }
}

/// The kernel's number of threads in the whole system.
fn running_threads() -> Option<usize> {
    let load = machine::line("/proc/loadavg")?;
    load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn number(path: impl AsRef<Path>) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A resource that cgroups limit: its controller, and the files of limit and use in both versions.
struct Controlled {
    controller: &'static str,
    v1: [&'static str; 2],
    v2: [&'static str; 2],
}

const MEMORY: Controlled = Controlled {
    controller: "memory",
    v1: ["memory.limit_in_bytes", "memory.usage_in_bytes"],
    v2: ["memory.max", "memory.current"],
};

const PROCESSES: Controlled = Controlled {
    controller: "pids",
    v1: ["pids.max", "pids.current"],
    v2: ["pids.max", "pids.current"],
};

impl Controlled {
    /// What the process's groups, and those around them, leave; nothing if none has a limit.
    fn left(&self) -> Option<usize> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        // Lines of `hierarchy:controllers:path`; version 2 has no controllers there.
        let group = |line: &str| {
            let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>().try_into().ok()?;
            let path = path.trim_start_matches('/');
            let root = Path::new("/sys/fs/cgroup");
            match controllers {
                "" => self.least(root, path, self.v2),
                _ if controllers.split(',').any(|name| name == self.controller) => {
                    self.least(&root.join(self.controller), path, self.v1)
                }
                _ => None,
            }
        };
        groups.lines().filter_map(group).min()
    }

    /// The least that is left from the group at `path` up to the `root`.
    fn least(&self, root: &Path, path: &str, [limit, used]: [&str; 2]) -> Option<usize> {
        let group = root.join(path);
        let within = group.ancestors().take_while(|group| group.starts_with(root));
        // A file that does not hold a number ("max") is no limit.
        let left = |group: &Path| {
            Some(number(group.join(limit))?.saturating_sub(number(group.join(used))?))
        };
        within.filter_map(left).min()
    }
}
