//! `recv`, `send`, `accept`, `connect` and their relatives.

use std::ffi::{c_int, c_uint, c_void};
use std::mem;
use std::time::{Duration, Instant};

use libc::{
    EAGAIN, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_NOSIGNAL, MSG_PEEK, MSG_WAITALL,
    MSG_WAITFORONE, SO_RCVTIMEO, SO_SNDTIMEO, iovec, mmsghdr, msghdr, sockaddr, socklen_t,
    timespec,
};

use super::Answer;
use super::descriptor::{Patience, checked, length, patience, perform, time_out, wait_for};
use super::sleep::duration;
use super::symbols::next;
use crate::reactor::op::Request;

/// `recv`.
///
/// # Safety
///
/// As recv(2), on a green thread that may park; also for the other functions here, each as its system call.
pub(super) unsafe fn recv(fd: c_int, buffer: *mut c_void, bytes: usize, flags: c_int) -> Answer {
    let request = Request::Recv { fd, buffer: buffer.cast(), length: length(bytes), flags };
    // SAFETY: as the caller says.
    unsafe { receive(fd, flags, |flags| next::recv.get()(fd, buffer, bytes, flags), request) }
}

/// `recvfrom`.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    bytes: usize,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        if address.is_null() {
            return recv(fd, buffer, bytes, flags);
        }
        if address_length.is_null() {
            return Answer::Forward;
        }
        let mut vector = iovec { iov_base: buffer, iov_len: bytes };
        let mut message = one_buffer(&mut vector);
        message.msg_name = address.cast();
        message.msg_namelen = *address_length;
        let answer = recvmsg(fd, &mut message, flags);
        if let Answer::Done(_) = answer {
            *address_length = message.msg_namelen;
        }
        answer
    }
}

/// `recvmsg`.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> Answer {
    let request = Request::RecvMsg { fd, message, flags };
    // SAFETY: as the caller says.
    unsafe {
        if flags & (MSG_WAITALL | MSG_DONTWAIT) == MSG_WAITALL && (*message).msg_controllen > 0 {
            // What comes with the bytes may end the wait for more of them, of which the op knows nothing.
            return block(fd);
        }
        receive(fd, flags, |flags| next::recvmsg.get()(fd, message, flags), request)
    }
}

/// Receives: at once if there is something, else by an op.
///
/// # Safety
///
/// See [`recv`].
unsafe fn receive(
    fd: c_int,
    flags: c_int,
    call: impl Fn(c_int) -> isize,
    request: Request,
) -> Answer {
    if flags & (MSG_DONTWAIT | MSG_ERRQUEUE) != 0 {
        return Answer::of(call(flags));
    }
    if flags & (MSG_WAITALL | MSG_PEEK) == MSG_WAITALL | MSG_PEEK {
        // The op would look at the same bytes again.
        return block(fd);
    }
    // What waits for all may have to wait when it has got some, which only the op can.
    if flags & MSG_WAITALL == 0 {
        match checked(call(flags | MSG_DONTWAIT)) {
            Err(EAGAIN) => {}
            result => return result.into(),
        }
    }
    match patience(fd) {
        // SAFETY: as the caller says.
        Patience::Parks => unsafe { perform(request, time_out(fd, SO_RCVTIMEO), EAGAIN) }.into(),
        Patience::None if flags & MSG_WAITALL == 0 => Answer::Failed(EAGAIN),
        Patience::None | Patience::Blocks => Answer::of(call(flags)),
    }
}

/// The kernel's call shall do it.
fn block(fd: c_int) -> Answer {
    if patience(fd) == Patience::Parks { Answer::Help } else { Answer::Forward }
}

/// `recvmmsg`: one message after the other, as the kernel does.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    limit: *mut timespec,
) -> Answer {
    // SAFETY: as the caller says.
    let mut time_out = unsafe { limit.as_mut() };
    let limit = match time_out.as_ref().map(|limit| duration(**limit)) {
        Some(None) => return Answer::Forward,
        limit => limit.flatten(),
    };
    let begin = Instant::now();
    let mut own_flags = flags & !MSG_WAITFORONE;
    let answer = each_message(count, |i| {
        if i > 0 && flags & MSG_WAITFORONE != 0 {
            own_flags |= MSG_DONTWAIT;
        }
        // The kernel looks at the clock between messages, too: a wait for one is not ended.
        if i > 0 && limit.is_some_and(|limit| begin.elapsed() >= limit) {
            return None;
        }
        // SAFETY: there are `count` messages.
        unsafe {
            let message = messages.add(i);
            let answer = recvmsg(fd, &raw mut (*message).msg_hdr, own_flags);
            Some((answer, &raw mut (*message).msg_len, usize::MAX))
        }
    });
    if let (Answer::Done(_), Some(limit), Some(rest)) = (answer, limit, &mut time_out) {
        let time = limit.saturating_sub(begin.elapsed());
        rest.tv_sec = time.as_secs() as libc::time_t;
        rest.tv_nsec = time.subsec_nanos().into();
    }
    answer
}

/// `sendmmsg`: one message after the other, as the kernel does.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> Answer {
    // The kernel takes no more at a time.
    each_message(count.min(libc::UIO_MAXIOV as c_uint), |i| {
        // SAFETY: there are `count` messages.
        unsafe {
            let message = messages.add(i);
            let header = &raw const (*message).msg_hdr;
            Some((sendmsg(fd, header, flags), &raw mut (*message).msg_len, length_of(header)))
        }
    })
}

/// Transfers messages until one fails, or is not transferred as a whole; how many were, or the error of the first.
/// `transfer` says how it went, where to store how many bytes it was, and how many there were.
fn each_message(
    count: c_uint,
    mut transfer: impl FnMut(usize) -> Option<(Answer, *mut c_uint, usize)>,
) -> Answer {
    if count == 0 {
        // Only the descriptor is looked at.
        return Answer::Forward;
    }
    let mut done = 0;
    while done < count as usize {
        match transfer(done) {
            Some((Answer::Done(n), length, whole)) => {
                // SAFETY: the pointer is to the field of a message that the caller vouched for.
                unsafe { *length = n as c_uint };
                done += 1;
                if whole != usize::MAX && (n as usize) < whole {
                    break;
                }
            }
            Some((error, ..)) if done == 0 => return error,
            _ => break,
        }
    }
    Answer::Done(done as isize)
}

/// The bytes of a message.
///
/// # Safety
///
/// It is a valid message.
unsafe fn length_of(message: *const msghdr) -> usize {
    // SAFETY: as the caller says.
    unsafe { vectors_of(message) }.iter().map(|v| v.iov_len).fold(0, usize::saturating_add)
}

/// The buffers of a message.
///
/// # Safety
///
/// See [`length_of`].
unsafe fn vectors_of<'a>(message: *const msghdr) -> &'a [iovec] {
    // SAFETY: as the caller says; an empty list may be a null pointer.
    unsafe {
        let count = (*message).msg_iovlen;
        if count == 0 { &[] } else { std::slice::from_raw_parts((*message).msg_iov, count) }
    }
}

/// `send`.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn send(fd: c_int, buffer: *const c_void, bytes: usize, flags: c_int) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        let call = |flags| next::send.get()(fd, buffer, bytes, flags);
        transmit(fd, flags, bytes, call, |sent, limit| {
            send_rest(fd, buffer.byte_add(sent), bytes - sent, flags, limit)
        })
    }
}

/// `sendto`.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn sendto(
    fd: c_int,
    buffer: *const c_void,
    bytes: usize,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> Answer {
    let mut vector = iovec { iov_base: buffer.cast_mut(), iov_len: bytes };
    let mut message = one_buffer(&mut vector);
    message.msg_name = address.cast_mut().cast();
    message.msg_namelen = address_length;
    // SAFETY: as the caller says; the message says the same.
    unsafe {
        if address.is_null() {
            send(fd, buffer, bytes, flags)
        } else {
            sendmsg(fd, &message, flags)
        }
    }
}

/// `sendmsg`.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        let call = |flags| next::sendmsg.get()(fd, message, flags);
        if flags & MSG_DONTWAIT != 0 {
            return Answer::of(call(flags));
        }
        transmit(fd, flags, length_of(message), call, |sent, limit| {
            if sent == 0 {
                let request =
                    Request::SendMsg { fd, message, flags: flags | MSG_WAITALL | MSG_NOSIGNAL };
                return perform(request, limit, EAGAIN);
            }
            // A stream has taken the first part, with what accompanies the message.
            let mut skip = sent;
            let mut total = 0;
            let begin = Instant::now();
            for vector in vectors_of(message) {
                let skipped = skip.min(vector.iov_len);
                skip -= skipped;
                let rest = vector.iov_len - skipped;
                if rest == 0 {
                    continue;
                }
                let limit = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
                match send_rest(fd, vector.iov_base.byte_add(skipped), rest, flags, limit) {
                    Ok(n) => {
                        total += n;
                        if n < rest {
                            break;
                        }
                    }
                    Err(_) if total > 0 => break,
                    error => return error,
                }
            }
            Ok(total)
        })
    }
}

/// Sends: at once as far as there is room, and the rest by `wait`, which is told how much was sent.
fn transmit(
    fd: c_int,
    flags: c_int,
    bytes: usize,
    call: impl Fn(c_int) -> isize,
    wait: impl Fn(usize, Option<Duration>) -> Result<usize, c_int>,
) -> Answer {
    if flags & (MSG_DONTWAIT | MSG_FASTOPEN) != 0 {
        return Answer::of(call(flags));
    }
    let sent = match checked(call(flags | MSG_DONTWAIT)) {
        Ok(sent) if sent >= bytes => return Answer::Done(sent as isize),
        Ok(sent) => sent,
        Err(EAGAIN) => 0,
        Err(error) => return Answer::Failed(error),
    };
    match patience(fd) {
        Patience::None if sent > 0 => Answer::Done(sent as isize),
        Patience::None => Answer::Failed(EAGAIN),
        Patience::Blocks if sent > 0 => Answer::Done(sent as isize),
        Patience::Blocks => Answer::of(call(flags)),
        Patience::Parks => match wait(sent, time_out(fd, SO_SNDTIMEO)) {
            Ok(more) => Answer::Done((sent + more) as isize),
            Err(_) if sent > 0 => Answer::Done(sent as isize),
            // Who waits for room is told first why there will be none, and without a signal.
            Err(libc::EPIPE) => match option(fd, libc::SO_ERROR) {
                // Ops raise no SIGPIPE; the system call, which fails in the same way, does.
                None | Some(0) => Answer::of(call(flags | MSG_DONTWAIT)),
                Some(error) => Answer::Failed(error),
            },
            Err(error) => Answer::Failed(error),
        },
    }
}

/// Sends bytes by ops until all are sent.
///
/// # Safety
///
/// See [`recv`].
unsafe fn send_rest(
    fd: c_int,
    buffer: *const c_void,
    bytes: usize,
    flags: c_int,
    limit: Option<Duration>,
) -> Result<usize, c_int> {
    let flags = flags | MSG_WAITALL | MSG_NOSIGNAL;
    let request = Request::Send { fd, buffer: buffer.cast(), length: length(bytes), flags };
    // SAFETY: as the caller says.
    unsafe { perform(request, limit, EAGAIN) }
}

/// `accept4`, and `accept`, which has no flags.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
    flags: c_int,
) -> Answer {
    if patience(fd) != Patience::Parks {
        return Answer::Forward;
    }
    let request = Request::Accept { fd, address, length: address_length, flags };
    // SAFETY: as the caller says.
    unsafe { perform(request, time_out(fd, SO_RCVTIMEO), EAGAIN) }.into()
}

/// `connect`.
///
/// # Safety
///
/// See [`recv`].
pub(super) unsafe fn connect(
    fd: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> Answer {
    if patience(fd) != Patience::Parks {
        return Answer::Forward;
    }
    let request = Request::Connect { fd, address, length: address_length };
    let limit = time_out(fd, SO_SNDTIMEO);
    // SAFETY: as the caller says.
    match unsafe { perform(request, limit, libc::EINPROGRESS) } {
        // Nothing is in progress where it is a queue of connections in which there is no room.
        Err(libc::EINPROGRESS) if option(fd, libc::SO_DOMAIN) == Some(libc::AF_UNIX) => {
            Answer::Failed(EAGAIN)
        }
        // Somebody has begun it, and did not wait for the end.
        Err(libc::EALREADY) => match wait_for(fd, libc::POLLOUT as u32, limit) {
            Ok(0) => Answer::Failed(libc::EALREADY),
            _ => Answer::Forward,
        },
        result => result.into(),
    }
}

/// A number that the kernel keeps for a socket.
fn option(fd: c_int, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of_val(&value) as socklen_t;
    let pointer = (&raw mut value).cast();
    // SAFETY: the pointers are valid, the length is that of what the kernel writes.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, pointer, &mut length) };
    (result == 0).then_some(value)
}

/// A message of one buffer.
fn one_buffer(vector: &mut iovec) -> msghdr {
    // SAFETY: integers, and pointers that may be null.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message
}
