//! Reads the pickles of an archive without running them.
//!
//! The values live in one list and refer to each other by number, and nothing here
//! recurses, so no nesting can overflow a stack: neither reading nor dropping.

mod rules;

use std::collections::HashMap;

use self::rules::width;
use crate::Limits;

/// What is wanted of a pickle.
#[derive(Debug, Default)]
pub(crate) struct Pickle {
    /// Every tensor storage it refers to.
    pub(crate) storages: Vec<Storage>,
    root: Option<String>,
}

/// A tensor storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Name of its record.
    pub(crate) key: String,
    /// How many elements it declares.
    pub(crate) elements: u64,
    /// Bytes of one.
    pub(crate) width: u64,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Int(i64),
    /// Index into the texts.
    Text(usize),
    Global(usize),
    Node(usize),
    Mark,
    Other,
}

#[derive(Debug, Default)]
struct Node {
    /// The class of an object, as `module name`.
    class: Option<usize>,
    /// The items of a tuple.
    items: Vec<Value>,
    /// Every node inside, for the depth.
    inside: Vec<usize>,
    /// The storage it stands for.
    storage: Option<usize>,
}

impl Pickle {
    /// Module path and name of the root object's class.
    pub(crate) fn root_class(&self) -> Option<(String, String)> {
        let (module, name) = self.root.as_deref()?.split_once(' ')?;
        module.starts_with("__torch__").then(|| (module.to_owned(), name.to_owned()))
    }
}

/// Reads a pickle of protocol 2, as `torch.jit.save` writes it.
///
/// # Errors
/// Where it is cut short, has an opcode or calls a function that such pickles have not, is
/// larger or nests deeper than the limits, or views a tensor storage beyond its end.
pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Pickle, String> {
    let mut reader = Reader {
        limits,
        bytes,
        at: 0,
        stack: vec![],
        memo: HashMap::new(),
        texts: vec![],
        nodes: vec![],
        storages: vec![],
    };
    let root = reader.run()?;
    reader.check_depth(limits.nesting)?;
    let root = match root {
        Value::Node(node) => reader.nodes[node].class.map(|class| reader.texts[class].clone()),
        _ => None,
    };
    Ok(Pickle { storages: reader.storages, root })
}

struct Reader<'a> {
    limits: &'a Limits,
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    texts: Vec<String>,
    nodes: Vec<Node>,
    storages: Vec<Storage>,
}

impl Reader<'_> {
    fn run(&mut self) -> Result<Value, String> {
        for _ in 0..self.limits.steps {
            let at = self.at;
            match self.byte()? {
                b'.' => return self.pop(),
                opcode => self.step(opcode).map_err(|what| format!("at byte {at}: {what}"))?,
            }
        }
        Err(format!("it has more than {} steps", self.limits.steps))
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            0x80 => drop(self.take(1)?),
            b'c' => self.global()?,
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            b'(' => self.stack.push(Value::Mark),
            b')' | b']' | b'}' => self.push_node(Node::default())?,
            b't' => {
                let items = self.take_to_mark()?;
                self.push_tuple(items)?;
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(count).ok_or("its stack is too short")?;
                let items = self.stack.split_off(from);
                unmarked(&items)?;
                self.push_tuple(items)?;
            }
            0x81 | b'R' => self.make()?,
            b'X' => self.text(4)?,
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => self.integer(4)?,
            0x8a => {
                let length = usize::from(self.byte()?);
                if length != 8 {
                    return Err(format!("it has an integer of {length} bytes, not of 8"));
                }
                self.integer(length)?;
            }
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Other);
            }
            0x88 | 0x89 | b'N' => self.stack.push(Value::Other),
            b'Q' => self.persistent()?,
            b'b' | b'a' => {
                let value = self.pop()?;
                self.fill(&[value])?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.check_keys(&[key, value])?;
                self.fill(&[key, value])?;
            }
            b'u' | b'e' => {
                let items = self.take_to_mark()?;
                if opcode == b'u' {
                    self.check_keys(&items)?;
                }
                self.fill(&items)?;
            }
            other => return Err(format!("opcode {other:#04x} does not occur in a TorchScript archive")),
        }
        Ok(())
    }

    fn global(&mut self) -> Result<(), String> {
        let (module, name) = (self.line()?, self.line()?);
        self.texts.push(format!("{module} {name}"));
        self.stack.push(Value::Global(self.texts.len() - 1));
        Ok(())
    }

    /// An object of a class, or the result of calling something; the two look alike.
    fn make(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        // libtorch calls by number; a number that the pickle made up must not do.
        let Value::Global(class) = callee else { return Err("what it calls is no function".into()) };
        self.check_call(class, arguments)?;
        let inside = if let Value::Node(node) = arguments { vec![node] } else { vec![] };
        self.push_node(Node { class: Some(class), inside, ..Node::default() })
    }

    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let items = self.items(id);
        let [Value::Text(kind), Value::Global(class), Value::Text(key), _, Value::Int(elements), ..] = items
        else {
            return Err("a storage is not declared as torch declares it".into());
        };
        if self.texts[*kind] != "storage" {
            return Err(format!("it refers to a {:?}, not to a storage", self.texts[*kind]));
        }
        let class = &self.texts[*class];
        let storage = Storage {
            key: self.texts[*key].clone(),
            elements: u64::try_from(*elements).map_err(|_| "a storage has a negative size")?,
            width: width(class)
                .ok_or_else(|| format!("a storage is of type `{class}`, which is not known"))?,
        };
        self.storages.push(storage);
        self.push_node(Node { storage: Some(self.storages.len() - 1), ..Node::default() })
    }

    fn items(&self, value: Value) -> &[Value] {
        if let Value::Node(node) = value { &self.nodes[node].items } else { &[] }
    }

    fn push_tuple(&mut self, items: Vec<Value>) -> Result<(), String> {
        let inside =
            items.iter().filter_map(|item| if let Value::Node(node) = item { Some(*node) } else { None });
        let inside = inside.collect();
        self.push_node(Node { items, inside, ..Node::default() })
    }

    fn push_node(&mut self, node: Node) -> Result<(), String> {
        if self.nodes.len() >= self.limits.objects {
            return Err(format!("it has more than {} objects", self.limits.objects));
        }
        self.nodes.push(node);
        self.stack.push(Value::Node(self.nodes.len() - 1));
        Ok(())
    }

    /// Puts values into the container on top of the stack.
    fn fill(&mut self, values: &[Value]) -> Result<(), String> {
        let Some(Value::Node(container)) = self.stack.last().copied() else {
            return Err("something is put into what is no container".into());
        };
        let nodes =
            values.iter().filter_map(|value| if let Value::Node(node) = value { Some(*node) } else { None });
        self.nodes[container].inside.extend(nodes);
        Ok(())
    }

    /// The longest way from any value into its insides. Objects that hold each other have
    /// no longest way, and TorchScript has no such objects.
    fn check_depth(&self, limit: usize) -> Result<(), String> {
        let mut holders = vec![0usize; self.nodes.len()];
        for node in &self.nodes {
            for inside in &node.inside {
                holders[*inside] += 1;
            }
        }
        let mut ready: Vec<usize> = (0..self.nodes.len()).filter(|node| holders[*node] == 0).collect();
        let mut depth = vec![1usize; self.nodes.len()];
        let mut visited = 0;
        while let Some(node) = ready.pop() {
            visited += 1;
            if depth[node] > limit {
                return Err(format!("its objects nest deeper than {limit}"));
            }
            for &inside in &self.nodes[node].inside {
                depth[inside] = depth[inside].max(depth[node] + 1);
                holders[inside] -= 1;
                if holders[inside] == 0 {
                    ready.push(inside);
                }
            }
        }
        if visited < self.nodes.len() {
            Err("its objects hold each other in a circle".into())
        } else {
            Ok(())
        }
    }

    fn take_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self
            .stack
            .iter()
            .rposition(|value| matches!(value, Value::Mark))
            .ok_or("its stack has no mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn put(&mut self, width: usize) -> Result<(), String> {
        let key = self.number(width)? as u32;
        let top = self.stack.last().copied().ok_or("its stack is empty")?;
        unmarked(&[top])?;
        // libtorch makes room for every number up to this one.
        if key as usize > self.memo.len() {
            return Err(format!("it numbers a value {key} where {} is next", self.memo.len()));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, width: usize) -> Result<(), String> {
        let key = self.number(width)? as u32;
        let value = self.memo.get(&key).copied().ok_or("it refers to what it has not said")?;
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let length = usize::try_from(self.number(width)?).map_err(|_| "a text is too long")?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.texts.push(text);
        self.stack.push(Value::Text(self.texts.len() - 1));
        Ok(())
    }

    /// Little-endian; signed where it has four bytes or a length of its own.
    fn integer(&mut self, width: usize) -> Result<(), String> {
        let raw = self.number(width)?;
        let number = match width {
            4 => i64::from(raw as u32 as i32),
            8 => raw as i64,
            _ => i64::try_from(raw).map_err(|_| "an integer is too large")?,
        };
        self.stack.push(Value::Int(number));
        Ok(())
    }

    fn number(&mut self, width: usize) -> Result<u64, String> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("it is cut short")?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(line)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end =
            self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or("it is cut short")?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    fn pop(&mut self) -> Result<Value, String> {
        let value = self.stack.pop().ok_or("its stack is empty")?;
        unmarked(&[value])?;
        Ok(value)
    }
}

/// libtorch keeps marks apart from values, so a mark taken for a value means two things.
fn unmarked(values: &[Value]) -> Result<(), String> {
    if values.iter().any(|value| matches!(value, Value::Mark)) {
        return Err("it uses a mark as a value".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
