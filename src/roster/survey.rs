//! All threads at a glance.
//!
//! **Problem.** Whoever shows a page of a list of 100,000 threads, sorted, needs a little of each and all of a few.
//! What [`threads`](fn@super::threads) says about stacks takes a system call for each thread, and a name, which lies
//! elsewhere, several times as long as the rest.
//!
//! **Choice.** A survey is the census with what can be told of each thread without asking further; the rest is asked
//! for threads one by one. A thread keeps its name: who looks again and again has each read once.

use std::io;

use super::dump::{self, ThreadDump};
use super::{ThreadInfo, ThreadState, describe, state_of, usage};
use crate::time::now;
use crate::worker::Runtime;
use crate::worker::census::{self, Entry};

/// The threads of a runtime at some instant, by their numbers.
pub(crate) struct Survey {
    entries: Vec<Entry>,
    /// Nanoseconds of the monotonic clock.
    now: u64,
}

/// Names that were read, with their threads' numbers, in the order of these.
#[derive(Default)]
pub(crate) struct Names(Vec<(u64, String)>);

impl Survey {
    /// With names that an earlier survey has read.
    pub(crate) fn take(runtime: &Runtime, known: Names) -> Survey {
        let now = now();
        let mut entries = census::take_unnamed(runtime);
        let mut known = known.0.into_iter().peekable();
        for entry in &mut entries {
            if known.peek().is_none() {
                break;
            }
            while known.next_if(|(number, _)| *number < entry.number).is_some() {}
            entry.name = known.next_if(|(number, _)| *number == entry.number).map(|(_, name)| name);
        }
        Survey { entries, now }
    }

    /// For the next one.
    pub(crate) fn into_names(self) -> Names {
        let named = |entry: Entry| entry.name.map(|name| (entry.number, name));
        Names(self.entries.into_iter().filter_map(named).collect())
    }

    /// Reads names, of those threads that are wanted and have none yet.
    ///
    /// # Errors
    ///
    /// As for [`threads`](fn@super::threads).
    pub(crate) fn name(&mut self, is_wanted: impl Fn(&Entry) -> bool) -> io::Result<()> {
        let unnamed = self.entries.iter_mut().filter(|e| e.name.is_none() && is_wanted(e));
        census::name(&mut unnamed.collect::<Vec<_>>())
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// When it was taken: nanoseconds of the monotonic clock.
    pub(crate) fn time(&self) -> u64 {
        self.now
    }

    pub(crate) fn state(entry: &Entry) -> ThreadState {
        state_of(entry)
    }

    /// All that can be told of some threads, given by their places in the survey; reads their names.
    ///
    /// # Errors
    ///
    /// As for [`threads`](fn@super::threads).
    pub(crate) fn describe(&self, places: &[usize]) -> io::Result<Vec<ThreadInfo>> {
        let mut entries: Vec<_> = places.iter().map(|place| self.entries[*place].clone()).collect();
        let unnamed = entries.iter_mut().filter(|entry| entry.name.is_none());
        census::name(&mut unnamed.collect::<Vec<_>>())?;
        let pages = usage::PageMap::open()?;
        entries.into_iter().map(|entry| describe(entry, &pages, self.now)).collect()
    }

    /// One thread with its frames, if it exists. Takes no survey.
    ///
    /// # Errors
    ///
    /// As for [`dump`](fn@crate::dump).
    pub(crate) fn dump_one(runtime: &Runtime, number: u64) -> io::Result<Option<ThreadDump>> {
        dump::take_one(runtime, number)
    }
}
