//! Children. Where any child is waited for, in a process of its own.

#![allow(clippy::zombie_processes, reason = "they are waited for by the functions that are tested")]

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::ptr::null_mut;

use libc::{
    ECHILD, EINVAL, P_ALL, P_PGID, P_PID, P_PIDFD, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED,
    WUNTRACED, pid_t, siginfo_t,
};

use crate::stage::{Outcome, on_both, own, waiting};
use crate::subprocess::in_child;

/// A child that ends when its input does, with a status of 3.
fn child() -> Child {
    Command::new("sh").args(["-c", "read x; exit 3"]).stdin(Stdio::piped()).spawn().unwrap()
}

fn number(child: &Child) -> pid_t {
    child.id() as pid_t
}

/// The outcome, whether it is that child's number, and the status.
fn wait_pid(which: pid_t, child: pid_t, options: i32) -> (Result<bool, i32>, i32) {
    let mut status = -7;
    let outcome = c!(waitpid(which, &mut status, options));
    (outcome.map(|n| n == i64::from(child)), status)
}

/// The outcome, whether it is that child's number, and what is said of it.
fn wait_id(
    kind: libc::idtype_t,
    id: pid_t,
    child: pid_t,
    options: i32,
) -> (Outcome, [i32; 4], bool) {
    // SAFETY: integers.
    let mut info: siginfo_t = unsafe { std::mem::zeroed() };
    info.si_signo = -5;
    let outcome = c!(waitid(kind, id as u32, &mut info, options));
    // SAFETY: these are there of children, and otherwise zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    (outcome, [info.si_signo, info.si_errno, info.si_code, status], pid == child)
}

#[test]
fn a_child_is_waited_for() {
    waiting(
        || {
            let mut child = child();
            let input = child.stdin.take();
            (number(&child), input)
        },
        |child| {
            (wait_pid(child, child, 0), wait_pid(child, child, 0), wait_pid(child, child, WNOHANG))
        },
        drop,
    );
    waiting(
        || {
            let mut child = child();
            let input = child.stdin.take();
            (number(&child), input)
        },
        |child| {
            // SAFETY: integers.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            let outcome = c!(wait4(child, null_mut(), 0, &mut usage));
            (outcome.map(|n| n == i64::from(child)), usage.ru_maxrss > 0)
        },
        drop,
    );
    for options in [WEXITED, WEXITED | WNOWAIT, WEXITED | WSTOPPED | WCONTINUED] {
        waiting(
            || {
                let mut child = child();
                let input = child.stdin.take();
                (number(&child), input)
            },
            |child| {
                let first = wait_id(P_PID, child, child, options);
                (
                    first,
                    c!(waitid(P_PID, child as u32, null_mut(), WEXITED)),
                    wait_id(P_PID, child, child, WEXITED),
                )
            },
            drop,
        );
    }
    waiting(
        || {
            let mut child = child();
            let input = child.stdin.take();
            let fd = own(c!(syscall(libc::SYS_pidfd_open, number(&child), 0)));
            ((fd, number(&child)), input)
        },
        |(fd, child)| {
            use std::os::fd::AsRawFd;
            wait_id(P_PIDFD, fd.as_raw_fd(), child, WEXITED)
        },
        drop,
    );
    waiting(
        || {
            let mut child = child();
            let input = child.stdin.take();
            (child, input)
        },
        |mut child| child.wait().unwrap(),
        drop,
    );
}

#[test]
fn who_does_not_wait_is_told_that_there_is_none() {
    on_both(|| {
        use std::os::fd::AsRawFd;
        let mut waited_for = child();
        let own_number = number(&waited_for);
        let fd = own(c!(syscall(libc::SYS_pidfd_open, own_number, libc::PIDFD_NONBLOCK)));
        let none = (
            wait_pid(own_number, own_number, WNOHANG),
            wait_id(P_PID, own_number, own_number, WEXITED | WNOHANG),
            wait_id(P_PIDFD, fd.as_raw_fd(), own_number, WEXITED),
            wait_pid(own_number, own_number, 0x1000),
            wait_id(P_PID, own_number, own_number, 0),
            wait_id(P_PID, own_number, own_number, WNOHANG),
            wait_pid(1, 1, 0),
            wait_id(P_PID, 1, 1, WEXITED),
            wait_id(77, 1, 1, WEXITED),
            wait_pid(pid_t::MIN, 1, 0),
        );
        assert_eq!((none.3.0, none.6.0), (Err(EINVAL), Err(ECHILD)));
        drop(waited_for.stdin.take());
        waited_for.wait().unwrap();
        none
    });
}

#[test]
fn stops_and_continuations_are_seen() {
    let seen = waiting(
        || {
            let child = child();
            (number(&child), child)
        },
        |child| {
            let stopped = wait_pid(child, child, WUNTRACED);
            c!(kill(child, libc::SIGCONT)).unwrap();
            let continued = wait_pid(child, child, WCONTINUED);
            c!(kill(child, libc::SIGSTOP)).unwrap();
            let again = wait_id(P_PID, child, child, WSTOPPED);
            c!(kill(child, libc::SIGKILL)).unwrap();
            (stopped, continued, again, wait_pid(child, child, WUNTRACED | WCONTINUED))
        },
        |child| {
            c!(kill(number(&child), libc::SIGSTOP)).unwrap();
            std::mem::forget(child);
        },
    );
    assert!(libc::WIFSTOPPED(seen.0.0.1) && libc::WIFCONTINUED(seen.0.1.1), "{seen:?}");
    assert!(libc::WIFSIGNALED(seen.0.3.1), "{seen:?}");
}

#[test]
fn of_two_who_wait_for_a_child_one_gets_it() {
    waiting(
        || {
            let mut child = child();
            let input = child.stdin.take();
            (number(&child), input)
        },
        |child| {
            let mut outcomes = uthread::scope(|s| {
                let other = s.spawn(|| wait_pid(child, child, 0).0);
                [wait_pid(child, child, 0).0, other.join().unwrap()]
            });
            outcomes.sort();
            assert_eq!(outcomes, [Ok(true), Err(ECHILD)]);
        },
        drop,
    );
}

#[test]
fn any_child_and_one_of_a_group_is_waited_for() {
    let output = in_child("children::any_child_and_one_of_a_group_is_waited_for", &[], || {
        on_both(|| {
            assert_eq!(wait_pid(-1, 0, 0).0, Err(ECHILD));
            assert_eq!(c!(wait(null_mut())), Err(ECHILD));
            assert_eq!(wait_id(P_ALL, 0, 0, WEXITED).0, Err(ECHILD));
        });
        for group in [-1, 0, 1] {
            let waited = waiting(
                || {
                    use std::os::unix::process::CommandExt;
                    let mut command = Command::new("sh");
                    command.args(["-c", "read x; exit 3"]).stdin(Stdio::piped());
                    if group == 1 {
                        command.process_group(0);
                    }
                    let mut child = command.spawn().unwrap();
                    let input = child.stdin.take();
                    (number(&child), input)
                },
                |child| {
                    let which = if group == 1 { -child } else { group };
                    let nobody = wait_pid(-999_999, 0, 0);
                    let first = match group {
                        -1 => wait_id(P_ALL, 0, child, WEXITED | WNOWAIT),
                        _ => wait_id(P_PGID, group * child, child, WEXITED | WNOWAIT),
                    };
                    (nobody, first, wait_pid(which, child, 0))
                },
                drop,
            );
            assert_eq!(waited.0.2.0, Ok(true));
        }
    });
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn commands_of_std_are_run() {
    on_both(|| {
        let mut cat = Command::new("cat");
        let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        uthread::scope(|s| {
            s.spawn(move || input.write_all(&[7; 300_000]).unwrap());
            let mut all = Vec::new();
            output.read_to_end(&mut all).unwrap();
            assert!(all == [7; 300_000]);
        });
        let both =
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 5"]).output().unwrap();
        let missing = Command::new("/no/such/program").spawn().unwrap_err().raw_os_error();
        (child.wait().unwrap(), both, missing)
    });
}
