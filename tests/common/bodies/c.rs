//! Calls of C: of libc, and of libraries that know nothing of green threads.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::io::{Read, Write};
use std::net::ToSocketAddrs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use crate::preempt::{Random, checksum};

/// C's sort, which calls back. Beyond a kilobyte it allocates.
pub(crate) fn sort(seed: u64) {
    unsafe extern "C" {
        fn qsort(
            base: *mut c_void,
            count: usize,
            size: usize,
            compare: unsafe extern "C" fn(*const c_void, *const c_void) -> c_int,
        );
    }
    unsafe extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
        // SAFETY: the array below is one of such numbers.
        unsafe { (*a.cast::<u64>()).cmp(&*b.cast::<u64>()) as c_int }
    }
    let mut random = Random(seed);
    let mut numbers: Vec<u64> = (0..500 + random.below(1000)).map(|_| random.next()).collect();
    let sum = numbers.iter().fold(0_u64, |a, b| a.wrapping_add(*b));
    // SAFETY: base, count and size are those of the vector.
    unsafe { qsort(numbers.as_mut_ptr().cast(), numbers.len(), 8, compare) };
    assert!(numbers.is_sorted());
    assert_eq!(numbers.iter().fold(0_u64, |a, b| a.wrapping_add(*b)), sum);
}

/// `getaddrinfo`, which loads libraries, reads files and talks to services.
pub(crate) fn look_up(_seed: u64) {
    for _ in 0..20 {
        let found: Vec<_> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert!(found.iter().all(|a| a.ip().is_loopback()) && !found.is_empty());
    }
}

/// Regular expressions, which allocate, and take libc's lock of the locale.
pub(crate) fn search(seed: u64) {
    let c_string = |text: String| CString::new(text).unwrap();
    let pattern = c_string(format!("^(a|ab)(c|bcd)*{seed}$"));
    let fits = c_string(format!("abcdbcdc{seed}"));
    let wrong = c_string(format!("{}x{seed}", "abcdbcd".repeat(3)));
    // SAFETY: the expression is compiled before it is used, and freed once; strings end with a zero.
    unsafe {
        let mut regex = std::mem::zeroed();
        assert_eq!(libc::regcomp(&mut regex, pattern.as_ptr(), libc::REG_EXTENDED), 0);
        let search = |text: &CStr| libc::regexec(&regex, text.as_ptr(), 0, std::ptr::null_mut(), 0);
        for _ in 0..10 {
            assert_eq!(search(&fits), 0);
            assert_eq!(search(&wrong), libc::REG_NOMATCH);
        }
        libc::regfree(&mut regex);
    }
}

/// Numbers that are printed and read.
pub(crate) fn print_numbers(seed: u64) {
    let mut random = Random(seed);
    for _ in 0..100 {
        let number = f64::from_bits(random.next() >> 12 | 0x3ff0_0000_0000_0000) * 1e9;
        let mut text = [0_u8; 64];
        // SAFETY: the text is as long as said, and ends with a zero afterwards.
        unsafe {
            let at = text.as_mut_ptr().cast::<c_char>();
            let length = libc::snprintf(at, text.len(), c"%.17g %ld".as_ptr(), number, 7 as c_long);
            assert!(length > 2 && (length as usize) < text.len());
            let mut end = std::ptr::null_mut();
            assert_eq!(libc::strtod(at, &mut end).to_bits(), number.to_bits());
            assert_eq!(libc::strtol(end, std::ptr::null_mut(), 10), 7);
        }
    }
}

/// Dates, under libc's lock of the time zone.
pub(crate) fn tell_time(seed: u64) {
    for n in 0..50 {
        let time = (seed % 2000 * 1_000_003 + n) as libc::time_t;
        // SAFETY: the pointers are valid.
        unsafe {
            let mut parts = std::mem::zeroed();
            assert!(!libc::localtime_r(&time, &mut parts).is_null());
            assert_eq!(libc::mktime(&mut parts), time);
        }
    }
}

/// zlib, there and back.
pub(crate) fn compress(seed: u64) {
    let mut random = Random(seed);
    let mut text = Vec::new();
    while text.len() < 6000 {
        write!(text, "word {} ", random.below(50)).unwrap();
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(random.below(10) as u32));
    for piece in text.chunks(1000) {
        encoder.write_all(piece).unwrap();
    }
    let packed = encoder.finish().unwrap();
    let mut back = Vec::new();
    ZlibDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
    assert_eq!(checksum(&back), checksum(&text));
}

/// Goes down, counts in thread-local storage on the way, and jumps out.
const SOURCE: &str = r#"
#include <setjmp.h>

static __thread long depth[8], calls;
static __thread jmp_buf out;

static void down(long seed, int level) {
    volatile long own = seed + level;
    depth[level % 8] = own;
    calls++;
    for (volatile int i = 0; i < 2000; i++) {}
    if (level == 0) longjmp(out, (int)(seed % 1000) + 1);
    down(seed, level - 1);
    if (own != seed + level) calls = -1000000;
}

/* What the jump brought, and how often the thread has ever gone down a level. */
int jump(long seed, int level, long *ever) {
    int brought = setjmp(out);
    if (brought == 0) down(seed, level);
    for (int i = 0; i < 8; i++)
        if (depth[i] != seed + i) brought = -1;
    *ever = calls;
    return brought;
}
"#;

type Jump = unsafe extern "C" fn(c_long, c_int, *mut c_long) -> c_int;

/// Compiles that into a file, loads it, and removes it; `None` if there is no compiler.
pub(crate) fn jumps() -> Option<Jump> {
    static LOADED: OnceLock<Option<Jump>> = OnceLock::new();
    *LOADED.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let name = format!("jumps-{}", std::process::id());
        let (source, library) = (folder.join(name.clone() + ".c"), folder.join(name + ".so"));
        std::fs::write(&source, SOURCE).unwrap();
        let mut cc = Command::new("cc");
        let compiled =
            cc.args(["-O1", "-shared", "-fPIC", "-o"]).args([&library, &source]).status();
        std::fs::remove_file(source).unwrap();
        match compiled {
            Ok(status) => assert!(status.success(), "cc: {status}"),
            Err(_) => return None,
        }
        let path = CString::new(library.as_os_str().as_bytes()).unwrap();
        // SAFETY: the library has no constructors; it has a function of this name and type, and stays loaded.
        unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!handle.is_null());
            std::fs::remove_file(library).unwrap();
            let found = libc::dlsym(handle, c"jump".as_ptr());
            assert!(!found.is_null());
            Some(std::mem::transmute::<*mut c_void, Jump>(found))
        }
    })
}

/// Long jumps over frames of C, with that library's thread-locals; nothing if there is no compiler.
pub(crate) fn jump(seed: u64) {
    const LEVEL: c_int = 15;
    let Some(jump) = jumps() else { return };
    let (number, mut before) = ((seed % 1_000_000) as c_long, -1);
    for _ in 0..4 {
        let mut ever = 0;
        // SAFETY: the pointer is valid, and the jump crosses frames of C only.
        let brought = unsafe { jump(number, LEVEL, &mut ever) };
        assert_eq!(c_long::from(brought), number % 1000 + 1);
        assert!(before == -1 || ever == before + c_long::from(LEVEL) + 1);
        before = ever;
    }
}
