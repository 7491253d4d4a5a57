//! Who plays a scenario, and what scenarios have in common.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use uthread::Runtime;

use crate::watchdog::watched;

/// Long enough for threads that do not wait to go on.
const MOMENT: Duration = Duration::from_millis(10);

/// No wait is so much longer than was asked for, however busy the machine is.
const FAR_TOO_LATE: Duration = Duration::from_secs(20);

/// Times that a scenario may be played until it succeeds without the monitor's help.
const ATTEMPTS: usize = 5;

/// The kinds of the participants, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    /// Green threads on so many workers.
    Green(usize),
    /// OS threads.
    Os,
    /// Green threads on so many workers, and OS threads: in turns, the first is a green one, if this is set.
    Mixed(usize, bool),
}

impl Cast {
    fn workers(self) -> usize {
        match self {
            Cast::Green(workers) | Cast::Mixed(workers, _) => workers,
            Cast::Os => 1,
        }
    }

    fn is_green(self, participant: usize) -> bool {
        match self {
            Cast::Green(_) => true,
            Cast::Os => false,
            Cast::Mixed(_, first) => participant.is_multiple_of(2) == first,
        }
    }

    /// Plays a scenario, with the monitor's help if there has to be.
    pub(crate) fn play(self, scenario: fn(Cast)) {
        self.on_a_stage(|runtime| self.perform(runtime, scenario));
    }

    /// Plays a scenario. On green threads alone it takes no help.
    pub(crate) fn play_unaided(self, scenario: fn(Cast)) {
        self.on_a_stage(|runtime| {
            let unaided = (0..ATTEMPTS).any(|_| {
                let before = runtime.stats();
                self.perform(runtime, scenario);
                runtime.stats().since(&before).helper_moves == 0
            });
            // Others of the process make threads wait in the kernel, too, for memory or a page: now and then.
            let counts = uthread::interposed() && matches!(self, Cast::Green(_));
            assert!(unaided || !counts, "the monitor helps:\n{}", runtime.stats());
        });
    }

    fn on_a_stage(self, play: impl FnOnce(&Runtime)) {
        keep_quiet_about_poison();
        let runtime = Runtime::builder().workers(self.workers()).build().unwrap();
        // Else nobody helps threads that wait in the kernel.
        if uthread::interposed() || runtime.preemption().is_ok() {
            watched(&runtime, || play(&runtime));
        }
    }

    fn perform(self, runtime: &Runtime, scenario: fn(Cast)) {
        match self {
            Cast::Os => scenario(self),
            _ => runtime.run(|| scenario(self)),
        }
    }

    /// Calls `f` with a crew, and waits until all of its members have ended.
    ///
    /// The caller is one more participant: a green thread if there are any.
    pub(crate) fn scope<'env, T>(self, f: impl for<'g, 'o> FnOnce(&Crew<'g, 'o, 'env>) -> T) -> T {
        uthread::scope(|green| {
            std::thread::scope(|os| {
                f(&Crew { cast: self, green, os, members: AtomicUsize::new(0) })
            })
        })
    }
}

/// Participants of a scenario.
pub(crate) struct Crew<'g, 'o, 'env: 'g + 'o> {
    cast: Cast,
    green: &'g uthread::Scope<'g, 'env>,
    os: &'o std::thread::Scope<'o, 'env>,
    members: AtomicUsize,
}

impl<'g, 'o, 'env> Crew<'g, 'o, 'env> {
    /// Spawns the next one.
    pub(crate) fn spawn<T: Send + 'env>(
        &self,
        f: impl FnOnce() -> T + Send + 'env,
    ) -> Member<'g, 'o, T> {
        if self.cast.is_green(self.members.fetch_add(1, SeqCst)) {
            Member::Green(self.green.spawn(f))
        } else {
            Member::Os(self.os.spawn(f))
        }
    }

    /// Spawns some that do the same, each with its number.
    pub(crate) fn spawn_all<T: Send + 'env>(
        &self,
        n: usize,
        f: impl Fn(usize) -> T + Send + Clone + 'env,
    ) -> Vec<Member<'g, 'o, T>> {
        (0..n)
            .map(|i| {
                let f = f.clone();
                self.spawn(move || f(i))
            })
            .collect()
    }

    /// Spawns one whose doing has to wait for what its caller does next; returns when it waits.
    pub(crate) fn spawn_waiting<T: Send + 'env>(
        &self,
        f: impl FnOnce() -> T + Send + 'env,
    ) -> Member<'g, 'o, T> {
        let member = self.spawn(f);
        a_moment();
        assert!(!member.is_finished(), "it does not wait");
        member
    }
}

/// A participant.
pub(crate) enum Member<'g, 'o, T> {
    Green(uthread::ScopedJoinHandle<'g, T>),
    Os(std::thread::ScopedJoinHandle<'o, T>),
}

impl<T> Member<'_, '_, T> {
    /// Its result, or the payload of its panic.
    ///
    /// It is waited for without the kernel, which the end of an OS thread would take.
    pub(crate) fn outcome(self) -> Result<T, Box<dyn Any + Send>> {
        eventually(|| self.is_finished());
        match self {
            Member::Green(green) => green.join(),
            Member::Os(os) => os.join(),
        }
    }

    /// Its result.
    pub(crate) fn join(self) -> T {
        self.outcome().unwrap_or_else(|payload| resume_unwind(payload))
    }

    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Member::Green(green) => green.is_finished(),
            Member::Os(os) => os.is_finished(),
        }
    }
}

/// The results of all.
pub(crate) fn join_all<T>(members: Vec<Member<'_, '_, T>>) -> Vec<T> {
    members.into_iter().map(Member::join).collect()
}

/// Plays each scenario with each cast. Those `with help` wait in the kernel for what the crate has no part in.
macro_rules! scenarios {
    ($($(#[doc = $doc:literal])* fn $name:ident($cast:pat_param) $body:block)+) => {
        $(scenarios!(@one play_unaided $(#[doc = $doc])* $name($cast) $body);)+
    };
    (with help: $($(#[doc = $doc:literal])* fn $name:ident($cast:pat_param) $body:block)+) => {
        $(scenarios!(@one play $(#[doc = $doc])* $name($cast) $body);)+
    };
    (@one $play:ident $(#[doc = $doc:literal])* $name:ident($cast:pat_param) $body:block) => {
        $(#[doc = $doc])*
        mod $name {
            #[allow(unused_imports)] // by some of the scenarios
            use super::*;
            #[allow(unused_imports)] // where it is imported above
            use crate::cast::Cast;

            fn scenario($cast: Cast) $body

            #[test]
            fn among_green_threads_on_one_worker() {
                Cast::Green(1).$play(scenario);
            }

            #[test]
            fn among_green_threads_on_two_workers() {
                Cast::Green(2).$play(scenario);
            }

            #[test]
            fn among_os_threads() {
                Cast::Os.$play(scenario);
            }

            #[test]
            fn between_green_threads_of_one_worker_and_os_threads() {
                Cast::Mixed(1, true).$play(scenario);
            }

            #[test]
            fn between_os_threads_and_green_threads_of_two_workers() {
                Cast::Mixed(2, false).$play(scenario);
            }
        }
    };
}

/// Gives others time to do what they should not.
pub(crate) fn a_moment() {
    std::thread::sleep(MOMENT);
}

/// Waits until it is so, without what is tested.
#[track_caller]
pub(crate) fn eventually(it_is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !it_is_so() {
        assert!(began.elapsed() < FAR_TOO_LATE, "it never is");
        uthread::sleep(Duration::from_micros(200));
    }
}

/// The result of a wait that lasts at least so long.
#[track_caller]
pub(crate) fn lasting<T>(time: Duration, wait: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = wait();
    let lasted = began.elapsed();
    assert!(lasted >= time, "after {lasted:?} instead of {time:?}");
    assert!(lasted < time + FAR_TOO_LATE, "after {lasted:?} instead of {time:?}");
    result
}

/// The result of what does not wait, though others hold what it asks for.
#[track_caller]
pub(crate) fn at_once<T>(f: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = f();
    assert!(began.elapsed() < FAR_TOO_LATE, "it waits");
    result
}

/// Time-outs from none to some ticks of the kernel.
pub(crate) const TIMES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_micros(70),
    Duration::from_millis(1),
    Duration::from_micros(7_300),
];

/// Panics without a message.
pub(crate) fn panic() -> ! {
    resume_unwind(Box::new("as the scenario says"))
}

/// Keeps the messages back that `std` prints for who asks for what is poisoned.
fn keep_quiet_about_poison() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|m| m.ends_with("has previously been poisoned")) {
                print(info);
            }
        }));
    });
}

/// Whether it panics.
pub(crate) fn panics<T>(f: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

/// Sees whether those inside are alone.
#[derive(Default)]
pub(crate) struct Room {
    inside: AtomicUsize,
    visits: AtomicUsize,
}

impl Room {
    /// Is inside alone, for some time.
    pub(crate) fn visit_alone(&self) {
        assert_eq!(self.inside.fetch_add(1, SeqCst), 0, "somebody is inside");
        if self.visits.fetch_add(1, SeqCst).is_multiple_of(3) {
            std::thread::yield_now();
        }
        assert_eq!(self.inside.fetch_sub(1, SeqCst), 1, "somebody came inside");
    }

    pub(crate) fn visits(&self) -> usize {
        self.visits.load(SeqCst)
    }
}

/// A flag.
pub(crate) fn flag() -> AtomicBool {
    AtomicBool::new(false)
}

pub(crate) fn raise(flag: &AtomicBool) {
    flag.store(true, SeqCst);
}

pub(crate) fn is_up(flag: &AtomicBool) -> bool {
    flag.load(SeqCst)
}
