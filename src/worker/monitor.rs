//! The monitor: an OS thread that watches the workers of a runtime.
//!
//! It does what workers cannot do for themselves while a hog has them, and what they must not do at all:
//!
//! - it waits for **alarms**: a ring whose worker runs a hog raises one at a completion, and the monitor
//!   signals the worker;
//! - it **starts helpers**, and has threads recalled that compute on one;
//! - it looks for **stalls**, and reports them;
//! - it looks after the **pools**, which takes malloc.
//!
//! While something runs it looks every [`LOOK`]. When nothing has for a while it is dormant, until a worker
//! that arms its timer, or needs a helper, pokes it.
//!
//! **The race.** The monitor says that it is dormant, then looks once more; a worker gives it a reason, then
//! looks whether it is dormant. A sequentially consistent fence on both sides lets one see the other.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::runtime::Runtime;
use crate::context::pool;

/// How often it looks for what nobody tells it.
const LOOK: Duration = Duration::from_millis(20);
/// After so many looks at nothing it goes dormant.
const QUIET_LOOKS: u32 = 10;
/// What the bell is called in the set of descriptors; workers are called by their numbers.
const BELL: u64 = u64::MAX;

/// How others reach the monitor.
pub(crate) struct Monitor {
    bell: EventFd,
    dormant: AtomicBool,
    /// The pools have something to give back.
    chores: AtomicBool,
}

impl Monitor {
    pub(super) fn new() -> io::Result<Monitor> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Monitor {
            bell: EventFd::from_flags(flags)?,
            dormant: AtomicBool::new(false),
            chores: AtomicBool::new(false),
        })
    }

    /// Makes it look now. Async-signal-safe.
    pub(super) fn poke(&self) {
        // It fails only if 2⁶⁴ − 2 pokes are unread.
        let _ = self.bell.write(1);
    }

    /// Makes it look from now on. Async-signal-safe.
    pub(super) fn attend(&self) {
        fence(Ordering::SeqCst);
        if self.dormant.load(Ordering::Relaxed) && self.dormant.swap(false, Ordering::Relaxed) {
            self.poke();
        }
    }

    /// Has it look after the pools.
    pub(super) fn ask_for_chores(&self) {
        if !self.chores.swap(true, Ordering::Relaxed) {
            self.poke();
        }
    }

    /// Its life.
    pub(super) fn run(&self, runtime: &Arc<Runtime>) -> io::Result<()> {
        ask_for_short_latency();
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let once_per_write = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        set.add(&self.bell, EpollEvent::new(once_per_write, BELL))?;
        for (number, worker) in (0..).zip(runtime.workers()) {
            set.add(worker.alarm_bell().as_fd(), EpollEvent::new(once_per_write, number))?;
        }
        let mut watch = Watch { last_look: Instant::now(), quiet: 0, chores: None };
        let mut events = [EpollEvent::empty(); 64];
        while !runtime.has_ended() {
            let timeout = watch.timeout(self, runtime);
            let told = match set.wait(&mut events, timeout) {
                Ok(count) => &events[..count],
                Err(Errno::EINTR) => &[],
                Err(e) => return Err(e.into()),
            };
            let alarms = told.iter().filter(|event| event.data() != BELL);
            let signals = alarms.filter(|e| runtime.workers()[e.data() as usize].alarm()).count();
            runtime.monitor_signals.fetch_add(signals as u64, Ordering::Relaxed);
            watch.work(self, runtime);
        }
        Ok(())
    }
}

/// What the monitor knows from one look to the next.
struct Watch {
    last_look: Instant,
    /// Looks at nothing.
    quiet: u32,
    /// When the pools are to be looked after.
    chores: Option<Instant>,
}

impl Watch {
    fn timeout(&self, monitor: &Monitor, runtime: &Runtime) -> EpollTimeout {
        let chores = self.chores.map(|at| at.saturating_duration_since(Instant::now()));
        let mut look = Some(LOOK.saturating_sub(self.last_look.elapsed()));
        if self.quiet >= QUIET_LOOKS {
            monitor.dormant.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if runtime.is_quiet() {
                look = None;
            }
        }
        let Some(time) = [look, chores].into_iter().flatten().min() else {
            return EpollTimeout::NONE;
        };
        // Rounded up, so as not to spin for the last millisecond.
        let time = time + Duration::from_micros(999);
        EpollTimeout::try_from(time).unwrap_or(EpollTimeout::MAX)
    }

    fn work(&mut self, monitor: &Monitor, runtime: &Arc<Runtime>) {
        while runtime.helpers().are_wanting() && !runtime.has_ended() {
            match runtime.helpers().start_one(runtime) {
                Ok(Some(thread)) => runtime.adopt(thread),
                // As many as allowed, or as the system has: threads wait, and the next look tries again.
                Ok(None) | Err(_) => break,
            }
        }
        if monitor.chores.swap(false, Ordering::Relaxed) {
            self.chores = Some(Instant::now());
        }
        if self.chores.is_some_and(|at| at <= Instant::now()) {
            self.chores = pool::maintain().map(|wait| Instant::now() + wait);
        }
        if self.last_look.elapsed() >= LOOK {
            self.last_look = Instant::now();
            self.quiet = if runtime.is_quiet() { self.quiet + 1 } else { 0 };
            if self.quiet == 0 {
                monitor.dormant.store(false, Ordering::Relaxed);
            }
            let recalled = runtime.helpers().recall();
            runtime.monitor_signals.fetch_add(recalled as u64, Ordering::Relaxed);
            runtime.look_for_stalls();
        }
    }
}

/// Asks the kernel for a short slice (Linux 6.12), which lets the monitor run at once when it is woken,
/// even if all processors are busy. It needs microseconds. Older kernels do not know it.
fn ask_for_short_latency() {
    const SLICE: u64 = 100_000;
    /// `struct sched_attr`, in its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let mut attributes = Attributes::default();
    let size = size_of::<Attributes>() as u32;
    // SAFETY: both calls get the calling thread and a structure of the size that they are told.
    unsafe {
        if libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) == 0
            && attributes.policy == libc::SCHED_OTHER as u32
        {
            attributes.runtime = SLICE;
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
        }
    }
}
