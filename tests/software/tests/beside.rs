//! `rayon` and `crossbeam-channel` beside green threads, which wait for OS threads and the other way round.

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, after, bounded, select, unbounded};
use rayon::prelude::*;
use uthread_software::harness::{Comparison, Kind};

const THREADS: usize = 300;

#[test]
fn hundreds_of_threads_have_rayon_compute() {
    let work = |kind: Kind| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        kind.all(THREADS, |i| {
            let sum =
                |from: u64| (from..from + 5_000).into_par_iter().map(|n| n * n % 7).sum::<u64>();
            // It waits for the pool's threads, which wait for each other.
            let (a, b) = pool.install(|| rayon::join(|| sum(i as u64), || sum(2 * i as u64)));
            let mut values: Vec<_> = (0..500_u64).map(|n| n * 7919 % (i as u64 + 2)).collect();
            pool.install(|| values.par_sort_unstable());
            (a, b, values)
        })
    };
    let answers = Comparison::of_calls(THREADS as u64).run(work);
    assert!(answers.iter().all(|(_, _, values)| values.is_sorted()));
}

#[test]
fn channels_connect_green_threads_and_os_threads() {
    let work = |kind: Kind| {
        // A channel without room: who asks waits until it is heard.
        let (ask, asked) = bounded::<(usize, Sender<usize>)>(0);
        let square = || {
            let asked = asked.clone();
            std::thread::spawn(move || asked.iter().for_each(|(n, to)| to.send(n * n).unwrap()))
        };
        let squares = [square(), square()];
        let answers = kind.all(THREADS, |i| {
            let (to, answer) = bounded(1);
            let ask = |n: usize| {
                ask.send((n, to.clone())).unwrap();
                select! {
                    recv(answer) -> square => square.unwrap(),
                    recv(after(Duration::from_secs(60))) -> _ => panic!("no answer"),
                }
            };
            (i..i + 100).map(ask).sum::<usize>()
        });
        drop(ask);
        // They have nothing left to do but to end.
        squares.into_iter().for_each(|s| s.join().unwrap());
        answers
    };
    let answers = Comparison::of_calls(100 * THREADS as u64).run(work);
    assert_eq!(answers[1], (1..101).map(|n| n * n).sum::<usize>());
}

#[test]
fn a_channel_on_which_nothing_comes_is_given_up_in_time() {
    let work = |kind: Kind| {
        let (_sender, receiver) = unbounded::<()>();
        kind.all(THREADS, |_| receiver.recv_timeout(Duration::from_millis(50)))
    };
    let answers = Comparison::of_calls(THREADS as u64).run(work);
    assert_eq!(answers, [Err(RecvTimeoutError::Timeout); THREADS]);
}
