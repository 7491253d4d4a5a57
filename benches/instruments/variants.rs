//! The three builds of this program.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What instruments a build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// None.
    Bare,
    /// Counters, time accounts and histograms.
    Counting,
    /// These and the flight recorder.
    Full,
}

/// From the least to the most.
pub(crate) const BUILDS: [Build; 3] = [Build::Bare, Build::Counting, Build::Full];

impl Build {
    /// What this program is.
    pub(crate) fn own() -> Build {
        match (cfg!(uthread_bare), cfg!(uthread_untraced)) {
            (true, _) => Build::Bare,
            (false, true) => Build::Counting,
            (false, false) => Build::Full,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Build::Bare => "bare",
            Build::Counting => "counting",
            Build::Full => "full",
        }
    }

    /// What the compiler is told.
    fn flags(self) -> &'static str {
        match self {
            Build::Bare => "--cfg uthread_bare --cfg uthread_untraced",
            Build::Counting => "--cfg uthread_untraced",
            Build::Full => "",
        }
    }

    /// Builds it, unless it is this program, as this one was built; where it is.
    fn program(self) -> io::Result<PathBuf> {
        if self == Build::own() {
            return env::current_exe();
        }
        eprintln!("building the {} variant", self.name());
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let flags = env::var("RUSTFLAGS").unwrap_or_default();
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(home).env("RUSTFLAGS", format!("{flags} {}", self.flags()).trim());
        cargo.args(["bench", "--bench", "instruments", "--no-run", "--message-format", "json"]);
        cargo.arg("--target-dir").arg(home.join("target").join(self.name()));
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
        let program = messages.lines().find_map(executable).filter(|_| built.status.success());
        program.ok_or_else(|| {
            io::Error::other(format!("the {} variant could not be built", self.name()))
        })
    }
}

/// Where the programs are, in the order of [`BUILDS`].
pub(crate) struct Variants(pub(crate) [PathBuf; 3]);

pub(crate) fn build() -> io::Result<Variants> {
    let [bare, counting, full] = BUILDS.map(Build::program);
    Ok(Variants([bare?, counting?, full?]))
}
