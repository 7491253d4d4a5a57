//! Files of every kind.

use std::ffi::CString;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::null;
use std::time::Duration;

use libc::{
    EAGAIN, EBADF, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENXIO, ESPIPE, O_APPEND, O_CLOEXEC,
    O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE,
    O_TRUNC, O_WRONLY, iovec,
};

use crate::stage::{Folder, Outcome, never_waits, on_both, own, pattern, waiting};

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

fn read(fd: RawFd, room: usize) -> (Outcome, Vec<u8>) {
    let mut buffer = vec![0xee; room];
    (c!(read(fd, buffer.as_mut_ptr().cast(), room)), buffer)
}

fn write(fd: RawFd, bytes: &[u8]) -> Outcome {
    c!(write(fd, bytes.as_ptr().cast(), bytes.len()))
}

fn vectors(parts: &mut [Vec<u8>]) -> Vec<iovec> {
    let vector = |p: &mut Vec<u8>| iovec { iov_base: p.as_mut_ptr().cast(), iov_len: p.len() };
    parts.iter_mut().map(vector).collect()
}

fn open(path: &CString, flags: i32, mode: u32) -> Outcome {
    c!(open(path.as_ptr(), flags, mode))
}

#[test]
fn regular_files_are_read_and_written_at_each_position() {
    on_both(|| {
        let folder = Folder::new();
        let file = own(open(&folder.path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0o600));
        let fd = file.as_raw_fd();
        let all = pattern(3_000_000);
        let mut outcomes = vec![write(fd, &all), c!(lseek(fd, 0, libc::SEEK_SET))];
        let (whole, content) = read(fd, 4_000_000);
        assert!(content.starts_with(&all));
        outcomes.extend([whole, read(fd, 10).0, read(fd, 0).0]);
        let mut contents = Vec::new();
        for offset in [0, 1, 4095, 2_999_998, 3_000_000, 9_000_000, -1, i64::MIN, i64::MAX] {
            let mut buffer = [0_u8; 10];
            outcomes.push(c!(pread(fd, buffer.as_mut_ptr().cast(), 10, offset)));
            contents.push(buffer.to_vec());
            outcomes.push(c!(pread64(fd, buffer.as_mut_ptr().cast(), 10, offset)));
            let mut parts = [vec![0; 3], vec![], vec![0; 5]];
            let list = vectors(&mut parts);
            outcomes.push(c!(preadv(fd, list.as_ptr(), 3, offset)));
            outcomes.push(c!(preadv64(fd, list.as_ptr(), 3, offset)));
            contents.extend(parts);
        }
        // With a hole, and at the end.
        outcomes.push(c!(pwrite(fd, b"abc".as_ptr().cast(), 3, 4_000_000)));
        let mut parts = [b"de".to_vec(), b"f".to_vec()];
        let list = vectors(&mut parts);
        outcomes.push(c!(pwritev(fd, list.as_ptr(), 2, 4_000_003)));
        outcomes.push(c!(pwrite64(fd, b"xyz".as_ptr().cast(), 3, -1)));
        outcomes.push(c!(lseek(fd, 3_999_990, libc::SEEK_SET)));
        let (tail, content) = read(fd, 100);
        outcomes.extend([tail, c!(lseek(fd, 0, libc::SEEK_CUR))]);
        contents.push(content);
        for (name, count) in [("readv", 2), ("none", 0), ("negative", -1), ("many", 2000)] {
            c!(lseek(fd, 5, libc::SEEK_SET)).unwrap();
            let mut parts = vec![vec![0; 3]; 2000];
            let list = vectors(&mut parts);
            outcomes.push(c!(readv(fd, list.as_ptr(), count)));
            outcomes.push(c!(writev(fd, list.as_ptr(), count)));
            outcomes.push(c!(lseek(fd, 0, libc::SEEK_CUR)));
            contents.push(name.into());
            contents.extend_from_slice(&parts[..2]);
        }
        let appended = own(open(&folder.path("file"), O_WRONLY | O_APPEND, 0));
        outcomes.push(write(appended.as_raw_fd(), b"end"));
        outcomes.push(c!(pwrite(appended.as_raw_fd(), b"end".as_ptr().cast(), 3, 0)));
        outcomes.push(c!(lseek(appended.as_raw_fd(), 0, libc::SEEK_CUR)));
        never_waits(&file);
        outcomes.extend([c!(lseek(fd, 0, libc::SEEK_SET)), read(fd, 2_000_000).0, write(fd, &all)]);
        (outcomes, contents)
    });
}

#[test]
fn descriptors_that_cannot_be_read_or_written_are_told() {
    on_both(|| {
        let folder = Folder::new();
        let path = folder.path("file");
        let write_only = own(open(&path, O_WRONLY | O_CREAT, 0o600));
        let read_only = own(open(&path, O_RDONLY, 0));
        let directory = own(open(&folder.path("."), O_RDONLY | O_DIRECTORY, 0));
        let by_path = own(open(&path, O_PATH, 0));
        let event = own(c!(eventfd(0, 0)));
        let timer = own(c!(timerfd_create(libc::CLOCK_MONOTONIC, 0)));
        let epoll = own(c!(epoll_create1(0)));
        let (reader, writer) = pipe();
        let fds = [
            -1,
            1_000_000,
            write_only.as_raw_fd(),
            read_only.as_raw_fd(),
            directory.as_raw_fd(),
            by_path.as_raw_fd(),
            event.as_raw_fd(),
            timer.as_raw_fd(),
            epoll.as_raw_fd(),
        ];
        let mut outcomes = Vec::new();
        let nowhere: *mut libc::c_void = std::ptr::without_provenance_mut(16);
        for fd in fds {
            outcomes.extend([
                read(fd, 4).0,
                write(fd, b"abcd"),
                c!(read(fd, nowhere, 4)),
                c!(write(fd, nowhere, 4)),
                c!(readv(fd, null(), 1)),
                c!(fsync(fd)),
                c!(fdatasync(fd)),
            ]);
        }
        for fd in [reader.as_raw_fd(), writer.as_raw_fd(), event.as_raw_fd()] {
            let mut byte = 0_u8;
            outcomes.push(c!(pread(fd, (&raw mut byte).cast(), 1, 0)));
            outcomes.push(c!(pwrite(fd, (&raw const byte).cast(), 1, 0)));
            outcomes.push(c!(fsync(fd)));
        }
        outcomes.push(read(writer.as_raw_fd(), 1).0);
        outcomes.push(write(reader.as_raw_fd(), b"a"));
        assert_eq!(outcomes[0], Err(EBADF));
        assert_eq!(
            (outcomes[14], outcomes[28], outcomes[42]),
            (Err(EBADF), Err(EISDIR), Err(EINVAL))
        );
        assert!(outcomes.contains(&Err(ESPIPE)));
        outcomes
    });
}

#[test]
fn readers_wait_for_events_of_each_kind() {
    waiting(pipe, |r| read(r.as_raw_fd(), 8), |w| write(w.as_raw_fd(), b"abc"));
    waiting(pipe, |r| read(r.as_raw_fd(), 8).0, drop);
    waiting(
        pipe,
        |r| {
            let mut parts = [vec![0; 2], vec![0; 2]];
            let list = vectors(&mut parts);
            (c!(readv(r.as_raw_fd(), list.as_ptr(), 2)), parts)
        },
        |w| write(w.as_raw_fd(), b"abc"),
    );
    let twice = |fd: OwnedFd| (fd.try_clone().unwrap(), fd);
    waiting(
        || twice(own(c!(eventfd(0, libc::EFD_CLOEXEC)))),
        |event| read(event.as_raw_fd(), 8),
        |event| write(event.as_raw_fd(), &7_u64.to_ne_bytes()),
    );
    waiting(
        || twice(own(c!(eventfd(0, libc::EFD_SEMAPHORE)))),
        |event| [read(event.as_raw_fd(), 8), read(event.as_raw_fd(), 9)],
        |event| write(event.as_raw_fd(), &2_u64.to_ne_bytes()),
    );
    // Full.
    waiting(
        || {
            let event = own(c!(eventfd(0, 0)));
            write(event.as_raw_fd(), &(u64::MAX - 1).to_ne_bytes()).unwrap();
            twice(event)
        },
        |event| write(event.as_raw_fd(), &1_u64.to_ne_bytes()),
        |event| read(event.as_raw_fd(), 8),
    );
    waiting(
        || twice(own(c!(timerfd_create(libc::CLOCK_MONOTONIC, 0)))),
        |timer| read(timer.as_raw_fd(), 8),
        |timer| {
            let time = libc::timespec { tv_sec: 0, tv_nsec: 1000 };
            let once = libc::itimerspec {
                it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: time,
            };
            c!(timerfd_settime(timer.as_raw_fd(), 0, &once, std::ptr::null_mut()))
        },
    );
    waiting(
        || {
            let folder = std::sync::Arc::new(Folder::new());
            let watch = own(c!(inotify_init1(libc::IN_CLOEXEC)));
            c!(inotify_add_watch(watch.as_raw_fd(), folder.path(".").as_ptr(), libc::IN_CREATE))
                .unwrap();
            ((watch, folder.clone()), folder)
        },
        |(watch, _folder)| read(watch.as_raw_fd(), 300),
        |folder| drop(File::create(folder.0.join("new")).unwrap()),
    );
    let pty = || {
        let (mut master, mut slave) = (0, 0);
        let null = std::ptr::null_mut();
        c!(openpty(&mut master, &mut slave, null, null.cast(), null.cast())).unwrap();
        (own(Ok(slave.into())), own(Ok(master.into())))
    };
    let line = waiting(
        pty,
        |tty| read(tty.as_raw_fd(), 20),
        |master| {
            // Its end is the line's.
            let outcome = write(master.as_raw_fd(), b"a line\n");
            std::mem::forget(master);
            outcome
        },
    );
    assert_eq!(line.0.0, Ok(7));
}

#[test]
fn pipes_take_all_that_is_written() {
    const BYTES: usize = 1_000_000;
    let read_all = |mut r: PipeReader| {
        let mut all = Vec::new();
        r.read_to_end(&mut all).unwrap();
        all == pattern(BYTES)
    };
    let turned = || {
        let (r, w) = pipe();
        (w, r)
    };
    let written = waiting(turned, |w| write(w.as_raw_fd(), &pattern(BYTES)), read_all);
    assert_eq!(written, (Ok(BYTES as i64), true));
    let written = waiting(
        turned,
        |w| {
            let all = pattern(BYTES);
            let mut parts =
                [all[..5].to_vec(), all[5..BYTES / 3].to_vec(), all[BYTES / 3..].to_vec()];
            c!(writev(w.as_raw_fd(), vectors(&mut parts).as_ptr(), 3))
        },
        read_all,
    );
    assert_eq!(written, (Ok(BYTES as i64), true));
    // The reader leaves in between.
    let partly = waiting(
        || {
            let (r, w) = pipe();
            ((w, pattern(BYTES)), r)
        },
        |(w, all)| (write(w.as_raw_fd(), &all).map(|n| n > 0), write(w.as_raw_fd(), b"a")),
        drop,
    );
    assert_eq!(partly.0, (Ok(true), Err(libc::EPIPE)));
    on_both(|| {
        let (_r, w) = pipe();
        never_waits(&w);
        let first = write(w.as_raw_fd(), &pattern(BYTES));
        assert_eq!(write(w.as_raw_fd(), b"a"), Err(EAGAIN));
        (first, write(w.as_raw_fd(), &[]))
    });
}

#[test]
fn short_writes_to_a_pipe_are_not_torn() {
    const WRITERS: u8 = 4;
    const RECORD: usize = 3000;
    for in_parts in [false, true] {
        waiting(
            || {
                let (r, w) = pipe();
                c!(fcntl(w.as_raw_fd(), libc::F_SETPIPE_SZ, 4096)).unwrap();
                (w, r)
            },
            |w| {
                uthread::scope(|s| {
                    for number in 0..WRITERS {
                        let w = &w;
                        s.spawn(move || {
                            for _ in 0..20 {
                                let mut record = vec![vec![number; RECORD / 3]; 3];
                                let written = if in_parts {
                                    c!(writev(w.as_raw_fd(), vectors(&mut record).as_ptr(), 3))
                                } else {
                                    write(w.as_raw_fd(), &record.concat())
                                };
                                assert_eq!(written, Ok(RECORD as i64));
                            }
                        });
                    }
                });
            },
            |mut r| {
                let mut all = Vec::new();
                r.read_to_end(&mut all).unwrap();
                assert_eq!(all.len(), usize::from(WRITERS) * 20 * RECORD);
                assert!(
                    all.chunks(RECORD).all(|c| c.iter().all(|b| *b == c[0])),
                    "torn: {in_parts}"
                );
            },
        );
    }
}

#[test]
fn files_are_opened_as_the_flags_say() {
    on_both(|| {
        let folder = Folder::new();
        let [file, missing, new, link, fifo] =
            ["file", "missing", "new", "link", "fifo"].map(|name| folder.path(name));
        std::fs::write(folder.0.join("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", folder.0.join("link")).unwrap();
        c!(mkfifo(fifo.as_ptr(), 0o600)).unwrap();
        let here = folder.path(".");
        let below_file = folder.path("file/x");
        let mut made = Vec::new();
        for (path, flags, mode) in [
            (&file, O_RDONLY, 0),
            (&file, O_RDONLY | O_CLOEXEC, 0o777),
            (&file, O_WRONLY | O_APPEND, 0),
            (&file, O_RDWR | O_NONBLOCK | libc::O_SYNC, 0),
            (&file, O_RDONLY | 0o40_000_000, 0),
            (&file, 3, 0),
            (&missing, O_RDONLY, 0),
            (&missing, O_WRONLY | O_TRUNC, 0),
            (&file, O_CREAT | O_EXCL | O_WRONLY, 0o600),
            (&new, O_CREAT | O_EXCL | O_WRONLY, 0o777),
            (&new, O_CREAT | O_RDWR, 0o111),
            (&file, O_RDWR | O_TRUNC, 0),
            (&link, O_RDONLY, 0),
            (&link, O_RDONLY | O_NOFOLLOW, 0),
            (&link, O_PATH | O_NOFOLLOW, 0),
            (&here, O_RDONLY, 0),
            (&here, O_WRONLY, 0),
            (&here, O_RDWR | O_TMPFILE, 0o640),
            (&here, O_RDONLY | O_TMPFILE, 0o640),
            (&here, O_PATH | O_DIRECTORY, 0),
            (&file, O_DIRECTORY, 0),
            (&below_file, O_RDONLY, 0),
            (&below_file, O_WRONLY | O_CREAT, 0o600),
            (&fifo, O_RDONLY | O_NONBLOCK, 0),
            (&fifo, O_WRONLY | O_NONBLOCK, 0),
            (&fifo, O_RDWR, 0),
            (&fifo, O_PATH, 0),
        ] {
            let opened = open(path, flags, mode);
            let described = opened.map(|fd| {
                let file = File::from(own(Ok(fd)));
                let status = file.metadata().unwrap();
                let flags = c!(fcntl(file.as_raw_fd(), libc::F_GETFL));
                (
                    status.mode(),
                    status.len() % 4096,
                    flags,
                    c!(fcntl(file.as_raw_fd(), libc::F_GETFD)),
                )
            });
            made.push(described);
        }
        let failed = [6, 8, 16, 20, 24].map(|i| made[i].unwrap_err());
        assert_eq!(failed, [ENOENT, EEXIST, EISDIR, ENOTDIR, ENXIO]);
        let directory = own(open(&here, O_RDONLY, 0));
        let regular = own(open(&file, O_RDONLY, 0));
        let open_at = |fd, path: &std::ffi::CStr, flags, mode: u32| {
            c!(openat(fd, path.as_ptr(), flags, mode)).map(|fd| drop(own(Ok(fd))))
        };
        let relative = [
            open_at(directory.as_raw_fd(), c"file", O_RDONLY, 0),
            open_at(directory.as_raw_fd(), c"made", O_CREAT | O_WRONLY, 0o600),
            open_at(directory.as_raw_fd(), c"made", O_CREAT | O_EXCL | O_WRONLY, 0o600),
            open_at(directory.as_raw_fd(), c"", O_RDONLY, 0),
            open_at(regular.as_raw_fd(), c"file", O_RDONLY, 0),
            open_at(regular.as_raw_fd(), c"file", O_CREAT | O_RDONLY, 0),
            open_at(1_000_000, c"file", O_RDONLY, 0),
            open_at(1_000_000, c"/proc/version", O_RDONLY, 0),
            c!(open(null(), O_RDONLY)).map(|_| ()),
            c!(open(null(), O_RDWR | O_CREAT, 0)).map(|_| ()),
            c!(creat(folder.path("created").as_ptr(), 0o640)).map(|fd| drop(own(Ok(fd)))),
            c!(open64(folder.path("created").as_ptr(), O_RDONLY)).map(|fd| drop(own(Ok(fd)))),
        ];
        (made, relative, std::fs::metadata(folder.0.join("created")).unwrap().mode())
    });
}

#[test]
fn opening_a_named_pipe_waits_for_the_other_end() {
    for (flags, others) in
        [(O_RDONLY, O_WRONLY), (O_WRONLY, O_RDONLY), (O_WRONLY | O_CREAT | O_TRUNC, O_RDONLY)]
    {
        waiting(
            || {
                let folder = Folder::new();
                let path = folder.path("fifo");
                c!(mkfifo(path.as_ptr(), 0o600)).unwrap();
                (path.clone(), (path, folder))
            },
            |path| {
                let end = own(open(&path, flags, 0));
                (c!(fcntl(end.as_raw_fd(), libc::F_GETFL)), write(end.as_raw_fd(), &[]))
            },
            |(path, _folder)| drop(own(open(&path, others, 0))),
        );
    }
}

#[test]
fn files_of_proc_and_devices_are_read() {
    on_both(|| {
        let version = std::fs::read_to_string("/proc/version").unwrap();
        let mut zeros = [1_u8; 5000];
        File::open("/dev/zero").unwrap().read_exact(&mut zeros).unwrap();
        let mut null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let written = null.write(&zeros).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        (
            version,
            zeros.iter().all(|z| *z == 0),
            written,
            null.read(&mut zeros).unwrap(),
            write(full.as_raw_fd(), b"a"),
        )
    });
}

#[test]
fn files_of_std_are_written_copied_and_synchronised() {
    on_both(|| {
        let folder = Folder::new();
        let mut file = File::create_new(folder.0.join("a")).unwrap();
        file.write_all(&pattern(500_000)).unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        file.set_len(600_000).unwrap();
        let copied = std::fs::copy(folder.0.join("a"), folder.0.join("b")).unwrap();
        let mut b = File::options().read(true).append(true).open(folder.0.join("b")).unwrap();
        let position = b.seek(std::io::SeekFrom::Start(499_999)).unwrap();
        let mut rest = Vec::new();
        b.read_to_end(&mut rest).unwrap();
        b.write_all(b"end").unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        (copied, position, rest.len(), b.stream_position().unwrap(), names)
    });
    // Between two pipes, which others fill and empty.
    let copied = waiting(
        || {
            let ((r, w), (other_r, other_w)) = (pipe(), pipe());
            ((r, other_w), (w, other_r))
        },
        |(mut r, mut w)| {
            let mut buffer = [0; 1000];
            let mut sum = 0;
            loop {
                match r.read(&mut buffer).unwrap() {
                    0 => return sum,
                    n => w.write_all(&buffer[..n]).unwrap(),
                }
                sum += 1;
                if sum > 1_000_000 {
                    return sum;
                }
            }
        },
        |(mut w, mut r)| {
            for _ in 0..100 {
                w.write_all(&pattern(1000)).unwrap();
                let mut back = vec![0; 1000];
                r.read_exact(&mut back).unwrap();
                assert!(back == pattern(1000));
            }
        },
    );
    assert_eq!(copied.0, 100);
    std::thread::sleep(Duration::ZERO);
}

#[test]
fn std_copies_between_a_pipe_and_a_socket() {
    let copied = waiting(
        || {
            let (r, w) = pipe();
            let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
            ((r, a), (w, b))
        },
        |(mut r, mut a)| uthread::blocking(|| std::io::copy(&mut r, &mut a).unwrap()),
        |(mut w, mut b)| {
            w.write_all(b"some text").unwrap();
            drop(w);
            let mut text = String::new();
            b.read_to_string(&mut text).unwrap();
            text
        },
    );
    assert_eq!(copied, (9, "some text".to_owned()));
}
