//! One worker: its queue, its ring, its loop.

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{io, thread};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::gettid;

use super::account::Accounts;
use super::green::{GreenRef, Leave, Why, set_current};
use super::helper::NoHelper;
use super::idle::{Sleeper, WATCH_FIRST, WATCH_LAST};
use super::lease::{Lease, Posted};
use super::runtime::{Config, Runtime};
use super::state::State;
use super::tape::Tape;
use super::turn::Turns;
use super::wait::TimerTarget;
use crate::arch::{self, FpControl};
use crate::context::coroutine::Left;
use crate::context::overflow::AlternateStack;
use crate::context::pool::{self, Slot};
use crate::lock::SpinLock;
use crate::preempt::Stalls;
use crate::preempt::pin::{self, Pin};
use crate::preempt::seat::Seat;
use crate::preempt::tick::{Alert, Tick};
use crate::reactor::op::{Op, Request};
use crate::reactor::timer::Timers;
use crate::reactor::uring::Uring;
use crate::reactor::{Driver, Full, Wait};
use crate::sched::{Groups, MOST_STOLEN, RunQueue};
use crate::stats::WorkerCounters;
use crate::time::{Clock, now};
use crate::trace::{self, Reason, WokenBy};

/// Switches in a round: how long a ready completion or an expired timer may be overlooked while
/// threads only yield to each other (some 10 µs), and how many ops one enter may hand over.
const ROUND: u32 = 256;

/// Threads that ran no longer than this on average were not worth stealing: moving one costs a dozen
/// cache misses on either side, and its victim would have run it in the meantime.
const POOR_LOOT: Duration = Duration::from_micros(1);

/// How long a worker leaves others alone after poor loot, doubling up to the second value.
const NAP_FIRST: Duration = Duration::from_micros(20);
const NAP_LAST: Duration = Duration::from_micros(500);

/// How long a worker sleeps before it looks after the pools.
const REST: Duration = Duration::from_millis(50);

/// Slots that a worker keeps for its next spawns, without a lock.
const OWN_SLOTS: usize = 128;

/// See the module's documentation.
pub(crate) struct Worker {
    // Shared, each with a protocol of its own:
    queue: SpinLock<RunQueue<GreenRef>>,
    /// The groups in the queue, for those who only want to know whether it is worth locking.
    queued: Posted,
    /// Those of them that have not been served for long.
    stranded: Posted,
    /// Locked by others only to disarm what a thread armed here before it moved.
    timers: SpinLock<Timers<TimerTarget>>,
    pub(super) sleeper: Sleeper,
    waker: EventFd,
    /// The ring's, for the monitor: written to at completions during a guarded turn.
    alarm: EventFd,
    /// Whoever queues a thread here must signal the seat.
    pub(super) alert: Alert,
    pub(super) tick: Tick,
    pub(crate) seat: Seat,
    pub(super) stalls: Stalls,
    pub(crate) counters: WorkerCounters,
    /// Written by the worker's OS thread, read by anyone.
    pub(crate) trace: trace::Own,
    /// Written by it when it starts.
    os_thread: AtomicU32,
    // Fixed at creation:
    runtime: *const Runtime,
    index: usize,
    // Owned by the worker's OS thread, and so by the green thread that runs on it:
    own: Own,
}

/// A turn that has ended, of a thread that the worker owns still: from when to when it was, in nanoseconds.
#[derive(Clone, Copy)]
struct Ended {
    thread: GreenRef,
    began: u64,
    now: u64,
}

impl Ended {
    /// How long it was.
    #[inline]
    fn time(&self) -> u64 {
        self.now.saturating_sub(self.began)
    }
}

/// What only the worker's OS thread touches.
struct Own {
    clock: Clock,
    thread_pointer: Cell<usize>,
    turns: Turns,
    lease: Lease,
    /// Written by the worker, read by anyone.
    accounts: Box<Accounts>,
    /// The floating-point control words in force.
    fp_control: Cell<FpControl>,
    driver: RefCell<Option<Uring<GreenRef>>>,
    /// Warm slots of the runtime's default size.
    slots: RefCell<Vec<Slot>>,
    stolen: RefCell<Vec<GreenRef>>,
    /// How long the worker sleeps as a watcher.
    watch: Cell<Duration>,
    /// It has slept, or begun to, since it last had work.
    rested: Cell<bool>,
    /// It has just been the watcher.
    watched: Cell<bool>,
    /// Where it looked for work last.
    victim: Cell<usize>,
    /// How many threads it stole last, and when; until it judges them.
    loot: Cell<Option<(u32, u64)>>,
    nap: Cell<Duration>,
}

// SAFETY: of `own`, only the worker's OS thread makes use, as its accessors require, but for atomic words in `turns`
// and `accounts`, which anyone may read; `runtime` outlives its workers; the rest is synchronised.
unsafe impl Sync for Worker {}
// SAFETY: a worker is made on one OS thread and handed to its own before that starts.
unsafe impl Send for Worker {}

impl Worker {
    /// A worker of a runtime that will exist at that address.
    pub(super) fn new(
        runtime: *const Runtime,
        index: usize,
        config: &Config,
    ) -> io::Result<Worker> {
        Ok(Worker {
            queue: SpinLock::new(RunQueue::new()),
            queued: Posted::new(),
            stranded: Posted::new(),
            timers: SpinLock::new(Timers::new()),
            sleeper: Sleeper::new(),
            // Blocking, so that the ring's read of it waits.
            waker: EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?,
            alarm: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            alert: Alert::new(),
            tick: Tick::none(),
            seat: Seat::new(),
            stalls: Stalls::new(),
            counters: WorkerCounters::default(),
            trace: trace::Own::new(config.trace_events),
            os_thread: AtomicU32::new(0),
            runtime,
            index,
            own: Own {
                clock: Clock::new(),
                thread_pointer: Cell::new(0),
                turns: Turns::new(config.slice.as_nanos() as u64),
                lease: Lease::new(),
                accounts: Accounts::new(),
                fp_control: Cell::default(),
                driver: RefCell::new(None),
                slots: RefCell::new(Vec::with_capacity(OWN_SLOTS)),
                stolen: RefCell::new(Vec::with_capacity(MOST_STOLEN)),
                watch: Cell::new(WATCH_FIRST),
                rested: Cell::new(false),
                watched: Cell::new(false),
                victim: Cell::new(index),
                loot: Cell::new(None),
                nap: Cell::new(NAP_FIRST),
            },
        })
    }

    #[inline(always)]
    pub(super) fn tape(&self) -> &Tape {
        self.runtime().tape()
    }

    /// The time. To be called on this worker, pinned or by the worker itself.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.own.clock.now()
    }

    /// The time, as [`Worker::now`], for accounts and histograms only.
    #[inline]
    pub(super) fn account_time(&self) -> u64 {
        if cfg!(uthread_bare) { 0 } else { self.now() }
    }

    pub(super) fn runtime(&self) -> &Runtime {
        // SAFETY: the runtime outlives its workers.
        unsafe { &*self.runtime }
    }

    // ----- Called by anyone -----

    /// Queues a thread, whose owner the caller is; the queue's new length.
    #[inline]
    fn enqueue(&self, thread: GreenRef) -> usize {
        let before = thread.get().state().becomes(State::Queued);
        self.insert(thread, before)
    }

    /// Puts a thread, which the caller owns and whose state says so, into the queue. It was in the state `before`.
    #[inline]
    fn insert(&self, thread: GreenRef, before: State) -> usize {
        self.queue.with(|q| {
            q.push(thread.group(), thread);
            self.tape().queued(self.index, thread, before);
            self.note_queued(q);
            q.len()
        })
    }

    #[inline]
    fn note_queued(&self, queue: &RunQueue<GreenRef>) {
        self.queued.post(queue.queued());
        self.stranded.post(queue.stranded());
    }

    /// Queues a thread here from another OS thread, and sees to it that the worker notices.
    pub(super) fn push_remote(&self, thread: GreenRef) {
        let _pin = Pin::new();
        let before = thread.get().state().becomes(State::Queued);
        self.receive(thread, before);
    }

    /// As [`Worker::push_remote`], for a thread that was in another queue.
    pub(super) fn take_over(&self, thread: GreenRef) {
        let _pin = Pin::new();
        self.receive(thread, State::Queued);
    }

    fn receive(&self, thread: GreenRef, before: State) {
        self.insert(thread, before);
        if self.runtime().idle.wake(&self.sleeper) {
            self.ring_bell();
        } else {
            self.nudge();
        }
    }

    /// What the monitor listens to.
    pub(super) fn alarm_bell(&self) -> &EventFd {
        &self.alarm
    }

    /// Ends the worker's wait in its ring, this one or the next.
    pub(super) fn ring_bell(&self) {
        // It would block only when the count is about to overflow, which takes 2⁶⁴ − 2 rings unheard.
        let _ = self.waker.write(1);
    }

    #[inline]
    pub(super) fn has_queued(&self) -> bool {
        !self.queued.get().is_empty()
    }

    /// The groups with threads in the queue.
    #[inline]
    pub(super) fn queued(&self) -> Groups {
        self.queued.get()
    }

    /// Those of them that have not been served for long.
    pub(super) fn stranded(&self) -> Groups {
        self.stranded.get()
    }

    /// Whether there is a thread in the queue that may run now.
    fn has_work(&self) -> bool {
        !self.queued().without(self.runtime().leases().throttled()).is_empty()
    }

    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What groups have used here.
    pub(super) fn accounts(&self) -> &Accounts {
        &self.own.accounts
    }

    /// Changes the timers; the caller may be on another worker.
    pub(super) fn with_timers<R>(&self, f: impl FnOnce(&mut Timers<TimerTarget>) -> R) -> R {
        self.timers.with(f)
    }

    /// The kernel's id of its OS thread; 0 until it has started.
    pub(crate) fn os_thread(&self) -> u32 {
        self.os_thread.load(Ordering::Relaxed)
    }

    /// Threads that wait here for their turns.
    pub(crate) fn queue_length(&self) -> usize {
        let _pin = Pin::new();
        self.queue.with(|q| q.len())
    }

    /// Whether another thread runs than at the last look, which `seen` tells, or none. Called by the monitor.
    pub(super) fn has_switched(&self, seen: &mut u64) -> bool {
        let switches = self.counters.switches.get();
        let same = std::mem::replace(seen, switches) == switches;
        !same || !self.seat.is_taken()
    }

    /// Signals the worker again if it has not heard its timer. Called by the monitor.
    pub(super) fn remind(&self) {
        if self.tick.is_overdue(now()) {
            self.seat.signal();
        }
    }

    /// Gives away half of each group's threads, rounded up, as many as may move, or can go on on helpers, and there is
    /// room for. Called by the monitor.
    pub(super) fn give_away(&self, taken: &mut Vec<GreenRef>, to_helpers: bool) {
        let _pin = Pin::new();
        let may_go = if to_helpers { GreenRef::can_be_helped } else { GreenRef::may_move };
        self.queue.with(|q| {
            for group in q.queued().iter() {
                q.steal_into(group, taken, may_go);
            }
            for thread in taken.iter() {
                if to_helpers {
                    self.tape().relieves(self.index, *thread);
                } else {
                    self.tape().moves(self.index, *thread);
                }
            }
            self.note_queued(q);
        });
        if !taken.is_empty() {
            self.runtime().trace().relieves(now(), self.index, taken.len());
        }
    }

    // ----- Called on the worker's OS thread, also by green threads -----

    /// Queues a thread, whose owner the caller is, behind those of this worker. To be called by a
    /// green thread of this worker, which is pinned.
    #[inline]
    pub(super) fn push_local(&self, thread: GreenRef) {
        self.push_here(thread);
        self.ensure_tick();
    }

    /// Queues a thread, whose owner the caller is. To be called on this worker only.
    #[inline]
    fn push_here(&self, thread: GreenRef) {
        if self.enqueue(thread) > 1 || self.runtime().idle.lacks_watcher() {
            self.send_searcher();
        }
    }

    /// Asks for help with the queue if there is somebody to help.
    pub(super) fn send_searcher(&self) {
        let runtime = self.runtime();
        let others = runtime.workers.iter().enumerate().filter(|(i, _)| *i != self.index);
        if let Some(i) = runtime.idle.send_searcher(others.map(|(i, w)| (i, &w.sleeper))) {
            runtime.workers[i].ring_bell();
        }
    }

    /// Starts an op of the calling green thread.
    ///
    /// # Safety
    ///
    /// As for [`Driver::submit`]; to be called on this worker only.
    pub(super) unsafe fn submit(
        &self,
        op: NonNull<Op<GreenRef>>,
        request: &Request,
    ) -> Result<(), Full> {
        // SAFETY: the op is the caller's until it is submitted.
        unsafe { op.as_ref() }.begun.set(Some(self.account_time()));
        // SAFETY: as promised to this function.
        self.with_driver(|driver| unsafe { driver.submit(op, request) })
    }

    /// What it knows of the present turn; see there for who may use it.
    pub(super) fn turns(&self) -> &Turns {
        &self.own.turns
    }

    /// Its lease; for whom, see there.
    pub(super) fn lease(&self) -> &Lease {
        &self.own.lease
    }

    /// Looks at the queue.
    #[inline]
    pub(super) fn with_queue<R>(&self, f: impl FnOnce(&mut RunQueue<GreenRef>) -> R) -> R {
        self.queue.with(f)
    }

    #[inline]
    pub(super) fn with_driver<R>(&self, f: impl FnOnce(&mut Uring<GreenRef>) -> R) -> R {
        f(self.own.driver.borrow_mut().as_mut().expect("a worker that runs has a driver"))
    }

    /// A warm slot of the runtime's default size, if the worker has one.
    pub(super) fn slot_at_hand(&self) -> Option<Slot> {
        self.own.slots.borrow_mut().pop()
    }

    /// Takes some warm slots from the pool, if it has any.
    pub(super) fn refill_slots(&self, pool: &pool::Pool) {
        let mut slots = self.own.slots.borrow_mut();
        if slots.is_empty() {
            pool.take_warm(OWN_SLOTS / 2, &mut slots);
        }
    }

    /// Whether this worker's thread has come into a stall since the last look. Called by the monitor.
    pub(super) fn has_stalled(&self, threshold: Duration) -> bool {
        self.stalls.find(self.counters.switches.get(), self.tick.due(), threshold)
    }

    /// The floating-point control words in force on this worker's OS thread.
    #[inline]
    pub(super) fn fp_control(&self) -> &Cell<FpControl> {
        &self.own.fp_control
    }

    /// A thread that last ran elsewhere runs here.
    pub(super) fn note_arrival(&self, thread: GreenRef) {
        self.counters.arrivals.add(1);
        let (account, events) = (thread.get().account(), thread.get().events());
        self.own.accounts.arrived(thread.group(), account, events);
    }

    // ----- The loop: on the worker's own stack -----

    /// Runs green threads until the runtime ends. Reports through `started` whether it could start.
    pub(super) fn run(&self, ring_entries: u32, started: impl FnOnce(io::Result<()>)) {
        let prepared = AlternateStack::install().and_then(|stack| {
            let driver = Uring::new(ring_entries, self.waker.as_fd(), self.alarm.as_fd())?;
            if self.runtime().preemption().is_ok() {
                // SAFETY: worker and seat stay in place; the seat is given up below.
                unsafe { self.seat.take(self, &stack)? };
                self.tick.create(&self.seat)?;
            }
            Ok((stack, driver))
        });
        let _stack = match prepared {
            Ok((stack, driver)) => {
                *self.own.driver.borrow_mut() = Some(driver);
                stack
            }
            Err(e) => {
                self.seat.give_up();
                return started(Err(e));
            }
        };
        if self.runtime().owns_thread_blocks() {
            self.own.thread_pointer.set(arch::thread_pointer());
        }
        self.own.fp_control.set(FpControl::current());
        self.tape().started(self.index);
        self.os_thread.store(gettid().as_raw().cast_unsigned(), Ordering::Relaxed);
        self.counters.busy.goes_on();
        started(Ok(()));
        let guard = AbortOnUnwind;
        pin::working(|| {
            while let Some(first) = self.find_work() {
                self.round(first);
            }
        });
        std::mem::forget(guard);
        self.tick.delete();
        self.seat.give_up();
        self.runtime().worker_returned();
        self.tidy(0, 0);
        *self.own.driver.borrow_mut() = None;
        self.counters.busy.waits();
    }

    /// Runs threads, beginning with one that the caller took out, until the round is over. On entry and
    /// on return the worker's own thread-locals are in force; in between none may be used. Not inlined, so
    /// that no address of one comes in from a caller.
    #[inline(never)]
    fn round(&self, first: GreenRef) {
        let mut current = first;
        let mut began = self.now();
        // SAFETY: this worker owns the thread, and uses no thread-local from here on.
        unsafe { current.install(&self.seat) };
        self.trace.enters(began, current.number());
        self.round_begins(current, began);
        for number in 1.. {
            self.counters.switches.step();
            self.turn_begins(current, began);
            self.tape().begins(self.index, current);
            // SAFETY: as above: owned, and installed either before the loop or at its end.
            let left = unsafe { current.resume(self) };
            let now = if cfg!(uthread_bare) { began } else { self.now() };
            let turn = Ended { thread: current, began, now };
            if current.get().is_hog() {
                self.hog_left(current, &left, turn.time());
            }
            let last = number >= ROUND || self.must_tidy(&left, current);
            let next = match left {
                Left::Suspended(why) => match why.why() {
                    Why::Yield => self.rotate(turn, last),
                    Why::Wait => {
                        // Nobody but this worker wakes it.
                        current.get().state().becomes(State::Waiting);
                        self.tape().waits(self.index, current);
                        let reason = Reason::Wait(current.get().waits_for());
                        self.switch(turn, last, reason.code())
                    }
                    Why::Park(parker) => {
                        // SAFETY: the parker is one that the thread waits on, alive until it goes on.
                        self.park(turn, last, |waiter| unsafe { parker.as_ref().commit(waiter) })
                    }
                    #[cfg(feature = "interpose")]
                    Why::Enlist(wish) => {
                        // SAFETY: likewise; the thread is parked.
                        self.park(turn, last, |waiter| unsafe { wish.as_ref().commit(waiter) })
                    }
                    Why::Interrupted => self.put_back(turn),
                    Why::Blocked => self.hand_over(turn),
                },
                Left::Finished => {
                    self.tape().ended(self.index, current);
                    let next = self.switch(turn, last, Reason::End.code());
                    self.retire(current);
                    next
                }
            };
            match next {
                Some(next) => current = next,
                None => return,
            }
            began = now;
        }
    }

    /// Accounts for a turn, whose thread is not published yet.
    ///
    /// Where the queue is locked, it is called after that: a locked instruction waits for all stores that are underway, so
    /// that the few of this function would cost several times as much before it.
    #[inline(always)]
    fn settle(&self, turn: Ended) {
        let (thread, time) = (turn.thread, turn.time());
        self.own.accounts.turn_ended(thread.group(), thread.get().account(), time, turn.now);
        self.counters.slice_length.record(time);
    }

    /// Takes out the next thread and installs it, or the worker itself if there is none or the round
    /// is over. The old thread, which leaves for that reason, may be published afterwards.
    ///
    /// Inlined at each of its places: a call would cost a park some two nanoseconds.
    #[inline(always)]
    fn switch(&self, turn: Ended, last: bool, reason: u8) -> Option<GreenRef> {
        let now = turn.now;
        let next = if last { None } else { self.dequeue(now) };
        self.settle(turn);
        match next {
            Some(next) => {
                self.trace.switches(now, reason, next.number());
                // SAFETY: just taken out, hence owned; the loop uses no thread-locals.
                unsafe { next.install(&self.seat) }
            }
            None => {
                self.trace.leaves(now, reason);
                self.install_own();
            }
        }
        next
    }

    /// A thread was interrupted. The round is over, so that what came meanwhile runs first.
    #[cold]
    fn put_back(&self, turn: Ended) -> Option<GreenRef> {
        let current = turn.thread;
        self.settle(turn);
        self.trace.leaves(turn.now, Reason::Interrupt.code());
        self.counters.forced_switches.add(1);
        self.own.accounts.forced(current.group(), current.get().events());
        self.install_own();
        current.get().set_interrupted(true);
        current.get().state().becomes(State::Queued);
        let used_up = self.own.turns.used_up();
        self.queue.with(|q| {
            if self.own.turns.is_protected() && !used_up {
                q.push_due(current.group(), current);
            } else {
                q.push_interrupted(current.group(), current, used_up);
            }
            self.tape().interrupted(self.index, current, used_up);
            self.note_queued(q);
        });
        None
    }

    /// A thread is blocked, or will be. The round is over, since the time that has passed is unknown.
    #[cold]
    fn hand_over(&self, turn: Ended) -> Option<GreenRef> {
        let Ended { thread: current, now, .. } = turn;
        self.settle(turn);
        let on_purpose = current.get().blocking().get() > 0;
        self.install_own();
        match self.runtime().hand_to_helper(current) {
            Ok(()) => {
                self.trace.leaves(now, Reason::Block.code());
                if !on_purpose {
                    self.counters.helper_moves.add(1);
                }
            }
            Err(NoHelper) => {
                self.trace.leaves(now, Reason::BlockAgain.code());
                // It blocks the worker from now on whenever it has its turn, which is to be guarded.
                current.get().set_hog(true);
                current.get().set_interrupted(true);
                current.get().state().becomes(State::Queued);
                self.queue.with(|q| {
                    q.push_interrupted(current.group(), current, true);
                    self.tape().interrupted(self.index, current, true);
                    self.note_queued(q);
                });
            }
        }
        None
    }

    #[inline]
    fn dequeue(&self, now: u64) -> Option<GreenRef> {
        self.queue.with(|q| {
            let group = self.group_to_serve(q, Groups::NONE, now)?;
            let next = q.pop(group)?;
            self.tape().next(self.index, next);
            self.note_queued(q);
            if let Some(after) = q.peek(group) {
                after.prefetch();
            }
            Some(next)
        })
    }

    /// A thread yielded.
    #[inline]
    fn rotate(&self, turn: Ended, last: bool) -> Option<GreenRef> {
        let Ended { thread: current, now, .. } = turn;
        let rotate = |q: &mut RunQueue<GreenRef>| {
            let own = current.group();
            let to = self.group_to_serve(q, Groups::only(own), now)?;
            self.settle(turn);
            current.get().state().becomes(State::Queued);
            // SAFETY: `next` was just taken out, hence is owned; the loop uses no thread-locals. It is
            // installed under the lock to keep the order: out, install, publish.
            let next = q.rotate(own, current, to, |next| unsafe {
                self.tape().next(self.index, next);
                next.install(&self.seat)
            });
            self.tape().queued(self.index, current, State::Running);
            if next == current {
                self.tape().next(self.index, next);
            }
            self.note_queued(q);
            if let Some(after) = q.peek(to) {
                after.prefetch();
            }
            Some(next)
        };
        let next = if last { None } else { self.queue.with(rotate) };
        self.counters.yields.add(1);
        match next {
            Some(next) => self.trace.switches(now, Reason::Yield.code(), next.number()),
            None => {
                self.settle(turn);
                self.trace.leaves(now, Reason::Yield.code());
                self.install_own();
                self.requeue(current);
            }
        }
        next
    }

    /// Queues a thread of the round.
    fn requeue(&self, thread: GreenRef) {
        self.enqueue(thread);
    }

    /// A thread parks, unless `commit`, which publishes it, says that it must go on.
    #[inline]
    fn park(
        &self,
        turn: Ended,
        last: bool,
        commit: impl FnOnce(usize) -> bool,
    ) -> Option<GreenRef> {
        let Ended { thread: current, now, .. } = turn;
        self.tape().waits(self.index, current);
        let reason = Reason::Wait(current.get().waits_for());
        let next = self.switch(turn, last, reason.code());
        self.counters.parks.add(1);
        current.get().state().becomes(State::Waiting);
        // The context is saved and the thread pointer has left, so that whoever wakes it may run the thread.
        if commit(current.to_waiter()) {
            return next;
        }
        // Woken meanwhile: it stays runnable, and stays this worker's.
        self.trace.wakes(now, current.number(), WokenBy::Before);
        match next {
            Some(next) => {
                self.requeue(current);
                Some(next)
            }
            None => {
                self.requeue(current);
                None
            }
        }
    }

    /// A thread ended: keeps its slot. The thread pointer has left it.
    #[inline]
    fn retire(&self, ended: GreenRef) {
        self.counters.finished.add(1);
        // SAFETY: it finished here.
        let slot = unsafe { ended.retire() };
        // Within capacity: `must_tidy` ended the round otherwise, and then there is room to allocate.
        self.own.slots.borrow_mut().push(slot);
        self.runtime().thread_ended();
    }

    /// Whether the slot of a thread that just ended cannot simply be put aside: the round ends, and
    /// `tidy` sorts it out with thread-locals in force.
    #[inline]
    fn must_tidy(&self, left: &Left<Leave>, current: GreenRef) -> bool {
        matches!(left, Left::Finished)
            && (self.own.slots.borrow().len() + 1 >= OWN_SLOTS
                || current.get().stack_size() != self.runtime().stack_size())
    }

    /// Returns a slot of another size to its pool, and, if there are more than `most`, all but `keep`
    /// of the worker's own.
    fn tidy(&self, most: usize, keep: usize) {
        let mut slots = self.own.slots.borrow_mut();
        if let Some(odd) = slots.pop_if(|s| s.stack.size() != self.runtime().stack_size()) {
            odd.pool().put_back([odd]);
        }
        if slots.len() > most {
            let surplus = slots.len() - keep;
            // The coldest are first.
            self.runtime().pool().put_back(slots.drain(..surplus));
        }
    }

    /// Puts the worker's own thread-locals in force.
    #[inline]
    fn install_own(&self) {
        self.seat.seats(None);
        match self.own.thread_pointer.get() {
            0 => set_current(None),
            // SAFETY: it is this OS thread's own.
            pointer => unsafe { arch::set_thread_pointer(pointer) },
        }
    }

    // ----- The slow path: the worker's own thread-locals are in force -----

    /// A thread to run, owned by the caller; `None` when the runtime has ended.
    #[inline(never)]
    fn find_work(&self) -> Option<GreenRef> {
        self.turns_end();
        self.tidy(OWN_SLOTS - 2, OWN_SLOTS / 2);
        let mut sent = false;
        loop {
            // With nothing queued, ops that were begun are handed over by the enter that waits.
            self.poll(if self.has_queued() { Wait::No } else { Wait::Defer });
            let mut found = self.dequeue_or_fetch();
            if found.is_none() && self.loot_was_poor() {
                // No search goes on while the worker naps: let others be sent.
                if std::mem::take(&mut sent) {
                    self.runtime().idle.search_ended();
                }
                self.nap();
                found = self.dequeue_or_fetch();
            }
            let found = found.or_else(|| {
                let stolen = self.steal();
                if stolen.is_some() {
                    self.poll(Wait::No);
                }
                stolen
            });
            let was_sent = std::mem::take(&mut sent);
            if was_sent {
                self.runtime().idle.search_ended();
            }
            if found.is_some() {
                self.own.watch.set(WATCH_FIRST);
                self.own.rested.set(false);
                let watched = self.own.watched.take();
                if was_sent || watched {
                    self.pass_on(was_sent);
                }
                return found;
            }
            if self.runtime().has_ended() {
                return None;
            }
            sent = self.sleep();
        }
    }

    /// Sends the next sleeper where this worker, which has work now, leaves a place: that of the
    /// searcher, if there is more to be found, or that of the watcher.
    fn pass_on(&self, was_sent: bool) {
        let runtime = self.runtime();
        let more = was_sent && runtime.workers.iter().any(Worker::has_work);
        if more || runtime.idle.lacks_watcher() {
            self.send_searcher();
        }
    }

    /// Sleeps until something happens; whether the worker was sent to search.
    fn sleep(&self) -> bool {
        let runtime = self.runtime();
        // A worker that has nothing to do for some time gives its slots back. But a short sleep between two
        // bursts of work is no such time.
        let rest = if self.own.rested.replace(true) {
            self.tidy(0, 0);
            if pool::wants_maintenance() {
                runtime.monitor().ask_for_chores();
            }
            None
        } else {
            Some(REST)
        };
        // Before it looks for the last time: it may find that a group may run again.
        self.end_lease(self.now());
        runtime.idle.announce(&self.sleeper);
        // Threads that are bound to another worker are no reason to stay awake.
        let elsewhere =
            runtime.owns_thread_blocks() && runtime.workers.iter().any(Worker::has_work);
        let must_stay = self.has_work() || elsewhere || runtime.has_ended();
        if !must_stay {
            self.counters.sleeps.add(1);
            let watching = runtime.idle.take_watch(runtime.workers.len());
            self.trace.sleeps(self.now());
            let watch = watching.then(|| self.own.watch.get());
            self.poll(self.wait_until_timer_or([watch, rest].into_iter().flatten().min()));
            self.trace.awakes(self.now());
            if watching {
                runtime.idle.leave_watch();
                self.own.watched.set(true);
                self.own.watch.set((self.own.watch.get() * 2).min(WATCH_LAST));
            }
        } else {
            self.poll(Wait::No);
        }
        runtime.idle.awake(&self.sleeper)
    }

    /// A wait for as long as said, or for ever, but no longer than until the next timer.
    fn wait_until_timer_or(&self, limit: Option<Duration>) -> Wait {
        let deadline = self.timers.with(|t| t.next_deadline());
        let release = self.own.lease.release().filter(|_| self.has_queued());
        let first = [deadline, release].into_iter().flatten().min();
        let timer = first.map(|at| Duration::from_nanos(at.saturating_sub(now())));
        [timer, limit].into_iter().flatten().min().map_or(Wait::Forever, Wait::For)
    }

    /// Looks at timers and ring, and makes runnable who waited for them.
    fn poll(&self, wait: Wait) {
        // Of all completions that are found at a time; of those that end the wait, too.
        let mut now = None;
        let may_sleep = matches!(wait, Wait::For(_) | Wait::Forever);
        if may_sleep {
            self.counters.busy.waits();
        }
        self.with_driver(|driver| {
            driver.poll(wait, |op| {
                // SAFETY: an op that is reported still stands on the stack of its waiter, which does
                // not run before it is queued here.
                let op = unsafe { op.as_ref() };
                if let Some(key) = op.timer.take() {
                    self.timers.with(|t| t.disarm(key));
                }
                self.complete(op, *now.get_or_insert_with(|| self.account_time()));
            });
            if may_sleep {
                self.counters.busy.goes_on();
            }
            self.expire(driver);
            let counts = driver.counts();
            self.counters.ring_enters.set(counts.enters);
            self.counters.submissions.set(counts.submissions);
            self.counters.completions.set(counts.completions);
        });
    }

    /// Handles the timers that expired. Targets are handled under the lock, so that a thread that
    /// disarms its timer on another worker does not go on while its park word is in use here.
    fn expire(&self, driver: &mut Uring<GreenRef>) {
        self.timers.with(|timers| {
            if timers.next_deadline().is_none() {
                return;
            }
            let now = now();
            while let Some(target) = timers.expire(now) {
                match target {
                    TimerTarget::Thread(thread) => self.wake_here(thread, WokenBy::Timer),
                    TimerTarget::Op(op) => {
                        // SAFETY: an armed op is in flight in this worker's driver.
                        unsafe {
                            op.as_ref().timer.set(None);
                            op.as_ref().timed_out.set(true);
                            driver.cancel(op);
                        }
                    }
                    TimerTarget::Parker(parker, thread) => {
                        // SAFETY: the waiter disarms the timer, under this lock, before the parker goes.
                        if unsafe { parker.as_ref() }.withdraw(thread.to_waiter()) {
                            self.wake_here(thread, WokenBy::Timeout);
                        }
                    }
                }
            }
        });
    }

    /// Makes a thread runnable whose wait ended on this worker.
    fn wake_here(&self, thread: GreenRef, by: WokenBy) {
        self.note_wake(thread, self.account_time(), by);
        self.push_here(thread);
    }

    /// An op has completed: makes its thread runnable.
    fn complete(&self, op: &Op<GreenRef>, now: u64) {
        self.note_wake(op.waiter, now, WokenBy::Completion(op.reason));
        if let Some(begun) = op.begun.get() {
            self.counters.op_latency(op.reason).record(now.saturating_sub(begun));
        }
        // Afterwards there may be no op any more.
        self.push_here(op.waiter);
    }

    /// A wait of a thread's has ended on this worker.
    pub(super) fn note_wake(&self, thread: GreenRef, now: u64, by: WokenBy) {
        self.counters.wakeups.add(1);
        self.own.accounts.woken(thread.group());
        thread.get().note_wake(now);
        self.trace.wakes(now, thread.number(), by);
    }

    /// Judges what was stolen last, once it has run.
    fn loot_was_poor(&self) -> bool {
        let Some((count, since)) = self.own.loot.take() else { return false };
        let poor = Duration::from_nanos(self.now().saturating_sub(since)) < POOR_LOOT * count;
        if !poor {
            self.own.nap.set(NAP_FIRST);
        }
        poor
    }

    /// Leaves the others alone for a while. A nap is not a sleep: completions and timers end it, but
    /// wake-ups by other workers, who would send this one back to the same queue, do not.
    fn nap(&self) {
        let nap = self.own.nap.get();
        self.own.nap.set((nap * 2).min(NAP_LAST));
        self.poll(self.wait_until_timer_or(Some(nap)));
    }

    /// The next thread; those of a group that is to be served before are brought here first.
    fn dequeue_or_fetch(&self) -> Option<GreenRef> {
        loop {
            if let Some(next) = self.dequeue(self.now()) {
                return Some(next);
            }
            // Each group is fetched, or known to be bound, before long.
            let group = self.own.lease.take_fetch()?;
            let wanted = Groups::only(group);
            if !self.steal_of(wanted, Worker::stranded) && !self.steal_of(wanted, Worker::queued) {
                self.own.lease.note_bound(group);
            }
        }
    }

    /// Takes half of another worker's threads of one group; the first of the loot is to be run.
    fn steal(&self) -> Option<GreenRef> {
        let group = self.group_to_fetch()?;
        let throttled = self.runtime().leases().throttled();
        let rest = Groups::ALL.without(Groups::only(group)).without(throttled);
        // Those of the group may be bound to their worker.
        let wanted = Groups::only(group);
        let found = self.steal_of(wanted, Worker::queued) || self.steal_of(rest, Worker::queued);
        if found { self.dequeue_or_fetch() } else { None }
    }

    /// Takes half of another worker's threads of one of these groups to the own queue, if it is one of those which
    /// `has` says that the worker has; whether there were any.
    fn steal_of(&self, wanted: Groups, has: impl Fn(&Worker) -> Groups) -> bool {
        let workers = &self.runtime().workers;
        let mut stolen = self.own.stolen.borrow_mut();
        for _ in 0..workers.len() {
            let victim = (self.own.victim.get() + 1) % workers.len();
            self.own.victim.set(victim);
            if victim == self.index || has(&workers[victim]).both(wanted).is_empty() {
                continue;
            }
            let from = &workers[victim];
            from.queue.with(|q| {
                for group in q.queued().both(wanted).iter() {
                    q.steal_into(group, &mut stolen, GreenRef::may_move);
                    if !stolen.is_empty() {
                        break;
                    }
                }
                stolen.iter().for_each(|t| self.tape().moves(victim, *t));
                from.note_queued(q);
            });
            if stolen.is_empty() {
                continue;
            }
            self.counters.steals.add(1);
            self.counters.stolen.add(stolen.len() as u64);
            let now = self.now();
            self.trace.steals(now, victim, stolen.len());
            self.own.loot.set(Some((stolen.len() as u32, now)));
            self.queue.with(|q| {
                for thread in stolen.drain(..) {
                    q.push(thread.group(), thread);
                    self.tape().queued(self.index, thread, State::Queued);
                }
                self.note_queued(q);
            });
            return true;
        }
        false
    }
}

/// A worker that unwinds would leave its threads behind, perhaps on a green thread's block.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        eprintln!("uthread: a worker panicked, which is a bug of uthread; aborting");
        std::process::abort();
    }
}

/// Starts an OS thread of the runtime.
pub(super) fn start(
    runtime: &Runtime,
    suffix: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(format!("{}-{suffix}", runtime.name())).spawn(run)
}
