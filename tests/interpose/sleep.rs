//! Time.

use std::time::Duration;

use libc::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, EINVAL, TIMER_ABSTIME, timespec};

use crate::stage::{on_both, taking};

const TIME: Duration = Duration::from_millis(30);

fn spec(time: Duration) -> timespec {
    timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

#[test]
fn sleeps_are_never_short() {
    taking(TIME, || {
        let mut rest = timespec { tv_sec: 5, tv_nsec: 6 };
        (c!(nanosleep(&spec(TIME), &mut rest)), rest.tv_sec, rest.tv_nsec)
    });
    taking(TIME, || c!(usleep(30_000)));
    taking(Duration::from_secs(1), || c!(sleep(1)));
    taking(TIME, || std::thread::sleep(TIME));
    for clock in [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME] {
        taking(TIME, || c!(clock_nanosleep(clock, 0, &spec(TIME), std::ptr::null_mut())));
        taking(TIME, || {
            let mut now = spec(TIME);
            c!(clock_gettime(clock, &mut now)).unwrap();
            let until = spec(Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + TIME);
            let outcome = c!(clock_nanosleep(clock, TIMER_ABSTIME, &until, std::ptr::null_mut()));
            c!(clock_gettime(clock, &mut now)).unwrap();
            assert!((now.tv_sec, now.tv_nsec) >= (until.tv_sec, until.tv_nsec));
            outcome
        });
    }
}

#[test]
fn times_that_are_none_are_told() {
    on_both(|| {
        let mut outcomes = Vec::new();
        for (tv_sec, tv_nsec) in
            [(-1, 0), (0, -1), (0, 1_000_000_000), (0, i64::MAX), (0, 0), (0, 1)]
        {
            let time = timespec { tv_sec, tv_nsec };
            outcomes.push(c!(nanosleep(&time, std::ptr::null_mut())));
            for clock in
                [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, 77, libc::CLOCK_THREAD_CPUTIME_ID]
            {
                for flags in [0, TIMER_ABSTIME] {
                    outcomes.push(c!(clock_nanosleep(clock, flags, &time, std::ptr::null_mut())));
                }
            }
        }
        assert_eq!((outcomes[0], outcomes[1]), (Err(EINVAL), Ok(EINVAL.into())));
        (outcomes, c!(usleep(0)), c!(sleep(0)), c!(sched_yield()))
    });
}
