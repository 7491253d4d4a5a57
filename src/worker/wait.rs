//! What threads call to wait, and to end another's wait.
//!
//! Green threads leave their worker; OS threads, which may use all of the crate's interface too, block
//! in the kernel. There are three kinds of wait. One for an op or a sleep has a single waker, the worker
//! on which it was begun, and needs no word of its own. One on a [`Parker`] can be ended by any thread, and so can one by
//! address ([`wait_table`](super::wait_table)).

use std::cell::OnceCell;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::green::{GreenRef, Identity, Leave, current};
use super::parker::Parker;
use super::run::Worker;
use super::runtime::Runtime;
#[cfg(all(feature = "interpose", not(loom)))]
use super::wait_table::{Enlistment, Woken};
use crate::context::tls;
use crate::preempt::pin::Pin;
use crate::reactor::op::{Op, Request};
use crate::reactor::timer::{NoRoom, Spare};
use crate::reason::WaitReason;
use crate::time::now;
use crate::trace::WokenBy;

/// What to do when a timer expires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TimerTarget {
    /// Make a sleeping thread runnable.
    Thread(GreenRef),
    /// Cancel an op.
    Op(NonNull<Op<GreenRef>>),
    /// Withdraw a thread from a park word and make it runnable.
    Parker(NonNull<Parker>, GreenRef),
}

// SAFETY: the pointers are to things on the waiter's stack or kept alive by it, and the waiter disarms
// the timer before they go.
unsafe impl Send for TimerTarget {}

/// A point in time, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// That long from now; the end of time if that is later.
    pub(crate) fn after(time: Duration) -> Deadline {
        Deadline(now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// That point of the monotonic clock.
    pub(crate) fn at(nanoseconds: u64) -> Deadline {
        Deadline(nanoseconds)
    }

    fn remaining(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now()))
    }
}

/// Whether the caller is a green thread.
#[inline]
pub(crate) fn on_green_thread() -> bool {
    current().is_some()
}

/// Calls `f` with the worker that the calling green thread is on, pinned to it. In `f` the thread may leave;
/// the worker afterwards is another one.
///
/// A thread that is on a helper returns to a worker first, and one that is in `blocking` goes back
/// to a helper at the end.
#[inline]
fn on_worker<R>(thread: GreenRef, f: impl FnOnce(&Worker) -> R) -> R {
    let _pin = Pin::new();
    thread.return_to_worker();
    let result = f(thread.get().worker().expect("it is on a worker now"));
    if thread.get().blocking().get() > 0 {
        // SAFETY: the calling thread, pinned; a helper goes on with it.
        unsafe { thread.leave(Leave::BLOCKED) };
    }
    result
}

/// Lets other threads run.
pub(crate) fn yield_now() {
    match current() {
        // SAFETY: a thread that yields stays in a run queue.
        Some(thread) => on_worker(thread, |_| unsafe { thread.leave(Leave::YIELD) }),
        None => std::thread::yield_now(),
    }
}

/// Calls `f` as [`on_worker`] does, until it finds room for the timer that it wants to arm: memory is
/// allocated in between, when the thread is not pinned.
fn with_timer<R>(thread: GreenRef, f: impl Fn(&Worker) -> Result<R, NoRoom>) -> R {
    loop {
        if let Ok(result) = on_worker(thread, &f) {
            return result;
        }
        let wanted = on_worker(thread, |worker| worker.with_timers(|t| t.wanted()));
        let spare = Spare::new(wanted);
        // Dropped here, when neither pinned nor under the lock.
        let _rest = on_worker(thread, |worker| worker.with_timers(|t| t.grow(spare)));
    }
}

/// Waits until a time.
pub(crate) fn sleep_until(deadline: Deadline) {
    let Some(thread) = current() else { return std::thread::sleep(deadline.remaining()) };
    with_timer(thread, |worker| {
        worker.with_timers(|t| t.arm(deadline.0, TimerTarget::Thread(thread)))?;
        // SAFETY: the timer will make it runnable.
        unsafe { thread.wait(WaitReason::Sleep) };
        Ok(())
    });
}

/// Runs one op to its completion, parking only this green thread: the kernel's result, or its error.
///
/// With a `timeout`, an op that has not completed by then is cancelled and waited for; its error then is
/// [`io::ErrorKind::TimedOut`]. What was transferred before is given back as success.
///
/// # Safety
///
/// The pointers of the request are valid until this returns. To be called on a green thread.
pub(crate) unsafe fn perform(request: Request, timeout: Option<Duration>) -> io::Result<u32> {
    let thread = current().expect("ops are performed on green threads");
    let op = Op::new(thread, request.reason());
    let deadline = timeout.map(Deadline::after);
    with_timer(thread, |worker| {
        if deadline.is_some() && !worker.with_timers(|t| t.has_room()) {
            return Err(NoRoom);
        }
        let mut here = worker;
        // SAFETY: the op stays on this stack until it is reported, which ends the wait below; the caller
        // vouches for the request.
        while unsafe { here.submit(NonNull::from(&op), &request) }.is_err() {
            // SAFETY: a thread that yields stays in a run queue.
            unsafe { thread.leave(Leave::YIELD) };
            here = thread.get().worker().expect("it is on a worker when it goes on");
            if deadline.is_some() && !here.with_timers(|t| t.has_room()) {
                return Err(NoRoom);
            }
        }
        if let Some(deadline) = deadline {
            let target = TimerTarget::Op(NonNull::from(&op));
            // Only threads of this worker arm timers here, and they are not running.
            let key = here.with_timers(|t| t.arm(deadline.0, target)).expect("there is room");
            op.timer.set(Some(key));
        }
        // SAFETY: the op will complete, and its completion make the thread runnable.
        unsafe { thread.wait(op.reason) };
        Ok(())
    });
    op.outcome()
}

/// Waits on a parker until it is notified, or until the deadline; whether it was notified.
///
/// Only its one waiter calls this.
pub(crate) fn wait(parker: &Parker, deadline: Option<Deadline>, reason: WaitReason) -> bool {
    if parker.take() {
        return true;
    }
    match (current(), deadline) {
        (Some(thread), None) => {
            // SAFETY: the parker outlives the wait, and its notifier makes the thread runnable.
            on_worker(thread, |_| unsafe { thread.park(parker, reason) });
        }
        (Some(thread), Some(deadline)) => park_until(thread, parker, deadline, reason),
        (None, deadline) => block(parker, deadline),
    }
    parker.take()
}

/// Waits by address, in a call of the C library's that was caught; false, and it did not wait, if the word had changed. The
/// thread is the calling one.
#[cfg(all(feature = "interpose", not(loom)))]
#[inline]
pub(crate) fn wait_by_address(thread: GreenRef, wait: &Enlistment<'_>, reason: WaitReason) -> bool {
    on_worker(thread, |worker| {
        worker.counters.interposed.add(1);
        // SAFETY: the waiter stays in place while the thread waits; who takes it out makes the thread runnable.
        unsafe { thread.enlist(wait, reason) };
    });
    wait.has_waited()
}

/// Ends a wait by address.
#[cfg(all(feature = "interpose", not(loom)))]
#[inline]
pub(crate) fn end_wait(woken: Woken<'_>) {
    match woken {
        Woken::Notify(parker) => notify(parker),
        // SAFETY: the table handed the thread to this caller.
        Woken::Parked(thread) => wake(unsafe { GreenRef::from_waiter(thread) }),
    }
}

fn park_until(thread: GreenRef, parker: &Parker, deadline: Deadline, reason: WaitReason) {
    with_timer(thread, |armed_on| {
        let target = TimerTarget::Parker(NonNull::from(parker), thread);
        let key = armed_on.with_timers(|t| t.arm(deadline.0, target))?;
        // SAFETY: the notifier or the timer makes the thread runnable. (A timer that expires before the
        // thread is parked finds no waiter; it cannot, since it is handled by this worker, after the park.)
        unsafe { thread.park(parker, reason) };
        // Under the lock under which the worker handles timers: afterwards it has no use for the parker.
        armed_on.with_timers(|t| t.disarm(key));
        Ok(())
    });
}

thread_local! {
    /// The identity of a thread that is no green one, made when first asked for.
    static OS_IDENTITY: OnceCell<Arc<Identity>> = const { OnceCell::new() };
}

/// The calling thread's identity.
pub(crate) fn own_identity() -> Arc<Identity> {
    match current() {
        Some(thread) => thread.get().identity().clone(),
        // In a destructor of another thread-local, when this one is gone, a fresh one serves.
        None => OS_IDENTITY
            .try_with(|own| own.get_or_init(os_identity).clone())
            .unwrap_or_else(|_| os_identity()),
    }
}

fn os_identity() -> Arc<Identity> {
    let thread = std::thread::current();
    Identity::new(thread.name().map(Box::from), Some(Box::default()))
}

/// In a park word, tells an OS thread's identity from a green thread's control block.
const OS_TAG: usize = 2;

/// Blocks an OS thread on a parker. The word holds a reference to its identity meanwhile, which the
/// notifier takes over.
fn block(parker: &Parker, deadline: Option<Deadline>) {
    let own = own_identity();
    let bell = own.bell.as_ref().expect("only OS threads block");
    let waiter = Arc::into_raw(own.clone()) as usize | OS_TAG;
    let release = || {
        // SAFETY: the value came from `into_raw` above and was not handed out.
        drop(unsafe { Arc::from_raw((waiter & !OS_TAG) as *const Identity) });
    };
    if !parker.commit(waiter) {
        return release();
    }
    while parker.holds(waiter) {
        match deadline.map(Deadline::remaining) {
            None => bell.listen(None),
            Some(Duration::ZERO) => {
                if parker.withdraw(waiter) {
                    release();
                }
                return;
            }
            Some(time) => bell.listen(Some(time)),
        }
    }
}

/// Notifies a parker, and makes its waiter runnable if there is one.
pub(crate) fn notify(parker: &Parker) {
    let Some(waiter) = parker.notify() else { return };
    if waiter & OS_TAG != 0 {
        // SAFETY: the waiter left this reference for its notifier.
        let identity = unsafe { Arc::from_raw((waiter & !OS_TAG) as *const Identity) };
        identity.bell.as_ref().expect("the tag marks OS threads").ring();
    } else {
        // SAFETY: the word handed the thread to this caller.
        wake(unsafe { GreenRef::from_waiter(waiter) });
    }
}

/// Makes a thread runnable that the caller owns.
///
/// The thread may run, end, and its runtime with it, as soon as it is queued. A green thread of the
/// same runtime keeps that alive by being alive; any other caller holds it meanwhile.
pub(crate) fn wake(thread: GreenRef) {
    let runtime = thread.get().runtime();
    if let Some(caller) = current()
        && std::ptr::eq(caller.get().runtime(), runtime)
    {
        let _pin = Pin::new();
        if let Some(here) = caller.get().worker() {
            here.note_wake(thread, here.account_time(), WokenBy::Thread);
            if thread.may_move() {
                here.push_local(thread);
            } else {
                runtime.inject(thread);
            }
        } else {
            // On a helper, which has no queue.
            note_remote_wake(runtime, Some(caller), thread);
            runtime.inject(thread);
        }
        return;
    }
    let _held = runtime.hold();
    note_remote_wake(runtime, current(), thread);
    runtime.inject(thread);
}

/// A thread's wait is ended by one that is not on a worker of its runtime.
fn note_remote_wake(runtime: &Runtime, waker: Option<GreenRef>, thread: GreenRef) {
    let now = now();
    thread.get().note_wake(now);
    runtime.trace().wakes(now, waker.map(GreenRef::number), thread.number());
    runtime.counters.wakeups.add(1);
}

/// Runs the destructors of the calling green thread's thread-locals. To be called once it has nothing
/// more to do but to publish its result.
pub(crate) fn finish_thread_locals() {
    if current().is_some_and(GreenRef::has_block) {
        tls::finish();
    }
}

/// Calls `f`, during which the calling green thread is not interrupted, however long it computes.
///
/// Sections nest; an interruption that was put off meanwhile happens at the end of the outermost. The
/// section may wait, and other threads then run. It should be short: the worker's other threads wait for
/// its end, unless idle workers take them over, and a section that is longer than the runtime's threshold is a
/// [`Stall`](crate::Stall).
///
/// A thread that was interrupted may hold any lock, malloc's included, and wait for its turn on this very
/// worker. A section that waits for such a lock is long: only after some tens of milliseconds are the
/// threads that wait behind it given to other workers or helpers. Threads whose sleep or I/O ends on this worker
/// meanwhile are not: do not wait for what one of them is to do. Prepare what it needs before.
///
/// A section costs about two nanoseconds, and forbids nothing but interruptions: threads on other workers
/// go on. It is for code that depends on the OS thread that it runs on (`gettid`, signal masks), not a lock.
///
/// On an OS thread this calls `f` and that is all.
///
/// # Examples
///
/// ```
/// let thread = uthread::spawn(|| {
///     uthread::without_preemption(|| {
///         // SAFETY: gettid has no preconditions.
///         let (before, after) = unsafe { (libc::gettid(), libc::gettid()) };
///         assert_eq!(before, after, "still on the same OS thread");
///     });
/// });
/// thread.join().unwrap();
/// ```
pub fn without_preemption<R>(f: impl FnOnce() -> R) -> R {
    let _pin = Pin::of_program();
    f()
}
