//! On the stack, on the heap and in thread-local storage.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::count;
use crate::preempt::{Random, checksum};

/// Boxes, vectors, strings and a table, of random sizes, kept for a while.
pub(crate) fn allocate(seed: u64) {
    enum Kept {
        Box(Box<[u64; 9]>, u64),
        Vec(Vec<u8>, u64),
        String(String, u64),
    }

    let mut random = Random(seed);
    let mut table = HashMap::new();
    for _ in 0..200 {
        let (fill, length) = (random.next(), random.below(2000) as usize);
        let new = match random.below(3) {
            0 => Kept::Box(Box::new([fill; 9]), fill),
            1 => {
                let mut bytes = vec![fill as u8; length];
                // Grows out of its place.
                bytes.extend_from_slice(&fill.to_ne_bytes());
                let sum = checksum(&bytes);
                Kept::Vec(bytes, sum)
            }
            _ => {
                let text: String =
                    (0..length / 8).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
                let sum = checksum(text.as_bytes());
                Kept::String(text, sum)
            }
        };
        let old = table.insert(random.below(40), new);
        match old {
            Some(Kept::Box(boxed, fill)) => assert_eq!(*boxed, [fill; 9]),
            Some(Kept::Vec(bytes, sum)) => assert_eq!(checksum(&bytes), sum),
            Some(Kept::String(text, sum)) => assert_eq!(checksum(text.as_bytes()), sum),
            None => {}
        }
    }
}

/// Boxes that are freed by other threads than have made them.
pub(crate) fn hand_on(seed: u64) {
    static MAIL: Mutex<VecDeque<(u64, Vec<u8>)>> = Mutex::new(VecDeque::new());
    let mut random = Random(seed);
    for _ in 0..40 {
        let bytes = vec![random.next() as u8; random.below(1500) as usize];
        let mut mail = MAIL.lock().unwrap();
        mail.push_back((checksum(&bytes), bytes));
        // Somebody else's, most of the time.
        let got = if mail.len() > 20 { mail.pop_front() } else { None };
        drop(mail);
        if let Some((sum, bytes)) = got {
            assert_eq!(checksum(&bytes), sum);
        }
    }
}

/// Text of numbers, read back.
pub(crate) fn format(seed: u64) {
    let mut random = Random(seed);
    let mut text = String::new();
    let numbers: Vec<(u64, f64)> =
        (0..60).map(|_| (random.next(), f64::from(random.next() as u32).sqrt())).collect();
    for (n, x) in &numbers {
        writeln!(text, "{n:#018x} {x:e} {}", format_args!("{n}/{x}")).unwrap();
    }
    for (line, (n, x)) in text.lines().zip(&numbers) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap().trim_start_matches("0x");
        assert_eq!(u64::from_str_radix(first, 16), Ok(*n));
        assert_eq!(words.next().unwrap().parse::<f64>().map(f64::to_bits), Ok(x.to_bits()));
        assert_eq!(words.next(), Some(&*format!("{n}/{x}")));
    }
}

thread_local! {
    static LOG: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static PLAIN: Cell<[u64; 32]> = const { Cell::new([0; 32]) };
}

/// A thread-local borrowed over a long computation, which others borrow meanwhile.
pub(crate) fn borrow(seed: u64) {
    LOG.with(|log| {
        let mut borrowed = log.borrow_mut();
        borrowed.clear();
        for n in 0..1500 {
            borrowed.push(n ^ seed);
        }
        assert!(log.try_borrow().is_err());
        assert!(borrowed.iter().zip(0..).all(|(v, n)| *v == n ^ seed));
    });
}

/// An array on the stack, one in thread-local storage, and errno.
pub(crate) fn remember(seed: u64) {
    let array: [u64; 400] = std::array::from_fn(|i| seed.wrapping_mul(i as u64 + 1));
    PLAIN.set([seed; 32]);
    let errno = 1 + (seed % 100) as i32;
    // SAFETY: the location is valid as long as the thread.
    unsafe { *libc::__errno_location() = errno };
    count(seed);
    // SAFETY: as above.
    assert_eq!(unsafe { *libc::__errno_location() }, errno);
    assert_eq!(PLAIN.get(), [seed; 32]);
    let array = black_box(array);
    assert!(array.iter().zip(1..).all(|(v, i)| *v == seed.wrapping_mul(i)));
}

/// How many destructors have run that [`leave_behind`] left to the thread's end.
pub(crate) static DESTROYED: AtomicU64 = AtomicU64::new(0);

/// Leaves a thread-local with a destructor that computes for several slices, and sets another thread-local.
pub(crate) fn leave_behind(seed: u64) {
    struct Long(u64, Vec<u64>);

    impl Drop for Long {
        fn drop(&mut self) {
            count(self.0);
            assert!(self.1.iter().all(|v| *v == self.0));
            if self.0 != 0 {
                // Gone already if it was used earlier than this one: then it ends here.
                let another = Long(0, vec![0; 100]);
                let _ = LATE.try_with(move |late| late.replace(Some(another)));
            }
            DESTROYED.fetch_add(1, Ordering::Relaxed);
        }
    }

    thread_local! {
        static EARLY: RefCell<Option<Long>> = const { RefCell::new(None) };
        static LATE: RefCell<Option<Long>> = const { RefCell::new(None) };
    }
    let seed = seed | 1;
    EARLY.with(|early| drop(early.replace(Some(Long(seed, vec![seed; 100])))));
}

/// Runs on a thread of its own that goes down until a few hundred bytes are left above its guard page, and up
/// again, several times.
pub(crate) fn recurse(seed: u64) {
    const SIZE: usize = 64 << 10;
    /// What the calls in a frame take, in a debug build.
    const CALLS: usize = 500;

    #[inline(never)]
    fn down(bottom: usize, above: usize, seed: u64) -> u64 {
        let frame = black_box([seed; 16]);
        let here = frame.as_ptr() as usize;
        let mut sum = 0_u64;
        for _ in 0..10 {
            sum = sum.wrapping_add(black_box(frame[(seed % 16) as usize]));
        }
        let frame_size = above - here;
        if here - bottom > 2 * frame_size + CALLS {
            sum = sum.wrapping_add(down(bottom, here, seed + 1));
        } else {
            // At the bottom, for a slice or two.
            for i in 0..4000 {
                sum = black_box(sum ^ i);
            }
        }
        for value in frame {
            assert!(value == seed);
        }
        sum
    }

    let deep = uthread::Builder::new().stack_size(SIZE);
    let thread = deep.spawn(move || {
        let here = 0_u8;
        let here = &raw const here as usize;
        // Stacks are aligned to their size; the guard page is the lowest.
        let bottom = (here & !(SIZE - 1)) + 4096;
        let first = down(bottom, here, seed % 1000);
        assert!((0..3).all(|_| down(bottom, here, seed % 1000) == first));
    });
    thread.unwrap().join().unwrap();
}
