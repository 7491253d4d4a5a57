//! What the policy's operations cost, without locks, clocks and switches.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::common::{Goal, median, table};
use crate::policy::{Choice, Elsewhere, GroupId, Link, MOST_STOLEN, Policy, RunQueue, Shares};

const GROUPS: [usize; 3] = [1, 8, 64];
const THREADS: [usize; 4] = [10, 1_000, 100_000, 1_000_000];
const SLICE: u64 = 2_000_000;
/// Operations that are timed together.
const STRETCH: usize = 1024;

/// How often, and for how many operations each time.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) operations: usize,
}

/// What stands for a thread: a cache line with its links.
#[repr(align(64))]
struct Node<'a> {
    next: Cell<Option<Thread<'a>>>,
    /// The next one of its group, for the floor; from the last to the first.
    ring: Cell<Option<Thread<'a>>>,
    touched: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Thread<'a>(&'a Node<'a>);

impl PartialEq for Thread<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Thread<'_> {}

impl Link for Thread<'_> {
    fn next(self) -> Option<Self> {
        self.0.next.get()
    }

    fn set_next(self, next: Option<Self>) {
        self.0.next.set(next);
    }
}

fn nodes<'a>(count: usize) -> Vec<Node<'a>> {
    let node = |_| Node { next: Cell::new(None), ring: Cell::new(None), touched: Cell::new(0) };
    (0..count).map(node).collect()
}

/// The nodes in an order in which no prefetcher helps: those that guess the next one come and go with the layout of
/// the code. Threads do not lie side by side either.
fn shuffled<'a>(nodes: &'a [Node<'a>]) -> Vec<&'a Node<'a>> {
    let mut order: Vec<_> = nodes.iter().collect();
    let mut random = 1_u64;
    for i in (1..order.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(i, (random >> 33) as usize % (i + 1));
    }
    order
}

/// Times stretches so short that few of them are disturbed, and that reading the clock matters.
struct Stopwatch {
    reading: Duration,
    /// Nanoseconds per operation of each stretch.
    each: Vec<f64>,
}

impl Stopwatch {
    fn new() -> Stopwatch {
        static READING: LazyLock<Duration> = LazyLock::new(|| {
            let mut readings: Vec<Duration> = (0..1001).map(|_| Instant::now().elapsed()).collect();
            readings.sort_unstable();
            readings[readings.len() / 2]
        });
        Stopwatch { reading: *READING, each: Vec::new() }
    }

    /// A stretch that returns how many operations it did.
    fn time(&mut self, stretch: impl FnOnce() -> usize) {
        let start = Instant::now();
        let operations = stretch();
        let time = start.elapsed().saturating_sub(self.reading);
        self.each.push(time.as_nanos() as f64 / operations as f64);
    }

    fn median(self) -> f64 {
        median(self.each)
    }
}

/// A queue with all threads in it, spread over the groups in turns, and the shares of two workers.
struct Rig<'a> {
    /// In the order in which they are queued.
    nodes: Vec<&'a Node<'a>>,
    groups: usize,
    queue: Box<RunQueue<Thread<'a>>>,
    shares: Shares,
    now: u64,
    /// By group: where the floor is.
    cursors: Vec<Thread<'a>>,
}

impl<'a> Rig<'a> {
    fn new(nodes: &'a [Node<'a>], groups: usize) -> Rig<'a> {
        let nodes = shuffled(nodes);
        let last = nodes.len() - groups;
        for (i, node) in nodes.iter().enumerate() {
            let next = if i < last { i + groups } else { i % groups };
            node.ring.set(Some(Thread(nodes[next])));
        }
        let cursors = nodes[..groups].iter().copied().map(Thread).collect();
        let mut shares = Shares::new(2, SLICE);
        for group in 0..groups {
            // Not all alike: else all deadlines were.
            let weight = 100 + 50 * (group as u32 % 5);
            shares.set_policy(0, GroupId::new(group), Policy { weight, ..Policy::DEFAULT });
        }
        let mut rig =
            Rig { nodes, groups, queue: Box::new(RunQueue::new()), shares, now: 0, cursors };
        rig.fill();
        rig
    }

    fn turns(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.groups).map(GroupId::new).collect::<Vec<_>>().into_iter().cycle()
    }

    fn fill(&mut self) -> f64 {
        let (mut watch, mut turns) = (Stopwatch::new(), self.turns());
        for nodes in self.nodes.chunks(STRETCH) {
            watch.time(|| {
                for (node, group) in nodes.iter().zip(&mut turns) {
                    self.queue.push(group, Thread(node));
                }
                nodes.len()
            });
        }
        watch.median()
    }

    fn drain(&mut self) -> f64 {
        let (mut watch, mut turns) = (Stopwatch::new(), self.turns());
        for nodes in self.nodes.chunks(STRETCH) {
            watch.time(|| {
                for (_, group) in nodes.iter().zip(&mut turns) {
                    black_box(self.queue.pop(group));
                }
                nodes.len()
            });
        }
        watch.median()
    }

    /// Goes from thread to thread, each known from the one before, and writes to each: so many of a group as a theft
    /// takes, then as many of the next one. It is what one cache miss costs that nothing hides.
    fn floor(&mut self, operations: usize) -> f64 {
        let (mut watch, mut turns) = (Stopwatch::new(), self.turns());
        let batch = self.batch();
        let times = STRETCH.div_ceil(batch);
        for _ in 0..operations.div_ceil(STRETCH) {
            watch.time(|| {
                for group in turns.by_ref().take(times) {
                    let cursor = &mut self.cursors[group.index()];
                    for _ in 0..batch {
                        let Thread(node) = *cursor;
                        node.touched.set(node.touched.get() + 1);
                        *cursor = node.ring.get().expect("it is a ring");
                    }
                }
                times * batch
            });
        }
        watch.median()
    }

    /// A turn of a twentieth of a slice, after which a group is chosen: a decision, a thread out and in again.
    fn pick(&mut self, operations: usize) -> f64 {
        let mut watch = Stopwatch::new();
        for _ in 0..operations.div_ceil(STRETCH) {
            watch.time(|| {
                for i in 0..STRETCH {
                    self.now += SLICE / 20;
                    let here = self.queue.queued();
                    let choice = self.shares.choose(self.now, i % 2, here, Elsewhere::default());
                    let Choice::Serve(group, _) = choice else { unreachable!("all are here") };
                    let thread = self.queue.pop(group).expect("it is queued");
                    self.queue.push(group, thread);
                }
                STRETCH
            });
        }
        watch.median()
    }

    /// A thread yields to the next group's.
    fn rotate(&mut self, operations: usize) -> f64 {
        let (mut watch, mut turns) = (Stopwatch::new(), self.turns());
        let mut group = turns.next().expect("there is a group");
        let mut thread = self.queue.pop(group).expect("it is queued");
        for _ in 0..operations.div_ceil(STRETCH) {
            watch.time(|| {
                for to in turns.by_ref().take(STRETCH) {
                    thread = self.queue.rotate(group, thread, to, |next| {
                        black_box(next.0);
                    });
                    group = to;
                }
                STRETCH
            });
        }
        self.queue.push(group, thread);
        watch.median()
    }

    /// Threads that a theft from a group takes.
    fn batch(&self) -> usize {
        (self.nodes.len() / self.groups).div_ceil(2).min(MOST_STOLEN)
    }

    /// For each thread stolen.
    fn steal(&mut self, operations: usize) -> f64 {
        let (mut watch, mut turns) = (Stopwatch::new(), self.turns());
        let mut thief = Vec::with_capacity(MOST_STOLEN);
        let mut stolen = 0;
        while stolen < operations {
            let group = turns.next().expect("there is a group");
            watch.time(|| {
                self.queue.steal_into(group, &mut thief, |_| true);
                thief.len()
            });
            stolen += thief.len();
            for thread in thief.drain(..) {
                self.queue.push(group, thread);
            }
        }
        watch.median()
    }

    /// Out and in, so often that there are enough operations.
    fn drain_and_fill(&mut self, operations: usize) -> [f64; 2] {
        let times = operations.div_ceil(self.nodes.len());
        let (dequeue, enqueue) = (0..times).map(|_| (self.drain(), self.fill())).unzip();
        [median(dequeue), median(enqueue)]
    }

    fn round(&mut self, operations: usize) -> [f64; COLUMNS.len()] {
        let floor = self.floor(operations);
        let pick = self.pick(operations);
        let [dequeue, enqueue] = self.drain_and_fill(operations);
        let rotate = self.rotate(operations);
        let steal = self.steal(operations);
        [floor, pick, enqueue, dequeue, rotate, steal]
    }
}

const COLUMNS: [&str; 6] = ["floor", "pick", "enqueue", "dequeue", "rotate", "steal"];

/// Medians for each number of threads, by turns.
fn with_groups(groups: usize, plan: Plan) -> Vec<(usize, [f64; COLUMNS.len()])> {
    // Each group has a thread.
    let sizes = THREADS.map(|threads| threads.max(groups));
    let all = sizes.map(nodes);
    let mut rigs: Vec<Rig> = all.iter().map(|nodes| Rig::new(nodes, groups)).collect();
    let mut values = vec![vec![Vec::new(); COLUMNS.len()]; rigs.len()];
    for _ in 0..plan.rounds {
        for (rig, values) in rigs.iter_mut().zip(&mut values) {
            let round = rig.round(plan.operations);
            values.iter_mut().zip(round).for_each(|(values, value)| values.push(value));
        }
    }
    let medians = values.into_iter().map(|mut values| {
        std::array::from_fn(|column| median(std::mem::take(&mut values[column])))
    });
    sizes.into_iter().zip(medians).collect()
}

/// The cost of an operation with the most threads, and what it may be: that with the fewest and a cache miss, for
/// nobody can queue or take out a thread without a look at it.
struct Growth {
    what: String,
    cost: f64,
    most: f64,
}

fn growths(groups: usize, rows: &[(usize, [f64; COLUMNS.len()])]) -> Vec<Growth> {
    let (few, many) = (rows[0].1, rows[rows.len() - 1].1);
    let miss = (many[0] - few[0]).max(0.0);
    let growth = |column: usize| Growth {
        what: format!("{} with {groups} groups", COLUMNS[column]),
        cost: many[column],
        most: 1.25 * (few[column] + miss),
    };
    (1..COLUMNS.len()).map(growth).collect()
}

pub(crate) fn measure(plan: Plan) -> Vec<Goal> {
    let mut rows = table(&[&["groups", "threads"], &COLUMNS[..]].concat());
    let mut all = Vec::new();
    for groups in GROUPS {
        let measured = with_groups(groups, plan);
        for (threads, values) in &measured {
            let mut row = vec![groups.to_string(), threads.to_string()];
            row.extend(values.iter().map(|value| format!("{value:.1}")));
            rows.add_row(row);
        }
        all.extend(growths(groups, &measured));
    }
    println!("nanoseconds of each operation\n{rows}");
    println!(
        "floor: a thread's cache line is visited and written; pick: a decision between groups, a thread out and in \
         again; steal: for each thread\n"
    );
    let worst = |a: &&Growth, b: &&Growth| (a.cost / a.most).total_cmp(&(b.cost / b.most));
    let Growth { what, cost, most } = all.iter().max_by(worst).expect("there are some");
    vec![Goal {
        text: format!(
            "among a million threads, an operation costs at most 1.25 times as much as among the fewest and a cache \
             miss; nearest to that is {what}: {cost:.1} ns of {most:.1}"
        ),
        met: cost <= most,
    }]
}
