//! What green threads wait for: a name for each place that parks.
//!
//! There is one table of them, from which come the enum, its texts, the codes in the flight recorder's events and
//! a histogram for each operation. Whoever adds a place adds a row; whoever adds an operation, a row and its
//! [`Request`](crate::reactor::op::Request).

use std::fmt;

macro_rules! reasons {
    (
        operations { $($(#[doc = $op_doc:literal])+ $op:ident $op_name:ident,)+ }
        others { $($(#[doc = $doc:literal])+ $other:ident $name:literal,)+ }
    ) => {
        /// What a green thread waits for.
        ///
        /// [`threads`](fn@crate::threads) and [`dump`](fn@crate::dump) show it, [traces](mod@crate::trace) tell when
        /// each wait began. How long operations take is in [`OpLatency`](crate::OpLatency).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum WaitReason {
            $($(#[doc = $op_doc])+ $op,)+
            $($(#[doc = $doc])+ $other,)+
        }

        impl WaitReason {
            /// All, by their numbers: operations first.
            pub(crate) const ALL: &[WaitReason] =
                &[$(WaitReason::$op,)+ $(WaitReason::$other,)+];
            /// How many are operations.
            pub(crate) const OPERATIONS: usize = [$(WaitReason::$op),+].len();

            /// Its name in reports; an operation's is that of the system call.
            pub const fn name(self) -> &'static str {
                match self {
                    $(WaitReason::$op => stringify!($op_name),)+
                    $(WaitReason::$other => $name,)+
                }
            }
        }

        /// Calls a macro with one token tree of the caller's and all operations, in the order of their numbers.
        macro_rules! with_operations {
            ($called:ident $own:tt) => {
                $called! { $own $($op $op_name,)+ }
            };
        }
        pub(crate) use with_operations;
    };
}

reasons! {
    operations {
        /// `accept`: a connection to a listener.
        Accept accept,
        /// `connect`: a connection to a peer.
        Connect connect,
        /// `recv`: bytes to read.
        Recv recv,
        /// `send`: room for bytes to write.
        Send send,
        /// `recvmsg`: bytes to read, into several buffers.
        RecvMsg recvmsg,
        /// `sendmsg`: room for bytes to write, from several buffers.
        SendMsg sendmsg,
        /// `read`: bytes to read from a file of any kind.
        Read read,
        /// `write`: room for bytes to write, or the disk, in a file of any kind.
        Write write,
        /// `readv`: bytes to read, into several buffers.
        ReadV readv,
        /// `writev`: room for bytes to write, from several buffers.
        WriteV writev,
        /// `poll`: readiness of descriptors; also of `select` and `epoll_wait`.
        Poll poll,
        /// `fsync`, `fdatasync`: the disk.
        Fsync fsync,
        /// `openat`: the file system.
        OpenAt openat,
        /// `waitid`: a child process.
        WaitId waitid,
        /// `futex_wait`: a mutex or a semaphore of the C library's.
        FutexWait futex_wait,
    }
    others {
        /// A time: [`sleep`](fn@crate::sleep).
        Sleep "sleep",
        /// [`park`](fn@crate::park) and [`park_timeout`](fn@crate::park_timeout).
        Park "park",
        /// A word of memory to change, as futex(2): a lock of `std`'s, [`std::thread::park`].
        Futex "futex",
        /// A condition variable of the C library's.
        Condition "condition",
        /// The end of another thread: [`JoinHandle::join`](crate::JoinHandle::join).
        Join "join",
        /// The end of the threads of a [`scope`](fn@crate::scope).
        Scope "scope",
        /// The end of the threads of another [`Runtime`](crate::Runtime), which is dropped.
        RuntimeEnd "runtime-end",
    }
}

impl WaitReason {
    /// Whether it is the completion of an operation that was handed to the kernel.
    pub const fn is_operation(self) -> bool {
        (self as usize) < WaitReason::OPERATIONS
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_the_number_by_which_it_is_found() {
        for (number, reason) in WaitReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(reason.is_operation(), number < WaitReason::OPERATIONS);
            let same = |other: &&WaitReason| other.name() == reason.name();
            assert_eq!(WaitReason::ALL.iter().filter(same).count(), 1, "{reason}");
        }
    }
}
