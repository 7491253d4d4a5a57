//! What groups got, and what they should have got, according to a trace.

use super::checker::{Property, Terms, Violation};
use crate::sched::trace::{Event, What};
use crate::sched::{Cap, GroupId, MOST_GROUPS, Policy};

#[derive(Clone, Debug)]
pub(super) struct Group {
    policy: Policy,
    /// Threads that are queued or run.
    pub(super) runnable: usize,
    /// Those of them that may run anywhere.
    movable: usize,
    /// What it should have got, on one worker, since it was served or might not be.
    entitled: f64,
    pub(super) served: u64,
    /// What it got, divided by its weight.
    got: f64,
    throttled: bool,
    /// What is known of its cap.
    usage: Option<Usage>,
    virtual_time: u128,
}

/// What a capped group has used. Periods are counted from the beginning of time.
#[derive(Clone, Copy, Debug)]
struct Usage {
    cap: Cap,
    /// The end of the present period.
    ends: u64,
    /// Used in the present period, and debt of those before.
    used: u64,
    /// It is throttled although its debt is paid, which must not last longer.
    released_by: Option<u64>,
}

impl Group {
    pub(super) fn is_throttled(&self) -> bool {
        self.throttled
    }

    fn weight(&self) -> f64 {
        f64::from(self.policy.weight)
    }
}

/// See the module's documentation.
pub(super) struct Accounts {
    terms: Terms,
    now: u64,
    groups: Vec<Group>,
    /// By two groups, the second of which has been busy since: the least difference between what the
    /// first and the second got.
    least: Vec<Option<f64>>,
    ever: Vec<GroupId>,
    /// The most groups that were runnable at a time.
    crowd: usize,
    /// There were threads that are bound to a worker.
    bound: bool,
}

impl Accounts {
    pub(super) fn new(terms: Terms) -> Accounts {
        let group = Group {
            policy: Policy::DEFAULT,
            runnable: 0,
            movable: 0,
            entitled: 0.0,
            served: 0,
            got: 0.0,
            throttled: false,
            usage: None,
            virtual_time: 0,
        };
        Accounts {
            terms,
            now: 0,
            groups: vec![group; MOST_GROUPS],
            least: vec![None; MOST_GROUPS * MOST_GROUPS],
            ever: Vec::new(),
            crowd: 0,
            bound: false,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    fn lag(&self) -> f64 {
        self.terms.lag(self.crowd, self.bound) as f64
    }

    pub(super) fn group(&self, group: GroupId) -> &Group {
        &self.groups[group.index()]
    }

    /// Time passes, in which threads of these groups run.
    pub(super) fn pass(
        &mut self,
        at: u64,
        running: impl Iterator<Item = GroupId>,
        violations: &mut Vec<Violation>,
    ) {
        let passed = at - self.now;
        if passed == 0 {
            return;
        }
        let mut counts = [0; MOST_GROUPS];
        running.for_each(|group| counts[group.index()] += 1);
        let lag = self.lag();
        let entitled = |g: &Group| g.runnable > 0 && !g.throttled;
        let ever = self.ever.iter().map(|g| &self.groups[g.index()]);
        let weights: f64 = ever.filter(|g| entitled(g)).map(Group::weight).sum();
        for id in &self.ever {
            let g = &mut self.groups[id.index()];
            let service = passed * counts[id.index()];
            g.served += service;
            if entitled(g) && service == 0 {
                g.entitled += passed as f64 * g.weight() / weights;
            } else {
                g.entitled = 0.0;
            }
            if g.entitled > lag {
                let what = format!("{id:?} was not");
                violations.push(Violation { property: Property::GroupsAreServed, at, what });
                g.entitled = 0.0;
            }
            g.got += service as f64 / g.weight();
        }
        self.check_caps(at, counts, violations);
        self.now = at;
        self.check_shares(counts, violations);
    }

    fn know(&mut self, group: GroupId) {
        if !self.ever.contains(&group) {
            self.ever.push(group);
        }
    }

    /// That many threads more are runnable.
    pub(super) fn runnable(&mut self, group: GroupId, change: isize, movable: bool) {
        self.know(group);
        self.bound |= !movable;
        let g = &mut self.groups[group.index()];
        if g.runnable == 0
            && let Some(by) = g.usage.as_mut().and_then(|usage| usage.released_by.as_mut())
        {
            // Nobody has looked as long as there was no reason to.
            *by = (*by).max(self.now + self.terms.late() + self.terms.search);
        }
        g.runnable = g.runnable.saturating_add_signed(change);
        if g.runnable == 0 && change < 0 {
            self.settle();
        }
        self.crowd = self.crowd.max(self.groups.iter().filter(|g| g.runnable > 0).count());
        let g = &mut self.groups[group.index()];
        if movable {
            g.movable = g.movable.saturating_add_signed(change);
        }
        if g.movable < self.terms.workers {
            self.begin_anew(group, false);
        }
    }

    /// A group has left: what it was owed or owes is divided between the others.
    fn settle(&mut self) {
        let lag = self.lag();
        let runnable = |g: &&mut Group| g.runnable > 0 && !g.throttled;
        let weights: f64 = self.groups.iter_mut().filter(runnable).map(|g| g.weight()).sum();
        for g in self.groups.iter_mut().filter(runnable) {
            g.entitled -= lag * g.weight() / weights;
        }
    }

    /// Comparisons with a group begin anew, since it was not busy; or for all others, too, since its
    /// weight has changed.
    fn begin_anew(&mut self, group: GroupId, both: bool) {
        for other in 0..MOST_GROUPS {
            self.least[other * MOST_GROUPS + group.index()] = None;
            if both {
                self.least[group.index() * MOST_GROUPS + other] = None;
            }
        }
    }

    /// Looks at pairs of which one was served.
    fn check_shares(&mut self, served: [u64; MOST_GROUPS], violations: &mut Vec<Violation>) {
        let lag = self.lag();
        for busy in &self.ever {
            let b = &self.groups[busy.index()];
            if b.movable < self.terms.workers || b.policy.cap.is_some() {
                continue;
            }
            for other in &self.ever {
                let o = &self.groups[other.index()];
                if other == busy || served[other.index()] == 0 && served[busy.index()] == 0 {
                    continue;
                }
                let ahead = o.got - b.got;
                let least = &mut self.least[other.index() * MOST_GROUPS + busy.index()];
                let before = *least.get_or_insert(ahead);
                *least = Some(before.min(ahead));
                let bound = lag * (1.0 / o.weight() + 1.0 / b.weight());
                // Weights are rounded.
                if ahead - before > bound * 1.0001 {
                    let much = (ahead - before) / bound;
                    let what = format!("{other:?} got {much:.2} bounds more than {busy:?}");
                    let (property, at) = (Property::FairShares, self.now);
                    violations.push(Violation { property, at, what });
                    *least = Some(ahead);
                }
            }
        }
    }

    fn check_caps(&mut self, at: u64, served: [u64; MOST_GROUPS], violations: &mut Vec<Violation>) {
        let slack = 2 * self.terms.workers as u64 * self.terms.late();
        for id in &self.ever {
            let g = &mut self.groups[id.index()];
            let throttled = g.throttled;
            let Some(usage) = &mut g.usage else { continue };
            let mut from = self.now;
            while from < at {
                let to = usage.ends.min(at);
                usage.used += (to - from) * served[id.index()];
                from = to;
                if usage.used > usage.cap.quota + slack {
                    let what = format!("{id:?} used {} of {}", usage.used, usage.cap.quota);
                    violations.push(Violation { property: Property::Caps, at: to, what });
                    usage.used = usage.cap.quota;
                }
                if to == usage.ends {
                    usage.used = usage.used.saturating_sub(usage.cap.quota);
                    usage.ends += usage.cap.period;
                    let paid = throttled && usage.used < usage.cap.quota;
                    usage.released_by = usage
                        .released_by
                        .or(paid.then_some(to + self.terms.late() + self.terms.search));
                }
            }
            if g.runnable > 0 && throttled && usage.released_by.is_some_and(|by| at > by) {
                let what = format!("{id:?} is throttled for too long");
                violations.push(Violation { property: Property::ThrottledForAReason, at, what });
                usage.released_by = None;
            }
        }
    }

    /// Events that concern groups.
    pub(super) fn see(&mut self, event: &Event, violations: &mut Vec<Violation>) {
        let at = event.at;
        let mut violated =
            |property, what: String| violations.push(Violation { property, at, what });
        match event.what {
            What::Weight { group, policy } => {
                self.know(group);
                if policy.weight != self.group(group).policy.weight {
                    self.begin_anew(group, true);
                }
                if policy.cap.is_some() {
                    self.begin_anew(group, false);
                }
                let g = &mut self.groups[group.index()];
                if policy.cap != g.policy.cap {
                    g.usage = policy.cap.map(|cap| {
                        let ends = (at / cap.period + 1) * cap.period;
                        Usage { cap, ends, used: 0, released_by: None }
                    });
                }
                g.policy = policy;
                g.virtual_time = 0;
            }
            What::Choose { group, virtual_time, .. } => {
                let g = &mut self.groups[group.index()];
                if g.throttled {
                    violated(Property::ThrottledRest, format!("{group:?}"));
                }
                if virtual_time < g.virtual_time {
                    violated(Property::VirtualTime, format!("{group:?}"));
                }
                g.virtual_time = virtual_time;
            }
            What::Throttled { group } => {
                let g = &mut self.groups[group.index()];
                g.throttled = true;
                self.settle();
                let g = &mut self.groups[group.index()];
                match &mut g.usage {
                    None => {
                        violated(Property::ThrottledForAReason, format!("{group:?} has no cap"))
                    }
                    Some(usage) => usage.released_by = None,
                }
                if let Some(usage) = g.usage
                    && usage.used + self.terms.skew < usage.cap.quota
                {
                    violated(Property::ThrottledForAReason, format!("{group:?}: {usage:?}"));
                }
            }
            What::Released { group } => {
                let g = &mut self.groups[group.index()];
                g.throttled = false;
                g.usage.iter_mut().for_each(|u| u.released_by = None);
            }
            _ => {}
        }
    }
}
