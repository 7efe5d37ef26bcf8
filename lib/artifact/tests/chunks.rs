//! What chunking promises: the same bytes come back, and what did not change is shared.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::PathBuf,
};

use sconce_artifact::{Assembly, AssemblyError, LARGE_ENTRY, artifact_digest, chunk_file};

fn fixtures() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("testdata exists")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "pt"))
        .collect();
    files.sort();
    assert!(files.len() >= 9, "{files:?}");
    files
}

fn open(name: &str) -> File {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    File::open(path).expect("a fixture")
}

#[test]
fn every_archive_comes_back_byte_for_byte() {
    for path in fixtures() {
        let source = File::open(&path).expect("a fixture");
        let assembly = Assembly::new(chunk_file(&source).expect("an archive"));
        let target = tempfile::tempfile().expect("a file");
        // Backwards, so that no chunk can lean on the one before it.
        for chunk in (0..assembly.manifest().chunks().len()).rev() {
            let bytes = assembly.read_chunk(&source, chunk).expect("readable");
            assembly.write_chunk(&target, chunk, &bytes).expect("the right bytes");
        }
        let written: Vec<u8> = std::io::Read::bytes(reopened(target)).map(|b| b.expect("a byte")).collect();
        assert!(written == fs::read(&path).expect("a fixture"), "{}", path.display());
    }
}

fn reopened(mut file: File) -> std::io::BufReader<File> {
    std::io::Seek::rewind(&mut file).expect("a file can be rewound");
    std::io::BufReader::new(file)
}

#[test]
fn large_files_are_cut_and_read_back_without_growing_the_skeleton() {
    // Three zip entries of 2.5 MiB, two of them equal, made with a writer of our own below.
    let big: Vec<u8> = (0..5 << 19).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let other: Vec<u8> = big.iter().map(|b| b ^ 0x55).collect();
    let file = tempfile::tempfile().expect("a file");
    let bytes = stored_zip(&[("m/data/0", &big), ("m/data/1", &other), ("m/data/2", &big)]);
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("written");

    let manifest = chunk_file(&file).expect("an archive");
    // Three chunks for each of two contents, and the skeleton.
    assert_eq!(manifest.chunks().len(), 7);
    assert_eq!(manifest.size(), bytes.len() as u64);
    let assembly = Assembly::new(manifest);
    assert!(assembly.present_chunks(&file).expect("readable").iter().all(|present| *present));
}

#[test]
fn a_new_layer_costs_only_that_layer() {
    let (a, b) = (open("layers_a.pt"), open("layers_b.pt"));
    let (before, after) = (chunk_file(&a).expect("an archive"), chunk_file(&b).expect("an archive"));
    assert_ne!(artifact_digest(&before), artifact_digest(&after));
    let known: HashSet<_> = before.chunks().iter().map(|chunk| chunk.digest).collect();
    let large = after.chunks().iter().filter(|chunk| u64::from(chunk.size) >= LARGE_ENTRY).count();
    let missing: Vec<_> = after.chunks().iter().filter(|chunk| !known.contains(&chunk.digest)).collect();
    // The changed weights, and the skeleton with its checksums.
    assert_eq!(missing.len(), 2, "{missing:?} of {large}");
    let changed = missing.iter().map(|chunk| u64::from(chunk.size)).sum::<u64>();
    assert!(changed < 2 * 96 * 96 * 4, "{changed} bytes");
    assert!(missing.iter().any(|chunk| chunk.size == 96 * 96 * 4), "{missing:?}");
}

#[test]
fn a_partial_file_resumes_where_it_was() {
    let source = open("layers_a.pt");
    let assembly = Assembly::new(chunk_file(&source).expect("an archive"));
    let chunks = assembly.manifest().chunks().len();
    let target = tempfile::tempfile().expect("a file");
    assert_eq!(assembly.present_chunks(&target).expect("readable"), vec![false; chunks]);

    target.set_len(assembly.manifest().size()).expect("grown");
    let bytes = assembly.read_chunk(&source, 0).expect("readable");
    assembly.write_chunk(&target, 0, &bytes).expect("the right bytes");
    let present = assembly.present_chunks(&target).expect("readable");
    assert_eq!(present.iter().filter(|p| **p).count(), 1);
    assert!(present[0]);
}

#[test]
fn bytes_of_another_chunk_are_never_written() {
    let source = open("layers_a.pt");
    let assembly = Assembly::new(chunk_file(&source).expect("an archive"));
    let target = tempfile::tempfile().expect("a file");
    let mut bytes = assembly.read_chunk(&source, 0).expect("readable");
    bytes[7] ^= 1;
    let error = assembly.write_chunk(&target, 0, &bytes).expect_err("damaged");
    assert!(matches!(error, AssemblyError::Digest { chunk: 0, .. }), "{error}");
    assert_eq!(target.metadata().expect("a file").len(), 0);
}

#[test]
fn what_is_no_archive_is_refused() {
    for content in [&b""[..], b"PK", &[0x55; 4096], b"PK\x05\x06 and then some text that is no directory"] {
        let file = tempfile::tempfile().expect("a file");
        std::os::unix::fs::FileExt::write_all_at(&file, content, 0).expect("written");
        let error = chunk_file(&file).expect_err("not a zip").to_string();
        assert!(error.contains("no TorchScript archive"), "{error}");
    }
}

/// A plain zip of stored entries. Chunking looks at no checksum, so there is none.
fn stored_zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let sizes = [(data.len() as u32).to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        let name_length = (name.len() as u16).to_le_bytes();
        let at = (out.len() as u32).to_le_bytes();
        for part in [&b"PK\x03\x04"[..], &[0; 14], &sizes, &name_length, &[0; 2], name.as_bytes(), data] {
            out.extend_from_slice(part);
        }
        for part in [&b"PK\x01\x02"[..], &[0; 16], &sizes, &name_length, &[0; 12], &at, name.as_bytes()] {
            directory.extend_from_slice(part);
        }
    }
    let (at, size, count) = (out.len() as u32, directory.len() as u32, (entries.len() as u16).to_le_bytes());
    out.extend(directory);
    for part in [&b"PK\x05\x06"[..], &[0; 4], &count, &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0; 2]]
    {
        out.extend_from_slice(part);
    }
    out
}
