//! What a pickle may call, and with what.

use super::{Reader, Value};
use crate::code;

/// Functions without effects that need no check of their own.
const CALLABLE: &[&str] = &[
    "collections OrderedDict",
    "torch device",
    "torch.jit._pickle build_intlist",
    "torch.jit._pickle build_tensorlist",
    "torch.jit._pickle build_doublelist",
    "torch.jit._pickle build_boollist",
];

impl Reader<'_> {
    /// Whether a function may be called with these arguments.
    pub(super) fn check_call(&self, function: usize, arguments: Value) -> Result<(), String> {
        match self.texts[function].as_str() {
            "torch._utils _rebuild_tensor_v2" | "torch._utils _rebuild_qtensor" => {
                self.check_view(arguments)?
            }
            "torch.jit._pickle restore_type_tag" => self.check_type_tag(arguments)?,
            name if CALLABLE.contains(&name) => {}
            name if name.starts_with("__torch__") => {
                let path = name.replace(' ', ".");
                code::judge(&path.split('.').collect::<Vec<_>>())?;
            }
            name => return Err(format!("it calls `{name}`, which does not occur in a TorchScript archive")),
        }
        Ok(())
    }

    /// libtorch parses the type of a list or dict as it parses code.
    fn check_type_tag(&self, arguments: Value) -> Result<(), String> {
        let [_, Value::Text(tag)] = self.items(arguments) else {
            return Err("a type is not given as torch gives it".into());
        };
        code::scan(&self.texts[*tag], self.limits).map_err(|what| format!("in the name of a type: {what}"))
    }

    /// Keys are hashed; hashing tuples of tuples can take for ever.
    pub(super) fn check_keys(&self, items: &[Value]) -> Result<(), String> {
        let is_container =
            |key: &Value| matches!(key, Value::Node(node) if self.nodes[*node].class.is_none());
        if !items.len().is_multiple_of(2) || items.iter().step_by(2).any(is_container) {
            return Err("a dict has a key without a value, or a key that is itself a container".into());
        }
        Ok(())
    }

    /// A tensor must not reach beyond its storage: libtorch would read whatever is there.
    fn check_view(&self, arguments: Value) -> Result<(), String> {
        let items = self.items(arguments);
        let odd = || "a tensor is not made as torch makes it".to_owned();
        let [Value::Node(storage), Value::Int(offset), sizes, strides, ..] = items else {
            return Err(odd());
        };
        let storage = self.nodes[*storage].storage.map(|at| &self.storages[at]).ok_or_else(odd)?;
        let integers = |value: &Value| {
            self.items(*value)
                .iter()
                .map(|item| match item {
                    Value::Int(number) => u64::try_from(*number).ok(),
                    _ => None,
                })
                .collect::<Option<Vec<u64>>>()
        };
        let beyond = || {
            format!("a tensor reaches beyond its storage `{}` of {} elements", storage.key, storage.elements)
        };
        let (sizes, strides) = integers(sizes).zip(integers(strides)).ok_or_else(beyond)?;
        if sizes.len() != strides.len() {
            return Err(odd());
        }
        if sizes.contains(&0) {
            return Ok(());
        }
        let mut last = u64::try_from(*offset).map_err(|_| beyond())?;
        for (size, stride) in sizes.iter().zip(&strides) {
            last =
                (size - 1).checked_mul(*stride).and_then(|step| last.checked_add(step)).ok_or_else(beyond)?;
        }
        if last < storage.elements { Ok(()) } else { Err(beyond()) }
    }
}

/// Bytes of one element of a storage class.
pub(super) fn width(class: &str) -> Option<u64> {
    let name = class.strip_prefix("torch ")?.strip_suffix("Storage")?;
    Some(match name {
        "Bool" | "Byte" | "Char" | "QInt8" | "QUInt8" | "Untyped" => 1,
        "Float8_e5m2" | "Float8_e4m3fn" | "Float8_e5m2fnuz" | "Float8_e4m3fnuz" => 1,
        "Half" | "BFloat16" | "Short" | "UInt16" => 2,
        "Float" | "Int" | "QInt32" | "UInt32" | "ComplexHalf" => 4,
        "Double" | "Long" | "ComplexFloat" | "UInt64" => 8,
        "ComplexDouble" => 16,
        _ => return None,
    })
}
