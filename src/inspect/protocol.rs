//! What is said over the socket.
//!
//! A client sends a line, a [`Request`] as JSON, and gets a line, an [`Answer`] as JSON; then it may send the next.
//! Nothing that can be asked changes anything. Times are nanoseconds; shares are parts of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the protocol, which [`Request::Hello`] tells. It changes when something is no longer understood;
/// fields may be added to answers without notice.
pub const VERSION: u32 = 1;

/// The longest line that a client may send, in bytes.
pub const LONGEST_REQUEST: usize = 64 << 10;

/// The most threads in an answer.
pub const MOST_ROWS: usize = 1_000;

/// What a client may ask: `{"hello":{}}`, `{"snapshot":{"sort":"run_time","descending":true}}`, `{"stack":{"id":17}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who is there? Answered by [`Hello`].
    Hello {},
    /// What goes on? Answered by [`Snapshot`].
    Snapshot(SnapshotRequest),
    /// Where is a thread in its code? Answered by [`Stack`].
    Stack {
        /// The thread's number.
        id: u64,
    },
}

/// Which threads a snapshot shall show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotRequest {
    /// By what they are sorted; those that are equal by their numbers.
    pub sort: Column,
    /// The largest first.
    pub descending: bool,
    /// Only those with this in their name, group, state or the file that spawned them, whatever the case of ASCII
    /// letters, or whose number begins with it. All if it is empty.
    pub search: String,
    /// How many of them, [`MOST_ROWS`] at most.
    pub limit: usize,
    /// How many are skipped before.
    pub offset: usize,
}

impl Default for SnapshotRequest {
    fn default() -> SnapshotRequest {
        SnapshotRequest {
            sort: Column::Id,
            descending: false,
            search: String::new(),
            limit: 100,
            offset: 0,
        }
    }
}

/// What threads can be sorted by: fields of [`ThreadRow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields of those names say it")]
pub enum Column {
    #[default]
    Id,
    Name,
    State,
    Group,
    Worker,
    Share,
    RunTime,
    RunDelay,
    Turns,
    ForcedSwitches,
    Wakeups,
    Migrations,
    Age,
    SpawnedAt,
}

/// What a server says: `{"hello":{…}}`, `{"snapshot":{…}}`, `{"stack":{…}}`, `{"error":{"message":"…"}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Hello`].
    Hello(Hello),
    /// To [`Request::Snapshot`].
    Snapshot(Snapshot),
    /// To [`Request::Stack`].
    Stack(Stack),
    /// It was no request, or cannot be answered. After the former, the server closes the connection.
    Error {
        /// What is wrong, and what to do.
        message: String,
    },
}

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the server.
    pub protocol: u32,
    /// The version of this crate in the server.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The name of its program.
    pub program: String,
}

/// What a runtime does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its process.
    pub pid: u32,
    /// The name of its program.
    pub program: String,
    /// Time since the socket was opened, at the runtime's start.
    pub uptime_ns: u64,
    /// The time that shares and means are of: since the last snapshot that this connection got at least half a second
    /// ago. As long as there is none, `uptime_ns`.
    pub interval_ns: u64,
    /// How long it took to make this snapshot.
    pub took_ns: u64,
    /// For how long a processor was busy with it; the rest of the time others had their turns.
    #[serde(default)]
    pub cpu_ns: u64,
    /// Its workers, by their indices.
    pub workers: Vec<WorkerRow>,
    /// The groups of the process, the default one first.
    pub groups: Vec<GroupRow>,
    /// What is a number in [`Stats`](crate::Stats), by its name.
    pub counters: BTreeMap<String, u64>,
    /// What is a histogram in [`Stats`](crate::Stats), in the order there.
    #[serde(default)]
    pub times: Vec<TimesRow>,
    /// How many threads there are.
    pub threads: Census,
    /// Those that were asked for, in the order that was asked for.
    pub rows: Vec<ThreadRow>,
}

/// How many threads there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// All.
    pub total: usize,
    /// That run.
    pub running: usize,
    /// That wait for their turns.
    pub runnable: usize,
    /// That wait for something else.
    pub waiting: usize,
    /// That are blocked in the kernel.
    pub blocked: usize,
    /// That match what was searched for.
    pub matching: usize,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its index.
    pub index: usize,
    /// The part of the interval in which it was busy; see [`WorkerStat::busy`](crate::WorkerStat::busy).
    pub busy: f64,
    /// Threads that wait there for their turns.
    pub queued: usize,
    /// The number of the thread that runs there.
    pub thread: Option<u64>,
    /// That thread's name.
    pub thread_name: Option<String>,
}

/// Times of a kind, as they were in the interval: a [`Histogram`](crate::Histogram), which tells them apart by an eighth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimesRow {
    /// The histogram's name, without the unit: `run_delay`, `wakeup_latency`, `slice_length`, `op_latency`.
    pub name: String,
    /// The op, where there is a histogram for each, named as the system call.
    pub op: Option<String>,
    /// How many there were since the runtime's start.
    pub total: u64,
    /// How many there were.
    pub count: u64,
    /// The median; 0 if there were none, as what follows.
    pub p50_ns: u64,
    /// What 99 of 100 did not exceed.
    pub p99_ns: u64,
    /// None was longer, unless this is 68,719,476,736: longer ones are not told apart.
    pub max_ns: u64,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: u32,
    /// Its threads.
    pub threads: usize,
    /// The part of what all workers could do in the interval that its threads got.
    pub share: f64,
    /// For how long its threads waited on average in the interval before a turn.
    pub mean_delay_ns: u64,
    /// As [`SchedStat::run_time`](crate::SchedStat::run_time), since the runtime's start.
    pub run_time_ns: u64,
    /// As [`SchedStat::run_delay`](crate::SchedStat::run_delay), since the runtime's start.
    pub run_delay_ns: u64,
    /// As [`SchedStat::turns`](crate::SchedStat::turns), since the runtime's start.
    pub turns: u64,
}

/// A thread: a [`ThreadInfo`](crate::ThreadInfo).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadRow {
    /// Its number.
    pub id: u64,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `running`, `runnable`, `waiting` or `blocked`.
    pub state: String,
    /// What it waits for, if it does.
    pub reason: Option<String>,
    /// The name of its group.
    pub group: String,
    /// The index of the worker where it ran last.
    pub worker: Option<usize>,
    /// The part of the interval, or of its life if that was shorter, in which it ran.
    pub share: f64,
    /// Time on workers.
    pub run_time_ns: u64,
    /// Time runnable, but waiting for a worker.
    pub run_delay_ns: u64,
    /// Turns begun.
    pub turns: u64,
    /// Turns that ended because it was interrupted.
    pub forced_switches: u64,
    /// Times that a wait ended.
    pub wakeups: u64,
    /// Turns begun on another worker than the one before.
    pub migrations: u64,
    /// Time since it was spawned.
    pub age_ns: u64,
    /// Where in the source it was spawned: `file:line:column`.
    pub spawned_at: String,
    /// Bytes of its stack that have memory.
    pub stack_resident: usize,
    /// Bytes of its stack from the top to the deepest page that was touched.
    pub stack_high_water: usize,
    /// Bytes of address space of its stack.
    pub stack_reserved: usize,
}

/// Where a thread is in its code.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    /// The thread; none if it has ended, or never was.
    pub thread: Option<ThreadRow>,
    /// The functions that it is in, innermost first; see [`ThreadDump::frames`](crate::ThreadDump::frames).
    pub frames: Vec<StackFrame>,
}

/// A function that a thread is in: a [`Frame`](crate::Frame).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFrame {
    /// The address of the instruction to be executed next.
    pub address: usize,
    /// The function's name, if symbols tell.
    pub function: Option<String>,
    /// The file, if debug information tells.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
}
