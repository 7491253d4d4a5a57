//! `mpsc`: channels without a bound, with one, and those on which sender and receiver meet.

use std::sync::Mutex;
use std::sync::mpsc::{
    Receiver, RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError, channel,
    sync_channel,
};
use std::time::Duration;

use crate::cast::{
    TIMES, a_moment, at_once, eventually, flag, is_up, join_all, lasting, panic, raise,
};

const LONG: Duration = Duration::from_secs(1000);

type Receive = fn(&Receiver<u32>) -> Option<u32>;

/// Ways to wait for a message.
const RECEIVE: [Receive; 4] = [
    |r| r.recv().ok(),
    |r| r.recv_timeout(LONG).ok(),
    |r| r.recv_timeout(Duration::MAX).ok(),
    |r| r.iter().next(),
];

scenarios! {
    fn a_message_is_waited_for(cast) {
        cast.scope(|crew| {
            for receive in RECEIVE {
                let (sender, receiver) = channel();
                let waiting = crew.spawn_waiting(move || receive(&receiver));
                sender.send(5).unwrap();
                assert_eq!(waiting.join(), Some(5));
            }
        });
    }

    fn the_end_of_the_last_sender_wakes_the_receiver(cast) {
        cast.scope(|crew| {
            for receive in RECEIVE {
                let (sender, receiver) = channel();
                let another = sender.clone();
                let waiting = crew.spawn_waiting(move || receive(&receiver));
                drop(sender);
                a_moment();
                assert!(!waiting.is_finished());
                // By a panic, too.
                let panics = crew.spawn(move || {
                    let _another = another;
                    panic();
                });
                assert!(panics.outcome().is_err());
                assert_eq!(waiting.join(), None);
            }
        });
    }

    fn what_was_sent_before_the_end_is_received_before_it(cast) {
        let (sender, receiver) = channel();
        let (limited, other) = sync_channel(3);
        cast.scope(|crew| {
            crew.spawn(move || {
                for n in 0..3 {
                    sender.send(n).unwrap();
                    limited.send(n).unwrap();
                }
            })
            .join();
        });
        for receiver in [receiver, other] {
            assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
            assert_eq!(receiver.recv(), Err(RecvError));
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
            let disconnected = Err(RecvTimeoutError::Disconnected);
            assert_eq!(at_once(|| receiver.recv_timeout(LONG)), disconnected);
        }
    }

    fn messages_come_in_the_order_in_which_each_sender_sent_them(cast) {
        for bound in [None, Some(0), Some(1), Some(7)] {
            cast.scope(|crew| {
                let mut last = [None; 4];
                let mut check = |(i, n): (usize, usize)| {
                    assert!(last[i] < Some(n), "after {:?} comes {n}", last[i]);
                    last[i] = Some(n);
                };
                let receiver = match bound {
                    None => {
                        let (sender, receiver) = channel();
                        crew.spawn_all(4, move |i| (0..100).for_each(|n| sender.send((i, n)).unwrap()));
                        receiver
                    }
                    Some(bound) => {
                        let (sender, receiver) = sync_channel(bound);
                        crew.spawn_all(4, move |i| (0..100).for_each(|n| sender.send((i, n)).unwrap()));
                        receiver
                    }
                };
                receiver.into_iter().for_each(&mut check);
                assert_eq!(last, [Some(99); 4]);
            });
        }
    }

    fn sending_without_a_bound_never_waits(cast) {
        let (sender, receiver) = channel();
        cast.scope(|crew| {
            let sends = crew.spawn(move || (0..5000).for_each(|n| sender.send(n).unwrap()));
            sends.join();
            assert!(receiver.try_iter().eq(0..5000));
        });
    }

    fn trying_to_receive_does_not_wait(cast) {
        let (sender, receiver) = channel();
        cast.scope(|crew| {
            assert_eq!(at_once(|| receiver.try_recv()), Err(TryRecvError::Empty));
            assert_eq!(at_once(|| receiver.try_iter().next()), None);
            crew.spawn(move || {
                sender.send(1).unwrap();
                sender.send(2).unwrap();
            })
            .join();
            assert_eq!(receiver.try_recv(), Ok(1));
            assert!(receiver.try_iter().eq([2]));
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        });
    }

    fn who_sends_to_nobody_gets_the_message_back(cast) {
        cast.scope(|crew| {
            let (sender, receiver) = channel();
            let (limited, other) = sync_channel(1);
            crew.spawn(move || drop((receiver, other))).join();
            assert_eq!(sender.send(3), Err(SendError(3)));
            assert_eq!(limited.send(4), Err(SendError(4)));
            assert_eq!(limited.try_send(5), Err(TrySendError::Disconnected(5)));
        });
    }

    fn times_are_not_up_early(cast) {
        cast.scope(|crew| {
            join_all(crew.spawn_all(3, |_| {
                for time in TIMES {
                    let (_sender, receiver) = channel::<()>();
                    let result = lasting(time, || receiver.recv_timeout(time));
                    assert_eq!(result, Err(RecvTimeoutError::Timeout));
                    let (_sender, receiver) = sync_channel::<()>(0);
                    let result = lasting(time, || receiver.recv_timeout(time));
                    assert_eq!(result, Err(RecvTimeoutError::Timeout));
                }
            }));
        });
    }

    fn messages_just_when_the_time_is_up_are_not_lost(cast) {
        cast.scope(|crew| {
            let (sender, receiver) = channel();
            crew.spawn(move || {
                for n in 0..100 {
                    std::thread::sleep(Duration::from_micros(n * 7 % 90));
                    sender.send(n).unwrap();
                }
            });
            let mut received = Vec::new();
            for time in (0_u64..).map(|n| Duration::from_micros(n * 11 % 130)) {
                match receiver.recv_timeout(time) {
                    Ok(n) => received.push(n),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            assert!(received.into_iter().eq(0..100));
        });
    }

    fn a_full_channel_makes_senders_wait_for_room(cast) {
        for bound in [1, 2, 5] {
            let (sender, receiver) = sync_channel(bound);
            cast.scope(|crew| {
                for n in 0..bound {
                    at_once(|| sender.send(n)).unwrap();
                }
                assert_eq!(at_once(|| sender.try_send(99)), Err(TrySendError::Full(99)));
                let waiting = crew.spawn_waiting(|| sender.send(bound));
                assert_eq!(receiver.recv(), Ok(0));
                waiting.join().unwrap();
                assert_eq!(sender.try_send(99), Err(TrySendError::Full(99)));
                assert!(receiver.try_iter().eq(1..=bound));
            });
        }
    }

    fn a_sender_waits_until_its_message_is_received_where_both_meet(cast) {
        let (sender, receiver) = sync_channel(0);
        let received = flag();
        cast.scope(|crew| {
            assert_eq!(at_once(|| sender.try_send(0)), Err(TrySendError::Full(0)));
            let waiting = crew.spawn_waiting(|| {
                sender.send(1).unwrap();
                is_up(&received)
            });
            raise(&received);
            assert_eq!(receiver.recv(), Ok(1));
            assert!(waiting.join());
        });
    }

    fn trying_to_send_succeeds_where_a_receiver_waits(cast) {
        let (sender, receiver) = sync_channel(0);
        cast.scope(|crew| {
            let waiting = crew.spawn_waiting(move || receiver.recv());
            eventually(|| sender.try_send(1) == Ok(()));
            assert_eq!(waiting.join(), Ok(1));
            assert_eq!(sender.try_send(2), Err(TrySendError::Disconnected(2)));
        });
    }

    fn the_end_of_the_receiver_wakes_senders_that_wait(cast) {
        for bound in [0, 1] {
            let (sender, receiver) = sync_channel(bound);
            cast.scope(|crew| {
                for n in 0..bound {
                    sender.send(n).unwrap();
                }
                let sender = &sender;
                let waiting = [7, 8, 9].map(|n| crew.spawn_waiting(move || sender.send(n)));
                drop(receiver);
                assert_eq!(waiting.map(|w| w.join()), [7, 8, 9].map(|n| Err(SendError(n))));
            });
        }
    }

    fn a_receiver_may_be_shared_behind_a_lock(cast) {
        let (sender, receiver) = sync_channel(2);
        let receiver = Mutex::new(receiver);
        cast.scope(|crew| {
            let receiver = &receiver;
            let sums = crew.spawn_all(3, move |_| {
                let mut sum = 0;
                // Who waits for a message holds the lock for which the others wait.
                while let Ok(n) = { receiver.lock().unwrap().recv() } {
                    sum += n;
                }
                sum
            });
            (0..200).for_each(|n| sender.send(n).unwrap());
            drop(sender);
            assert_eq!(join_all(sums).iter().sum::<u32>(), 199 * 100);
        });
    }

    fn messages_go_round_a_ring(cast) {
        const MEMBERS: usize = 6;
        cast.scope(|crew| {
            let (first, mut before) = channel::<usize>();
            for _ in 0..MEMBERS {
                let (next, receiver) = channel();
                let before = std::mem::replace(&mut before, receiver);
                crew.spawn(move || before.iter().for_each(|n| next.send(n + 1).unwrap()));
            }
            for lap in 0..100 {
                first.send(lap * MEMBERS).unwrap();
                assert_eq!(before.recv(), Ok((lap + 1) * MEMBERS));
            }
            drop(first);
            assert_eq!(before.recv(), Err(RecvError));
        });
    }
}
