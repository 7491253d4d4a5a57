//! Names of groups, and sets of them.

/// Groups that can exist at a time: as many as one word has bits, so that a set of them is compared and
/// searched in a few instructions.
pub(crate) const MOST_GROUPS: usize = 64;

/// A group of threads, by its place in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupId(u8);

impl GroupId {
    /// The group of threads that were not put into another one.
    pub(crate) const DEFAULT: GroupId = GroupId(0);

    /// The group at that place.
    ///
    /// # Panics
    ///
    /// There is no such place.
    pub(crate) fn new(index: usize) -> GroupId {
        assert!(index < MOST_GROUPS, "there are {MOST_GROUPS} groups");
        GroupId(index as u8)
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        usize::from(self.0) % MOST_GROUPS
    }
}

/// A set of groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups(u64);

impl Groups {
    pub(crate) const NONE: Groups = Groups(0);
    pub(crate) const ALL: Groups = Groups(!0);

    /// The set of one.
    #[inline]
    pub(crate) fn only(group: GroupId) -> Groups {
        Groups(1 << group.index())
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Groups {
        Groups(bits)
    }

    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there are at least two.
    #[inline]
    pub(crate) fn has_several(self) -> bool {
        self.0 & self.0.wrapping_sub(1) != 0
    }

    #[inline]
    pub(crate) fn contains(self, group: GroupId) -> bool {
        self.0 & Self::only(group).0 != 0
    }

    #[inline]
    pub(crate) fn insert(&mut self, group: GroupId) {
        self.0 |= Self::only(group).0;
    }

    #[inline]
    pub(crate) fn remove(&mut self, group: GroupId) {
        self.0 &= !Self::only(group).0;
    }

    #[inline]
    pub(crate) fn with(self, other: Groups) -> Groups {
        Groups(self.0 | other.0)
    }

    #[inline]
    pub(crate) fn both(self, other: Groups) -> Groups {
        Groups(self.0 & other.0)
    }

    #[inline]
    pub(crate) fn without(self, other: Groups) -> Groups {
        Groups(self.0 & !other.0)
    }

    /// Those of the set, the lowest first.
    pub(crate) fn iter(self) -> impl Iterator<Item = GroupId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let first = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            (first < u64::BITS).then_some(GroupId(first as u8))
        })
    }
}
