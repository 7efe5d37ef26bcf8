//! Whose turn it is, with clocks and runs that the tests make up.

use std::cell::Cell;

use bytes::Bytes;
use sconce_catalog::{Batching, Datatype, Field, Kind, Signature};
use tokio::sync::oneshot;

use super::*;
use crate::engine::{Data, EngineError, Module, Output, Permit, Queue, State, Tensor, Work};

const LIMITS: Limits = Limits { runs: 1, queue: 8, batch_rows: 4, batch_target: None };

/// Never run here.
struct Idle {
    signature: Signature,
    state: State,
}

impl Module for Idle {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn state(&self) -> State {
        self.state
    }
    fn forward(&self, _: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        Ok(Vec::new())
    }
}

fn queue(batching: Option<Batching>, state: State) -> Queue {
    let x = Field { name: "x".into(), kind: Kind::Tensor, datatype: None, shape: None, optional: false };
    let signature = Signature { inputs: vec![x], outputs: Vec::new(), batching };
    Queue::new(Arc::new(Idle { signature, state }), "m", "1")
}

fn plain() -> Queue {
    queue(None, State::None)
}

fn rows() -> Queue {
    queue(Some(Batching::Rows), State::None)
}

type Answer = oneshot::Receiver<Result<Vec<Output>, RunError>>;

/// A schedule, its clock, and the requests that it was given, each of which is called by a letter.
struct Desk {
    schedule: Schedule,
    now: Instant,
    answers: Vec<(char, Place, Answer)>,
    turns: Cell<u32>,
}

/// What a request asks for, where it is not the usual.
#[derive(Clone)]
struct Terms {
    shape: Vec<u64>,
    within: Duration,
    priority: u64,
    permit: Option<Permit>,
}

const USUAL: Terms = Terms { shape: Vec::new(), within: Duration::from_secs(60), priority: 0, permit: None };

fn shaped(shape: &[u64]) -> Terms {
    Terms { shape: shape.to_vec(), ..USUAL }
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

impl Desk {
    fn new(limits: Limits) -> Self {
        Self {
            schedule: Schedule::new(limits),
            now: Instant::now(),
            answers: Vec::new(),
            turns: Cell::new(0),
        }
    }

    /// Submits a request; the letter of the one that it displaced, or why it was refused.
    fn submit(&mut self, queue: &Queue, letter: char, terms: Terms) -> Result<Option<char>, RunError> {
        let Terms { shape, within, priority, permit } = terms;
        let shape = if shape.is_empty() { vec![1, 1] } else { shape };
        let bytes = vec![0; Tensor::elements(&shape).expect("small")];
        // The letter is how a request is known again.
        let data = Data::Fixed(Bytes::from(bytes));
        let inputs = vec![Some(Tensor { datatype: Datatype::Uint8, shape, data })];
        let (reply, answer) = oneshot::channel();
        let (deadline, priority) = (self.now + within, Priority::new(priority));
        let work = Work { inputs, permit, deadline, priority, turn: None };
        let entry = queue.line().entry(work, self.now, reply);
        match self.schedule.submit(queue.line(), entry, self.now) {
            Ok((place, displaced)) => {
                self.answers.push((letter, place, answer));
                Ok(displaced.map(|refused| self.letter(*refused.entry)))
            }
            Err(refused) => Err(refused.error),
        }
    }

    fn take(&mut self, queue: &Queue, letters: &str, terms: &Terms) {
        for letter in letters.chars() {
            let taken = self.submit(queue, letter, terms.clone());
            assert!(matches!(taken, Ok(None)), "{letter}: {taken:?}");
        }
    }

    /// By answering it.
    fn letter(&mut self, entry: Entry) -> char {
        let turn = self.turns.get();
        self.turns.set(turn + 1);
        let mark = Output {
            name: turn.to_string().into(),
            tensor: Tensor { datatype: Datatype::Uint8, shape: vec![], data: Data::Strings(Vec::new()) },
        };
        if entry.reply.send(Ok(vec![mark])).is_err() {
            return '-';
        }
        let mut known = self.answers.iter_mut();
        let found = known.find_map(|(letter, _, answer)| {
            let answered = answer.try_recv().is_ok_and(|outcome| outcome.is_ok());
            answered.then_some(*letter)
        });
        found.expect("one of ours")
    }

    fn letters(&mut self, members: Vec<Entry>) -> String {
        members.into_iter().map(|entry| self.letter(entry)).collect()
    }

    /// Begins a turn: who is in it, and who is told something else.
    fn begin(&mut self) -> Option<(Arc<Line>, Turn, String)> {
        let mut turn = Turn::default();
        let line = self.schedule.next(self.now, &mut turn)?;
        let members = std::mem::take(&mut turn.members);
        let letters = self.letters(members);
        Some((line, turn, letters))
    }

    /// One turn from its beginning to its end, which takes this long.
    fn turn(&mut self, took: Duration) -> String {
        let (line, turn, letters) = self.begin().expect("something to do");
        self.now += took;
        self.schedule.finished(&line, &turn, took, Some((letters.len(), took)));
        letters
    }

    /// Lets a version run alone once, so that how long it takes is known.
    fn learn(&mut self, queue: &Queue, took: Duration) {
        self.take(queue, "*", &USUAL);
        self.turn(took);
    }

    fn leave(&mut self, queue: &Queue, letter: char) -> bool {
        let at = self.answers.iter().position(|(known, ..)| *known == letter).expect("known");
        let (_, place, answer) = self.answers.remove(at);
        drop(answer);
        self.schedule.leave(queue.line(), place, Saved::Abandoned).is_some()
    }
}

#[test]
fn a_version_is_served_in_order_and_by_priority() {
    let (mut desk, queue) = (Desk::new(LIMITS), plain());
    desk.take(&queue, "ab", &USUAL);
    desk.take(&queue, "c", &Terms { priority: 3, ..USUAL });
    desk.take(&queue, "d", &Terms { priority: 1, ..USUAL });
    desk.take(&queue, "e", &Terms { priority: 2, ..USUAL });
    desk.take(&queue, "f", &Terms { priority: 1, ..USUAL });
    let order: String = (0..6).map(|_| desk.turn(ms(1))).collect();
    assert_eq!(order, "dfabec");
    assert!(desk.begin().is_none());
}

#[test]
fn a_full_queue_refuses_and_makes_room_for_a_higher_priority_alone() {
    let (mut desk, queue) = (Desk::new(Limits { queue: 2, ..LIMITS }), plain());
    desk.learn(&queue, ms(100));
    desk.take(&queue, "ab", &USUAL);
    let refused = desk.submit(&queue, 'c', USUAL);
    // Half of 2 × 100 ms.
    assert!(matches!(refused, Err(RunError::Overloaded { retry }) if retry == ms(100)), "{refused:?}");
    assert!(matches!(desk.submit(&queue, 'd', Terms { priority: 1, ..USUAL }), Ok(Some('b'))));
    assert!(matches!(desk.submit(&queue, 'e', Terms { priority: 1, ..USUAL }), Ok(Some('a'))));
    assert!(desk.submit(&queue, 'f', Terms { priority: 1, ..USUAL }).is_err(), "all are as high");
    assert_eq!(desk.turn(ms(1)), "d");
    desk.take(&queue, "g", &USUAL);
}

#[test]
fn a_request_that_leaves_gives_its_place_back_and_never_runs() {
    let (mut desk, queue) = (Desk::new(Limits { queue: 3, ..LIMITS }), plain());
    desk.take(&queue, "abc", &USUAL);
    assert!(desk.leave(&queue, 'b'));
    desk.take(&queue, "d", &USUAL);
    assert_eq!((0..3).map(|_| desk.turn(ms(1))).collect::<String>(), "acd");
    desk.take(&queue, "e", &USUAL);
    let running = desk.begin().expect("e");
    assert!(!desk.leave(&queue, 'e'), "it has begun");
    desk.schedule.finished(&running.0, &running.1, ms(1), None);
    assert!(desk.schedule.active.is_empty(), "nothing is kept of it");
}

#[test]
fn what_has_expired_is_dropped_when_its_turn_comes() {
    let (mut desk, queue) = (Desk::new(LIMITS), plain());
    desk.take(&queue, "a", &Terms { within: ms(50), ..USUAL });
    desk.take(&queue, "b", &USUAL);
    desk.now += ms(50);
    let (_, turn, members) = desk.begin().expect("b");
    assert_eq!(members, "b");
    assert!(matches!(&turn.dropped[..], [(_, RunError::Late)]), "a is told");
}

#[test]
fn what_cannot_be_done_in_time_is_refused_when_it_comes() {
    let (mut desk, queue) = (Desk::new(LIMITS), plain());
    desk.learn(&queue, ms(100));
    desk.take(&queue, "abc", &USUAL);
    // 300 ms of work are before it, and 100 of its own; with a quarter more for safety, 500.
    let within = |limit| Terms { within: ms(limit), ..USUAL };
    let refused = desk.submit(&queue, 'x', within(400));
    assert!(matches!(refused, Err(RunError::Overloaded { retry }) if retry == ms(100)), "{refused:?}");
    assert!(matches!(desk.submit(&queue, 'x', within(90)), Err(RunError::Late)), "no retry helps");
    assert!(matches!(desk.submit(&queue, 'x', within(0)), Err(RunError::Late)));
    desk.take(&queue, "d", &within(600));
    // A higher priority has none of that before it.
    desk.take(&queue, "e", &Terms { priority: 1, ..within(200) });
    assert_eq!(desk.turn(ms(100)), "e");
}

#[test]
fn an_estimate_that_is_too_high_is_found_out() {
    let (mut desk, queue) = (Desk::new(LIMITS), plain());
    desk.learn(&queue, ms(1_000));
    let mut tries = 0;
    // Nothing is before it, so it is tried; its turn comes, and the estimate says that it is in vain.
    while desk.submit(&queue, 'a', Terms { within: ms(500), ..USUAL }).is_ok() && desk.begin().is_none() {
        tries += 1;
        assert!(tries < 100, "for ever");
    }
    assert!(tries > 10, "an estimate is believed for a while");
}

#[test]
fn a_withdrawn_version_begins_nothing_more() {
    let (mut desk, queue, permit) = (Desk::new(LIMITS), plain(), Permit::default());
    desk.take(&queue, "a", &Terms { permit: Some(permit.clone()), ..USUAL });
    desk.take(&queue, "b", &USUAL);
    permit.set(false);
    let (_, turn, members) = desk.begin().expect("b asked for this very version");
    assert_eq!(members, "b");
    assert!(matches!(&turn.dropped[..], [(_, RunError::Withdrawn(_))]));
}

#[test]
fn what_waits_runs_as_one_batch_up_to_the_limit_and_only_with_its_like() {
    let (mut desk, queue) = (Desk::new(LIMITS), rows());
    desk.take(&queue, "a", &shaped(&[1, 2]));
    desk.take(&queue, "b", &shaped(&[1, 3]));
    desk.take(&queue, "cd", &shaped(&[1, 2]));
    desk.take(&queue, "e", &shaped(&[2, 2]));
    desk.take(&queue, "f", &shaped(&[1, 2]));
    assert_eq!(desk.turn(ms(1)), "acd", "e has two rows, and four is the limit");
    assert_eq!(desk.turn(ms(1)), "b", "whose turn it is does not wait for those of another shape");
    assert_eq!(desk.turn(ms(1)), "ef");
    desk.take(&queue, "g", &shaped(&[9, 2]));
    desk.take(&queue, "h", &shaped(&[1, 2]));
    assert_eq!(desk.turn(ms(1)), "g", "one request may be larger than a batch");
}

#[test]
fn requests_of_a_version_that_says_nothing_or_changes_itself_run_alone() {
    for queue in
        [plain(), queue(Some(Batching::Off), State::None), queue(Some(Batching::Rows), State::Instance)]
    {
        let mut desk = Desk::new(LIMITS);
        desk.take(&queue, "ab", &USUAL);
        assert_eq!(desk.turn(ms(1)), "a");
    }
    let (mut desk, stateful) = (Desk::new(Limits { runs: 4, ..LIMITS }), queue(None, State::Shared));
    desk.take(&stateful, "ab", &USUAL);
    let running = desk.begin().expect("a");
    assert!(desk.begin().is_none(), "one at a time");
    desk.schedule.finished(&running.0, &running.1, ms(1), None);
    assert_eq!(desk.turn(ms(1)), "b");
}

#[test]
fn threads_that_are_free_share_what_waits() {
    let (mut desk, queue) = (Desk::new(Limits { runs: 2, batch_rows: 32, ..LIMITS }), rows());
    desk.take(&queue, "abcdef", &USUAL);
    let one = desk.begin().expect("half of it");
    let two = desk.begin().expect("the other half");
    assert_eq!((one.2.as_str(), two.2.as_str()), ("abc", "def"));
}

#[test]
fn a_batch_grows_only_as_far_as_deadlines_and_the_target_allow() {
    let (mut desk, queue) = (Desk::new(Limits { batch_rows: 32, ..LIMITS }), rows());
    for _ in 0..3 {
        desk.learn(&queue, ms(10));
    }
    desk.take(&queue, "xy", &USUAL);
    assert_eq!(desk.turn(ms(20)), "xy", "a row takes 10 ms");
    desk.take(&queue, "a", &USUAL);
    desk.take(&queue, "b", &Terms { within: ms(27), ..USUAL });
    desk.take(&queue, "c", &USUAL);
    assert_eq!(desk.turn(ms(20)), "ab", "with c, b would be late");
    desk.schedule.limits.batch_target = Some(ms(25));
    desk.take(&queue, "def", &USUAL);
    assert_eq!(desk.turn(ms(20)), "cd");
    assert_eq!(desk.turn(ms(20)), "ef");
}

#[test]
fn versions_share_the_threads_by_time_and_none_saves_it_up() {
    let mut desk = Desk::new(Limits { queue: 128, ..LIMITS });
    let (slow, fast) = (plain(), plain());
    for _ in 0..20 {
        desk.take(&slow, "s", &USUAL);
        desk.take(&fast, "ffff", &USUAL);
    }
    let mut order = String::new();
    for _ in 0..30 {
        let (line, turn, letters) = desk.begin().expect("enough waits");
        let took = if letters == "s" { ms(40) } else { ms(10) };
        desk.now += took;
        desk.schedule.finished(&line, &turn, took, Some((1, took)));
        order += &letters;
    }
    let slow_runs = order.matches('s').count();
    assert!((5..=7).contains(&slow_runs), "a fifth of the runs is half of the time: {order}");
    // One that comes now does not get all the time that it did not ask for.
    let late = plain();
    desk.take(&late, "llllllll", &USUAL);
    let mut order = String::new();
    for _ in 0..9 {
        order += &desk.turn(ms(10));
    }
    assert!(order.contains('f') && order.contains('s'), "{order}");
}

#[test]
fn a_version_of_which_nothing_runs_need_not_wait_for_one_that_is_slow() {
    let mut desk = Desk::new(Limits { runs: 2, ..LIMITS });
    let (slow, fast) = (plain(), plain());
    desk.take(&slow, "sss", &USUAL);
    let (_one, _two) = (desk.begin().expect("s"), desk.begin().expect("s"));
    assert!(desk.begin().is_none(), "a version has no more than its share of threads");
    desk.take(&fast, "fg", &USUAL);
    assert!(desk.schedule.has_turn());
    let running = desk.begin().expect("the spare thread");
    assert_eq!(running.2, "f");
    assert!(desk.begin().is_none(), "there is only one");
}
