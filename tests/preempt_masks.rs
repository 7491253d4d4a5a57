//! Signals of the program's and those of the runtime do not get into each other's way.

#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use uthread::Runtime;

use preempt::{hectic, spin_until, tell};
use subprocess::in_child;
use watchdog::watched;

/// The OS thread underneath.
fn os_thread() -> libc::pid_t {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }
}

/// A thread that never leaves of its own accord, and the one behind it for which it waits.
fn hog_and_neighbour() {
    let told = Arc::new(AtomicBool::new(false));
    let theirs = told.clone();
    let hog = uthread::spawn(move || spin_until(&theirs));
    let neighbour = uthread::spawn(move || tell(&told));
    hog.join().unwrap();
    neighbour.join().unwrap();
}

#[test]
fn a_wake_up_from_outside_comes_though_no_signal_can_be_queued() {
    let test = "a_wake_up_from_outside_comes_though_no_signal_can_be_queued";
    let output = in_child(test, &[], || {
        let runtime = hectic(1).build().unwrap();
        // Timers have reserved their signals by now.
        let (_, most) = getrlimit(Resource::RLIMIT_SIGPENDING).unwrap();
        setrlimit(Resource::RLIMIT_SIGPENDING, 0, most).unwrap();
        watched(&runtime, || {
            let over = Arc::new(AtomicBool::new(false));
            let theirs = over.clone();
            let hog = runtime.spawn(move || spin_until(&theirs));
            let (sender, receiver) = mpsc::channel();
            let parked = runtime.spawn(move || {
                loop {
                    uthread::park();
                    if sender.send(()).is_err() {
                        return;
                    }
                }
            });
            while runtime.stats().wake_signals < 10 {
                parked.thread().unpark();
                receiver.recv().unwrap();
            }
            drop(receiver);
            parked.thread().unpark();
            parked.join().unwrap();
            tell(&over);
            hog.join().unwrap();
        });
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_tick_that_the_program_takes_away_comes_again() {
    let runtime = hectic(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let ticks = SigSet::from(Signal::SIGURG);
            ticks.thread_block().unwrap();
            let told = Arc::new(AtomicBool::new(false));
            let theirs = told.clone();
            // That somebody waits is what a tick is for.
            let neighbour = uthread::spawn(move || tell(&theirs));
            assert_eq!(code_of_next(&ticks), libc::SI_TIMER);
            ticks.thread_unblock().unwrap();
            spin_until(&told);
            neighbour.join().unwrap();
        });
    });
}

/// Takes a signal that the calling thread has blocked; what the kernel says of where it comes from.
fn code_of_next(signals: &SigSet) -> libc::c_int {
    // SAFETY: the structure is one of numbers and addresses, and both pointers are valid.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::sigwaitinfo(signals.as_ref(), &mut info) < 0 {}
        info.si_code
    }
}

#[test]
fn signals_that_a_thread_leaves_blocked_are_unblocked_for_the_others() {
    let runtime = hectic(1).build().unwrap();
    watched(&runtime, || {
        runtime.run(|| {
            let careless = uthread::spawn(|| SigSet::from(Signal::SIGUSR1).thread_block().unwrap());
            careless.join().unwrap();
            assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1));
            // Found out, and its neighbour helped.
            hog_and_neighbour();
            while SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1) {
                uthread::yield_now();
            }
            let deferred = uthread::stats().deferred_signals;
            assert!(deferred > 0);
            let forced = uthread::stats().forced_switches;
            while uthread::stats().forced_switches == forced {
                hog_and_neighbour();
            }
            assert_eq!(uthread::stats().deferred_signals, deferred);
        });
    });
}

/// What happened in the handlers of a signal. One for each of the two signals used here.
struct Handled {
    begun: AtomicU64,
    /// How many may return.
    released: AtomicU64,
    moved: AtomicU64,
}

impl Handled {
    fn was_moved(&self) -> bool {
        self.moved.load(Ordering::Acquire) > 0
    }
}

static HANDLED: [Handled; 2] = [const {
    Handled { begun: AtomicU64::new(0), released: AtomicU64::new(0), moved: AtomicU64::new(0) }
}; 2];

fn handled(signal: Signal) -> &'static Handled {
    &HANDLED[usize::from(signal == Signal::SIGUSR2)]
}

/// Runs until it may return, or has been moved, which it must not be.
extern "C" fn long_handler(signal: libc::c_int) {
    let handled = handled(Signal::try_from(signal).expect("one of the two"));
    let (number, here) = (handled.begun.fetch_add(1, Ordering::AcqRel) + 1, os_thread());
    while handled.released.load(Ordering::Acquire) < number {
        if os_thread() != here {
            handled.moved.fetch_add(1, Ordering::AcqRel);
            return;
        }
    }
}

/// The alternate signal stacks that OS threads were seen to have.
type Stacks = HashMap<libc::pid_t, usize>;

/// Sees to it that the calling thread's OS thread has the alternate stack that it had before; which that is.
fn look_at_alternate_stack(stacks: &mut Stacks) -> libc::pid_t {
    let (here, stack) = uthread::without_preemption(|| {
        // SAFETY: the structure is one of numbers and an address, and the call fills it.
        let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is valid.
        unsafe { libc::sigaltstack(std::ptr::null(), &mut stack) };
        (os_thread(), stack.ss_sp.addr())
    });
    assert_eq!(*stacks.entry(here).or_insert(stack), stack, "of the OS thread {here}");
    here
}

/// Sends the calling thread's OS thread a signal.
fn signal_own(signal: Signal) {
    // SAFETY: neither call has preconditions.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), os_thread(), signal) };
    assert_eq!(sent, 0);
}

/// Has the handler run, by means of `run_handler`, among threads that want its worker, until ticks have often
/// found it. The runtime has two workers.
fn handlers_stay_where_they_are(runtime: &Runtime, signal: Signal, run_handler: fn()) {
    let handled = handled(signal);
    let (over, places) = (AtomicBool::new(false), [const { AtomicI32::new(0) }; 4]);
    let neighbour = |place: &AtomicI32| {
        let mut stacks = Stacks::new();
        while !over.load(Ordering::Relaxed) {
            place.store(look_at_alternate_stack(&mut stacks), Ordering::Relaxed);
        }
        stacks
    };
    let seen: Vec<Stacks> = watched(runtime, || {
        std::thread::scope(|s| {
            s.spawn(|| release_when_found(runtime, handled, &over));
            runtime.run(|| {
                uthread::scope(|s| {
                    let neighbour = &neighbour;
                    let all = places.each_ref().map(|place| s.spawn(move || neighbour(place)));
                    while uthread::stats().deferred_signals < 15 && !handled.was_moved() {
                        // Back on a worker, if it was taken for one that blocks.
                        uthread::yield_now();
                        run_handler();
                    }
                    // Both workers have run some of them, or this thread.
                    let mut stacks = Stacks::new();
                    let mut is_elsewhere = |place: &AtomicI32| {
                        place.load(Ordering::Relaxed) != look_at_alternate_stack(&mut stacks)
                    };
                    while !places.iter().any(&mut is_elsewhere) {
                        uthread::yield_now();
                    }
                    over.store(true, Ordering::Relaxed);
                    all.into_iter().map(|thread| thread.join().unwrap()).chain([stacks]).collect()
                })
            })
        })
    });
    assert!(!handled.was_moved());
    let mut stacks = Stacks::new();
    for (thread, stack) in seen.into_iter().flatten() {
        assert_eq!(*stacks.entry(thread).or_insert(stack), stack, "of the OS thread {thread}");
    }
    let different: HashSet<_> = stacks.values().collect();
    assert_eq!(different.len(), stacks.len(), "OS threads share an alternate stack");
}

/// Lets a handler return when it was found by ticks, or by the monitor's signals on a helper.
fn release_when_found(runtime: &Runtime, handled: &Handled, over: &AtomicBool) {
    let found = || {
        let stats = runtime.stats();
        stats.deferred_signals + stats.monitor_signals
    };
    while !over.load(Ordering::Relaxed) {
        let begun = handled.begun.load(Ordering::Acquire);
        let before = found();
        while handled.released.load(Ordering::Acquire) < begun {
            if found() >= before + 3 || handled.was_moved() {
                handled.released.store(begun, Ordering::Release);
            }
            // For its worker, too: one whose thread is alone gets no ticks.
            runtime.spawn(|| ());
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::yield_now();
    }
}

fn install(signal: Signal, flags: SaFlags) {
    let action = SigAction::new(SigHandler::Handler(long_handler), flags, SigSet::empty());
    // SAFETY: the handler uses atomic words and gettid.
    unsafe { sigaction(signal, &action) }.unwrap();
}

#[test]
fn a_handler_that_runs_in_a_call_that_unblocks_its_signal_stays_on_its_worker() {
    install(Signal::SIGUSR1, SaFlags::SA_RESTART);
    let signals = SigSet::from(Signal::SIGUSR1);
    // Workers inherit what their maker blocks.
    let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
    let runtime = hectic(2).build().unwrap();
    before.thread_set_mask().unwrap();
    handlers_stay_where_they_are(&runtime, Signal::SIGUSR1, || {
        signal_own(Signal::SIGUSR1);
        // If the thread was moved meanwhile there is no signal.
        kernel::let_signals_in();
    });
}

#[test]
fn a_handler_that_blocks_no_signal_stays_on_its_worker() {
    install(Signal::SIGUSR2, SaFlags::SA_RESTART | SaFlags::SA_NODEFER);
    let runtime = hectic(2).build().unwrap();
    handlers_stay_where_they_are(&runtime, Signal::SIGUSR2, || signal_own(Signal::SIGUSR2));
}
