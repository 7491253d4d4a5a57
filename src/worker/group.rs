//! The process's groups, as workers see them: who exists, and what is said about each.
//!
//! A static table, since workers may neither allocate nor wait for a lock of the program's: of each group
//! its policy in atomic words, and a count of references (handles and threads). Each runtime's scheduler has
//! a copy of the policies, which it renews when the table's version has changed. A place whose count is
//! zero is free; the next occupant is told from the last one by its generation.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sched::{Cap, GroupId, MOST_GROUPS, Policy};

struct Place {
    /// Handles and threads of the group.
    references: AtomicUsize,
    generation: AtomicU32,
    weight: AtomicU32,
    /// Nanoseconds.
    latency: AtomicU64,
    /// Microseconds: the quota in the upper half, the period in the lower. No cap if 0.
    cap: AtomicU64,
    name: Mutex<String>,
}

macro_rules! free_place {
    () => {
        Place {
            references: AtomicUsize::new(0),
            generation: AtomicU32::new(0),
            weight: AtomicU32::new(Policy::DEFAULT.weight),
            latency: AtomicU64::new(0),
            cap: AtomicU64::new(0),
            name: Mutex::new(String::new()),
        }
    };
}

impl Place {
    /// A free one.
    #[cfg(loom)] // Whose atomics are not constant.
    fn new() -> Place {
        free_place!()
    }

    /// A free one.
    #[cfg(not(loom))]
    const fn new() -> Place {
        free_place!()
    }

    /// Takes it for a new group, if it is free: the caller has a reference.
    #[must_use = "a place that is taken must be left"]
    fn take(&self) -> bool {
        let free =
            self.references.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if free {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
        free
    }

    /// Another reference beside one that stays meanwhile.
    fn refer(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// A reference to a group that may be gone at any time; whether there is one.
    #[must_use = "a place that is referred to must be left"]
    fn refer_if_taken(&self) -> bool {
        let refer = |n| if n == 0 { None } else { Some(n + 1) };
        // Acquire: what was said about the group when it was made is seen.
        self.references.fetch_update(Ordering::Acquire, Ordering::Relaxed, refer).is_ok()
    }

    /// A reference goes.
    fn leave(&self) {
        // Release: whoever takes the place next comes after all uses of it. Its policy stays until then.
        self.references.fetch_sub(1, Ordering::Release);
    }

    fn set_weight(&self, weight: u32, version: &AtomicU64) {
        self.weight.store(weight, Ordering::Relaxed);
        version.fetch_add(1, Ordering::Release);
    }

    fn set_cap(&self, cap: Option<Cap>, version: &AtomicU64) {
        let part = |ns: u64| (ns / 1000).clamp(1, u64::from(u32::MAX));
        let word = cap.map_or(0, |cap| part(cap.quota) << 32 | part(cap.period));
        self.cap.store(word, Ordering::Relaxed);
        version.fetch_add(1, Ordering::Release);
    }

    fn set_policy(&self, policy: Policy, version: &AtomicU64) {
        self.latency.store(policy.latency, Ordering::Relaxed);
        self.set_cap(policy.cap, version);
        self.set_weight(policy.weight, version);
    }

    /// What is said about its group, and its generation. Parts of it may be newer than the version that was read
    /// before.
    fn look_up(&self) -> (Policy, u32) {
        let cap = self.cap.load(Ordering::Relaxed);
        let cap = (cap != 0).then_some(Cap {
            quota: (cap >> 32) * 1000,
            period: (cap & u64::from(u32::MAX)) * 1000,
        });
        let policy = Policy {
            weight: self.weight.load(Ordering::Relaxed),
            latency: self.latency.load(Ordering::Relaxed),
            cap,
        };
        (policy, self.generation.load(Ordering::Relaxed))
    }
}

#[cfg(not(loom))]
static TABLE: [Place; MOST_GROUPS] = [const { Place::new() }; MOST_GROUPS];

/// Changed after each change of a policy. 0 as long as there has been but the default group, with its default policy.
#[cfg(not(loom))]
static VERSION: AtomicU64 = AtomicU64::new(0);

#[cfg(loom)]
loom::lazy_static! {
    static ref TABLE: [Place; MOST_GROUPS] = std::array::from_fn(|_| Place::new());
    static ref VERSION: AtomicU64 = AtomicU64::new(0);
}

/// See [`VERSION`].
#[inline]
pub(super) fn version() -> u64 {
    // Pairs with the releases in `Place`: policies are at least as new.
    VERSION.load(Ordering::Acquire)
}

/// The name of the group in that place, or of the one that was there last.
pub(crate) fn name_of(id: GroupId) -> String {
    if id == GroupId::DEFAULT {
        return "default".to_owned();
    }
    TABLE[id.index()].name.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What is said about a group, and its generation.
pub(super) fn look_up(id: GroupId) -> (Policy, u32) {
    TABLE[id.index()].look_up()
}

/// The generation of a group that exists.
pub(super) fn generation(id: GroupId) -> u32 {
    TABLE[id.index()].generation.load(Ordering::Relaxed)
}

fn lock(name: &Mutex<String>) -> MutexGuard<'_, String> {
    name.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A counted reference to a group, which keeps its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member(GroupId);

impl Member {
    /// A new group.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub(crate) fn create(name: String, policy: Policy) -> io::Result<Member> {
        let mut name = Some(name);
        let free = (1..MOST_GROUPS).find(|index| {
            let place = &TABLE[*index];
            // Locked until it has its name, for the sake of who lists groups meanwhile.
            let mut own = lock(&place.name);
            let free = place.take();
            if free {
                *own = name.take().expect("one place is taken");
            }
            free
        });
        let index = free.ok_or_else(|| {
            io::Error::other(format!(
                "there are {MOST_GROUPS} groups already; one whose handles are dropped and whose threads have ended makes room"
            ))
        })?;
        let member = Member(GroupId::new(index));
        member.set_policy(policy);
        Ok(member)
    }

    /// Another reference to a group that the caller, or a thread that it knows to be alive, refers to.
    pub(crate) fn of(id: GroupId) -> Member {
        if id != GroupId::DEFAULT {
            TABLE[id.index()].refer();
        }
        Member(id)
    }

    /// References to all groups that exist, the default one first.
    pub(crate) fn all() -> impl Iterator<Item = Member> {
        let others = (1..MOST_GROUPS).filter(|index| TABLE[*index].refer_if_taken());
        std::iter::once(GroupId::DEFAULT).chain(others.map(GroupId::new)).map(Member)
    }

    #[inline]
    pub(crate) fn id(&self) -> GroupId {
        self.0
    }

    pub(crate) fn policy(&self) -> Policy {
        look_up(self.0).0
    }

    /// Says something about it, for all runtimes, from their next decision on.
    fn set_policy(&self, policy: Policy) {
        TABLE[self.0.index()].set_policy(policy, &VERSION);
    }

    /// As [`Member::set_policy`].
    pub(crate) fn set_weight(&self, weight: u32) {
        TABLE[self.0.index()].set_weight(weight, &VERSION);
    }

    /// As [`Member::set_policy`].
    pub(crate) fn set_cap(&self, cap: Option<Cap>) {
        TABLE[self.0.index()].set_cap(cap, &VERSION);
    }
}

impl Drop for Member {
    #[inline]
    fn drop(&mut self) {
        if self.0 != GroupId::DEFAULT {
            TABLE[self.0.index()].leave();
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomic::UnsafeCell;
    use loom::sync::Arc;

    struct World {
        place: Place,
        version: AtomicU64,
        /// Stands for what is done by threads of the place's group, and to what is kept by place.
        uses: UnsafeCell<u32>,
    }

    // SAFETY: loom checks the accesses.
    unsafe impl Sync for World {}
    // SAFETY: as above.
    unsafe impl Send for World {}

    impl World {
        fn use_it(&self) {
            // SAFETY: loom checks.
            self.uses.with_mut(|n| unsafe { *n += 1 });
        }
    }

    fn world() -> Arc<World> {
        Arc::new(World {
            place: Place::new(),
            version: AtomicU64::new(0),
            uses: UnsafeCell::new(0),
        })
    }

    #[test]
    fn who_takes_a_place_comes_after_all_uses_by_the_last_group() {
        loom::model(|| {
            let w = world();
            assert!(w.place.take());
            w.place.refer();
            let (member, next) = (w.clone(), w.clone());
            w.use_it();
            w.place.leave();
            let member = loom::thread::spawn(move || {
                // A second thread of the group, which was queued here after the use above.
                member.place.refer();
                member.place.leave();
                member.use_it();
                member.place.leave();
            });
            let next = loom::thread::spawn(move || {
                let taken = next.place.take();
                if taken {
                    next.use_it();
                }
                taken
            });
            let taken = w.place.take();
            if taken {
                w.use_it();
            }
            member.join().unwrap();
            assert!(!(taken && next.join().unwrap()), "a place for two groups");
        });
    }

    #[test]
    fn who_lists_groups_keeps_a_place_or_finds_it_free() {
        loom::model(|| {
            let w = world();
            assert!(w.place.take());
            w.use_it();
            let (lister, next) = (w.clone(), w.clone());
            let lister = loom::thread::spawn(move || {
                let found = lister.place.refer_if_taken();
                if found {
                    lister.place.leave();
                }
                found
            });
            let next = loom::thread::spawn(move || {
                let taken = next.place.take();
                if taken {
                    next.use_it();
                    next.place.leave();
                }
            });
            w.place.leave();
            lister.join().unwrap();
            next.join().unwrap();
            assert!(w.place.take(), "a place is lost");
        });
    }

    /// As `Renewed::renew`.
    struct Copy {
        version: u64,
        seen: (Policy, u32),
    }

    impl Copy {
        fn renew(&mut self, w: &World) {
            let version = w.version.load(Ordering::Acquire);
            if version != self.version {
                *self = Copy { version, seen: w.place.look_up() };
            }
        }
    }

    #[test]
    fn whoever_knows_of_a_group_finds_its_policy_and_copies_are_renewed() {
        loom::model(|| {
            let w = world();
            let maker = w.clone();
            let policy = Policy { weight: 7, latency: 5, cap: None };
            // Stands for the queue through which a thread of the new group comes.
            let thread_of_it = Arc::new(AtomicU32::new(0));
            let queue = thread_of_it.clone();
            let thread = loom::thread::spawn(move || {
                assert!(maker.place.take());
                maker.place.set_policy(policy, &maker.version);
                queue.store(1, Ordering::Release);
            });
            let mut copy = Copy { version: 0, seen: w.place.look_up() };
            copy.renew(&w);
            if thread_of_it.load(Ordering::Acquire) == 1 {
                copy.renew(&w);
                assert_eq!(copy.seen, (policy, 1), "it is served as the last group was");
            }
            thread.join().unwrap();
            copy.renew(&w);
            assert_eq!(copy.seen, (policy, 1), "a copy stays old");
        });
    }
}
