//! Several requests as one: joining their inputs along dimension 0, and cutting the outputs apart.
//!
//! Rows can be joined where everything else about the inputs is equal: datatypes, the other
//! dimensions, which optional inputs there are, and the values of numbers and texts.

use bytes::{Bytes, BytesMut};
use sconce_catalog::{Kind, Signature};

use super::{Data, Output, Tensor};

/// The inputs of one request, in the order of the signature.
pub(super) type Inputs = [Option<Tensor>];

/// How many rows these inputs have; `None` where they have none in common, or not one.
pub(super) fn rows(signature: &Signature, inputs: &Inputs) -> Option<usize> {
    if inputs.len() != signature.inputs.len() {
        return None;
    }
    let fields = signature.inputs.iter().zip(inputs);
    let mut tensors = fields.filter(|(field, _)| field.kind == Kind::Tensor);
    let mut found = None;
    // An optional input that was left out has no rows, and takes none from the others.
    tensors.try_for_each(|(_, tensor)| {
        let Some(tensor) = tensor else { return Some(()) };
        let size = *tensor.shape.first()?;
        (*found.get_or_insert(size) == size).then_some(())
    })?;
    // Rows of nothing can be as many as a number holds, and sums of them more than that.
    found.and_then(|size| u32::try_from(size).ok()).filter(|size| *size > 0).map(|size| size as usize)
}

/// Whether the rows of these two requests may run as one batch.
pub(super) fn are_alike(signature: &Signature, one: &Inputs, other: &Inputs) -> bool {
    signature.inputs.iter().zip(one).zip(other).all(|((field, one), other)| match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) if field.kind == Kind::Tensor => {
            one.datatype == other.datatype && one.shape.get(1..) == other.shape.get(1..)
        }
        (Some(one), Some(other)) => one == other,
        _ => false,
    })
}

/// The inputs of requests that are alike, as those of one request.
pub(super) fn join(signature: &Signature, members: &[&Inputs]) -> Vec<Option<Tensor>> {
    let Some(first) = members.first() else { return Vec::new() };
    let join = |(at, field): (usize, &sconce_catalog::Field)| {
        let model = first[at].as_ref()?;
        if field.kind != Kind::Tensor {
            return Some(model.clone());
        }
        let parts = || members.iter().filter_map(|inputs| inputs[at].as_ref());
        let mut shape = model.shape.clone();
        shape[0] = parts().map(|part| part.shape[0]).sum();
        let data = match &model.data {
            Data::Fixed(_) => {
                let bytes = |part: &Tensor| match &part.data {
                    Data::Fixed(bytes) => bytes.clone(),
                    Data::Strings(_) => Bytes::new(),
                };
                let mut all = BytesMut::with_capacity(parts().map(|part| bytes(part).len()).sum());
                parts().for_each(|part| all.extend_from_slice(&bytes(part)));
                Data::Fixed(all.freeze())
            }
            Data::Strings(_) => {
                let strings = |part: &Tensor| match &part.data {
                    Data::Strings(strings) => strings.clone(),
                    Data::Fixed(_) => Vec::new(),
                };
                Data::Strings(parts().flat_map(strings).collect())
            }
        };
        Some(Tensor { datatype: model.datatype, shape, data })
    };
    signature.inputs.iter().enumerate().map(join).collect()
}

/// The outputs of a batch by member, `rows` being the members' numbers of rows. Nothing is copied.
///
/// # Errors
/// Where an output has not one row for each row of the inputs, in words.
pub(super) fn split(outputs: &[Output], rows: &[usize]) -> Result<Vec<Vec<Output>>, String> {
    let all: usize = rows.iter().sum();
    let unfit = outputs.iter().find(|output| output.tensor.shape.first() != Some(&(all as u64)));
    if let Some(Output { name, tensor }) = unfit {
        return Err(format!("for {all} rows, output `{name}` has shape {:?}", tensor.shape));
    }
    let mut from = 0;
    let member = |rows: &usize| {
        let part = outputs.iter().map(|output| cut(output, from, *rows, all)).collect();
        from += rows;
        part
    };
    Ok(rows.iter().map(member).collect())
}

fn cut(output: &Output, from: usize, rows: usize, all: usize) -> Output {
    let tensor = &output.tensor;
    let mut shape = tensor.shape.clone();
    shape[0] = rows as u64;
    let range = |length: usize| length / all * from..length / all * (from + rows);
    let data = match &tensor.data {
        Data::Fixed(bytes) => Data::Fixed(bytes.slice(range(bytes.len()))),
        Data::Strings(strings) => Data::Strings(strings[range(strings.len())].to_vec()),
    };
    Output { name: output.name.clone(), tensor: Tensor { datatype: tensor.datatype, shape, data } }
}

#[cfg(test)]
mod tests {
    use sconce_catalog::{Datatype, Field};

    use super::*;

    fn signature(kinds: &[Kind]) -> Signature {
        let field = |kind: &Kind| Field {
            name: "x".into(),
            kind: *kind,
            datatype: None,
            shape: None,
            optional: true,
        };
        Signature { inputs: kinds.iter().map(field).collect(), ..Signature::default() }
    }

    fn bytes(shape: &[u64], data: &[u8]) -> Option<Tensor> {
        let data = Data::Fixed(Bytes::copy_from_slice(data));
        Some(Tensor { datatype: Datatype::Uint8, shape: shape.to_vec(), data })
    }

    fn strings(shape: &[u64], data: &[&'static str]) -> Option<Tensor> {
        let strings = data.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        Some(Tensor { datatype: Datatype::Bytes, shape: shape.to_vec(), data: Data::Strings(strings) })
    }

    #[test]
    fn rows_are_those_that_all_tensors_have() {
        let two = signature(&[Kind::Tensor, Kind::Tensor, Kind::Int]);
        let number = || bytes(&[1], &[7]);
        assert_eq!(rows(&two, &[bytes(&[2, 1], &[1, 2]), bytes(&[2], &[3, 4]), number()]), Some(2));
        assert_eq!(rows(&two, &[bytes(&[2, 1], &[1, 2]), None, None]), Some(2));
        assert_eq!(rows(&two, &[bytes(&[2, 1], &[1, 2]), bytes(&[1], &[3]), number()]), None);
        assert_eq!(rows(&two, &[bytes(&[], &[1]), None, number()]), None);
        assert_eq!(rows(&two, &[bytes(&[0, 4], &[]), None, number()]), None);
        assert_eq!(rows(&two, &[None, None, number()]), None);
    }

    #[test]
    fn only_what_differs_in_nothing_but_rows_is_alike() {
        let kinds = signature(&[Kind::Tensor, Kind::Int]);
        let one = [bytes(&[1, 2], &[1, 2]), bytes(&[1], &[7])];
        let alike = |other: [Option<Tensor>; 2]| are_alike(&kinds, &one, &other);
        assert!(alike([bytes(&[3, 2], &[0; 6]), bytes(&[1], &[7])]));
        assert!(!alike([bytes(&[1, 3], &[0; 3]), bytes(&[1], &[7])]), "another shape");
        assert!(!alike([bytes(&[1, 2], &[1, 2]), bytes(&[1], &[8])]), "another number");
        assert!(!alike([bytes(&[1, 2], &[1, 2]), None]), "a number less");
        let signed = |tensor: Option<Tensor>| tensor.map(|t| Tensor { datatype: Datatype::Int8, ..t });
        assert!(!alike([signed(bytes(&[1, 2], &[1, 2])), bytes(&[1], &[7])]), "another datatype");
    }

    #[test]
    fn what_is_joined_and_cut_again_is_what_it_was() {
        let kinds = signature(&[Kind::Tensor, Kind::Tensor, Kind::Tensor, Kind::Int]);
        let one = [bytes(&[1, 2], &[1, 2]), None, strings(&[1, 2], &["a", "b"]), bytes(&[1], &[7])];
        let two =
            [bytes(&[2, 2], &[3, 4, 5, 6]), None, strings(&[2, 2], &["c", "", "d", "e"]), bytes(&[1], &[7])];
        let joined = join(&kinds, &[&one, &two]);
        assert_eq!(joined[0], bytes(&[3, 2], &[1, 2, 3, 4, 5, 6]));
        assert_eq!(joined[1], None);
        assert_eq!(joined[2], strings(&[3, 2], &["a", "b", "c", "", "d", "e"]));
        assert_eq!(joined[3], bytes(&[1], &[7]), "said once");
        let outputs: Vec<Output> = [&joined[0], &joined[2]]
            .map(|tensor| Output { name: "y".into(), tensor: tensor.clone().expect("given") })
            .into();
        let parts = split(&outputs, &[1, 2]).expect("one row each");
        let given = |inputs: &Inputs| [&inputs[0], &inputs[2]].map(|tensor| tensor.clone().expect("given"));
        for (part, inputs) in parts.iter().zip([&one, &two]) {
            assert!(part.iter().map(|output| &output.tensor).eq(given(inputs).iter()));
        }
    }

    #[test]
    fn an_output_without_a_row_for_each_row_is_found_out() {
        let output =
            |tensor: Option<Tensor>| vec![Output { name: "y".into(), tensor: tensor.expect("given") }];
        for tensor in [bytes(&[1], &[1]), bytes(&[], &[1]), bytes(&[6], &[0; 6])] {
            let reason = split(&output(tensor), &[1, 2]).expect_err("no 3 rows");
            assert!(reason.contains("`y`") && reason.contains("3 rows"), "{reason}");
        }
        // Rows of nothing are rows.
        assert!(split(&output(bytes(&[3, 0], &[])), &[1, 2]).is_ok());
    }
}
