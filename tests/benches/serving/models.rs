//! What is served: a tiny perceptron, ResNet-18, and a small transformer encoder.
//!
//! The two large ones have random weights and are traced here: their weights would be 45 MB and more to
//! keep, and what they cost does not depend on them.

use std::path::{Path, PathBuf};

use sconce_proto::v1::{Batching, BeginPushRequest, Field, Kind, Signature};
use sconce_tests::repository;
use tch::{
    CModule, Device, Kind as Scalar, Tensor,
    nn::{self, Module as _, ModuleT as _},
    vision,
};

/// A model, and one request for it.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) input: &'static str,
    pub(crate) datatype: &'static str,
    /// Of one row.
    pub(crate) shape: Vec<i64>,
    /// One row, as it travels.
    pub(crate) bytes: Vec<u8>,
    file: PathBuf,
}

/// Sizes of the encoder, after BERT's small variants.
const VOCABULARY: i64 = 30_522;
const LENGTH: i64 = 128;
const WIDTH: i64 = 256;
const HEADS: i64 = 4;
const LAYERS: usize = 4;
const CLASSES: i64 = 2;

impl Model {
    /// 16 numbers to 4, in some microseconds.
    pub(crate) fn tiny() -> Self {
        Self {
            name: "mlp",
            input: "x",
            datatype: "FP32",
            shape: vec![1, 16],
            bytes: floats(16),
            file: repository().join("tests/models/mlp.pt"),
        }
    }

    /// A picture to 1,000 classes, in some tens of milliseconds.
    pub(crate) fn resnet(folder: &Path) -> Self {
        let variables = nn::VarStore::new(Device::Cpu);
        let network = vision::resnet::resnet18(&variables.root(), 1000);
        let shape = vec![1, 3, 224, 224];
        let file =
            traced(folder, "resnet18", &Tensor::zeros(&shape, (Scalar::Float, Device::Cpu)), |image| {
                network.forward_t(image, false)
            });
        Self { name: "resnet18", input: "image", datatype: "FP32", bytes: floats(3 * 224 * 224), shape, file }
    }

    /// 128 tokens to 2 classes, in some ten milliseconds.
    pub(crate) fn encoder(folder: &Path) -> Self {
        let variables = nn::VarStore::new(Device::Cpu);
        let network = encoder(&variables.root());
        let shape = vec![1, LENGTH];
        let tokens = Tensor::zeros(&shape, (Scalar::Int64, Device::Cpu));
        let file = traced(folder, "encoder", &tokens, network);
        let ids = (0..LENGTH).map(|at| at * 37 % VOCABULARY);
        Self {
            name: "encoder",
            input: "tokens",
            datatype: "INT64",
            bytes: ids.flat_map(i64::to_le_bytes).collect(),
            shape,
            file,
        }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// This many equal rows, for libtorch.
    pub(crate) fn tensor(&self, rows: i64) -> Tensor {
        let scalar = if self.datatype == "INT64" { Scalar::Int64 } else { Scalar::Float };
        let mut shape = self.shape.clone();
        shape[0] = rows;
        Tensor::from_data_size(&self.bytes.repeat(usize::try_from(rows).expect("few")), &shape, scalar)
    }

    /// The row as JSON's numbers.
    pub(crate) fn numbers(&self) -> Vec<f32> {
        self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// How it is pushed: its rows are independent, and traced code says nothing of names and shapes.
    pub(crate) fn push(&self) -> BeginPushRequest {
        let mut shape = self.shape.clone();
        shape[0] = -1;
        let field = |name: &str, datatype: &str, shape| Field {
            name: name.into(),
            kind: Kind::Tensor.into(),
            datatype: datatype.into(),
            shape,
            ranked: true,
            optional: false,
        };
        let classes = match self.name {
            "mlp" => 4,
            "resnet18" => 1000,
            _ => CLASSES,
        };
        let signature = Signature {
            inputs: vec![field(self.input, self.datatype, shape)],
            outputs: vec![field("scores", "FP32", vec![-1, classes])],
            batching: Batching::Rows.into(),
        };
        BeginPushRequest {
            model: self.name.into(),
            version: "1".into(),
            overrides: Some(signature),
            ..Default::default()
        }
    }
}

fn floats(count: usize) -> Vec<u8> {
    (0..count).flat_map(|at| ((at * 7 % 17) as f32 / 16.0).to_le_bytes()).collect()
}

fn traced(folder: &Path, name: &str, example: &Tensor, network: impl Fn(&Tensor) -> Tensor) -> PathBuf {
    let file = folder.join(format!("{name}.pt"));
    let mut run = |inputs: &[Tensor]| vec![network(&inputs[0])];
    let module =
        tch::no_grad(|| CModule::create_by_tracing(name, "forward", &[example.shallow_clone()], &mut run));
    module.expect("it can be traced").save(&file).expect("written");
    file
}

fn encoder(root: &nn::Path<'_>) -> impl Fn(&Tensor) -> Tensor + use<> {
    let linear = |path: nn::Path<'_>, from, to| nn::linear(path, from, to, Default::default());
    let norm = |path: nn::Path<'_>| nn::layer_norm(path, vec![WIDTH], Default::default());
    let words = nn::embedding(root / "words", VOCABULARY, WIDTH, Default::default());
    let places = root.var("places", &[1, LENGTH, WIDTH], nn::Init::Randn { mean: 0.0, stdev: 0.02 });
    let layers: Vec<_> = (0..LAYERS)
        .map(|at| {
            let layer = root / at;
            let attention = ["q", "k", "v", "o"].map(|name| linear(&layer / name, WIDTH, WIDTH));
            let up = linear(&layer / "up", WIDTH, 4 * WIDTH);
            let down = linear(&layer / "down", 4 * WIDTH, WIDTH);
            (attention, up, down, norm(&layer / "norm1"), norm(&layer / "norm2"))
        })
        .collect();
    let head = linear(root / "head", WIDTH, CLASSES);
    move |tokens| {
        let mut x = words.forward(tokens) + &places;
        for ([q, k, v, o], up, down, norm1, norm2) in &layers {
            let heads = |layer: &nn::Linear, x: &Tensor| {
                layer.forward(x).reshape([-1, LENGTH, HEADS, WIDTH / HEADS]).transpose(1, 2)
            };
            let attended = Tensor::scaled_dot_product_attention::<Tensor>(
                &heads(q, &x),
                &heads(k, &x),
                &heads(v, &x),
                None,
                0.0,
                false,
                None,
                false,
            );
            let attended = o.forward(&attended.transpose(1, 2).reshape([-1, LENGTH, WIDTH]));
            x = norm1.forward(&(x + attended));
            let wide = down.forward(&up.forward(&x).gelu("none"));
            x = norm2.forward(&(x + wide));
        }
        head.forward(&x.select(1, 0))
    }
}
