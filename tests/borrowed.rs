//! What a thread borrows, and what it leaves: results and values that outlive or do not outlive others.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use uthread::Runtime;

/// Counts itself when it is dropped, unless the frame that it borrows from was left before.
struct Borrower<'a> {
    in_time: &'a AtomicUsize,
    late: &'static AtomicUsize,
    generation: &'static AtomicUsize,
    born: usize,
}

impl Drop for Borrower<'_> {
    fn drop(&mut self) {
        // A late one must not touch what it borrowed.
        let late = self.generation.load(SeqCst) != self.born;
        if late { self.late } else { self.in_time }.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_result_that_nobody_takes_is_dropped_before_its_scope_ends() {
    static GENERATION: AtomicUsize = AtomicUsize::new(0);
    static LATE: AtomicUsize = AtomicUsize::new(0);
    let runtime = Runtime::builder().workers(2).build().unwrap();
    for _ in 0..20_000 {
        let in_time = AtomicUsize::new(0);
        let born = GENERATION.load(SeqCst);
        runtime.run(|| {
            uthread::scope(|s| {
                let thread = s.spawn(|| Borrower {
                    in_time: &in_time,
                    late: &LATE,
                    generation: &GENERATION,
                    born,
                });
                while !thread.is_finished() {
                    uthread::yield_now();
                }
                // The thread may hold the last reference to the result.
                drop(thread);
            });
        });
        GENERATION.fetch_add(1, SeqCst);
        assert_eq!(in_time.into_inner(), 1);
    }
    drop(runtime);
    assert_eq!(LATE.load(SeqCst), 0);
}

#[test]
fn a_runtime_dropped_on_a_thread_of_another_lets_the_others_there_go_on() {
    let outer = Runtime::builder().workers(1).build().unwrap();
    outer.run(|| {
        let inner = Runtime::builder().workers(1).build().unwrap();
        let told = Arc::new(AtomicBool::new(false));
        let waits = told.clone();
        let thread = inner.spawn(move || {
            while !waits.load(SeqCst) {
                uthread::sleep(Duration::from_millis(1));
            }
        });
        // It runs only if the drop below leaves the one worker to it.
        uthread::spawn(move || told.store(true, SeqCst));
        drop(inner);
        thread.join().unwrap();
    });
}

#[test]
fn os_threads_may_park_in_destructors_of_thread_locals() {
    struct Parks;

    impl Drop for Parks {
        fn drop(&mut self) {
            uthread::park_timeout(Duration::from_micros(100));
            assert!(uthread::current().name().is_none());
        }
    }

    thread_local!(static PARKS: Parks = const { Parks });

    // Before the crate's own thread-local, and after it.
    std::thread::spawn(|| {
        PARKS.with(|_| ());
        uthread::park_timeout(Duration::from_micros(100));
    })
    .join()
    .unwrap();
    std::thread::spawn(|| {
        uthread::park_timeout(Duration::from_micros(100));
        PARKS.with(|_| ());
    })
    .join()
    .unwrap();
}

#[test]
fn thread_locals_are_aligned_as_they_ask() {
    #[repr(align(1024))]
    struct Aligned(Cell<u8>);

    thread_local!(static ALIGNED: Aligned = const { Aligned(Cell::new(1)) });

    fn misalignment() -> usize {
        // Through a black box, since the compiler takes the alignment for granted.
        ALIGNED.with(|x| std::hint::black_box(std::ptr::from_ref(&x.0) as usize) % 1024)
    }

    assert_eq!(uthread::spawn(misalignment).join().unwrap(), 0);
}

#[test]
fn stacks_may_be_larger_than_a_slab_of_many() {
    let thread = uthread::Builder::new().stack_size(2 << 30).spawn(|| 1).unwrap();
    assert_eq!(thread.join().unwrap(), 1);
}

#[test]
fn closures_may_be_larger_than_the_first_page_of_a_stack() {
    let large = [7_u8; 16 << 10];
    let sum = move || std::hint::black_box(&large).iter().map(|x| *x as u64).sum::<u64>();
    let thread = uthread::Builder::new().stack_size(256 << 10).spawn(sum);
    assert_eq!(thread.unwrap().join().unwrap(), 7 * (16 << 10));
}

#[test]
fn a_thread_that_joins_itself_panics() {
    let (give, take) = mpsc::channel::<uthread::JoinHandle<()>>();
    let (done, ended) = mpsc::channel();
    let thread = uthread::spawn(move || {
        let own = loop {
            match take.try_recv() {
                Ok(own) => break own,
                Err(_) => uthread::yield_now(),
            }
        };
        let joined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| own.join()));
        done.send(joined.is_err()).unwrap();
    });
    give.send(thread).unwrap();
    assert!(ended.recv().unwrap(), "it would wait for ever");
}
