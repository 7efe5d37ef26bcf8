//! The state of one sequence of requests, and the order of those who want to run on it.
//!
//! A sequence's requests run one after the other, in the order in which they asked for their turn:
//! the next gets it when the one before has run, or has gone without. A turn goes with its request
//! into the queue and onto an inference thread, so that it is not over while the model still runs
//! for somebody who has left.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{EngineError, Module, Output, Phases, Tensor};

/// A model's state from one request to the next. Clones are the same state.
#[derive(Clone)]
pub struct Instance(Arc<Shared>);

struct Shared {
    /// Made by the first run: copying a model is work for an inference thread.
    module: Mutex<Option<Arc<dyn Module>>>,
    order: Mutex<Order>,
}

struct Order {
    taken: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// When the last turn was over.
    rested: Instant,
}

/// The right to run on an instance, until this is dropped.
pub struct Turn(Arc<Shared>);

/// A turn, or a place in the order. Dropping it gives the place up.
pub struct Place(Result<Turn, oneshot::Receiver<Turn>>);

/// As many wait for their turn as may.
#[derive(Debug)]
pub struct Full;

impl Instance {
    /// A state that begins as the model was loaded.
    pub fn new() -> Self {
        let order = Order { taken: false, waiting: VecDeque::new(), rested: Instant::now() };
        Self(Arc::new(Shared { module: Mutex::default(), order: Mutex::new(order) }))
    }

    /// Asks for a turn, behind at most `most` others that wait.
    ///
    /// # Errors
    /// Where more wait already.
    pub fn ask(&self, most: usize) -> Result<Place, Full> {
        let mut order = self.0.order();
        if !order.taken {
            order.taken = true;
            return Ok(Place(Ok(Turn(Arc::clone(&self.0)))));
        }
        if order.waiting.len() >= most {
            order.waiting.retain(|waiting| !waiting.is_closed());
        }
        if order.waiting.len() >= most {
            return Err(Full);
        }
        let (sender, receiver) = oneshot::channel();
        order.waiting.push_back(sender);
        Ok(Place(Err(receiver)))
    }

    /// Since when nobody has had a turn; `None` while somebody has.
    pub fn idle_since(&self) -> Option<Instant> {
        let order = self.0.order();
        (!order.taken).then_some(order.rested)
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// Waits until the turn has come.
    pub async fn turn(self) -> Turn {
        match self.0 {
            Ok(turn) => turn,
            // Whoever holds a turn passes it on, so there is always one to come.
            Err(receiver) => receiver.await.expect("a turn that ends is passed on"),
        }
    }
}

impl Turn {
    /// Runs on the instance, which `model` makes where this is its first run.
    pub(crate) fn forward(
        &self,
        model: &dyn Module,
        inputs: Vec<Option<Tensor>>,
        phases: &mut Phases,
    ) -> Result<Vec<Output>, EngineError> {
        let mut module = self.0.module.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match &mut *module {
            Some(module) => Arc::clone(module),
            none => Arc::clone(none.insert(model.instance()?)),
        };
        module.forward_timed(inputs, phases)
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turn")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        loop {
            let mut order = self.0.order();
            let Some(next) = order.waiting.pop_front() else {
                order.taken = false;
                order.rested = Instant::now();
                return;
            };
            drop(order);
            if !next.is_closed() {
                // To whoever goes away just now it is a turn to drop, which passes it on.
                let _ = next.send(Turn(Arc::clone(&self.0)));
                return;
            }
        }
    }
}

impl Shared {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn ask(instance: &Instance) -> Place {
        instance.ask(8).expect("room")
    }

    #[tokio::test]
    async fn turns_come_in_the_order_in_which_they_were_asked_for() {
        let instance = Instance::new();
        let first = ask(&instance).turn().await;
        let (second, third) = (ask(&instance), ask(&instance));
        let (mut second, mut third) = (Box::pin(second.turn()), Box::pin(third.turn()));
        assert!(third.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "the second has it");
        drop(second.await);
        let third = third.await;
        assert!(instance.idle_since().is_none());
        drop(third);
        assert!(instance.idle_since().is_some());
    }

    #[tokio::test]
    async fn who_goes_away_gives_the_turn_to_the_next() {
        let instance = Instance::new();
        let first = ask(&instance).turn().await;
        let (gone, holds, last) = (ask(&instance), ask(&instance), ask(&instance));
        drop(gone);
        drop(first);
        // The turn has been sent to this one, who never looks.
        drop(holds);
        last.turn().now_or_never().expect("nobody is before it");
        assert!(instance.idle_since().is_some());
    }

    #[tokio::test]
    async fn those_who_wait_are_counted_without_those_who_have_left() {
        let instance = Instance::new();
        let first = instance.ask(1).expect("it is free").turn().await;
        let waits = instance.ask(1).expect("room for one");
        assert!(instance.ask(1).is_err());
        drop(waits);
        let waits = instance.ask(1).expect("there is room again");
        drop(first);
        waits.turn().await;
    }
}
