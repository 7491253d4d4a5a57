//! The control block of a green thread, and how code finds out on which thread it runs.
//!
//! Every thread that the crate meets, green or not, has an [`Identity`]: it outlives the thread and
//! is what handles refer to. A green thread also has a control block, [`Green`], in the top page of its
//! stack, which lives from spawn to end and holds what the switch needs.

use std::cell::{Cell, UnsafeCell};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::num::NonZero;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::account::{Account, Events};
use super::census::{Copied, Glance};
use super::group::Member;
use super::parker::Parker;
use super::state::{State, StateWord};
#[cfg(feature = "interpose")]
use super::wait_table::Enlistment;
use super::{Runtime, Worker};
use crate::arch::{self, FpControl, Position};
use crate::context::coroutine::{Coroutine, Left, Message};
use crate::context::overflow::Occupant;
use crate::context::pool::Slot;
use crate::context::stack::{Resident, Stack};
use crate::context::tls;
use crate::preempt::pin::{self, Pin, Pins};
use crate::preempt::seat::{Seat, Subject};
use crate::reason::WaitReason;
use crate::sched::{GroupId, Link};
use crate::stats::SchedStat;

/// Who a thread is; shared by its handles.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: NonZero<u64>,
    pub(crate) name: Option<Box<str>>,
    /// For `park` and `unpark` of the public interface.
    pub(crate) parker: Parker,
    /// What wakes the thread where it is no green one.
    pub(crate) bell: Option<Box<Bell>>,
}

/// What an OS thread blocks on. Not `std::thread::park`, whose token is the program's to use.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    /// Ends the thread's present or next wait.
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Waits for the bell, or for the time given.
    pub(crate) fn listen(&self, limit: Option<Duration>) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if !*rung {
            rung = match limit {
                None => self.heard.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    self.heard.wait_timeout(rung, limit).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *rung = false;
    }
}

impl Identity {
    /// A new thread's.
    pub(crate) fn new(name: Option<Box<str>>, bell: Option<Box<Bell>>) -> Arc<Identity> {
        // Ids are handed out in batches, so that spawning workers do not share a cache line.
        const BATCH: u64 = 1024;
        static NEXT: AtomicU64 = AtomicU64::new(1);
        thread_local!(static OWN: Cell<(u64, u64)> = const { Cell::new((0, 0)) });
        let (mut next, mut end) = OWN.get();
        if next == end {
            next = NEXT.fetch_add(if bell.is_some() { 1 } else { BATCH }, Ordering::Relaxed);
            end = next + if bell.is_some() { 1 } else { BATCH };
        }
        OWN.set((next + 1, end));
        let id = NonZero::new(next).expect("ids begin at 1 and do not run out");
        Arc::new(Identity { id, name, parker: Parker::new(), bell })
    }
}

/// Why a green thread leaves its worker; one machine word, so that it passes in a register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leave(usize);

/// The decoded form of [`Leave`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Why {
    /// To let others run; it stays runnable.
    Yield,
    /// Until an op or a timer of this worker, which alone wakes it.
    Wait,
    /// It was interrupted; it stays runnable.
    Interrupted,
    /// It is blocked in the kernel, or is about to block; it goes on on a helper.
    Blocked,
    /// Until the parker's notification.
    Park(NonNull<Parker>),
    /// Until somebody takes it out of the table of waits by address.
    #[cfg(feature = "interpose")]
    Enlist(NonNull<Enlistment<'static>>),
}

impl Leave {
    pub(crate) const YIELD: Leave = Leave(0);
    /// For [`GreenRef::wait`], as is [`Leave::park`]: who waits says for what.
    const WAIT: Leave = Leave(1);
    pub(crate) const INTERRUPTED: Leave = Leave(2);
    pub(crate) const BLOCKED: Leave = Leave(3);
    /// Marks the address of an [`Enlistment`].
    #[cfg(feature = "interpose")]
    const ENLIST: usize = 1;

    fn park(parker: &Parker) -> Leave {
        Leave(std::ptr::from_ref(parker) as usize)
    }

    #[cfg(feature = "interpose")]
    fn enlist(enlistment: &Enlistment<'_>) -> Leave {
        Leave(std::ptr::from_ref(enlistment) as usize | Self::ENLIST)
    }

    #[inline]
    pub(crate) fn why(self) -> Why {
        match NonNull::new(self.0 as *mut Parker) {
            None => Why::Yield,
            Some(_) if self.0 == Self::WAIT.0 => Why::Wait,
            Some(_) if self.0 == Self::INTERRUPTED.0 => Why::Interrupted,
            Some(_) if self.0 == Self::BLOCKED.0 => Why::Blocked,
            #[cfg(feature = "interpose")]
            Some(tagged) if self.0 & Self::ENLIST != 0 => {
                let untagged = |p: NonZero<usize>| NonZero::new(p.get() & !Self::ENLIST);
                Why::Enlist(tagged.map_addr(|p| untagged(p).expect("a reference")).cast())
            }
            Some(parker) => Why::Park(parker),
        }
    }
}

impl Message for Leave {
    #[inline]
    fn into_word(self) -> usize {
        self.0
    }

    #[inline]
    fn from_word(word: usize) -> Leave {
        Leave(word)
    }
}

/// The control block.
///
/// What a switch touches is in the first two cache lines, which [`GreenRef::prefetch`] fetches: of a hundred
/// thousand threads, each line costs as much as the rest of the switch.
#[repr(C, align(64))]
pub(crate) struct Green {
    // Whoever holds the lock of the queue that it is in:
    next: Cell<Option<GreenRef>>,
    // Fixed at creation:
    /// 0 where green threads share their worker's thread block.
    thread_pointer: usize,
    // The running thread, or the worker that owns the thread while it does not run:
    /// Null before its first turn and on a helper.
    worker: Cell<*const Worker>,
    account: Account,
    state: StateWord,
    started: Cell<bool>,
    /// It was interrupted, and has not been short since: its turns are timed.
    hog: Cell<bool>,
    /// It left in the middle of its own code, so that it may go on anywhere, on a helper, too. Such a thread
    /// is a hog.
    interrupted: Cell<bool>,
    group: ManuallyDrop<Member>,
    coroutine: UnsafeCell<MaybeUninit<Coroutine>>,
    /// Where it left its worker last.
    left_at: Cell<Position>,
    /// What it waits for, or waited for last; before its first wait, nothing that means anything.
    waits_for: Cell<WaitReason>,
    // Fixed at creation:
    /// Its id, for recordings: the identity does not last to its end.
    number: u64,
    // From here on, what is needed less often.
    events: Events,
    /// Nanoseconds of its slice that a hog has used.
    used: Cell<u64>,
    // The thread itself:
    /// Calls of `blocking` that it is in.
    blocking: Cell<u32>,
    // Shared with the signal's handler, see there:
    subject: Subject,
    // Fixed at creation:
    runtime: *const Runtime,
    identity: ManuallyDrop<Arc<Identity>>,
    // For reports, which read a copy of the control block:
    resident: &'static Resident,
    spawned_at: &'static Location<'static>,
    /// When it was spawned, in nanoseconds of the monotonic clock.
    born: Cell<u64>,
    /// Address and length of the identity's, as long as that lasts; 0 if it has none.
    name: Cell<(usize, usize)>,
}

#[cfg(not(loom))] // Its atomics are larger.
const _: () = assert!(std::mem::offset_of!(Green, coroutine) <= 64);

/// A green thread that has not ended, named by its control block.
///
/// Copies are made and passed around freely; the protocols of `worker` and [`Parker`] see to it that
/// none is used after the thread's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GreenRef(NonNull<Green>);

// SAFETY: the control block is reached from several OS threads, one after the other: whoever has taken
// the thread out of a queue or a park word owns it, and these hand it over with acquire and release.
unsafe impl Send for GreenRef {}

thread_local! {
    /// The green thread whose thread block this is. Where green threads share their worker's block,
    /// the worker sets it at every switch.
    static CURRENT: Cell<Option<GreenRef>> = const { Cell::new(None) };
}

/// The calling green thread, if the caller is one.
#[inline]
pub(crate) fn current() -> Option<GreenRef> {
    CURRENT.get()
}

/// For the overflow handler.
pub(crate) fn find_occupant(found: &mut dyn FnMut(Occupant<'_>)) {
    if let Some(green) = current() {
        found(Occupant {
            stack: green.get().subject.stack(),
            name: &|| green.get().identity.name.as_deref(),
        });
    }
}

impl GreenRef {
    /// Bytes set aside for the control block at the top of a stack.
    const RESERVED: usize = size_of::<Green>().next_multiple_of(64);

    /// Creates a green thread on `slot` that will run `main`.
    ///
    /// # Safety
    ///
    /// What `main` borrows is valid until it has returned; it does not unwind. The runtime exists
    /// until the thread has been retired. Slot and runtime agree on thread blocks.
    pub(crate) unsafe fn create(
        slot: Slot,
        runtime: &Runtime,
        identity: Arc<Identity>,
        group: Member,
        spawned_at: &'static Location<'static>,
        main: impl FnOnce(),
    ) -> GreenRef {
        let stack = slot.stack;
        let thread_pointer =
            if runtime.owns_thread_blocks() { slot.thread_pointer() } else { None };
        let top = slot.usable_top();
        // SAFETY: a stack has room for the control block, and nobody uses it. Both the top of a stack
        // and the size of a thread block are multiples of 64.
        let this = unsafe { GreenRef(top.sub(Self::RESERVED).cast()) };
        let green = Green {
            coroutine: UnsafeCell::new(MaybeUninit::uninit()),
            worker: Cell::new(std::ptr::null()),
            started: Cell::new(false),
            state: StateWord::new(),
            hog: Cell::new(false),
            interrupted: Cell::new(false),
            used: Cell::new(0),
            next: Cell::new(None),
            blocking: Cell::new(0),
            account: Account::default(),
            events: Events::default(),
            subject: Subject::new(stack, identity.name.as_deref()),
            thread_pointer: thread_pointer.unwrap_or(0),
            runtime,
            left_at: Cell::default(),
            waits_for: Cell::new(WaitReason::Park),
            number: identity.id.get(),
            resident: slot.resident,
            spawned_at,
            born: Cell::new(0),
            name: Cell::new(
                identity.name.as_deref().map_or((0, 0), |n| (n.as_ptr().addr(), n.len())),
            ),
            identity: ManuallyDrop::new(identity),
            group: ManuallyDrop::new(group),
        };
        // SAFETY: as above. The body's obligations are the caller's; the coroutine's frames begin
        // below the control block.
        unsafe {
            this.0.write(green);
            let coroutine = Coroutine::new(slot, this.0.cast(), move |resumer| {
                Coroutine::enter(this.coroutine(), resumer);
                this.run(main);
                Coroutine::exit(this.coroutine())
            });
            this.coroutine().write(coroutine);
        }
        this.get().resident.moves_in(this.get().number, this.0.as_ptr().addr());
        this
    }

    /// The green thread's life.
    fn run(self, main: impl FnOnce()) {
        if self.has_block() {
            CURRENT.set(Some(self));
            pin::begin();
            tls::begin();
            self.get().subject.begin();
        }
        main();
        self.get().name.set((0, 0));
        // SAFETY: the thread is at its end; nobody asks for the identity any more.
        drop(unsafe { ManuallyDrop::take(&mut (*self.0.as_ptr()).identity) });
        if self.has_block() {
            tls::end();
            let pin = Pin::new();
            // It ends on a worker, which retires it.
            self.return_to_worker();
            self.get().subject.end();
            pin.retire();
        }
    }

    /// Leaves the helper, if it is on one; on a worker when this returns. The thread is the calling one,
    /// and pinned.
    #[inline]
    pub(crate) fn return_to_worker(self) {
        if self.get().worker.get().is_null() {
            // SAFETY: the helper makes it runnable.
            unsafe { self.leave(Leave::YIELD) };
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> &Green {
        // SAFETY: the thread has not ended.
        unsafe { self.0.as_ref() }
    }

    /// The group that it belongs to.
    #[inline]
    pub(crate) fn group(self) -> GroupId {
        self.get().group()
    }

    fn coroutine(self) -> NonNull<Coroutine> {
        // SAFETY: the field is within the control block; no reference to its contents is made.
        unsafe { NonNull::new_unchecked((*self.0.as_ptr()).coroutine.get().cast()) }
    }

    /// Brings the control block into the cache, for a thread that runs soon.
    #[inline]
    pub(crate) fn prefetch(self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint that reads nothing.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.0.as_ptr().cast::<i8>());
            _mm_prefetch::<_MM_HINT_T0>(self.0.as_ptr().cast::<i8>().add(64));
            _mm_prefetch::<_MM_HINT_T0>(self.0.as_ptr().cast::<i8>().add(128));
        }
    }

    /// Its id.
    #[inline]
    pub(crate) fn number(self) -> u64 {
        self.get().number
    }

    /// Whether it has a thread block of its own.
    #[inline]
    pub(crate) fn has_block(self) -> bool {
        self.get().thread_pointer != 0
    }

    /// Whether it may run on any worker: always if it has its own thread block, else until it starts.
    #[inline]
    pub(crate) fn may_move(self) -> bool {
        self.has_block() || !self.get().started.get()
    }

    /// Whether it can go on, or begin, on a helper.
    pub(crate) fn can_be_helped(self) -> bool {
        self.has_block() && (self.get().interrupted.get() || !self.get().started.get())
    }

    /// Makes it the thread whose thread-locals are in force, on its worker's stack.
    ///
    /// # Safety
    ///
    /// The caller, a worker, owns the thread and uses no thread-local until the next switch or until it
    /// has put its own back.
    #[inline]
    pub(crate) unsafe fn install(self, seat: &Seat) {
        let green = self.get();
        seat.seats(Some(&green.subject));
        if green.thread_pointer != 0 {
            // SAFETY: the block is complete, and nobody else runs on it, since the caller owns the
            // thread.
            unsafe { crate::arch::set_thread_pointer(green.thread_pointer) };
        } else {
            set_current(Some(self));
        }
    }

    /// Runs the thread until it leaves.
    ///
    /// # Safety
    ///
    /// The calling worker owns the thread and has installed it.
    #[inline]
    pub(crate) unsafe fn resume(self, worker: &Worker) -> Left<Leave> {
        let green = self.get();
        green.state.becomes(State::Running);
        green.started.set(true);
        green.worker.set(worker);
        // SAFETY: as the caller says.
        unsafe { Coroutine::resume(self.coroutine(), worker.fp_control()) }
    }

    /// Runs the thread on a helper until it leaves.
    ///
    /// # Safety
    ///
    /// The calling helper owns the thread, which has a thread block and begins, was interrupted, or is about to
    /// block, and has installed it.
    pub(crate) unsafe fn resume_on_helper(self, fp_control: &Cell<FpControl>) {
        self.get().started.set(true);
        self.get().worker.set(std::ptr::null());
        // SAFETY: as the caller says.
        let left: Left<Leave> = unsafe { Coroutine::resume(self.coroutine(), fp_control) };
        let interrupted =
            matches!(left, Left::Suspended(leave) if matches!(leave.why(), Why::Interrupted));
        self.get().interrupted.set(interrupted);
    }

    /// Leaves the worker; returns when the thread is resumed.
    ///
    /// # Safety
    ///
    /// The thread is the calling one, is pinned, and something will make it runnable again.
    #[inline]
    pub(crate) unsafe fn leave(self, why: Leave) {
        self.get().left_at.set(arch::here());
        // SAFETY: the body of the coroutine calls.
        unsafe { Coroutine::suspend(self.coroutine(), why) };
    }

    /// Leaves the worker until an op or a timer of it; returns when the thread is resumed.
    ///
    /// # Safety
    ///
    /// As for [`GreenRef::leave`]; what makes it runnable is that op or timer.
    #[inline]
    pub(crate) unsafe fn wait(self, reason: WaitReason) {
        self.get().waits_for.set(reason);
        // SAFETY: as promised to this function.
        unsafe { self.leave(Leave::WAIT) };
    }

    /// Leaves the worker until the parker's notification; returns when the thread is resumed.
    ///
    /// # Safety
    ///
    /// As for [`GreenRef::leave`]; what makes it runnable is the parker's notifier, or whoever withdraws it from there.
    /// The parker lives until then.
    #[inline]
    pub(crate) unsafe fn park(self, parker: &Parker, reason: WaitReason) {
        self.get().waits_for.set(reason);
        // SAFETY: as promised to this function.
        unsafe { self.leave(Leave::park(parker)) };
    }

    /// Leaves the worker until it is woken by address, or at once if the word has changed; returns when the thread is
    /// resumed.
    ///
    /// # Safety
    ///
    /// As for [`GreenRef::leave`]; what makes it runnable is whoever takes the waiter out of the bucket. The waiter is new.
    #[cfg(feature = "interpose")]
    #[inline]
    pub(crate) unsafe fn enlist(self, enlistment: &Enlistment<'_>, reason: WaitReason) {
        self.get().waits_for.set(reason);
        // SAFETY: as promised to this function.
        unsafe { self.leave(Leave::enlist(enlistment)) };
    }

    /// Gets back the slot of a thread that has ended. No copy of the reference may be used any more.
    ///
    /// # Safety
    ///
    /// The thread has finished, and the caller is its last worker.
    pub(crate) unsafe fn retire(self) -> Slot {
        self.get().state.becomes(State::Ended);
        self.get().resident.moves_out();
        // SAFETY: nobody else refers to the control block now, and both are taken out once.
        unsafe {
            ManuallyDrop::drop(&mut (*self.0.as_ptr()).group);
            self.coroutine().read().into_slot()
        }
    }

    /// The value that stands for this thread in a park word.
    pub(crate) fn to_waiter(self) -> usize {
        self.0.as_ptr() as usize
    }

    /// The thread that [`GreenRef::to_waiter`] gave the value of.
    ///
    /// # Safety
    ///
    /// The value came out of a park word, whose protocol makes the caller the thread's owner.
    pub(crate) unsafe fn from_waiter(waiter: usize) -> GreenRef {
        GreenRef(NonNull::new(waiter as *mut Green).expect("waiters are not null"))
    }
}

impl Link for GreenRef {
    #[inline]
    fn next(self) -> Option<GreenRef> {
        self.get().next.get()
    }

    #[inline]
    fn set_next(self, next: Option<GreenRef>) {
        self.get().next.set(next);
    }
}

impl Green {
    /// The worker that runs it, or last did; none before its first turn and on a helper.
    ///
    /// For the running thread itself the answer holds while it is pinned, until it leaves the worker.
    #[inline]
    pub(crate) fn worker(&self) -> Option<&Worker> {
        // SAFETY: workers live as long as their runtime, and that as long as its threads.
        unsafe { self.worker.get().as_ref() }
    }

    fn group(&self) -> GroupId {
        self.group.id()
    }

    /// Whether its last turn was on that worker.
    #[inline]
    pub(super) fn was_on(&self, worker: &Worker) -> bool {
        std::ptr::eq(self.worker.get(), worker)
    }

    /// The runtime it belongs to.
    #[inline]
    pub(crate) fn runtime(&self) -> &Runtime {
        // SAFETY: the runtime exists until its threads are retired.
        unsafe { &*self.runtime }
    }

    /// Bytes of its stack, guard included.
    #[inline]
    pub(crate) fn stack_size(&self) -> usize {
        self.subject.stack().size()
    }

    /// Its stack.
    #[inline]
    pub(crate) fn stack(&self) -> Stack {
        self.subject.stack()
    }

    /// Whether its turns are timed.
    #[inline]
    pub(crate) fn is_hog(&self) -> bool {
        self.hog.get()
    }

    /// To be called by its worker.
    pub(crate) fn set_hog(&self, hog: bool) {
        self.hog.set(hog);
    }

    /// Says how it left. To be called by its worker or helper.
    pub(crate) fn set_interrupted(&self, interrupted: bool) {
        self.interrupted.set(interrupted);
    }

    /// Nanoseconds of its slice that it has used. For its worker.
    pub(crate) fn used(&self) -> &Cell<u64> {
        &self.used
    }

    /// Calls of `blocking` that it is in. For the thread itself.
    pub(crate) fn blocking(&self) -> &Cell<u32> {
        &self.blocking
    }

    /// Its state. For its owner to change.
    #[inline]
    pub(super) fn state(&self) -> &StateWord {
        &self.state
    }

    /// What it has used. For its owner.
    #[inline]
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Its wait has ended. For its owner.
    pub(super) fn note_wake(&self, now: u64) {
        self.account.woken(now);
        self.events.woken();
    }

    /// What has happened to it. For its owner.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// What copies of control blocks say that may be torn, or of threads that are gone.
    ///
    /// # Safety
    ///
    /// The copy's bytes are initialised; nothing else is asked of them.
    pub(super) unsafe fn glance(copy: *const Green) -> Glance {
        // SAFETY: words of the copy, which are read as numbers.
        unsafe {
            Glance {
                runtime: (&raw const (*copy).runtime).cast::<usize>().read(),
                name: (&raw const (*copy).name).cast::<(usize, usize)>().read(),
            }
        }
    }

    /// What a copy of a control block says.
    ///
    /// # Safety
    ///
    /// The copy was made while the thread existed. It may have run meanwhile.
    pub(super) unsafe fn read_copy(copy: *const Green) -> Copied {
        // SAFETY: the caller says that it was a control block. What its worker changes meanwhile are numbers and
        // single bytes, each of which is an old or a new one.
        let copy = unsafe { &*copy };
        Copied {
            worker: copy.worker.get(),
            state: copy.state.get(),
            reason: copy.waits_for.get(),
            group: copy.group(),
            spawned_at: copy.spawned_at,
            born: copy.born.get(),
            queued_at: copy.account.queued_at(),
            stat: SchedStat::of(&copy.account, &copy.events),
            stack: copy.subject.stack(),
            left_at: copy.left_at.get(),
        }
    }

    /// The address of what the seat knows of the thread whose control block lies there.
    pub(super) fn subject_at(block: usize) -> usize {
        block + std::mem::offset_of!(Green, subject)
    }

    /// The address of what says where the name is, as in [`Glance::name`], of the control block there.
    pub(super) fn name_at(block: usize) -> usize {
        block + std::mem::offset_of!(Green, name)
    }

    /// It was spawned. For whoever spawns it.
    pub(super) fn set_born(&self, now: u64) {
        self.born.set(now);
        self.account.queued(now);
    }

    /// What it waits for. For its owner, if it waits.
    #[inline]
    pub(super) fn waits_for(&self) -> WaitReason {
        self.waits_for.get()
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }
}

/// Sets which green thread the OS thread's own thread block is used by. Not inlined: the address of
/// the thread-local must not outlive a change of the thread pointer.
#[inline(never)]
pub(crate) fn set_current(green: Option<GreenRef>) {
    CURRENT.set(green);
}

/// What an interrupted thread calls on its detour, pinned by the handler, with all registers saved.
///
/// What it returns ends the pinned section when it is set to zero; the detour does that where a new
/// interruption does no harm.
#[unsafe(no_mangle)]
extern "C" fn uthread_interrupted(word: usize, frame: *const usize) -> *mut u32 {
    let thread = current().expect("a green thread was interrupted");
    // SAFETY: the detour passes its frame.
    thread.get().left_at.set(unsafe { arch::interrupted_at(frame) });
    // SAFETY: the calling thread, pinned. Its worker keeps it runnable, or hands it to a helper.
    unsafe { Coroutine::suspend(thread.coroutine(), Leave::from_word(word)) };
    // SAFETY: the thread's own, while it exists.
    unsafe { (*Pins::own()).disown() }
}
