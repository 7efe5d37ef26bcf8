//! Archives made to harm: each is refused, with a reason, before libtorch could see it.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use sconce_artifact::{Limits, precheck};
use tempfile::NamedTempFile;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A good archive with some entries replaced. `None` leaves an entry out.
fn rewritten(change: impl Fn(&str, Vec<u8>) -> Option<(Vec<u8>, CompressionMethod)>) -> NamedTempFile {
    let mut source =
        ZipArchive::new(File::open(fixture("scripted_flow.pt")).expect("a fixture")).expect("a zip");
    let target = NamedTempFile::new().expect("a file");
    let mut writer = ZipWriter::new(target.reopen().expect("a file"));
    for at in 0..source.len() {
        let mut entry = source.by_index(at).expect("an entry");
        let (name, mut bytes) = (entry.name().expect("a name").into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).expect("readable");
        let inner = name.split_once('/').expect("a stem").1;
        if let Some((bytes, method)) = change(inner, bytes) {
            writer
                .start_file(&name, SimpleFileOptions::default().compression_method(method))
                .expect("writable");
            writer.write_all(&bytes).expect("writable");
        }
    }
    writer.finish().expect("writable");
    target
}

fn stored(bytes: Vec<u8>) -> Option<(Vec<u8>, CompressionMethod)> {
    Some((bytes, CompressionMethod::Stored))
}

/// A good archive with other code.
fn with_code(code: &str) -> NamedTempFile {
    rewritten(|name, bytes| if name == "code/__torch__.py" { stored(code.into()) } else { stored(bytes) })
}

fn refusal(file: &Path) -> String {
    precheck(file, &Limits::default()).map(|_| ()).expect_err("it must be refused").to_string()
}

fn refused(file: &NamedTempFile, reason: &str) {
    let why = refusal(file.path());
    assert!(why.contains(reason), "{why:?} does not say {reason:?}");
}

#[test]
fn a_rewritten_archive_that_is_good_passes() {
    let same = rewritten(|_, bytes| stored(bytes));
    precheck(same.path(), &Limits::default()).expect("nothing is wrong with it");
}

#[test]
fn what_is_cut_short_is_no_archive_at_any_length() {
    let whole = fs::read(fixture("scripted_flow.pt")).expect("a fixture");
    for length in (0..whole.len()).step_by(97) {
        let part = NamedTempFile::new().expect("a file");
        fs::write(part.path(), &whole[..length]).expect("writable");
        refusal(part.path());
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is_in_a_tensor() {
    let whole = fs::read(fixture("scripted_flow.pt")).expect("a fixture");
    let mut archive = ZipArchive::new(std::io::Cursor::new(&whole)).expect("a zip");
    let start = archive.by_name("scripted_flow/data/0").expect("a tensor").data_start().expect("it is stored")
        as usize;
    for at in [start, start + 100, start + 4095] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let file = NamedTempFile::new().expect("a file");
        fs::write(file.path(), &flipped).expect("writable");
        refused(&file, "checksum");
    }
}

#[test]
fn a_tensor_shorter_than_declared_is_refused() {
    let file = rewritten(|name, bytes| stored(if name == "data/0" { bytes[..8].to_vec() } else { bytes }));
    refused(&file, "has 8 bytes");
    let file = rewritten(|name, bytes| if name == "data/0" { None } else { stored(bytes) });
    refused(&file, "data/0");
}

#[test]
fn a_tensor_that_is_deflated_is_refused() {
    let file = rewritten(|name, bytes| {
        let method = if name == "data/0" { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        Some((bytes, method))
    });
    refused(&file, "must be stored");
}

#[test]
fn a_bomb_is_refused_by_what_it_declares() {
    let file = rewritten(|name, bytes| {
        if name == "code/__torch__.py" {
            return Some((vec![b' '; 80 << 20], CompressionMethod::Deflated));
        }
        stored(bytes)
    });
    assert!(file.as_file().metadata().expect("a file").len() < 1 << 20, "it is small as it is");
    refused(&file, "inflates to");
}

#[test]
fn an_entry_that_declares_ten_gigabytes_is_refused() {
    let mut whole = fs::read(fixture("scripted_flow.pt")).expect("a fixture");
    // The sizes in the directory's record of data/0, both of them: its name comes twice,
    // the second time in the directory.
    let name = b"scripted_flow/data/0";
    let record = whole.windows(name.len()).rposition(|part| part == name).expect("it is there") - 46;
    for at in [record + 20, record + 24] {
        whole[at..at + 4].copy_from_slice(&0xf000_0000u32.to_le_bytes());
    }
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), whole).expect("writable");
    refused(&file, "beyond the end of the file");
}

#[test]
fn nesting_and_chains_that_would_overflow_the_parser_are_refused() {
    let depth = 100_000;
    refused(&with_code(&format!("y = {}x{}\n", "(".repeat(depth), ")".repeat(depth))), "nest deeper");
    refused(&with_code(&format!("y = x{}\n", " + x".repeat(depth))), "more than");
}

#[test]
fn a_pickle_a_million_deep_is_refused() {
    let file = rewritten(|name, bytes| {
        if name != "data.pkl" {
            return stored(bytes);
        }
        let mut deep = vec![0x80, 2, b')'];
        deep.extend(std::iter::repeat_n(0x85, 1_000_000));
        deep.push(b'.');
        stored(deep)
    });
    refused(&file, "objects");
}

#[test]
fn a_deep_pickle_of_source_lines_is_refused_before_an_error_needs_it() {
    let file = rewritten(|name, bytes| {
        if !name.ends_with(".debug_pkl") {
            return stored(bytes);
        }
        let mut deep = vec![0x80, 2, b')'];
        deep.extend(std::iter::repeat_n(0x85, 100_000));
        deep.push(b'.');
        stored(deep)
    });
    refused(&file, "nest deeper");
}

#[test]
fn a_pickle_that_only_is_long_is_refused_before_it_fills_the_memory() {
    let file = rewritten(|name, bytes| {
        if name != "data.pkl" {
            return stored(bytes);
        }
        Some((vec![b')'; 30 << 20], CompressionMethod::Deflated))
    });
    refused(&file, "more than 500000 objects");
}

#[test]
fn names_that_libtorch_takes_for_others_are_refused() {
    for (from, to) in [
        ("code/__torch__.py", "CODE/__torch__.py"),
        ("code/__torch__.py", "code/__torch__.PY"),
        ("data.pkl", "Data.pkl"),
        ("version", "model.json"),
    ] {
        refusal(renamed(from, to, false).path());
    }
    refused(&renamed("code/__torch__.py", "CODE/__torch__.py", true), "upper and lower case");
    refused(&renamed("code/__torch__.py", "code/__TORCH__.py", true), "upper and lower case");
}

/// A good archive with one entry under another name, and `both` for under its own as well.
fn renamed(from: &str, to: &str, both: bool) -> NamedTempFile {
    let mut source =
        ZipArchive::new(File::open(fixture("scripted_flow.pt")).expect("a fixture")).expect("a zip");
    let target = NamedTempFile::new().expect("a file");
    let mut writer = ZipWriter::new(target.reopen().expect("a file"));
    for at in 0..source.len() {
        let mut entry = source.by_index(at).expect("an entry");
        let (name, mut bytes) = (entry.name().expect("a name").into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).expect("readable");
        let (stem, inner) = name.split_once('/').expect("a stem");
        let names = match (inner == from, both) {
            (false, _) => vec![name.clone()],
            (true, false) => vec![format!("{stem}/{to}")],
            (true, true) => vec![name.clone(), format!("{stem}/{to}")],
        };
        for name in names {
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
            writer.start_file(&name, options).expect("writable");
            writer.write_all(&bytes).expect("writable");
        }
    }
    writer.finish().expect("writable");
    target
}

#[test]
fn code_that_opens_a_file_is_refused() {
    let code = "class Flow(Module):\n  def forward(self: __torch__.Flow, x: Tensor) -> Tensor:\n    return torch.from_file(\"/etc/hostname\", False, 4)\n";
    refused(&with_code(code), "torch.from_file");
}

#[test]
fn what_is_no_model_says_so() {
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), b"not a zip").expect("writable");
    refused(&file, "no TorchScript archive");
    let file = rewritten(|name, bytes| if name.starts_with("code/") { None } else { stored(bytes) });
    refused(&file, "code/");
}
