//! Groups of threads: shares of the CPU for each kind of work in a process.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime;
use crate::sched::{Cap, GroupId, Policy};
use crate::stats::SchedStat;
use crate::worker;
use crate::worker::group::{Member, name_of};

/// A group of green threads with a share of the CPU.
///
/// A backend process mixes work: requests, logging, background jobs, telemetry. Each kind can be a group. When
/// several groups want more CPU than there is, each gets a part in proportion to its weight, however many
/// threads it has and however short their turns are; what a group does not use goes to the others, and a group
/// that is alone gets everything. Shares hold over all workers of a runtime.
///
/// How soon a thread runs that wakes up is a different question from how much its group gets. A group that needs
/// little at a time and has not used up its share runs at once, whatever its weight; see
/// [`GroupBuilder::latency`] for how to promise that.
///
/// A thread belongs to the group that its [`Builder`](crate::Builder::group) names, else to that of the thread that
/// spawned it. Threads spawned from OS threads belong to the default group, with a weight of 100.
///
/// A handle is cheap to clone. The group exists as long as there is a handle or a thread; at most 63 exist
/// at a time, besides the default one.
///
/// # Examples
///
/// ```
/// use uthread::{Builder, Group};
///
/// let http = Group::builder().name("http").weight(400).build()?;
/// let jobs = Group::builder().name("jobs").weight(100).build()?;
/// let answer = Builder::new().group(&http).spawn(|| {
///     // What it spawns is in "http", too.
///     uthread::spawn(|| uthread::Group::current().name()).join().unwrap()
/// })?;
/// let job = Builder::new().group(&jobs).spawn(|| (1..=10_u64).product::<u64>())?;
/// assert_eq!(answer.join().unwrap(), "http");
/// assert_eq!(job.join().unwrap(), 3_628_800);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Group(Arc<Member>);

/// Describes a new [`Group`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct GroupBuilder {
    name: String,
    policy: Policy,
}

impl GroupBuilder {
    /// What the group is called in statistics. Names need not differ.
    pub fn name(mut self, name: impl Into<String>) -> GroupBuilder {
        self.name = name.into();
        self
    }

    /// The group's part of the CPU in proportion to those of others, as `cpu.weight` of the kernel's cgroups:
    /// from 1 to 10,000, to which it is limited; by default 100.
    pub fn weight(mut self, weight: u32) -> GroupBuilder {
        self.policy.weight = limited(weight);
        self
    }

    /// Has the group run sooner at the same share: the longest time, up to five eighths of a slice, that it is
    /// served for at the expense of groups that wait for theirs.
    ///
    /// This is the length of a request in the sense of EEVDF: a group is served before others whose requests are
    /// longer in proportion to their weights. A group that wakes up within its share waits for no longer
    /// than `latency` times the weights of the others divided by its own. What groups need at a time is
    /// learned, too, so that this is only needed where bursts vary.
    pub fn latency(mut self, latency: Duration) -> GroupBuilder {
        self.policy.latency = nanoseconds(latency).max(1);
        self
    }

    /// Limits the group to so much time on workers per `period`, all workers together: `quota` may exceed
    /// `period`. As the kernel's `cpu.max`. When it has used its quota it waits for the next period; what it
    /// used too much is taken off that. Both are rounded to microseconds, of which each has at least one.
    ///
    /// A group is stopped by an interruption, so the cap is only as exact as these are: some tens of microseconds,
    /// in the middle of a section without preemption not at all.
    pub fn cap(mut self, quota: Duration, period: Duration) -> GroupBuilder {
        self.policy.cap = Some(cap(quota, period));
        self
    }

    /// Creates the group.
    ///
    /// # Errors
    ///
    /// There are 63 groups already, besides the default one.
    pub fn build(self) -> io::Result<Group> {
        Ok(Group(Arc::new(Member::create(self.name, self.policy)?)))
    }
}

impl Group {
    /// A builder for a group without a name, of weight 100, without a cap.
    pub fn builder() -> GroupBuilder {
        GroupBuilder { name: String::new(), policy: Policy::DEFAULT }
    }

    /// The group of the calling green thread; the default group on an OS thread.
    pub fn current() -> Group {
        let id = worker::current().map_or(GroupId::DEFAULT, |thread| thread.group());
        Group(Arc::new(Member::of(id)))
    }

    /// All groups of the process, the default one first. They exist as long as the handles do.
    ///
    /// # Examples
    ///
    /// ```
    /// let http = uthread::Group::builder().name("http").build()?;
    /// for group in uthread::Group::all() {
    ///     println!("{}: {:?}", group.name(), group.stats().run_time);
    /// }
    /// # assert!(uthread::Group::all().iter().any(|group| group.name() == "http"));
    /// # drop(http);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn all() -> Vec<Group> {
        Member::all().map(|member| Group(Arc::new(member))).collect()
    }

    /// The name it was given; `default` for the default group.
    pub fn name(&self) -> String {
        name_of(self.0.id())
    }

    /// Its weight.
    pub fn weight(&self) -> u32 {
        self.0.policy().weight
    }

    /// Changes its weight, for the time to come; what it is owed up to now stays. As [`GroupBuilder::weight`].
    pub fn set_weight(&self, weight: u32) {
        self.0.set_weight(limited(weight));
    }

    /// Changes its cap, or removes it. As [`GroupBuilder::cap`].
    pub fn set_cap(&self, quota_per_period: Option<(Duration, Duration)>) {
        self.0.set_cap(quota_per_period.map(|(quota, period)| cap(quota, period)));
    }

    /// What its threads have used so far in the calling green thread's runtime; on an OS thread, in the default
    /// runtime, if that has started. For others, [`Runtime::group_stats`](crate::Runtime::group_stats).
    pub fn stats(&self) -> SchedStat {
        runtime::with_own(|runtime| runtime.group_stats(&self.0)).unwrap_or_default()
    }

    /// For the crate's own use.
    pub(crate) fn as_member(&self) -> &Member {
        &self.0
    }

    pub(crate) fn member(&self) -> Member {
        Member::of(self.0.id())
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.name()).field("weight", &self.weight()).finish()
    }
}

/// What the calling green thread has used, up to the beginning of its present turn; nothing on an OS thread.
///
/// As `/proc/self/schedstat`.
///
/// # Examples
///
/// ```
/// let stat = uthread::spawn(|| {
///     uthread::yield_now();
///     uthread::schedstat()
/// });
/// assert!(stat.join().unwrap().turns >= 1);
/// ```
pub fn schedstat() -> SchedStat {
    worker::current().map_or_else(SchedStat::default, |thread| {
        SchedStat::of(thread.get().account(), thread.get().events())
    })
}

fn limited(weight: u32) -> u32 {
    weight.clamp(1, 10_000)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn cap(quota: Duration, period: Duration) -> Cap {
    Cap { quota: nanoseconds(quota), period: nanoseconds(period) }
}
