//! The driver on io_uring.
//!
//! Each worker owns one ring, created on its own OS thread. Set-up flags, the best set that the kernel
//! accepts:
//!
//! | flags | since | what it saves |
//! |---|---|---|
//! | `SINGLE_ISSUER`, `DEFER_TASKRUN`, `TASKRUN_FLAG` | 6.1 | completions are processed inside our own enter, never by interrupting the worker, and a word in shared memory tells when there are any |
//! | `COOP_TASKRUN`, `TASKRUN_FLAG` | 5.19 | no interrupts |
//! | none | 5.11 | – |
//!
//! Linux 5.11 is the minimum: the bound on a wait is an argument of enter (`EXT_ARG`).
//!
//! Entries are queued while green threads run and handed over by one enter per scheduling round. A full
//! submission queue is handed over at once; if the kernel does not take it because too many completions
//! are outstanding (`EBUSY`), the thread that submits waits for the next round. The completion queue
//! cannot lose entries (`NODROP`, 5.5): what does not fit, the kernel keeps, and flags.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, opcode};

use super::op::{Op, Request};
use super::{Counts, Driver, Full, Wait};

/// Completion entries per submission entry: one op per connection is in flight, most of them idle, and
/// a burst of completions is cheaper in the ring than in the kernel's overflow list.
const COMPLETIONS_PER_SUBMISSION: u32 = 8;

/// User data of what is no op; ops are known by their addresses, which are not this low.
const IGNORED: u64 = 0;
const WOKEN: u64 = 1;

/// One ring.
pub(crate) struct Uring<W> {
    /// Refers to `ring`; declared before it, dropped before it.
    submitter: Submitter<'static>,
    ring: Box<IoUring>,
    /// The descriptor that wakes a worker out of [`Driver::poll`].
    waker: RawFd,
    listening: bool,
    /// The first of the ops to be cancelled for which the queue had no room yet.
    cancels: Option<NonNull<Op<W>>>,
    /// Ops that were submitted and not reported.
    in_flight: usize,
    /// An alarm is registered.
    has_alarm: bool,
    alarms: bool,
    counts: Counts,
    waiters: PhantomData<W>,
}

impl<W> Uring<W> {
    /// Creates a ring of `entries` submission entries for the calling OS thread, which alone may use
    /// it. Writing to `waker`, an eventfd that must stay open as long as the ring, ends a wait. Completions
    /// are announced through `alarm`, another eventfd, while that is asked for.
    ///
    /// # Errors
    ///
    /// The kernel has no io_uring, forbids it, is too old, or has no memory for it; the message says
    /// which.
    pub(crate) fn new(
        entries: u32,
        waker: BorrowedFd<'_>,
        alarm: BorrowedFd<'_>,
    ) -> io::Result<Uring<W>> {
        let mut ring = Box::new(build(entries).map_err(explain)?);
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "uthread needs the io_uring of Linux 5.11 or later",
            ));
        }
        // SAFETY: the box keeps the ring in place, and it is dropped after the submitter.
        let mut submitter: Submitter<'static> = unsafe { std::mem::transmute(ring.submitter()) };
        // Saves a descriptor look-up per enter (5.18); older kernels do without.
        let _ = submitter.register_ring_fd();
        // Since 5.8 the kernel heeds the flag that switches it off; it is older than what is needed above.
        ring.completion().disable_eventfd();
        let has_alarm = submitter.register_eventfd(alarm.as_raw_fd()).is_ok();
        Ok(Uring {
            submitter,
            ring,
            waker: waker.as_raw_fd(),
            listening: false,
            cancels: None,
            in_flight: 0,
            has_alarm,
            alarms: false,
            counts: Counts::default(),
            waiters: PhantomData,
        })
    }

    /// Queues an entry, handing over the queue if it is full.
    ///
    /// # Safety
    ///
    /// What the entry points to is valid until its completion.
    unsafe fn push(&mut self, entry: &Entry) -> Result<(), Full> {
        // SAFETY: as promised to this function.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enter(Wait::No);
            if self.ring.submission().is_full() {
                return Err(Full);
            }
        }
        self.counts.submissions += 1;
        Ok(())
    }

    /// One `io_uring_enter`. Its errors mean "later": a signal (`EINTR`), the end of the wait
    /// (`ETIME`), completions to be reaped first (`EBUSY`), no memory just now (`EAGAIN`).
    fn enter(&mut self, wait: Wait) {
        self.counts.enters += 1;
        let result = match wait {
            Wait::Defer | Wait::No => self.submitter.submit_and_wait(0),
            Wait::Forever => self.submitter.submit_and_wait(1),
            Wait::For(time) => {
                let time = Timespec::from(time);
                self.submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        if let Err(e) = result {
            let known = [libc::EINTR, libc::ETIME, libc::EBUSY, libc::EAGAIN];
            assert!(
                e.raw_os_error().is_some_and(|code| known.contains(&code)),
                "io_uring_enter: {e}"
            );
        }
    }

    /// Keeps a read of the waker in flight.
    ///
    /// Where its count is read to, nobody looks. It is static because the kernel takes a ring down in
    /// its own time: the read may end after the ring was closed.
    fn listen(&mut self) {
        static SINK: AtomicU64 = AtomicU64::new(0);
        if !self.listening {
            let read =
                opcode::Read::new(Fd(self.waker), SINK.as_ptr().cast(), 8).build().user_data(WOKEN);
            // SAFETY: the sink is static, and the descriptor open as long as the ring.
            self.listening = unsafe { self.push(&read) }.is_ok();
        }
    }

    /// Queues the cancellations for which there is room; the others stay for the next round.
    ///
    /// An op that completes meanwhile is taken off the list, and a new one at its address is queued
    /// behind the entry that was meant for the old one: entries are carried out in order.
    fn hand_over_cancels(&mut self) {
        while let Some(op) = self.cancels {
            let entry = opcode::AsyncCancel::new(op.as_ptr() as u64).build().user_data(IGNORED);
            // SAFETY: the entry holds no pointers to memory.
            if unsafe { self.push(&entry) }.is_err() {
                return;
            }
            unlist(op, &mut self.cancels);
        }
    }

    /// Whether the kernel has completions that take an enter to get.
    fn needs_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Reports the completions that are in the queue; whether there were any.
    fn reap(&mut self, completed: &mut impl FnMut(NonNull<Op<W>>)) -> bool {
        let mut any = false;
        for entry in self.ring.completion() {
            any = true;
            match entry.user_data() {
                IGNORED => {}
                WOKEN => self.listening = false,
                address => {
                    self.counts.completions += 1;
                    let op =
                        NonNull::new(address as *mut Op<W>).expect("an op's address is not null");
                    // SAFETY: the op was submitted with this address and stays in place until it
                    // is reported, which is now.
                    unsafe { op.as_ref().result.set(entry.result()) };
                    self.in_flight -= 1;
                    unlist(op, &mut self.cancels);
                    completed(op);
                }
            }
        }
        any
    }
}

impl<W> Driver<W> for Uring<W> {
    unsafe fn submit(&mut self, op: NonNull<Op<W>>, request: &Request) -> Result<(), Full> {
        let entry = entry(request).user_data(op.as_ptr() as u64);
        // SAFETY: the caller vouches for the pointers.
        unsafe { self.push(&entry)? };
        self.in_flight += 1;
        Ok(())
    }

    unsafe fn cancel(&mut self, op: NonNull<Op<W>>) {
        // SAFETY: the caller says that it is in flight.
        let place = unsafe { &op.as_ref().cancel };
        place.listed.set(true);
        place.next.set(self.cancels);
        if let Some(first) = self.cancels.replace(op) {
            // SAFETY: it is on the list, hence in flight.
            unsafe { first.as_ref() }.cancel.previous.set(Some(op));
        }
    }

    fn hand_over(&mut self) {
        self.hand_over_cancels();
        if !self.ring.submission().is_empty() {
            self.enter(Wait::No);
        }
    }

    fn has_completions(&mut self) -> bool {
        self.needs_enter() || !self.ring.completion().is_empty()
    }

    fn in_flight(&self) -> bool {
        self.in_flight > 0
    }

    fn raise_alarms(&mut self, on: bool) {
        if self.has_alarm && self.alarms != on {
            self.alarms = on;
            let queue = self.ring.completion();
            if on { queue.enable_eventfd() } else { queue.disable_eventfd() }
        }
    }

    fn poll(&mut self, wait: Wait, mut completed: impl FnMut(NonNull<Op<W>>)) {
        self.hand_over_cancels();
        if let Wait::Defer | Wait::No = wait {
            if self.needs_enter() || wait == Wait::No && !self.ring.submission().is_empty() {
                self.enter(Wait::No);
            }
            self.reap(&mut completed);
            return;
        }
        self.listen();
        if self.reap(&mut completed) {
            // There is something to do already: hand over, but do not wait.
            return self.enter(Wait::No);
        }
        self.enter(wait);
        self.reap(&mut completed);
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}

/// Takes an op off the list of those to be cancelled that begins with `first`, if it is on it.
fn unlist<W>(op: NonNull<Op<W>>, first: &mut Option<NonNull<Op<W>>>) {
    // SAFETY: ops in flight stay in place, and only the driver uses these fields.
    let place = unsafe { &op.as_ref().cancel };
    if !place.listed.replace(false) {
        return;
    }
    let (previous, next) = (place.previous.take(), place.next.take());
    match previous {
        // SAFETY: it is on the list, hence in flight.
        Some(previous) => unsafe { previous.as_ref() }.cancel.next.set(next),
        None => *first = next,
    }
    if let Some(next) = next {
        // SAFETY: as above.
        unsafe { next.as_ref() }.cancel.previous.set(previous);
    }
}

/// The submission entry of a request.
fn entry(request: &Request) -> Entry {
    match *request {
        Request::Accept { fd, address, length, flags } => {
            opcode::Accept::new(Fd(fd), address, length).flags(flags).build()
        }
        Request::Connect { fd, address, length } => {
            opcode::Connect::new(Fd(fd), address, length).build()
        }
        Request::Recv { fd, buffer, length, flags } => {
            opcode::Recv::new(Fd(fd), buffer, length).flags(flags).build()
        }
        Request::Send { fd, buffer, length, flags } => {
            opcode::Send::new(Fd(fd), buffer, length).flags(flags).build()
        }
        Request::RecvMsg { fd, message, flags } => {
            opcode::RecvMsg::new(Fd(fd), message).flags(flags as u32).build()
        }
        Request::SendMsg { fd, message, flags } => {
            opcode::SendMsg::new(Fd(fd), message).flags(flags as u32).build()
        }
        Request::Read { fd, buffer, length, offset } => {
            opcode::Read::new(Fd(fd), buffer, length).offset(offset).build()
        }
        Request::Write { fd, buffer, length, offset } => {
            opcode::Write::new(Fd(fd), buffer, length).offset(offset).build()
        }
        Request::ReadV { fd, vector, count, offset } => {
            opcode::Readv::new(Fd(fd), vector, count).offset(offset).build()
        }
        Request::WriteV { fd, vector, count, offset } => {
            opcode::Writev::new(Fd(fd), vector, count).offset(offset).build()
        }
        Request::Poll { fd, events } => opcode::PollAdd::new(Fd(fd), events).build(),
        Request::Fsync { fd, data_only } => {
            let flags = if data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
            opcode::Fsync::new(Fd(fd)).flags(flags).build()
        }
        Request::OpenAt { directory, path, flags, mode } => {
            opcode::OpenAt::new(Fd(directory), path).flags(flags).mode(mode).build()
        }
        Request::WaitId { kind, id, info, options } => {
            opcode::WaitId::new(kind, id, options).infop(info).build()
        }
        Request::FutexWait { word, expected, private } => {
            // Numbers of futex2: words of 32 bits, and that they are the process's own.
            const SIZE_U32: u32 = 2;
            let own = if private { libc::FUTEX_PRIVATE_FLAG as u32 } else { 0 };
            let mask = u64::from(libc::FUTEX_BITSET_MATCH_ANY as u32);
            opcode::FutexWait::new(word, expected.into(), mask, SIZE_U32 | own).build()
        }
    }
}

/// A ring with the best flags that the kernel knows.
fn build(entries: u32) -> io::Result<IoUring> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for level in 0..3 {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_clamp()
            .setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_SUBMISSION));
        match level {
            0 => builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag(),
            1 => builder.setup_coop_taskrun().setup_taskrun_flag(),
            _ => &mut builder,
        };
        match builder.build(entries) {
            Ok(ring) => return Ok(ring),
            // An unknown flag; the other errors stay with fewer flags.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}

/// Says what to do about a ring that cannot be had.
fn explain(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring; uthread needs Linux 5.11 or later".to_owned(),
        Some(libc::EPERM | libc::EACCES) => "io_uring is forbidden here: see the sysctl kernel.io_uring_disabled and, \
             in a container, its seccomp profile"
            .to_owned(),
        Some(libc::ENOMEM) => {
            "no memory for an io_uring: raise the limit on locked memory (RLIMIT_MEMLOCK) or use fewer workers".to_owned()
        }
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor left for an io_uring: raise RLIMIT_NOFILE".to_owned(),
        _ => format!("cannot create an io_uring: {error}"),
    };
    io::Error::new(error.kind(), why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::WaitReason;
    use nix::sys::eventfd::EventFd;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn recv(socket: &UnixStream, buffer: &mut [u8]) -> Request {
        Request::Recv {
            fd: socket.as_raw_fd(),
            buffer: buffer.as_mut_ptr(),
            length: buffer.len() as u32,
            flags: 0,
        }
    }

    #[test]
    fn an_op_completes_with_the_systems_result() {
        let waker = EventFd::new().unwrap();
        let mut ring = Uring::new(4, waker.as_fd(), waker.as_fd()).unwrap();
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut buffer = [0; 8];
        let op = Op::new((), WaitReason::Recv);
        // SAFETY: op and buffer outlive the loop, which ends with the completion.
        unsafe { ring.submit(NonNull::from(&op), &recv(&here, &mut buffer)) }.unwrap();
        ring.poll(Wait::No, |_| panic!("nothing was sent"));
        there.write_all(b"hello").unwrap();
        let mut done = false;
        while !done {
            ring.poll(Wait::Forever, |_| done = true);
        }
        assert_eq!(op.outcome().unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
    }

    #[test]
    fn a_cancelled_op_completes_and_says_so() {
        let waker = EventFd::new().unwrap();
        let mut ring = Uring::new(4, waker.as_fd(), waker.as_fd()).unwrap();
        let (here, _there) = UnixStream::pair().unwrap();
        let mut buffer = [0; 8];
        let op = Op::new((), WaitReason::Recv);
        // SAFETY: op and buffer outlive the loop, which ends with the completion.
        unsafe {
            ring.submit(NonNull::from(&op), &recv(&here, &mut buffer)).unwrap();
            ring.poll(Wait::No, |_| panic!("nothing was sent"));
            op.timed_out.set(true);
            ring.cancel(NonNull::from(&op));
        }
        let mut done = false;
        while !done {
            ring.poll(Wait::Forever, |_| done = true);
        }
        assert_eq!(op.outcome().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn more_ops_than_the_ring_has_entries_all_complete() {
        let waker = EventFd::new().unwrap();
        let mut ring = Uring::new(2, waker.as_fd(), waker.as_fd()).unwrap();
        let pairs: Vec<_> = (0..100).map(|_| UnixStream::pair().unwrap()).collect();
        let mut buffers = [[0_u8; 1]; 100];
        let ops: Vec<Op<usize>> = (0..100).map(|i| Op::new(i, WaitReason::Recv)).collect();
        for (i, op) in ops.iter().enumerate() {
            // SAFETY: all outlive the loop below, which ends with the last completion.
            unsafe { ring.submit(NonNull::from(op), &recv(&pairs[i].0, &mut buffers[i])) }.unwrap();
        }
        for (_, there) in &pairs {
            (&*there).write_all(b"x").unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 100 {
            // SAFETY: the op is one of the vector's.
            ring.poll(Wait::Forever, |op| seen.push(unsafe { op.as_ref() }.waiter));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert!(ops.iter().all(|op| op.outcome().unwrap() == 1));
    }

    #[test]
    fn waiting_ends_by_the_waker_and_by_the_time_given() {
        let waker = EventFd::new().unwrap();
        let mut ring = Uring::<()>::new(4, waker.as_fd(), waker.as_fd()).unwrap();
        ring.poll(Wait::For(Duration::from_micros(1)), |_| panic!("there are no ops"));
        waker.write(1).unwrap();
        ring.poll(Wait::Forever, |_| panic!("there are no ops"));
        waker.write(1).unwrap();
        ring.poll(Wait::Forever, |_| panic!("there are no ops"));
    }

    #[test]
    fn alarms_announce_completions_to_others_while_they_are_on() {
        let waker = EventFd::new().unwrap();
        let alarm = EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).unwrap();
        let mut ring = Uring::new(4, waker.as_fd(), alarm.as_fd()).unwrap();
        let (here, mut there) = UnixStream::pair().unwrap();
        for on in [false, true, false] {
            ring.raise_alarms(on);
            let mut buffer = [0; 8];
            let op = Op::new((), WaitReason::Recv);
            // SAFETY: op and buffer outlive the loop, which ends with the completion.
            unsafe { ring.submit(NonNull::from(&op), &recv(&here, &mut buffer)) }.unwrap();
            ring.poll(Wait::No, |_| panic!("nothing was sent"));
            assert!(ring.in_flight() && !ring.has_completions());
            there.write_all(b"x").unwrap();
            assert!(ring.has_completions());
            assert_eq!(alarm.read().is_ok(), on);
            let mut done = false;
            while !done {
                ring.poll(Wait::Forever, |_| done = true);
            }
            assert!(!ring.in_flight());
            let _ = alarm.read();
        }
    }
}
