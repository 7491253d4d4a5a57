//! What of a round trip is whose: locked instructions, counted.
//!
//! **Problem.** A time says nothing about who took it. Most of a round trip goes by in locked instructions, each of which
//! waits for the stores before it, and of them `std` has its own, whatever its threads are.
//!
//! **Choice.** A child makes the trips on green threads and is led through them by single steps (ptrace(2)); each locked
//! instruction is looked up in the debugging information of this very program, and is the runtime's if the innermost function
//! around it that is not in `core` or `alloc` is. What belongs to the beginning and the end, the child has twice, with few trips
//! and with more: the difference is the trips'. It runs without preemption, since hardly a step is taken between two ticks.

use std::collections::HashMap;
use std::ffi::c_void;
use std::hint::black_box;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use std::{fs, io};

use comfy_table::Table;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use uthread::Runtime;

use crate::common::{median, table};
use crate::trips::{CASES, Trips, run_green};

/// The child's trips: some to begin with, since much is made when it is needed first; then those that are compared.
const WARM: usize = 5;
const FEW: usize = 10;
const MORE: usize = 50;

/// Where the parent begins and ceases to count.
fn mark() {
    // SAFETY: the parent that traces this process waits for it. (By itself it is the end of the process.)
    unsafe { std::arch::asm!("int3") };
}

/// The child's life.
pub(crate) fn run_here(case: usize) -> io::Result<()> {
    let runtime = Runtime::builder().workers(1).preemption(false).build()?;
    let (_, case): (_, Trips) = CASES[case];
    runtime.run(|| {
        case(WARM, &run_green);
        for trips in [FEW, MORE] {
            mark();
            case(trips, &run_green);
            mark();
        }
    });
    Ok(())
}

/// How often locked instructions were executed between two marks, by their addresses.
#[derive(Default)]
struct Counted(HashMap<usize, u64>);

/// Has the child make its trips, step by step. Also where the program lies in its memory.
fn count(case: usize) -> io::Result<(Vec<Counted>, Range<usize>)> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(&program);
    command.arg("--child").arg(case.to_string());
    // SAFETY: it makes one system call.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let child = Pid::from_raw(command.spawn()?.id().cast_signed());
    // It has stopped at its first instruction.
    waitpid(child, None)?;
    ptrace::setoptions(child, Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL)?;
    ptrace::cont(child, None)?;
    let (mut all, mut place, mut stepping) = (Vec::new(), 0..0, None);
    loop {
        let (thread, signal) = match waitpid(None, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(thread, 0) if thread == child => return Ok((all, place)),
            WaitStatus::Exited(thread, _) if thread != child => continue,
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            // New threads begin like this.
            WaitStatus::Stopped(thread, Signal::SIGSTOP) => (thread, None),
            WaitStatus::Stopped(thread, Signal::SIGTRAP) => {
                const SI_KERNEL: i32 = 0x80;
                let is_mark = ptrace::getsiginfo(thread)?.si_code == SI_KERNEL;
                if is_mark && stepping.take().is_none() {
                    stepping = Some(thread);
                    place = place_of(&program, child)?;
                    all.push(Counted::default());
                }
                if stepping == Some(thread) {
                    all.last_mut().expect("counting").next(thread)?;
                }
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            other => return Err(io::Error::other(format!("the child ends: {other:?}"))),
        };
        match stepping {
            Some(stepping) if stepping == thread => ptrace::step(thread, signal)?,
            _ => ptrace::cont(thread, signal)?,
        }
    }
}

impl Counted {
    /// The thread is about to execute an instruction.
    fn next(&mut self, thread: Pid) -> io::Result<()> {
        let at = ptrace::getregs(thread)?.rip as usize;
        let bytes = ptrace::read(thread, at as *mut c_void)?.to_le_bytes();
        if is_locked(bytes) {
            *self.0.entry(at).or_default() += 1;
        }
        Ok(())
    }
}

/// Whether an instruction begins like this that has the prefix, or exchanges with memory, which does without.
fn is_locked(bytes: [u8; 8]) -> bool {
    const LOCK: u8 = 0xf0;
    let is_prefix = |byte: &u8| matches!(byte, 0x64..=0x66 | 0x2e | 0x3e | 0xf2 | 0xf3);
    let mut rest = bytes.into_iter().skip_while(is_prefix).peekable();
    if rest.peek() == Some(&LOCK) {
        return true;
    }
    rest.next_if(|rex| matches!(rex, 0x40..=0x4f));
    let exchanges = matches!(rest.next(), Some(0x86 | 0x87));
    exchanges && rest.next().is_some_and(|operands| operands >> 6 != 0b11)
}

/// Where the program lies in a process's memory.
fn place_of(program: &Path, process: Pid) -> io::Result<Range<usize>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let of_program = maps.lines().filter(|line| line.ends_with(&*program.to_string_lossy()));
    let mut ends = of_program.filter_map(|line| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    });
    let first = ends.next().ok_or_else(|| io::Error::other("the program is not in its memory"))?;
    Ok(first.start..ends.next_back().map_or(first.end, |last| last.end))
}

/// Whether the instruction at this address of this process is the runtime's.
fn is_ours(at: usize) -> bool {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut owner = None;
    // An address is taken for one to return to, which is that of the next instruction.
    backtrace::resolve((at + 1) as *mut c_void, |symbol| {
        let file = symbol.filename().unwrap_or(Path::new(""));
        let is_for_all = ["core", "alloc"].iter().any(|name| file.iter().any(|part| part == *name));
        if owner.is_none() && !is_for_all {
            owner = Some(file.starts_with(&own));
        }
    });
    owner.unwrap_or(false)
}

/// Nanoseconds that a locked instruction takes.
fn locked_instruction() -> f64 {
    const TIMES: u32 = 1_000_000;
    let word = AtomicU64::new(0);
    let begin = Instant::now();
    for _ in 0..TIMES {
        black_box(word.fetch_add(1, Relaxed));
    }
    begin.elapsed().as_nanos() as f64 / f64::from(TIMES)
}

pub(crate) fn measure(rounds: usize) -> io::Result<()> {
    match table_of(rounds) {
        Ok(table) => {
            println!("\nLocked instructions in a round trip on green threads.\n\n{table}\n")
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            println!(
                "\nLocked instructions are not counted: ptrace(2) is forbidden here ({error})."
            );
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn table_of(rounds: usize) -> io::Result<Table> {
    let time = median((0..rounds).map(|_| locked_instruction()).collect());
    let own = place_of(&std::env::current_exe()?, Pid::this())?;
    let of_std = format!("std's, at {time:.1} ns each");
    let mut rows = table(&["by", "the runtime's", "std's", &of_std]);
    // The last case spins, for as long as it pleases.
    for (number, (name, _)) in CASES.iter().enumerate().take(CASES.len() - 1) {
        let (counted, place) = count(number)?;
        let [few, more] = &counted[..] else {
            return Err(io::Error::other("the child has made other marks than it should"));
        };
        let per_trip = |ours: bool| {
            let sum = |counted: &Counted| {
                let is_ours = |at| place.contains(&at) && is_ours(at - place.start + own.start);
                let whose = |at: usize| is_ours(at) == ours;
                counted.0.iter().filter(|(at, _)| whose(**at)).map(|(_, count)| count).sum()
            };
            let (few, more): (u64, u64) = (sum(few), sum(more));
            more.saturating_sub(few) as f64 / (MORE - FEW) as f64
        };
        let (ours, others) = (per_trip(true), per_trip(false));
        rows.add_row([
            (*name).to_owned(),
            format!("{ours:.1}"),
            format!("{others:.1}"),
            format!("{:.0} ns", others * time),
        ]);
    }
    Ok(rows)
}
