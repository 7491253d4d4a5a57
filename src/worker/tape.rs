//! A recording of everything that the scheduler does, for tests: the real runtime keeps the promises that the
//! simulation is checked for, by the same checker.
//!
//! It exists in the crate's own tests only; elsewhere nothing is recorded, nor is there anything that
//! could be switched on. Events have one order for all workers, that of a lock. It agrees with the
//! order in which they take effect, since whatever concerns a queue is recorded under that queue's lock, and
//! the rest by the thread's owner before it gives the thread out of its hands.

#[cfg(all(test, not(loom)))]
pub(crate) use recording::{Recording, Tape};
#[cfg(not(all(test, not(loom))))]
pub(crate) use silent::Tape;

#[cfg(all(test, not(loom)))]
mod recording {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use crate::lock::SpinLock;
    use crate::sched::trace::{Event, What, Why};
    use crate::sched::{GroupId, Groups, MOST_GROUPS, Policy, Shares};
    use crate::time::now;
    use crate::worker::green::GreenRef;
    use crate::worker::state::State;

    /// The events of a runtime.
    pub(crate) struct Tape {
        recorded: SpinLock<Recorded>,
        workers: Box<[Processor]>,
    }

    /// What was recorded.
    pub(crate) struct Recording {
        pub(crate) events: Vec<Event>,
        /// The longest time from a decision to its recording.
        pub(crate) skew: u64,
        /// The longest time for which a worker had to wait for processors from the beginning of a turn to that of the
        /// next one.
        pub(crate) delay: u64,
    }

    /// How long a worker's OS thread waits for processors, as the kernel says.
    #[derive(Default)]
    struct Processor {
        /// `schedstat` in its directory under `/proc`, if the kernel keeps it.
        statistics: OnceLock<File>,
        /// In all, up to the beginning of the present turn.
        before: AtomicU64,
        /// The longest time since the beginning of a turn.
        longest: AtomicU64,
    }

    impl Processor {
        /// To be called by the worker's OS thread before it runs anybody.
        fn begins(&self) {
            if let Ok(file) = File::open("/proc/thread-self/schedstat") {
                let _ = self.statistics.set(file);
                self.before.store(self.look().unwrap_or(0), Relaxed);
            }
        }

        /// To be called by the worker's OS thread at each event.
        fn note(&self, turn_begins: bool) {
            let Some(waited) = self.look() else { return };
            self.longest.fetch_max(waited - self.before.load(Relaxed), Relaxed);
            if turn_begins {
                self.before.store(waited, Relaxed);
            }
        }

        fn look(&self) -> Option<u64> {
            let file = self.statistics.get()?.as_raw_fd();
            let mut text = [0_u8; 64];
            let (to, room) = (text.as_mut_ptr(), text.len());
            // The C library's function may be the crate's own, which is for green threads.
            // SAFETY: the buffer is as long as said. Nothing else is touched, but for `errno` if it fails.
            let read = unsafe { libc::syscall(libc::SYS_pread64, file, to, room, 0) };
            let text = text.get(..usize::try_from(read).ok()?)?;
            // Time on processors, time of waiting for them, and how often it got one.
            str::from_utf8(text).ok()?.split(' ').nth(1)?.parse().ok()
        }
    }

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
        /// Room for so many events; what comes later is not recorded.
        pub(in crate::worker) fn new(capacity: usize, workers: usize) -> Tape {
            let recorded = SpinLock::new(Recorded {
                events: Vec::with_capacity(capacity),
                skew: 0,
                throttled: Groups::NONE,
                policies: [Policy::DEFAULT; MOST_GROUPS],
            });
            // Runtimes of other tests are spared the time.
            let workers = if capacity > 0 { workers } else { 0 };
            Tape { recorded, workers: (0..workers).map(|_| Processor::default()).collect() }
        }

        /// Takes what was recorded; nothing if there was no room for everything.
        pub(crate) fn take(&self) -> Option<Recording> {
            let taken =
                |recorded: &mut Recorded| (std::mem::take(&mut recorded.events), recorded.skew);
            let (events, skew) = self.recorded.with(taken);
            let delays = self.workers.iter().map(|w| w.longest.load(Relaxed));
            let delay = delays.max().unwrap_or(0);
            (events.len() < events.capacity()).then_some(Recording { events, skew, delay })
        }

        fn note(&self, what: What) {
            self.recorded.with(|recorded| recorded.note(what));
        }

        /// An event that is noted by the worker's OS thread itself.
        fn note_own(&self, worker: usize, what: What) {
            if let Some(processor) = self.workers.get(worker) {
                processor.note(matches!(what, What::SwitchIn { .. }));
            }
            self.note(what);
        }

        pub(in crate::worker) fn started(&self, worker: usize) {
            if let Some(processor) = self.workers.get(worker) {
                processor.begins();
            }
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
            self.note_own(
                worker,
                What::SwitchOut { worker, thread: thread.number() as usize, why },
            );
        }

        /// A thread is taken out of the queue to run.
        pub(in crate::worker) fn next(&self, worker: usize, thread: GreenRef) {
            let thread = thread.number() as usize;
            self.note_own(worker, What::Take { worker, thread, moves: false });
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
            self.note_own(worker, What::SwitchIn { worker, thread: thread.number() as usize });
        }

        pub(in crate::worker) fn waits(&self, worker: usize, thread: GreenRef) {
            let thread = thread.number() as usize;
            self.note_own(worker, What::SwitchOut { worker, thread, why: Why::Blocked });
        }

        pub(in crate::worker) fn ended(&self, worker: usize, thread: GreenRef) {
            let thread = thread.number() as usize;
            self.note_own(worker, What::SwitchOut { worker, thread, why: Why::Ended });
        }

        /// A thread that ran on that worker goes to a helper, or one that was taken out of a queue.
        pub(in crate::worker) fn helped(&self, thread: GreenRef, before: State) {
            match (before, thread.get().worker()) {
                (State::Running, Some(worker)) => self.waits(worker.index(), thread),
                _ => self.note(What::Lend { thread: thread.number() as usize }),
            }
        }

        pub(in crate::worker) fn policy(&self, group: GroupId, policy: Policy) {
            self.recorded.with(|recorded| {
                let said = &mut recorded.policies[group.index()];
                if std::mem::replace(said, policy) != policy {
                    recorded.note(What::Weight { group, policy });
                }
            });
        }

        /// These groups are throttled, and no others.
        pub(in crate::worker) fn throttled(&self, groups: Groups) {
            self.recorded.with(|recorded| {
                let before = std::mem::replace(&mut recorded.throttled, groups);
                let new = groups.without(before).iter();
                new.for_each(|group| recorded.note(What::Throttled { group }));
                let old = before.without(groups).iter();
                old.for_each(|group| recorded.note(What::Released { group }));
            });
        }

        /// The worker serves no group.
        pub(in crate::worker) fn rests(&self, worker: usize) {
            self.note_own(worker, What::Rest { worker });
        }

        /// It was decided then that the worker serves the group from now on.
        pub(in crate::worker) fn chosen(
            &self,
            worker: usize,
            group: GroupId,
            at: u64,
            shares: &Shares,
        ) {
            let skew = now().saturating_sub(at);
            self.recorded.with(|recorded| recorded.skew = recorded.skew.max(skew));
            self.throttled(shares.throttled());
            let virtual_time = shares.virtual_time(group);
            self.note_own(worker, What::Choose { worker, group, virtual_time });
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
