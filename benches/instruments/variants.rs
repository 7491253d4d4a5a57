//! The two builds of this program.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Where the two programs are.
pub(crate) struct Variants {
    /// This one.
    pub(crate) full: PathBuf,
    /// Without instruments.
    pub(crate) bare: PathBuf,
}

/// Builds the bare one, as this one was built.
pub(crate) fn build() -> io::Result<Variants> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    eprintln!("building the bare variant");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(home).env("RUSTFLAGS", format!("{flags} --cfg uthread_bare").trim());
    cargo.args(["bench", "--bench", "instruments", "--no-run", "--message-format", "json"]);
    cargo.arg("--target-dir").arg(home.join("target/bare"));
    if cfg!(feature = "prometheus") {
        cargo.args(["--features", "prometheus"]);
    }
    let built = cargo.stderr(Stdio::inherit()).output()?;
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "instruments";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    };
    match messages.lines().find_map(executable) {
        Some(bare) if built.status.success() => Ok(Variants { full: env::current_exe()?, bare }),
        _ => Err(io::Error::other("the bare variant could not be built")),
    }
}
