//! The pre-check: everything that must be known of an archive before libtorch sees it.
//!
//! libtorch trusts its input. It over-reads tensors that are shorter than declared,
//! overflows its stack on deep nesting, inflates whatever it is given, and runs code that
//! opens files. None of that is an exception one could catch, so none of it may get there.

use std::{collections::HashMap, fs::File, path::Path};

use crate::{
    ArchiveError, code, contents,
    directory::{self, Entry},
    pickle::{self, Pickle},
};

/// How large the parts of an archive may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries of the archive.
    pub entries: usize,
    /// Bytes of one inflated file of code or of one pickle.
    pub text: u64,
    /// Bytes of everything that is deflated, once inflated, and of all code.
    pub inflated: u64,
    /// Depth of objects within objects, and of brackets within brackets.
    pub nesting: usize,
    /// Operators, calls and subscripts in one expression.
    pub operators: usize,
    /// Steps of one pickle.
    pub steps: usize,
    /// Objects of one pickle.
    pub objects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 200_000,
            text: 32 << 20,
            inflated: 128 << 20,
            nesting: 256,
            operators: 1_000,
            steps: 4_000_000,
            objects: 500_000,
        }
    }
}

/// Why an archive is not let near libtorch.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It is no archive, or a damaged one.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// One entry breaks a rule.
    #[error("entry `{entry}`: {what}")]
    Entry {
        /// Its name in the archive.
        entry: String,
        /// What is wrong with it.
        what: String,
    },
    /// The archive as a whole breaks a rule.
    #[error("{0}")]
    Whole(String),
}

/// An archive that passed, and what was read of it on the way.
#[derive(Debug)]
pub struct Checked {
    /// Name and text of each file of code, without the stem and `code/`.
    pub(crate) code: Vec<(String, String)>,
    /// Module path and name of the model's class.
    pub(crate) class: (String, String),
    /// `extra/sconce.json`, where there is one.
    pub(crate) sconce_json: Option<Vec<u8>>,
}

/// Checks an archive.
///
/// # Errors
/// With the entry and the rule it breaks.
pub fn precheck(path: &Path, limits: &Limits) -> Result<Checked, Rejection> {
    let file = File::open(path).map_err(ArchiveError::from)?;
    let entries = directory::read(&file)?;
    let archive = Archive::new(&file, &entries, limits)?;
    let mut code = Vec::new();
    for entry in &entries {
        match Part::of(archive.inner(entry)) {
            Part::Code(module) => {
                let text = String::from_utf8(contents::read(&file, entry)?)
                    .map_err(|_| reject(entry, "it is no text".into()))?;
                code::scan(&text, limits).map_err(|what| reject(entry, what))?;
                code.push((module.to_owned(), text));
            }
            // Read when the model fails, to say where: then it is too late to refuse it.
            Part::Debug => {
                let debug = pickle::read(&contents::read(&file, entry)?, limits)
                    .map_err(|what| reject(entry, what))?;
                if !debug.storages.is_empty() {
                    return Err(reject(entry, "it holds tensors, which have no place there".into()));
                }
            }
            Part::Other => contents::verify(&file, entry)?,
        }
    }
    let data = archive.pickle("data.pkl", "data")?.ok_or_else(|| missing("data.pkl"))?;
    archive.pickle("constants.pkl", "constants")?;
    let class = data.root_class().ok_or_else(|| {
        Rejection::Whole(
            "the archive's `data.pkl` holds no module; save it with `torch.jit.save`, not `torch.save`"
                .into(),
        )
    })?;
    if code.is_empty() {
        return Err(missing("code/"));
    }
    let sconce_json =
        archive.find("extra/sconce.json").map(|entry| contents::read(&file, entry)).transpose()?;
    Ok(Checked { code, class, sconce_json })
}

/// What an entry is to libtorch.
enum Part<'a> {
    /// Code, and the module it defines.
    Code(&'a str),
    Debug,
    Other,
}

impl<'a> Part<'a> {
    fn of(inner: &'a str) -> Self {
        match inner.strip_prefix("code/") {
            Some(name) if name.ends_with(".debug_pkl") => Self::Debug,
            Some(name) => Self::Code(name.strip_suffix(".py").unwrap_or(name)),
            None => Self::Other,
        }
    }
}

/// Names that mean something to libtorch, up to the first slash.
const KNOWN: &[&str] = &["code", "data", "constants", "data.pkl", "constants.pkl", "extra", "version"];

struct Archive<'a> {
    file: &'a File,
    limits: &'a Limits,
    stem: &'a str,
    /// By name without the stem.
    by_name: HashMap<&'a str, &'a Entry>,
}

impl<'a> Archive<'a> {
    /// Checks names and sizes, before anything is inflated.
    fn new(file: &'a File, entries: &'a [Entry], limits: &'a Limits) -> Result<Self, Rejection> {
        if entries.len() > limits.entries {
            return Err(Rejection::Whole(format!(
                "it has {} entries; the limit is {}",
                entries.len(),
                limits.entries
            )));
        }
        let stem = entries.first().and_then(|entry| entry.name.split_once('/')).map(|(stem, _)| stem);
        let stem = stem.ok_or_else(|| missing("data.pkl"))?;
        let (mut folded, mut by_name, mut inflated) = (HashMap::new(), HashMap::new(), 0u64);
        for entry in entries {
            let inner = entry.name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('/'));
            let inner =
                inner.ok_or_else(|| reject(entry, format!("it is not in the archive's folder `{stem}`")))?;
            if entry.name.split('/').any(|part| part == ".." || part == ".")
                || entry.name.contains(['\\', '\0'])
            {
                return Err(reject(entry, "its name leads out of the archive".into()));
            }
            // libtorch looks entries up without regard to case, so two that differ only in
            // case are one to it, and `CODE/` is `code/`.
            if let Some(other) = folded.insert(inner.to_ascii_lowercase(), inner) {
                let twice = if other == inner { "it is there twice".into() } else { differs(other) };
                return Err(reject(entry, twice));
            }
            check_spelling(inner).map_err(|what| reject(entry, what))?;
            by_name.insert(inner, entry);
            let is_tensor = inner.starts_with("data/") || inner.starts_with("constants/");
            if is_tensor && entry.deflated {
                return Err(reject(entry, "a tensor must be stored, not deflated".into()));
            }
            if !is_tensor && entry.size > limits.text {
                let what = format!("it inflates to {} bytes; the limit is {}", entry.size, limits.text);
                return Err(reject(entry, what));
            }
            let counts = entry.deflated || inner.starts_with("code/");
            inflated = inflated.saturating_add(if counts { entry.size } else { 0 });
        }
        if inflated > limits.inflated {
            return Err(Rejection::Whole(format!(
                "it inflates to {inflated} bytes; the limit is {}",
                limits.inflated
            )));
        }
        Ok(Self { file, limits, stem, by_name })
    }

    fn inner<'e>(&self, entry: &'e Entry) -> &'e str {
        &entry.name[self.stem.len() + 1..]
    }

    fn find(&self, inner: &str) -> Option<&'a Entry> {
        self.by_name.get(inner).copied()
    }

    /// Reads a pickle and holds its storages against the records they name.
    fn pickle(&self, name: &str, folder: &str) -> Result<Option<Pickle>, Rejection> {
        let Some(entry) = self.find(name) else { return Ok(None) };
        let bytes = contents::read(self.file, entry)?;
        let pickle = pickle::read(&bytes, self.limits).map_err(|what| reject(entry, what))?;
        for storage in &pickle.storages {
            let record = format!("{folder}/{}", storage.key);
            let found = self.find(&record).ok_or_else(|| missing(&record))?;
            let declared = storage.elements.checked_mul(storage.width);
            if declared != Some(found.size) {
                let what = format!(
                    "it has {} bytes, and `{name}` declares {} elements of {} bytes",
                    found.size, storage.elements, storage.width
                );
                return Err(reject(found, what));
            }
        }
        Ok(Some(pickle))
    }
}

/// Refuses names that libtorch would take for others, and the format before `data.pkl`.
fn check_spelling(inner: &str) -> Result<(), String> {
    let first = inner.split('/').next().unwrap_or_default();
    let folded = first.to_ascii_lowercase();
    if folded == "model.json" {
        return Err("it makes this an archive of PyTorch before 1.4; export the model again".into());
    }
    if folded != first && KNOWN.contains(&folded.as_str()) {
        return Err(differs(&folded));
    }
    let folded = inner.to_ascii_lowercase();
    for suffix in [".py", ".debug_pkl"] {
        if folded.ends_with(suffix) && !inner.ends_with(suffix) {
            return Err(differs(suffix));
        }
    }
    Ok(())
}

fn differs(from: &str) -> String {
    format!("its name differs from `{from}` only in upper and lower case, which libtorch does not tell apart")
}

fn reject(entry: &Entry, what: String) -> Rejection {
    Rejection::Entry { entry: entry.name.clone(), what }
}

fn missing(what: &str) -> Rejection {
    Rejection::Whole(format!(
        "the archive has no `{what}`, so it is no TorchScript model; save it with `torch.jit.save`"
    ))
}
