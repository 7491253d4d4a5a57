//! A child that answers lines.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use clap::ValueEnum;

use crate::Part;
use crate::variants::Build;

/// A child. It ends when this is dropped.
pub(crate) struct Child {
    process: process::Child,
    /// Taken when it shall end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a part of a program, whose first line must say that it is of that build.
    pub(crate) fn start(program: &Path, part: Part, build: Build) -> io::Result<Child> {
        let part = part.to_possible_value().expect("no part is skipped");
        let mut process = Command::new(program)
            .args(["--child", part.get_name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut child = Child { process, orders, answers };
        assert_eq!(child.answer()?, build.name(), "another build than was asked for");
        Ok(child)
    }

    /// What a child says first.
    pub(crate) fn introduce() -> io::Result<()> {
        writeln!(io::stdout(), "{}", Build::own().name())
    }

    pub(crate) fn id(&self) -> i32 {
        self.process.id() as i32
    }

    pub(crate) fn order(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.orders.as_ref().expect("it has not ended"), "{line}")
    }

    /// Its next line.
    pub(crate) fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(io::Error::other("a child has ended early")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.process.wait();
    }
}
