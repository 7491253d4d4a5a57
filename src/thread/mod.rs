//! `std::thread` for green threads: the same names, the same signatures, the same promises.
//!
//! - [`packet`]: how a result gets from a thread to who joins it. - [`mod@scope`]: threads that borrow.

mod packet;
mod scope;

use std::fmt;
use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use scope::{Scope, ScopedJoinHandle, scope};

use crate::context::stack;
use crate::group::Group;
use crate::reason::WaitReason;
use crate::runtime::{self, Runtime};
use crate::worker::{self, Deadline, Identity};
use packet::Packet;
use scope::ScopeData;

/// What [`JoinHandle::join`] returns: the thread's result, or the payload of its panic.
pub type Result<T> = std::thread::Result<T>;

/// Spawns a green thread and returns a handle to it.
///
/// As [`std::thread::spawn`]: the thread runs on its own; dropping the handle detaches it; when `main`
/// returns, the process ends and the thread with it. On a green thread, the new one belongs to the same
/// [`Runtime`]; elsewhere to one that starts at the first use.
///
/// # Panics
///
/// Panics if the thread cannot be created; [`Builder::spawn`] returns the error.
///
/// # Examples
///
/// ```
/// let handle = uthread::spawn(|| "hello from a green thread");
/// assert_eq!(handle.join().unwrap(), "hello from a green thread");
/// ```
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Builder::new().spawn(f).expect("failed to spawn thread")
}

/// Configures a new green thread: its name, its stack. As [`std::thread::Builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing before `spawn`"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    group: Option<Group>,
}

impl Builder {
    /// A builder for a thread without a name, with a stack of its runtime's default size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the thread, for [`Thread::name`] and for the message of a stack overflow.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// Bytes of address space for the thread's stack, rounded up to a power of two of at least 32 KiB
    /// and at most 64 GiB; see [`RuntimeBuilder::stack_size`](crate::RuntimeBuilder::stack_size).
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Puts the thread into a group, with which it shares the CPU. By default it is in that of the thread that
    /// spawns it.
    pub fn group(mut self, group: &Group) -> Builder {
        self.group = Some(group.clone());
        self
    }

    /// Spawns the thread; see [`spawn`].
    ///
    /// # Errors
    ///
    /// There is no memory, address space or mapping for its stack, or no runtime could be started. Nothing
    /// is left behind; `f` is dropped.
    ///
    /// # Panics
    ///
    /// Panics if the name has an interior NUL byte.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: nothing is borrowed.
        unsafe { self.spawn_unchecked(f) }
    }

    /// Spawns the thread in the given runtime.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// Panics if the name has an interior NUL byte.
    #[track_caller]
    pub fn spawn_in<F, T>(self, runtime: &Runtime, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: nothing is borrowed.
        unsafe { self.spawn_unchecked_in(runtime.inner(), f) }
    }

    /// Spawns a thread that may borrow from its surroundings, within a [`scope()`].
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// Panics if the name has an interior NUL byte.
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        // SAFETY: the scope does not end before its threads have, `f` and results included.
        Ok(ScopedJoinHandle::new(unsafe { self.start(None, scope.data(), f)? }))
    }

    /// Spawns a thread without asking that it outlive nothing.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// Panics if the name has an interior NUL byte.
    ///
    /// # Safety
    ///
    /// As for [`std::thread::Builder::spawn_unchecked`]: the thread is joined before anything that `f` or
    /// its result borrows ends, or both borrow nothing.
    #[track_caller]
    pub unsafe fn spawn_unchecked<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        // SAFETY: as promised to this function.
        Ok(JoinHandle(unsafe { self.start(None, None, f)? }))
    }

    /// # Safety
    ///
    /// As for [`Builder::spawn_unchecked`].
    #[track_caller]
    pub(crate) unsafe fn spawn_unchecked_in<F, T>(
        self,
        runtime: &worker::Runtime,
        f: F,
    ) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        // SAFETY: as promised to this function.
        Ok(JoinHandle(unsafe { self.start(Some(runtime), None, f)? }))
    }

    /// # Safety
    ///
    /// What `f` and its result borrow is valid until the thread has published its result and, if the
    /// result is not taken, until the packet is dropped.
    #[track_caller]
    unsafe fn start<F, T>(
        self,
        runtime: Option<&worker::Runtime>,
        scope: Option<Arc<ScopeData>>,
        f: F,
    ) -> io::Result<Joining<T>>
    where
        F: FnOnce() -> T,
    {
        if self.name.as_ref().is_some_and(|n| n.contains('\0')) {
            panic!("thread name may not contain interior null bytes");
        }
        let caller = worker::current();
        let runtime = match (runtime, &caller) {
            (Some(named), _) => named,
            (None, Some(caller)) => caller.get().runtime(),
            (None, None) => runtime::global()?,
        };
        let identity = Identity::new(self.name.map(String::into_boxed_str), None);
        let packet = Arc::new(Packet::new(scope));
        let announced = packet.announce();
        let theirs = packet.clone();
        let main = move || {
            let body = AssertUnwindSafe(|| __rust_begin_short_backtrace(f));
            let result = catch_unwind(body);
            theirs.finish(result);
        };
        let stack_size = self.stack_size.map(stack::rounded_size);
        let group = self.group.as_ref().map(Group::member);
        // SAFETY: as promised to this function; `finish` does not unwind.
        unsafe { runtime.spawn(stack_size, identity.clone(), group, Location::caller(), main)? };
        announced.keep();
        Ok(Joining { thread: Thread { identity }, packet })
    }
}

/// Calls a thread's body. By its name, backtraces that are asked to be short know where to end, as those of `std` do.
#[inline(never)]
fn __rust_begin_short_backtrace<T>(body: impl FnOnce() -> T) -> T {
    let result = body();
    // No tail call.
    std::hint::black_box(());
    result
}

/// What handles of both kinds have: the right to join a thread.
struct Joining<T> {
    thread: Thread,
    packet: Arc<Packet<T>>,
}

impl<T> Joining<T> {
    fn join(self) -> Result<T> {
        let own = worker::current();
        if own.is_some_and(|own| Arc::ptr_eq(own.get().identity(), &self.thread.identity)) {
            panic!("failed to join thread: it would wait for itself");
        }
        self.packet.wait()
    }
}

impl<T> Drop for Joining<T> {
    fn drop(&mut self) {
        self.packet.detach();
    }
}

/// The right to join a green thread. As [`std::thread::JoinHandle`]; dropping it detaches the thread.
pub struct JoinHandle<T>(Joining<T>);

// SAFETY: `spawn` makes handles only for results that may be sent (as `std` has it, so that generic
// code may send handles without saying so again); the handle gives out nothing else of the thread's.
unsafe impl<T> Send for JoinHandle<T> {}
// SAFETY: as above; a shared handle gives no access to the result.
unsafe impl<T> Sync for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// The thread.
    pub fn thread(&self) -> &Thread {
        &self.0.thread
    }

    /// Waits for the thread to end, the destructors of its thread-locals included.
    ///
    /// # Errors
    ///
    /// The thread panicked; the payload.
    ///
    /// # Panics
    ///
    /// Panics if a thread joins itself.
    ///
    /// # Blocking
    ///
    /// Parks the green thread; an OS thread blocks.
    pub fn join(self) -> Result<T> {
        self.0.join()
    }

    /// Whether the thread has ended, so that [`join`](Self::join) returns at once.
    pub fn is_finished(&self) -> bool {
        self.0.packet.is_finished()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("thread", self.thread()).finish_non_exhaustive()
    }
}

/// A handle to a thread, green or not. As [`std::thread::Thread`].
#[derive(Clone)]
pub struct Thread {
    identity: Arc<Identity>,
}

impl Thread {
    /// Makes the thread's next or present [`park`] return.
    ///
    /// What this thread did before is visible to the other after its `park`.
    pub fn unpark(&self) {
        worker::notify(&self.identity.parker);
    }

    /// The thread's unique identifier.
    pub fn id(&self) -> ThreadId {
        ThreadId(self.identity.id)
    }

    /// The thread's name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.identity.name.as_deref()
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Identifies a thread for the life of the process. As [`std::thread::ThreadId`], of which it is
/// independent: a thread's two identifiers are different numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(NonZero<u64>);

impl ThreadId {
    /// The one with that number; there is none with the number 0.
    pub(crate) fn from_number(number: u64) -> Option<ThreadId> {
        NonZero::new(number).map(ThreadId)
    }

    /// The number by which reports name the thread.
    pub fn as_u64(&self) -> NonZero<u64> {
        self.0
    }
}

/// A handle to the calling thread, green or not.
///
/// ([`std::thread::current`] works on green threads too, and tells them apart, but knows no names.)
pub fn current() -> Thread {
    Thread { identity: worker::own_identity() }
}

/// Waits until the thread's token is available, and takes it. As [`std::thread::park`]: may return
/// without a reason.
///
/// # Blocking
///
/// Parks the green thread; an OS thread blocks.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// let flag = Arc::new(AtomicBool::new(false));
/// let seen = flag.clone();
/// let parked = uthread::spawn(move || {
///     while !seen.load(Ordering::Acquire) {
///         uthread::park();
///     }
/// });
/// flag.store(true, Ordering::Release);
/// parked.thread().unpark();
/// parked.join().unwrap();
/// ```
pub fn park() {
    park_on_own(None);
}

/// As [`park`], but waits no longer than about the given time.
///
/// # Blocking
///
/// Parks the green thread; an OS thread blocks.
pub fn park_timeout(time: Duration) {
    park_on_own(Some(Deadline::after(time)));
}

fn park_on_own(deadline: Option<Deadline>) {
    // The handle is this frame's own: a thread's reference to itself ends only with the thread.
    match worker::current() {
        Some(thread) => worker::wait(&thread.get().identity().parker, deadline, WaitReason::Park),
        None => worker::wait(&worker::own_identity().parker, deadline, WaitReason::Park),
    };
}

/// Lets other threads run. As [`std::thread::yield_now`]: the caller goes to the end of its worker's run
/// queue.
pub fn yield_now() {
    worker::yield_now();
}
