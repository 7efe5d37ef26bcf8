//! Models that keep state: each instance has its own, and no other's.

use std::sync::Mutex;

use sconce_sidecar::engine::{Instance, Module, Output, State, Tensor, Work};
use tch::{CModule, IValue};

use super::{as_integers, bytes, engine, file, floats, integers, load, together, uneven};

/// The request number `n` of the sequence number `of`.
type Request = fn(usize, usize) -> Tensor;

/// The models that keep state by instance, with requests for them.
const MODELS: [(&str, Request); 6] = [
    ("streaming", |of, n| uneven(&[1, 8, 3 + (of as u64 + n as u64) % 4], of * 7 + n)),
    ("counter", |of, n| integers(&[1], &[(of * 10 + n) as i64])),
    ("accumulate", |of, n| floats(&[1], &[of as f32 + n as f32 / 3.0])),
    ("state/changes_throughshared", |of, n| uneven(&[4], of + n)),
    ("state/changes_throughalias", |of, n| uneven(&[4], of + n)),
    ("state/changes_throughpart", |of, n| integers(&[1], &[(of + n) as i64])),
];

const LENGTH: usize = 12;

fn run(module: &dyn Module, input: Tensor) -> Vec<Output> {
    module.forward(vec![Some(input)]).expect("runs")
}

/// The bytes of every output, one after the other.
fn answer(outputs: &[Output]) -> Vec<u8> {
    outputs.iter().flat_map(|output| bytes(output).to_vec()).collect()
}

/// What libtorch itself gives for one sequence, with the module to itself.
fn alone(name: &str, of: usize, request: Request) -> Vec<Vec<u8>> {
    let mut module = CModule::load(file(name)).expect("it loads");
    module.set_eval();
    let _no_grad = tch::no_grad_guard();
    let ask = |n| {
        let Tensor { datatype, shape, data } = request(of, n);
        let sconce_sidecar::engine::Data::Fixed(data) = data else { unreachable!("made above") };
        let kind = match datatype {
            sconce_catalog::Datatype::Int64 => tch::Kind::Int64,
            _ => tch::Kind::Float,
        };
        let sizes: Vec<i64> = shape.iter().map(|size| size.cast_signed()).collect();
        let given = tch::Tensor::from_data_size(&data, &sizes, kind);
        flat(module.forward_is(&[IValue::Tensor(given)]).expect("it runs"))
    };
    (0..LENGTH).map(ask).collect()
}

fn flat(value: IValue) -> Vec<u8> {
    match value {
        IValue::Tensor(tensor) => {
            let tensor = tensor.contiguous();
            let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            let count = tensor.numel();
            tensor.copy_data_u8(&mut bytes, count);
            bytes
        }
        IValue::GenericDict(entries) => entries.into_iter().flat_map(|(_, value)| flat(value)).collect(),
        other => panic!("no test model gives {other:?}"),
    }
}

#[test]
fn interleaved_instances_give_bitwise_what_each_sequence_gives_alone() {
    const SEQUENCES: usize = 8;
    for (name, request) in MODELS {
        let expected: Vec<_> = (0..SEQUENCES).map(|of| alone(name, of, request)).collect();
        let model = load(name);
        assert_eq!(model.state(), State::Instance, "{name}");
        let instances: Vec<_> = (0..SEQUENCES)
            .map(|_| Mutex::new((0, model.instance().unwrap_or_else(|error| panic!("{name}: {error}")))))
            .collect();
        // Each thread takes the sequences in another order, one request of each at a time.
        together(|thread| {
            for round in 0..SEQUENCES * LENGTH {
                let of = (round * (2 * thread + 1) + thread) % SEQUENCES;
                let mut instance = instances[of].lock().expect("no panic");
                if instance.0 < LENGTH {
                    let given = answer(&run(instance.1.as_ref(), request(of, instance.0)));
                    assert_eq!(
                        given, expected[of][instance.0],
                        "{name}, sequence {of}, request {}",
                        instance.0
                    );
                    instance.0 += 1;
                }
            }
        });
        assert!(instances.iter().any(|instance| instance.lock().expect("no panic").0 == LENGTH), "{name}");
        // None of that has come to the model, nor to who comes later.
        let late = model.instance().expect("a copy");
        assert_eq!(answer(&run(late.as_ref(), request(0, 0))), expected[0][0], "{name}");
    }
}

#[test]
fn a_model_with_instances_begins_each_time_as_it_was_loaded() {
    for (name, request) in MODELS {
        let (model, expected) = (load(name), alone(name, 1, request));
        together(|_| {
            for _ in 0..20 {
                assert_eq!(answer(&run(model.as_ref(), request(1, 0))), expected[0], "{name}");
            }
        });
    }
}

#[test]
fn a_state_within_the_code_has_one_owner_at_a_time_and_no_instances() {
    let model = load("state/shares_constant");
    assert_eq!(model.state(), State::Shared);
    assert!(model.instance().is_err());
    together(|_| {
        for _ in 0..100 {
            run(model.as_ref(), floats(&[4], &[1.0; 4]));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_sequence_run_in_the_order_in_which_they_asked_whoever_leaves() {
    use std::time::{Duration, Instant};

    use sconce_sidecar::engine::{Limits, Pool, Queue};

    let limits = Limits { runs: 2, queue: 256, batch_rows: 8, batch_target: None };
    let pool = Pool::start(&engine(), limits).expect("threads start");
    let queue = Queue::new(load("counter"), "counter", "1");
    let instances: Vec<Instance> = (0..4).map(|_| Instance::new()).collect();
    let asked = (0..200).map(|n| {
        let place = instances[n % 4].ask(200).expect("room");
        let (pool, queue) = (pool.clone(), queue.clone());
        let leaves = n % 10 == 9;
        async move {
            let work = Work {
                inputs: vec![Some(integers(&[1], &[1]))],
                permit: None,
                deadline: Instant::now() + Duration::from_secs(60),
                priority: Default::default(),
                turn: Some(place.turn().await),
            };
            if leaves {
                drop(work);
                return (n, None);
            }
            (n, Some(as_integers(&pool.run(&queue, work).await.expect("runs")[0])[0]))
        }
    });
    let mut counts = [0; 4];
    for (n, count) in futures::future::join_all(asked).await {
        if let Some(count) = count {
            counts[n % 4] += 1;
            assert_eq!(count, counts[n % 4], "request {n}");
        }
    }
    pool.stop();
}
