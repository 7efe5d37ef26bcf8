//! Every request is in the statistics once, whatever became of it.

use super::*;
use crate::engine::Statistics;

/// Requests that were answered, and that were not.
fn counted(statistics: &Statistics) -> (u64, u64) {
    (statistics.success.count, statistics.fail.count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_batch_are_requests_of_their_own_and_one_run() {
    let (pool, (gate, pass)) = (pool(1, 16), gate());
    let queue = Queue::new(
        rows(move |bytes| {
            pass();
            Ok(doubled(bytes))
        }),
        "m",
        "1",
    );
    let mut first = Box::pin(pool.run(&queue, work(&[0])));
    assert!(futures::poll!(&mut first).is_pending());
    gate.entered().await;
    let mut waiting: Vec<_> =
        [&[1][..], &[2, 3]].iter().map(|bytes| Box::pin(pool.run(&queue, work(bytes)))).collect();
    for member in &mut waiting {
        assert!(futures::poll!(member).is_pending());
    }
    gate.leave.send(()).expect("inside");
    // Who has an answer finds it counted: nothing is waited for here.
    assert_eq!(given(first.await), [0]);
    assert_eq!(counted(&queue.statistics()).1, 0);
    for member in waiting {
        given(member.await);
    }
    let read = queue.statistics();
    assert_eq!((counted(&read), read.rows, read.runs), ((3, 0), 4, 2));
    assert_eq!(read.queue.count, 3);
    assert_eq!(read.compute.map(|phase| phase.count), [3; 3]);
    let batches: Vec<_> = read.batches.iter().map(|(rows, [_, infer, _])| (*rows, infer.count)).collect();
    assert_eq!(batches, [(1, 1), (3, 1)]);
    let parts: u64 = read.queue.ns + read.compute.iter().map(|phase| phase.ns).sum::<u64>();
    assert!(read.success.ns >= parts && parts > 0, "{read:?}");
    stop(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_late_gone_or_failed_by_the_model_is_a_failure_once() {
    let (pool, (gate, pass)) = (pool(1, 1), gate());
    let queue = Queue::new(
        rows(move |bytes| {
            pass();
            if bytes.contains(&99) { Err(EngineError::Model("99".into())) } else { Ok(bytes) }
        }),
        "m",
        "1",
    );
    let mut running = Box::pin(pool.run(&queue, work(&[1])));
    assert!(futures::poll!(&mut running).is_pending());
    gate.entered().await;
    let soon = Work { deadline: Instant::now() + Duration::from_millis(5), ..work(&[2]) };
    assert!(matches!(pool.run(&queue, soon).await, Err(RunError::Late)));
    assert_eq!(counted(&queue.statistics()), (0, 1), "it waited until its deadline");
    let mut waiting = Box::pin(pool.run(&queue, work(&[3])));
    assert!(futures::poll!(&mut waiting).is_pending());
    let refused = pool.run(&queue, work(&[4])).await;
    assert!(matches!(refused, Err(RunError::Overloaded { .. })), "{refused:?}");
    assert_eq!(counted(&queue.statistics()), (0, 2), "there was no room");
    drop(waiting);
    assert_eq!(counted(&queue.statistics()), (0, 3), "it went away");
    gate.leave.send(()).expect("inside");
    given(running.await);
    assert!(pool.run(&queue, work(&[99])).await.is_err());
    let read = queue.statistics();
    assert_eq!((counted(&read), read.runs, read.rows), ((1, 4), 1, 1));
    assert_eq!(read.compute.map(|phase| phase.count), [1; 3], "time of failures is in no phase");
    stop(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_withdrawn_version_hands_back_is_not_its_failure() {
    let (pool, (gate, pass)) = (pool(1, 2), gate());
    let queue = Queue::new(
        rows(move |bytes| {
            pass();
            Ok(bytes)
        }),
        "m",
        "1",
    );
    let permit = Permit::default();
    let with = |bytes| Work { permit: Some(permit.clone()), ..work(bytes) };
    let (mut running, mut waiting) =
        (Box::pin(pool.run(&queue, with(&[1]))), Box::pin(pool.run(&queue, with(&[2]))));
    assert!(futures::poll!(&mut running).is_pending());
    gate.entered().await;
    assert!(futures::poll!(&mut waiting).is_pending());
    permit.set(false);
    gate.leave.send(()).expect("inside");
    given(running.await);
    assert!(matches!(waiting.await, Err(RunError::Withdrawn(_))));
    assert_eq!(counted(&queue.statistics()), (1, 0));
    stop(pool).await;
}
