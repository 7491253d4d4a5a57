//! Ten thousand requests that wait at the same time, and the memory they take meanwhile.
//!
//! The external service takes some seconds for each answer, so that all requests have come before the first is answered.
//! What is read while they wait: the service's resident memory and page tables, and what the kernel has allocated for
//! itself. Its stacks are the service's threads'. Its slabs hold what belongs to threads, but also the four ends of two
//! connections for each request. Two of these are not the service's but the users' and the external service's, who would be
//! on other machines: what an end takes is measured beforehand, and theirs are subtracted from what a request takes.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;

use crate::load::Load;
use crate::machine::{Place, number};
use crate::question::Orders;
use crate::rig::Rig;
use crate::usage::{Kernel, Usage};
use crate::way::Way;

/// Of the ways, those in which requests can wait together.
pub(crate) const WAYS: [Way; 3] = [Way::OsThreads, Way::Green, Way::Tokio];

/// How large the crowd is to be, and how long it waits.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) requests: usize,
    pub(crate) hold: Duration,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) way: Way,
    /// Sent.
    pub(crate) requests: usize,
    /// Why they are fewer than they should be.
    pub(crate) limit: Option<String>,
    /// The most that were under way at the same time. What follows was read then.
    pub(crate) under_way: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) page_table_bytes: u64,
    pub(crate) kernel_stack_bytes: u64,
    /// Of the whole system.
    pub(crate) kernel_slab_bytes: u64,
    /// Of these, the ends of connections that are not the service's.
    pub(crate) others_slab_bytes: u64,
    /// The same in sum, less what the service took before the first request and what is not its own.
    pub(crate) bytes_per_request: f64,
    pub(crate) threads: u64,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

pub(crate) fn measure(rig: &Rig, way: Way, size: Size) -> io::Result<Row> {
    let (requests, limit) = within_limits(way, size.requests);
    let place = Place::AllCores;
    let hold_ms = size.hold.as_millis() as u64;
    let end = bytes_of_an_end()?;
    let mut site = rig.start(place, hold_ms..=hold_ms, |setup| {
        setup.way = way;
        setup.rounds = 1;
    })?;
    let before = Kernel::at_rest()?;
    let start = site.service.usage()?;
    let (addr, on) = site.for_load();
    // Connections come as fast as listeners can take them, in half of the time until the first answer.
    let per_second = requests as f64 / (size.hold.as_secs_f64() / 2.0);
    let question = Orders::of(uthread_backend::work::Amount { rounds: 1 });
    let from = Instant::now();
    let mut load = Load::open(addr, on, question, per_second, Some(requests))?;

    let (mut most, mut kernel) = (Usage::default(), Kernel::default());
    while from.elapsed() < 3 * size.hold {
        std::thread::sleep(size.hold / 20);
        let now = site.service.usage()?;
        if now.counted.under_way < most.counted.under_way {
            break;
        }
        kernel = Kernel::now()?.since(before);
        most = now;
        if most.counted.under_way == requests as u64 {
            break;
        }
    }
    load.drained_within(3 * size.hold + Duration::from_secs(10));
    let tally = load.tally(from, from + 10 * size.hold)?;

    // One of each connection.
    let others = (2 * end * most.counted.under_way).min(kernel.slabs);
    let added = |of: fn(&Usage) -> u64| of(&most).saturating_sub(of(&start));
    let bytes = added(|usage| usage.resident)
        + added(|usage| usage.page_tables)
        + kernel.stacks
        + (kernel.slabs - others);
    Ok(Row {
        way,
        requests,
        limit,
        under_way: most.counted.under_way,
        resident_bytes: most.resident,
        page_table_bytes: most.page_tables,
        kernel_stack_bytes: kernel.stacks,
        kernel_slab_bytes: kernel.slabs,
        others_slab_bytes: others,
        bytes_per_request: bytes as f64 / most.counted.under_way.max(1) as f64,
        threads: most.threads,
        answered: tally.answered(),
        errors: tally.errors,
        first_error: tally.first_error,
    })
}

/// For what is no connection, of descriptors and of mappings.
const OTHERS: usize = 100;

/// How many connections a process may have an end of.
fn descriptors() -> usize {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft as usize);
    most.saturating_sub(OTHERS)
}

/// What the kernel's slabs hold for one end of a connection that waits.
fn bytes_of_an_end() -> io::Result<u64> {
    /// So many that the rest of the system does not blur it.
    const CONNECTIONS: usize = 2_000;
    let connections = CONNECTIONS.min(descriptors() / 2);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let addr = listener.local_addr()?;
    let before = Kernel::at_rest()?;
    let ends = (0..connections).map(|_| Ok((TcpStream::connect(addr)?, listener.accept()?)));
    let ends = ends.collect::<io::Result<Vec<_>>>()?;
    let bytes = Kernel::now()?.since(before).slabs;
    Ok(bytes / (2 * ends.len().max(1) as u64))
}

/// How many requests there is room for, and why not for all of them.
fn within_limits(way: Way, wanted: usize) -> (usize, Option<String>) {
    /// A stack and its guard, and those for signals.
    const MAPPINGS: usize = 4;
    let mut limits = vec![(descriptors() / 2, "RLIMIT_NOFILE")];
    if way == Way::OsThreads {
        let most = |name| number(name).unwrap_or(usize::MAX);
        let user = getrlimit(Resource::RLIMIT_NPROC).map_or(usize::MAX, |(soft, _)| soft as usize);
        limits.extend([
            (most("/proc/sys/kernel/threads-max") / 2, "threads-max"),
            (most("/proc/sys/kernel/pid_max") / 2, "pid_max"),
            (user / 2, "RLIMIT_NPROC"),
            (
                most("/proc/sys/vm/max_map_count").saturating_sub(OTHERS) / MAPPINGS,
                "vm.max_map_count",
            ),
        ]);
    }
    let (least, name) = limits.into_iter().min().expect("there is one");
    match least {
        room if room < wanted => (room, Some(format!("{name} leaves room for {room} only"))),
        _ => (wanted, None),
    }
}
