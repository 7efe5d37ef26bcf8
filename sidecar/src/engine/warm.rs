//! The first runs of a model, before anybody waits for one.
//!
//! They are slow, they prove that the model runs at all on what it declares, and they
//! show the outputs that its code alone does not: names, datatypes and shapes.

use std::sync::Arc;

use bytes::Bytes;
use sconce_catalog::{Datatype, Field, Kind, Shape, Signature};

use super::{Data, EngineError, Module, Output, Tensor};

/// Runs of each size: the first compiles, the second finds what the first left over.
const RUNS: usize = 2;

/// Warms the model and completes its signature by what it really gives.
///
/// A model that does not declare all of its inputs is not run: nothing is guessed.
pub(super) fn warm(module: Arc<dyn Module>) -> Result<Arc<dyn Module>, EngineError> {
    let signature = module.signature().clone();
    let names = signature.outputs.iter().map(|field| field.name.as_str().into()).collect();
    let named = Named { module, names, signature };
    let Some(single) = inputs(&named.signature, 1) else {
        tracing::debug!("not warmed: the model does not declare the shapes and datatypes of its inputs");
        return Ok(Arc::new(named));
    };
    let one = run(&named, &single)?;
    // Two rows show which dimensions follow the batch. A model that takes only one is fine.
    let two = inputs(&named.signature, 2).and_then(|double| run(&named, &double).ok());
    let found = Signature { inputs: Vec::new(), outputs: learn(&one, two.as_deref()) };
    let declared = Signature { inputs: Vec::new(), outputs: named.signature.outputs.clone() };
    declared
        .fits(&found, "its declaration", "what it gives")
        .map_err(|difference| EngineError::Load(format!("warm-up: {difference}")))?;
    let complete = |found: Field| match declared.outputs.iter().find(|said| said.name == found.name) {
        Some(said) => Field { shape: said.shape.clone().or(found.shape.clone()), ..found },
        None => found,
    };
    let outputs = found.outputs.into_iter().map(complete).collect();
    Ok(Arc::new(Named { signature: Signature { outputs, ..named.signature.clone() }, ..named }))
}

fn run(module: &dyn Module, inputs: &[Option<Tensor>]) -> Result<Vec<Output>, EngineError> {
    let mut last = Vec::new();
    for _ in 0..RUNS {
        last = module
            .forward(inputs.to_vec())
            .map_err(|error| EngineError::Load(format!("warm-up: {error}")))?;
    }
    Ok(last)
}

/// Zeros of the declared shapes, with `size` for dimensions of variable size; `None`
/// where something is not declared.
fn inputs(signature: &Signature, size: u64) -> Option<Vec<Option<Tensor>>> {
    signature
        .inputs
        .iter()
        .map(|field| if field.optional { Some(None) } else { zeros(field, size).map(Some) })
        .collect()
}

fn zeros(field: &Field, size: u64) -> Option<Tensor> {
    let datatype = field.datatype.or(field.kind.datatype())?;
    let shape: Vec<u64> = match (&field.shape, field.kind) {
        (Some(shape), _) => shape.0.iter().map(|dimension| dimension.unwrap_or(size)).collect(),
        (None, Kind::Tensor | Kind::TensorList) => return None,
        (None, _) => vec![1],
    };
    let elements = Tensor::elements(&shape)?;
    let data = match datatype.width() {
        Some(width) => Data::Fixed(Bytes::from(vec![0; elements.checked_mul(width)?])),
        None => Data::Strings(vec![Bytes::new(); elements]),
    };
    Some(Tensor { datatype, shape, data })
}

fn learn(one: &[Output], two: Option<&[Output]>) -> Vec<Field> {
    let field = |(at, output): (usize, &Output)| {
        let twin = two.and_then(|two| two.get(at)).map(|twin| twin.tensor.shape.as_slice());
        let shape = output.tensor.shape.iter().enumerate().map(|(dimension, size)| match twin {
            Some(twin) if twin.get(dimension) == Some(size) => Some(*size),
            Some(_) => None,
            // Not known to follow the batch, nor not to.
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

/// A model whose outputs have the names that its pusher gave them, where its code gives none.
struct Named {
    module: Arc<dyn Module>,
    names: Vec<Arc<str>>,
    signature: Signature,
}

impl Module for Named {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        let mut outputs = self.module.forward(inputs)?;
        let nameless = outputs.iter().all(|output| output.name.starts_with("OUTPUT__"));
        if nameless && outputs.len() == self.names.len() {
            for (output, name) in outputs.iter_mut().zip(&self.names) {
                output.name = Arc::clone(name);
            }
        }
        Ok(outputs)
    }
}
