//! Threads that compute for long are interrupted wherever they are, and notice nothing.

#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, RwLock, mpsc};

use preempt::{interrupted, on_each};

/// A generator of numbers that need not be good.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn that_loop_without_a_call_let_each_other_run() {
    interrupted(|| {
        let turns = [const { AtomicU64::new(0) }; 8];
        on_each(8, |i| {
            // Each waits for all others to get as far as it is.
            for turn in 1..5 {
                turns[i].store(turn, Ordering::Release);
                while turns.iter().any(|t| t.load(Ordering::Acquire) < turn) {
                    std::hint::spin_loop();
                }
            }
        });
    });
}

#[test]
fn that_allocate_and_free_keep_the_heap_whole() {
    interrupted(|| {
        on_each(8, |i| {
            let mut seed = i as u64;
            let mut kept: HashMap<u64, Vec<u8>> = HashMap::new();
            for _ in 0..2000 {
                let key = next(&mut seed) % 64;
                let length = next(&mut seed) as usize % 3000;
                if let Some(old) = kept.insert(key, vec![key as u8; length]) {
                    assert!(old.iter().all(|b| *b == key as u8));
                }
            }
        });
    });
}

#[test]
fn that_print_write_whole_lines() {
    interrupted(|| {
        on_each(8, |i| {
            let mut text = String::new();
            for n in 0..200 {
                writeln!(text, "thread {i} line {n} {:>8.3}", n as f64 / 3.0).unwrap();
            }
            assert_eq!(text.lines().count(), 200);
            let mut out = std::io::stdout().lock();
            let mut again = std::io::stdout().lock();
            out.write_all(b"").unwrap();
            again.flush().unwrap();
        });
    });
}

#[test]
fn that_panic_with_backtraces_panic_for_themselves() {
    std::panic::set_hook(Box::new(|_| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        std::hint::black_box(&backtrace);
    }));
    interrupted(|| {
        on_each(6, |i| {
            for n in 0..20 {
                let payload = catch_unwind(|| panic!("{}", i * 1000 + n)).unwrap_err();
                assert_eq!(payload.downcast_ref::<String>(), Some(&format!("{}", i * 1000 + n)));
                assert!(!std::thread::panicking());
            }
            assert!(
                std::backtrace::Backtrace::force_capture().to_string().contains("preempt_hogs")
            );
        });
    });
}

#[test]
fn that_contend_for_locks_of_std_exclude_each_other() {
    interrupted(|| {
        let counter = Mutex::new(0_u64);
        let table = RwLock::new(vec![0_u64; 16]);
        let once = OnceLock::new();
        let (sender, receiver) = mpsc::channel();
        on_each(8, |i| {
            once.get_or_init(|| (0..1000).fold(i, |a, b| std::hint::black_box(a ^ b)));
            for n in 0..200 {
                let mut held = counter.lock().unwrap();
                let before = *held;
                for _ in 0..20 {
                    std::hint::spin_loop();
                }
                *held = before + 1;
                drop(held);
                if n % 10 == 0 {
                    table.write().unwrap()[i] += 1;
                } else {
                    std::hint::black_box(table.read().unwrap().iter().sum::<u64>());
                }
            }
            sender.send(i).unwrap();
        });
        assert_eq!(*counter.lock().unwrap(), 8 * 200);
        assert_eq!(table.read().unwrap().iter().sum::<u64>(), 8 * 20);
        assert_eq!(receiver.try_iter().sum::<usize>(), (0..8).sum());
    });
}

#[test]
fn that_wait_for_a_condvar_are_woken() {
    interrupted(|| {
        let turn = (Mutex::new(0_usize), Condvar::new());
        on_each(4, |i| {
            for round in 0..3 {
                let mut now = turn.0.lock().unwrap();
                while *now != round * 4 + i {
                    now = turn.1.wait(now).unwrap();
                }
                *now += 1;
                turn.1.notify_all();
            }
        });
    });
}

#[test]
fn that_borrow_a_thread_local_are_alone_with_it() {
    thread_local!(static OWN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) });
    interrupted(|| {
        on_each(8, |i| {
            OWN.with(|own| {
                let mut borrowed = own.borrow_mut();
                for n in 0..2000 {
                    borrowed.push(i ^ n);
                }
                assert!(own.try_borrow().is_err());
                assert!(borrowed.iter().enumerate().all(|(n, v)| *v == i ^ n));
            });
        });
    });
}

#[test]
fn that_sort_in_c_with_a_callback_get_what_they_asked_for() {
    unsafe extern "C" {
        fn qsort(
            base: *mut libc::c_void,
            count: usize,
            size: usize,
            compare: unsafe extern "C" fn(*const libc::c_void, *const libc::c_void) -> libc::c_int,
        );
    }
    unsafe extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
        // SAFETY: the array below is one of such numbers.
        unsafe { (*a.cast::<u64>()).cmp(&*b.cast::<u64>()) as libc::c_int }
    }
    interrupted(|| {
        on_each(4, |i| {
            let mut seed = i as u64;
            let mut numbers: Vec<u64> = (0..2000).map(|_| next(&mut seed)).collect();
            let sum = numbers.iter().sum::<u64>();
            // SAFETY: base, count and size are those of the vector.
            unsafe { qsort(numbers.as_mut_ptr().cast(), numbers.len(), 8, compare) };
            assert!(numbers.is_sorted());
            assert_eq!(numbers.iter().sum::<u64>(), sum);
        });
    });
}

#[test]
fn that_look_names_up_find_them() {
    use std::net::ToSocketAddrs;

    interrupted(|| {
        on_each(2, |_| {
            let found: Vec<_> = ("localhost", 80).to_socket_addrs().unwrap().collect();
            assert!(found.iter().all(|a| a.ip().is_loopback()) && !found.is_empty());
        });
    });
}

#[test]
fn that_recurse_to_their_guard_page_survive_every_tick() {
    /// Goes down until little is left, computing all the way.
    #[inline(never)]
    fn down(bottom: usize, seed: u64) -> u64 {
        let frame = std::hint::black_box([seed; 8]);
        let here = frame.as_ptr() as usize;
        let mut sum = 0;
        for _ in 0..30 {
            sum += std::hint::black_box(frame).iter().sum::<u64>();
        }
        if here - bottom < 700 { sum } else { down(bottom, seed + 1).wrapping_add(sum) }
    }
    interrupted(|| {
        on_each(4, |_| {
            let size = 64 << 10;
            let deep = uthread::Builder::new().stack_size(size);
            let thread = deep.spawn(move || {
                let here = 0_u8;
                let bottom = (&raw const here as usize & !(size - 1)) + 4096;
                let first = down(bottom, 1);
                assert!((0..5).all(|_| down(bottom, 1) == first));
            });
            thread.unwrap().join().unwrap();
        });
    });
}

#[test]
fn that_end_run_their_destructors() {
    static ENDED: AtomicU64 = AtomicU64::new(0);
    struct Long(u64);
    impl Drop for Long {
        fn drop(&mut self) {
            let sum = (0..20_000).fold(self.0, |a, b| std::hint::black_box(a + b));
            assert_eq!(sum, self.0 + 20_000 * 19_999 / 2);
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }
    thread_local!(static LONG: RefCell<Option<Long>> = const { RefCell::new(None) });
    interrupted(|| {
        let before = ENDED.load(Ordering::Relaxed);
        on_each(20, |i| LONG.set(Some(Long(i as u64))));
        assert_eq!(ENDED.load(Ordering::Relaxed) - before, 20);
    });
}

#[test]
fn that_spawn_threads_and_processes_join_them() {
    interrupted(|| {
        on_each(3, |i| {
            let green: Vec<_> = (0..50).map(|n| uthread::spawn(move || n * i)).collect();
            let os = std::thread::spawn(move || i + 1);
            let child = std::process::Command::new("true").spawn();
            let sum: usize = green.into_iter().map(|t| t.join().unwrap()).sum();
            assert_eq!(sum, i * 49 * 50 / 2);
            assert_eq!(os.join().unwrap(), i + 1);
            assert!(child.unwrap().wait().unwrap().success());
        });
    });
}

#[test]
fn that_handle_signals_of_their_own_go_on_after_them() {
    static HANDLED: AtomicU64 = AtomicU64::new(0);
    extern "C" fn handler(_: libc::c_int) {
        // Longer than a slice.
        let mut seed = 1;
        for _ in 0..20_000 {
            std::hint::black_box(next(&mut seed));
        }
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
    for (signal, flags) in
        [(libc::SIGUSR1, libc::SA_RESTART), (libc::SIGUSR2, libc::SA_RESTART | libc::SA_ONSTACK)]
    {
        // SAFETY: the handler uses nothing but atomics.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = flags;
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
    }
    interrupted(|| {
        on_each(4, |i| {
            let signal = if i % 2 == 0 { libc::SIGUSR1 } else { libc::SIGUSR2 };
            for n in 0..10_u64 {
                let before = HANDLED.load(Ordering::Relaxed);
                uthread::without_preemption(|| {
                    // SAFETY: the signal has a handler; the thread stays on its OS thread meanwhile.
                    unsafe {
                        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal)
                    }
                });
                assert!(HANDLED.load(Ordering::Relaxed) > before);
                assert_eq!((0..1000).fold(n, |a, b| std::hint::black_box(a + b)), n + 499_500);
            }
        });
    });
}

#[test]
fn that_have_just_failed_still_know_why() {
    interrupted(|| {
        on_each(8, |i| {
            for n in 0..300 {
                let (call, error): (fn() -> i32, i32) = if (i + n) % 2 == 0 {
                    // SAFETY: closing what is not open fails, and that is all.
                    (|| unsafe { libc::close(-1) }, libc::EBADF)
                } else {
                    // SAFETY: a signal that does not exist is refused.
                    (|| unsafe { libc::kill(0, 1000) }, libc::EINVAL)
                };
                assert_eq!(call(), -1);
                for _ in 0..200 {
                    std::hint::spin_loop();
                }
                assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(error));
            }
        });
    });
}
