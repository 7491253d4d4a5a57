//! Which group a worker serves next.
//!
//! One value for all workers of a runtime, since shares are to hold for the process. It is asked
//! rarely: a choice is a **lease** of a group to a worker, for a slice at the most, and while it lasts the
//! worker takes the group's threads in their order, however many and however short their turns are.
//!
//! **Virtual time** (`v`) of a group is the service it got, divided by its weight. The average over the
//! groups that are runnable, weighted, is the virtual time at which each would have what it is owed. A
//! group's **lag** is the service it is owed: its weight times how far it is behind. A group is **eligible**
//! if its lag is not negative.
//!
//! **Requests.** A group asks for some service; its **deadline** is the virtual time at which it would have
//! got that if it were served at its rate from now on. Among the eligible groups of a worker, the one with
//! the earliest deadline is served. So shares follow from eligibility alone, and how soon a group is
//! served from the length of its request: the [longest](longest_request) for those that always have work, the usual length of
//! its bursts for those that do not (learned, [`Group::learn`]), and never more than the latency that it asks
//! for. A group that wakes up, has not used up its share and usually needs little is served at once, even
//! if its weight is small. That it could claim to need little and then take more helps it nothing: it is
//! not eligible for long.
//!
//! **Coming and going.** A group that becomes runnable starts at the average, or later if it had got more than
//! its share when it left: credit is forfeited, debt is kept, so that nobody gains by sleeping.
//!
//! **Several workers.** Service is counted wherever it is given, up to the moment of each decision. A worker
//! chooses from the groups that are queued at it; one that is queued elsewhere only, and is owed more than a
//! slice, it fetches. So does it with threads of the group that it is about to serve which wait where that
//! group is not served.
//!
//! **Caps.** A group with a cap is throttled when it has used up its quota of the present period, until the
//! next one begins; what it took too much is missing then.
//!
//! A group with fewer threads than its weight is worth workers cannot get its share. What it is owed is
//! forgotten from time to time, as if it had slept: else it would hold back the average for ever.
//!
//! **Cost.** A decision looks at each runnable group and each lease a few times.

use super::group::{GroupId, Groups, MOST_GROUPS};

/// Bits of a virtual nanosecond's fraction.
const FRACTION: u32 = 32;

/// Virtual times are no farther from the average, so that sums of such distances, weighted, do not overflow.
const FARTHEST: u128 = 1 << 100;

/// Virtual times begin here, so that a group can be behind from the beginning, whatever its weight.
const BEGINNING: u128 = 1 << 80;

/// A lease is no shorter, not even where a quota would end sooner.
const SHORTEST_LEASE: u64 = 20_000;

/// No slice is longer, lest times overflow.
const LONGEST_SLICE: u64 = 1 << 40;

/// No request is shorter, lest groups with tiny bursts were as good as never behind anybody.
const SHORTEST_REQUEST: u64 = 10_000;

/// What a group asks for at a time if it always has work.
///
/// Where only hogs compete, a group's lag is between minus and plus a request, and its service in any interval is off by
/// no more than two. That and what leases take too long is to be within a slice in all but odd cases.
fn longest_request(slice: u64) -> u64 {
    (slice / 8 * 5).max(SHORTEST_REQUEST)
}

/// A lease without a cap is no shorter.
fn least_term(slice: u64) -> u64 {
    slice / 8
}

/// What is said about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Its part of the CPU, in proportion to those of others. At least 1.
    pub(crate) weight: u32,
    /// The longest request, in nanoseconds; if 0, that of all.
    pub(crate) latency: u64,
    pub(crate) cap: Option<Cap>,
}

/// So much service in so much time, both in nanoseconds. A quota may exceed its period: there are several
/// workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cap {
    pub(crate) quota: u64,
    pub(crate) period: u64,
}

impl Policy {
    /// That of groups about which nothing was said.
    pub(crate) const DEFAULT: Policy = Policy { weight: 100, latency: 0, cap: None };
}

#[derive(Clone, Copy, Debug)]
struct Group {
    policy: Policy,
    /// Virtual time for a nanosecond of service.
    rate: u64,
    virtual_time: u128,
    deadline: u128,
    /// Nanoseconds that it asks for at a time.
    request: u64,
    /// Of the present period, and debt of those before.
    used: u64,
    period_ends: u64,
    throttled_since: Option<u64>,
    totals: Totals,
}

/// What a group got since the beginning, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Time on workers.
    pub(crate) service: u64,
    /// Time during which it was kept from running by its cap.
    pub(crate) throttled: u64,
}

impl Group {
    fn new(policy: Policy, slice: u64) -> Group {
        let mut group = Group {
            policy,
            rate: 0,
            virtual_time: BEGINNING,
            deadline: BEGINNING,
            request: longest_request(slice),
            used: 0,
            period_ends: 0,
            throttled_since: None,
            totals: Totals::default(),
        };
        group.set_policy(policy, slice);
        group
    }

    fn set_policy(&mut self, policy: Policy, slice: u64) {
        self.policy = policy;
        self.rate = (1 << FRACTION) / u64::from(policy.weight.max(1));
        self.request = self.request.clamp(SHORTEST_REQUEST, self.longest_request(slice));
    }

    fn longest_request(&self, slice: u64) -> u64 {
        let longest = longest_request(slice);
        match self.policy.latency {
            0 => longest,
            latency => latency.clamp(SHORTEST_REQUEST, longest),
        }
    }

    fn weight(&self) -> u128 {
        u128::from(self.policy.weight.max(1))
    }

    fn virtually(&self, service: u64) -> u128 {
        u128::from(service) * u128::from(self.rate)
    }

    fn ask(&mut self) {
        self.deadline = self.virtual_time + self.virtually(self.request);
    }

    /// What it has not got yet of its request.
    fn left(&self) -> u64 {
        let left = (self.deadline.saturating_sub(self.virtual_time) * self.weight()) >> FRACTION;
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    /// A rest of its request that is too short for a lease becomes part of the next one: others that are
    /// eligible would have to wait for it.
    fn round_up(&mut self, slice: u64) {
        if self.left() < least_term(slice).min(self.request / 2) {
            self.deadline += self.virtually(self.request);
        }
    }

    fn serve(&mut self, service: u64) {
        self.totals.service += service;
        self.used += service;
        self.virtual_time += self.virtually(service);
        if self.virtual_time >= self.deadline {
            self.ask();
        }
    }

    /// A lease has ended after so much service: adapts the request to what the group needs at a time.
    fn learn(&mut self, burst: u64, drained: bool, slice: u64) {
        let wanted = if drained {
            self.request / 2 + burst / 2
        } else if burst >= self.request {
            self.request.saturating_mul(2)
        } else {
            return;
        };
        self.request = wanted.clamp(SHORTEST_REQUEST, self.longest_request(slice));
    }
}

/// A group that a worker serves.
#[derive(Clone, Copy, Debug)]
struct Lease {
    group: GroupId,
    began: u64,
    /// Up to when it is counted.
    counted: u64,
}

/// What a worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lease that is not used keeps others from being served"]
pub(crate) enum Choice {
    /// Serve this group, which is queued here, until then, as long as it has threads.
    Serve(GroupId, u64),
    /// Take threads of this group from another worker, and ask again.
    Fetch(GroupId),
    /// Nothing that is queued may run before that time, if ever.
    Rest(Option<u64>),
}

/// What waits at the other workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// Groups that are queued there.
    pub(crate) queued: Groups,
    /// Those with threads that were not served there for long.
    pub(crate) stranded: Groups,
    /// Those that were tried to be fetched, in vain: they are runnable nevertheless.
    pub(crate) bound: Groups,
}

impl Elsewhere {
    fn is_stranded(&self, group: GroupId) -> bool {
        self.stranded.without(self.bound).contains(group)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Shares {
    groups: [Group; MOST_GROUPS],
    /// By worker.
    leases: Vec<Option<Lease>>,
    /// Groups that were runnable at the last decision, and not throttled.
    active: Groups,
    throttled: Groups,
    /// The average when groups were active last.
    average: u128,
    /// Nanoseconds.
    slice: u64,
    /// The latest time seen.
    now: u64,
}

impl Shares {
    /// Nothing was served yet.
    pub(crate) fn new(workers: usize, slice: u64) -> Shares {
        let slice = slice.min(LONGEST_SLICE);
        Shares {
            groups: [Group::new(Policy::DEFAULT, slice); MOST_GROUPS],
            leases: vec![None; workers],
            active: Groups::NONE,
            throttled: Groups::NONE,
            average: BEGINNING,
            slice,
            now: 0,
        }
    }

    /// Says something else about a group. What it is owed stays the same.
    pub(crate) fn set_policy(&mut self, now: u64, group: GroupId, policy: Policy) {
        self.count(now);
        let average = self.average_now();
        let slice = self.slice;
        let g = &mut self.groups[group.index()];
        if g.policy == policy {
            return;
        }
        let old = g.weight();
        let new_cap = g.policy.cap != policy.cap;
        g.set_policy(policy, slice);
        // Lag is weight times distance. Those who are not active may have debt, too.
        let distance = g.virtual_time.abs_diff(average).saturating_mul(old) / g.weight();
        let distance = distance.min(FARTHEST);
        g.virtual_time = match g.virtual_time <= average {
            true => average.saturating_sub(distance),
            false => average + distance,
        };
        g.ask();
        if new_cap {
            // What was used before says nothing about this quota, nor about its period.
            (g.used, g.period_ends) = (0, 0);
            self.release(group);
        }
    }

    /// The group is gone, and its place another one's.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.release(group);
        self.active.remove(group);
        self.groups[group.index()] = Group::new(Policy::DEFAULT, self.slice);
    }

    /// What a group got up to now.
    pub(crate) fn totals(&mut self, now: u64, group: GroupId) -> Totals {
        self.count(now);
        let g = &self.groups[group.index()];
        let since = g.throttled_since.map_or(0, |since| self.now - since);
        Totals { throttled: g.totals.throttled + since, ..g.totals }
    }

    /// Groups that must not run, for they have used up their quota.
    pub(crate) fn throttled(&self) -> Groups {
        self.throttled
    }

    /// Whether more than one group was runnable at the last decision.
    pub(crate) fn is_contended(&self) -> bool {
        self.active.has_several()
    }

    /// Ends the worker's lease, and chooses the group that it serves next: of those queued `here`, unless one
    /// that is queued only `elsewhere` is owed too much, or threads of the chosen one are stranded there.
    pub(crate) fn choose(
        &mut self,
        now: u64,
        worker: usize,
        here: Groups,
        elsewhere: Elsewhere,
    ) -> Choice {
        self.count(now);
        if let Some(lease) = self.leases[worker].take() {
            let burst = self.now - lease.began;
            let slice = self.slice;
            let g = &mut self.groups[lease.group.index()];
            g.learn(burst, !here.contains(lease.group), slice);
            g.round_up(slice);
        }
        let queued = here.with(elsewhere.queued);
        self.refill(queued);
        self.join_and_leave(queued, elsewhere.bound);
        let movable = elsewhere.queued.without(elsewhere.bound);
        let there = movable.without(here).without(self.throttled);
        match self.best_of(here.without(self.throttled), worker) {
            Some(best) => match self.most_owed(there) {
                Some(group) => Choice::Fetch(group),
                None if elsewhere.is_stranded(best) => Choice::Fetch(best),
                None => self.begin(worker, best),
            },
            None => match self.best_of(there, worker) {
                Some(best) => Choice::Fetch(best),
                None => Choice::Rest(self.next_release(queued)),
            },
        }
    }

    /// Whether a worker that is in the middle of serving its group, and could go on, is to make a choice
    /// anew; if not, until when it may go on.
    pub(crate) fn review(
        &mut self,
        now: u64,
        worker: usize,
        here: Groups,
        elsewhere: Elsewhere,
    ) -> Option<u64> {
        self.count(now);
        let queued = here.with(elsewhere.queued);
        self.refill(queued);
        self.join_and_leave(queued, elsewhere.bound);
        let group = self.leases[worker]?.group;
        self.groups[group.index()].round_up(self.slice);
        let mine = here.with(Groups::only(group)).without(self.throttled);
        let movable = elsewhere.queued.without(elsewhere.bound);
        let there = movable.without(mine).without(self.throttled);
        let goes_on = self.best_of(mine, worker) == Some(group)
            && self.most_owed(there).is_none()
            && !elsewhere.is_stranded(group);
        goes_on.then(|| self.now.saturating_add(self.term(group)))
    }

    /// The worker serves nobody any more.
    pub(crate) fn give_up(&mut self, now: u64, worker: usize) {
        self.count(now);
        if let Some(lease) = self.leases[worker].take() {
            let burst = self.now - lease.began;
            let slice = self.slice;
            self.groups[lease.group.index()].learn(burst, true, slice);
        }
    }

    fn begin(&mut self, worker: usize, group: GroupId) -> Choice {
        self.leases[worker] = Some(Lease { group, began: self.now, counted: self.now });
        Choice::Serve(group, self.now.saturating_add(self.term(group)))
    }

    /// How long a group may be served without a new decision.
    fn term(&self, group: GroupId) -> u64 {
        let g = &self.groups[group.index()];
        // No longer than what is left of its request: if it got more, others that are eligible and have
        // little left, too, could each go before one that has much.
        let left = g.left();
        let term = left.clamp(least_term(self.slice), self.slice);
        let Some(cap) = g.policy.cap else { return term };
        let left = cap.quota.saturating_sub(g.used);
        let servers = self.leases.iter().flatten().filter(|l| l.group == group).count() as u64;
        term.min((left / servers.max(1)).max(SHORTEST_LEASE))
    }

    /// Counts the service given up to now.
    fn count(&mut self, now: u64) {
        self.now = self.now.max(now);
        for lease in self.leases.iter_mut().flatten() {
            let service = self.now.saturating_sub(lease.counted);
            lease.counted = self.now;
            self.groups[lease.group.index()].serve(service);
        }
    }

    /// Begins new periods, and throttles who has used up the present one.
    fn refill(&mut self, queued: Groups) {
        let served = self.leases.iter().flatten().map(|l| l.group);
        let concerned =
            served.fold(queued.with(self.throttled), |set, group| set.with(Groups::only(group)));
        for group in concerned.iter() {
            let now = self.now;
            let g = &mut self.groups[group.index()];
            let Some(cap) = g.policy.cap else { continue };
            if now >= g.period_ends {
                let periods = (now - g.period_ends) / cap.period.max(1) + 1;
                g.period_ends =
                    g.period_ends.saturating_add(periods.saturating_mul(cap.period.max(1)));
                g.used = g.used.saturating_sub(periods.saturating_mul(cap.quota));
            }
            if g.used < cap.quota {
                self.release(group);
            } else if g.throttled_since.is_none() {
                g.throttled_since = Some(now);
                self.throttled.insert(group);
            }
        }
    }

    fn release(&mut self, group: GroupId) {
        let g = &mut self.groups[group.index()];
        if let Some(since) = g.throttled_since.take() {
            g.totals.throttled += self.now - since;
            self.throttled.remove(group);
        }
    }

    /// When the first of these groups may run again.
    fn next_release(&self, groups: Groups) -> Option<u64> {
        let waiting = groups.both(self.throttled);
        waiting.iter().map(|g| self.groups[g.index()].period_ends).min()
    }

    /// These groups are runnable, and so are those that are served; others are not.
    fn join_and_leave(&mut self, queued: Groups, bound: Groups) {
        let served = self.leases.iter().flatten().map(|l| l.group);
        let runnable = served.fold(queued, |set, group| set.with(Groups::only(group)));
        let runnable = runnable.without(self.throttled);
        // These are treated as if they came now.
        self.active = self.active.without(self.hopeless(queued, bound));
        if runnable != self.active {
            let stay = runnable.both(self.active);
            self.active = if stay.is_empty() { self.active } else { stay };
            let average = self.average_now();
            for group in runnable.without(stay).iter() {
                let g = &mut self.groups[group.index()];
                g.virtual_time = g.virtual_time.max(average);
                g.ask();
            }
            self.active = runnable;
        }
    }

    /// Groups that are owed more than anybody who can use its share: that is less than a slice for each
    /// worker, and for each group that is served before it since it was promised to be.
    ///
    /// One whose weight is worth more workers than it has threads is owed ever more, and holds back the
    /// average: who comes later would go before all others for as long. One that has threads which wait is
    /// going to be served, and nothing is forgotten; unless they are bound to a worker, and it is owed a multiple.
    fn hopeless(&self, queued: Groups, bound: Groups) -> Groups {
        if self.leases.len() < 2 || !self.active.has_several() {
            return Groups::NONE;
        }
        let slices = (self.active.len() + self.leases.len()) as u64;
        let late = self.slice.saturating_add(self.slice / 4);
        let most = u128::from(late.saturating_mul(slices));
        let patience = |group| if queued.contains(group) { 4 } else { 1 };
        let candidates = self.active.without(queued.without(bound));
        let mut rest = self.active;
        loop {
            // One may hold back the average so far that another one seems to be owed nothing.
            let owed = self.owed(candidates.both(rest), rest);
            let hopeless = owed.filter(|(owed, group)| *owed > most * patience(*group));
            let found =
                hopeless.fold(Groups::NONE, |set, (_, group)| set.with(Groups::only(group)));
            if found.is_empty() {
                return self.active.without(rest);
            }
            // Never all of them: what one is owed, another one got.
            rest = rest.without(found);
        }
    }

    /// The average of these groups, as base and weighted sum of the distances from it; and the sum of the weights.
    fn weigh(&self, members: Groups) -> (u128, u128, u128) {
        let members = || members.iter().map(|g| &self.groups[g.index()]);
        let base = members().map(|g| g.virtual_time).min().unwrap_or(self.average);
        let sum = members().map(|g| g.weight() * (g.virtual_time - base)).sum();
        let weights = members().map(Group::weight).sum();
        (base, sum, weights)
    }

    fn average_now(&mut self) -> u128 {
        let (base, sum, weights) = self.weigh(self.active);
        if let Some(distance) = sum.checked_div(weights) {
            self.average = base + distance;
        }
        self.average
    }

    /// The eligible group with the earliest deadline; the one that is least ahead if none is eligible.
    ///
    /// What other workers are about to give to groups counts as given: else all that decide at the same time
    /// would choose the same one, and each group would be ahead, and the others behind, by a request of
    /// every worker.
    fn best_of(&self, candidates: Groups, worker: usize) -> Option<GroupId> {
        if !candidates.has_several() {
            return candidates.iter().next();
        }
        let mut ahead = [0; MOST_GROUPS];
        for group in self.active.with(candidates).iter() {
            ahead[group.index()] = self.groups[group.index()].virtual_time;
        }
        for (_, lease) in self.leases.iter().enumerate().filter(|(i, _)| *i != worker) {
            let Some(lease) = lease else { continue };
            let g = &self.groups[lease.group.index()];
            let left = g.request.saturating_sub(self.now - lease.began);
            ahead[lease.group.index()] += g.virtually(left);
        }
        let members =
            || self.active.iter().map(|id| (ahead[id.index()], self.groups[id.index()].weight()));
        let base = members().map(|(v, _)| v).min().unwrap_or(self.average);
        let sum: u128 = members().map(|(v, weight)| weight * (v - base)).sum();
        let weights: u128 = members().map(|(_, weight)| weight).sum();
        let eligible =
            |id: &GroupId| ahead[id.index()].saturating_sub(base).saturating_mul(weights) <= sum;
        let soonest =
            candidates.iter().filter(eligible).min_by_key(|id| self.groups[id.index()].deadline);
        soonest.or_else(|| candidates.iter().min_by_key(|id| ahead[id.index()]))
    }

    /// The group that is owed most, if that is more than a slice.
    fn most_owed(&self, candidates: Groups) -> Option<GroupId> {
        let (owed, group) = self.owed(candidates, self.active).max()?;
        (owed > u128::from(self.slice)).then_some(group)
    }

    /// Nanoseconds of service that groups are owed if only `members` are active, 0 if they got too much.
    fn owed(&self, groups: Groups, members: Groups) -> impl Iterator<Item = (u128, GroupId)> {
        let (base, sum, weights) = self.weigh(members);
        let average = base + sum / weights.max(1);
        groups.iter().map(move |id| {
            let g = &self.groups[id.index()];
            ((average.saturating_sub(g.virtual_time) * g.weight()) >> FRACTION, id)
        })
    }
}

#[cfg(test)]
impl Shares {
    /// Nanoseconds of service that an active group is owed, negative if it got too much.
    pub(super) fn lag(&self, group: GroupId) -> i128 {
        let (base, sum, weights) = self.weigh(self.active);
        let g = &self.groups[group.index()];
        let average = (base + sum / weights.max(1)) as i128;
        ((average - g.virtual_time as i128) * g.weight() as i128) >> FRACTION
    }

    pub(crate) fn virtual_time(&self, group: GroupId) -> u128 {
        self.groups[group.index()].virtual_time
    }
}
