//! Deadlines: a heap that knows where each of its entries is.
//!
//! **Problem.** Most time-outs are cancelled before they expire (a read's time-out, when data comes),
//! a million may be pending, and a sleep of a millisecond must not be off by one.
//!
//! **Alternatives.** A hashed wheel inserts and cancels in constant time but rounds to its tick, or
//! needs levels and cascades. Entries that are cancelled by being ignored later pile up. A kernel
//! timer each (timerfd, an io_uring timeout) is a system call each.
//!
//! **Choice.** A four-ary implicit heap on nanoseconds, with a table from key to position. Typical
//! time-outs lie later than most others, so inserting and cancelling them touches the last level or
//! two; sorted order, exact, no tick. Time is an argument: nothing here reads a clock.
//!
//! Arming never allocates, since it happens under a lock that workers take (see `preempt::pin`): if there is
//! no room it says so, and the caller brings memory that was allocated beforehand ([`Spare`]).

/// Names an armed timer; unique among all that a [`Timers`] ever had, up to 2³² reuses of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    place: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    place: u32,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    /// Index into the heap, or of the next free place.
    position: u32,
    /// `None` if the place is free.
    target: Option<T>,
}

/// Armed timers, by deadline in nanoseconds since some fixed instant.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: Vec<Entry>,
    places: Vec<Place<T>>,
    first_free: u32,
}

/// There is no room for another timer: bring a [`Spare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// Memory for timers.
#[derive(Debug)]
pub(crate) struct Spare<T> {
    heap: Vec<Entry>,
    places: Vec<Place<T>>,
}

impl<T> Spare<T> {
    /// Allocates room for so many timers.
    pub(crate) fn new(capacity: usize) -> Spare<T> {
        Spare { heap: Vec::with_capacity(capacity), places: Vec::with_capacity(capacity) }
    }
}

const ARITY: usize = 4;
/// Timers that there is room for from the start.
const FIRST_ROOM: usize = 64;
const NONE: u32 = u32::MAX;

impl<T> Timers<T> {
    pub(crate) fn new() -> Timers<T> {
        let Spare { heap, places } = Spare::new(FIRST_ROOM);
        Timers { heap, places, first_free: NONE }
    }

    /// Whether another timer can be armed.
    pub(crate) fn has_room(&self) -> bool {
        let place = self.first_free != NONE || self.places.len() < self.places.capacity();
        place && self.heap.len() < self.heap.capacity()
    }

    /// The capacity to grow to.
    pub(crate) fn wanted(&self) -> usize {
        self.heap.capacity() * 2
    }

    /// Moves into larger memory. What is handed back is to be dropped where memory may be freed: the old
    /// memory, or the new, if it is not larger after all.
    pub(crate) fn grow(&mut self, mut spare: Spare<T>) -> Spare<T> {
        if spare.heap.capacity() <= self.heap.capacity()
            || spare.places.capacity() <= self.places.capacity()
        {
            return spare;
        }
        spare.heap.append(&mut self.heap);
        spare.places.append(&mut self.places);
        std::mem::swap(&mut self.heap, &mut spare.heap);
        std::mem::swap(&mut self.places, &mut spare.places);
        spare
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.heap.first().map(|e| e.deadline)
    }

    /// Arms a timer.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    ///
    /// # Panics
    ///
    /// Panics at 2³² − 1 armed timers.
    pub(crate) fn arm(&mut self, deadline: u64, target: T) -> Result<Key, NoRoom> {
        if !self.has_room() {
            return Err(NoRoom);
        }
        let position = u32::try_from(self.heap.len()).expect("fewer than 2^32 timers");
        let place = self.occupy(position, target);
        self.heap.push(Entry { deadline, place });
        self.sift_up(position as usize);
        Ok(Key { place, generation: self.places[place as usize].generation })
    }

    /// Disarms a timer; its target, unless it expired or was disarmed before.
    pub(crate) fn disarm(&mut self, key: Key) -> Option<T> {
        let place = self.places.get(key.place as usize)?;
        if place.generation != key.generation || place.target.is_none() {
            return None;
        }
        let position = place.position as usize;
        Some(self.remove(position))
    }

    /// Takes out the earliest timer if its deadline is not after `now`.
    pub(crate) fn expire(&mut self, now: u64) -> Option<T> {
        (self.next_deadline()? <= now).then(|| self.remove(0))
    }

    fn occupy(&mut self, position: u32, target: T) -> u32 {
        if self.first_free == NONE {
            self.places.push(Place { generation: 0, position, target: Some(target) });
            return self.places.len() as u32 - 1;
        }
        let index = self.first_free;
        let place = &mut self.places[index as usize];
        self.first_free = place.position;
        place.position = position;
        place.target = Some(target);
        index
    }

    fn remove(&mut self, position: usize) -> T {
        let index = self.heap.swap_remove(position).place;
        if position < self.heap.len() {
            // The entry that took the position came from the end: it may belong below or above.
            // (After a way up, another entry is here, and in its right place.)
            self.sift_up(position);
            self.sift_down(position);
        }
        let place = &mut self.places[index as usize];
        place.generation = place.generation.wrapping_add(1);
        place.position = self.first_free;
        self.first_free = index;
        place.target.take().expect("entries of the heap have targets")
    }

    fn sift_up(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / ARITY;
            if self.heap[parent].deadline <= self.heap[position].deadline {
                break;
            }
            self.heap.swap(parent, position);
            self.note(position);
            position = parent;
        }
        self.note(position);
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let children =
                position * ARITY + 1..(position * ARITY + 1 + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|c| self.heap[*c].deadline) else { break };
            if self.heap[position].deadline <= self.heap[least].deadline {
                break;
            }
            self.heap.swap(position, least);
            self.note(position);
            position = least;
        }
        self.note(position);
    }

    fn note(&mut self, position: usize) {
        let place = self.heap[position].place;
        self.places[place as usize].position = position as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_key_is_dead_after_expiry_even_if_its_place_is_used_again() {
        let mut t = Timers::new();
        let first = t.arm(1, 'a').unwrap();
        assert_eq!(t.expire(0), None);
        assert_eq!(t.expire(1), Some('a'));
        let second = t.arm(2, 'b').unwrap();
        assert_eq!(t.disarm(first), None);
        assert_eq!(t.disarm(second), Some('b'));
        assert_eq!(t.disarm(second), None);
        assert_eq!(t.next_deadline(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u64),
        Disarm(usize),
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u64..100).prop_map(Step::Arm),
            2 => any::<usize>().prop_map(Step::Disarm),
            1 => (0_u64..100).prop_map(Step::Expire),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_set(steps in proptest::collection::vec(step(), 0..300)) {
            let mut timers = Timers::new();
            let mut model = BTreeSet::new();
            let mut keys = Vec::new();
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Arm(deadline) => {
                        if !timers.has_room() {
                            prop_assert_eq!(timers.arm(deadline, id), Err(NoRoom));
                            let rest = timers.grow(Spare::new(timers.wanted()));
                            prop_assert!(rest.heap.is_empty() && rest.places.is_empty());
                        }
                        keys.push((timers.arm(deadline, id).unwrap(), deadline, id));
                        model.insert((deadline, id));
                    }
                    Step::Disarm(i) if !keys.is_empty() => {
                        let (key, deadline, id) = keys[i % keys.len()];
                        let was_armed = model.remove(&(deadline, id));
                        prop_assert_eq!(timers.disarm(key), was_armed.then_some(id));
                    }
                    Step::Disarm(_) => {}
                    Step::Expire(now) => {
                        while let Some(id) = timers.expire(now) {
                            let deadline = keys.iter().find(|k| k.2 == id).unwrap().1;
                            prop_assert_eq!(model.first().unwrap().0, deadline);
                            prop_assert!(model.remove(&(deadline, id)));
                        }
                        prop_assert!(model.first().is_none_or(|(d, _)| *d > now));
                    }
                }
                prop_assert_eq!(timers.next_deadline(), model.first().map(|m| m.0));
            }
        }
    }
}
