//! Who the green threads are, what they do, and where they are in their code.

#[path = "common/subprocess.rs"]
mod subprocess;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::collections::HashSet;
use std::hint::black_box;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use uthread::{
    Builder, Group, JoinHandle, Runtime, ThreadDump, ThreadInfo, ThreadState, WaitReason,
};

use watchdog::watched;

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

fn spawn<T: Send + 'static>(
    runtime: &Runtime,
    name: &str,
    f: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    Builder::new().name(name.into()).spawn_in(runtime, f).unwrap()
}

fn find(runtime: &Runtime, name: &str) -> Option<ThreadInfo> {
    let threads = runtime.threads().unwrap();
    threads.into_iter().find(|t| t.name.as_deref() == Some(name))
}

/// Looks at a thread until it is as wanted.
fn until(runtime: &Runtime, name: &str, wanted: impl Fn(&ThreadInfo) -> bool) -> ThreadInfo {
    loop {
        if let Some(thread) = find(runtime, name).filter(&wanted) {
            return thread;
        }
        std::thread::yield_now();
    }
}

fn until_waits(runtime: &Runtime, name: &str, reason: WaitReason) -> ThreadInfo {
    until(runtime, name, |thread| thread.state.reason() == Some(reason))
}

/// Dumps a runtime until a thread is as wanted.
fn until_dumped(runtime: &Runtime, name: &str, wanted: impl Fn(&ThreadDump) -> bool) -> ThreadDump {
    loop {
        let dump = runtime.dump().unwrap();
        let found = dump.threads.into_iter().find(|t| t.thread.name.as_deref() == Some(name));
        if let Some(found) = found.filter(&wanted) {
            return found;
        }
        std::thread::yield_now();
    }
}

fn has_frame(dumped: &ThreadDump, function: &str) -> bool {
    let is_it = |name: &String| name.contains(function);
    dumped.frames.iter().any(|frame| frame.function.as_ref().is_some_and(is_it))
}

#[test]
fn threads_tell_what_they_wait_for() {
    let runtime = runtime(2);
    watched(&runtime, || {
        let parks = spawn(&runtime, "parks", uthread::park);
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let sleeps = spawn(&runtime, "sleeps", move || {
            while !seen.load(Ordering::Relaxed) {
                uthread::sleep(Duration::from_millis(20));
            }
        });
        let (sender, receiver) = std::sync::mpsc::channel();
        let reads = spawn(&runtime, "reads", move || {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = uthread::net::TcpListener::bind(any).unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.read(&mut [0; 8]).unwrap()
        });
        let address = receiver.recv().unwrap();
        let parked = parks.thread().clone();
        let joins = spawn(&runtime, "joins", || parks.join().unwrap());
        let scopes = spawn(&runtime, "scopes", move || {
            uthread::scope(|s| {
                s.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        uthread::park()
                    }
                });
            });
        });
        until_waits(&runtime, "parks", WaitReason::Park);
        until_waits(&runtime, "sleeps", WaitReason::Sleep);
        until_waits(&runtime, "reads", WaitReason::Accept);
        until_waits(&runtime, "joins", WaitReason::Join);
        until_waits(&runtime, "scopes", WaitReason::Scope);
        let client = std::net::TcpStream::connect(address).unwrap();
        until_waits(&runtime, "reads", WaitReason::Recv);
        drop(client);
        assert_eq!(reads.join().unwrap(), 0);
        parked.unpark();
        joins.join().unwrap();
        drop((sleeps, scopes));
    });
    // Its scope's thread is parked for good, and so is its runtime.
    std::mem::forget(runtime);
}

#[test]
fn threads_tell_who_they_are() {
    let runtime = runtime(1);
    let group = Group::builder().name("census").build().unwrap();
    watched(&runtime, || {
        let long = "n".repeat(300);
        let line = line!() + 1;
        let thread = Builder::new().name(long.clone()).group(&group).spawn_in(&runtime, || {
            for _ in 0..7 {
                uthread::yield_now();
            }
            uthread::park();
        });
        let thread = thread.unwrap();
        let cut = &long[..256];
        let seen = until_waits(&runtime, cut, WaitReason::Park);
        assert_eq!(seen.id, thread.thread().id());
        assert_eq!(seen.group, "census");
        assert_eq!(seen.worker, Some(0));
        assert_eq!(seen.spawned_at.file(), file!());
        assert_eq!(seen.spawned_at.line(), line);
        assert!(seen.stat.turns >= 1 && seen.stat.voluntary_switches == seen.stat.turns);
        assert!(seen.stack.reserved >= seen.stack.high_water);
        assert!(seen.stack.high_water >= seen.stack.resident && seen.stack.resident > 0);
        assert!(find(&runtime, cut).unwrap().age >= seen.age);
        thread.thread().unpark();
        thread.join().unwrap();
        // It is retired a little later.
        while !runtime.threads().unwrap().is_empty() {
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_thread_that_uses_much_stack_has_a_high_water_mark() {
    const DEEP: usize = 200 << 10;
    let runtime = runtime(1);
    watched(&runtime, || {
        let thread = spawn(&runtime, "deep", || {
            #[inline(never)]
            fn touch() -> u8 {
                let mut deep = [1_u8; DEEP];
                black_box(&mut deep)[DEEP / 2]
            }
            black_box(touch());
            uthread::park();
        });
        let seen = until_waits(&runtime, "deep", WaitReason::Park);
        assert!(seen.stack.high_water > DEEP && seen.stack.resident > DEEP);
        assert_eq!(seen.stack.reserved, 512 << 10);
        thread.thread().unpark();
        thread.join().unwrap();
    });
}

#[test]
fn stacks_in_sum_are_those_of_all_threads() {
    let runtime = runtime(1);
    watched(&runtime, || {
        let threads = ["one", "two", "three"].map(|name| spawn(&runtime, name, uthread::park));
        for name in ["one", "two", "three"] {
            until_waits(&runtime, name, WaitReason::Park);
        }
        let totals = runtime.stacks().unwrap();
        let all = runtime.threads().unwrap();
        assert_eq!(totals.threads, 3);
        assert_eq!(totals.green.reserved, all.iter().map(|t| t.stack.reserved).sum::<usize>());
        assert_eq!(totals.green.resident, all.iter().map(|t| t.stack.resident).sum::<usize>());
        assert_eq!(totals.green.high_water, all.iter().map(|t| t.stack.high_water).sum::<usize>());
        assert!(totals.os.reserved > totals.green.reserved, "std reserves more");
        assert!(totals.os.resident > totals.green.resident, "the kernel has stacks, too");
        for thread in threads {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
}

/// Bytes of memory that the mappings have, by the text of `/proc/self/smaps`, in which one of these addresses lies at least.
fn in_smaps(smaps: &str, addresses: &[usize]) -> usize {
    let (mut sum, mut counts) = (0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        if let Some((start, end)) = first.split_once('-') {
            let range = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
            counts = addresses.iter().any(|address| (range[0]..range[1]).contains(address));
        } else if counts && first == "Rss:" {
            sum += words.next().unwrap().parse::<usize>().unwrap() << 10;
        }
    }
    sum
}

/// More than what lies beside the stacks, if the kernel has made their mapping one with a neighbour's.
const STRAY: usize = 1 << 20;

#[test]
fn stacks_in_sum_are_what_smaps_says() {
    let test = "stacks_in_sum_are_what_smaps_says";
    let output = subprocess::in_child(test, &[], || {
        const THREADS: usize = 2_000;

        #[inline(never)]
        fn descends(pages: usize) -> usize {
            let mut page = [1_u8; 4096];
            black_box(&mut page);
            if pages == 0 {
                uthread::park();
                return (&raw const page).addr();
            }
            let address = descends(pages - 1);
            black_box(&mut page);
            address
        }

        let runtime = runtime(2);
        let spawn = |i: usize| {
            let builder = Builder::new().stack_size(128 << 10);
            builder.spawn_in(&runtime, move || descends(i % 12)).unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(spawn).collect();
        while runtime.threads().unwrap().iter().any(|t| t.state.reason() != Some(WaitReason::Park))
        {
            std::thread::yield_now();
        }
        let stacks = runtime.stacks().unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        threads.iter().for_each(|t| t.thread().unpark());
        let addresses: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        let smaps = in_smaps(&smaps, &addresses);
        assert_eq!(stacks.threads, THREADS);
        assert!(stacks.green.resident > THREADS * 5 * 4096, "{stacks:?}");
        let range = stacks.green.resident..=stacks.green.resident + STRAY;
        assert!(range.contains(&smaps), "{} of {smaps}", stacks.green.resident);
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

/// Threads come and go all the time; each one that is seen is whole.
#[test]
fn a_census_among_threads_that_come_and_go_sees_them_whole() {
    let runtime = runtime(2);
    watched(&runtime, || {
        let over = Arc::new(AtomicBool::new(false));
        let spawned = Arc::new(AtomicU64::new(0));
        let spawners: Vec<_> = (0..2)
            .map(|_| {
                let (over, spawned) = (over.clone(), spawned.clone());
                spawn(&runtime, "spawner", move || {
                    while !over.load(Ordering::Relaxed) {
                        let number = spawned.fetch_add(1, Ordering::Relaxed);
                        let name = format!("{number} {}", "x".repeat(number as usize % 100));
                        let thread = Builder::new().name(name).spawn(uthread::yield_now);
                        thread.unwrap().join().unwrap();
                    }
                })
            })
            .collect();
        let mut seen = HashSet::new();
        while seen.len() < 50 {
            for thread in runtime.threads().unwrap() {
                let Some(name) = thread.name.filter(|name| name != "spawner") else { continue };
                let (number, rest) = name.split_once(' ').unwrap();
                let number: usize = number.parse().unwrap();
                assert_eq!(rest, "x".repeat(number % 100), "a torn name");
                assert_eq!(thread.spawned_at.file(), file!());
                seen.insert(number);
            }
        }
        over.store(true, Ordering::Relaxed);
        spawners.into_iter().for_each(|s| s.join().unwrap());
    });
}

#[inline(never)]
fn waits_for_a_friend() {
    uthread::park();
    black_box(());
}

#[inline(never)]
fn computes_for_ever(over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
fn a_dump_shows_where_threads_wait() {
    let runtime = runtime(1);
    watched(&runtime, || {
        let threads: Vec<_> =
            (0..100).map(|_| Builder::new().spawn_in(&runtime, waits_for_a_friend)).collect();
        let dump = loop {
            let dump = runtime.dump().unwrap();
            if dump.threads.iter().all(|t| t.thread.state == ThreadState::Waiting(WaitReason::Park))
            {
                break dump;
            }
        };
        assert_eq!(dump.threads.len(), 100);
        assert!(dump.threads.iter().all(|t| has_frame(t, "waits_for_a_friend")), "{dump}");
        let text = dump.to_string();
        assert!(
            text.starts_with("100 green threads") && text.contains("99 more like it"),
            "{text}"
        );
        for thread in threads.into_iter().map(Result::unwrap) {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
}

/// One runs, the others were interrupted in the middle of their loops.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_dump_shows_where_hogs_are() {
    let runtime = runtime(1);
    watched(&runtime, || {
        let over = Arc::new(AtomicBool::new(false));
        let names = ["one", "two", "three"];
        let hogs = names.map(|name| {
            let over = over.clone();
            spawn(&runtime, name, move || computes_for_ever(&over))
        });
        for name in names {
            for state in [ThreadState::Running, ThreadState::Runnable] {
                until_dumped(&runtime, name, |t| {
                    t.thread.state == state && has_frame(t, "computes_for_ever")
                });
            }
        }
        over.store(true, Ordering::Relaxed);
        hogs.into_iter().for_each(|hog| hog.join().unwrap());
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_dump_shows_where_a_thread_is_blocked_in_the_kernel() {
    #[inline(never)]
    fn reads_a_pipe(mut pipe: std::io::PipeReader) -> usize {
        black_box(pipe.read(&mut [0; 8]).unwrap())
    }
    let runtime = runtime(1);
    watched(&runtime, || {
        let (reader, writer) = std::io::pipe().unwrap();
        let blocked =
            spawn(&runtime, "blocked", move || uthread::blocking(|| reads_a_pipe(reader)));
        let dumped = until_dumped(&runtime, "blocked", |t| has_frame(t, "reads_a_pipe"));
        assert_eq!(dumped.thread.state, ThreadState::Blocked);
        drop(writer);
        assert_eq!(blocked.join().unwrap(), 0);
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_dump_does_not_end_the_system_call_of_a_thread_on_a_worker() {
    #[inline(never)]
    fn polls(pipe: &std::io::PipeReader, os_thread: &AtomicI32) -> u64 {
        // SAFETY: gettid has no preconditions.
        os_thread.store(unsafe { libc::gettid() }, Ordering::Relaxed);
        let mut ended = 0;
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        while let Err(Errno::EINTR) = poll(&mut fds, PollTimeout::NONE) {
            ended += 1;
        }
        black_box(ended)
    }
    const DUMPS: u64 = 100;
    let (runtime, began) = (runtime(1), Instant::now());
    watched(&runtime, || {
        let (reader, writer) = std::io::pipe().unwrap();
        let os_thread = Arc::new(AtomicI32::new(0));
        let theirs = os_thread.clone();
        let waits = spawn(&runtime, "polls", move || {
            uthread::without_preemption(|| polls(&reader, &theirs))
        });
        let is_in_poll = || {
            let path = format!("/proc/self/task/{}/syscall", os_thread.load(Ordering::Relaxed));
            let call = std::fs::read_to_string(path).unwrap_or_default();
            call.starts_with(&format!("{} ", libc::SYS_poll))
        };
        for _ in 0..DUMPS {
            while !is_in_poll() {
                std::thread::yield_now();
            }
            let dump = runtime.dump().unwrap();
            assert_eq!(dump.threads[0].thread.state, ThreadState::Running);
        }
        drop(writer);
        // The runtime has some reasons of its own to signal, more the longer it takes.
        let ended = waits.join().unwrap();
        let stats = runtime.stats();
        let own = stats.ticks + stats.monitor_signals + began.elapsed().as_millis() as u64;
        assert!(ended < DUMPS / 2 + own, "{ended} calls were ended by {DUMPS} dumps");
    });
}

/// Each thread is as many calls deep as its name says; some wait there, some compute.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_dump_of_ten_thousand_threads_shows_each_ones_own_frames() {
    const THREADS: usize = 10_000;
    const HOGS: usize = 50;

    #[inline(never)]
    fn descends(depth: usize, at_the_bottom: &dyn Fn()) {
        if depth > 0 {
            descends(depth - 1, at_the_bottom);
        } else {
            at_the_bottom();
        }
        black_box(());
    }

    let runtime = runtime(2);
    watched(&runtime, || {
        let over = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..THREADS)
            .map(|i| {
                let (over, depth) = (over.clone(), 1 + i % 40);
                let body = move || {
                    descends(depth, &|| match i % (THREADS / HOGS) {
                        0 => computes_for_ever(&over),
                        _ => uthread::park(),
                    });
                };
                let builder = Builder::new().name(format!("{depth}")).stack_size(64 << 10);
                builder.spawn_in(&runtime, body).unwrap()
            })
            .collect();
        // Until all are at the bottom.
        let at_bottom = |t: &ThreadInfo| {
            t.state.reason() == Some(WaitReason::Park) || t.stat.forced_switches > 0
        };
        while runtime.threads().unwrap().iter().any(|t| !at_bottom(t)) {
            std::thread::yield_now();
        }
        // A thread that gets no processor for some time, on a machine with other work, cannot be caught.
        let dump = loop {
            let dump = runtime.dump().unwrap();
            if dump.threads.iter().all(|t| !t.frames.is_empty()) {
                break dump;
            }
        };
        // Also if an assertion fails: then, too, the hogs must end.
        over.store(true, Ordering::Relaxed);
        assert_eq!(dump.threads.len(), THREADS);
        for dumped in &dump.threads {
            let depth: usize = dumped.thread.name.as_ref().unwrap().parse().unwrap();
            let is_call = |f: &&uthread::Frame| {
                f.function.as_ref().is_some_and(|name| name.ends_with("::descends"))
            };
            assert_eq!(dumped.frames.iter().filter(is_call).count(), depth + 1, "{dumped:#?}");
            let computes = has_frame(dumped, "computes_for_ever");
            assert_eq!(computes, dumped.thread.state.reason().is_none());
        }
        threads.iter().for_each(|t| t.thread().unpark());
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_thread_dumps_itself_and_its_siblings() {
    let runtime = runtime(2);
    watched(&runtime, || {
        #[inline(never)]
        fn dumps_its_own_runtime() -> uthread::Dump {
            black_box(uthread::dump().unwrap())
        }
        let parks = spawn(&runtime, "parks", waits_for_a_friend);
        until_waits(&runtime, "parks", WaitReason::Park);
        let dump = spawn(&runtime, "dumps", dumps_its_own_runtime).join().unwrap();
        let find = |name| dump.threads.iter().find(|t| t.thread.name.as_deref() == Some(name));
        assert!(has_frame(find("parks").unwrap(), "waits_for_a_friend"), "{dump}");
        assert!(has_frame(find("dumps").unwrap(), "dumps_its_own_runtime"), "{dump}");
        parks.thread().unpark();
        parks.join().unwrap();
    });
}

/// Sends the process `SIGQUIT`; what it writes to stderr until `is_all`.
fn dumped_on_signal(is_all: impl Fn(&str) -> bool) -> String {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the descriptor is the process's, and not closed meanwhile.
    let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    let stderr = nix::unistd::dup(stderr).unwrap();
    nix::unistd::dup2_stderr(&writer).unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGQUIT).unwrap();
    let mut text = Vec::new();
    while !is_all(&String::from_utf8_lossy(&text)) {
        let mut some = [0; 4096];
        let count = reader.read(&mut some).unwrap();
        text.extend_from_slice(&some[..count]);
    }
    nix::unistd::dup2_stderr(&stderr).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_signal_has_all_threads_dumped_and_the_process_goes_on() {
    let test = "a_signal_has_all_threads_dumped_and_the_process_goes_on";
    let output = subprocess::in_child(test, &[("UTHREAD_DUMP", "1")], || {
        let runtime = runtime(1);
        let parks = spawn(&runtime, "parks", waits_for_a_friend);
        let alike = [(); 3].map(|()| runtime.spawn(waits_for_a_friend));
        let park = |t: &ThreadInfo| t.state.reason() == Some(WaitReason::Park);
        while runtime.threads().unwrap().iter().filter(|t| park(t)).count() < 4 {
            std::thread::yield_now();
        }
        eprintln!("{}", dumped_on_signal(|text| text.contains("more like")));
        parks.thread().unpark();
        parks.join().unwrap();
        for thread in alike {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("thread 1 'parks': waiting (park)"), "{stderr}");
    assert_eq!(stderr.matches("waits_for_a_friend").count(), 2, "{stderr}");
    assert!(stderr.contains("4 green threads"), "{stderr}");
    assert!(stderr.contains("\n2 more like thread "), "{stderr}");
}

#[test]
fn a_dump_on_a_signal_waits_for_nobody_who_has_locked_stderr() {
    let test = "a_dump_on_a_signal_waits_for_nobody_who_has_locked_stderr";
    let output = subprocess::in_child(test, &[("UTHREAD_DUMP", "1")], || {
        let runtime = runtime(1);
        let (sender, receiver) = std::sync::mpsc::channel();
        let locks = spawn(&runtime, "locks", move || {
            let locked = std::io::stderr().lock();
            sender.send(()).unwrap();
            uthread::park();
            drop(locked);
        });
        receiver.recv().unwrap();
        until_waits(&runtime, "locks", WaitReason::Park);
        let stderr = dumped_on_signal(|text| text.contains("spawned at"));
        locks.thread().unpark();
        locks.join().unwrap();
        eprintln!("{stderr}");
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("thread 1 'locks'"), "{stderr}");
}

#[test]
fn the_signal_ends_a_child_of_fork_and_its_parent_dumps_nothing() {
    let test = "the_signal_ends_a_child_of_fork_and_its_parent_dumps_nothing";
    let output = subprocess::in_child(test, &[("UTHREAD_DUMP", "1")], || {
        let runtime = runtime(1);
        // SAFETY: the child calls async-signal-safe functions only.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above. No core is to be left.
            unsafe {
                libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
                libc::raise(libc::SIGQUIT);
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: the pointer is valid, and the child is waited for once.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGQUIT, "{status}");
        // One dump, the parent's own.
        let text = dumped_on_signal(|text| text.contains("green threads"));
        assert_eq!(text.matches("green threads").count(), 1);
        drop(runtime);
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !stderr.contains("green threads"), "{stderr}");
}

/// The OS thread that writes dumps.
fn writer_of_dumps() -> libc::pid_t {
    let is_it = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "uthread-dump\n")
    };
    loop {
        let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
        if let Some(task) = tasks.find(is_it) {
            return task.file_name().to_str().unwrap().parse().unwrap();
        }
    }
}

#[test]
fn a_dump_comes_after_a_signal_that_interrupts_system_calls() {
    extern "C" fn nothing(_signal: libc::c_int) {}

    let test = "a_dump_comes_after_a_signal_that_interrupts_system_calls";
    let output = subprocess::in_child(test, &[], || {
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
        let runtime = runtime(1);
        let interrupts =
            SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &interrupts) }.unwrap();
        uthread::dump_on_signal().unwrap();
        for _ in 0..3 {
            // SAFETY: a system call with numbers; the thread is the process's.
            let sent = unsafe {
                libc::syscall(libc::SYS_tgkill, libc::getpid(), writer_of_dumps(), libc::SIGUSR1)
            };
            assert_eq!(sent, 0);
            dumped_on_signal(|text| text.contains("0 green threads"));
        }
        drop(runtime);
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
