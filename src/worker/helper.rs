//! Helpers: OS threads for green threads that block in the kernel.
//!
//! **Problem.** A green thread that calls `read` on a pipe, or waits for a lock of the program's, blocks
//! its worker. The worker's ring belongs to its OS thread, so the worker cannot be handed to another one
//! (as Go does).
//!
//! **Choice.** The green thread is moved instead. The tick interrupts the system call, which the kernel
//! will restart at the instruction that it was; the thread leaves its worker by the ordinary detour and
//! goes on, with the system call, on a helper. When it next needs its worker it leaves the helper; if it
//! computes there for long, the monitor has it interrupted. [`blocking`] makes the move on purpose, before
//! the call.
//!
//! Helpers are started by the monitor, since to start an OS thread takes malloc and locks that an interrupted
//! thread may hold. Idle helpers wait for the bell, and end after a while. There is a limit to their number, which is high:
//! threads that block in the kernel are OS threads' work, as many as there are.
//!
//! **Nobody waits for a helper.** A thread that blocks may hold what the threads on all helpers, or the monitor,
//! wait for: were it queued until there is a helper, they would wait for each other for ever. So a worker
//! hands a thread over only if it can **claim** an idle helper. If not, the thread goes to the end of those
//! of its worker that are spent, to repeat its call for a slice, and the monitor is told.
//!
//! **Claims.** [`Claims`] counts helpers that wait and are not claimed. A worker claims one by taking one off,
//! queues its thread, and rings the bell, a semaphore. Each helper that hears a ring takes one thread. A
//! helper that wants to end takes itself off, which fails if all who wait are claimed: then there is a ring
//! to come for each of them, and it waits on. So rings, queued threads and helpers that will take them are
//! always equal in number.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::claims::{Claims, Heard};
use super::green::{GreenRef, Leave, current};
use super::runtime::Runtime;
use super::state::State;
use super::tape::Tape;
use crate::arch::{self, FpControl};
use crate::context::coroutine::Message;
use crate::context::overflow::AlternateStack;
use crate::lock::SpinLock;
use crate::preempt;
use crate::preempt::pin::Pin;
use crate::preempt::seat::{Host, Refusal, Seat, Verdict};
use crate::sched::{GroupId, RunQueue};
use crate::time::{now, sleep};

/// How long a helper waits for the next thread before it ends.
const IDLE: Duration = Duration::from_secs(5);
/// CPU time, in nanoseconds between two looks, after which a thread on a helper is not blocked but computes.
const COMPUTES: u64 = 1_000_000;
/// Helpers whose clocks the monitor reads at a time, which takes a system call for each.
const LOOKED_AT: usize = 512;
/// Bytes of a helper's own stack, on which it only waits and switches.
const STACK_SIZE: usize = 256 << 10;

/// A runtime's helpers.
pub(crate) struct Helpers {
    /// Threads on their way to helpers.
    queue: SpinLock<RunQueue<GreenRef>>,
    /// Rings that no helper has heard yet.
    bell: EventFd,
    /// The bell, to wait for: poll(2) refuses to wait for more descriptors than the process may have open, be it one.
    sources: Epoll,
    claims: Claims,
    /// Helpers that exist; for the monitor and for helpers that begin and end, and for threads that are pinned. There is
    /// room for all, so that nobody waits for memory with the lock held.
    present: Mutex<Vec<Arc<Helper>>>,
    /// How many the monitor has looked at so far.
    looked_at: AtomicUsize,
}

/// One helper, as the monitor and the signal's handler see it.
struct Helper {
    seat: Seat,
    /// Its OS thread's CPU-time clock.
    clock: AtomicI32,
    /// That clock at the monitor's last look, in nanoseconds.
    seen: AtomicUsize,
}

impl Helpers {
    pub(super) fn new(most: usize) -> io::Result<Helpers> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_SEMAPHORE | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_flags(flags)?;
        let sources = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Not edge-triggered: of several rings, each is to wake a helper.
        sources.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Helpers {
            queue: SpinLock::new(RunQueue::new()),
            bell,
            sources,
            claims: Claims::new(most),
            present: Mutex::new(Vec::with_capacity(most)),
            looked_at: AtomicUsize::new(0),
        })
    }

    /// Number of helpers.
    pub(crate) fn count(&self) -> usize {
        self.claims.count()
    }

    /// Hands over a thread that the caller owns, if there is a helper for it. If not, another one is wanted. For workers, and
    /// for threads that are pinned.
    pub(super) fn submit(&self, thread: GreenRef, tape: &Tape) -> Result<(), NoHelper> {
        if !self.claims.claim() {
            self.want_one();
            return Err(NoHelper);
        }
        let before = thread.get().state().becomes(State::Helped);
        tape.helped(thread, before);
        self.queue.with(|q| q.push(GroupId::DEFAULT, thread));
        self.ring();
        Ok(())
    }

    /// A thread found no helper.
    pub(super) fn want_one(&self) {
        self.claims.want_one();
    }

    /// Whether a thread could be handed over.
    pub(super) fn has_idle(&self) -> bool {
        self.claims.has_idle()
    }

    /// Whether there may be more helpers than there are.
    pub(super) fn may_grow(&self) -> bool {
        self.claims.may_grow()
    }

    fn ring(&self) {
        // It fails only if 2⁶⁴ − 2 rings are unheard.
        let _ = self.bell.write(1);
    }

    /// Wakes all helpers, to see that the runtime has ended.
    pub(super) fn ring_all(&self) {
        (0..self.claims.count_at_the_end()).for_each(|_| self.ring());
    }

    /// Starts helpers, if threads want some. Called by the monitor.
    pub(super) fn start_wanted(&self, runtime: &Arc<Runtime>) {
        let wishes = self.claims.take_wishes();
        for _ in 0..wishes {
            // If the system has no thread left, those who want one will say so again.
            match self.start_one(runtime) {
                Ok(thread) => runtime.adopt(thread),
                Err(_) => break,
            }
        }
        if wishes > 0 {
            self.claims.forget_wishes();
        }
    }

    /// Whether a thread is on a helper, or on its way to one.
    pub(super) fn are_busy(&self) -> bool {
        self.claims.are_busy()
    }

    /// Starts another helper.
    ///
    /// # Errors
    ///
    /// The system has no OS thread left.
    fn start_one(&self, runtime: &Arc<Runtime>) -> io::Result<JoinHandle<()>> {
        let number = self.claims.begins();
        let this = runtime.clone();
        let started = thread::Builder::new()
            .name(format!("{}-h{number}", runtime.name()))
            .stack_size(STACK_SIZE)
            .spawn(move || this.helpers().run(&this));
        if started.is_err() {
            self.claims.has_begun();
            self.claims.ends();
        }
        started
    }

    /// Has threads interrupted that compute on helpers, of some at a time. Called by the monitor, now and then; the number
    /// of signals sent.
    pub(super) fn recall(&self) -> usize {
        if preempt::available().is_err() {
            return 0;
        }
        let helpers = self.present();
        let first = self.looked_at.fetch_add(LOOKED_AT, Ordering::Relaxed) % helpers.len().max(1);
        let some = helpers.iter().cycle().skip(first).take(helpers.len().min(LOOKED_AT));
        some.filter(|h| h.has_computed()).map(|h| h.seat.signal()).count()
    }

    /// Calls `f` with the seat on which the thread runs, if it is on a helper. `subject` is the address of what its seat
    /// knows of it.
    pub(crate) fn with_seat_of<R>(
        &self,
        subject: usize,
        f: impl FnOnce(&Seat) -> Option<R>,
    ) -> Option<R> {
        let helper = {
            // The monitor waits for this lock.
            let _pin = Pin::new();
            self.present().iter().find(|h| h.seat.running() == subject).cloned()
        };
        f(&helper?.seat)
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Helper>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A helper's life.
    fn run(&self, runtime: &Runtime) {
        self.claims.has_begun();
        let helper = Arc::new(Helper {
            seat: Seat::new(),
            clock: AtomicI32::new(own_cpu_clock()),
            seen: AtomicUsize::new(0),
        });
        let handlers = AlternateStack::install().and_then(|handlers| {
            // SAFETY: the helper is kept until it gives up the seat, below.
            unsafe { helper.seat.take(&*helper, &handlers) }.map(|()| handlers)
        });
        // Without the one or the other it would be of no use; the monitor will try again.
        if let Ok(_handlers) = handlers {
            self.present().push(helper.clone());
            let fp_control = Cell::new(FpControl::current());
            while let Some(thread) = self.next(runtime) {
                runtime.trace().hosts(now(), thread.number());
                helper.host(thread, &fp_control);
                let now = now();
                thread.get().account().queued(now);
                runtime.trace().returns(now, thread.number());
                runtime.inject(thread);
            }
            self.present().retain(|h| !Arc::ptr_eq(h, &helper));
            helper.seat.give_up();
        }
        self.claims.ends();
    }

    /// The next thread, owned by the caller; `None` when the helper shall end.
    fn next(&self, runtime: &Runtime) -> Option<GreenRef> {
        let limit = EpollTimeout::try_from(IDLE).expect("a few seconds");
        let listen = || {
            let long_silence = self.sources.wait(&mut [EpollEvent::empty()], limit) == Ok(0);
            Heard { ring: self.bell.read().is_ok(), long_silence }
        };
        let take = || self.queue.with_pinned(|q| q.pop(GroupId::DEFAULT));
        self.claims.wait(|| runtime.has_ended(), listen, take)
    }
}

/// There is no helper that would take the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoHelper;

impl Helper {
    /// Runs a thread until it leaves. Not inlined, and without thread-locals of the helper's: they are not in
    /// force while the thread runs.
    #[inline(never)]
    fn host(&self, thread: GreenRef, fp_control: &Cell<FpControl>) {
        let own = arch::thread_pointer();
        // SAFETY: the thread was taken out of the queue, and hence is owned; it has a thread block, since others
        // are not handed over. Afterwards the thread pointer is put back before it is published.
        unsafe {
            thread.install(&self.seat);
            thread.resume_on_helper(fp_control);
            arch::set_thread_pointer(own);
        }
        self.seat.seats(None);
    }

    /// Whether it has used more CPU time since the last time that this was asked than one that is blocked.
    fn has_computed(&self) -> bool {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is valid. The clock of a thread that is gone is an error.
        let read = unsafe { libc::clock_gettime(self.clock.load(Ordering::Relaxed), &mut time) };
        let time = time.tv_sec as usize * 1_000_000_000 + time.tv_nsec as usize;
        let before = self.seen.swap(time, Ordering::Relaxed);
        read == 0 && time.saturating_sub(before) as u64 > COMPUTES
    }
}

impl Host for Helper {
    fn signalled(&self, _by_timer: bool) {}

    fn judge(&self, in_system_call: bool) -> Verdict {
        let thread = current().expect("the predicate found a green thread");
        match recalled(thread) {
            Some(leave) if !in_system_call => Verdict::Leave(leave.into_word()),
            _ => Verdict::Stay,
        }
    }

    /// One that is pinned finds a note; else the monitor tries again.
    fn refused(&self, _why: Refusal) {}
}

/// How the calling thread, which computes on a helper, goes back to a worker; not if it computes there on purpose.
pub(super) fn recalled(thread: GreenRef) -> Option<Leave> {
    if thread.get().blocking().get() > 0 {
        return None;
    }
    thread.get().set_hog(true);
    Some(Leave::INTERRUPTED)
}

/// The calling OS thread's CPU-time clock, for others to read.
fn own_cpu_clock() -> libc::clockid_t {
    let mut clock = libc::CLOCK_THREAD_CPUTIME_ID;
    // SAFETY: the thread is the caller, the pointer valid; it fails for threads that are gone.
    unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
    clock
}

/// Calls `f`, which may block in the kernel, in the knowledge that it will: the green thread is moved to a
/// helper first, an OS thread that may block for as long as it likes, and comes back afterwards.
///
/// Calls that block are also moved when they are found to block, after a slice or two. This function
/// is for calls of which that is known beforehand, for those that cannot be interrupted (reads of files from a
/// disk, most of all) or do not like to be (signal(7) lists calls that fail with `EINTR`), and for
/// computations that should compete with the workers instead of using them.
///
/// The closure need not be `Send`, since the thread moves as a whole. Functions of this crate may be called in it:
/// those that wait do so on a worker, and the thread then returns to a helper. It is not interrupted. The
/// number of helpers is limited ([`RuntimeBuilder::helpers`](crate::RuntimeBuilder::helpers)).
///
/// On an OS thread, and where green threads have no thread-local storage of their own
/// ([`Runtime::thread_blocks`](crate::Runtime::thread_blocks)), this calls `f` and that is all.
///
/// # Blocking
///
/// The thread waits for its turn on a helper, and afterwards on a worker: some microseconds, more if a
/// processor has to be woken for it, or a helper to be started. If there are no more helpers to be had,
/// `f` is called on the worker: it blocks that, as other calls do, for a slice at a time.
///
/// # Panics
///
/// Those of `f` pass through.
///
/// # Examples
///
/// ```
/// let text = uthread::spawn(|| uthread::blocking(|| std::fs::read_to_string("Cargo.toml")));
/// assert!(text.join().unwrap()?.contains("uthread"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn blocking<R>(f: impl FnOnce() -> R) -> R {
    struct Depth(GreenRef);

    impl Drop for Depth {
        fn drop(&mut self) {
            let _pin = Pin::new();
            let depth = self.0.get().blocking();
            depth.set(depth.get() - 1);
            if depth.get() == 0 {
                self.0.return_to_worker();
            }
        }
    }

    let Some(thread) = current().filter(|thread| thread.has_block()) else { return f() };
    let pin = Pin::new();
    let depth = thread.get().blocking();
    depth.set(depth.get() + 1);
    let depth = Depth(thread);
    if let Some(worker) = thread.get().worker() {
        worker.counters.blocking_calls.add(1);
        // SAFETY: the calling thread, pinned; a helper goes on with it, or its worker.
        unsafe { thread.leave(Leave::BLOCKED) };
    }
    drop(pin);
    await_helper(thread);
    let result = f();
    drop(depth);
    result
}

/// Gives the monitor some time to start a helper if the thread is still on a worker, but not for ever: see the
/// module's documentation. Enough for a few thousand at once.
fn await_helper(thread: GreenRef) {
    const FIRST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_millis(4);
    const PATIENCE: Duration = Duration::from_millis(200);
    let on_worker = || {
        let _pin = Pin::new();
        thread.get().worker().is_some_and(|worker| worker.runtime().helpers().may_grow())
    };
    let (mut pause, mut waited) = (FIRST, Duration::ZERO);
    while waited < PATIENCE && on_worker() {
        // Afterwards it is moved if it can be.
        sleep(pause);
        waited += pause;
        pause = (pause * 2).min(LONGEST);
    }
}
