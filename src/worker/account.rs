//! What threads and groups have used: the kernel's schedstat (Documentation/scheduler/sched-stats.rst).
//!
//! The clock is read once per switch: the end of one turn is the beginning of the next, so that the
//! nanoseconds of the switch itself are part of the turn that follows. A thread's account is written by whoever
//! owns the thread; a group's on a worker by that worker alone. Time on a helper is not counted.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::group;
use crate::sched::{GroupId, MOST_GROUPS};
use crate::stats::{Counter, SchedStat};

/// A thread's account. Part of its control block.
///
/// It is written by the thread's owner, also while the thread itself is interrupted at any instruction: what the
/// thread reads is an atomic word, lest the compiler takes it for one that nobody else changes.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// When it became runnable, while it is; nanoseconds of the monotonic clock. The lowest bit is no part of the time:
    /// it tells that a wait has ended then.
    since: Cell<u64>,
    run_time: Counter,
    run_delay: Counter,
    turns: Counter,
}

/// The part of a thread's account that does not change at every switch.
#[derive(Debug, Default)]
pub(crate) struct Events {
    forced: Counter,
    wakeups: Counter,
    migrations: Counter,
}

/// A group's account on one worker.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct GroupAccount {
    generation: AtomicU32,
    run_time: Counter,
    run_delay: Counter,
    turns: Counter,
    forced: Counter,
    wakeups: Counter,
    migrations: Counter,
}

/// In [`Account::since`]: a wait has ended.
const WOKEN: u64 = 1;

/// How long a thread was runnable before its turn.
pub(super) struct Delay {
    /// Nanoseconds.
    pub(super) time: u64,
    /// It had waited for something before, not just for its turn.
    pub(super) after_wait: bool,
}

/// A worker's accounts of groups.
pub(super) struct Accounts([GroupAccount; MOST_GROUPS]);

impl Account {
    /// The thread has become runnable, but not by the end of a wait.
    #[inline]
    pub(super) fn queued(&self, now: u64) {
        self.since.set(now & !WOKEN);
    }

    /// The thread has become runnable, since its wait has ended.
    #[inline]
    pub(super) fn woken(&self, now: u64) {
        self.since.set(now | WOKEN);
    }

    /// When it became runnable last.
    pub(super) fn queued_at(&self) -> u64 {
        self.since.get()
    }
}

impl Events {
    /// A wait has ended.
    #[inline]
    pub(super) fn woken(&self) {
        self.wakeups.add(1);
    }
}

impl SchedStat {
    /// What a thread has used up to the beginning of its present turn.
    pub(crate) fn of(account: &Account, events: &Events) -> SchedStat {
        SchedStat {
            run_time: Duration::from_nanos(account.run_time.get()),
            run_delay: Duration::from_nanos(account.run_delay.get()),
            turns: account.turns.get(),
            // The present turn has not ended.
            voluntary_switches: account.turns.get().saturating_sub(events.forced.get() + 1),
            forced_switches: events.forced.get(),
            wakeups: events.wakeups.get(),
            migrations: events.migrations.get(),
            throttled: Duration::ZERO,
        }
    }
}

impl SchedStat {
    /// The last turn that was begun has ended.
    pub(super) fn end_turn(&mut self) {
        self.voluntary_switches = self.turns.saturating_sub(self.forced_switches);
    }
}

impl Accounts {
    pub(super) fn new() -> Box<Accounts> {
        Box::new(Accounts(std::array::from_fn(|_| GroupAccount::default())))
    }

    fn of(&self, group: GroupId) -> &GroupAccount {
        &self.0[group.index()]
    }

    /// A thread begins a turn; how long it was runnable before.
    #[inline]
    pub(super) fn turn_begins(&self, group: GroupId, thread: &Account, now: u64) -> Delay {
        let group = self.of(group);
        let since = thread.since.get();
        let delay = now.saturating_sub(since);
        thread.turns.add(1);
        thread.run_delay.add(delay);
        group.turns.add(1);
        group.run_delay.add(delay);
        Delay { time: delay, after_wait: since & WOKEN != 0 }
    }

    /// A turn has ended that took so long; if it stays runnable, the thread waits from now on.
    #[inline]
    pub(super) fn turn_ended(&self, group: GroupId, thread: &Account, time: u64, now: u64) {
        thread.run_time.add(time);
        thread.queued(now);
        self.of(group).run_time.add(time);
    }

    /// A wait ended here of a thread that may be on its way to another worker.
    #[inline]
    pub(super) fn woken(&self, group: GroupId) {
        self.of(group).wakeups.add(1);
    }

    /// The turn that ended was interrupted.
    pub(super) fn forced(&self, group: GroupId, thread: &Events) {
        thread.forced.add(1);
        self.of(group).forced.add(1);
    }

    /// A thread begins a turn here that last ran elsewhere, or not at all.
    pub(super) fn arrived(&self, group: GroupId, thread: &Account, events: &Events) {
        let account = self.of(group);
        let generation = group::generation(group);
        if account.generation.load(Ordering::Relaxed) != generation {
            account.generation.store(generation, Ordering::Relaxed);
            let counters = [
                &account.run_time,
                &account.run_delay,
                &account.turns,
                &account.forced,
                &account.wakeups,
                &account.migrations,
            ];
            counters.into_iter().for_each(|counter| counter.set(0));
        }
        if thread.turns.get() > 0 {
            events.migrations.add(1);
            account.migrations.add(1);
        }
    }

    /// Adds a group's account here to a sum.
    pub(super) fn add_to(&self, group: GroupId, sum: &mut SchedStat) {
        let account = self.of(group);
        if account.generation.load(Ordering::Relaxed) != group::generation(group) {
            return;
        }
        let (turns, forced) = (account.turns.get(), account.forced.get());
        sum.run_time += Duration::from_nanos(account.run_time.get());
        sum.run_delay += Duration::from_nanos(account.run_delay.get());
        sum.turns += turns;
        sum.forced_switches += forced;
        sum.voluntary_switches += turns.saturating_sub(forced);
        sum.wakeups += account.wakeups.get();
        sum.migrations += account.migrations.get();
    }
}
