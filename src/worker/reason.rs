//! What green threads wait for: a name for each place that parks.

use crate::reactor::op::Request;

macro_rules! reasons {
    ($($(#[$attribute:meta])+ $name:ident $text:literal,)+) => {
        /// Why a green thread does not run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum WaitReason {
            $($(#[$attribute])+ $name,)+
        }

        impl WaitReason {
            /// Its name in reports.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(WaitReason::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// It has not waited yet.
    Nothing "nothing",
    /// A time.
    Sleep "sleep",
    /// [`park`](crate::park).
    Park "park",
    /// The end of another thread.
    Join "join",
    /// The end of a scope's threads.
    Scope "scope",
    /// The end of a runtime's threads.
    RuntimeEnd "runtime-end",
    /// A word of memory to change: a lock, a condition, [`std::thread::park`].
    #[cfg_attr(not(feature = "interpose"), expect(dead_code))]
    Futex "futex",
    /// A connection to a listener.
    Accept "accept",
    /// A connection to a peer.
    Connect "connect",
    /// Bytes to read.
    Recv "recv",
    /// Room for bytes to write.
    Send "send",
    /// The same, in several buffers.
    RecvMsg "recvmsg",
    /// The same, from several buffers.
    SendMsg "sendmsg",
}

impl WaitReason {
    /// That of a thread that waits for an op.
    #[inline]
    pub(super) fn of(request: &Request) -> WaitReason {
        match request {
            Request::Accept { .. } => WaitReason::Accept,
            Request::Connect { .. } => WaitReason::Connect,
            Request::Recv { .. } => WaitReason::Recv,
            Request::Send { .. } => WaitReason::Send,
            Request::RecvMsg { .. } => WaitReason::RecvMsg,
            Request::SendMsg { .. } => WaitReason::SendMsg,
        }
    }
}
