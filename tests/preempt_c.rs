//! Threads that are interrupted in C: in libc, and in libraries that know nothing of all this.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/bodies.rs"]
mod bodies;
#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use bodies::c;
use preempt::several_at_once;

#[test]
fn sorting_with_a_callback_sorts() {
    several_at_once(c::sort);
}

#[test]
fn looking_names_up_finds_them() {
    several_at_once(c::look_up);
}

#[test]
fn matching_regular_expressions_matches() {
    several_at_once(c::search);
}

#[test]
fn printing_and_reading_numbers_gives_the_same() {
    several_at_once(c::print_numbers);
}

#[test]
fn telling_the_time_tells_it() {
    several_at_once(c::tell_time);
}

#[test]
fn compressing_with_zlib_loses_nothing() {
    several_at_once(c::compress);
}

#[test]
fn long_jumps_over_frames_of_c_arrive() {
    if c::jumps().is_none() {
        return println!("skipped: there is no C compiler");
    }
    several_at_once(c::jump);
}
