//! What a worker does: which thread it takes, when it interrupts it, whom it wakes.

use super::{Due, SEARCH, Simulation, State, Turn};
use crate::sched::tests::Id;
use crate::sched::trace::{What, Why};
use crate::sched::{Choice, Elsewhere, GroupId, Groups, MOST_GROUPS, MOST_STOLEN};

impl Simulation<'_> {
    /// Sees to it that the worker looks at the present turn in time.
    pub(super) fn arm(&mut self, worker: usize) {
        let w = &self.workers[worker];
        let Some(turn) = &w.turn else { return };
        let thread = &self.threads[turn.thread];
        let ends = turn.counted + thread.left;
        let mut at = ends;
        if w.queue.len_of(thread.group) > 0 {
            let slice = turn.counted + self.program.slice.saturating_sub(thread.used);
            at = at.min(slice + turn.late);
        }
        if self.has_event(worker) {
            at = at.min(turn.began + self.program.grace() + turn.late);
        }
        if let Some((_, until)) = w.lease {
            at = at.min(until + w.late);
        }
        if thread.ending {
            at = self.now;
        }
        self.look_at(worker, at);
    }

    /// Somebody has come who may have to run before the present thread goes on.
    fn has_event(&self, worker: usize) -> bool {
        let w = &self.workers[worker];
        let Some(turn) = &w.turn else { return false };
        let group = self.threads[turn.thread].group;
        !w.queue.news().without(Groups::only(group)).is_empty()
            || w.queue.fresh_of(group) > 0 && !turn.protected
    }

    /// Accounts for the present turn up to now.
    fn count(&mut self, worker: usize) {
        let w = &mut self.workers[worker];
        let Some(turn) = &mut w.turn else { return };
        let thread = &mut self.threads[turn.thread];
        let ran = self.now - turn.counted;
        turn.counted = self.now;
        thread.left -= ran;
        thread.used += ran;
        let served = &mut w.served[thread.group.index()];
        *served += ran;
        if *served >= self.program.slice {
            *served %= self.program.slice;
            if w.queue.len() > 0 {
                w.queue.slice_passed(thread.group);
            }
        }
        if thread.used >= self.program.slice {
            turn.protected = false;
        }
    }

    pub(super) fn look(&mut self, worker: usize) {
        self.count(worker);
        let w = &self.workers[worker];
        let Some(turn) = &w.turn else {
            self.next(worker);
            return;
        };
        let thread = &self.threads[turn.thread];
        let used_up = thread.used >= self.program.slice;
        if thread.left == 0 || thread.ending {
            self.step(worker);
        } else if used_up && w.queue.len_of(thread.group) > 0
            || self.has_event(worker) && self.now - turn.began >= self.program.grace()
            || !self.may_go_on(worker)
        {
            self.interrupt(worker);
            self.next(worker);
        } else {
            self.arm(worker);
        }
    }

    /// The lease has not ended, or is renewed.
    fn may_go_on(&mut self, worker: usize) -> bool {
        let Some((group, until)) = self.workers[worker].lease else { return false };
        if self.now < until {
            return true;
        }
        let (here, elsewhere) = self.surroundings(worker);
        let until = self.shares.review(self.now, worker, here, elsewhere);
        self.note_throttled();
        self.workers[worker].late = self.lateness();
        self.workers[worker].lease = until.map(|until| (group, until));
        until.is_some()
    }

    fn interrupt(&mut self, worker: usize) {
        let Some(turn) = self.workers[worker].turn.take() else { return };
        let thread = &mut self.threads[turn.thread];
        let used_up = thread.used >= self.program.slice;
        if used_up {
            thread.used = 0;
        }
        thread.resumable = true;
        let group = thread.group;
        self.workers[worker].queue.push_interrupted(group, Id(turn.thread), used_up);
        let why = if used_up { Why::UsedUp } else { Why::Interrupted };
        self.note(What::SwitchOut { worker, thread: turn.thread, why });
        self.attend(worker);
    }

    /// The worker takes its next thread, or looks for one, or sleeps.
    pub(super) fn next(&mut self, worker: usize) {
        let w = &self.workers[worker];
        let (here, mut elsewhere) = self.surroundings(worker);
        if let Some((group, until)) = w.lease
            && here.contains(group)
            && self.now < until
            && w.queue.news().without(Groups::only(group)).is_empty()
        {
            return self.switch_in(worker, group);
        }
        if here.is_empty() && w.state == State::Busy {
            self.shares.give_up(self.now, worker);
            self.note(What::Rest { worker });
            self.workers[worker].lease = None;
            self.workers[worker].state = State::Searching;
            return self.look_at(worker, self.now + SEARCH);
        }
        // Each group is fetched, tried in vain, or stranded at most once.
        for _ in 0..4 * MOST_GROUPS {
            self.workers[worker].lease = None;
            let here = self.workers[worker].queue.queued();
            let choice = self.shares.choose(self.now, worker, here, elsewhere);
            self.note_throttled();
            match choice {
                Choice::Serve(group, until) => {
                    let virtual_time = self.shares.virtual_time(group);
                    self.note(What::Choose { worker, group, virtual_time });
                    let late = self.lateness();
                    let w = &mut self.workers[worker];
                    w.queue.seen();
                    (w.lease, w.late) = (Some((group, until)), late);
                    return self.switch_in(worker, group);
                }
                Choice::Fetch(group) => {
                    if self.fetch(worker, group) {
                        let bound = elsewhere.bound;
                        elsewhere = Elsewhere { bound, ..self.surroundings(worker).1 };
                    } else {
                        elsewhere.bound.insert(group);
                    }
                }
                Choice::Rest(at) => {
                    self.note(What::Rest { worker });
                    self.workers[worker].state = State::Asleep;
                    return at.into_iter().for_each(|at| self.look_at(worker, at));
                }
            }
        }
        panic!("the policy goes on fetching");
    }

    fn switch_in(&mut self, worker: usize, group: GroupId) {
        let late = self.lateness();
        if self.workers[worker].state == State::Searching
            && self.workers.iter().any(|w| w.queue.len() > 1)
        {
            // It was woken to search, perhaps, and does so no more.
            self.rouse_another();
        }
        let w = &mut self.workers[worker];
        w.state = State::Busy;
        let Some(Id(thread)) = w.queue.pop(group) else {
            // The policy has lost it: the trace shows that.
            w.state = State::Searching;
            return self.look_at(worker, self.now + SEARCH);
        };
        let protected = w.queue.took_due();
        w.turn = Some(Turn { thread, began: self.now, counted: self.now, protected, late });
        self.note(What::Take { worker, thread, moves: false });
        self.note(What::SwitchIn { worker, thread });
        self.arm(worker);
    }

    fn surroundings(&self, worker: usize) -> (Groups, Elsewhere) {
        let mut elsewhere = Elsewhere::default();
        for (_, w) in self.workers.iter().enumerate().filter(|(i, _)| *i != worker) {
            elsewhere.queued = elsewhere.queued.with(w.queue.queued());
            elsewhere.stranded = elsewhere.stranded.with(w.queue.stranded());
        }
        (self.workers[worker].queue.queued(), elsewhere)
    }

    /// Takes threads of a group from another worker, if possible from one at which they are stranded.
    fn fetch(&mut self, worker: usize, group: GroupId) -> bool {
        let count = self.workers.len();
        let mut others: Vec<_> = (1..count).map(|i| (worker + i) % count).collect();
        others.sort_by_key(|w| !self.workers[*w].queue.stranded().contains(group));
        others.into_iter().any(|victim| self.rob(worker, victim, group))
    }

    /// Moves half of a group's threads; whether there was one that could be moved.
    fn rob(&mut self, thief: usize, victim: usize, group: GroupId) -> bool {
        let mut loot = Vec::with_capacity(MOST_STOLEN);
        let threads = &self.threads;
        let movable = |id: Id| threads[id.0].movable;
        self.workers[victim].queue.steal_into(group, &mut loot, movable);
        for id in &loot {
            self.note(What::Take { worker: victim, thread: id.0, moves: true });
            self.note(What::Put { worker: thief, thread: id.0 });
            self.workers[thief].queue.push(group, *id);
        }
        if !loot.is_empty() && self.workers[thief].queue.len() > 1 {
            self.rouse_another();
        }
        !loot.is_empty()
    }

    /// Half of each group's threads that could go on on helpers leave the worker: for a helper, or, if there is none, for
    /// the next worker.
    pub(super) fn relieve(&mut self, worker: usize) {
        let mut taken = Vec::with_capacity(MOST_STOLEN);
        let threads = &self.threads;
        let resumable = |id: Id| threads[id.0].movable && threads[id.0].resumable;
        let queue = &mut self.workers[worker].queue;
        for group in queue.queued().iter() {
            queue.steal_into(group, &mut taken, resumable);
        }
        for Id(thread) in &taken {
            self.note(What::Relieve { worker, thread: *thread });
        }
        for Id(thread) in taken {
            if self.random.up_to(2) > 0 {
                self.note(What::Lend { thread });
                (self.threads[thread].used, self.threads[thread].resumable) = (0, false);
                let back = self.now + 1 + self.random.up_to(2 * self.program.slice);
                self.at(back, Due::Timer(thread, worker));
            } else {
                let to = self.live(worker + 1);
                self.note(What::Put { worker: to, thread });
                self.workers[to].queue.push(self.threads[thread].group, Id(thread));
                self.attend(to);
            }
        }
    }

    /// The worker gives away what it has and rests until it is resumed.
    pub(super) fn pause(&mut self, worker: usize) {
        if self.workers[worker].state == State::Paused {
            return;
        }
        if self.workers[worker].turn.is_some() {
            self.count(worker);
            self.interrupt(worker);
        }
        self.shares.give_up(self.now, worker);
        self.workers[worker].lease = None;
        self.workers[worker].state = State::Paused;
        self.workers[worker].look += 1;
        self.note(What::Rest { worker });
        self.note(What::Stop { worker });
        let heir = self.live(worker);
        let queued = self.workers[worker].queue.queued();
        for group in queued.iter() {
            // Half of them, and half of the rest, and so on.
            for _ in 0..u64::BITS {
                self.rob(heir, worker, group);
            }
        }
        self.attend(heir);
    }

    /// That worker, or the next one that is not paused.
    pub(super) fn live(&self, worker: usize) -> usize {
        let count = self.workers.len();
        let all = (0..count).map(|i| (worker + i) % count);
        all.into_iter().find(|w| self.workers[*w].state != State::Paused).expect("a live worker")
    }

    /// Something was queued there.
    pub(super) fn attend(&mut self, worker: usize) {
        if self.workers[worker].state == State::Asleep {
            self.rouse(worker);
        } else if self.workers[worker].queue.len() > 1 {
            self.rouse_another();
        }
        if self.workers[worker].turn.is_some() {
            self.arm(worker);
        }
    }

    pub(super) fn rouse(&mut self, worker: usize) {
        if self.workers[worker].state == State::Asleep {
            self.workers[worker].state = State::Searching;
            self.look_at(worker, self.now + SEARCH);
        }
    }

    /// Somebody who sleeps is to look for work.
    fn rouse_another(&mut self) {
        let asleep = |w: &usize| self.workers[*w].state == State::Asleep;
        let sleeper = (0..self.workers.len()).find(asleep);
        sleeper.into_iter().for_each(|w| self.rouse(w));
    }

    pub(super) fn note_throttled(&mut self) {
        let throttled = self.shares.throttled();
        for group in throttled.without(self.throttled).iter() {
            self.note(What::Throttled { group });
        }
        for group in self.throttled.without(throttled).iter() {
            self.note(What::Released { group });
            // Its threads were queued when there was no reason to wake anybody for them.
            self.rouse_another();
        }
        self.throttled = throttled;
    }
}
