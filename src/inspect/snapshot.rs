//! Answers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::page::{self, GroupNames};
use super::protocol::{
    Answer, Census, Column, GroupRow, Hello, MOST_ROWS, Request, Snapshot, SnapshotRequest, Stack,
    StackFrame, ThreadRow, TimesRow, VERSION, WorkerRow,
};
use crate::roster::{Frame, Names, Survey, ThreadInfo};
use crate::sched::MOST_GROUPS;
use crate::stats::{Histogram, Metric, MetricValue, Stats, WorkerStat};
use crate::time::now;
use crate::worker::census::Entry;
use crate::worker::group::Member;
use crate::worker::{Runtime, State};

/// Answers requests about a runtime.
pub(super) struct Inspector {
    runtime: Arc<Runtime>,
    program: String,
    began: u64,
    /// Held while a survey exists, so that clients together take no more than one processor, and memory for one.
    surveying: Mutex<()>,
    /// Held while a stack is looked at, for the same reason. It takes longer the first time, and no survey waits for it.
    unwinding: Mutex<()>,
}

/// Of shorter spans nothing is told: a client that turns pages wants to see the same shares on each.
const LEAST_INTERVAL: u64 = 500_000_000;

/// What a client has seen, to tell what happened since.
#[derive(Default)]
pub(super) struct View {
    /// At least [`LEAST_INTERVAL`] before the latter.
    earlier: Option<Seen>,
    last: Option<Seen>,
    /// As far as they were needed.
    names: Names,
}

impl View {
    /// What is to be compared with, at this time.
    fn reference(&self, at: u64) -> Option<&Seen> {
        if self.is_old(at) { self.last.as_ref() } else { self.earlier.as_ref() }
    }

    fn is_old(&self, at: u64) -> bool {
        self.last.as_ref().is_some_and(|last| at.saturating_sub(last.at) >= LEAST_INTERVAL)
    }

    fn add(&mut self, seen: Seen) {
        if self.last.is_none() || self.is_old(seen.at) {
            self.earlier = self.last.replace(seen);
        }
    }
}

struct Seen {
    at: u64,
    /// Busy times by index.
    workers: Vec<Duration>,
    /// By index.
    groups: Vec<GroupUse>,
    /// Run times by number, in the order of numbers.
    threads: Vec<(u64, Duration)>,
    stats: Stats,
}

#[derive(Clone, Copy, Default)]
struct GroupUse {
    run_time: Duration,
    run_delay: Duration,
    turns: u64,
}

impl Inspector {
    pub(super) fn new(runtime: Arc<Runtime>) -> Inspector {
        let program = std::env::current_exe().ok();
        let program = program.as_ref().and_then(|path| path.file_name());
        Inspector {
            runtime,
            program: program.map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            began: now(),
            surveying: Mutex::default(),
            unwinding: Mutex::default(),
        }
    }

    pub(super) fn answer(&self, request: Request, view: &mut View) -> Answer {
        let answer = match request {
            Request::Hello {} => Ok(Answer::Hello(self.hello())),
            Request::Snapshot(wanted) => self.snapshot(&wanted, view).map(Answer::Snapshot),
            Request::Stack { id } => self.stack(id).map(Answer::Stack),
        };
        answer.unwrap_or_else(|e| Answer::Error { message: e.to_string() })
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            program: self.program.clone(),
        }
    }

    fn stack(&self, id: u64) -> io::Result<Stack> {
        let _one_at_a_time = self.unwinding.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(dumped) = Survey::dump_one(&self.runtime, id)? else {
            return Ok(Stack::default());
        };
        let share = share(dumped.thread.stat.run_time, nanoseconds(dumped.thread.age));
        Ok(Stack {
            thread: Some(row(dumped.thread, share)),
            frames: dumped.frames.iter().cloned().map(StackFrame::from).collect(),
        })
    }

    fn snapshot(&self, wanted: &SnapshotRequest, view: &mut View) -> io::Result<Snapshot> {
        let _one_at_a_time = self.surveying.lock().unwrap_or_else(PoisonError::into_inner);
        let cpu_began = cpu_time();
        let mut survey = Survey::take(&self.runtime, std::mem::take(&mut view.names));
        let takes_names = wanted.sort == Column::Name || !wanted.search.is_empty();
        survey.name(|entry| takes_names || entry.state == State::Running)?;
        let (at, entries) = (survey.time(), survey.entries());
        let last = view.reference(at);
        let interval = at.saturating_sub(last.map_or(self.began, |last| last.at));

        let Tally { census, groups, running } = Tally::of(entries);
        let names = GroupNames::of(&groups);
        let shares = shares(entries, last, at, interval);
        let (places, matching) = page::select(&survey, &names, &shares, wanted, MOST_ROWS);
        let infos = survey.describe(&places)?;
        let rows = infos.into_iter().zip(&places).map(|(info, place)| row(info, shares[*place]));
        let rows = rows.collect();

        let workers: Vec<_> = self.runtime.workers().iter().map(WorkerStat::of).collect();
        let stats = Stats::of(&self.runtime);
        let (groups, group_uses) = self.groups(&groups, last, interval);
        let mut snapshot = Snapshot {
            pid: std::process::id(),
            program: self.program.clone(),
            uptime_ns: at.saturating_sub(self.began),
            interval_ns: interval,
            took_ns: 0,
            cpu_ns: 0,
            workers: worker_rows(&workers, &running, last, interval),
            groups,
            counters: counters(&stats),
            times: times(&stats, last.map(|last| &last.stats)),
            threads: Census { matching, ..census },
            rows,
        };
        view.add(Seen {
            at,
            workers: workers.iter().map(|worker| worker.busy).collect(),
            groups: group_uses,
            threads: entries.iter().map(|entry| (entry.number, entry.stat.run_time)).collect(),
            stats,
        });
        view.names = survey.into_names();
        snapshot.took_ns = now().saturating_sub(at);
        snapshot.cpu_ns = cpu_time().saturating_sub(cpu_began);
        Ok(snapshot)
    }

    fn groups(
        &self,
        threads: &[usize; MOST_GROUPS],
        last: Option<&Seen>,
        interval: u64,
    ) -> (Vec<GroupRow>, Vec<GroupUse>) {
        let capacity = interval.saturating_mul(self.runtime.workers().len() as u64);
        let mut uses = vec![GroupUse::default(); MOST_GROUPS];
        let rows = Member::all().map(|group| {
            let index = group.id().index();
            let stat = self.runtime.group_stats(&group);
            let now =
                GroupUse { run_time: stat.run_time, run_delay: stat.run_delay, turns: stat.turns };
            let before = last.map_or_else(GroupUse::default, |last| last.groups[index]);
            uses[index] = now;
            let delay = nanoseconds(now.run_delay.saturating_sub(before.run_delay));
            GroupRow {
                name: crate::worker::group::name_of(group.id()),
                weight: group.policy().weight,
                threads: threads[index],
                share: share(now.run_time.saturating_sub(before.run_time), capacity),
                mean_delay_ns: delay
                    .checked_div(now.turns.saturating_sub(before.turns))
                    .unwrap_or_default(),
                run_time_ns: nanoseconds(now.run_time),
                run_delay_ns: nanoseconds(now.run_delay),
                turns: now.turns,
            }
        });
        (rows.collect(), uses)
    }
}

/// The part of the interval, or of its life, in which each thread ran.
fn shares(entries: &[Entry], last: Option<&Seen>, at: u64, interval: u64) -> Vec<f64> {
    let mut before = last.map_or(&[][..], |last| &last.threads).iter().peekable();
    let share_of = |entry: &Entry| {
        while before.next_if(|(number, _)| *number < entry.number).is_some() {}
        let earlier = before.next_if(|(number, _)| *number == entry.number);
        let earlier = earlier.map_or(Duration::ZERO, |(_, time)| *time);
        let span = interval.min(at.saturating_sub(entry.born));
        share(entry.stat.run_time.saturating_sub(earlier), span)
    };
    entries.iter().map(share_of).collect()
}

fn worker_rows(
    workers: &[WorkerStat],
    running: &[&Entry],
    last: Option<&Seen>,
    interval: u64,
) -> Vec<WorkerRow> {
    let row = |worker: &WorkerStat| {
        let index = worker.index;
        let before = last.and_then(|last| last.workers.get(index)).copied().unwrap_or_default();
        let busy = share(worker.busy.saturating_sub(before), interval);
        WorkerRow { index, busy, queued: worker.queued as usize, ..WorkerRow::default() }
    };
    let mut rows: Vec<_> = workers.iter().map(row).collect();
    for entry in running {
        if let Some(row) = entry.worker.and_then(|index| rows.get_mut(index)) {
            row.thread = Some(entry.number);
            row.thread_name.clone_from(&entry.name);
        }
    }
    rows
}

/// What is known after one walk through all threads: there are more of them than the caches hold.
struct Tally<'a> {
    census: Census,
    /// Threads by their groups' indices.
    groups: [usize; MOST_GROUPS],
    running: Vec<&'a Entry>,
}

impl Tally<'_> {
    fn of(entries: &[Entry]) -> Tally<'_> {
        let mut census = Census { total: entries.len(), ..Census::default() };
        let (mut groups, mut running) = ([0; MOST_GROUPS], Vec::new());
        for entry in entries {
            groups[entry.group.index()] += 1;
            *match entry.state {
                State::Running => {
                    running.push(entry);
                    &mut census.running
                }
                State::Waiting => &mut census.waiting,
                State::Helped => &mut census.blocked,
                State::New | State::Queued | State::Ended => &mut census.runnable,
            } += 1;
        }
        Tally { census, groups, running }
    }
}

/// The metrics that are one number each.
fn counters(stats: &Stats) -> BTreeMap<String, u64> {
    let number = |(metric, value): (&Metric, MetricValue<'_>)| match (metric.label, value) {
        (None, MetricValue::Number(number)) => Some((metric.name.to_owned(), number)),
        _ => None,
    };
    stats.metrics().filter_map(number).collect()
}

/// The metrics that are histograms: of the time since an earlier reading, or since the start.
fn times(stats: &Stats, earlier: Option<&Stats>) -> Vec<TimesRow> {
    let between = earlier.map(|earlier| stats.since(earlier));
    let row = |(metric, total, now): (&Metric, &Histogram, &Histogram)| TimesRow {
        name: metric.name.trim_end_matches("_seconds").to_owned(),
        op: metric.label.map(|(_, op)| op.to_owned()),
        total: total.count(),
        count: now.count(),
        p50_ns: nanoseconds(now.quantile(0.5)),
        p99_ns: nanoseconds(now.quantile(0.99)),
        max_ns: match now.max() {
            Duration::MAX => nanoseconds(now.quantile(1.0)),
            max => nanoseconds(max),
        },
    };
    let both = stats.metrics().zip(between.as_ref().unwrap_or(stats).metrics());
    let histograms = both.filter_map(|both| match both {
        ((metric, MetricValue::Histogram(total)), (_, MetricValue::Histogram(now))) => {
            Some((metric, total, now))
        }
        _ => None,
    });
    histograms.map(row).collect()
}

/// For how long the calling OS thread has run, in nanoseconds.
fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| nanoseconds(time.into()))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A time as a part of a span of nanoseconds: what was used shortly after the span's end may count for it.
fn share(time: Duration, span: u64) -> f64 {
    if span == 0 { 0.0 } else { (nanoseconds(time) as f64 / span as f64).min(1.0) }
}

fn row(info: ThreadInfo, share: f64) -> ThreadRow {
    ThreadRow {
        id: info.id.as_u64().get(),
        name: info.name,
        state: info.state.name().to_owned(),
        reason: info.state.reason().map(|reason| reason.to_string()),
        group: info.group,
        worker: info.worker,
        share,
        run_time_ns: nanoseconds(info.stat.run_time),
        run_delay_ns: nanoseconds(info.stat.run_delay),
        turns: info.stat.turns,
        forced_switches: info.stat.forced_switches,
        wakeups: info.stat.wakeups,
        migrations: info.stat.migrations,
        age_ns: nanoseconds(info.age),
        spawned_at: info.spawned_at.to_string(),
        stack_resident: info.stack.resident,
        stack_high_water: info.stack.high_water,
        stack_reserved: info.stack.reserved,
    }
}

impl From<Frame> for StackFrame {
    fn from(frame: Frame) -> StackFrame {
        StackFrame {
            address: frame.address,
            function: frame.function,
            file: frame.file,
            line: frame.line,
        }
    }
}
