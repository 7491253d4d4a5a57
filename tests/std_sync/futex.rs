//! The system call itself.

use std::ffi::c_int;
use std::io;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use libc::timespec;
use uthread::Runtime;

use crate::cast::{Cast, TIMES, a_moment, eventually, flag, is_up, join_all, lasting, raise};
use crate::watchdog::watched;

const PRIVATE: c_int = libc::FUTEX_PRIVATE_FLAG;
const ALL: u32 = i32::MAX as u32;

/// The result, or the error's number.
fn outcome(result: libc::c_long) -> Result<usize, c_int> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap())
}

/// The system call with a time-out.
fn wait_by(
    operation: c_int,
    word: &AtomicU32,
    value: u32,
    time: Option<timespec>,
    mask: u32,
) -> Result<usize, c_int> {
    let time = time.as_ref().map_or(null(), std::ptr::from_ref);
    loop {
        // SAFETY: the pointers are valid or null.
        let result = outcome(unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                operation,
                value,
                time,
                null_mut::<u32>(),
                mask,
            )
        });
        // Interruptions of OS threads, and of green ones in the kernel.
        if result != Err(libc::EINTR) {
            return result;
        }
    }
}

fn wait(word: &AtomicU32, value: u32) -> Result<usize, c_int> {
    wait_by(libc::FUTEX_WAIT | PRIVATE, word, value, None, 0)
}

fn wait_with_mask(word: &AtomicU32, value: u32, mask: u32) -> Result<usize, c_int> {
    wait_by(libc::FUTEX_WAIT_BITSET | PRIVATE, word, value, None, mask)
}

fn wake(word: &AtomicU32, most: u32) -> usize {
    // SAFETY: nothing is accessed.
    outcome(unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | PRIVATE, most)
    })
    .unwrap()
}

fn wake_by_mask(word: &AtomicU32, most: u32, mask: u32) -> Result<usize, c_int> {
    let operation = libc::FUTEX_WAKE_BITSET | PRIVATE;
    // SAFETY: nothing is accessed.
    outcome(unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation,
            most,
            null::<timespec>(),
            null::<u32>(),
            mask,
        )
    })
}

/// Requeues from one word to another; with `value`, if the word has that.
fn requeue(
    from: &AtomicU32,
    to: &AtomicU32,
    wakes: u32,
    moves: u32,
    value: Option<u32>,
) -> Result<usize, c_int> {
    let command = if value.is_some() { libc::FUTEX_CMP_REQUEUE } else { libc::FUTEX_REQUEUE };
    // SAFETY: both words are valid.
    outcome(unsafe {
        libc::syscall(
            libc::SYS_futex,
            from.as_ptr(),
            command | PRIVATE,
            wakes,
            moves as usize,
            to.as_ptr(),
            value.unwrap_or(0),
        )
    })
}

fn spec(time: Duration) -> timespec {
    timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos().into() }
}

/// What a clock says.
fn now(clock: libc::clockid_t) -> Duration {
    let mut time = spec(Duration::ZERO);
    // SAFETY: the pointer is valid.
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Both clocks, and how to wait until a point of each.
const CLOCKS: [(libc::clockid_t, c_int); 2] = [
    (libc::CLOCK_MONOTONIC, libc::FUTEX_WAIT_BITSET | PRIVATE),
    (libc::CLOCK_REALTIME, libc::FUTEX_WAIT_BITSET | PRIVATE | libc::FUTEX_CLOCK_REALTIME),
];

/// Whether waiters stay where they are until they are woken. In the kernel, green threads are interrupted, to be moved to
/// helpers, and begin their wait anew: who counts them may miss one just then.
fn waits_are_steady(cast: Cast) -> bool {
    cast == Cast::Os || uthread::interposed()
}

/// Waits until so many wait on one of the words. They are all that wait for a lock or the like on this runtime.
fn until_waiting(cast: Cast, words: &[&AtomicU32], n: usize) {
    let green = || match cast {
        Cast::Os => 0,
        _ => {
            let threads = uthread::threads().unwrap();
            threads.iter().filter(|t| t.state.reason() == Some(uthread::WaitReason::Futex)).count()
        }
    };
    let began = Instant::now();
    eventually(|| match in_kernel(words) {
        Some(in_kernel) => in_kernel + green() == n,
        None => began.elapsed() > Duration::from_millis(50),
    });
}

/// How many of the process's OS threads wait on one of the words; unless it is forbidden to look.
fn in_kernel(words: &[&AtomicU32]) -> Option<usize> {
    let number = libc::SYS_futex.to_string();
    let words: Vec<_> = words.iter().map(|w| format!("{:p}", w.as_ptr())).collect();
    let mut count = 0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        match std::fs::read_to_string(thread.ok()?.path().join("syscall")) {
            Ok(call) => {
                let mut call = call.split(' ');
                let waits = call.next() == Some(&number);
                let on = call.next().is_some_and(|word| words.iter().any(|w| w == word));
                count += usize::from(waits && on);
            }
            // It has ended.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(_) => return None,
        }
    }
    Some(count)
}

/// Wakes as many as come, until so many were woken.
fn wake_in_all(word: &AtomicU32, n: usize) {
    let mut woken = 0;
    eventually_with(|| {
        woken += wake(word, ALL);
        woken >= n
    });
    assert_eq!(woken, n);
}

fn eventually_with(f: impl FnMut() -> bool) {
    let f = std::cell::RefCell::new(f);
    eventually(|| (*f.borrow_mut())());
}

/// So many of those that are asked for as can wait in the kernel, where they have to.
fn crowd(n: usize) -> usize {
    if uthread::interposed() { n } else { n.min(50) }
}

scenarios! {
    fn a_word_with_another_value_is_not_waited_for(cast) {
        let word = AtomicU32::new(1);
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                assert_eq!(wait(&word, 2), Err(libc::EAGAIN));
                assert_eq!(wait_with_mask(&word, 0, 1), Err(libc::EAGAIN));
                let time = Some(spec(Duration::from_secs(1000)));
                assert_eq!(wait_by(libc::FUTEX_WAIT | PRIVATE, &word, 0, time, 0), Err(libc::EAGAIN));
                assert_eq!(wake(&word, ALL), 0);
            }));
        });
    }

    fn so_many_are_woken_as_is_said(cast) {
        if !waits_are_steady(cast) {
            return;
        }
        let (word, woken) = (AtomicU32::new(0), AtomicUsize::new(0));
        cast.scope(|crew| {
            for _ in 0..7 {
                crew.spawn(|| {
                    assert_eq!(wait(&word, 0), Ok(0));
                    woken.fetch_add(1, SeqCst);
                });
            }
            until_waiting(cast, &[&word], 7);
            assert_eq!(wake(&word, 1), 1);
            eventually(|| woken.load(SeqCst) == 1);
            assert_eq!(wake(&word, 3), 3);
            eventually(|| woken.load(SeqCst) == 4);
            // The kernel wakes one where none is asked for.
            assert_eq!(wake(&word, 0), 1);
            eventually(|| woken.load(SeqCst) == 5);
            a_moment();
            assert_eq!(woken.load(SeqCst), 5);
            assert_eq!(wake(&word, ALL), 2);
            assert_eq!(wake(&word, ALL), 0);
        });
        assert_eq!(woken.into_inner(), 7);
    }

    fn words_are_told_apart(cast) {
        // Neighbours, and enough of them that some share a bucket.
        let words: Vec<_> = (0..40).map(|_| AtomicU32::new(0)).collect();
        let woken: Vec<_> = words.iter().map(|_| flag()).collect();
        cast.scope(|crew| {
            let (words, woken) = (&words, &woken);
            crew.spawn_all(words.len(), move |i| {
                assert_eq!(wait(&words[i], 0), Ok(0));
                raise(&woken[i]);
            });
            for i in 0..words.len() {
                eventually(|| wake(&words[i], 1) == 1);
                eventually(|| is_up(&woken[i]));
                let up = |flags: &[AtomicBool]| flags.iter().filter(|f| is_up(f)).count();
                assert_eq!(up(woken), i + 1);
            }
        });
    }

    fn masks_choose_who_is_woken(cast) {
        if !waits_are_steady(cast) {
            return;
        }
        let word = AtomicU32::new(0);
        cast.scope(|crew| {
            let word = &word;
            let waiting = [0b0001, 0b0010, 0b0110, u32::MAX]
                .map(|mask| crew.spawn(move || assert_eq!(wait_with_mask(word, 0, mask), Ok(0))));
            until_waiting(cast, &[word], 4);
            assert_eq!(wake_by_mask(word, ALL, 0b0100), Ok(2));
            eventually(|| waiting[2].is_finished() && waiting[3].is_finished());
            assert_eq!(wake_by_mask(word, ALL, 0b1000), Ok(0));
            assert!(!waiting[0].is_finished() && !waiting[1].is_finished());
            assert_eq!(wake_by_mask(word, ALL, 0b0001), Ok(1));
            eventually(|| waiting[0].is_finished());
            // Without a mask, whoever waits.
            assert_eq!(wake(word, ALL), 1);
            waiting.into_iter().for_each(|w| w.join());
        });
    }

    fn what_is_invalid_is_an_error(cast) {
        let word = AtomicU32::new(0);
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                let times = [(-1, 0), (0, -1), (0, 1_000_000_000), (-1, 999_999_999)];
                for (tv_sec, tv_nsec) in times {
                    let time = Some(timespec { tv_sec, tv_nsec });
                    // Whatever the word's value.
                    for value in [0, 1] {
                        let result = wait_by(libc::FUTEX_WAIT | PRIVATE, &word, value, time, 0);
                        assert_eq!(result, Err(libc::EINVAL));
                        for (_, operation) in CLOCKS {
                            let result = wait_by(operation, &word, value, time, u32::MAX);
                            assert_eq!(result, Err(libc::EINVAL));
                        }
                    }
                }
                assert_eq!(wait_with_mask(&word, 0, 0), Err(libc::EINVAL));
                assert_eq!(wake_by_mask(&word, 1, 0), Err(libc::EINVAL));
                let odd = word.as_ptr().wrapping_byte_add(1);
                for command in [libc::FUTEX_WAIT, libc::FUTEX_WAKE] {
                    // SAFETY: the kernel refuses the address.
                    let result = unsafe {
                        libc::syscall(libc::SYS_futex, odd, command | PRIVATE, 1, null::<timespec>())
                    };
                    assert_eq!(outcome(result), Err(libc::EINVAL));
                }
                // SAFETY: there is no such command.
                let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), 99 | PRIVATE, 1) };
                assert_eq!(outcome(result), Err(libc::ENOSYS));
            }));
        });
    }

    fn times_are_not_up_early(cast) {
        let word = AtomicU32::new(0);
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                for time in TIMES {
                    let relative = || {
                        wait_by(libc::FUTEX_WAIT | PRIVATE, &word, 0, Some(spec(time)), 0)
                    };
                    assert_eq!(lasting(time, relative), Err(libc::ETIMEDOUT));
                    for (clock, operation) in CLOCKS {
                        let until = now(clock) + time;
                        let result = wait_by(operation, &word, 0, Some(spec(until)), 1);
                        assert_eq!(result, Err(libc::ETIMEDOUT));
                        let late = now(clock).checked_sub(until);
                        assert!(late.is_some(), "on clock {clock}");
                    }
                }
            }));
            assert_eq!(wake(&word, ALL), 0);
        });
    }

    fn points_in_the_past_are_not_waited_for(cast) {
        let word = AtomicU32::new(0);
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                for (clock, operation) in CLOCKS {
                    for until in [Duration::ZERO, now(clock) - Duration::from_secs(1)] {
                        let result = wait_by(operation, &word, 0, Some(spec(until)), 1);
                        assert_eq!(result, Err(libc::ETIMEDOUT));
                        // The word is looked at first.
                        let result = wait_by(operation, &word, 1, Some(spec(until)), 1);
                        assert_eq!(result, Err(libc::EAGAIN));
                    }
                }
            }));
        });
    }

    fn the_end_of_time_is_waited_for_until_somebody_wakes(cast) {
        if !waits_are_steady(cast) {
            return;
        }
        let word = AtomicU32::new(0);
        cast.scope(|crew| {
            let word = &word;
            let far = Some(timespec { tv_sec: i64::MAX, tv_nsec: 999_999_999 });
            let operations = [CLOCKS[0].1, CLOCKS[1].1, libc::FUTEX_WAIT | PRIVATE];
            let waiting = operations.map(|operation| {
                crew.spawn(move || assert_eq!(wait_by(operation, word, 0, far, 1), Ok(0)))
            });
            until_waiting(cast, &[word], 3);
            a_moment();
            assert!(!waiting.iter().any(|w| w.is_finished()));
            assert_eq!(wake(word, ALL), 3);
            waiting.into_iter().for_each(|w| w.join());
        });
    }

    fn who_is_woken_just_when_the_time_is_up_has_one_of_both(cast) {
        let (word, woken) = (AtomicU32::new(0), AtomicUsize::new(0));
        cast.scope(|crew| {
            let (word, woken) = (&word, &woken);
            let waits = crew.spawn_all(4, move |i| {
                for n in 0..80 {
                    let time = spec(Duration::from_micros((n * 17 + i * 5) as u64 % 100));
                    match wait_by(libc::FUTEX_WAIT | PRIVATE, word, 0, Some(time), 0) {
                        Ok(_) => _ = woken.fetch_add(1, SeqCst),
                        error => assert_eq!(error, Err(libc::ETIMEDOUT)),
                    }
                }
            });
            let mut announced = 0;
            while !waits.iter().all(|w| w.is_finished()) {
                announced += wake(word, 2);
                std::thread::sleep(Duration::from_micros(50));
            }
            join_all(waits);
            assert_eq!(announced, woken.load(SeqCst));
        });
    }

    fn nobody_is_lost_who_is_moved_to_another_word(cast) {
        if !waits_are_steady(cast) {
            return;
        }
        let (from, to) = (AtomicU32::new(0), AtomicU32::new(0));
        let woken = AtomicUsize::new(0);
        cast.scope(|crew| {
            let waiting = crew.spawn_all(6, |_| {
                assert_eq!(wait(&from, 0), Ok(0));
                woken.fetch_add(1, SeqCst);
            });
            until_waiting(cast, &[&from], 6);
            // The comparison fails: nobody is woken.
            assert_eq!(requeue(&from, &to, 1, ALL, Some(1)), Err(libc::EAGAIN));
            a_moment();
            assert_eq!(woken.load(SeqCst), 0);
            assert_eq!(requeue(&from, &to, 1, ALL, Some(0)), Ok(6));
            // One or, since wake-ups for no reason are allowed, more have gone; nobody waits on the first word.
            eventually(|| woken.load(SeqCst) > 0);
            assert_eq!(wake(&from, ALL), 0);
            wake(&to, ALL);
            join_all(waiting);
        });
        assert_eq!(woken.into_inner(), 6);
    }

    fn a_move_without_comparison_loses_nobody_either(cast) {
        if !waits_are_steady(cast) {
            return;
        }
        let (from, to) = (AtomicU32::new(0), AtomicU32::new(0));
        cast.scope(|crew| {
            let waiting = crew.spawn_all(6, |_| assert_eq!(wait(&from, 0), Ok(0)));
            until_waiting(cast, &[&from], 6);
            requeue(&from, &to, 2, 2, None).unwrap();
            wake(&from, ALL);
            wake(&to, ALL);
            join_all(waiting);
        });
    }

    fn one_call_changes_a_word_and_wakes_on_both(cast) {
        if !waits_are_steady(cast) {
            return;
        }
        let (first, second) = (AtomicU32::new(0), AtomicU32::new(0));
        cast.scope(|crew| {
            let waiting = crew.spawn_all(4, |_| assert_eq!(wait(&first, 0), Ok(0)));
            let others = crew.spawn_all(4, |_| assert_eq!(wait(&second, 0), Ok(0)));
            until_waiting(cast, &[&first, &second], 8);
            // Adds 5 to the second word, and wakes there if it was 0 (futex(2)).
            let change = 1 << 28 | 5 << 12;
            // SAFETY: both words are valid.
            let woken = outcome(unsafe {
                let operation = libc::FUTEX_WAKE_OP | PRIVATE;
                let (a, b) = (first.as_ptr(), second.as_ptr());
                libc::syscall(libc::SYS_futex, a, operation, ALL, ALL as usize, b, change)
            });
            assert_eq!(woken, Ok(8));
            assert_eq!(second.load(SeqCst), 5);
            join_all(waiting);
            join_all(others);
        });
    }

    fn a_wake_up_after_the_change_is_never_missed(cast) {
        const ROUNDS: u32 = 300;
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        cast.scope(|crew| {
            let words = &words;
            crew.spawn_all(2, move |own| {
                for round in 1..=ROUNDS {
                    if own == 0 {
                        words[0].store(round, SeqCst);
                        wake(&words[0], 1);
                    }
                    while words[1 - own].load(SeqCst) != round {
                        // Whatever comes of it, the value is looked at again.
                        let _ = wait(&words[1 - own], round - 1);
                    }
                    if own == 1 {
                        words[1].store(round, SeqCst);
                        wake(&words[1], 1);
                    }
                }
            });
        });
    }

    fn success_leaves_the_last_error_alone(cast) {
        /// Not what any of the calls would fail with.
        const ERROR: c_int = libc::EXDEV;
        let leaves_it_alone = |call: &dyn Fn()| {
            // SAFETY: the location is the calling thread's own.
            unsafe { *libc::__errno_location() = ERROR };
            call();
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(ERROR));
        };
        let word = AtomicU32::new(0);
        cast.scope(|crew| {
            let waiting = crew.spawn_all(4, |_| leaves_it_alone(&|| assert_eq!(wait(&word, 0), Ok(0))));
            eventually(|| {
                leaves_it_alone(&|| _ = wake(&word, 1));
                waiting.iter().all(|w| w.is_finished())
            });
            join_all(waiting);
            join_all(crew.spawn_all(4, |_| {
                leaves_it_alone(&std::thread::yield_now);
                leaves_it_alone(&|| std::thread::sleep(Duration::from_micros(50)));
                leaves_it_alone(&|| std::thread::current().unpark());
                leaves_it_alone(&std::thread::park);
            }));
        });
    }

    fn a_crowd_is_woken_one_after_the_other(cast) {
        let n = if matches!(cast, Cast::Green(_)) { crowd(3000) } else { 100 };
        let (word, woken) = (AtomicU32::new(0), AtomicUsize::new(0));
        cast.scope(|crew| {
            let (word, woken) = (&word, &woken);
            crew.spawn_all(n, move |_| {
                assert_eq!(wait(word, 0), Ok(0));
                woken.fetch_add(1, SeqCst);
            });
            for _ in 0..n / 2 {
                eventually(|| wake(word, 1) == 1);
            }
            wake_in_all(word, n - n / 2);
        });
        assert_eq!(woken.into_inner(), n);
    }
}

mod green_and_os_threads_on_one_word {
    use super::*;

    /// Plays on a green thread of a runtime with one worker.
    fn on_one_worker(scenario: impl FnOnce() + Send) {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        if uthread::interposed() || runtime.preemption().is_ok() {
            watched(&runtime, || runtime.run(scenario));
        }
    }

    #[test]
    fn wake_ups_for_more_than_one_kind_has_reach_the_other() {
        if !waits_are_steady(Cast::Green(1)) {
            return;
        }
        on_one_worker(|| {
            let (word, woken) = (AtomicU32::new(0), Mutex::new([0, 0]));
            let wait = |kind: usize| {
                assert_eq!(wait(&word, 0), Ok(0));
                woken.lock().unwrap()[kind] += 1;
            };
            uthread::scope(|green| {
                std::thread::scope(|os| {
                    for _ in 0..3 {
                        green.spawn(|| wait(0));
                        os.spawn(|| wait(1));
                    }
                    until_waiting(Cast::Green(1), &[&word], 6);
                    assert_eq!(wake(&word, 5), 5);
                    eventually(|| woken.lock().unwrap().iter().sum::<usize>() == 5);
                    assert_eq!(wake(&word, 5), 1);
                });
            });
            assert_eq!(woken.into_inner().unwrap(), [3, 3]);
        });
    }

    /// Wakes one at a time of `green` green threads and `os` OS threads that come back as soon as they were woken, until
    /// everybody was woken several times.
    fn nobody_is_starved(green: usize, os: usize) {
        const TIMES: usize = 5;
        let (word, over) = (AtomicU32::new(0), flag());
        let counts: Vec<_> = (0..green + os).map(|_| AtomicUsize::new(0)).collect();
        let come_back = |i: usize| {
            while !is_up(&over) {
                if wait(&word, 0).is_ok() {
                    counts[i].fetch_add(1, SeqCst);
                }
            }
        };
        uthread::scope(|g| {
            std::thread::scope(|o| {
                let come_back = &come_back;
                for i in 0..green {
                    g.spawn(move || come_back(i));
                }
                for i in green..green + os {
                    o.spawn(move || come_back(i));
                }
                eventually(|| {
                    for _ in 0..100 {
                        wake(&word, 1);
                        uthread::yield_now();
                    }
                    counts.iter().all(|c| c.load(SeqCst) >= TIMES)
                });
                raise(&over);
                word.store(1, SeqCst);
                wake(&word, ALL);
            });
        });
    }

    #[test]
    fn a_crowd_of_green_threads_does_not_starve_an_os_thread() {
        on_one_worker(|| nobody_is_starved(crowd(500), 1));
    }

    #[test]
    fn a_crowd_of_os_threads_does_not_starve_a_green_one() {
        on_one_worker(|| nobody_is_starved(1, 20));
    }

    #[test]
    fn green_threads_are_woken_in_the_order_in_which_they_came() {
        on_one_worker(|| {
            if !uthread::interposed() {
                return;
            }
            let n = 100;
            let (word, woken) = (AtomicU32::new(0), Mutex::new(Vec::new()));
            uthread::scope(|s| {
                let (word, woken) = (&word, &woken);
                for i in 0..n {
                    s.spawn(move || {
                        wait(word, 0).unwrap();
                        woken.lock().unwrap().push(i);
                    });
                    until_waiting(Cast::Green(1), &[word], i + 1);
                }
                for i in 0..n / 2 {
                    assert_eq!(wake(word, 1), 1);
                    eventually(|| woken.lock().unwrap().len() == i + 1);
                }
                assert_eq!(wake(word, ALL), n - n / 2);
            });
            assert!(woken.into_inner().unwrap()[..n / 2].iter().copied().eq(0..n / 2));
        });
    }

    #[test]
    fn green_threads_that_may_not_park_wait_in_the_kernel_and_are_woken_there() {
        static WORD: AtomicU32 = AtomicU32::new(0);
        if !waits_are_steady(Cast::Green(1)) {
            return;
        }
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let in_blocking = || uthread::blocking(|| wait(&WORD, 0));
        let pinned = || uthread::without_preemption(|| wait(&WORD, 0));
        watched(&runtime, || {
            for waits in [in_blocking as fn() -> _, pinned] {
                let waiting = runtime.spawn(waits);
                // The one that is pinned is interrupted again and again, and waits anew.
                until_waiting(Cast::Os, &[&WORD], 1);
                eventually(|| wake(&WORD, 1) == 1);
                assert_eq!(waiting.join().unwrap(), Ok(0));
            }
        });
    }

    #[test]
    fn words_that_processes_share_are_the_kernels() {
        on_one_worker(|| {
            let word = AtomicU32::new(0);
            std::thread::scope(|s| {
                // Without the flag; by an OS thread and by a green one, which is moved.
                let waits = || wait_by(libc::FUTEX_WAIT, &word, 0, None, 0);
                let os = s.spawn(waits);
                uthread::scope(|g| {
                    let green = g.spawn(waits);
                    a_moment();
                    let mut woken = 0;
                    eventually_with(|| {
                        // SAFETY: nothing is accessed.
                        woken += outcome(unsafe {
                            libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1)
                        })
                        .unwrap();
                        woken == 2
                    });
                    assert_eq!((os.join().unwrap(), green.join().unwrap()), (Ok(0), Ok(0)));
                });
            });
        });
    }
}
