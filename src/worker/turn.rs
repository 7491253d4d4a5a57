//! Turns: how long threads run, and when they are interrupted.
//!
//! **Problem.** A hog must leave when its slice is used up and somebody waits, and soon after somebody
//! wakes up. But most turns take microseconds, and must not pay for it: setting a timer at each switch would
//! cost several times as much as the switch.
//!
//! **Choice.** The clock is read once per switch, which accounting wants anyway; and the kernel's timer of the
//! worker is armed in two ways.
//!
//! - *Coarsely*, while turns are short: when something becomes runnable and it is not armed, for about a
//!   slice ahead. If the tick finds a turn that has lasted for longer than [`Turns::grace`], its thread is a
//!   **hog**; if one that has just begun, that was all, and the timer is armed again.
//! - *Precisely*, while a hog runs: its turn is **guarded**. The timer is armed for the end of what is left of
//!   its slice (if others are queued), the end of the lease (if other groups are), or the next deadline of a
//!   timer, whichever is first; ops that were begun are handed to the kernel, the ring raises alarms for
//!   their completions, and whoever queues a thread from another OS thread signals the worker at once.
//!   Whatever wakes up runs before the hog goes on.
//!
//! A tick that finds a turn between the two, and the first turn after an interruption, begin to guard as well:
//! hogs come in groups, and a thread that is woken among many that have never run waits for the grace of
//! each in front of it instead of a slice.
//!
//! A hog stays one until it leaves of its own accord within [`Turns::grace`]. What it has used of its slice
//! is kept while it is interrupted by events, so that these do not give it more than its share; then
//! it goes to the end of those that are spent.
//!
//! **Tickless.** The timer is armed only if something is queued, or pending on this worker: a timer, an
//! op; or if the lease has an end ([`lease`](super::lease)). Where nothing is, others who queue something arm it ([`Worker::nudge`]). It is not disarmed when the
//! reason goes, since that takes as long as arming: one tick may come for nothing after a worker has
//! become idle.
//!
//! **The race.** A thread is queued here from elsewhere while the worker decides that nothing is to be
//! waited for. The other side pushes, then looks at `alert` and at the timer; this side sets `alert` (or
//! finds, in the handler, the timer shot), then looks at the queue. Between the two steps there is a
//! sequentially consistent fence on both sides, so that one of them sees the other.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::green::{GreenRef, Leave, Why, current};
use super::run::Worker;
use super::{group, helper};
use crate::context::coroutine::{Left, Message};
use crate::preempt::KeepErrno;
use crate::preempt::seat::{Host, Refusal, Verdict};
use crate::reactor::Driver;
use crate::sched::{GroupId, Groups};
use crate::time::now;

/// Timers are not armed anew for less than this.
const CLOSE_ENOUGH: u64 = 10_000;
/// No slice ends sooner than this after the turn's beginning.
const LEAST: u64 = 20_000;
/// A thread that is in a system call, and for which there is no helper, stays there for so long: a call
/// that is restarted more often may make no progress. (What is left of a sleep that is interrupted has the timer's
/// slack added to it each time, which is 50 µs.)
const UNDISTURBED: u64 = 500_000;
/// What is due already is announced this much later, when the thread is sure to run: at once would be
/// while the worker still prepares its turn.
const SOON: u64 = 5_000;

/// What a worker knows of the present turn. The cells are accessed on its OS thread only: by the worker, by
/// green threads that are pinned, and by the handler when it has interrupted neither.
pub(super) struct Turns {
    /// Nanoseconds.
    slice: u64,
    /// When the present turn began, 0 between rounds, and of which group its thread is. Read by anyone.
    began: AtomicU64,
    of: AtomicUsize,
    /// The present turn is guarded.
    guarded: Cell<bool>,
    /// The last turn was interrupted.
    wary: Cell<bool>,
    /// The present turn is not ended by wake-ups of its group, since such have kept the thread waiting for a slice.
    protected: Cell<bool>,
    /// The thread that was interrupted has used up its slice.
    used_up: Cell<bool>,
    /// How long after an interruption at a bad time the next one is tried; doubles up to the grace.
    retry: Cell<u64>,
    /// A thread was found to have blocked signals.
    masked: Cell<bool>,
}

impl Turns {
    pub(super) fn new(slice: u64) -> Turns {
        Turns {
            slice,
            began: AtomicU64::new(0),
            of: AtomicUsize::new(0),
            guarded: Cell::new(false),
            wary: Cell::new(false),
            protected: Cell::new(false),
            used_up: Cell::new(false),
            retry: Cell::new(LEAST),
            masked: Cell::new(false),
        }
    }

    /// The longest turn, in nanoseconds, that counts as short.
    fn grace(&self) -> u64 {
        (self.slice / 8).max(LEAST)
    }

    /// How much sooner or later than said a slice may end, in the interest of the kernel's own interrupts.
    fn slack(&self) -> u64 {
        self.slice / 4
    }

    /// The same for a lease: it bounds how far groups are from their shares.
    fn lease_slack(&self) -> u64 {
        self.slice / 16
    }

    /// For how long a thread of the group has run in the present turn. A turn that ends meanwhile is missed, or
    /// counted twice, by who reads accounts, too.
    pub(super) fn present(&self, group: GroupId, now: u64) -> u64 {
        let began = self.began.load(Relaxed);
        let is_of_group = began != 0 && self.of.load(Relaxed) == group.index();
        if is_of_group { now.saturating_sub(began) } else { 0 }
    }

    /// Whether wake-ups of its group do not end the present turn.
    pub(super) fn is_protected(&self) -> bool {
        self.protected.get()
    }

    /// Whether the thread that was interrupted last goes to the end of those that are spent.
    pub(super) fn used_up(&self) -> bool {
        self.used_up.get()
    }
}

impl Worker {
    /// Sees to it that the worker's thread is looked at in time. To be called when something was queued
    /// here, by the worker's thread or by the worker.
    #[inline]
    pub(super) fn ensure_tick(&self) {
        if !self.tick.is_armed() {
            self.arm_coarsely(now());
        }
    }

    /// Arms the timer for about a slice from now, in the interest of the kernel's own interrupts.
    ///
    /// Not inlined, like [`Worker::guard`]: `errno` is a thread-local, whose address must not be taken in a
    /// function that changes the thread pointer.
    #[cold]
    #[inline(never)]
    fn arm_coarsely(&self, now: u64) {
        let _errno = KeepErrno::new();
        let turns = self.turns();
        self.tick.arm(self.tick.aligned(now + turns.slice, turns.slack(), turns.slack()));
        self.runtime().monitor().attend();
    }

    /// To be called when a round begins, with its first thread installed: from then on a tick that comes
    /// at a bad time is repeated.
    #[inline]
    pub(super) fn round_begins(&self, first: GreenRef, now: u64) {
        if !self.tick.is_armed() && !self.begins_guarded(first) && self.awaits_something() {
            self.arm_coarsely(now);
        }
    }

    /// Whether there is a reason to end a turn, or may be one soon.
    fn awaits_something(&self) -> bool {
        self.has_queued() || self.has_pending() || self.lease_matters()
    }

    fn has_pending(&self) -> bool {
        self.with_timers(|t| t.next_deadline()).is_some() || self.with_driver(|d| d.in_flight())
    }

    fn begins_guarded(&self, thread: GreenRef) -> bool {
        thread.get().is_hog() || self.turns().wary.get()
    }

    /// To be called before a thread is resumed, with the present time.
    #[inline]
    pub(super) fn turn_begins(&self, thread: GreenRef, now: u64) {
        if !thread.get().was_on(self) {
            self.note_arrival(thread);
        }
        self.turns().began.store(now, Relaxed);
        self.turns().of.store(thread.group().index(), Relaxed);
        let delay = self.accounts().turn_begins(thread.group(), thread.get().account(), now);
        self.counters.run_delay.record(delay.time);
        if delay.after_wait {
            self.counters.wakeup_latency.record(delay.time);
        }
        if self.begins_guarded(thread) || self.turns().guarded.get() {
            self.guard(thread, now);
        }
    }

    /// Begins to guard, or ceases to.
    #[cold]
    #[inline(never)]
    fn guard(&self, thread: GreenRef, now: u64) {
        let _errno = KeepErrno::new();
        let turns = self.turns();
        if self.begins_guarded(thread) {
            turns.wary.set(false);
            turns.guarded.set(true);
            turns.protected.set(self.with_queue(|q| q.took_due()));
            self.keep_guard(thread, now, thread.get().used().get());
        } else {
            self.cease_guard(now);
            // It is not guarded, so it is watched as any other turn.
            if !self.tick.is_armed() && self.awaits_something() {
                self.arm_coarsely(now);
            }
        }
    }

    /// The timer may be armed for a deadline that is far away. That was enough while everything else was announced; from
    /// now on it would stand for a timer that is due in about a slice, and nobody would arm one.
    fn cease_guard(&self, now: u64) {
        let turns = self.turns();
        turns.guarded.set(false);
        self.alert.lower();
        self.with_driver(|driver| driver.raise_alarms(false));
        self.tick.forget_after(now + turns.slice + turns.slack());
    }

    /// To be called between two rounds: the worker looks for itself.
    #[inline]
    pub(super) fn turns_end(&self) {
        self.turns().began.store(0, Relaxed);
        if self.turns().guarded.get() {
            self.cease_guard(self.now());
        }
        if self.turns().masked.take() {
            // It may have left them blocked, for all that run here after it.
            self.seat.restore();
        }
    }

    /// Arms the timer precisely, for a turn of which `used` nanoseconds of the slice are used up, and has
    /// everything else that could be a reason to end it announced.
    fn keep_guard(&self, thread: GreenRef, now: u64, used: u64) {
        let turns = self.turns();
        self.alert.raise();
        let completed = self.with_driver(|driver| {
            // Ops that threads began before this turn: it may be long before the next round.
            driver.hand_over();
            driver.raise_alarms(true);
            driver.has_completions()
        });
        let group = thread.group();
        let (same, others, fresh, news) = self.with_queue(|q| {
            let same = q.len_of(group);
            let news = q.news().without(Groups::only(group));
            (same, q.len() - same, q.fresh_of(group), !news.is_empty())
        });
        let slice_left = turns.slice.saturating_sub(used).max(LEAST);
        let align = |at: u64, slack| self.tick.aligned(at, slack, slack).max(now + LEAST);
        let slice_ends = (same > 0).then(|| align(now + slice_left, turns.slack()));
        let lease_ends = self.lease_ends(others > 0);
        let lease_ends = lease_ends.map(|at| align(at.max(now + LEAST), turns.lease_slack()));
        let deadline = self.with_timers(|t| t.next_deadline()).map(|at| at.max(now + SOON));
        // What came before it would be announced is not.
        let came_already = (completed || fresh > 0).then(|| now + turns.grace());
        let others_came = news.then(|| now + turns.grace());
        let reasons = if turns.protected.get() {
            // Whoever waits, waits for no more than a slice. But who wakes up may be of another group.
            let deadline = deadline.filter(|_| group::version() != 0);
            [Some(now + slice_left), lease_ends, others_came, deadline, None]
        } else {
            [slice_ends, lease_ends, others_came, deadline, came_already]
        };
        if let Some(at) = reasons.into_iter().flatten().min()
            && self.tick.due().is_none_or(|due| due.abs_diff(at) > CLOSE_ENOUGH)
        {
            self.tick.arm(at);
            // A hog that wakes up when the monitor is dormant is guarded without having been armed for before.
            self.runtime().monitor().attend();
        }
    }

    /// To be called when a hog has left, after so much time.
    #[cold]
    pub(super) fn hog_left(&self, thread: GreenRef, left: &Left<Leave>, time: u64) {
        if matches!(left, Left::Suspended(leave) if matches!(leave.why(), Why::Interrupted)) {
            return;
        }
        thread.get().set_interrupted(false);
        thread.get().used().set(0);
        if time < self.turns().grace() {
            thread.get().set_hog(false);
        }
    }

    /// Called on another OS thread that has queued a thread here, while the worker is awake: sees to it that
    /// it is looked at. To be called after a sequentially consistent fence; [`Idle::wake`](super::idle::Idle::wake)
    /// has one.
    pub(super) fn nudge(&self) {
        if self.alert.take() {
            self.runtime().counters.wake_signals.add(1);
            self.seat.signal();
        } else if !self.tick.is_armed() {
            self.tick.arm_if_idle(now() + self.runtime().slice());
        } else {
            return;
        }
        self.runtime().monitor().attend();
    }

    /// The ring has raised an alarm: ends a guarded turn. Called by the monitor.
    pub(super) fn alarm(&self) -> bool {
        let guarded = self.alert.take();
        if guarded {
            self.seat.signal();
        }
        guarded
    }

    /// Decides about the calling green thread, which runs here and is not pinned by anyone but the
    /// caller.
    pub(super) fn decide(&self, thread: GreenRef, in_system_call: bool) -> Option<Leave> {
        let turns = self.turns();
        let now = now();
        turns.retry.set(LEAST);
        self.stalls.over();
        let ran = now.saturating_sub(turns.began.load(Relaxed));
        let used = thread.get().used().get() + ran;
        let used_up = used + turns.slack() >= turns.slice;
        if used_up {
            turns.protected.set(false);
        }
        let group = thread.group();
        let (queued, same, fresh) =
            self.with_queue(|q| (q.len(), q.len_of(group), q.fresh_of(group)));
        let ended = self.with_driver(|driver| driver.has_completions())
            || self.with_timers(|t| t.next_deadline()).is_some_and(|at| at <= now);
        let event = fresh > 0 || ended;
        // Nobody knows yet of which group they are whose waits have ended.
        let came = ended && group::version() != 0;
        if in_system_call && (queued > 0 || event) {
            if ran >= UNDISTURBED || self.runtime().has_idle_helper() {
                return Some(Leave::BLOCKED);
            }
            self.runtime().want_helper();
            self.tick.arm(now + UNDISTURBED);
            self.trace.ticks(self.now(), thread.number());
            return None;
        }
        let is_long = thread.get().is_hog() || ran >= turns.grace();
        let is_over = used_up && same > 0
            || is_long && event && (!turns.protected.get() || came)
            || is_long && self.lease_is_over(now, turns.lease_slack());
        if is_over {
            thread.get().set_hog(true);
            thread.get().used().set(if used_up { 0 } else { used });
            turns.used_up.set(used_up);
            turns.wary.set(true);
            return Some(Leave::INTERRUPTED);
        }
        if is_long {
            thread.get().set_hog(true);
        }
        if ran >= LEAST {
            if !turns.guarded.replace(true) {
                turns.protected.set(false);
            }
            self.keep_guard(thread, now, used);
        } else if self.awaits_something() {
            self.arm_coarsely(now);
        }
        self.trace.ticks(self.now(), thread.number());
        None
    }
}

impl Host for Worker {
    fn signalled(&self, by_timer: bool) {
        // The timer's signal is lost if another one is pending, and a program may take it away, by sigwait(3) for example;
        // then the monitor sends another.
        if by_timer || self.tick.due().is_some_and(|due| due <= now()) {
            self.tick.fired();
            self.counters.ticks.add(1);
        }
    }

    fn judge(&self, in_system_call: bool) -> Verdict {
        let thread = current().expect("the predicate found a green thread");
        match self.decide(thread, in_system_call) {
            Some(leave) => Verdict::Leave(leave.into_word()),
            None => Verdict::Stay,
        }
    }

    fn refused(&self, why: Refusal) {
        let turns = self.turns();
        let mut retry = turns.retry.get();
        turns.retry.set((retry * 2).min(turns.grace()));
        let switches = self.counters.switches.get();
        match why {
            // It finds a note; but if it leaves of its own accord before, only the timer knows of the others that
            // wait. And it may become a stall.
            Refusal::Pinned => {
                self.counters.deferred_disabled.add(1);
                self.stalls.note(switches, true);
                retry = turns.slice;
            }
            Refusal::Elsewhere => {
                self.counters.deferred_elsewhere.add(1);
                if !self.seat.is_taken() {
                    // In the slow path: the next round arms the timer if need be.
                    return;
                }
            }
            Refusal::SignalsBlocked => {
                self.counters.deferred_signals.add(1);
                self.stalls.note(switches, false);
                turns.masked.set(true);
            }
            Refusal::NoRoom => {
                self.counters.deferred_stack.add(1);
                self.stalls.note(switches, false);
            }
        }
        if !self.tick.is_armed() {
            self.tick.arm(now() + retry);
        }
    }
}

/// What [`Pin`](crate::preempt::pin::Pin) calls when an interruption was put off until now.
#[cold]
pub(crate) fn reschedule() {
    let Some(thread) = current() else { return };
    let _errno = KeepErrno::new();
    let pin = crate::preempt::pin::Pin::new();
    let leave = match thread.get().worker() {
        Some(worker) => worker.decide(thread, false),
        // It was recalled from its helper.
        None => helper::recalled(thread),
    };
    if let Some(leave) = leave {
        // SAFETY: the calling thread, pinned; its worker or helper keeps it runnable.
        unsafe { thread.leave(leave) };
    }
    drop(pin);
}

#[cfg(all(test, loom))]
mod models {
    use crate::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
    use crate::preempt::tick::{Alert, Due};
    use crate::worker::idle::{Idle, Sleeper};
    use loom::sync::Arc;

    /// One worker, which is awake.
    struct World {
        alert: Alert,
        due: Due,
        idle: Idle,
        sleeper: Sleeper,
        queue: AtomicUsize,
        /// The handler will run, for a signal or for the timer.
        announced: AtomicBool,
    }

    fn world(due: u64) -> Arc<World> {
        Arc::new(World {
            alert: Alert::new(),
            due: Due::new(due),
            idle: Idle::new(),
            sleeper: Sleeper::new(),
            queue: AtomicUsize::new(0),
            announced: AtomicBool::new(false),
        })
    }

    impl World {
        /// As `Worker::take_over`.
        fn push(&self) {
            self.queue.fetch_add(1, Relaxed);
            assert!(!self.idle.wake(&self.sleeper));
            // As `Worker::nudge`.
            if self.alert.take() || !self.due.is_armed() && self.due.note_if_idle(9) {
                self.announced.store(true, Relaxed);
            }
        }

        fn sees_work(&self) -> bool {
            self.queue.load(Relaxed) > 0
        }
    }

    fn pushes_while(due: u64, looks: fn(&World) -> bool) {
        loom::model(move || {
            let w = world(due);
            let pusher = w.clone();
            let thread = loom::thread::spawn(move || pusher.push());
            let seen = looks(&w);
            thread.join().unwrap();
            assert!(seen || w.announced.load(Relaxed), "a thread waits behind a hog");
        });
    }

    #[test]
    fn a_worker_that_begins_to_guard_sees_the_thread_or_is_signalled() {
        // Its timer is armed, for a time that is far away.
        pushes_while(5, |w| {
            w.alert.raise();
            w.sees_work()
        });
    }

    #[test]
    fn a_worker_whose_timer_has_shot_sees_the_thread_or_is_armed_again() {
        pushes_while(5, |w| {
            w.due.fired();
            w.sees_work()
        });
    }

    #[test]
    fn a_worker_whose_timer_has_shot_and_that_guards_then_sees_the_thread_or_is_announced_to() {
        pushes_while(5, |w| {
            w.due.fired();
            let early = w.sees_work();
            w.alert.raise();
            early || w.sees_work()
        });
    }

    #[test]
    fn a_worker_that_ceases_to_guard_sees_the_thread_or_is_armed_again() {
        // Its timer is armed, for a time that is far away.
        pushes_while(5, |w| {
            w.alert.raise();
            w.alert.lower();
            w.due.forget_after(4);
            w.sees_work()
        });
    }

    #[test]
    fn of_two_who_queue_threads_one_signals() {
        loom::model(|| {
            let w = world(5);
            w.alert.raise();
            let other = w.clone();
            let thread = loom::thread::spawn(move || other.alert.take());
            assert!(w.alert.take() ^ thread.join().unwrap());
        });
    }

    /// Stands for `Worker::note_contention` and `Worker::keep_guard`.
    #[test]
    fn a_worker_that_begins_to_guard_sees_the_contention_or_is_signalled() {
        loom::model(|| {
            let w = world(5);
            let contended = Arc::new(AtomicBool::new(false));
            let (finder, found) = (w.clone(), contended.clone());
            let thread = loom::thread::spawn(move || {
                if super::super::lease::begins(&found) && finder.alert.take() {
                    finder.announced.store(true, Relaxed);
                }
            });
            w.alert.raise();
            let seen = contended.load(Relaxed);
            thread.join().unwrap();
            assert!(seen || w.announced.load(Relaxed), "a hog's lease has no end");
        });
    }
}
