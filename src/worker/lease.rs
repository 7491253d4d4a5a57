//! Leases: which group a worker serves, as [`Shares`] decides.
//!
//! As long as there has never been a group but the default one, nobody asks: all workers serve that, and only the
//! end of each slice is noted, for those who have used theirs up. When there are several, a worker asks
//! when its lease is over, when the group has no thread left here, and when another group comes
//! ([`RunQueue::news`]).
//!
//! **Several workers.** A hog alone on its worker has no reason to look around. So whoever finds several
//! groups runnable says so (`contended`), and tells the workers that guard a hog; from then on leases end
//! everywhere, until somebody finds but one.
//!
//! The order of locks is: a worker's queue, then the shares.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::green::GreenRef;
use super::group;
use super::run::Worker;
use super::tape::Tape;
use crate::lock::SpinLock;
use crate::sched::{Choice, Elsewhere, GroupId, Groups, MOST_GROUPS, RunQueue, Shares, Totals};
use crate::time::now;

/// The shares of a runtime's groups.
pub(super) struct Leases {
    shares: SpinLock<Renewed>,
    /// Copies of what the last decision found, for those who only want to know:
    throttled: AtomicU64,
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
            throttled: AtomicU64::new(0),
            contended: AtomicBool::new(false),
        }
    }

    /// Asks the shares, and whether groups were released meanwhile. For workers and threads that are pinned.
    fn ask<R>(&self, tape: &Tape, now: u64, question: impl FnOnce(&mut Shares) -> R) -> (R, bool) {
        self.shares.with(|renewed| {
            let before = renewed.shares.throttled();
            renewed.renew(now, tape);
            let answer = question(&mut renewed.shares);
            let after = renewed.shares.throttled();
            self.throttled.store(after.bits(), Relaxed);
            tape.throttled(after);
            (answer, !before.without(after).is_empty())
        })
    }

    /// Groups that may not run for now.
    pub(super) fn throttled(&self) -> Groups {
        Groups::from_bits(self.throttled.load(Relaxed))
    }

    /// What a group got in this runtime.
    pub(super) fn totals(&self, tape: &Tape, group: GroupId) -> Totals {
        let now = now();
        self.ask(tape, now, |shares| shares.totals(now, group)).0
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
        let ((choice, contended), released) =
            self.runtime().leases().ask(self.tape(), now, |shares| {
                let choice = shares.choose(now, self.index(), here, elsewhere);
                match choice {
                    Choice::Serve(group, _) => self.tape().chosen(self.index(), group, now, shares),
                    Choice::Fetch(_) | Choice::Rest(_) => self.tape().rests(self.index()),
                }
                (choice, shares.is_contended())
            });
        if released {
            self.send_searcher();
        }
        self.note_contention(contended, expired);
        match choice {
            Choice::Serve(group, until) => {
                lease.held.set(true);
                lease.group.set(group);
                lease.until.set(until);
                lease.capped.set(group::look_up(group).0.cap.is_some());
                if lease.capped.get() {
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
        let ((review, contended), released) =
            self.runtime().leases().ask(self.tape(), now, |shares| {
                (shares.review(now, self.index(), queued, elsewhere), shares.is_contended())
            });
        self.note_contention(contended, expired);
        if released {
            self.send_searcher();
        }
        match review {
            Some(until) => {
                lease.until.set(until);
                self.with_queue(|queue| {
                    self.note_served(queue, now);
                    queue.seen();
                });
                false
            }
            None => true,
        }
    }

    /// Tells the queue of the time that has passed.
    fn note_served(&self, queue: &mut RunQueue<GreenRef>, now: u64) {
        let lease = self.lease();
        let served = now.saturating_sub(lease.since.replace(now));
        queue.served(lease.group(), served, self.runtime().slice());
    }

    /// When the present lease ends, if that matters: to others that are queued here or elsewhere, or to a cap.
    pub(super) fn lease_ends(&self, others_queued: bool) -> Option<u64> {
        let leases = self.runtime().leases();
        let matters = others_queued || leases.contended.load(Relaxed) || self.lease().is_capped();
        (group::version() != 0 && matters).then(|| self.lease().until())
    }

    /// Several groups are known to be runnable until a lease has ended after which there is but one.
    fn note_contention(&self, contended: bool, expired: bool) {
        let leases = self.runtime().leases();
        if !contended && !expired || leases.contended.swap(contended, Relaxed) {
            return;
        }
        if contended {
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
        let choose = |shares: &mut Shares| {
            let choice = shares.choose(time, self.index(), Groups::NONE, elsewhere);
            self.tape().rests(self.index());
            choice
        };
        let choice = self.runtime().leases().ask(self.tape(), time, choose).0;
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
            self.runtime().leases().ask(self.tape(), now, |shares| {
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
