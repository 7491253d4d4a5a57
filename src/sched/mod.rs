//! Which green thread runs next: policy as plain values.
//!
//! Nothing here knows an operating system, a clock, an atomic or a pointer: time is an argument, and
//! `worker` obeys, under locks of its own. There are two questions, and a value for each:
//!
//! - Which **group** of threads does this worker serve? [`Shares`], one for a runtime's workers.
//! - Which **thread** of that group runs? [`RunQueue`], one for each worker.
//!
//! **What was taken from kernels, and what was left.** Linux's fair scheduler (CFS, since 2.6.23) serves
//! whoever has the least virtual time, and since 6.6 EEVDF ("Earliest Eligible Virtual Deadline First",
//! Stoica and Abdel-Wahab, 1995): of those who are not ahead of their share, the one with the earliest
//! virtual deadline. The latter is taken for groups: it bounds how far a group is from its share by a
//! request, and separates how much a group gets from how soon. Kernels do the same for every thread, in
//! a tree of them; left, since a million threads with turns of a microsecond want neither a logarithm nor
//! three cache lines each: threads of a group take turns, and only those that compute for long are told
//! from the others. Kernels give each group a part of its weight on each CPU, in proportion to its load
//! there, and correct that by balancing (`calc_group_shares` in `kernel/sched/fair.c`); left, for one
//! virtual time for all workers is exact, and affordable since it is asked once per lease. Kernels keep
//! the lag of those who sleep; here only debt is kept ([`Shares`]). Caps are those of `cpu.max`.

mod group;
mod line;
mod queue;
mod shares;
#[cfg(test)]
pub(crate) mod trace;

pub(crate) use group::{GroupId, Groups, MOST_GROUPS};
pub(crate) use line::Link;
pub(crate) use queue::{MOST_STOLEN, RunQueue};
pub(crate) use shares::{Cap, Choice, Elsewhere, Policy, Shares, Totals};

#[cfg(test)]
pub(crate) mod tests;
