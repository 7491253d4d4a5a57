//! The two sides of every comparison, behind one trait, so that both run the same workload.

use std::io;
use std::thread as os;
use std::time::Duration;

/// A kind of threads, and the place they run in.
pub(crate) trait Threads: Sync + 'static {
    type JoinHandle: Send;
    type Thread: Send + Sync + 'static;

    /// Runs `main` on a thread of this kind and waits for it.
    fn run<R: Send>(&self, main: impl FnOnce() -> R + Send) -> R;

    fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<Self::JoinHandle>;
    fn thread(handle: &Self::JoinHandle) -> &Self::Thread;
    fn join(handle: Self::JoinHandle);
    fn current() -> Self::Thread;
    fn park();
    fn unpark(thread: &Self::Thread);
    fn yield_now();
    fn sleep(span: Duration);
}

/// Green threads, on a runtime of their own.
pub(crate) struct Green(uthread::Runtime);

impl Green {
    /// The workers may use the cores that the caller may use now.
    pub(crate) fn new(workers: usize) -> io::Result<Green> {
        Ok(Green(uthread::Runtime::builder().workers(workers).build()?))
    }

    /// One worker whose green threads have stacks of so many bytes, or those they get unasked.
    pub(crate) fn with_stacks(bytes: Option<usize>) -> io::Result<Green> {
        let builder = uthread::Runtime::builder().workers(1);
        let builder = bytes.into_iter().fold(builder, |builder, bytes| builder.stack_size(bytes));
        Ok(Green(builder.build()?))
    }
}

/// The kernel's threads, on the cores that the caller may use.
pub(crate) struct Os;

/// Everything but `run` differs in the path alone.
macro_rules! named_as_in_std {
    ($module:ident) => {
        type JoinHandle = $module::JoinHandle<()>;
        type Thread = $module::Thread;

        fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<Self::JoinHandle> {
            $module::Builder::new().spawn(body)
        }
        fn thread(handle: &Self::JoinHandle) -> &Self::Thread {
            handle.thread()
        }
        fn join(handle: Self::JoinHandle) {
            handle.join().expect("workloads do not panic")
        }
        fn current() -> Self::Thread {
            $module::current()
        }
        fn park() {
            $module::park()
        }
        fn unpark(thread: &Self::Thread) {
            thread.unpark()
        }
        fn yield_now() {
            $module::yield_now()
        }
        fn sleep(span: Duration) {
            $module::sleep(span)
        }
    };
}

impl Threads for Green {
    named_as_in_std!(uthread);

    fn run<R: Send>(&self, main: impl FnOnce() -> R + Send) -> R {
        self.0.run(main)
    }
}

impl Threads for Os {
    named_as_in_std!(os);

    fn run<R: Send>(&self, main: impl FnOnce() -> R + Send) -> R {
        main()
    }
}
