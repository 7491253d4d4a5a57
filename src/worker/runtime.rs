//! Workers together: start, placement, end.

use std::io::{self, Write};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::green::{Bell, GreenRef, Identity, current, find_occupant};
use super::group::Member;
use super::helper::{Helpers, NoHelper};
use super::holders::{Held, Holders};
use super::idle::Idle;
use super::lease::Leases;
use super::monitor::Monitor;
use super::parker::Parker;
use super::run::{self, Worker};
use super::tape::Tape;
use super::wait;
use crate::context::pool::{self, Slot};
use crate::context::{overflow, tls};
use crate::preempt::pin::Pin;
use crate::preempt::{self, StallHook};
use crate::reason::WaitReason;
use crate::sched::GroupId;
use crate::stats::{RuntimeCounters, SchedStat};
use crate::time::now;
use crate::trace::Shared;

/// Bytes that a closure may capture to be moved onto its thread's stack, which saves an allocation.
/// Larger ones are boxed: they would take the first page, or more than a small stack has.
const LARGEST_CLOSURE: usize = 512;

/// What a runtime is made of.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Number of workers, at least 1.
    pub(crate) workers: usize,
    /// Of threads that do not ask for another, rounded.
    pub(crate) stack_size: usize,
    /// Submission entries of each worker's ring.
    pub(crate) ring_entries: u32,
    /// Whether green threads have thread blocks of their own, where they can be had.
    pub(crate) thread_blocks: bool,
    /// What the workers' OS threads are called, before their number.
    pub(crate) name: String,
    /// Whether threads that compute for longer than a slice are interrupted, where it can be had.
    pub(crate) preemption: Result<(), &'static str>,
    pub(crate) slice: Duration,
    /// The largest number of helpers.
    pub(crate) helpers: usize,
    pub(crate) stall_threshold: Duration,
    pub(crate) on_stall: Option<StallHook>,
    /// How many events of the scheduler a worker keeps.
    pub(crate) trace_events: usize,
    /// How many events are to be recorded.
    #[cfg(all(test, not(loom)))]
    pub(crate) tape: usize,
}

/// A set of workers and the green threads that they share.
pub(crate) struct Runtime {
    pub(super) workers: Box<[Worker]>,
    pub(super) idle: Idle,
    holders: Holders,
    config: Config,
    pool: &'static pool::Pool,
    /// Threads that were created and are not retired.
    live: AtomicUsize,
    /// The runtime shall end when no thread is live.
    closing: AtomicBool,
    /// Where the next thread from outside goes if no worker sleeps.
    next: AtomicUsize,
    pub(crate) counters: RuntimeCounters,
    monitor: Monitor,
    reporter: Bell,
    helpers: Helpers,
    leases: Leases,
    /// Of all OS threads but the workers'.
    trace: Shared,
    tape: Tape,
    os_threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where a green thread waits for the end.
    ended: Parker,
}

impl Runtime {
    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// An OS thread, a descriptor or a ring cannot be had. What was started has ended then.
    pub(crate) fn start(mut config: Config) -> io::Result<Arc<Runtime>> {
        overflow::install(find_occupant);
        #[cfg(all(feature = "interpose", not(loom)))]
        super::wait_table::populate();
        if config.thread_blocks
            && let Err(reason) = tls::available()
        {
            say_once(reason);
            config.thread_blocks = false;
        }
        if let Err(reason) = preempt::available() {
            config.preemption = Err(reason);
        }
        if !config.thread_blocks {
            config.preemption = Err("green threads have no thread-local storage of their own");
        }
        let monitor = Monitor::new()?;
        let helpers = Helpers::new(config.helpers)?;
        let leases = Leases::new(config.workers, config.slice.as_nanos() as u64);
        let trace = Shared::new(config.trace_events);
        #[cfg(all(test, not(loom)))]
        let tape = Tape::new(config.tape, config.workers);
        #[cfg(not(all(test, not(loom))))]
        let tape = Tape;
        let mut failure = None;
        let runtime = Arc::new_cyclic(|weak| {
            let address = weak.as_ptr();
            let workers: io::Result<Box<[Worker]>> =
                (0..config.workers).map(|i| Worker::new(address, i, &config)).collect();
            Runtime {
                workers: workers.unwrap_or_else(|e| {
                    failure = Some(e);
                    Box::default()
                }),
                idle: Idle::new(),
                holders: Holders::new(),
                pool: pool::of_size(config.stack_size),
                config,
                live: AtomicUsize::new(0),
                closing: AtomicBool::new(false),
                next: AtomicUsize::new(0),
                counters: RuntimeCounters::default(),
                monitor,
                reporter: Bell::default(),
                helpers,
                leases,
                trace,
                tape,
                os_threads: Mutex::default(),
                ended: Parker::new(),
            }
        });
        match failure.map_or_else(|| runtime.start_workers(), Err) {
            Ok(()) => {
                let mut all = Self::list();
                all.retain(|other| other.strong_count() > 0);
                all.push(Arc::downgrade(&runtime));
                Ok(runtime)
            }
            Err(e) => {
                runtime.close();
                Err(e)
            }
        }
    }

    /// The runtimes of the process.
    pub(crate) fn all() -> Vec<Arc<Runtime>> {
        Self::list().iter().filter_map(Weak::upgrade).collect()
    }

    fn list() -> MutexGuard<'static, Vec<Weak<Runtime>>> {
        static ALL: Mutex<Vec<Weak<Runtime>>> = Mutex::new(Vec::new());
        ALL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_workers(self: &Arc<Self>) -> io::Result<()> {
        // Not a channel of `std`: waiting for one takes the token of `std::thread::park`.
        let reports = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        for index in 0..self.workers.len() {
            let (this, told) = (self.clone(), reports.clone());
            let thread = run::start(self, &index.to_string(), move || {
                this.workers[index].run(this.config.ring_entries, |result| {
                    told.0.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                    told.1.notify_one();
                });
            })?;
            self.adopt(thread);
        }
        for (index, worker) in self.workers.iter().enumerate() {
            self.monitor.listen_to(index, worker)?;
        }
        let this = self.clone();
        self.adopt(run::start(self, "monitor", move || {
            this.monitor.run(&this);
            this.holders.await_none();
        })?);
        if let Some(hook) = self.config.on_stall.clone() {
            let this = self.clone();
            self.adopt(run::start(self, "reporter", move || this.report_stalls(&hook))?);
        }
        let all = self.workers.len();
        let told = reports.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = reports
            .1
            .wait_while(told, |told| told.len() < all)
            .unwrap_or_else(PoisonError::into_inner);
        told.drain(..).collect()
    }

    fn os_threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.os_threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the runtime when its last thread has ended, and waits for that, unless the caller is one
    /// of its threads.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.ring_everybody();
        if let Some(caller) = current() {
            if std::ptr::eq(caller.get().runtime(), self) {
                return;
            }
            // A green thread of another runtime parks, so that its worker goes on; what is left to be
            // waited for below then takes no time.
            while !self.has_ended() {
                wait::wait(&self.ended, None, WaitReason::RuntimeEnd);
            }
        }
        // One by one: until it has ended, the monitor may start helpers.
        loop {
            let Some(thread) = self.os_threads().pop() else { return };
            // A panic is a bug of this crate, told on stderr by its hook.
            let _ = thread.join();
        }
    }

    /// An OS thread of the runtime, to be waited for at the end.
    pub(super) fn adopt(&self, thread: JoinHandle<()>) {
        let mut threads = self.os_threads();
        threads.retain(|t| !t.is_finished());
        threads.push(thread);
    }

    /// Whether workers shall return.
    pub(super) fn has_ended(&self) -> bool {
        self.closing.load(Ordering::SeqCst) && self.live.load(Ordering::SeqCst) == 0
    }

    /// A thread was retired.
    #[inline]
    pub(super) fn thread_ended(&self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }

    /// A worker has seen that the runtime has ended. The one that retired the last thread looks before
    /// it sleeps; if it did so before `closing` was set, `close` rings. So one worker sees it, and rings
    /// the others.
    pub(super) fn worker_returned(&self) {
        self.ring_everybody();
    }

    fn ring_everybody(&self) {
        self.workers.iter().for_each(Worker::ring_bell);
        wait::notify(&self.ended);
        self.monitor.poke();
        self.reporter.ring();
        self.helpers.ring_all();
    }

    pub(super) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    pub(super) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Sends a sleeper to search, if there is one. For those who are not workers.
    fn send_searcher(&self) {
        let all = self.workers.iter().map(|worker| &worker.sleeper).enumerate();
        if let Some(i) = self.idle.send_searcher(all) {
            self.workers[i].ring_bell();
        }
    }

    /// What the threads of a group have used in this runtime.
    pub(crate) fn group_stats(&self, group: &Member) -> SchedStat {
        let _pin = Pin::new();
        let totals = self.leases.totals(&self.tape, group.id(), || self.send_searcher());
        let mut sum =
            SchedStat { throttled: Duration::from_nanos(totals.throttled), ..SchedStat::default() };
        let now = now();
        for worker in &self.workers {
            worker.accounts().add_to(group.id(), &mut sum);
            sum.run_time += Duration::from_nanos(worker.turns().present(group.id(), now));
        }
        sum
    }

    pub(crate) fn helpers(&self) -> &Helpers {
        &self.helpers
    }

    /// Hands a thread, which the caller owns, to a helper, if there is one.
    pub(super) fn hand_to_helper(&self, thread: GreenRef) -> Result<(), NoHelper> {
        let handed = self.helpers.submit(thread, &self.tape);
        if handed.is_err() {
            self.tell_monitor();
        }
        self.monitor.attend();
        handed
    }

    /// Whether a thread could be handed to a helper.
    pub(super) fn has_idle_helper(&self) -> bool {
        self.helpers.has_idle()
    }

    /// A thread wants a helper. Async-signal-safe.
    pub(super) fn want_helper(&self) {
        self.helpers.want_one();
        self.tell_monitor();
    }

    fn tell_monitor(&self) {
        if self.helpers.may_grow() {
            self.monitor.poke();
        }
    }

    /// Whether the monitor has nothing to look for.
    pub(super) fn is_quiet(&self) -> bool {
        self.idle.all_sleep(self.workers.len()) && !self.helpers.are_busy()
    }

    /// Counts threads that keep their workers for too long, and has them reported.
    pub(super) fn look_for_stalls(&self) {
        let threshold = self.config.stall_threshold;
        let found = self.workers.iter().filter(|w| w.has_stalled(threshold)).count();
        if found > 0 {
            self.counters.stalls.add(found as u64);
            self.reporter.ring();
        }
    }

    /// The reporter's life: calls the hook with each stall until the runtime ends.
    fn report_stalls(&self, hook: &StallHook) {
        while !self.has_ended() {
            self.reporter.listen(None);
            let stalls = self.workers.iter().filter_map(|w| w.stalls.report(&w.seat));
            stalls.for_each(|stall| hook.call(&stall));
        }
    }

    /// Nanoseconds of a slice.
    pub(super) fn slice(&self) -> u64 {
        self.config.slice.as_nanos() as u64
    }

    /// Creates a green thread and makes it runnable.
    ///
    /// # Errors
    ///
    /// No memory, address space or mappings for its stack; nothing is left behind.
    ///
    /// # Safety
    ///
    /// What `main` borrows is valid until it has returned; it does not unwind.
    pub(crate) unsafe fn spawn(
        &self,
        stack_size: Option<usize>,
        identity: Arc<Identity>,
        group: Option<Member>,
        spawned_at: &'static Location<'static>,
        main: impl FnOnce(),
    ) -> io::Result<()> {
        let pool = match stack_size {
            Some(size) if size != self.config.stack_size => pool::of_size(size),
            _ => self.pool,
        };
        let caller = current().filter(|c| std::ptr::eq(c.get().runtime(), self));
        let slot = self.take_slot(caller, pool)?;
        let group = group
            .unwrap_or_else(|| Member::of(current().map_or(GroupId::DEFAULT, GreenRef::group)));
        // SAFETY: as promised to this function; a live thread keeps the runtime from ending, and is
        // counted before it is published.
        let thread = unsafe {
            if size_of_val(&main) <= LARGEST_CLOSURE {
                GreenRef::create(slot, self, identity, group, spawned_at, main)
            } else {
                let boxed = Box::new(main);
                GreenRef::create(slot, self, identity, group, spawned_at, boxed)
            }
        };
        self.live.fetch_add(1, Ordering::SeqCst);
        let _pin = Pin::new();
        match caller.as_ref().and_then(|c| c.get().worker()) {
            Some(worker) => {
                let now = worker.account_time();
                thread.get().set_born(now);
                worker.trace.spawns(now, thread.number(), thread.get().identity().name.as_deref());
                worker.counters.spawned.add(1);
                worker.push_local(thread);
            }
            None => {
                let now = now();
                thread.get().set_born(now);
                let (name, parent) = (&thread.get().identity().name, current());
                let parent = parent.map(GreenRef::number);
                self.trace.spawns(now, parent, thread.number(), name.as_deref());
                self.counters.spawned.add(1);
                self.inject(thread);
            }
        }
        Ok(())
    }

    /// A slot for a new thread: one that the caller's worker has at hand, or of the pool's.
    fn take_slot(&self, caller: Option<GreenRef>, pool: &'static pool::Pool) -> io::Result<Slot> {
        let with_block = self.owns_thread_blocks();
        if std::ptr::eq(pool, self.pool)
            && let Some(caller) = caller
        {
            let at_hand = |refill: bool| {
                let _pin = Pin::new();
                let worker = caller.get().worker()?;
                if refill {
                    worker.refill_slots(pool);
                }
                worker.slot_at_hand()
            };
            if let Some(slot) = at_hand(false) {
                return pool.reuse(slot, with_block);
            }
            // Not pinned: it may take the loader's lock.
            if with_block {
                tls::check_modules()?;
            }
            if let Some(slot) = at_hand(true) {
                return pool.reuse(slot, with_block);
            }
        }
        pool.take(with_block)
    }

    /// Queues a thread, whose owner the caller is, on some worker; from anywhere.
    pub(super) fn inject(&self, thread: GreenRef) {
        let last = thread.get().worker();
        let target = match last {
            Some(bound) if !thread.may_move() => bound,
            Some(warm) if warm.sleeper.seems_asleep() => warm,
            _ => self.workers.iter().find(|w| w.sleeper.seems_asleep()).unwrap_or_else(|| {
                let turn = self.next.fetch_add(1, Ordering::Relaxed);
                &self.workers[turn % self.workers.len()]
            }),
        };
        target.push_remote(thread);
    }

    /// Keeps the runtime's memory as long as the guard exists. For whoever owns one of its threads.
    pub(super) fn hold(&self) -> Held<'_> {
        self.holders.hold()
    }

    /// Whether green threads have thread blocks of their own.
    #[inline]
    pub(crate) fn owns_thread_blocks(&self) -> bool {
        self.config.thread_blocks
    }

    #[inline]
    pub(crate) fn stack_size(&self) -> usize {
        self.config.stack_size
    }

    /// Where events are recorded.
    #[inline(always)]
    pub(crate) fn tape(&self) -> &Tape {
        &self.tape
    }

    /// The recorder of all OS threads but the workers'.
    pub(crate) fn trace(&self) -> &Shared {
        &self.trace
    }

    /// Whether threads are interrupted.
    pub(crate) fn preemption(&self) -> Result<(), &'static str> {
        self.config.preemption
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    pub(super) fn pool(&self) -> &'static pool::Pool {
        self.pool
    }

    pub(crate) fn workers(&self) -> &[Worker] {
        &self.workers
    }

    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

/// Tells, once per process, that green threads are not all they could be.
fn say_once(reason: &str) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Nobody to tell is no reason to panic.
        let _ = writeln!(
            io::stderr(),
            "uthread: green threads share the thread-locals of their workers and stay on the worker they started on: {reason}"
        );
    });
}
