//! Which operators and classes a model may name.
//!
//! Operators of the core library are allowed but for a list; whole families and native
//! classes are refused but for a list, since any library in the process may add some.

/// Operators that reach outside the model (files, the process, other machines), or that
/// take their arguments on trust and read whatever memory these lead to.
const FORBIDDEN: &[&str] = &[
    "from_file",
    "save",
    "load",
    "_load_for_lite_interpreter",
    "set_num_threads",
    "set_num_interop_threads",
    "_cuda_getCurrentRawStream",
    "manual_seed",
    "fork",
    "_awaitable",
    "rpc_async",
    "rpc_sync",
    "rpc_remote",
    "PythonOp",
    "IgnoredPythonOp",
    "_sparse_coo_tensor_unsafe",
    "_sparse_compressed_tensor_unsafe",
    "_sparse_csr_tensor_unsafe",
    "_sparse_csc_tensor_unsafe",
    "_sparse_bsr_tensor_unsafe",
    "_sparse_bsc_tensor_unsafe",
];

/// Families of operators that an archive may use. Others come with libraries that are
/// not in this process, and libtorch would refuse them later with a worse message.
const FAMILIES: &[&str] = &[
    "aten",
    "prim",
    "prims",
    "quantized",
    "quantized_decomposed",
    "_quantized",
    "mkldnn",
    "mkldnn_prepacked",
    "sparse",
    "torchvision",
];

/// Families of native classes: packed weights, which do nothing but hold tensors.
const CLASSES: &[&str] = &["quantized", "sparse", "rnn", "mkldnn", "xnnpack"];

/// Judges a path of names, such as `torch.relu`, from its root to its last part.
///
/// A path that stops at a namespace is refused: `t = torch` or `getattr(torch, "…")` would
/// reach an operator under a name that no list can know.
pub(crate) fn judge(path: &[&str]) -> Result<(), String> {
    let name = || path.join(".");
    let bare = || {
        format!(
            "`{}` is used as a value, which would hide the operators behind it; it is not allowed",
            name()
        )
    };
    let operators = match path {
        ["torch"] | ["ops"] | ["ops", _] => return Err(bare()),
        ["__torch__"] | ["__torch__", "torch"] | ["__torch__", "torch", "classes"] => return Err(bare()),
        ["ops", family, ..] if !FAMILIES.contains(family) => {
            return Err(format!("`{}` is of a family of operators that is not allowed", name()));
        }
        ["__torch__", "torch", "classes", family, ..] if !CLASSES.contains(family) => {
            return Err(format!("`{}` is a native class that is not allowed", name()));
        }
        ["torch", operators @ ..] | ["ops", _, operators @ ..] => operators,
        _ => return Ok(()),
    };
    if operators.iter().any(|operator| FORBIDDEN.contains(operator)) {
        return Err(format!("`{}` reaches outside the model and is not allowed", name()));
    }
    Ok(())
}
