//! The file that Perfetto's viewer opens: <https://ui.perfetto.dev>.
//!
//! A stream of `TracePacket`s (`protos/perfetto/trace/trace_packet.proto`), of which the few messages and fields that
//! are used here are declared below, with their numbers. There are two groups of tracks in it:
//!
//! - **workers**: who runs there, and when the worker sleeps;
//! - **green threads**: what each is doing, *running*, *runnable*, or what it waits for. An arrow leads from
//!   whoever woke or spawned it to the moment when it is runnable, and on to the moment when it runs.
//!
//! Events of two workers can be out of order by the difference of their clocks. What follows from one that comes too
//! early is put right here: a thread that is woken while it runs is runnable once it has left, and a
//! turn that begins elsewhere ends the one before.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use prost::Message;

use super::{Cause, Event, Reason, Record, Recorder, Trace};
use crate::thread::ThreadId;

/// The declarations, in the words of the `.proto` files.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Trace {
        #[prost(message, repeated, tag = "1")]
        pub(super) packet: Vec<TracePacket>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TracePacket {
        #[prost(message, optional, tag = "6")]
        pub(super) clock_snapshot: Option<ClockSnapshot>,
        #[prost(uint64, optional, tag = "8")]
        pub(super) timestamp: Option<u64>,
        #[prost(uint32, optional, tag = "10")]
        pub(super) trusted_packet_sequence_id: Option<u32>,
        #[prost(message, optional, tag = "11")]
        pub(super) track_event: Option<TrackEvent>,
        #[prost(uint32, optional, tag = "13")]
        pub(super) sequence_flags: Option<u32>,
        #[prost(uint32, optional, tag = "58")]
        pub(super) timestamp_clock_id: Option<u32>,
        #[prost(message, optional, tag = "60")]
        pub(super) track_descriptor: Option<TrackDescriptor>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ClockSnapshot {
        #[prost(message, repeated, tag = "1")]
        pub(super) clocks: Vec<Clock>,
        #[prost(uint32, optional, tag = "2")]
        pub(super) primary_trace_clock: Option<u32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Clock {
        #[prost(uint32, optional, tag = "1")]
        pub(super) clock_id: Option<u32>,
        #[prost(uint64, optional, tag = "2")]
        pub(super) timestamp: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TrackDescriptor {
        #[prost(uint64, optional, tag = "1")]
        pub(super) uuid: Option<u64>,
        #[prost(string, optional, tag = "2")]
        pub(super) name: Option<String>,
        #[prost(message, optional, tag = "3")]
        pub(super) process: Option<ProcessDescriptor>,
        #[prost(uint64, optional, tag = "5")]
        pub(super) parent_uuid: Option<u64>,
        #[prost(enumeration = "ChildTracksOrdering", optional, tag = "11")]
        pub(super) child_ordering: Option<i32>,
        #[prost(int32, optional, tag = "12")]
        pub(super) sibling_order_rank: Option<i32>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum ChildTracksOrdering {
        Unknown = 0,
        Chronological = 2,
        Explicit = 3,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ProcessDescriptor {
        #[prost(int32, optional, tag = "1")]
        pub(super) pid: Option<i32>,
        #[prost(string, optional, tag = "6")]
        pub(super) process_name: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TrackEvent {
        #[prost(message, repeated, tag = "4")]
        pub(super) debug_annotations: Vec<DebugAnnotation>,
        #[prost(enumeration = "Type", optional, tag = "9")]
        pub(super) r#type: Option<i32>,
        #[prost(uint64, optional, tag = "11")]
        pub(super) track_uuid: Option<u64>,
        #[prost(string, optional, tag = "23")]
        pub(super) name: Option<String>,
        #[prost(fixed64, repeated, packed = "false", tag = "47")]
        pub(super) flow_ids: Vec<u64>,
        #[prost(fixed64, repeated, packed = "false", tag = "48")]
        pub(super) terminating_flow_ids: Vec<u64>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum Type {
        Unspecified = 0,
        SliceBegin = 1,
        SliceEnd = 2,
        Instant = 3,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DebugAnnotation {
        #[prost(uint64, optional, tag = "3")]
        pub(super) uint_value: Option<u64>,
        #[prost(string, optional, tag = "6")]
        pub(super) string_value: Option<String>,
        #[prost(string, optional, tag = "10")]
        pub(super) name: Option<String>,
    }
}

use proto::{ChildTracksOrdering, TracePacket, TrackDescriptor, TrackEvent, Type};

/// The numbers of clocks in `protos/perfetto/common/builtin_clock.proto`.
const REALTIME: u32 = 1;
const MONOTONIC: u32 = 3;
const BOOTTIME: u32 = 6;
/// All packets are one sequence, which begins with this flag.
const SEQUENCE: u32 = 1;
const INCREMENTAL_STATE_CLEARED: u32 = 1;

impl Trace {
    /// Writes the trace in Perfetto's format, for its viewer (<https://ui.perfetto.dev>) and for
    /// `trace_processor`: a track for each worker, which says who runs there, and one for each green thread, which
    /// says what it is doing, with arrows from who wakes to who is woken.
    ///
    /// Writes are small: give it a [`BufWriter`](io::BufWriter), or a `Vec`. Needs the feature `perfetto`.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    ///
    /// # Examples
    ///
    /// ```
    /// uthread::spawn(uthread::yield_now).join().unwrap();
    /// let mut file = Vec::new();
    /// uthread::trace().write_perfetto(&mut file)?;
    /// assert!(!file.is_empty());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn write_perfetto(&self, out: impl io::Write) -> io::Result<()> {
        let mut writer = Writer::new(self, out);
        writer.begin()?;
        self.records.iter().try_for_each(|record| writer.record(record))?;
        writer.out.flush()
    }
}

/// What a track is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Track {
    Process,
    Workers,
    Worker(usize),
    /// Of all OS threads but the workers.
    Others,
    Threads,
    Thread(ThreadId),
}

/// What is known of a thread at some time.
#[derive(Default)]
struct Known {
    /// A slice says what it is doing.
    slice: bool,
    /// Where it runs.
    on: Option<usize>,
    /// It was woken before it was seen to leave.
    woken_early: bool,
    /// The arrow that ends at its next turn.
    arrow: Option<u64>,
}

struct Writer<'a, W> {
    trace: &'a Trace,
    out: W,
    buffer: Vec<u8>,
    threads: HashMap<ThreadId, Known>,
    /// For each worker, whether a slice says what it is doing.
    busy: Vec<bool>,
    arrows: u64,
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(trace: &'a Trace, out: W) -> Writer<'a, W> {
        let busy = vec![false; trace.workers];
        Writer { trace, out, buffer: Vec::new(), threads: HashMap::new(), busy, arrows: 0 }
    }

    fn packet(&mut self, packet: TracePacket) -> io::Result<()> {
        let packet = TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), ..packet };
        self.buffer.clear();
        // Messages of which one follows the other are one.
        let file = proto::Trace { packet: vec![packet] };
        file.encode(&mut self.buffer).expect("a vector grows");
        self.out.write_all(&self.buffer)
    }

    /// Clocks, and the tracks that are always there.
    fn begin(&mut self) -> io::Result<()> {
        let clocks = [
            (REALTIME, ClockId::CLOCK_REALTIME),
            (MONOTONIC, ClockId::CLOCK_MONOTONIC),
            (BOOTTIME, ClockId::CLOCK_BOOTTIME),
        ];
        let clocks = clocks.into_iter().map(|(number, clock)| -> io::Result<_> {
            let time = Duration::from(clock_gettime(clock)?);
            Ok(proto::Clock { clock_id: Some(number), timestamp: Some(time.as_nanos() as u64) })
        });
        let clock_snapshot = proto::ClockSnapshot {
            clocks: clocks.collect::<io::Result<_>>()?,
            primary_trace_clock: Some(MONOTONIC),
        };
        self.packet(TracePacket {
            clock_snapshot: Some(clock_snapshot),
            sequence_flags: Some(INCREMENTAL_STATE_CLEARED),
            ..Default::default()
        })?;
        let process = proto::ProcessDescriptor {
            pid: Some(std::process::id().cast_signed()),
            process_name: Some(self.trace.process.clone()),
        };
        self.describe(Track::Process, |track| track.process = Some(process))?;
        self.describe(Track::Workers, |track| {
            track.child_ordering = Some(ChildTracksOrdering::Explicit.into());
            track.sibling_order_rank = Some(0);
        })?;
        for index in 0..self.trace.workers {
            let rank = index.try_into().ok();
            self.describe(Track::Worker(index), |track| track.sibling_order_rank = rank)?;
        }
        self.describe(Track::Others, |track| track.sibling_order_rank = Some(i32::MAX))?;
        self.describe(Track::Threads, |track| {
            track.child_ordering = Some(ChildTracksOrdering::Chronological.into());
            track.sibling_order_rank = Some(1);
        })
    }

    fn describe(
        &mut self,
        track: Track,
        more: impl FnOnce(&mut TrackDescriptor),
    ) -> io::Result<()> {
        let (name, parent) = match track {
            Track::Process => (None, None),
            Track::Workers => (Some("workers".to_owned()), Some(Track::Process)),
            Track::Worker(index) => (Some(format!("worker {index}")), Some(Track::Workers)),
            Track::Others => (Some("other OS threads".to_owned()), Some(Track::Workers)),
            Track::Threads => (Some("green threads".to_owned()), Some(Track::Process)),
            Track::Thread(thread) => (Some(self.name(thread)), Some(Track::Threads)),
        };
        let mut track_descriptor = TrackDescriptor {
            uuid: Some(uuid(track)),
            name,
            parent_uuid: parent.map(uuid),
            ..Default::default()
        };
        more(&mut track_descriptor);
        self.packet(TracePacket { track_descriptor: Some(track_descriptor), ..Default::default() })
    }

    fn name(&self, thread: ThreadId) -> String {
        match self.trace.name(thread) {
            Some(name) => format!("{name} {}", thread.as_u64()),
            None => format!("thread {}", thread.as_u64()),
        }
    }

    fn event(
        &mut self,
        at: Duration,
        track: Track,
        r#type: Type,
        name: Option<String>,
        more: impl FnOnce(&mut TrackEvent),
    ) -> io::Result<()> {
        let mut track_event = TrackEvent {
            r#type: Some(r#type.into()),
            track_uuid: Some(uuid(track)),
            name,
            ..Default::default()
        };
        more(&mut track_event);
        self.packet(TracePacket {
            timestamp: Some(at.as_nanos() as u64),
            timestamp_clock_id: Some(MONOTONIC),
            track_event: Some(track_event),
            ..Default::default()
        })
    }

    fn instant(&mut self, at: Duration, track: Track, name: String) -> io::Result<()> {
        self.event(at, track, Type::Instant, Some(name), |_| {})
    }

    /// What is known of the thread; its track exists from now on.
    fn known(&mut self, thread: ThreadId) -> io::Result<&mut Known> {
        if !self.threads.contains_key(&thread) {
            self.describe(Track::Thread(thread), |_| {})?;
        }
        Ok(self.threads.entry(thread).or_default())
    }

    /// From now on the thread does that, or nothing.
    fn thread_does(
        &mut self,
        at: Duration,
        thread: ThreadId,
        what: Option<&str>,
        more: impl FnOnce(&mut TrackEvent),
    ) -> io::Result<()> {
        let known = self.known(thread)?;
        let ends = std::mem::replace(&mut known.slice, what.is_some());
        let track = Track::Thread(thread);
        if ends {
            self.event(at, track, Type::SliceEnd, None, |_| {})?;
        }
        match what {
            Some(what) => self.event(at, track, Type::SliceBegin, Some(what.to_owned()), more),
            None => Ok(()),
        }
    }

    /// From now on the worker does that, or nothing.
    fn worker_does(
        &mut self,
        at: Duration,
        index: usize,
        what: Option<String>,
        why_not_the_last: Option<Reason>,
    ) -> io::Result<()> {
        let track = Track::Worker(index);
        if std::mem::replace(&mut self.busy[index], what.is_some()) {
            self.event(at, track, Type::SliceEnd, None, |event| {
                event.debug_annotations = why_not_the_last
                    .into_iter()
                    .map(|reason| text("left for", reason.to_string()))
                    .collect();
            })?;
        }
        match what {
            Some(what) => self.event(at, track, Type::SliceBegin, Some(what), |_| {}),
            None => Ok(()),
        }
    }

    /// The thread is runnable, since somebody made it so; an arrow tells who.
    fn made_runnable(
        &mut self,
        at: Duration,
        thread: ThreadId,
        verb: &str,
        by: Track,
    ) -> io::Result<()> {
        self.arrows += 1;
        let arrow = hashed(&(std::process::id(), "arrow", self.arrows));
        let name = format!("{verb} {}", self.name(thread));
        self.event(at, by, Type::Instant, Some(name), |event| event.flow_ids = vec![arrow])?;
        let known = self.known(thread)?;
        known.arrow = Some(arrow);
        if known.on.is_some() {
            known.woken_early = true;
            return Ok(());
        }
        self.thread_does(at, thread, Some("runnable"), |event| event.flow_ids = vec![arrow])
    }

    /// Where what somebody does is shown: on the thread's own track, if one does it that runs.
    fn place(&self, recorder: Recorder, doer: Option<ThreadId>) -> Track {
        let runs = |thread: &ThreadId| self.threads.get(thread).is_some_and(|known| known.slice);
        match (doer.filter(runs), recorder) {
            (Some(thread), _) => Track::Thread(thread),
            (None, Recorder::Worker(index)) => Track::Worker(index),
            (None, Recorder::Other) => Track::Others,
        }
    }

    fn record(&mut self, &Record { at, recorder, event }: &Record) -> io::Result<()> {
        let here = self.place(recorder, None);
        match (event, recorder) {
            (Event::SwitchIn { thread }, Recorder::Worker(index)) => {
                let name = self.name(thread);
                self.worker_does(at, index, Some(name), None)?;
                let known = self.known(thread)?;
                known.on = Some(index);
                known.woken_early = false;
                let arrow = known.arrow.take();
                self.thread_does(at, thread, Some("running"), |event| {
                    event.terminating_flow_ids = arrow.into_iter().collect();
                    event.debug_annotations = vec![number("worker", index as u64)];
                })
            }
            (Event::SwitchOut { thread, reason }, Recorder::Worker(index)) => {
                self.worker_does(at, index, None, Some(reason))?;
                let known = self.known(thread)?;
                if known.on != Some(index) {
                    // It has been seen to begin elsewhere.
                    return Ok(());
                }
                known.on = None;
                let woken = std::mem::take(&mut known.woken_early);
                let name = match reason {
                    Reason::End => None,
                    reason if woken || reason.stays_runnable() => Some("runnable".to_owned()),
                    reason => Some(format!("waits: {reason}")),
                };
                self.thread_does(at, thread, name.as_deref(), |_| {})
            }
            (Event::Spawn { thread, parent }, _) => {
                self.made_runnable(at, thread, "spawn", self.place(recorder, parent))
            }
            (Event::Wake { thread, cause }, _) => {
                let (verb, doer) = match cause {
                    Cause::Thread(waker) => ("wake", Some(waker)),
                    Cause::Outside => ("wake", None),
                    Cause::Completion(_) => ("complete", None),
                    Cause::Timer => ("time is up:", None),
                    Cause::Timeout => ("time-out:", None),
                    Cause::Before => ("need not wait:", None),
                };
                self.made_runnable(at, thread, verb, self.place(recorder, doer))
            }
            (Event::Host { thread }, _) => {
                // Whoever moves to a helper has left its worker.
                self.known(thread)?.on = None;
                self.thread_does(at, thread, Some("on a helper"), |_| {})
            }
            (Event::Return { thread }, _) => self.thread_does(at, thread, Some("runnable"), |_| {}),
            (Event::Sleep, Recorder::Worker(index)) => {
                self.worker_does(at, index, Some("asleep".to_owned()), None)
            }
            (Event::Awake, Recorder::Worker(index)) => self.worker_does(at, index, None, None),
            (Event::Tick { .. }, _) => self.instant(at, here, "tick".to_owned()),
            (Event::Steal { from, threads }, _) => {
                self.instant(at, here, format!("steal {threads} from worker {from}"))
            }
            (Event::Relieve { from, threads }, _) => {
                self.instant(at, here, format!("relieve worker {from} of {threads}"))
            }
            // Only workers switch and sleep.
            (_, Recorder::Other) => Ok(()),
        }
    }
}

/// A number for a track that is none of another process's.
fn uuid(track: Track) -> u64 {
    hashed(&(std::process::id(), track))
}

fn hashed(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn text(name: &str, value: String) -> proto::DebugAnnotation {
    let (name, string_value) = (Some(name.to_owned()), Some(value));
    proto::DebugAnnotation { name, string_value, uint_value: None }
}

fn number(name: &str, value: u64) -> proto::DebugAnnotation {
    let (name, uint_value) = (Some(name.to_owned()), Some(value));
    proto::DebugAnnotation { name, uint_value, string_value: None }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::reason::WaitReason;

    /// What a viewer makes of a file: the tracks' names and, of each, the slices that began and ended, and instants.
    #[derive(Default)]
    struct Seen {
        names: HashMap<u64, String>,
        parents: HashMap<u64, u64>,
        slices: Vec<(u64, String)>,
        instants: Vec<(u64, String)>,
        /// For each arrow, the tracks that it touches, in order.
        arrows: HashMap<u64, Vec<u64>>,
    }

    impl Seen {
        fn of(trace: &Trace) -> Seen {
            let mut file = Vec::new();
            trace.write_perfetto(&mut file).unwrap();
            let file = proto::Trace::decode(&*file).unwrap();
            let (mut seen, mut open) = (Seen::default(), HashMap::<u64, usize>::new());
            let mut last = 0;
            for packet in file.packet {
                assert_eq!(packet.trusted_packet_sequence_id, Some(SEQUENCE));
                if let Some(track) = packet.track_descriptor {
                    let uuid = track.uuid.unwrap();
                    let name = track.name.unwrap_or_default();
                    assert!(seen.names.insert(uuid, name).is_none(), "a track is described once");
                    seen.parents.extend(track.parent_uuid.map(|parent| (uuid, parent)));
                }
                let Some(event) = packet.track_event else { continue };
                let at = packet.timestamp.unwrap();
                assert!(at >= last, "packets are in order");
                last = at;
                let track = event.track_uuid.unwrap();
                assert!(seen.names.contains_key(&track), "an event on a track that is unknown");
                for arrow in event.flow_ids.iter().chain(&event.terminating_flow_ids) {
                    seen.arrows.entry(*arrow).or_default().push(track);
                }
                let depth = open.entry(track).or_default();
                match event.r#type() {
                    Type::SliceBegin => {
                        assert_eq!(*depth, 0, "slices of a track follow each other");
                        *depth += 1;
                        seen.slices.push((track, event.name.unwrap()));
                    }
                    Type::SliceEnd => *depth = depth.checked_sub(1).expect("no end without begin"),
                    Type::Instant => seen.instants.push((track, event.name.unwrap())),
                    Type::Unspecified => panic!("an event of no type"),
                }
            }
            seen
        }

        fn on(&self, track: Track, name: &str) -> usize {
            let wanted = (uuid(track), name.to_owned());
            self.slices.iter().filter(|slice| **slice == wanted).count()
        }
    }

    fn id(number: u64) -> ThreadId {
        ThreadId::from_number(number).unwrap()
    }

    fn trace(events: &[(u64, Recorder, Event)]) -> Trace {
        let record =
            |&(at, recorder, event): &_| Record { at: Duration::from_nanos(at), recorder, event };
        Trace { records: events.iter().map(record).collect(), workers: 2, ..Trace::empty() }
    }

    #[test]
    fn a_thread_that_parks_and_is_woken_is_seen_on_its_worker_and_on_its_own_track() {
        let (a, b, here) = (id(1), id(2), Recorder::Worker(0));
        let mut trace = trace(&[
            (1, here, Event::Sleep),
            (2, here, Event::Awake),
            (3, here, Event::SwitchIn { thread: a }),
            (4, here, Event::SwitchOut { thread: a, reason: Reason::Wait(WaitReason::Park) }),
            (4, here, Event::SwitchIn { thread: b }),
            (5, here, Event::Wake { thread: a, cause: Cause::Thread(b) }),
            (6, here, Event::SwitchOut { thread: b, reason: Reason::End }),
            (6, here, Event::SwitchIn { thread: a }),
        ]);
        trace.set_name(a, "waiter");
        let seen = Seen::of(&trace);
        assert_eq!(seen.names[&uuid(Track::Thread(a))], "waiter 1");
        assert_eq!(seen.parents[&uuid(Track::Thread(a))], uuid(Track::Threads));
        assert_eq!(seen.on(Track::Worker(0), "asleep"), 1);
        assert_eq!(seen.on(Track::Worker(0), "waiter 1"), 2);
        assert_eq!(seen.on(Track::Worker(0), "thread 2"), 1);
        assert_eq!(seen.on(Track::Thread(a), "running"), 2);
        assert_eq!(seen.on(Track::Thread(a), "waits: park"), 1);
        assert_eq!(seen.on(Track::Thread(a), "runnable"), 1);
        let (waker, woken) = (uuid(Track::Thread(b)), uuid(Track::Thread(a)));
        assert_eq!(seen.instants, [(waker, "wake waiter 1".to_owned())]);
        let arrows: Vec<_> = seen.arrows.into_values().collect();
        assert_eq!(arrows, [[waker, woken, woken]]);
    }

    #[test]
    fn a_wake_up_that_is_seen_before_the_park_makes_it_runnable_all_the_same() {
        let (a, b) = (id(1), id(2));
        let (here, there) = (Recorder::Worker(0), Recorder::Worker(1));
        let seen = Seen::of(&trace(&[
            (1, here, Event::SwitchIn { thread: a }),
            (1, there, Event::SwitchIn { thread: b }),
            (2, there, Event::Wake { thread: a, cause: Cause::Thread(b) }),
            (3, here, Event::SwitchOut { thread: a, reason: Reason::Wait(WaitReason::Park) }),
            (4, there, Event::SwitchOut { thread: b, reason: Reason::End }),
            (4, there, Event::SwitchIn { thread: a }),
        ]));
        assert_eq!(seen.on(Track::Thread(a), "waits: park"), 0);
        assert_eq!(seen.on(Track::Thread(a), "runnable"), 1);
        assert_eq!(seen.on(Track::Thread(a), "running"), 2);
    }

    #[test]
    fn a_turn_that_is_seen_to_begin_before_the_last_one_ended_goes_on() {
        let a = id(1);
        let (here, there) = (Recorder::Worker(0), Recorder::Worker(1));
        let seen = Seen::of(&trace(&[
            (1, here, Event::SwitchIn { thread: a }),
            (2, there, Event::SwitchIn { thread: a }),
            (3, here, Event::SwitchOut { thread: a, reason: Reason::Yield }),
        ]));
        assert_eq!(seen.on(Track::Thread(a), "running"), 2);
        assert_eq!(seen.on(Track::Thread(a), "runnable"), 0);
    }

    #[test]
    fn a_thread_that_blocks_is_seen_on_its_helper() {
        let (a, here) = (id(1), Recorder::Worker(0));
        let seen = Seen::of(&trace(&[
            (1, here, Event::SwitchIn { thread: a }),
            (2, here, Event::SwitchOut { thread: a, reason: Reason::Block }),
            (3, Recorder::Other, Event::Host { thread: a }),
            (4, Recorder::Other, Event::Return { thread: a }),
            (5, here, Event::Tick { thread: a }),
        ]));
        for what in ["running", "waits: block", "on a helper", "runnable"] {
            assert_eq!(seen.on(Track::Thread(a), what), 1, "{what}");
        }
    }

    #[test]
    fn a_real_runtimes_turns_are_all_in_the_file() {
        let runtime = crate::Runtime::builder().workers(1).trace_events(1 << 14).build().unwrap();
        runtime.run(|| {
            crate::scope(|s| {
                for _ in 0..3 {
                    s.spawn(|| (0..100).for_each(|_| crate::yield_now()));
                }
            });
        });
        let trace = runtime.trace();
        let switches = runtime.stats().switches as usize;
        let seen = Seen::of(&trace);
        let running = seen.slices.iter().filter(|(_, name)| name == "running").count();
        assert_eq!(running, switches);
        let on_workers = |&&(track, ref name): &&(u64, String)| {
            track == uuid(Track::Worker(0)) && name != "asleep"
        };
        assert_eq!(seen.slices.iter().filter(on_workers).count(), switches);
    }
}
