//! How many may be in a place at once: a counting semaphore of `std`'s lock and condition, with a time-out.
//!
//! A green thread costs so little that nothing bounds how many there are, so what is dear is bounded where it is
//! used: connections to a database (a process each), and memory (19 MiB for a password that is hashed, some ten for
//! an image). Whoever waits for too long gives up: an answer that says so at once is worth more than a late one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A place for a limited number.
#[derive(Debug)]
pub struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

/// The right to be there, until it is dropped.
#[derive(Debug)]
pub struct Pass<'a>(&'a Gate);

impl Gate {
    /// A place for so many, at least one.
    pub fn new(most: usize) -> Gate {
        Gate { free: Mutex::new(most.max(1)), left: Condvar::new() }
    }

    /// Waits until there is room, for so long at most.
    pub fn enter(&self, patience: Duration) -> Option<Pass<'_>> {
        let full = |free: &mut usize| *free == 0;
        let waited = self.left.wait_timeout_while(self.free(), patience, full);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Pass(self))
    }

    /// A number is right whoever panicked.
    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_it_full_gives_up_in_time_or_gets_the_place_of_one_who_leaves() {
        let gate = Gate::new(1);
        let first = gate.enter(Duration::ZERO);
        assert!(first.is_some());
        assert!(gate.enter(Duration::from_millis(1)).is_none());
        std::thread::scope(|s| {
            let second = s.spawn(|| gate.enter(Duration::from_secs(60)).is_some());
            drop(first);
            assert!(second.join().unwrap());
        });
        assert!(gate.enter(Duration::ZERO).is_some());
    }
}
