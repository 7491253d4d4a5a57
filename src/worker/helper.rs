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
//! thread may hold; a worker only puts the thread into a queue and rings. Idle helpers wait for the bell,
//! and end after a while. There is a limit to their number; beyond it, threads wait in the queue.
//!
//! **Nobody waits for ever.** A worker queues a thread, then looks at the number of idle helpers; a helper
//! says that it is idle, then looks at the queue. Both with a sequentially consistent exchange in
//! between, so that the helper sees the thread or the worker the helper. If there are more threads than
//! idle helpers the monitor is told, and while threads wait it looks again every few milliseconds.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::green::{GreenRef, Leave, current};
use super::runtime::Runtime;
use crate::arch::{self, FpControl};
use crate::context::overflow::AlternateStack;
use crate::lock::SpinLock;
use crate::preempt::pin::Pin;
use crate::preempt::seat::{Host, Refusal, Seat, Verdict};
use crate::sched::RunQueue;

/// How long a helper waits for the next thread before it ends.
const IDLE: Duration = Duration::from_secs(5);
/// CPU time, in nanoseconds between two looks, after which a thread on a helper is not blocked but computes.
const COMPUTES: u64 = 1_000_000;

/// A runtime's helpers.
pub(crate) struct Helpers {
    /// Threads that wait for a helper.
    queue: SpinLock<RunQueue<GreenRef>>,
    queued: AtomicUsize,
    /// Rings that no helper has heard yet.
    bell: EventFd,
    idle: AtomicUsize,
    /// Helpers that exist.
    count: AtomicUsize,
    most: usize,
    /// Those that exist; for the monitor and for helpers that begin and end.
    present: Mutex<Vec<Arc<Helper>>>,
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
        Ok(Helpers {
            queue: SpinLock::new(RunQueue::new()),
            queued: AtomicUsize::new(0),
            bell: EventFd::from_flags(flags)?,
            idle: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            most,
            present: Mutex::default(),
        })
    }

    /// Number of helpers.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Hands over a thread that the calling worker owns; whether the monitor must be told.
    pub(super) fn submit(&self, thread: GreenRef) -> bool {
        self.queue.with(|q| q.push(thread));
        let queued = self.queued.fetch_add(1, Ordering::SeqCst) + 1;
        self.ring();
        queued > self.idle.load(Ordering::SeqCst)
    }

    fn ring(&self) {
        // It fails only if 2⁶⁴ − 2 rings are unheard.
        let _ = self.bell.write(1);
    }

    /// Wakes all helpers, to see that the runtime has ended.
    pub(super) fn ring_all(&self) {
        (0..self.count()).for_each(|_| self.ring());
    }

    /// Whether threads wait that no idle helper will take.
    pub(super) fn are_wanting(&self) -> bool {
        self.queued.load(Ordering::SeqCst) > self.idle.load(Ordering::SeqCst)
    }

    /// Whether a thread waits for a helper or is on one.
    pub(super) fn are_busy(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > 0
            || self.count.load(Ordering::Relaxed) > self.idle.load(Ordering::Relaxed)
    }

    /// Starts another helper, if more are allowed. Called by the monitor.
    ///
    /// # Errors
    ///
    /// The system has no OS thread left.
    pub(super) fn start_one(&self, runtime: &Arc<Runtime>) -> io::Result<Option<JoinHandle<()>>> {
        if self.count.load(Ordering::Relaxed) >= self.most {
            return Ok(None);
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        // It counts as idle until it looks at the queue, so that one thread does not start two helpers.
        self.idle.fetch_add(1, Ordering::SeqCst);
        let this = runtime.clone();
        let started = thread::Builder::new()
            .name(format!("{}-h{number}", runtime.name()))
            .spawn(move || this.helpers().run(&this));
        if started.is_err() {
            self.idle.fetch_sub(1, Ordering::SeqCst);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        started.map(Some)
    }

    /// Has threads interrupted that compute on helpers. Called by the monitor, now and then; the number of
    /// signals sent.
    pub(super) fn recall(&self) -> usize {
        let helpers = self.present();
        helpers.iter().filter(|h| h.has_computed()).map(|h| h.seat.signal()).count()
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Helper>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A helper's life.
    fn run(&self, runtime: &Runtime) {
        let helper = Arc::new(Helper {
            seat: Seat::new(),
            clock: AtomicI32::new(own_cpu_clock()),
            seen: AtomicUsize::new(0),
        });
        let handlers = AlternateStack::install().and_then(|handlers| {
            // SAFETY: the helper is kept until it gives up the seat, below.
            unsafe { helper.seat.take(&*helper, &handlers) }.map(|()| handlers)
        });
        self.idle.fetch_sub(1, Ordering::SeqCst);
        // Without the one or the other it would be of no use; the monitor will try again.
        if let Ok(_handlers) = handlers {
            self.present().push(helper.clone());
            let fp_control = Cell::new(FpControl::current());
            while let Some(thread) = self.next(runtime) {
                helper.host(thread, &fp_control);
                runtime.inject(thread);
            }
            self.present().retain(|h| !Arc::ptr_eq(h, &helper));
            helper.seat.give_up();
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// The next thread, owned by the caller; `None` when the helper shall end.
    fn next(&self, runtime: &Runtime) -> Option<GreenRef> {
        loop {
            if let Some(thread) = self.take() {
                return Some(thread);
            }
            self.idle.fetch_add(1, Ordering::SeqCst);
            let may_wait = self.queued.load(Ordering::SeqCst) == 0 && !runtime.has_ended();
            let heard = may_wait && {
                let mut fds = [PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
                let limit = PollTimeout::try_from(IDLE).expect("a few seconds");
                // Interrupted by a signal: as if it had heard something.
                poll(&mut fds, limit) != Ok(0)
            };
            self.idle.fetch_sub(1, Ordering::SeqCst);
            // Others may have heard the same ring.
            let _ = self.bell.read();
            let may_end = may_wait && !heard && self.queued.load(Ordering::SeqCst) == 0;
            if may_end || runtime.has_ended() {
                return None;
            }
        }
    }

    fn take(&self) -> Option<GreenRef> {
        let thread = self.queue.with(|q| q.pop())?;
        self.queued.fetch_sub(1, Ordering::SeqCst);
        Some(thread)
    }
}

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
        if in_system_call || thread.get().blocking().get() > 0 {
            return Verdict::Stay;
        }
        thread.get().set_hog(true);
        Verdict::Leave(Leave::INTERRUPTED.into_word())
    }

    /// The monitor tries again.
    fn refused(&self, _why: Refusal) {}
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
/// The thread waits for a helper, and afterwards for its turn on a worker: some microseconds, more if a
/// processor has to be woken for it.
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
        // SAFETY: the calling thread, pinned; a helper goes on with it.
        unsafe { thread.leave(Leave::BLOCKED) };
    }
    drop(pin);
    let result = f();
    drop(depth);
    result
}
