//! Threads that wait by address: green threads on the words of a futex(2).
//!
//! **No wake-up is lost.** A waker has changed the word before it comes here; a waiter goes to sleep only if the word
//! has not changed. Name the events: *W*, the store to the word; *L*, the load by which [`Bucket::wait`] looks at
//! it, under the bucket's lock. If the waker takes the lock after the waiter, the waiter is in the list and
//! is found. If it takes it before, L comes after the lock's release, hence after W, sees the new value, and the
//! waiter does not wait. (To spare a waker the lock where nobody waits would take a count of waiters and, between
//! W and the look at it, a fence, which is as dear as the lock; [`Bucket::is_empty`] is for those who know that they see
//! whom they have to wake.)
//!
//! **A waiter's end.** It lies on the stack of the thread that waits. Whoever takes it out of the list, under
//! the lock, owns its end: the thread itself, when its time is up, or a waker, who notifies its parker last of all.
//! The thread returns only then.
//!
//! **Handed over.** A waker that must not take the lock notes the bucket ([`WaitTable::hand_over`]) and has somebody else look
//! who may ([`WaitTable::wake_handed_over`]): for who is woken then, and why none is forgotten, the same holds. W comes before the
//! note, the note before the lock of who has found it. So one who was in the list before that lock is woken, and one who comes
//! after it sees the new value.
//!
//! **Parked at once.** A green thread that waits without a time limit needs no parker: it leaves its worker first, and the
//! worker puts it into the list ([`Enlistment`]) when its context is saved. So whoever takes it out
//! owns a parked thread, and two atomic exchanges are saved of the four that a wait and its end take. If the word has
//! changed by then, it goes on.

use std::cell::Cell;
use std::marker::PhantomPinned;
use std::ptr::NonNull;

use super::parker::Parker;
#[cfg(not(loom))]
use crate::atomic::{AtomicBool, fence};
use crate::atomic::{AtomicU32, AtomicU64, Ordering, UnsafeCell};
use crate::lock::SpinLock;

/// Buckets. Threads that wait on words of one bucket look at each other's entries, and no more.
const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 8;

/// Waiters that are taken out under one hold of a lock, during which all others spin.
const BATCH: u32 = 32;

/// Whether there has ever been somebody who could wait.
#[cfg(not(loom))]
static POPULATED: AtomicBool = AtomicBool::new(false);

/// There may be waiters from now on. Called before the first green thread begins.
#[cfg(not(loom))]
pub(crate) fn populate() {
    POPULATED.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Whether there may be waiters: if not, a waker need not look, and a process without green threads is none the wiser.
///
/// A waker that says no has changed its word before its fence, which is before that of [`populate`], else it would have
/// seen the flag. So a waiter, which comes after that one, sees the change.
#[inline]
fn is_populated() -> bool {
    #[cfg(not(loom))]
    return POPULATED.load(Ordering::Relaxed) || {
        fence(Ordering::SeqCst);
        POPULATED.load(Ordering::Relaxed)
    };
    #[cfg(loom)]
    true
}

/// See the module's documentation.
pub(crate) struct WaitTable {
    buckets: [Bucket; BUCKETS],
    handed_over: HandedOver,
}

/// Buckets whose waiters are to be woken by somebody else than whoever asked for it, a bit for each.
struct HandedOver([AtomicU64; BUCKETS / 64]);

/// The waiters on some of the words. On cache lines of its own: its neighbours belong to unrelated words.
#[repr(align(128))]
pub(crate) struct Bucket {
    /// OS threads that wait in the kernel, as far as is known.
    in_kernel: AtomicU32,
    /// Tells whose turn it is, while there are any.
    turns: AtomicU32,
    /// Entries of the list. Written under its lock.
    entries: AtomicU32,
    list: SpinLock<List>,
}

/// A thread that waits.
pub(crate) struct Waiter {
    address: usize,
    mask: u32,
    /// Notified when it was woken, unless it was parked at once.
    pub(crate) parker: Parker,
    /// The thread, if it was parked at once; else 0. Written before it is in the list, read by whoever has taken it out.
    parked: Cell<usize>,
    links: UnsafeCell<Links>,
    _pinned: PhantomPinned,
}

/// Who is to be woken.
pub(crate) enum Woken<'a> {
    /// Whoever waits on the parker, or will.
    Notify(&'a Parker),
    /// A parked thread, by the value that stands for it in a park word; now the waker's, to be made runnable.
    Parked(usize),
}

/// The wish of a green thread to be parked at once, which its worker fulfils when its context is saved.
pub(crate) struct Enlistment<'a> {
    pub(crate) waiter: &'a Waiter,
    pub(crate) bucket: &'a Bucket,
    pub(crate) word: &'a AtomicU32,
    pub(crate) expected: u32,
}

impl Enlistment<'_> {
    /// Puts the thread into the bucket's list, if the word still has the value `expected`; whether it has. If not, the
    /// thread must go on.
    ///
    /// # Safety
    ///
    /// As [`Bucket::wait`]; `thread` stands for the thread as in a park word, is the caller's, and parked. The caller is a
    /// worker, or pinned.
    #[inline]
    #[must_use = "a thread that is not in the list must go on"]
    pub(crate) unsafe fn commit(&self, thread: usize) -> bool {
        self.bucket.list.with(|list| {
            let waits = self.word.load(Ordering::SeqCst) == self.expected;
            if waits {
                self.waiter.parked.set(thread);
                // SAFETY: as the caller says; the lock is held.
                unsafe { list.push(NonNull::from(self.waiter)) };
                self.bucket.count(1);
            }
            waits
        })
    }

    /// Whether the thread waited, and so was woken. To be called by it when it goes on.
    #[inline]
    pub(crate) fn has_waited(&self) -> bool {
        self.waiter.parked.get() != 0
    }
}

#[derive(Clone, Copy, Default)]
struct Links {
    listed: bool,
    previous: Option<NonNull<Waiter>>,
    next: Option<NonNull<Waiter>>,
}

/// In the order in which they came.
struct List {
    first: Option<NonNull<Waiter>>,
    last: Option<NonNull<Waiter>>,
}

// SAFETY: what the pointers lead to is in the list, and accessed under its lock only.
unsafe impl Send for List {}

#[cfg(not(loom))]
impl WaitTable {
    pub(crate) const fn new() -> WaitTable {
        WaitTable {
            buckets: [const { Bucket::new() }; BUCKETS],
            handed_over: HandedOver([const { AtomicU64::new(0) }; BUCKETS / 64]),
        }
    }

    /// Nobody waits any more, and nobody holds a lock.
    ///
    /// # Safety
    ///
    /// No other thread exists: this is the child of a fork(2), where those that waited are gone.
    #[cfg(feature = "interpose")]
    pub(crate) unsafe fn forget(&self) {
        for bucket in &self.buckets {
            bucket.in_kernel.store(0, Ordering::Relaxed);
            bucket.entries.store(0, Ordering::Relaxed);
            // SAFETY: as the caller says.
            unsafe { bucket.list.reset(List { first: None, last: None }) };
        }
    }

    /// Where those wait who wait on the word at that address.
    #[inline]
    pub(crate) fn bucket(&self, address: usize) -> &Bucket {
        &self.buckets[Self::index(address)]
    }

    #[inline]
    fn index(address: usize) -> usize {
        // Fibonacci hashing: the upper bits of the product depend on all bits of the address.
        let hash = (address as u64 >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> (u64::BITS - BUCKET_BITS)) as usize
    }

    /// Has whoever calls [`WaitTable::wake_handed_over`] next wake those that wait on the word at that address.
    /// Async-signal-safe, and takes no lock.
    #[cfg(feature = "interpose")]
    pub(crate) fn hand_over(&self, address: usize) {
        self.handed_over.note(Self::index(address));
    }

    /// Wakes all waiters of the buckets that were handed over: which word it was is not known any more, and a waiter expects
    /// wake-ups for no reason.
    #[cfg(feature = "interpose")]
    pub(crate) fn wake_handed_over(&self, end: impl Fn(Woken<'_>)) {
        self.handed_over.take(|index| self.buckets[index].wake_all(&end));
    }
}

impl HandedOver {
    fn note(&self, index: usize) {
        // Release pairs with the acquisition in `take`: the waker's change of the word is seen.
        self.0[index / 64].fetch_or(1 << (index % 64), Ordering::Release);
    }

    /// Calls `f` with each that was noted before; what made the caller look has seen to it that it sees them.
    fn take(&self, mut f: impl FnMut(usize)) {
        for (at, word) in self.0.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut noted = word.swap(0, Ordering::Acquire);
            while noted != 0 {
                f(at * 64 + noted.trailing_zeros() as usize);
                noted &= noted - 1;
            }
        }
    }
}

impl Bucket {
    #[cfg(not(loom))]
    const fn new() -> Bucket {
        Bucket {
            in_kernel: AtomicU32::new(0),
            turns: AtomicU32::new(0),
            entries: AtomicU32::new(0),
            list: SpinLock::new(List { first: None, last: None }),
        }
    }

    /// Puts a waiter at the end of the list, if `still` says that it has to wait; whether it did.
    ///
    /// # Safety
    ///
    /// The waiter belongs to this bucket, is new, and stays in place until [`Bucket::remove`] has returned true or
    /// its parker was notified.
    pub(crate) unsafe fn wait(&self, waiter: &Waiter, still: impl Fn() -> bool) -> bool {
        self.list.with_pinned(|list| {
            let waits = still();
            if waits {
                // SAFETY: as the caller says; the lock is held.
                unsafe { list.push(NonNull::from(waiter)) };
                self.count(1);
            }
            waits
        })
    }

    /// Takes a waiter out of the list; false if a waker has done so, who is going to notify it, or has.
    pub(crate) fn remove(&self, waiter: &Waiter) -> bool {
        self.list.with_pinned(|list| {
            // SAFETY: the lock is held; the waiter is in the list or unlinked.
            let removed = unsafe { list.remove(NonNull::from(waiter)) };
            if removed {
                self.count(1_u32.wrapping_neg());
            }
            removed
        })
    }

    /// Whether nobody waits here, as far as the caller knows: what happened before that, in the order that other
    /// synchronisation makes, is seen.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.load(Ordering::Relaxed) == 0
    }

    /// Adds to the number of entries, under the lock.
    fn count(&self, more: u32) {
        let entries = self.entries.load(Ordering::Relaxed);
        self.entries.store(entries.wrapping_add(more), Ordering::Relaxed);
    }

    /// Takes up to `most` of those out that wait on the word at `address` and whose masks have a bit of `mask`, first
    /// come, first served, and calls `end` with each; how many there were.
    ///
    /// A waiter may be gone as soon as its wait was ended.
    #[inline]
    pub(crate) fn wake(
        &self,
        address: usize,
        most: u32,
        mask: u32,
        end: impl Fn(Woken<'_>),
    ) -> u32 {
        if !is_populated() {
            return 0;
        }
        self.end_waits(most, |waiter| waiter.address == address && waiter.mask & mask != 0, end)
    }

    /// The same for all that are in the list now.
    #[cfg(any(feature = "interpose", loom))]
    fn wake_all(&self, end: impl Fn(Woken<'_>)) {
        // Those that look and wait again do so behind them.
        let all = self.list.with_pinned(|_| self.entries.load(Ordering::Relaxed));
        self.end_waits(all, |_| true, end);
    }

    #[inline]
    fn end_waits(
        &self,
        most: u32,
        is_meant: impl Fn(&Waiter) -> bool,
        end: impl Fn(Woken<'_>),
    ) -> u32 {
        let mut woken = 0;
        while woken < most {
            let room = BATCH.min(most - woken);
            let (mut chain, taken) = self.list.with_pinned(|list| {
                let (chain, taken) = list.take(&is_meant, room);
                self.count(taken.wrapping_neg());
                (chain, taken)
            });
            while let Some(waiter) = chain {
                // SAFETY: it was taken out of the list and its wait not ended yet, so it is still there, and nobody
                // else uses its links.
                unsafe {
                    chain = read_links(waiter).next;
                    end(waiter.as_ref().woken());
                }
            }
            woken += taken;
            if taken < room {
                break;
            }
        }
        woken
    }

    /// Calls `f`, in which an OS thread may wait in the kernel for one of the bucket's words.
    #[inline]
    pub(crate) fn in_kernel<R>(&self, f: impl FnOnce() -> R) -> R {
        self.in_kernel.fetch_add(1, Ordering::Relaxed);
        let result = f();
        self.in_kernel.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Whether a wake-up should go to those first that wait in the kernel: half of the times, if there may be any.
    ///
    /// Not every other time: words of one bucket may be woken in turns, and one of them would never get the
    /// kernel's. Multiples of the golden ratio, of which this looks at the upper bit, are spread evenly, and so are
    /// every second one, every third one, and so on.
    #[inline]
    pub(crate) fn is_the_kernels_turn(&self) -> bool {
        self.in_kernel.load(Ordering::Relaxed) > 0
            && self.turns.fetch_add(0x9e37_79b9, Ordering::Relaxed) < 1 << 31
    }
}

impl Waiter {
    pub(crate) fn new(address: usize, mask: u32) -> Waiter {
        Waiter {
            address,
            mask,
            parker: Parker::new(),
            parked: Cell::new(0),
            links: UnsafeCell::new(Links::default()),
            _pinned: PhantomPinned,
        }
    }

    fn woken(&self) -> Woken<'_> {
        match self.parked.get() {
            0 => Woken::Notify(&self.parker),
            thread => Woken::Parked(thread),
        }
    }

    /// Of the word that it waits for.
    #[cfg(not(loom))]
    pub(crate) fn address(&self) -> usize {
        self.address
    }
}

/// Calls `f` with the links of a waiter.
///
/// # Safety
///
/// The waiter is in place, and the caller holds its bucket's lock or has taken it out.
#[inline]
unsafe fn links<R>(waiter: NonNull<Waiter>, f: impl FnOnce(&mut Links) -> R) -> R {
    // SAFETY: as the caller says; no two calls are nested for one waiter.
    unsafe { (*waiter.as_ptr()).links.with_mut(|links| f(&mut *links)) }
}

/// The links of a waiter.
///
/// # Safety
///
/// The waiter is in place, and nobody changes them: the caller holds its bucket's lock, or has taken it out of the list and
/// not notified it.
unsafe fn read_links(waiter: NonNull<Waiter>) -> Links {
    // SAFETY: as the caller says.
    unsafe { (*waiter.as_ptr()).links.with(|links| *links) }
}

impl List {
    /// # Safety
    ///
    /// The waiter is in no list, and stays in place until it was taken out. The lock is held.
    unsafe fn push(&mut self, waiter: NonNull<Waiter>) {
        let previous = self.last.replace(waiter);
        // SAFETY: what is in the list is in place.
        unsafe {
            links(waiter, |own| *own = Links { listed: true, previous, next: None });
            match previous {
                Some(previous) => links(previous, |l| l.next = Some(waiter)),
                None => self.first = Some(waiter),
            }
        }
    }

    /// Takes a waiter out, if it is in the list.
    ///
    /// # Safety
    ///
    /// The waiter is in place, and in this list or in none. The lock is held.
    unsafe fn remove(&mut self, waiter: NonNull<Waiter>) -> bool {
        // SAFETY: what is in the list is in place, and the waiter is as the caller says.
        unsafe {
            // Who has taken it out may be about to read where its chain goes on.
            let Links { listed, previous, next } = read_links(waiter);
            if !listed {
                return false;
            }
            links(waiter, |own| *own = Links::default());
            match previous {
                Some(previous) => links(previous, |l| l.next = next),
                None => self.first = next,
            }
            match next {
                Some(next) => links(next, |l| l.previous = previous),
                None => self.last = previous,
            }
        }
        true
    }

    /// Takes up to `most` out that are meant; the first of them, from which links lead to the others, and how many.
    #[inline]
    fn take(
        &mut self,
        is_meant: impl Fn(&Waiter) -> bool,
        most: u32,
    ) -> (Option<NonNull<Waiter>>, u32) {
        let (mut first, mut last) = (None, None);
        let (mut taken, mut at) = (0, self.first);
        while let Some(waiter) = at.filter(|_| taken < most) {
            // SAFETY: what is in the list is in place; the lock is held, as for all of a list's functions. What was
            // taken out is nobody else's until it is notified.
            unsafe {
                at = links(waiter, |l| l.next);
                if is_meant(waiter.as_ref()) {
                    self.remove(waiter);
                    match last.replace(waiter) {
                        Some(last) => links(last, |l| l.next = Some(waiter)),
                        None => first = Some(waiter),
                    }
                    taken += 1;
                }
            }
        }
        (first, taken)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    static TABLE: WaitTable = WaitTable::new();

    /// The names of those that a wake-up reached, in its order.
    fn woken(
        bucket: &Bucket,
        waiters: &[Waiter],
        address: usize,
        most: u32,
        mask: u32,
    ) -> Vec<usize> {
        let order = std::cell::RefCell::new(Vec::new());
        let n = bucket.wake(address, most, mask, |woken| {
            let of = |w: &Waiter| matches!(woken, Woken::Notify(p) if std::ptr::eq(&raw const w.parker, p));
            order.borrow_mut().push(waiters.iter().position(of).unwrap());
        });
        let order = order.into_inner();
        assert_eq!(n as usize, order.len());
        order
    }

    #[test]
    fn waiters_are_woken_in_their_order_by_address_and_mask_and_only_once() {
        populate();
        let bucket = TABLE.bucket(64);
        let waiters: Vec<_> =
            [(64, 1), (128, 1), (64, 2), (64, 3), (64, 1)].map(|(a, m)| Waiter::new(a, m)).into();
        assert!(bucket.is_empty());
        for waiter in &waiters {
            // SAFETY: they stay in place to the end, when none is in the list.
            assert!(unsafe { bucket.wait(waiter, || true) });
        }
        assert!(!bucket.is_empty());
        assert!(bucket.remove(&waiters[3]) && !bucket.remove(&waiters[3]));
        assert_eq!(woken(bucket, &waiters, 64, 1, 1), [0]);
        assert_eq!(woken(bucket, &waiters, 64, u32::MAX, 1), [4]);
        assert_eq!(woken(bucket, &waiters, 192, u32::MAX, u32::MAX), [0; 0]);
        assert_eq!(woken(bucket, &waiters, 64, u32::MAX, u32::MAX), [2]);
        assert!(!bucket.remove(&waiters[2]), "it was woken");
        assert_eq!(woken(bucket, &waiters, 128, u32::MAX, u32::MAX), [1]);
        assert!(bucket.is_empty());
    }

    #[test]
    fn a_word_that_has_changed_is_not_waited_for() {
        populate();
        let bucket = TABLE.bucket(4096);
        let waiter = Waiter::new(4096, 1);
        // SAFETY: it is not put into the list.
        assert!(!unsafe { bucket.wait(&waiter, || false) });
        assert_eq!(bucket.wake(4096, 1, 1, |_| panic!("nobody waits")), 0);
    }

    #[test]
    fn each_word_of_a_bucket_gets_turns_of_both_kinds_whatever_their_order() {
        populate();
        let bucket = TABLE.bucket(16384);
        assert!(!bucket.is_the_kernels_turn(), "nobody waits there");
        bucket.in_kernel(|| {
            for words in 1..=10 {
                let mut of_kernel = [0; 10];
                for turn in 0..100 * words {
                    of_kernel[turn % words] += usize::from(bucket.is_the_kernels_turn());
                }
                for n in &of_kernel[..words] {
                    assert!((30..=70).contains(n), "{of_kernel:?}");
                }
            }
        });
    }

    #[test]
    fn crowds_are_woken_as_far_as_was_asked() {
        populate();
        let bucket = TABLE.bucket(8192);
        let waiters: Vec<_> = (0..100).map(|_| Waiter::new(8192, 1)).collect();
        for waiter in &waiters {
            // SAFETY: they stay in place to the end, when none is in the list.
            assert!(unsafe { bucket.wait(waiter, || true) });
        }
        assert_eq!(woken(bucket, &waiters, 8192, 70, 1), (0..70).collect::<Vec<_>>());
        assert_eq!(woken(bucket, &waiters, 8192, u32::MAX, 1), (70..100).collect::<Vec<_>>());
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;

    /// Stands for a thread that is parked at once.
    const THREAD: usize = 128;

    struct Futex {
        word: AtomicU32,
        bucket: Bucket,
    }

    fn futex() -> Arc<Futex> {
        let list = SpinLock::new(List { first: None, last: None });
        let zero = || AtomicU32::new(0);
        let bucket = Bucket { in_kernel: zero(), turns: zero(), entries: zero(), list };
        Arc::new(Futex { word: AtomicU32::new(0), bucket })
    }

    /// Waits while the word is 0, and returns when it was woken.
    fn wait(futex: &Futex) {
        let waiter = Waiter::new(64, 1);
        // SAFETY: it stays in place until it was notified.
        if unsafe { futex.bucket.wait(&waiter, || futex.word.load(Ordering::Relaxed) == 0) } {
            while !waiter.parker.take() {
                loom::thread::yield_now();
            }
        }
    }

    fn wake(futex: &Futex, most: u32) -> u32 {
        futex.word.store(1, Ordering::Relaxed);
        futex.bucket.wake(64, most, 1, |woken| match woken {
            Woken::Notify(parker) => assert!(parker.notify().is_none()),
            Woken::Parked(thread) => assert_eq!(thread, THREAD),
        })
    }

    #[test]
    fn a_waiter_sees_the_new_value_or_is_woken() {
        loom::model(|| {
            let futex = futex();
            let other = futex.clone();
            let waker = loom::thread::spawn(move || wake(&other, 1));
            wait(&futex);
            waker.join().unwrap();
        });
    }

    #[test]
    fn a_parked_thread_goes_on_by_its_worker_that_sees_the_new_value_or_by_the_waker() {
        loom::model(|| {
            let futex = futex();
            let other = futex.clone();
            let waker = loom::thread::spawn(move || wake(&other, 1));
            let waiter = Waiter::new(64, 1);
            let Futex { word, bucket } = &*futex;
            let enlistment = Enlistment { waiter: &waiter, bucket, word, expected: 0 };
            // SAFETY: it stays in place until the waker is done.
            let waits = unsafe { enlistment.commit(THREAD) };
            assert_eq!(waker.join().unwrap(), u32::from(waits));
            assert_eq!(enlistment.has_waited(), waits);
        });
    }

    #[test]
    fn one_whose_time_is_up_when_it_is_woken_does_not_keep_the_next_from_that() {
        loom::model(|| {
            let futex = futex();
            let other = futex.clone();
            let (first, second) = (Waiter::new(64, 1), Waiter::new(64, 1));
            // SAFETY: they stay in place until they were removed or notified.
            assert!(unsafe {
                futex.bucket.wait(&first, || true) && futex.bucket.wait(&second, || true)
            });
            let waker = loom::thread::spawn(move || wake(&other, u32::MAX));
            if !futex.bucket.remove(&first) {
                while !first.parker.take() {
                    loom::thread::yield_now();
                }
            }
            waker.join().unwrap();
            assert!(second.parker.take());
        });
    }

    #[test]
    fn one_waiter_is_woken_by_one_of_two_wakers() {
        loom::model(|| {
            let futex = futex();
            let waiter = Waiter::new(64, 1);
            // SAFETY: it stays in place until it was notified, in this very model.
            assert!(unsafe { futex.bucket.wait(&waiter, || true) });
            let other = futex.clone();
            let waker = loom::thread::spawn(move || wake(&other, 1));
            let woken = wake(&futex, u32::MAX);
            assert_eq!(woken + waker.join().unwrap(), 1);
            assert!(waiter.parker.take());
        });
    }

    #[test]
    fn a_waiter_sees_the_new_value_or_is_woken_by_whoever_finds_the_wake_up_that_was_handed_over() {
        loom::model(|| {
            let futex = futex();
            let handed_over = Arc::new(HandedOver(std::array::from_fn(|_| AtomicU64::new(0))));
            let (waits, wakes, noted) = (futex.clone(), futex.clone(), handed_over.clone());
            let waiter = loom::thread::spawn(move || wait(&waits));
            let waker = loom::thread::spawn(move || {
                wakes.word.store(1, Ordering::Relaxed);
                noted.note(65);
            });
            let found = std::cell::Cell::new(0);
            let look = || {
                handed_over.take(|index| {
                    found.set(found.get() + index);
                    futex.bucket.wake_all(|woken| match woken {
                        Woken::Notify(parker) => assert!(parker.notify().is_none()),
                        Woken::Parked(_) => unreachable!("it waits for its parker"),
                    });
                });
            };
            // For another reason, and because of the bell.
            look();
            waker.join().unwrap();
            look();
            assert_eq!(found.get(), 65);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn a_waiter_whose_time_is_up_goes_only_when_no_waker_has_it() {
        loom::model(|| {
            let futex = futex();
            let other = futex.clone();
            let waker = loom::thread::spawn(move || wake(&other, 1));
            let waiter = Waiter::new(64, 1);
            // SAFETY: it stays in place until it was removed or notified.
            let waits =
                unsafe { futex.bucket.wait(&waiter, || futex.word.load(Ordering::Relaxed) == 0) };
            let withdrew = waits && futex.bucket.remove(&waiter);
            if waits && !withdrew {
                while !waiter.parker.take() {
                    loom::thread::yield_now();
                }
            }
            let woken = waker.join().unwrap();
            assert_eq!(woken, u32::from(waits && !withdrew));
        });
    }
}
