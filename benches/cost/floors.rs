//! What the machine charges for the things that no runtime can avoid.

use std::hint::{black_box, spin_loop};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use io_uring::{IoUring, opcode};
use memmap2::{Advice, MmapMut, MmapOptions};

use crate::machine::Pin;
use crate::measure::{Part, Stretch, Timed, repeated};

/// Bytes of a stack here: that of the figures for many threads.
pub(crate) const STACK: usize = 64 << 10;

/// Bytes in a page of memory.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Address space without memory, without huge pages: each page is touched by itself.
fn untouched(bytes: usize) -> io::Result<MmapMut> {
    let mapping = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
    // Kernels without huge pages refuse, and have nothing to switch off.
    let _ = mapping.advise(Advice::NoHugePage);
    Ok(mapping)
}

/// A stack cut from a larger mapping.
pub(crate) struct Slot {
    limit: usize,
    _mapping: Arc<MmapMut>,
}

/// `count` stacks in one mapping.
pub(crate) fn slots(count: usize) -> io::Result<impl Iterator<Item = Slot>> {
    let mapping = Arc::new(untouched(count * STACK)?);
    let start = mapping.as_ptr() as usize;
    Ok((0..count).map(move |i| Slot { limit: start + i * STACK, _mapping: mapping.clone() }))
}

// SAFETY: the memory is this slot's alone, and is mapped as long as the slot exists. It has no guard page, so whoever makes a
// coroutine on it answers for its depth: the bodies in this file need a few hundred bytes of STACK.
unsafe impl Stack for Slot {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.limit + STACK).expect("nothing is mapped at address 0")
    }
    fn limit(&self) -> StackPointer {
        StackPointer::new(self.limit).expect("nothing is mapped at address 0")
    }
}

/// A coroutine that suspends itself until it is told to stop.
pub(crate) struct Spinner(Coroutine<Next, (), (), Slot>);

enum Next {
    Suspend,
    Stop,
}

impl Spinner {
    /// It has run up to its first suspension.
    pub(crate) fn started(slot: Slot) -> Spinner {
        let body = |yielder: &Yielder<Next, ()>, mut next| {
            while let Next::Suspend = next {
                next = yielder.suspend(());
            }
        };
        let mut spinner = Spinner(Coroutine::with_stack(slot, body));
        spinner.resume();
        spinner
    }

    fn resume(&mut self) {
        self.0.resume(Next::Suspend);
    }
}

impl Drop for Spinner {
    /// corosensei cannot drop a coroutine that hangs midway unless it may unwind it.
    fn drop(&mut self) {
        self.0.resume(Next::Stop);
    }
}

/// Resume and suspend, for `count` coroutines in turn.
pub(crate) fn coroutine_round_trip(count: usize) -> io::Result<Stretch<'static>> {
    let mut spinners: Vec<_> = slots(count)?.map(Spinner::started).collect();
    Ok(Box::new(move |operations| {
        let laps = operations.div_ceil(count);
        let start = Instant::now();
        for _ in 0..laps {
            spinners.iter_mut().for_each(Spinner::resume);
        }
        Timed { operations: laps * count, elapsed: start.elapsed() }
    }))
}

/// Create a coroutine and run it to its end, on warm stacks, `batch` alive at a time. Each suspends
/// itself so many times on its way, and goes on when all the others have.
pub(crate) fn coroutine_life<const SUSPENSIONS: usize>(
    batch: usize,
) -> io::Result<Stretch<'static>> {
    let mut pool: Vec<Slot> = slots(batch)?.collect();
    let mut coroutines = Vec::with_capacity(batch);
    let body = |yielder: &Yielder<(), ()>, ()| {
        (0..SUSPENSIONS).for_each(|_| yielder.suspend(()));
        black_box(())
    };
    Ok(Box::new(move |operations| {
        let batches = operations.div_ceil(batch);
        let start = Instant::now();
        for _ in 0..batches {
            coroutines.extend(pool.drain(..).map(|slot| Coroutine::with_stack(slot, body)));
            for _ in 0..SUSPENSIONS {
                for coroutine in &mut coroutines {
                    assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
                }
            }
            pool.extend(coroutines.drain(..).map(|mut coroutine| {
                assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
                coroutine.into_stack()
            }));
        }
        Timed { operations: batches * batch, elapsed: start.elapsed() }
    }))
}

/// Write the thread pointer (with the value that it has).
pub(crate) fn thread_pointer_write() -> io::Result<Stretch<'static>> {
    if !arch::thread_pointer_is_writable() {
        return Err(io::Error::other("the thread pointer cannot be written in user mode here"));
    }
    let own = arch::thread_pointer();
    // SAFETY: it is writable, and the value is that of the measuring thread, on which floors run.
    Ok(repeated(move || unsafe { arch::set_thread_pointer(own) }))
}

/// `count` switches among so many green threads: each is a stack switch and, so that every thread has
/// its own thread-locals, a new thread pointer.
pub(crate) fn switches(count: f64, threads: usize) -> io::Result<Vec<Part>> {
    let stretches = [coroutine_round_trip(threads)?, thread_pointer_write()?];
    Ok(stretches.map(|stretch| Part { times: count, stretch }).into())
}

/// A cache line there and back between two cores.
pub(crate) fn cache_line_round_trip([here, there]: [usize; 2]) -> Stretch<'static> {
    const STOP: usize = usize::MAX;
    Box::new(move |operations| {
        let line = AtomicUsize::new(0);
        let spin_until = |accept: &dyn Fn(usize) -> bool| loop {
            let value = line.load(Ordering::Acquire);
            if accept(value) {
                return value;
            }
            spin_loop();
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                let _pin = Pin::to(&[there]).expect("an allowed core");
                // Odd values are questions, the even ones after them the answers.
                loop {
                    let question = spin_until(&|value| value % 2 == 1);
                    if question == STOP {
                        break;
                    }
                    line.store(question + 1, Ordering::Release);
                }
            });
            let _pin = Pin::to(&[here]).expect("an allowed core");
            let ask = |question| {
                line.store(question, Ordering::Release);
                spin_until(&|value| value == question + 1);
            };
            // The first one waits for the other thread's start.
            ask(1);
            let start = Instant::now();
            (1..=operations).for_each(|i| ask(2 * i + 1));
            let elapsed = start.elapsed();
            line.store(STOP, Ordering::Release);
            Timed { operations, elapsed }
        })
    })
}

/// Read the processor's time-stamp counter.
pub(crate) fn cycle_counter() -> Stretch<'static> {
    repeated(|| _ = black_box(arch::cycle_counter()))
}

/// Read the monotonic clock.
pub(crate) fn clock() -> Stretch<'static> {
    repeated(|| _ = black_box(Instant::now()))
}

/// A system call that only reads a field of the process.
pub(crate) fn system_call() -> Stretch<'static> {
    repeated(|| _ = black_box(nix::unistd::getppid()))
}

/// Submit a no-op to a ring and reap it, in one enter.
pub(crate) fn ring_round_trip() -> io::Result<Stretch<'static>> {
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8)?;
    let nop = opcode::Nop::new().build();
    Ok(repeated(move || {
        // SAFETY: a no-op refers to no memory.
        unsafe { ring.submission().push(&nop) }.expect("the last one was taken");
        ring.submit_and_wait(1).expect("enter");
        assert_eq!(ring.completion().next().expect("the no-op's completion").result(), 0);
    }))
}

/// The first touch of a page of anonymous memory.
pub(crate) fn page_fault() -> Stretch<'static> {
    // Few enough that the kernel hands out the same frames again: pages fresh from the host of a
    // virtual machine cost many times more, and that is the host's price.
    const PAGES: usize = 4096;
    let page = page_size();
    Box::new(move |operations| {
        let mappings = operations.div_ceil(PAGES);
        let mut elapsed = Duration::ZERO;
        for _ in 0..mappings {
            let mut mapping = untouched(PAGES * page).expect("address space");
            let start = Instant::now();
            mapping.chunks_mut(page).for_each(|page| *black_box(&mut page[0]) = 1);
            elapsed += start.elapsed();
        }
        Timed { operations: mappings * PAGES, elapsed }
    })
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::asm;

    /// Whether the kernel lets user mode write the FS base (FSGSBASE).
    pub(super) fn thread_pointer_is_writable() -> bool {
        const HWCAP2_FSGSBASE: u64 = 1 << 1;
        // SAFETY: getauxval has no preconditions.
        unsafe { libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 }
    }

    pub(super) fn thread_pointer() -> usize {
        let value;
        // SAFETY: the ABI keeps the thread pointer at the address it points at.
        unsafe {
            asm!("mov {}, fs:0", out(reg) value, options(nostack, preserves_flags, readonly))
        };
        value
    }

    /// # Safety
    ///
    /// The instruction is enabled, and `value` is the calling thread's own thread pointer.
    #[inline(always)]
    pub(super) unsafe fn set_thread_pointer(value: usize) {
        // SAFETY: the caller's obligations; nothing changes.
        unsafe { asm!("wrfsbase {}", in(reg) value, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub(super) fn cycle_counter() -> u64 {
        // SAFETY: Linux leaves the instruction enabled in user mode.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::asm;

    pub(super) fn thread_pointer_is_writable() -> bool {
        true
    }

    pub(super) fn thread_pointer() -> usize {
        let value;
        // SAFETY: it reads a register.
        unsafe { asm!("mrs {}, tpidr_el0", out(reg) value, options(nostack, preserves_flags)) };
        value
    }

    /// # Safety
    ///
    /// `value` is the calling thread's own thread pointer.
    #[inline(always)]
    pub(super) unsafe fn set_thread_pointer(value: usize) {
        // SAFETY: the caller's obligations; nothing changes.
        unsafe { asm!("msr tpidr_el0, {}", in(reg) value, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub(super) fn cycle_counter() -> u64 {
        let value;
        // SAFETY: it reads a register that Linux leaves readable in user mode.
        unsafe { asm!("mrs {}, cntvct_el0", out(reg) value, options(nostack, preserves_flags)) };
        value
    }
}
