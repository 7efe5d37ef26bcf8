//! The first runs of a model, before anybody waits for one.
//!
//! They are slow, they prove that the model runs at all on what it declares, and they
//! show the outputs that its code alone does not: names, datatypes and shapes.

mod sample;
mod trial;

use std::sync::Arc;

use sconce_catalog::{Batching, Datatype, Field, Kind, Shape, Signature};

use super::{EngineError, Module, Output, Phases, State, Tensor};

/// Runs of each size: the first compiles, the second finds what the first left over.
const RUNS: usize = 2;

/// Sizes for dimensions of variable size. The first two show which dimensions of the
/// outputs follow the batch; the last is for models that need a longer text or a larger
/// picture than that.
const SIZES: [u64; 3] = [1, 2, 32];

/// Warms the model and completes its signature by what it really gives.
///
/// A model that does not declare all of its inputs is not run: nothing is guessed.
pub(super) fn warm(module: Arc<dyn Module>) -> Result<Arc<dyn Module>, EngineError> {
    let signature = module.signature().clone();
    let names = signature.outputs.iter().map(|field| field.name.as_str().into()).collect();
    let named = Named { module, names, signature: Arc::new(signature) };
    if sample::inputs(&named.signature, SIZES[0]).is_none() {
        tracing::debug!("not warmed: the model does not declare the shapes and datatypes of its inputs");
        return Ok(Arc::new(named));
    }
    let mut given = match answers(&named) {
        Ok(given) => given.into_iter(),
        Err(error) if guessed(&named.signature) => {
            tracing::info!(%error, "not warmed: the model needs sizes that it does not declare");
            return Ok(Arc::new(named));
        }
        Err(error) => return Err(EngineError::Load(format!("warm-up: {error}"))),
    };
    let (one, two) = (given.next().unwrap_or_default(), given.next());
    if let Some(output) = one.iter().find(|output| sample::has_nan(&output.tensor)) {
        tracing::warn!(output = &*output.name, "the model gives NaN for zeros");
    }
    let outputs = complete(&named.signature, learn(&one, two.as_deref()))?;
    let batching = batching(&named);
    Ok(Arc::new(Named {
        signature: Arc::new(Signature { outputs, batching, ..(*named.signature).clone() }),
        ..named
    }))
}

/// What is declared, unless a trial shows that it is not so: callers would get each other's numbers.
fn batching(module: &dyn Module) -> Option<Batching> {
    let declared = module.signature().batching;
    if declared != Some(Batching::Rows) || module.is_stateful() || module.signature().has_rows().is_err() {
        return declared;
    }
    let Some(reason) = trial::dependence(module) else { return declared };
    tracing::warn!(
        reason,
        "rows are declared independent, and a trial says otherwise; requests run one by one"
    );
    Some(Batching::Off)
}

/// What the model gives for inputs of two sizes; of one, where nothing is variable or it
/// takes no other.
fn answers(module: &dyn Module) -> Result<Vec<Vec<Output>>, EngineError> {
    let (mut tried, mut given, mut first_error) = (None, Vec::new(), None);
    for size in SIZES {
        let inputs = sample::inputs(module.signature(), size);
        if given.len() == 2 || inputs == tried {
            break;
        }
        match run(module, inputs.as_deref().unwrap_or_default()) {
            Ok(outputs) => given.push(outputs),
            Err(error) => first_error = first_error.or(Some(error)),
        }
        tried = inputs;
    }
    match first_error {
        Some(error) if given.is_empty() => Err(error),
        _ => Ok(given),
    }
}

fn run(module: &dyn Module, inputs: &[Option<Tensor>]) -> Result<Vec<Output>, EngineError> {
    let mut last = module.forward(inputs.to_vec())?;
    for _ in 1..RUNS {
        last = module.forward(inputs.to_vec())?;
    }
    Ok(last)
}

/// Whether a size was made up that is more than a number of rows: then a failure says
/// nothing about the model, which may need pictures of 32 × 32 at least.
fn guessed(signature: &Signature) -> bool {
    signature.inputs.iter().filter_map(|field| field.shape.as_ref()).any(|shape| {
        let inner = shape.0.get(1..).unwrap_or_default();
        shape.0.len() == 1 && shape.0[0].is_none() || inner.contains(&None)
    })
}

fn learn(one: &[Output], two: Option<&[Output]>) -> Vec<Field> {
    let field = |(at, output): (usize, &Output)| {
        let other = two.and_then(|two| two.get(at)).map(|other| &other.tensor.shape);
        let shape = output.tensor.shape.iter().enumerate().map(|(dimension, size)| match other {
            Some(other) => other.get(dimension).filter(|same| *same == size).copied(),
            None => Some(*size),
        });
        Field {
            name: output.name.to_string(),
            kind: if output.tensor.datatype == Datatype::Bytes { Kind::StringList } else { Kind::Tensor },
            datatype: Some(output.tensor.datatype),
            shape: Some(Shape(shape.collect())),
            optional: false,
        }
    };
    one.iter().enumerate().map(field).collect()
}

/// The outputs as found, with the shapes that were declared.
fn complete(signature: &Signature, found: Vec<Field>) -> Result<Vec<Field>, EngineError> {
    // The kind of an output says what the model's code calls it; on the wire all are tensors.
    let as_found = |said: &Field| {
        let kind = found.iter().find(|field| field.name == said.name).map_or(said.kind, |field| field.kind);
        Field { kind, ..said.clone() }
    };
    let declared =
        Signature { outputs: signature.outputs.iter().map(as_found).collect(), ..Signature::default() };
    let found = Signature { outputs: found, ..Signature::default() };
    declared
        .fits(&found, "its declaration", "what it gives")
        .map_err(|difference| EngineError::Load(format!("warm-up: {difference}")))?;
    let merge = |found: Field| match declared.outputs.iter().find(|said| said.name == found.name) {
        Some(said) => Field { shape: said.shape.clone().or(found.shape.clone()), ..found },
        None => found,
    };
    Ok(found.outputs.into_iter().map(merge).collect())
}

/// A model whose outputs have the names that its pusher gave them, where its code gives none.
struct Named {
    module: Arc<dyn Module>,
    names: Arc<[Arc<str>]>,
    signature: Arc<Signature>,
}

impl Module for Named {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn state(&self) -> State {
        self.module.state()
    }

    fn instance(&self) -> Result<Arc<dyn Module>, EngineError> {
        let (names, signature) = (Arc::clone(&self.names), Arc::clone(&self.signature));
        Ok(Arc::new(Self { module: self.module.instance()?, names, signature }))
    }

    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        self.forward_timed(inputs, &mut Phases::default())
    }

    fn forward_timed(
        &self,
        inputs: Vec<Option<Tensor>>,
        phases: &mut Phases,
    ) -> Result<Vec<Output>, EngineError> {
        let mut outputs = self.module.forward_timed(inputs, phases)?;
        let nameless = outputs.iter().all(|output| output.name.starts_with("OUTPUT__"));
        if nameless && outputs.len() == self.names.len() {
            for (output, name) in outputs.iter_mut().zip(&*self.names) {
                output.name = Arc::clone(name);
            }
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests;
