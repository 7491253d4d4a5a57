//! Leases: which group a worker serves, as [`Shares`] decides.
//!
//! As long as there has never been a group but the default one, nobody asks: all workers serve that, and only the
//! end of each slice is noted, for those who have used theirs up. When there are several, a worker asks
//! when its lease is over, when the group has no thread left here, and when another group comes
//! ([`RunQueue::news`]).
//!
//! **Several workers.** A hog alone on its worker has no reason to look around. So whoever finds several
//! groups runnable says so (`contended`), and tells the other workers; from then on leases end everywhere, and
//! whoever begins one arms its timer, until somebody finds but one.
//!
//! The order of locks is: a worker's queue, then the shares.

use std::cell::Cell;

use super::green::GreenRef;
use super::group;
use super::run::Worker;
use super::tape::Tape;
use crate::atomic::{AtomicBool, AtomicU64, Ordering, Ordering::Relaxed, fence};
use crate::lock::SpinLock;
use crate::sched::{Choice, Elsewhere, GroupId, Groups, MOST_GROUPS, RunQueue, Shares, Totals};
use crate::time::now;

/// A set of groups that is changed under a lock, posted for those who only want to have a look.
///
/// Nothing is ordered by it. Who is about to sleep looks at it as [`idle`](super::idle) says; and whoever adds a
/// group that may need somebody wakes or sends them afterwards.
pub(super) struct Posted(AtomicU64);

impl Posted {
    pub(super) fn new() -> Posted {
        Posted(AtomicU64::new(0))
    }

    #[inline]
    pub(super) fn get(&self) -> Groups {
        Groups::from_bits(self.0.load(Relaxed))
    }

    #[inline]
    pub(super) fn post(&self, groups: Groups) {
        self.0.store(groups.bits(), Relaxed);
    }
}

/// Notes that several groups are runnable; whether that is news, of which those who guard must be told.
pub(super) fn begins(contended: &AtomicBool) -> bool {
    let is_news = !contended.swap(true, Relaxed);
    if is_news {
        // Whoever begins to guard now either finds it noted, or is found.
        fence(Ordering::SeqCst);
    }
    is_news
}

/// The shares of a runtime's groups.
pub(super) struct Leases {
    shares: SpinLock<Renewed>,
    /// Copies of what the last decision found, for those who only want to know:
    throttled: Posted,
    contended: AtomicBool,
}

struct Renewed {
    shares: Shares,
    /// The version of the policies in it.
    version: u64,
    generations: [u32; MOST_GROUPS],
}

impl Leases {
    pub(super) fn new(workers: usize, slice: u64) -> Leases {
        Leases {
            shares: SpinLock::new(Renewed {
                shares: Shares::new(workers, slice),
                version: 0,
                generations: [0; MOST_GROUPS],
            }),
            throttled: Posted::new(),
            contended: AtomicBool::new(false),
        }
    }

    /// Asks the shares. If groups are found that may run again, `send` is called, which is to send a sleeper to
    /// search: nobody else will find them. For workers and threads that are pinned.
    fn ask<R>(
        &self,
        tape: &Tape,
        now: u64,
        question: impl FnOnce(&mut Shares) -> R,
        send: impl FnOnce(),
    ) -> R {
        let (answer, released) = self.shares.with(|renewed| {
            let before = renewed.shares.throttled();
            renewed.renew(now, tape);
            let answer = question(&mut renewed.shares);
            let after = renewed.shares.throttled();
            self.throttled.post(after);
            tape.throttled(after);
            (answer, !before.without(after).is_empty())
        });
        if released {
            send();
        }
        answer
    }

    /// Groups that may not run for now.
    pub(super) fn throttled(&self) -> Groups {
        self.throttled.get()
    }

    /// What a group got in this runtime. For `send`, see [`Leases::ask`].
    pub(super) fn totals(&self, tape: &Tape, group: GroupId, send: impl FnOnce()) -> Totals {
        let now = now();
        self.ask(tape, now, |shares| shares.totals(now, group), send)
    }
}

impl Renewed {
    /// Takes over what has been said about groups meanwhile.
    fn renew(&mut self, now: u64, tape: &Tape) {
        let version = group::version();
        if version == self.version {
            return;
        }
        self.version = version;
        for index in 0..MOST_GROUPS {
            let id = GroupId::new(index);
            let (policy, generation) = group::look_up(id);
            if std::mem::replace(&mut self.generations[index], generation) != generation {
                self.shares.forget(id);
            }
            self.shares.set_policy(now, id, policy);
            tape.policy(id, policy);
        }
    }
}

/// A worker's lease. Accessed as [`Turns`](super::turn::Turns) is.
pub(super) struct Lease {
    group: Cell<GroupId>,
    /// When it began, or was noted last; and when it ends.
    since: Cell<u64>,
    until: Cell<u64>,
    /// Its end matters even if nobody else waits: the group has a cap.
    capped: Cell<bool>,
    /// Shares know of it.
    held: Cell<bool>,
    /// A group of which threads are to be fetched.
    fetch: Cell<Option<GroupId>>,
    /// Groups that were tried to be fetched in vain; and the next choice is made for that reason.
    bound: Cell<Groups>,
    retries: Cell<bool>,
    /// When the first of those that are throttled may run again.
    release: Cell<Option<u64>>,
}

impl Lease {
    pub(super) fn new() -> Lease {
        Lease {
            group: Cell::new(GroupId::DEFAULT),
            since: Cell::new(0),
            until: Cell::new(0),
            capped: Cell::new(false),
            held: Cell::new(false),
            fetch: Cell::new(None),
            bound: Cell::new(Groups::NONE),
            retries: Cell::new(false),
            release: Cell::new(None),
        }
    }

    /// The group that is served.
    #[inline]
    pub(super) fn group(&self) -> GroupId {
        self.group.get()
    }

    pub(super) fn until(&self) -> u64 {
        self.until.get()
    }

    /// Whether its end matters even if nobody else waits.
    pub(super) fn is_capped(&self) -> bool {
        self.capped.get()
    }

    /// The group of which threads are to be fetched before another choice is made.
    pub(super) fn take_fetch(&self) -> Option<GroupId> {
        self.fetch.take()
    }

    /// It has ended; whether shares knew of it.
    fn end(&self) -> bool {
        self.until.set(0);
        self.held.replace(false)
    }

    /// Threads of a group could not be fetched.
    pub(super) fn note_bound(&self, group: GroupId) {
        self.bound.set(self.bound.get().with(Groups::only(group)));
        self.retries.set(true);
    }

    /// When the first of those that are throttled may run again, as far as that is known.
    pub(super) fn release(&self) -> Option<u64> {
        self.release.get()
    }
}

impl Worker {
    /// Asks the shares.
    fn ask<R>(&self, now: u64, question: impl FnOnce(&mut Shares) -> R) -> R {
        self.runtime().leases().ask(self.tape(), now, question, || self.send_searcher())
    }

    /// The group whose thread is to run next, of those that are queued and of `own`, of which a thread could go on.
    /// None if nothing of that may run, or if threads of another group are to be [fetched](Lease::take_fetch) first.
    #[inline]
    pub(super) fn group_to_serve(
        &self,
        queue: &mut RunQueue<GreenRef>,
        own: Groups,
        now: u64,
    ) -> Option<GroupId> {
        let lease = self.lease();
        let group = lease.group();
        let goes_on = now < lease.until.get()
            && queue.queued().with(own).contains(group)
            && queue.news().without(Groups::only(group)).is_empty();
        if goes_on { Some(group) } else { self.choose_group(queue, own, now) }
    }

    #[cold]
    fn choose_group(
        &self,
        queue: &mut RunQueue<GreenRef>,
        own: Groups,
        now: u64,
    ) -> Option<GroupId> {
        let lease = self.lease();
        let expired = now >= lease.until.get();
        self.note_served(queue, now);
        queue.seen();
        let here = queue.queued().with(own);
        if here.is_empty() {
            // The time in which the worker looks for work is nobody's.
            self.end_lease(now);
            return None;
        }
        if group::version() == 0 {
            lease.until.set(now + self.runtime().slice());
            return Some(GroupId::DEFAULT);
        }
        if expired && !lease.retries.take() {
            lease.bound.set(Groups::NONE);
        }
        let elsewhere = self.elsewhere();
        let (choice, contended) = self.ask(now, |shares| {
            let choice = shares.choose(now, self.index(), here, elsewhere);
            match choice {
                Choice::Serve(group, _) => self.tape().chosen(self.index(), group, now, shares),
                Choice::Fetch(_) | Choice::Rest(_) => self.tape().rests(self.index()),
            }
            (choice, shares.is_contended())
        });
        self.note_contention(contended, expired);
        match choice {
            Choice::Serve(group, until) => {
                lease.held.set(true);
                lease.group.set(group);
                lease.until.set(until);
                lease.capped.set(group::look_up(group).0.cap.is_some());
                if self.lease_matters() {
                    self.ensure_tick();
                }
                Some(group)
            }
            Choice::Fetch(group) => {
                // Other workers' queues are not to be locked under this one's lock.
                lease.end();
                lease.fetch.set(Some(group));
                None
            }
            Choice::Rest(release) => {
                lease.end();
                lease.release.set(release);
                None
            }
        }
    }

    /// Whether the worker is to choose anew although the present thread could go on; if not, the lease
    /// may have become longer. It may end sooner by `slack`.
    pub(super) fn lease_is_over(&self, now: u64, slack: u64) -> bool {
        let lease = self.lease();
        let (queued, news) = self.with_queue(|queue| (queue.queued(), queue.news()));
        let others = !news.without(Groups::only(lease.group())).is_empty();
        let expired = now + slack >= lease.until.get();
        if group::version() == 0 || !expired && !others {
            return false;
        }
        let elsewhere = self.elsewhere();
        let (review, contended) = self.ask(now, |shares| {
            (shares.review(now, self.index(), queued, elsewhere), shares.is_contended())
        });
        self.note_contention(contended, expired);
        match review {
            Some(until) => {
                lease.until.set(until);
                lease.capped.set(group::look_up(lease.group()).0.cap.is_some());
                self.with_queue(|queue| {
                    self.note_served(queue, now);
                    queue.seen();
                });
                false
            }
            None => {
                // It may have ended a little early.
                lease.until.set(now);
                true
            }
        }
    }

    /// Tells the queue of the time that has passed.
    fn note_served(&self, queue: &mut RunQueue<GreenRef>, now: u64) {
        let lease = self.lease();
        let served = now.saturating_sub(lease.since.replace(now));
        queue.served(lease.group(), served, self.runtime().slice());
    }

    /// Whether the end of the present lease matters even if nobody is queued here: to others elsewhere, or to a cap.
    pub(super) fn lease_matters(&self) -> bool {
        self.runtime().leases().contended.load(Relaxed) || self.lease().is_capped()
    }

    /// When the present lease ends, if that matters.
    pub(super) fn lease_ends(&self, others_queued: bool) -> Option<u64> {
        let matters = others_queued || self.lease_matters();
        (group::version() != 0 && matters).then(|| self.lease().until())
    }

    /// Several groups are known to be runnable until a lease has ended after which there is but one.
    fn note_contention(&self, contended: bool, expired: bool) {
        let noted = &self.runtime().leases().contended;
        if !contended {
            if expired {
                noted.store(false, Relaxed);
            }
        } else if begins(noted) {
            let others = self.runtime().workers().iter().filter(|w| w.index() != self.index());
            others.for_each(Worker::nudge);
        }
    }

    /// For a worker that found nothing here: the group of which it should take threads from others.
    pub(super) fn group_to_fetch(&self) -> Option<GroupId> {
        let elsewhere = self.elsewhere();
        if group::version() == 0 || elsewhere.queued.is_empty() {
            return elsewhere.queued.iter().next();
        }
        let time = now();
        // Whoever has nothing to do tries again.
        let elsewhere = Elsewhere { bound: Groups::NONE, ..elsewhere };
        let choice = self.ask(time, |shares| {
            let choice = shares.choose(time, self.index(), Groups::NONE, elsewhere);
            self.tape().rests(self.index());
            choice
        });
        // The lease has ended: what is fetched must not be served under it, uncounted.
        self.lease().end();
        match choice {
            Choice::Fetch(group) => Some(group),
            Choice::Serve(..) | Choice::Rest(_) => None,
        }
    }

    /// The worker has nothing to run: it serves nobody.
    pub(super) fn end_lease(&self, now: u64) {
        if self.lease().end() {
            self.ask(now, |shares| {
                shares.give_up(now, self.index());
                self.tape().rests(self.index());
            });
        }
    }

    /// What waits at other workers.
    fn elsewhere(&self) -> Elsewhere {
        let others = self.runtime().workers().iter().filter(|w| w.index() != self.index());
        let start = Elsewhere { bound: self.lease().bound.get(), ..Elsewhere::default() };
        others.fold(start, |all, worker| Elsewhere {
            queued: all.queued.with(worker.queued()),
            stranded: all.stranded.with(worker.stranded()),
            ..all
        })
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sched::{Cap, Policy};
    use crate::worker::idle::{Idle, Sleeper};
    use loom::sync::Arc;

    const PERIOD: u64 = 1_000_000;

    /// A worker that is about to sleep, and a thread of a group that is queued at another one.
    struct World {
        idle: Idle,
        sleeper: Sleeper,
        queued: Posted,
        leases: Leases,
        /// Stands for the eventfd.
        woken: AtomicBool,
    }

    fn capped() -> GroupId {
        GroupId::new(1)
    }

    fn world() -> Arc<World> {
        Arc::new(World {
            idle: Idle::new(),
            sleeper: Sleeper::new(),
            queued: Posted::new(),
            leases: Leases::new(1, PERIOD),
            woken: AtomicBool::new(false),
        })
    }

    impl World {
        fn send(&self) {
            if self.idle.send_searcher([(0, &self.sleeper)].into_iter()).is_some() {
                self.woken.store(true, Relaxed);
            }
        }

        fn choose(&self, now: u64) -> Choice {
            let here = Groups::only(capped());
            let choose = |shares: &mut Shares| shares.choose(now, 0, here, Elsewhere::default());
            self.leases.ask(&Tape, now, choose, || self.send())
        }

        /// The group has used up its quota.
        fn throttle(&self) {
            let cap = Some(Cap { quota: 1000, period: PERIOD });
            let policy = Policy { cap, ..Policy::DEFAULT };
            self.leases.ask(&Tape, 1, |shares| shares.set_policy(1, capped(), policy), || ());
            assert!(matches!(self.choose(PERIOD + 1), Choice::Serve(..)));
            assert!(matches!(self.choose(PERIOD + 2000), Choice::Rest(_)));
            assert!(self.leases.throttled().contains(capped()));
        }

        fn has_work(&self) -> bool {
            !self.queued.get().without(self.leases.throttled()).is_empty()
        }

        /// As `Worker::sleep`.
        fn sleeps(&self) -> bool {
            self.idle.announce(&self.sleeper);
            !self.has_work()
        }
    }

    fn is_not_slept_through(prepare: fn(&World), happens: fn(&World)) {
        loom::model(move || {
            let w = world();
            prepare(&w);
            let other = w.clone();
            let thread = loom::thread::spawn(move || happens(&other));
            let sleeps = w.sleeps();
            thread.join().unwrap();
            let lost = sleeps && w.has_work() && !w.woken.load(Relaxed);
            assert!(!lost, "asleep beside a thread that may run");
        });
    }

    #[test]
    fn a_group_that_is_queued_elsewhere_is_seen_or_sends_the_sleeper() {
        is_not_slept_through(
            |_| (),
            |w| {
                w.queued.post(Groups::only(capped()));
                w.send();
            },
        );
    }

    #[test]
    fn a_group_that_is_released_is_seen_or_sends_the_sleeper() {
        is_not_slept_through(
            |w| {
                w.queued.post(Groups::only(capped()));
                w.throttle();
            },
            |w| assert!(matches!(w.choose(3 * PERIOD), Choice::Serve(..))),
        );
    }

    /// Who asks for numbers finds first that the cap is gone.
    #[test]
    fn a_group_whose_release_is_found_by_the_way_sends_the_sleeper() {
        is_not_slept_through(
            |w| {
                w.queued.post(Groups::only(capped()));
                w.throttle();
            },
            |w| {
                let now = PERIOD + 3000;
                let lift = |shares: &mut Shares| shares.set_policy(now, capped(), Policy::DEFAULT);
                w.leases.ask(&Tape, now, lift, || w.send());
                assert!(matches!(w.choose(3 * PERIOD), Choice::Serve(..)));
            },
        );
    }
}
