//! Thread blocks: thread-local storage that belongs to a green thread.
//!
//! **Problem.** `thread_local!`, `errno`, the panic count, stdio's lock owners and malloc's cache
//! are found through the thread pointer. Green threads that share their worker's see each other's
//! half-done work, and one that moves to another worker finds other variables at the addresses that
//! the compiler keeps in registers (LLVM issue 98479).
//!
//! **Alternatives.** Forbid thread-locals across switches: nobody can check it, and `std` itself
//! breaks the rule (`io::Error::last_os_error`). Pin green threads to workers: no balancing, no
//! preemption, still shared thread-locals. Swap the contents of the TLS area at a switch: pointers to
//! thread-locals dangle. Take the blocks of real OS threads that sleep: 36 KB each.
//!
//! **Choice.** Build what `pthread_create` builds, without the thread: memory for libc's
//! `struct pthread` and the static TLS of all modules, completed by the loader's own
//! `_dl_allocate_tls`. Nothing about glibc's layout is written down here: sizes and offsets come
//! from the `_thread_db_*` descriptors that glibc exports for debuggers ([`glibc`]), and the initial
//! contents from a donor, an OS thread that is born only to be photographed ([`template`]).
//!
//! A block stays with its stack and passes from one occupant to the next, because libc's malloc cache
//! in it cannot be released from outside. In between, [`finish`] runs what `pthread_exit` would run
//! (thread-local destructors, [`keys`]), and [`ThreadBlock::renew`] restores the initial values of all
//! modules but libc and the loader.
//!
//! # What libc knows and a green thread does not have
//!
//! The kernel does not know of green threads. Their tids are made up, above any that the kernel
//! gives out, because recursive locks compare tids. Hence functions that hand a `pthread_t`'s tid to
//! the kernel fail on a green thread's own (`pthread_getaffinity_np`, `pthread_getattr_np`,
//! `pthread_getschedparam`: ESRCH) or mean the worker (`pthread_setname_np`), priority-inheriting and robust mutexes, whose owner the
//! kernel looks up by tid, must not be shared by green threads, and `pthread_exit` and
//! `pthread_cancel` are for real threads. Signal mask, affinity, credentials and `gettid` are those of
//! the OS thread underneath.
//!
//! A library that is loaded with `dlopen` and demands *static* TLS (flag `DF_STATIC_TLS`; ordinary
//! libraries use dynamic TLS, which works) takes it from a reserve that glibc keeps in every OS
//! thread and that thread blocks, for the sake of their size, do not have. Green threads must not call
//! into that library. Spawning fails with an error that says so once it is noticed, that is when a
//! worker needs a slot that it has not at hand. Load such a library before the first spawn instead:
//! then it counts as one of the program's own.
//!
//! `fork` leaves the child one OS thread, the caller's, on its green stack; of the worker's own stack
//! the child's libc believes that it is free. As in any program with threads, the child may do little
//! but `exec` or `_exit`. (`std::process::Command` does just that.) CET shadow stacks are not switched
//! and must be off, as they are unless a program asks for them.

mod glibc;
mod keys;
mod template;

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use glibc::Glibc;
use template::Template;

use crate::arch;

/// What building thread blocks takes, found once per process.
struct Support {
    glibc: Glibc,
    template: Template,
}

static SUPPORT: OnceLock<Result<Support, String>> = OnceLock::new();

/// Whether thread blocks can be built in this process; the error says why not.
fn support() -> Result<&'static Support, &'static str> {
    let probed = SUPPORT.get_or_init(|| {
        if !arch::thread_pointer_is_writable() {
            return Err(
                "user code may not write the thread pointer (x86-64 needs FSGSBASE and Linux 5.9)"
                    .into(),
            );
        }
        let glibc = Glibc::find()?;
        let template =
            Template::take(&glibc).map_err(|e| format!("no template of a thread: {e}"))?;
        Ok(Support { glibc, template })
    });
    probed.as_ref().map_err(String::as_str)
}

/// `Ok` where thread blocks can be built, else the reason why not.
pub(crate) fn available() -> Result<(), &'static str> {
    support().map(|_| ())
}

/// Whether the thread block in force is an OS thread's own, and none that was built here. Async-signal-safe.
pub(crate) fn is_of_os_thread() -> bool {
    // Before the first was built, support for it was found.
    let Some(Ok(Support { glibc, .. })) = SUPPORT.get() else { return true };
    let own =
        NonNull::new(arch::thread_pointer() as *mut u8).expect("a thread has a thread pointer");
    // SAFETY: the field is libc's, of the structure at the thread pointer; what it says changes in a child of fork(2) only.
    let tid = unsafe { glibc.tid.of::<u32>(glibc.pthread_of(own)).read() };
    (tid as usize) < Remains::FIRST_TID
}

/// Bytes that a thread block takes at the top of a stack.
///
/// # Panics
///
/// Panics where thread blocks are not [`available`].
pub(crate) fn footprint() -> usize {
    let t = &proven().template;
    t.below + t.above
}

/// Fails if a library was loaded whose static TLS the blocks have no room for. Costs 20 ns.
///
/// # Errors
///
/// There is such a library; the message says what to do.
pub(crate) fn check_modules() -> io::Result<()> {
    match support() {
        Ok(Support { glibc, template }) => template.check_modules(glibc),
        Err(_) => Ok(()),
    }
}

/// For callers that hold a block, whose existence proves support.
fn proven() -> &'static Support {
    support().expect("thread blocks were probed before one is used")
}

/// The thread-local storage of one green thread. Only its address: the memory is the stack's.
#[derive(Debug)]
pub(crate) struct ThreadBlock {
    thread_pointer: NonNull<u8>,
}

// SAFETY: a block has no thread affinity; it makes one.
unsafe impl Send for ThreadBlock {}

impl ThreadBlock {
    /// Builds a block in the [`footprint`] bytes below `top`.
    ///
    /// # Errors
    ///
    /// No memory for the loader's part, no more made-up tids, or a library that was loaded since
    /// demands static TLS.
    ///
    /// # Safety
    ///
    /// The memory is writable, unused, aligned to a page at its end, and stays so until
    /// [`ThreadBlock::dismantle`]. Thread blocks are [`available`].
    pub(crate) unsafe fn build(top: NonNull<u8>) -> io::Result<ThreadBlock> {
        let Support { glibc, template } = proven();
        // SAFETY: `above` bytes below the top are within the footprint.
        let thread_pointer = unsafe { top.sub(template.above) };
        let remains = Remains::take()?;
        // SAFETY: the caller vouches for the memory, and the template for its extent and alignment.
        unsafe {
            if glibc.allocate_tls(thread_pointer).is_null() {
                remains.put_back();
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            template.write(glibc, thread_pointer, remains);
        }
        Ok(ThreadBlock { thread_pointer })
    }

    /// What [`arch::set_thread_pointer`] takes.
    #[inline]
    pub(crate) fn thread_pointer(&self) -> usize {
        self.thread_pointer.as_ptr() as usize
    }

    /// The lowest address of the block.
    #[inline]
    pub(crate) fn low(&self) -> NonNull<u8> {
        // SAFETY: `below` bytes lie between the block's start and its thread pointer.
        unsafe { self.thread_pointer.sub(proven().template.below) }
    }

    /// Makes the thread-locals of the program new for the next occupant; libc's own stay.
    ///
    /// # Errors
    ///
    /// No memory for the loader's part; the block is then as before and can be renewed again.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        let Support { glibc, template } = proven();
        // SAFETY: `&mut self` and the last occupant's end: nobody uses the block.
        unsafe {
            if glibc.has_tls_of(self.thread_pointer, |m| !template.is_static(m)) {
                template.rebuild_dynamic(glibc, self.thread_pointer)?;
            }
            template.renew(self.thread_pointer);
        }
        Ok(())
    }

    /// Releases what the loader allocated for the block, and keeps what libc left in it for the next
    /// block that is built. The memory may then be reused.
    ///
    /// # Safety
    ///
    /// No OS thread has this block as its thread block now, and none will.
    pub(crate) unsafe fn dismantle(self) {
        let Support { glibc, template } = proven();
        // SAFETY: the block is complete, and the caller says that nobody uses it.
        unsafe {
            let remains = template.remains(glibc, self.thread_pointer);
            keys::free_second_level(glibc, self.thread_pointer);
            glibc.deallocate_tls(self.thread_pointer);
            remains.put_back();
        }
    }
}

/// What outlives a dismantled block: its tid, and the values of libc's and the loader's own
/// thread-locals, among them the pointer to malloc's cache.
struct Remains {
    tid: u32,
    libc: Option<Box<[u8]>>,
}

static REMAINS: Mutex<Vec<Remains>> = Mutex::new(Vec::new());

impl Remains {
    /// Made-up tids begin here: one above the largest that Linux gives out (`PID_MAX_LIMIT`, 2²²).
    const FIRST_TID: usize = (1 << 22) + 1;
    /// And end here: futex words have 30 bits for the tid (`FUTEX_TID_MASK`).
    const LAST_TID: usize = (1 << 30) - 1;

    fn take() -> io::Result<Remains> {
        static NEXT_TID: AtomicUsize = AtomicUsize::new(Remains::FIRST_TID);
        if let Some(found) = REMAINS.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(found);
        }
        let tid = NEXT_TID.fetch_add(1, Ordering::Relaxed);
        if tid > Remains::LAST_TID {
            NEXT_TID.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                "more green threads than thread ids",
            ));
        }
        Ok(Remains { tid: tid as u32, libc: None })
    }

    fn put_back(self) {
        REMAINS.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }
}

/// To be called first on a green thread that has a block: what `pthread_create`'s start routine does.
pub(crate) fn begin() {
    let glibc = &proven().glibc;
    glibc.reset_locale();
    glibc.reset_errno();
}

/// To be called on a green thread that has a block when only its result is left to be published: runs
/// the destructors of its thread-locals, as the end of an OS thread does.
pub(crate) fn finish() {
    let Support { glibc, .. } = proven();
    glibc.call_tls_dtors();
    keys::run_destructors(glibc);
    glibc.reset_cancellation();
}

/// To be called last on a green thread that has a block: whatever was done since [`finish`], libc's list
/// of destructors, which passes to the next occupant, is empty.
pub(crate) fn end() {
    proven().glibc.call_tls_dtors();
}
