//! The socket's file.
//!
//! **Who may connect** is who may write to the file (unix(7)). So it has mode 0600 from the first instant: bind(2)
//! takes the mode of the socket's own inode, less the umask, and fchmod(2) sets that beforehand. To change the umask
//! would be seen by the whole process; to change the file's mode afterwards leaves a moment for others; a private
//! directory would have to be removed, too.
//!
//! **Files that were left behind** by a process that was killed are replaced, if nobody listens there any more. **The
//! race to fear** is that of two which start at the same time and replace each other's. So a socket gets another
//! name first, and the wanted one, by link(2), only when it is listened at: who finds a socket where nobody listens has
//! found one that was left behind. And it is looked at and removed with the directory locked (flock(2)).

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

/// How long to wait for others who replace files in the same directory: they need a fraction of a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);
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
    static NEXT: AtomicU32 = AtomicU32::new(0);
    address(path)?;
    // Random, so that what somebody left behind, or has put there, is not in the way.
    let random = RandomState::new().hash_one(NEXT.fetch_add(1, Ordering::Relaxed));
    let own = path.with_file_name(format!(".{random:016x}"));
    let (listener, own) = listen_at(own)?;
    match fs::hard_link(&own.0, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result.map(|()| listener),
    }
    let _locked = lock_directory(path)?;
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file that is no socket; it was left alone",
            ));
        }
        Ok(_) if is_listened_at(path)? => return Err(in_use()),
        Ok(_) => fs::remove_file(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    match fs::hard_link(&own.0, path) {
        // Somebody who found nothing there was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(in_use()),
        result => result.map(|()| listener),
    }
}

fn in_use() -> io::Error {
    let message = "a process listens there; choose another path for this one";
    io::Error::new(io::ErrorKind::AddrInUse, message)
}

/// A name that is removed, whatever becomes of the file.
struct Unlinked(PathBuf);

impl Drop for Unlinked {
    fn drop(&mut self) {
        // If it fails, a file is left that is of no use to anybody.
        let _ = fs::remove_file(&self.0);
    }
}

/// Keeps others from replacing files in the directory.
fn lock_directory(path: &Path) -> io::Result<Flock<File>> {
    let began = Instant::now();
    loop {
        match try_to_lock_directory(path) {
            Err(Errno::EAGAIN | Errno::EINTR) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return Ok(result?),
        }
    }
}

/// As [`lock_directory`], if nobody else does.
fn try_to_lock_directory(path: &Path) -> nix::Result<Flock<File>> {
    let directory = File::open(path.parent().unwrap_or(Path::new("/")));
    let directory =
        directory.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)
}

/// A socket at a path where nothing is, which nobody but the user may connect to.
fn listen_at(path: PathBuf) -> io::Result<(UnixListener, Unlinked)> {
    let socket = new_socket(SockFlag::empty())?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind_at(&socket, &path)?;
    let name = Unlinked(path);
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok((UnixListener::from(socket), name))
}

/// As bind(2), for a path that may be too long for it.
fn bind_at(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    if let Ok(address) = address(path) {
        return Ok(bind(socket.as_raw_fd(), &address)?);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok(bind(socket.as_raw_fd(), &address(&short)?)?)
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
    // Not to wait for one whose queue is full.
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
            for place in places.iter() {
                // The same holds for the directory's. The file is replaced by the next, then.
                if let Ok(_locked) = try_to_lock_directory(&place.path) {
                    place.remove();
                }
            }
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
    /// Removes the file, if it is still the same, and this process the one that made it and not a child of its. With
    /// the directory locked, lest another one is there when it is removed.
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
        // If it fails, the file stays, and is replaced by the next.
        if let Ok(_locked) = lock_directory(&self.0.path) {
            self.0.remove();
        }
    }
}
