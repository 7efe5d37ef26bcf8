//! Whether rows that are declared independent are: two requests are run alone, and then as one.
//!
//! It cannot prove that they are. It finds what goes wrong most: means over dimension 0, and norms
//! that were left in training mode.

use bytes::Bytes;
use sconce_catalog::{Datatype, Kind, Signature};

use super::sample;
use crate::engine::{Data, Module, Output, Tensor, batch};

/// Of each of the two requests; with one, some models take no means.
const ROWS: u64 = 2;

/// What shows that rows depend on one another, in words; `None` where nothing does, or where the
/// model cannot be tried.
pub(super) fn dependence(module: &dyn Module) -> Option<String> {
    let signature = module.signature();
    let made = [0, 1].map(|seed| made(signature, seed));
    let [Some(one), Some(two)] = &made else { return None };
    // What it says to made-up values is no verdict.
    let alone = [module.forward(one.clone()).ok()?, module.forward(two.clone()).ok()?];
    let together = module.forward(batch::join(signature, &[one, two])).ok()?;
    let parts = match batch::split(&together, &[2, 2]) {
        Ok(parts) => parts,
        Err(reason) => return Some(reason),
    };
    alone.iter().zip(&parts).find_map(|(alone, part)| difference(alone, part))
}

/// Inputs of no particular meaning, others for each seed.
fn made(signature: &Signature, seed: usize) -> Option<Vec<Option<Tensor>>> {
    let mut inputs = sample::inputs(signature, ROWS)?;
    for (field, tensor) in signature.inputs.iter().zip(&mut inputs) {
        if let (Kind::Tensor, Some(tensor)) = (field.kind, tensor) {
            fill(tensor, seed);
        }
    }
    Some(inputs)
}

fn fill(tensor: &mut Tensor, seed: usize) {
    let Data::Fixed(bytes) = &tensor.data else { return };
    let width = tensor.datatype.width().unwrap_or(1);
    let value = |at: usize| {
        let real = ((at * 37 + seed * 11) % 101) as f64 / 23.0 - 2.1;
        // Numbers that are rarely out of the bounds of whatever they number.
        let whole = ((at + seed) % 2) as u8;
        match tensor.datatype {
            Datatype::Fp64 => real.to_le_bytes().to_vec(),
            Datatype::Fp32 => (real as f32).to_le_bytes().to_vec(),
            Datatype::Fp16 => half::f16::from_f64(real).to_le_bytes().to_vec(),
            Datatype::Bf16 => half::bf16::from_f64(real).to_le_bytes().to_vec(),
            _ => [&[whole][..], &[0; 7]].concat()[..width].to_vec(),
        }
    };
    tensor.data = Data::Fixed((0..bytes.len() / width).flat_map(value).collect::<Vec<u8>>().into());
}

fn difference(alone: &[Output], part: &[Output]) -> Option<String> {
    alone.iter().zip(part).find_map(|(alone, part)| {
        let far = match (values(&alone.tensor), values(&part.tensor)) {
            (Some(alone), Some(part)) => {
                let tolerance = tolerance(part.1);
                let pairs = alone.0.iter().zip(&part.0);
                pairs.filter(|(a, b)| (*a - *b).abs() > tolerance * a.abs().max(1.0)).count()
            }
            _ => usize::from(alone.tensor != part.tensor),
        };
        (far > 0).then(|| format!("output `{}` is another one beside other rows", alone.name))
    })
}

/// How far apart two results may be that differ only in the order of summing, of numbers around 1.
fn tolerance(datatype: Datatype) -> f64 {
    match datatype {
        Datatype::Fp16 => 1e-2,
        Datatype::Bf16 => 5e-2,
        _ => 1e-3,
    }
}

/// The elements, where they are real numbers.
fn values(tensor: &Tensor) -> Option<(Vec<f64>, Datatype)> {
    let Data::Fixed(bytes) = &tensor.data else { return None };
    let bytes: &Bytes = bytes;
    let values = match tensor.datatype {
        Datatype::Fp64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Datatype::Fp32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
        Datatype::Fp16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).into()).collect(),
        Datatype::Bf16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).into()).collect(),
        _ => return None,
    };
    Some((values, tensor.datatype))
}
