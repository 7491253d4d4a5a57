//! Sorting and searching, over all threads of a runtime.
//!
//! Of 100,000 threads a page is wanted: what comes before and behind it is set apart, not sorted.

use super::protocol::{Column, SnapshotRequest};
use crate::ThreadState;
use crate::reason::WaitReason;
use crate::roster::Survey;
use crate::sched::{GroupId, MOST_GROUPS};
use crate::worker::census::Entry;
use crate::worker::group;

/// The names of groups that have threads.
#[derive(Default)]
pub(super) struct GroupNames(Vec<Option<String>>);

impl GroupNames {
    /// Of those groups for which there is a number of threads.
    pub(super) fn of(threads: &[usize; MOST_GROUPS]) -> GroupNames {
        let name = |(index, threads): (usize, &usize)| {
            (*threads > 0).then(|| group::name_of(GroupId::new(index)))
        };
        GroupNames(threads.iter().enumerate().map(name).collect())
    }

    pub(super) fn get(&self, group: GroupId) -> &str {
        self.0.get(group.index()).and_then(Option::as_deref).unwrap_or_default()
    }
}

/// The places of the threads that were asked for, in the order that was asked for, and how many match in all. `shares`
/// are those of all threads, by their places.
pub(super) fn select(
    survey: &Survey,
    groups: &GroupNames,
    shares: &[f64],
    request: &SnapshotRequest,
    most: usize,
) -> (Vec<usize>, usize) {
    let entries = survey.entries();
    let places: Vec<usize> = if request.search.is_empty() {
        (0..entries.len()).collect()
    } else {
        let search = Search::new(&request.search);
        (0..entries.len()).filter(|place| search.matches(&entries[*place], groups)).collect()
    };
    let matching = places.len();
    let range = request.offset.min(matching)
        ..request.offset.saturating_add(request.limit.min(most)).min(matching);
    let sorted = Sorted { places, descending: request.descending, range };
    let page = match request.sort {
        Column::Id => sorted.by(|place| entries[place].number),
        Column::Name => sorted.by(|place| entries[place].name.as_deref()),
        Column::State => sorted.by(|place| {
            let state = Survey::state(&entries[place]);
            (state.name(), state.reason().map(WaitReason::name))
        }),
        Column::Group => sorted.by(|place| groups.get(entries[place].group)),
        Column::Worker => sorted.by(|place| entries[place].worker),
        // Shares are not negative: their bits are in their order.
        Column::Share => sorted.by(|place| shares[place].to_bits()),
        Column::RunTime => sorted.by(|place| entries[place].stat.run_time),
        Column::RunDelay => sorted.by(|place| entries[place].stat.run_delay),
        Column::Turns => sorted.by(|place| entries[place].stat.turns),
        Column::ForcedSwitches => sorted.by(|place| entries[place].stat.forced_switches),
        Column::Wakeups => sorted.by(|place| entries[place].stat.wakeups),
        Column::Migrations => sorted.by(|place| entries[place].stat.migrations),
        Column::Age => sorted.by(|place| std::cmp::Reverse(entries[place].born)),
        Column::SpawnedAt => sorted.by(|place| {
            let at = entries[place].spawned_at;
            (at.file(), at.line(), at.column())
        }),
    };
    (page, matching)
}

/// A part of what it would be if it were sorted.
struct Sorted {
    /// In the order of numbers.
    places: Vec<usize>,
    descending: bool,
    range: std::ops::Range<usize>,
}

impl Sorted {
    fn by<K: Ord>(self, key: impl Fn(usize) -> K) -> Vec<usize> {
        let Sorted { places, descending, range } = self;
        if range.is_empty() {
            return Vec::new();
        }
        let mut keyed: Vec<(K, usize)> = places.into_iter().map(|p| (key(p), p)).collect();
        let compare = |(a, place_a): &(K, usize), (b, place_b): &(K, usize)| {
            let order = if descending { b.cmp(a) } else { a.cmp(b) };
            order.then(place_a.cmp(place_b))
        };
        let mut part = &mut keyed[..];
        if range.end < part.len() {
            part.select_nth_unstable_by(range.end, compare);
            part = &mut part[..range.end];
        }
        if range.start > 0 {
            part.select_nth_unstable_by(range.start, compare);
            part = &mut part[range.start..];
        }
        part.sort_unstable_by(compare);
        part.iter().map(|(_, place)| *place).collect()
    }
}

/// What is searched for.
struct Search<'a> {
    text: &'a [u8],
}

impl<'a> Search<'a> {
    fn new(text: &'a str) -> Search<'a> {
        Search { text: text.as_bytes() }
    }

    fn matches(&self, entry: &Entry, groups: &GroupNames) -> bool {
        let state: ThreadState = Survey::state(entry);
        entry.name.as_deref().is_some_and(|name| self.is_in(name))
            || self.is_in(groups.get(entry.group))
            || self.is_in(state.name())
            || state.reason().is_some_and(|reason| self.is_in(reason.name()))
            || self.begins(entry.number)
            || self.is_in(entry.spawned_at.file())
    }

    fn is_in(&self, text: &str) -> bool {
        let Some((first, rest)) = self.text.split_first() else { return true };
        let text = text.as_bytes();
        let last = text.len().wrapping_sub(rest.len());
        text.len() > rest.len()
            && (0..last).any(|at| {
                text[at].eq_ignore_ascii_case(first)
                    && text[at + 1..at + 1 + rest.len()].eq_ignore_ascii_case(rest)
            })
    }

    /// Whether the number begins with it.
    fn begins(&self, number: u64) -> bool {
        self.text.iter().all(u8::is_ascii_digit)
            && number.to_string().as_bytes().starts_with(self.text)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn page(keys: &[u32], descending: bool, range: std::ops::Range<usize>) -> Vec<usize> {
        Sorted { places: (0..keys.len()).collect(), descending, range }.by(|place| keys[place])
    }

    #[test]
    fn pages_put_together_are_the_sorted_list() {
        let keys = [5, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9];
        for descending in [false, true] {
            let all = page(&keys, descending, 0..keys.len());
            let mut wanted: Vec<usize> = (0..keys.len()).collect();
            wanted.sort_by_key(|place| {
                let key = i64::from(keys[*place]);
                (if descending { -key } else { key }, *place)
            });
            assert_eq!(all, wanted);
            for size in 1..keys.len() {
                let starts = (0..keys.len()).step_by(size);
                let pages = starts.map(|s| page(&keys, descending, s..(s + size).min(keys.len())));
                assert_eq!(pages.flatten().collect::<Vec<_>>(), wanted);
            }
        }
    }

    #[test]
    fn nothing_is_on_a_page_behind_the_end() {
        assert!(page(&[], false, 0..0).is_empty());
        assert!(page(&[1, 2], false, 2..2).is_empty());
    }

    #[test]
    fn a_search_finds_parts_of_words_in_any_case() {
        let finds = |what, text| Search::new(what).is_in(text);
        assert!(finds("WORK", "a worker") && finds("er", "a worker") && finds("", ""));
        assert!(!finds("worker", "work") && !finds("x", "") && !finds("workers", "a worker"));
    }

    #[test]
    fn a_search_for_digits_finds_numbers_that_begin_with_them() {
        assert!(Search::new("12").begins(1234) && Search::new("12").begins(12));
        assert!(!Search::new("12").begins(312) && !Search::new("12a").begins(12));
    }
}
