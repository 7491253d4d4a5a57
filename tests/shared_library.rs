//! Shared libraries can use green threads: they link, and run in programs that know nothing of them.

#[path = "common/subprocess.rs"]
mod subprocess;

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use subprocess::in_child;

/// Where `examples/plugin.rs` is, next to this test; built if nobody has done so.
fn plugin() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let built = profile.join("examples/libplugin.so");
    if !built.exists() {
        let release = (!cfg!(debug_assertions)).then_some("--release");
        let build = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--quiet", "--example", "plugin"])
            .args(release)
            .arg("--target-dir")
            .arg(profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(build.unwrap().success());
    }
    built
}

#[test]
fn a_library_that_is_loaded_interrupts_its_threads() {
    let path = CString::new(plugin().as_os_str().as_bytes()).unwrap();
    let output = in_child("a_library_that_is_loaded_interrupts_its_threads", &[], || {
        // SAFETY: the string is valid. What the library does when it is loaded is what all of std does.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            // SAFETY: there was an error, on this thread; hence there is a message.
            panic!("{:?}", unsafe { CStr::from_ptr(libc::dlerror()) });
        }
        // SAFETY: the library is loaded, and the name is a C string.
        let function = unsafe { libc::dlsym(library, c"plugin_forced_switches".as_ptr()) };
        assert!(!function.is_null());
        // SAFETY: that is how the function is declared; the library is never unloaded.
        let function: extern "C" fn() -> u64 = unsafe { std::mem::transmute(function) };
        assert!(function() > 0);
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
