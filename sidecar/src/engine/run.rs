//! One turn of an inference thread: runs a request, or several as one batch.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{
    EngineError, Module, Output, Phases, RunError, Tensor, Turn, batch,
    meters::Saved,
    queue::{Entry, Line},
};

/// What a turn took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ran {
    pub(super) took: Duration,
    /// The last run that succeeded: its rows, and how long it took.
    pub(super) observed: Option<(usize, Duration)>,
}

/// Runs these requests, as one batch where there are several, and answers each.
pub(super) fn run(line: &Line, members: &mut Vec<Entry>) -> Ran {
    let began = Instant::now();
    let mut ran = Ran::default();
    members.iter().for_each(|entry| line.meters.waited(began.saturating_duration_since(entry.queued)));
    if members.len() > 1 && !together(line, members, &mut ran) {
        // Of which request it is the fault shows when each runs alone.
        line.meters.taken_apart();
        apart(line, members, &mut ran);
    } else {
        members.drain(..).for_each(|entry| alone(line, entry, &mut ran));
    }
    ran.took = began.elapsed();
    ran
}

/// Runs a batch; `false` where it did not come to an answer for each, and all are still waiting.
fn together(line: &Line, members: &mut Vec<Entry>, ran: &mut Ran) -> bool {
    let (signature, began, mut phases) = (line.module.signature(), Instant::now(), Phases::default());
    let rows: Vec<usize> = members.iter().map(|entry| entry.rows).collect();
    let inputs: Vec<_> = members.iter().map(|entry| &entry.inputs[..]).collect();
    let joined = batch::join(signature, &inputs);
    phases.input += began.elapsed();
    let all = rows.iter().sum();
    let Ok(outputs) = forward(line, joined, None, all, ran, &mut phases) else { return false };
    let splitting = Instant::now();
    match batch::split(&outputs, &rows) {
        Ok(parts) => {
            phases.output += splitting.elapsed();
            line.meters.tallies.ran(all, &phases);
            for (entry, part) in members.drain(..).zip(parts) {
                answer(line, entry, began, &phases, part);
            }
            true
        }
        Err(reason) => {
            line.stop_batching(&reason);
            false
        }
    }
}

fn apart(line: &Line, members: &mut Vec<Entry>, ran: &mut Ran) {
    for entry in members.drain(..) {
        // The batch took its time, and not everybody has waited for it.
        if entry.is_abandoned() {
            line.meters.saved(Saved::Abandoned, entry.rows);
            line.failed(&entry);
        } else if entry.deadline <= Instant::now() {
            line.meters.saved(Saved::Late, entry.rows);
            line.failed(&entry);
            let _ = entry.reply.send(Err(RunError::Late));
        } else {
            alone(line, entry, ran);
        }
    }
}

fn alone(line: &Line, mut entry: Entry, ran: &mut Ran) {
    let (began, mut phases) = (Instant::now(), Phases::default());
    let inputs = std::mem::take(&mut entry.inputs);
    let outcome = forward(line, inputs, entry.turn.as_ref(), entry.rows, ran, &mut phases);
    // Before the answer, which the next request of the sequence may follow at once.
    drop(entry.turn.take());
    match outcome {
        Ok(outputs) => {
            line.meters.tallies.ran(entry.rows, &phases);
            answer(line, entry, began, &phases, outputs);
        }
        Err(error) => {
            line.failed(&entry);
            let _ = entry.reply.send(Err(RunError::Engine(error)));
        }
    }
}

/// Counts a request and then answers it: whoever has the answer finds it counted.
fn answer(line: &Line, entry: Entry, began: Instant, phases: &Phases, outputs: Vec<Output>) {
    if entry.is_abandoned() {
        line.failed(&entry);
        return;
    }
    let queued = began.saturating_duration_since(entry.queued);
    line.meters.tallies.answered(entry.rows, entry.queued.elapsed(), queued, phases);
    let _ = entry.reply.send(Ok(outputs));
}

fn forward(
    line: &Line,
    inputs: Vec<Option<Tensor>>,
    turn: Option<&Turn>,
    rows: usize,
    ran: &mut Ran,
    phases: &mut Phases,
) -> Result<Vec<Output>, EngineError> {
    line.meters.ran(rows);
    let began = Instant::now();
    let module: &dyn Module = line.module.as_ref();
    let outcome = catch_unwind(AssertUnwindSafe(|| match turn {
        Some(turn) => turn.forward(module, inputs, phases),
        None => module.forward_timed(inputs, phases),
    }));
    let outcome = outcome.unwrap_or_else(|_| Err(EngineError::Model("it made the server panic".into())));
    if outcome.is_ok() {
        ran.observed = Some((rows, began.elapsed()));
    }
    outcome
}
