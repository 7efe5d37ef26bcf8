//! Looks through the code of an archive, as text.
//!
//! TorchScript has no `getattr` and no strings that become code, so every operator that
//! can run is written out. That makes a list of forbidden ones meaningful.

use crate::Limits;

/// Operators that reach outside the model: files, the process, other machines.
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
];

/// Families of operators that an archive may use. Others come with libraries that are
/// not in this process, and libtorch would refuse them later with a worse message.
const FAMILIES: &[&str] = &[
    "aten",
    "prim",
    "prims",
    "quantized",
    "quantized_decomposed",
    "mkldnn",
    "mkldnn_prepacked",
    "sparse",
    "torchvision",
    "torchaudio",
];

/// Checks one file of code.
///
/// # Errors
/// In words, with the line.
pub(crate) fn scan(text: &str, limits: &Limits) -> Result<(), String> {
    let mut scanner = Scanner { limits, depth: 0, operators: 0, line: 1 };
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        at = scanner.token(text, at)?;
    }
    Ok(())
}

struct Scanner<'a> {
    limits: &'a Limits,
    depth: usize,
    operators: usize,
    line: usize,
}

impl Scanner<'_> {
    /// Takes one token and says where the next begins.
    fn token(&mut self, text: &str, at: usize) -> Result<usize, String> {
        let bytes = text.as_bytes();
        let byte = bytes[at];
        match byte {
            b'\n' => {
                self.line += 1;
                if self.depth == 0 {
                    self.operators = 0;
                }
            }
            b'#' => return Ok(end_of(bytes, at, |byte| byte != b'\n')),
            b'"' | b'\'' => return self.string(bytes, at),
            b'(' | b'[' | b'{' => {
                self.depth += 1;
                if self.depth > self.limits.nesting {
                    return Err(format!(
                        "line {}: brackets nest deeper than {}",
                        self.line, self.limits.nesting
                    ));
                }
            }
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'&' | b'|' | b'^' | b'<' | b'>' | b'.' | b',' => {
                self.count()?;
            }
            _ if byte.is_ascii_alphabetic() || byte == b'_' => return self.name(text, at),
            _ if byte.is_ascii_digit() => {
                return Ok(end_of(bytes, at, |b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_'));
            }
            _ => {}
        }
        Ok(at + 1)
    }

    /// Everything that makes the parser's tree deeper or its statement longer counts.
    fn count(&mut self) -> Result<(), String> {
        self.operators += 1;
        if self.operators > self.limits.operators {
            let limit = self.limits.operators;
            return Err(format!("line {}: a statement has more than {limit} operators", self.line));
        }
        Ok(())
    }

    fn string(&mut self, bytes: &[u8], at: usize) -> Result<usize, String> {
        let quote = bytes[at];
        let triple = bytes[at..].starts_with(&[quote; 3]);
        let width = if triple { 3 } else { 1 };
        let mut next = at + width;
        while next < bytes.len() {
            match bytes[next] {
                b'\\' => next += 1,
                b'\n' if !triple => break,
                b'\n' => self.line += 1,
                byte if byte == quote && (!triple || bytes[next..].starts_with(&[quote; 3])) => {
                    return Ok(next + width);
                }
                _ => {}
            }
            next += 1;
        }
        Err(format!("line {}: a string does not end", self.line))
    }

    /// A name with its dots, such as `torch.relu` or `ops.aten.relu`.
    fn name(&mut self, text: &str, at: usize) -> Result<usize, String> {
        let end = end_of(text.as_bytes(), at, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        let name = &text[at..end];
        let mut parts = name.split('.');
        let (root, last) = (parts.next().unwrap_or_default(), name.rsplit('.').next().unwrap_or_default());
        for word in [" and ", " or ", " not ", " if ", " in ", " is "] {
            if word.trim() == name {
                self.count()?;
            }
        }
        if (root == "torch" || root == "ops") && FORBIDDEN.contains(&last) {
            return Err(format!("line {}: `{name}` reaches outside the model and is not allowed", self.line));
        }
        if root == "ops" && !parts.next().is_some_and(|family| FAMILIES.contains(&family)) {
            return Err(format!(
                "line {}: `{name}` is of a family of operators that is not allowed",
                self.line
            ));
        }
        Ok(end)
    }
}

fn end_of(bytes: &[u8], from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    bytes[from..].iter().position(|byte| !belongs(*byte)).map_or(bytes.len(), |length| from + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        scan(text, &Limits::default())
    }

    #[test]
    fn operators_that_reach_outside_are_found_and_strings_are_not() {
        assert!(check("  y = torch.from_file(\"/etc/hostname\", None, 4)\n").is_err());
        assert!(check("  y = ops.aten.from_file(a)\n").is_err());
        assert!(check("  y = ops.evil.run(a)\n").is_err());
        assert_eq!(check("  s = \"torch.from_file(\"\n  # torch.save(x)\n  t = self.torch_load\n"), Ok(()));
        assert_eq!(check("  y = torch.relu(ops.prim.data(x))\n"), Ok(()));
    }

    #[test]
    fn deep_nesting_and_long_chains_are_refused() {
        assert!(check(&format!("y = {}x{}", "(".repeat(100_000), ")".repeat(100_000))).is_err());
        assert!(check(&format!("y = x{}", " + x".repeat(100_000))).is_err());
        assert!(check("s = \"never ends\ny = 1").is_err());
    }
}
