//! What interrupted threads may be doing, as small functions. Each depends on a seed, computes for some
//! slices or blocks, and panics if it notices that it was interrupted.

#![allow(dead_code)] // each test file uses a part

#[path = "bodies/c.rs"]
pub(crate) mod c;
#[path = "bodies/memory.rs"]
pub(crate) mod memory;
#[path = "bodies/output.rs"]
pub(crate) mod output;
#[path = "bodies/processor.rs"]
pub(crate) mod processor;
#[path = "bodies/registers.rs"]
pub(crate) mod registers;
#[path = "bodies/signals.rs"]
pub(crate) mod signals;
#[path = "bodies/spawns.rs"]
pub(crate) mod spawns;
#[path = "bodies/waits.rs"]
pub(crate) mod waits;

use std::hint::black_box;
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use crate::preempt::os_thread;

/// A body, for [`ALL`].
pub(crate) struct Body {
    pub(crate) name: &'static str,
    pub(crate) play: fn(u64),
    /// It takes so long that it should be rare among others.
    pub(crate) is_slow: bool,
}

macro_rules! bodies {
    ($($path:expr),+ $(,)?; slow: $($slow:expr),+ $(,)?) => {
        &[
            $(Body { name: stringify!($path), play: $path, is_slow: false },)+
            $(Body { name: stringify!($slow), play: $slow, is_slow: true },)+
        ]
    };
}

/// All bodies.
pub(crate) const ALL: &[Body] = bodies![
    count, contend, fail, insist, wait,
    memory::allocate, memory::hand_on, memory::format, memory::borrow, memory::remember,
    memory::leave_behind, memory::recurse,
    output::print, output::unwind, output::capture,
    spawns::spawn,
    processor::hold_all, processor::hold_few, processor::add_vectors, processor::add_in_x87,
    processor::round, processor::sum_in_red_zone,
    c::sort, c::look_up, c::search, c::print_numbers, c::tell_time, c::compress, c::jump,
    signals::handle, signals::block,
    blocked::read,
    blocked::read_once,
    blocked::write,
    blocked::receive,
    blocked::accept,
    blocked::poll,
    blocked::epoll,
    blocked::lock_file,
    blocked::lock_part_of_file,
    blocked::open,
    blocked::sleep,
    blocked::lock,
    blocked::join,
    blocked::read_into_stack,
    blocked::receive_from_channel,
    blocked::wait_for_condvar,
    blocked::wait_at_barrier,
    blocked::park_in_std;
    slow: output::panic_aloud, spawns::spawn_os_thread, spawns::spawn_process, spawns::fork, blocked::wait_for_child,
];

/// A loop without a call.
pub(crate) fn count(seed: u64) {
    // Some slices.
    let n = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
    let sum = (0..n).fold(seed, |a, b| black_box(a.wrapping_add(b)));
    assert_eq!(sum, seed.wrapping_add(n * (n - 1) / 2));
}

/// Contends for locks with everybody else who does this, and computes with the locks in hand.
pub(crate) fn contend(seed: u64) {
    static PAIR: Mutex<[u64; 2]> = Mutex::new([0; 2]);
    static TABLE: RwLock<[u64; 16]> = RwLock::new([0; 16]);
    for n in 0..10 {
        let mut pair = PAIR.lock().unwrap();
        let before = *pair;
        assert_eq!(before[0], before[1]);
        pair[0] += 1;
        spin(100);
        pair[1] = before[1] + 1;
        drop(pair);
        if n % 5 == 0 {
            let mut table = TABLE.write().unwrap();
            for value in table.iter_mut() {
                *value = seed;
                spin(10);
            }
        } else {
            let table = TABLE.read().unwrap();
            let first = table[0];
            spin(100);
            assert_eq!(*table, [first; 16]);
        }
    }
}

fn spin(times: u32) {
    for _ in 0..times {
        std::hint::spin_loop();
    }
}

/// Fails at a system call, and asks later why.
pub(crate) fn fail(seed: u64) {
    for n in 0..100 {
        let (call, error): (fn() -> i32, i32) = if (seed + n).is_multiple_of(2) {
            // SAFETY: closing what is not open fails, and that is all.
            (|| unsafe { libc::close(-1) }, libc::EBADF)
        } else {
            // SAFETY: a signal that does not exist is refused.
            (|| unsafe { libc::kill(0, 1000) }, libc::EINVAL)
        };
        assert_eq!(call(), -1);
        spin(200);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(error));
    }
}

/// Is not interrupted for a while, although it is time.
pub(crate) fn insist(seed: u64) {
    uthread::without_preemption(|| {
        let here = os_thread();
        count(seed);
        uthread::without_preemption(|| count(!seed));
        assert_eq!(os_thread(), here);
    });
}

/// Waits in all ways that the crate has.
pub(crate) fn wait(seed: u64) {
    let own = uthread::current();
    let waker = uthread::spawn(move || own.unpark());
    uthread::park_timeout(Duration::from_millis(1));
    uthread::yield_now();
    uthread::sleep(Duration::from_micros(seed % 300));
    waker.join().unwrap();
}

/// Each call that blocks, with a neighbour that ends that.
mod blocked {
    use super::waits::{self, Pair};

    macro_rules! with_a_neighbour {
        ($($call:ident),+ $(,)?) => {
            $(pub(crate) fn $call(_seed: u64) {
                waits::$call(&Pair);
            })+
        };
    }

    with_a_neighbour![
        read,
        read_once,
        write,
        receive,
        accept,
        poll,
        epoll,
        lock_file,
        lock_part_of_file,
        open,
        wait_for_child,
        sleep,
        lock,
        join,
        read_into_stack,
        receive_from_channel,
        wait_for_condvar,
        wait_at_barrier,
        park_in_std
    ];
}
