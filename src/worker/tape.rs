//! A recording of everything that the scheduler does, for tests: the real runtime keeps the promises that the
//! simulation is checked for, by the same checker.
//!
//! It exists in the crate's own tests only; elsewhere nothing is recorded, nor is there anything that
//! could be switched on. Events have one order for all workers, that of a lock. It agrees with the
//! order in which they take effect, since whatever concerns a queue is recorded under that queue's lock, and
//! the rest by the thread's owner before it gives the thread out of its hands.

#[cfg(all(test, not(loom)))]
pub(crate) use recording::Tape;
#[cfg(not(all(test, not(loom))))]
pub(crate) use silent::Tape;

#[cfg(all(test, not(loom)))]
mod recording {
    use crate::lock::SpinLock;
    use crate::sched::trace::{Event, What, Why};
    use crate::sched::{GroupId, Groups, MOST_GROUPS, Policy, Shares};
    use crate::time::now;
    use crate::worker::green::GreenRef;
    use crate::worker::state::State;

    /// The events of a runtime.
    pub(crate) struct Tape(SpinLock<Recorded>);

    struct Recorded {
        events: Vec<Event>,
        /// The longest time from a decision to its recording.
        skew: u64,
        // What was said last:
        throttled: Groups,
        policies: [Policy; MOST_GROUPS],
    }

    impl Recorded {
        fn note(&mut self, what: What) {
            // Workers do not allocate here.
            if self.events.len() < self.events.capacity() {
                self.events.push(Event { at: now(), what });
            }
        }
    }

    impl Tape {
        /// Room for so many; what comes later is not recorded.
        pub(in crate::worker) fn new(capacity: usize) -> Tape {
            Tape(SpinLock::new(Recorded {
                events: Vec::with_capacity(capacity),
                skew: 0,
                throttled: Groups::NONE,
                policies: [Policy::DEFAULT; MOST_GROUPS],
            }))
        }

        /// Takes what was recorded, and the longest time from a decision to its recording; nothing if there was no room
        /// for everything.
        pub(crate) fn take(&self) -> Option<(Vec<Event>, u64)> {
            let taken =
                |recorded: &mut Recorded| (std::mem::take(&mut recorded.events), recorded.skew);
            let (events, skew) = self.0.with(taken);
            (events.len() < events.capacity()).then_some((events, skew))
        }

        fn note(&self, what: What) {
            self.0.with(|recorded| recorded.note(what));
        }

        pub(in crate::worker) fn started(&self, worker: usize) {
            self.note(What::Start { worker });
        }

        /// A thread is queued, which was in that state before.
        pub(in crate::worker) fn queued(&self, worker: usize, thread: GreenRef, before: State) {
            let (group, movable) = (thread.group(), thread.has_block());
            let thread = thread.number() as usize;
            self.note(match before {
                State::New => What::Spawn { worker, thread, group, movable },
                State::Queued => What::Put { worker, thread },
                State::Running => What::SwitchOut { worker, thread, why: Why::Yielded },
                _ => What::Wake { worker, thread },
            });
        }

        pub(in crate::worker) fn interrupted(
            &self,
            worker: usize,
            thread: GreenRef,
            used_up: bool,
        ) {
            let why = if used_up { Why::UsedUp } else { Why::Interrupted };
            self.note(What::SwitchOut { worker, thread: thread.number() as usize, why });
        }

        /// A thread is taken out of the queue to run.
        pub(in crate::worker) fn next(&self, worker: usize, thread: GreenRef) {
            self.note(What::Take { worker, thread: thread.number() as usize, moves: false });
        }

        /// A thread is taken out of the queue to be queued elsewhere.
        pub(in crate::worker) fn moves(&self, worker: usize, thread: GreenRef) {
            self.note(What::Take { worker, thread: thread.number() as usize, moves: true });
        }

        /// A thread is taken out of the queue to go on on a helper.
        pub(in crate::worker) fn relieves(&self, worker: usize, thread: GreenRef) {
            self.note(What::Relieve { worker, thread: thread.number() as usize });
        }

        pub(in crate::worker) fn begins(&self, worker: usize, thread: GreenRef) {
            self.note(What::SwitchIn { worker, thread: thread.number() as usize });
        }

        pub(in crate::worker) fn waits(&self, worker: usize, thread: GreenRef) {
            self.note(What::SwitchOut {
                worker,
                thread: thread.number() as usize,
                why: Why::Blocked,
            });
        }

        pub(in crate::worker) fn ended(&self, worker: usize, thread: GreenRef) {
            self.note(What::SwitchOut {
                worker,
                thread: thread.number() as usize,
                why: Why::Ended,
            });
        }

        /// A thread that ran on that worker goes to a helper, or one that was taken out of a queue.
        pub(in crate::worker) fn helped(&self, thread: GreenRef, before: State) {
            match (before, thread.get().worker()) {
                (State::Running, Some(worker)) => self.waits(worker.index(), thread),
                _ => self.note(What::Lend { thread: thread.number() as usize }),
            }
        }

        pub(in crate::worker) fn policy(&self, group: GroupId, policy: Policy) {
            self.0.with(|recorded| {
                let said = &mut recorded.policies[group.index()];
                if std::mem::replace(said, policy) != policy {
                    recorded.note(What::Weight { group, policy });
                }
            });
        }

        /// These groups are throttled, and no others.
        pub(in crate::worker) fn throttled(&self, groups: Groups) {
            self.0.with(|recorded| {
                let before = std::mem::replace(&mut recorded.throttled, groups);
                let new = groups.without(before).iter();
                new.for_each(|group| recorded.note(What::Throttled { group }));
                let old = before.without(groups).iter();
                old.for_each(|group| recorded.note(What::Released { group }));
            });
        }

        /// The worker serves no group.
        pub(in crate::worker) fn rests(&self, worker: usize) {
            self.note(What::Rest { worker });
        }

        /// It was decided then that the worker serves the group from now on.
        pub(in crate::worker) fn chosen(
            &self,
            worker: usize,
            group: GroupId,
            at: u64,
            shares: &Shares,
        ) {
            self.0.with(|recorded| recorded.skew = recorded.skew.max(now().saturating_sub(at)));
            self.throttled(shares.throttled());
            let virtual_time = shares.virtual_time(group);
            self.note(What::Choose { worker, group, virtual_time });
        }
    }
}

#[cfg(not(all(test, not(loom))))]
mod silent {
    use crate::sched::{GroupId, Groups, Policy, Shares};
    use crate::worker::green::GreenRef;
    use crate::worker::state::State;

    /// Records nothing.
    pub(crate) struct Tape;

    #[rustfmt::skip]
    impl Tape {
        pub(in crate::worker) fn started(&self, _worker: usize) {}
        pub(in crate::worker) fn queued(&self, _worker: usize, _thread: GreenRef, _before: State) {}
        pub(in crate::worker) fn interrupted(&self, _worker: usize, _thread: GreenRef, _used_up: bool) {}
        pub(in crate::worker) fn next(&self, _worker: usize, _thread: GreenRef) {}
        pub(in crate::worker) fn moves(&self, _worker: usize, _thread: GreenRef) {}
        pub(in crate::worker) fn relieves(&self, _worker: usize, _thread: GreenRef) {}
        pub(in crate::worker) fn begins(&self, _worker: usize, _thread: GreenRef) {}
        pub(in crate::worker) fn waits(&self, _worker: usize, _thread: GreenRef) {}
        pub(in crate::worker) fn ended(&self, _worker: usize, _thread: GreenRef) {}
        pub(in crate::worker) fn helped(&self, _thread: GreenRef, _before: State) {}
        pub(in crate::worker) fn policy(&self, _group: GroupId, _policy: Policy) {}
        pub(in crate::worker) fn throttled(&self, _groups: Groups) {}
        pub(in crate::worker) fn rests(&self, _worker: usize) {}
        pub(in crate::worker) fn chosen(&self, _worker: usize, _group: GroupId, _at: u64, _shares: &Shares) {}
    }
}
