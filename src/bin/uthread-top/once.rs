//! One look, without a terminal.

use std::io::{self, Write};

use uthread::inspect::protocol::{Snapshot, SnapshotRequest};

use crate::client::Client;
use crate::columns::COLUMNS;
use crate::format::{clean, count, grouped, label, percent, time};

/// # Errors
///
/// The server is gone, or the output. If nobody reads the latter any more, that is none.
pub(crate) fn print(mut client: Client, request: &SnapshotRequest, json: bool) -> io::Result<()> {
    let snapshot = client.snapshot(request)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = if json {
        serde_json::to_writer_pretty(&mut out, &snapshot).map_err(io::Error::from)
    } else {
        write(&mut out, &snapshot)
    };
    match written.and_then(|()| writeln!(out)).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn write(out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
    let threads = &snapshot.threads;
    writeln!(
        out,
        "{} (pid {}), up {}: {} threads, {} running, {} runnable, {} waiting, {} blocked",
        clean(&snapshot.program),
        snapshot.pid,
        time(snapshot.uptime_ns),
        grouped(threads.total),
        threads.running,
        threads.runnable,
        threads.waiting,
        threads.blocked
    )?;
    writeln!(out, "\n{:>6}  {:>5}  {:>6}  RUNS", "WORKER", "BUSY%", "QUEUED")?;
    for worker in &snapshot.workers {
        let busy = percent(worker.busy);
        write!(out, "{:>6}  {busy:>5}  {:>6}  ", worker.index, worker.queued)?;
        match (worker.thread, worker.thread_name.as_deref()) {
            (Some(id), name) => writeln!(out, "{id} {}", clean(name.unwrap_or("")))?,
            (None, _) => writeln!(out, "-")?,
        }
    }
    writeln!(
        out,
        "\n{:<16}  {:>6}  {:>8}  {:>5}  {:>7}  {:>8}",
        "GROUP", "WEIGHT", "THREADS", "CPU%", "DELAY", "TURNS"
    )?;
    for group in &snapshot.groups {
        writeln!(
            out,
            "{:<16}  {:>6}  {:>8}  {:>5}  {:>7}  {:>8}",
            clean(&group.name),
            group.weight,
            group.threads,
            percent(group.share),
            time(group.mean_delay_ns),
            count(group.turns)
        )?;
    }
    writeln!(out, "\n{:<16}  {:>8}  {:>7}  {:>7}  {:>7}", "TIMES", "COUNT", "P50", "P99", "MAX")?;
    for times in &snapshot.times {
        let [p50, p99, max] = [times.p50_ns, times.p99_ns, times.max_ns].map(time);
        let (label, count) = (label(times), count(times.count));
        writeln!(out, "{label:<16}  {count:>8}  {p50:>7}  {p99:>7}  {max:>7}")?;
    }
    writeln!(out)?;
    let titles = COLUMNS.iter().map(|style| style.title.to_owned());
    line(out, titles)?;
    for thread in &snapshot.rows {
        writeln!(out)?;
        line(out, COLUMNS.iter().map(|style| style.text(thread)))?;
    }
    Ok(())
}

/// A line of the list of threads.
fn line(out: &mut impl Write, texts: impl Iterator<Item = String>) -> io::Result<()> {
    for (style, text) in COLUMNS.iter().zip(texts) {
        let width = usize::from(style.width);
        if style.is_number {
            write!(out, "{text:>width$} ")?;
        } else {
            write!(out, "{text:<width$} ")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uthread::inspect::protocol::{GroupRow, ThreadRow, WorkerRow};

    #[test]
    fn a_table_has_workers_groups_and_threads() {
        let snapshot = Snapshot {
            program: "server".into(),
            workers: vec![WorkerRow { thread: Some(7), busy: 0.5, ..WorkerRow::default() }],
            groups: vec![GroupRow { name: "http".into(), weight: 400, ..GroupRow::default() }],
            rows: vec![ThreadRow { id: 7, name: Some("x\ty".into()), ..ThreadRow::default() }],
            ..Snapshot::default()
        };
        let mut out = Vec::new();
        write(&mut out, &snapshot).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = |begin: &str| text.lines().any(|l| l.trim_start().starts_with(begin));
        assert!(line("server (pid 0)") && line("0   50.0       0  7") && line("http"), "{text}");
        assert!(line("7 x\u{fffd}y"), "{text}");
    }
}
