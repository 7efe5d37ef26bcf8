//! The pre-check: everything that must be known of an archive before libtorch sees it.
//!
//! libtorch trusts its input. It over-reads tensors that are shorter than declared,
//! overflows its stack on deep nesting, inflates whatever it is given, and runs code that
//! opens files. None of that is an exception one could catch, so none of it may get there.

use std::{collections::HashSet, fs::File, path::Path};

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
    /// Bytes of everything that is deflated, once inflated.
    pub inflated: u64,
    /// Depth of objects within objects, and of brackets within brackets.
    pub nesting: usize,
    /// Operators in one statement.
    pub operators: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 200_000, text: 64 << 20, inflated: 512 << 20, nesting: 256, operators: 10_000 }
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
        let name = archive.inner(entry);
        if let Some(module) = name.strip_prefix("code/").and_then(|name| name.strip_suffix(".py")) {
            let text = String::from_utf8(contents::read(&file, entry)?)
                .map_err(|_| reject(entry, "it is no text".into()))?;
            code::scan(&text, limits).map_err(|what| reject(entry, what))?;
            code.push((module.to_owned(), text));
        } else {
            contents::verify(&file, entry)?;
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

struct Archive<'a> {
    file: &'a File,
    entries: &'a [Entry],
    limits: &'a Limits,
    stem: &'a str,
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
        let (mut seen, mut inflated) = (HashSet::new(), 0u64);
        for entry in entries {
            let inner = entry.name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('/'));
            let inner =
                inner.ok_or_else(|| reject(entry, format!("it is not in the archive's folder `{stem}`")))?;
            if entry.name.split('/').any(|part| part == ".." || part == ".")
                || entry.name.contains(['\\', '\0'])
            {
                return Err(reject(entry, "its name leads out of the archive".into()));
            }
            if !seen.insert(&entry.name) {
                return Err(reject(entry, "it is there twice".into()));
            }
            let is_tensor = inner.starts_with("data/") || inner.starts_with("constants/");
            if is_tensor && entry.deflated {
                return Err(reject(entry, "a tensor must be stored, not deflated".into()));
            }
            if !is_tensor && entry.size > limits.text {
                let what = format!("it inflates to {} bytes; the limit is {}", entry.size, limits.text);
                return Err(reject(entry, what));
            }
            inflated = inflated.saturating_add(if entry.deflated { entry.size } else { 0 });
        }
        if inflated > limits.inflated {
            return Err(Rejection::Whole(format!(
                "it inflates to {inflated} bytes; the limit is {}",
                limits.inflated
            )));
        }
        Ok(Self { file, entries, limits, stem })
    }

    fn inner<'e>(&self, entry: &'e Entry) -> &'e str {
        &entry.name[self.stem.len() + 1..]
    }

    fn find(&self, inner: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| self.inner(entry) == inner)
    }

    /// Reads a pickle and holds its storages against the records they name.
    fn pickle(&self, name: &str, folder: &str) -> Result<Option<Pickle>, Rejection> {
        let Some(entry) = self.find(name) else { return Ok(None) };
        let bytes = contents::read(self.file, entry)?;
        let pickle = pickle::read(&bytes, self.limits.nesting).map_err(|what| reject(entry, what))?;
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

fn reject(entry: &Entry, what: String) -> Rejection {
    Rejection::Entry { entry: entry.name.clone(), what }
}

fn missing(what: &str) -> Rejection {
    Rejection::Whole(format!(
        "the archive has no `{what}`, so it is no TorchScript model; save it with `torch.jit.save`"
    ))
}
