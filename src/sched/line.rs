//! Lists through the threads themselves: to queue a thread never allocates, which is more than a saving (see
//! `preempt::pin`).

/// What a thread that can be queued has: room for the name of the next one. It is in one list at a time.
pub(crate) trait Link: Copy + Eq {
    /// What was set last.
    fn next(self) -> Option<Self>;
    /// Sets the next one.
    fn set_next(self, next: Option<Self>);
}

/// A list of threads, first in, first out.
#[derive(Debug)]
pub(super) struct Line<T> {
    /// The first and the last.
    ends: Option<(T, T)>,
    length: usize,
}

impl<T: Link> Line<T> {
    pub(super) const fn new() -> Line<T> {
        Line { ends: None, length: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    pub(super) fn front(&self) -> Option<T> {
        self.ends.map(|(first, _)| first)
    }

    #[inline]
    pub(super) fn push_back(&mut self, thread: T) {
        thread.set_next(None);
        self.length += 1;
        self.ends = match self.ends {
            None => Some((thread, thread)),
            Some((first, last)) => {
                last.set_next(Some(thread));
                Some((first, thread))
            }
        };
    }

    pub(super) fn push_front(&mut self, thread: T) {
        thread.set_next(self.front());
        self.length += 1;
        self.ends = Some((thread, self.ends.map_or(thread, |(_, last)| last)));
    }

    /// Puts all of `others` behind.
    pub(super) fn append(&mut self, mut others: Line<T>) {
        std::mem::swap(self, &mut others);
        self.prepend(others);
    }

    /// Puts all of `others` in front.
    pub(super) fn prepend(&mut self, others: Line<T>) {
        let Some((first, last)) = others.ends else { return };
        last.set_next(self.front());
        self.length += others.length;
        self.ends = Some((first, self.ends.map_or(last, |(_, last)| last)));
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<T> {
        let (first, last) = self.ends?;
        self.length -= 1;
        self.ends = first.next().filter(|_| first != last).map(|second| (second, last));
        Some(first)
    }
}
