//! The socket's file.
//!
//! **Who may connect** is who may write to the file (unix(7)). So it has mode 0600 from the first instant: bind(2)
//! takes the mode of the socket's own inode, less the umask, and fchmod(2) sets that beforehand. To change the umask
//! would be seen by the whole process; to change the file's mode afterwards leaves a moment for others; a private
//! directory would have to be removed, too.
//!
//! **Files that were left behind** by a process that was killed are replaced. Two that start at the same time must
//! not replace each other's: a file is first renamed, which one of them alone can do, then asked whether anybody
//! listens there, and only then removed.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

/// Others that replace the same file at the same time are outdone after so many tries.
const TRIES: u32 = 8;
/// Clients that wait to be accepted.
const BACKLOG: i32 = 16;

/// A file at which the process listens. Removed when this is dropped, or at the process's normal end.
#[derive(Debug)]
pub(super) struct SocketFile(Place);

/// A file of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    /// The device and the number by which it is known again.
    inode: (u64, u64),
    pid: u32,
}

/// Those to be removed at the process's end.
static PLACES: Mutex<Vec<Place>> = Mutex::new(Vec::new());

/// Listens there.
///
/// # Errors
///
/// [`io::ErrorKind::AddrInUse`] if somebody listens there already, [`io::ErrorKind::AlreadyExists`] if something else
/// than a socket is there; those of the kernel. The message says what to do.
pub(super) fn open(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    // As the process may go elsewhere before it is removed.
    let path = std::path::absolute(path)?;
    let tell = |e: io::Error| {
        io::Error::new(e.kind(), format!("cannot open the socket {}: {e}", path.display()))
    };
    let listener = claim(&path).map_err(tell)?;
    let file = fs::symlink_metadata(&path).map_err(tell)?;
    let place =
        Place { path: path.clone(), inode: (file.dev(), file.ino()), pid: std::process::id() };
    remember(&place);
    Ok((listener, SocketFile(place)))
}

fn claim(path: &Path) -> io::Result<UnixListener> {
    let in_use = || {
        io::Error::new(
            io::ErrorKind::AddrInUse,
            "a process listens there; choose another path for this one",
        )
    };
    for attempt in 0..TRIES {
        match listen_at(path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket; it was left alone",
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
            Ok(_) => {}
        }
        if is_listened_at(path)? {
            return Err(in_use());
        }
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}-{attempt}", std::process::id()));
        let aside = PathBuf::from(aside);
        match fs::rename(path, &aside) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        }
        // Since it was looked at, another process may have replaced it by its own.
        let taken = is_listened_at(&aside).unwrap_or(true);
        if taken {
            // It fails if a third one is there by now.
            let _ = fs::hard_link(&aside, path);
        }
        fs::remove_file(&aside)?;
        if taken {
            return Err(in_use());
        }
    }
    Err(in_use())
}

fn listen_at(path: &Path) -> io::Result<UnixListener> {
    let socket = new_socket(SockFlag::empty())?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &address(path)?)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

fn new_socket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)
}

fn address(path: &Path) -> io::Result<UnixAddr> {
    UnixAddr::new(path).map_err(|e| match e {
        Errno::ENAMETOOLONG => io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is too long: the kernel takes 107 bytes",
        ),
        e => e.into(),
    })
}

/// Whether somebody listens at a socket.
fn is_listened_at(path: &Path) -> io::Result<bool> {
    // It must not wait for one whose queue is full.
    let socket = new_socket(SockFlag::SOCK_NONBLOCK)?;
    match connect(socket.as_raw_fd(), &address(path)?) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Has it removed at the process's end, which does not drop what is static.
fn remember(place: &Place) {
    extern "C" fn remove_all() {
        // Whoever holds the lock now may never give it back.
        if let Ok(places) = PLACES.try_lock() {
            places.iter().for_each(Place::remove);
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function does not unwind, and does what exit(3) may call. Without memory for it, files stay.
        let _ = unsafe { libc::atexit(remove_all) };
    });
    places().push(place.clone());
}

fn places() -> std::sync::MutexGuard<'static, Vec<Place>> {
    PLACES.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Place {
    /// Removes the file, if it is still the same, and this process the one that made it and not a child of its.
    fn remove(&self) {
        let is_same = |file: fs::Metadata| (file.dev(), file.ino()) == self.inode;
        if std::process::id() == self.pid && fs::symlink_metadata(&self.path).is_ok_and(is_same) {
            // If it fails, the file stays, and is replaced by the next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        places().retain(|place| *place != self.0);
        self.0.remove();
    }
}
