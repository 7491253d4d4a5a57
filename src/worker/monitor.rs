//! The monitor: an OS thread that watches the workers of a runtime.
//!
//! It does what workers cannot do for themselves while a hog has them, and what they must not do at all:
//!
//! - it waits for **alarms**: a ring whose worker runs a hog raises one at a completion, and the monitor
//!   signals the worker;
//! - it **starts helpers**, and has threads recalled that compute on one;
//! - it looks for **stalls**;
//! - it **relieves** workers that are stuck: threads queued at one whose present thread cannot be
//!   interrupted are given to the others, or, if all are stuck, to helpers. One of them may hold the very lock
//!   that the present thread waits for. To helpers go those that can, those that were interrupted or have not
//!   begun, whoever waits in front of them;
//! - it looks after the **pools**, which takes malloc;
//! - it makes **wake-ups** by address that were handed over by those who could not make them themselves
//!   (`interpose::futex`).
//!
//! It takes no lock of the program's but malloc's, and nobody who may hold that waits for it. The program is
//! told of stalls by a **reporter**, an OS thread of its own.
//!
//! While something runs it looks every [`LOOK`]. When nothing has for a while it is dormant, until a worker
//! that arms its timer, or needs a helper, pokes it.
//!
//! **The race.** The monitor says that it is dormant, then looks once more; a worker gives it a reason, then
//! looks whether it is dormant. A sequentially consistent fence on both sides lets one see the other.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
#[cfg(all(feature = "interpose", not(loom)))]
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::green::GreenRef;
use super::group;
use super::run::Worker;
use super::runtime::Runtime;
use crate::atomic::{AtomicBool, Ordering, fence};
use crate::context::pool;
use crate::preempt::pin::Pin;
use crate::sched::MOST_STOLEN;

/// How often it looks for what nobody tells it.
const LOOK: Duration = Duration::from_millis(20);
/// After so many looks at nothing it goes dormant.
const QUIET_LOOKS: u32 = 10;
/// What the bells are called in the set of descriptors; workers are called by their numbers.
const BELL: u64 = u64::MAX;
const ONCE_PER_WRITE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

/// How others reach the monitor.
pub(crate) struct Monitor {
    bell: EventFd,
    /// The bell and the alarms of the workers.
    sources: Epoll,
    dormancy: Dormancy,
    /// The pools have something to give back.
    chores: AtomicBool,
}

impl Monitor {
    pub(super) fn new() -> io::Result<Monitor> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_flags(flags)?;
        let sources = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        sources.add(&bell, EpollEvent::new(ONCE_PER_WRITE, BELL))?;
        #[cfg(all(feature = "interpose", not(loom)))]
        sources.add(shared_bell()?, EpollEvent::new(ONCE_PER_WRITE, BELL))?;
        Ok(Monitor { bell, sources, dormancy: Dormancy::new(), chores: AtomicBool::new(false) })
    }

    /// Has it listen to a worker's alarm, before it runs.
    ///
    /// # Errors
    ///
    /// The kernel has no memory, or the limit on watches is reached (epoll(7)).
    pub(super) fn listen_to(&self, index: usize, worker: &Worker) -> io::Result<()> {
        let event = EpollEvent::new(ONCE_PER_WRITE, index as u64);
        Ok(self.sources.add(worker.alarm_bell().as_fd(), event)?)
    }

    /// Makes it look now. Async-signal-safe.
    pub(super) fn poke(&self) {
        // It fails only if 2⁶⁴ − 2 pokes are unread.
        let _ = self.bell.write(1);
    }

    /// Makes it look from now on. Async-signal-safe.
    pub(super) fn attend(&self) {
        if self.dormancy.is_broken() {
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
    pub(super) fn run(&self, runtime: &Arc<Runtime>) {
        ask_for_short_latency();
        let mut watch = Watch::new(runtime);
        let mut events = [EpollEvent::empty(); 64];
        while !runtime.has_ended() {
            let timeout = watch.timeout(self, runtime);
            // It fails when interrupted by a signal only; the descriptor and the room are valid.
            let told = self.sources.wait(&mut events, timeout).unwrap_or(0);
            // First of all: those who are woken wait for nothing else.
            #[cfg(all(feature = "interpose", not(loom)))]
            crate::interpose::wake_handed_over();
            let alarms = events[..told].iter().filter(|event| event.data() != BELL);
            let signals = alarms.filter(|e| runtime.workers()[e.data() as usize].alarm()).count();
            runtime.counters.monitor_signals.add(signals as u64);
            watch.work(self, runtime);
        }
    }
}

/// Of all monitors. Never closed, so that whoever rings it need not ask whose they are, or whether they still exist.
#[cfg(all(feature = "interpose", not(loom)))]
static SHARED_BELL: OnceLock<EventFd> = OnceLock::new();

#[cfg(all(feature = "interpose", not(loom)))]
fn shared_bell() -> io::Result<&'static EventFd> {
    if SHARED_BELL.get().is_none() {
        let new = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Another runtime may start at the same time.
        let _ = SHARED_BELL.set(new);
    }
    Ok(SHARED_BELL.get().expect("somebody has set it"))
}

/// A wake-up was handed over: makes all monitors look, and so those of the runtimes whose threads wait.
/// Async-signal-safe.
#[cfg(all(feature = "interpose", not(loom)))]
pub(crate) fn poke_all() {
    if let Some(bell) = SHARED_BELL.get() {
        // As for a monitor's own.
        let _ = bell.write(1);
    }
}

/// Whether the monitor sleeps until it is poked.
struct Dormancy(AtomicBool);

impl Dormancy {
    fn new() -> Dormancy {
        Dormancy(AtomicBool::new(false))
    }

    /// The monitor is about to sleep; unless it sees a reason not to, for which it must look after this.
    fn begins(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The monitor is awake, and stays so.
    fn ends(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// To be called after giving the monitor a reason to look; whether it must be poked.
    #[must_use = "a monitor that is no longer dormant must know it"]
    fn is_broken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// What the monitor knows from one look to the next.
struct Watch {
    last_look: Instant,
    /// Looks at nothing.
    quiet: u32,
    /// What has been said about groups at the last look.
    version: u64,
    /// When the pools are to be looked after.
    chores: Option<Instant>,
    /// For each worker, the number of its switches at the last look, and at how many looks others waited there in vain
    /// since.
    stuck: Vec<(u64, u32)>,
    /// After so many of them it is relieved.
    patience: u32,
    /// Threads that were queued at a worker that is stuck.
    taken: Vec<GreenRef>,
}

impl Watch {
    fn new(runtime: &Runtime) -> Watch {
        let slices = Duration::from_nanos(runtime.slice()).as_millis() / LOOK.as_millis();
        Watch {
            last_look: Instant::now(),
            quiet: 0,
            version: group::version(),
            chores: None,
            stuck: vec![(0, 0); runtime.workers().len()],
            patience: 1 + u32::try_from(slices).unwrap_or(u32::MAX - 1),
            taken: Vec::with_capacity(MOST_STOLEN),
        }
    }

    fn timeout(&self, monitor: &Monitor, runtime: &Runtime) -> EpollTimeout {
        let chores = self.chores.map(|at| at.saturating_duration_since(Instant::now()));
        let mut look = Some(LOOK.saturating_sub(self.last_look.elapsed()));
        if self.quiet >= QUIET_LOOKS {
            monitor.dormancy.begins();
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
        runtime.helpers().start_wanted(runtime);
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
                monitor.dormancy.ends();
            }
            let recalled = runtime.helpers().recall();
            runtime.counters.monitor_signals.add(recalled as u64);
            let version = group::version();
            if std::mem::replace(&mut self.version, version) != version {
                // A hog that is alone on its worker may have got a cap.
                runtime.workers().iter().for_each(Worker::nudge);
            }
            self.relieve(runtime);
            runtime.look_for_stalls();
        }
    }

    /// Gives the threads away that are queued at workers which are stuck.
    fn relieve(&mut self, runtime: &Runtime) {
        if runtime.preemption().is_err() {
            return;
        }
        for (worker, (seen, looks)) in runtime.workers().iter().zip(&mut self.stuck) {
            worker.remind();
            if worker.has_switched(seen) {
                *looks = 0;
            } else if worker.has_queued() {
                *looks += 1;
            }
            // Where nobody waits, nobody tries to interrupt.
        }
        let is_stuck = |index: usize| self.stuck[index].1 >= self.patience;
        let workers = runtime.workers();
        let mut moving = (0..workers.len()).filter(|i| !is_stuck(*i)).cycle();
        let mut all = (0..workers.len()).cycle();
        for (index, worker) in workers.iter().enumerate() {
            if !is_stuck(index) || !worker.has_queued() {
                continue;
            }
            if moving.clone().next().is_some() {
                worker.give_away(&mut self.taken, false);
            } else {
                worker.give_away(&mut self.taken, true);
                if self.taken.is_empty() && workers.len() > 1 {
                    worker.give_away(&mut self.taken, false);
                }
            }
            let _pin = Pin::new();
            for thread in self.taken.drain(..) {
                if let Some(moving) = moving.next() {
                    workers[moving].take_over(thread);
                } else if thread.can_be_helped() && runtime.hand_to_helper(thread).is_ok() {
                    runtime.counters.helper_moves.add(1);
                } else {
                    // One of the others may have a hog that can be interrupted.
                    let next = all.find(|next| *next != index || workers.len() == 1);
                    workers[next.expect("a cycle has no end")].take_over(thread);
                }
            }
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

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::worker::claims::Claims;
    use crate::worker::idle::{Idle, Sleeper};
    use loom::sync::Arc;

    struct World {
        dormancy: Dormancy,
        /// Stands for the bell.
        poked: AtomicBool,
        idle: Idle,
        sleeper: Sleeper,
        claims: Claims,
    }

    /// A runtime of one worker, which sleeps.
    fn world(helpers: usize) -> Arc<World> {
        let w = World {
            dormancy: Dormancy::new(),
            poked: AtomicBool::new(false),
            idle: Idle::new(),
            sleeper: Sleeper::new(),
            claims: Claims::new(helpers),
        };
        w.idle.announce(&w.sleeper);
        Arc::new(w)
    }

    impl World {
        fn attend(&self) {
            if self.dormancy.is_broken() {
                self.poked.swap(true, Ordering::Release);
            }
        }

        /// As `Runtime::is_quiet`.
        fn is_quiet(&self) -> bool {
            self.idle.all_sleep(1) && !self.claims.are_busy()
        }

        /// As `Watch::timeout`; whether it sleeps for good.
        fn sleeps(&self) -> bool {
            self.dormancy.begins();
            self.is_quiet()
        }

        fn lost(&self, sleeps: bool) -> bool {
            sleeps && !self.is_quiet() && !self.poked.load(Ordering::Relaxed)
        }
    }

    fn sees_or_is_poked(helpers: usize, reason: fn(&World)) {
        loom::model(move || {
            let w = world(helpers);
            let other = w.clone();
            let thread = loom::thread::spawn(move || {
                reason(&other);
                other.attend();
            });
            let sleeps = w.sleeps();
            thread.join().unwrap();
            assert!(!w.lost(sleeps), "dormant although there is something to be looked at");
        });
    }

    #[test]
    fn a_worker_that_wakes_up_is_seen_or_pokes_the_monitor() {
        sees_or_is_poked(0, |w| {
            w.idle.awake(&w.sleeper);
        });
    }

    #[test]
    fn a_worker_that_is_woken_is_seen_or_pokes_the_monitor() {
        sees_or_is_poked(0, |w| assert!(w.idle.wake(&w.sleeper)));
    }

    #[test]
    fn a_wish_for_a_helper_is_seen_or_pokes_the_monitor() {
        sees_or_is_poked(1, |w| w.claims.want_one());
    }
}
