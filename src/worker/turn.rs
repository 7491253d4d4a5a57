//! Turns: how long threads run, and when they are interrupted.
//!
//! **Problem.** A hog must leave when its slice is used up and somebody waits, and soon after somebody
//! wakes up. But most turns take microseconds, and must not pay for it: reading the clock at each switch
//! would add a third to it, setting a timer ten times as much.
//!
//! **Choice.** The kernel's timer of the worker is armed in two ways.
//!
//! - *Coarsely*, while turns are short: when something becomes runnable and it is not armed, for about a
//!   slice ahead. At the tick, the number of switches tells whether the thread that is interrupted has run
//!   since the timer was armed. If so, it is a **hog**. If not, the timer is armed again, and that was all:
//!   for a slice if turns have been short on average, else for [`Turns::grace`], to find the hog that may
//!   have begun meanwhile.
//! - *Precisely*, while a hog runs: its turn is **guarded**. The clock is read when it begins, the timer
//!   armed for the end of what is left of its slice (if others are queued) or the next deadline of a timer
//!   (whichever is first), ops that were begun are handed to the kernel, the ring raises alarms for their
//!   completions, and whoever queues a thread from another OS thread signals the worker at once. Whatever
//!   wakes up runs before the hog goes on.
//!
//! The first turn after an interruption is guarded, too, whoever's it is: hogs come in groups, and a thread
//! that is woken among many that have never run waits for the grace of each in front of it instead of
//! a slice.
//!
//! A hog stays one until it leaves of its own accord within [`Turns::grace`]. What it has used of its slice
//! is kept while it is interrupted by events, so that these do not give it more than its share; then
//! it goes to the end of those that are spent.
//!
//! **Tickless.** The timer is armed only if something is queued, or pending on this worker: a timer, an
//! op. Where nothing is, others who queue something arm it ([`Worker::nudge`]). It is not disarmed when the
//! reason goes, since that takes as long as arming: one tick may come for nothing after a worker has
//! become idle.
//!
//! **The race.** A thread is queued here from elsewhere while the worker decides that nothing is to be
//! waited for. The other side pushes, then looks at `alert` and at the timer; this side sets `alert` (or
//! finds, in the handler, the timer shot), then looks at the queue. Between the two steps there is a
//! sequentially consistent fence on both sides, so that one of them sees the other.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{Ordering, fence};

use super::green::{GreenRef, Leave, Why, current};
use super::run::Worker;
use crate::context::coroutine::Left;
use crate::preempt::KeepErrno;
use crate::preempt::seat::{Host, Refusal, Verdict};
use crate::reactor::Driver;
use crate::time::now;

/// Timers are not armed anew for less than this.
const CLOSE_ENOUGH: u64 = 10_000;
/// No slice ends sooner than this after the turn's beginning.
const LEAST: u64 = 20_000;
/// What is due already is announced this much later, when the thread is sure to run: at once would be
/// while the worker still prepares its turn.
const SOON: u64 = 5_000;

/// What a worker knows of the present turn. Accessed on its OS thread: by the worker, by green threads that
/// are pinned, and by the handler when it has interrupted neither.
pub(super) struct Turns {
    /// Nanoseconds.
    slice: u64,
    /// When the timer was armed coarsely, and the number of switches then.
    armed: Cell<(u64, u64)>,
    /// Since when the present turn is guarded.
    guarded: Cell<Option<u64>>,
    /// The last turn was interrupted.
    wary: Cell<bool>,
    /// The present turn is not ended by wake-ups, since such have kept the thread waiting for a slice.
    protected: Cell<bool>,
    /// The thread that was interrupted has used up its slice.
    used_up: Cell<bool>,
    /// How long after an interruption at a bad time the next one is tried; doubles up to the grace.
    retry: Cell<u64>,
    /// A thread was found to have blocked signals.
    masked: Cell<bool>,
    /// When the queue was last told that a slice has passed.
    told: Cell<u64>,
}

impl Turns {
    pub(super) fn new(slice: u64) -> Turns {
        Turns {
            slice,
            armed: Cell::new((0, 0)),
            guarded: Cell::new(None),
            wary: Cell::new(false),
            protected: Cell::new(false),
            used_up: Cell::new(false),
            retry: Cell::new(LEAST),
            masked: Cell::new(false),
            told: Cell::new(0),
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
            self.arm_coarsely(now(), self.counters.switches.get(), self.turns().slice);
        }
    }

    /// Arms the timer for about `ahead` from now, in the interest of the kernel's own interrupts.
    ///
    /// Not inlined, like [`Worker::guard`]: `errno` is a thread-local, whose address must not be taken in a
    /// function that changes the thread pointer.
    #[cold]
    #[inline(never)]
    fn arm_coarsely(&self, now: u64, switches: u64, ahead: u64) {
        let _errno = KeepErrno::new();
        self.turns().armed.set((now, switches));
        self.tick.arm(self.tick.aligned(now + ahead, ahead / 4, ahead / 4));
        self.runtime().monitor().attend();
    }

    /// To be called when a round begins, with its first thread installed: from then on a tick that comes
    /// at a bad time is repeated.
    #[inline]
    pub(super) fn round_begins(&self, first: GreenRef) {
        if !self.tick.is_armed()
            && !self.begins_guarded(first)
            && (self.has_queued() || self.has_pending())
        {
            // The switch to the first thread is still to be counted.
            let switches = self.counters.switches.get() + 1;
            self.arm_coarsely(now(), switches, self.turns().slice);
        }
    }

    fn has_pending(&self) -> bool {
        self.with_timers(|t| t.next_deadline()).is_some() || self.with_driver(|d| d.in_flight())
    }

    fn begins_guarded(&self, thread: GreenRef) -> bool {
        thread.get().is_hog() || self.turns().wary.get()
    }

    /// To be called before a thread is resumed.
    #[inline]
    pub(super) fn turn_begins(&self, thread: GreenRef) {
        if self.begins_guarded(thread) || self.turns().guarded.get().is_some() {
            self.guard(thread);
        }
    }

    /// Begins to guard, or ceases to.
    #[cold]
    #[inline(never)]
    fn guard(&self, thread: GreenRef) {
        let _errno = KeepErrno::new();
        let turns = self.turns();
        if self.begins_guarded(thread) {
            let now = now();
            turns.wary.set(false);
            turns.guarded.set(Some(now));
            turns.protected.set(self.with_queue(|q| q.took_due()));
            self.keep_guard(now, thread.get().used().get());
        } else {
            self.cease_guard();
        }
    }

    fn cease_guard(&self) {
        self.turns().guarded.set(None);
        self.alert.store(false, Relaxed);
        self.with_driver(|driver| driver.raise_alarms(false));
    }

    /// To be called between two rounds: the worker looks for itself.
    #[inline]
    pub(super) fn turns_end(&self) {
        if self.turns().guarded.get().is_some() {
            self.cease_guard();
        }
        if self.turns().masked.take() {
            // It may have left them blocked, for all that run here after it.
            self.seat.restore_mask();
        }
    }

    /// Arms the timer precisely, for a turn of which `used` nanoseconds of the slice are used up, and has
    /// everything else that could be a reason to end it announced.
    fn keep_guard(&self, now: u64, used: u64) {
        let turns = self.turns();
        self.alert.store(true, Relaxed);
        fence(Ordering::SeqCst);
        let completed = self.with_driver(|driver| {
            // Ops that threads began before this turn: it may be long before the next round.
            driver.hand_over();
            driver.raise_alarms(true);
            driver.has_completions()
        });
        let (queued, fresh) = self.with_queue(|q| (q.len(), q.fresh_len()));
        let slice_ends = (queued > 0).then(|| {
            let at = now + turns.slice.saturating_sub(used).max(LEAST);
            self.tick.aligned(at, turns.slack(), turns.slack()).max(now + LEAST)
        });
        let deadline = self.with_timers(|t| t.next_deadline()).map(|at| at.max(now + SOON));
        // What came before it would be announced is not.
        let came_already = (completed || fresh > 0).then(|| now + turns.grace());
        let reasons = if turns.protected.get() {
            // Whoever waits, waits for no more than a slice.
            [Some(now + turns.slice.saturating_sub(used).max(LEAST)), None, None]
        } else {
            [slice_ends, deadline, came_already]
        };
        if let Some(at) = reasons.into_iter().flatten().min()
            && self.tick.due().is_none_or(|due| due.abs_diff(at) > CLOSE_ENOUGH)
        {
            self.tick.arm(at);
        }
    }

    /// To be called when a hog has left.
    #[cold]
    pub(super) fn hog_left(&self, thread: GreenRef, left: &Left<Leave>) {
        let turns = self.turns();
        if matches!(left, Left::Suspended(leave) if matches!(leave.why(), Why::Interrupted)) {
            return;
        }
        thread.get().set_interrupted(false);
        thread.get().used().set(0);
        if turns.guarded.get().is_some_and(|since| now() - since < turns.grace()) {
            thread.get().set_hog(false);
        }
    }

    /// Called on another OS thread that has queued a thread here, while the worker is awake: sees to it that
    /// it is looked at.
    pub(super) fn nudge(&self) {
        if self.alert.load(Relaxed) && self.alert.swap(false, Relaxed) {
            self.runtime().wake_signals.fetch_add(1, Relaxed);
            self.seat.signal();
        } else if !self.tick.is_armed() {
            self.tick.arm_if_idle(now() + self.runtime().slice());
            self.runtime().monitor().attend();
        }
    }

    /// The ring has raised an alarm: ends a guarded turn. Called by the monitor.
    pub(super) fn alarm(&self) -> bool {
        let guarded = self.alert.load(Relaxed) && self.alert.swap(false, Relaxed);
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
        let (armed, switches) = turns.armed.get();
        let ran = match turns.guarded.get() {
            Some(since) => now - since,
            None if switches == self.counters.switches.get() => now - armed,
            // It began some time after the timer was armed.
            None => 0,
        };
        let used = thread.get().used().get() + ran;
        if used + turns.slack() >= turns.slice {
            turns.protected.set(false);
        }
        let (queued, fresh) = self.with_queue(|q| {
            if q.len() > 0 && now - turns.told.get() >= turns.slice {
                q.slice_passed();
                turns.told.set(now);
            }
            (q.len(), q.fresh_len())
        });
        let event = fresh > 0
            || self.with_driver(|driver| driver.has_completions())
            || self.with_timers(|t| t.next_deadline()).is_some_and(|at| at <= now);
        if in_system_call && (queued > 0 || event) {
            return Some(Leave::BLOCKED);
        }
        let is_long = thread.get().is_hog() || ran >= turns.grace();
        let used_up = used + turns.slack() >= turns.slice;
        if queued > 0 && used_up || event && is_long && !turns.protected.get() {
            thread.get().set_hog(true);
            thread.get().used().set(if used_up { 0 } else { used });
            turns.used_up.set(used_up);
            turns.wary.set(true);
            return Some(Leave::INTERRUPTED);
        }
        if ran > 0 {
            if turns.guarded.get().is_none() {
                thread.get().set_hog(true);
                turns.guarded.set(Some(now - ran));
                turns.protected.set(false);
            }
            self.keep_guard(now, used);
        } else if queued > 0 || self.has_pending() {
            // Turns that are short on average may end with that of a hog, too, but then only the tick after
            // the next one finds it.
            let turns_since = self.counters.switches.get().saturating_sub(switches);
            let long = (now - armed) / turns_since.max(1) >= turns.grace();
            let ahead = if long { turns.grace() } else { turns.slice };
            self.arm_coarsely(now, self.counters.switches.get(), ahead);
        }
        None
    }
}

impl Host for Worker {
    fn signalled(&self, by_timer: bool) {
        // A program may take the signal away, by sigwait(3) for example; then the monitor sends another.
        if by_timer || self.tick.is_overdue(now()) {
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
    if let Some(leave) = thread.get().worker().and_then(|worker| worker.decide(thread, false)) {
        // SAFETY: the calling thread, pinned; its worker keeps it runnable.
        unsafe { thread.leave(leave) };
    }
    drop(pin);
}
