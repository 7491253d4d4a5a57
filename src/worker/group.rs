//! The process's groups, as workers see them: who exists, and what is said about each.
//!
//! A static table, since workers may neither allocate nor wait for a lock of the program's: of each group
//! its policy in atomic words, and a count of references (handles and threads). Each runtime's scheduler has
//! a copy of the policies, which it renews when the table's version has changed. A place whose count is
//! zero is free; the next occupant is told from the last one by its generation.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

static TABLE: [Place; MOST_GROUPS] = [const {
    Place {
        references: AtomicUsize::new(0),
        generation: AtomicU32::new(0),
        weight: AtomicU32::new(Policy::DEFAULT.weight),
        latency: AtomicU64::new(0),
        cap: AtomicU64::new(0),
        name: Mutex::new(String::new()),
    }
}; MOST_GROUPS];

/// Changed after each change of a policy. 0 as long as there has been but the default group, with its default policy.
static VERSION: AtomicU64 = AtomicU64::new(0);

/// See [`VERSION`].
#[inline]
pub(super) fn version() -> u64 {
    // Pairs with the release in `set_weight`: policies are at least as new.
    VERSION.load(Ordering::Acquire)
}

/// What is said about a group, and its generation.
pub(super) fn look_up(id: GroupId) -> (Policy, u32) {
    let place = &TABLE[id.index()];
    let cap = place.cap.load(Ordering::Relaxed);
    let cap = (cap != 0)
        .then_some(Cap { quota: (cap >> 32) * 1000, period: (cap & u64::from(u32::MAX)) * 1000 });
    let policy = Policy {
        weight: place.weight.load(Ordering::Relaxed),
        latency: place.latency.load(Ordering::Relaxed),
        cap,
    };
    (policy, place.generation.load(Ordering::Relaxed))
}

/// The generation of a group that exists.
pub(super) fn generation(id: GroupId) -> u32 {
    TABLE[id.index()].generation.load(Ordering::Relaxed)
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
        let free = TABLE.iter().enumerate().skip(1).find(|(_, place)| {
            let claim =
                place.references.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            claim.is_ok()
        });
        let (index, place) = free.ok_or_else(|| {
            io::Error::other(format!(
                "there are {MOST_GROUPS} groups already; one whose handles are dropped and whose threads have ended makes room"
            ))
        })?;
        place.generation.fetch_add(1, Ordering::Relaxed);
        let member = Member(GroupId::new(index));
        *member.name() = name;
        member.set_policy(policy);
        Ok(member)
    }

    /// Another reference to a group that the caller, or a thread that it knows to be alive, refers to.
    pub(crate) fn of(id: GroupId) -> Member {
        if id != GroupId::DEFAULT {
            TABLE[id.index()].references.fetch_add(1, Ordering::Relaxed);
        }
        Member(id)
    }

    #[inline]
    pub(crate) fn id(&self) -> GroupId {
        self.0
    }

    pub(crate) fn name(&self) -> MutexGuard<'_, String> {
        TABLE[self.0.index()].name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn policy(&self) -> Policy {
        look_up(self.0).0
    }

    /// Says something about it, for all runtimes, from their next decision on.
    fn set_policy(&self, policy: Policy) {
        TABLE[self.0.index()].latency.store(policy.latency, Ordering::Relaxed);
        self.set_cap(policy.cap);
        self.set_weight(policy.weight);
    }

    /// As [`Member::set_policy`].
    pub(crate) fn set_weight(&self, weight: u32) {
        TABLE[self.0.index()].weight.store(weight, Ordering::Relaxed);
        VERSION.fetch_add(1, Ordering::Release);
    }

    /// As [`Member::set_policy`].
    pub(crate) fn set_cap(&self, cap: Option<Cap>) {
        let part = |ns: u64| (ns / 1000).clamp(1, u64::from(u32::MAX));
        let word = cap.map_or(0, |cap| part(cap.quota) << 32 | part(cap.period));
        TABLE[self.0.index()].cap.store(word, Ordering::Relaxed);
        VERSION.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Member {
    #[inline]
    fn drop(&mut self) {
        if self.0 != GroupId::DEFAULT {
            // Release: whoever takes the place next comes after all uses of it. Its policy stays until then.
            TABLE[self.0.index()].references.fetch_sub(1, Ordering::Release);
        }
    }
}
