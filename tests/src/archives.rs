//! Archives that are not what they should be.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::digits;

/// The example with code that reads a file of the pod.
///
/// # Panics
/// Where the example cannot be read or the folder not be written.
pub fn reads_a_file(folder: &Path) -> PathBuf {
    rewritten(folder, "from-file.pt", |name, bytes| {
        if !name.ends_with(".py") || !String::from_utf8_lossy(&bytes).contains("return ") {
            return (bytes, CompressionMethod::Stored);
        }
        let code = String::from_utf8(bytes).expect("text");
        let stolen = "    stolen = torch.from_file(\"/etc/passwd\", False, 10)\n    return ";
        (code.replacen("    return ", stolen, 1).into_bytes(), CompressionMethod::Stored)
    })
}

/// The example with code that is 80 MiB of nothing once it is inflated.
///
/// # Panics
/// As [`reads_a_file`].
pub fn bomb(folder: &Path) -> PathBuf {
    rewritten(folder, "bomb.pt", |name, bytes| {
        if name.ends_with("__torch__.py") {
            (vec![b' '; 80 << 20], CompressionMethod::Deflated)
        } else {
            (bytes, CompressionMethod::Stored)
        }
    })
}

/// The example with `class 0`, `class 1` and so on for labels of this output.
///
/// # Panics
/// As [`reads_a_file`].
pub fn labelled(folder: &Path, output: &str, labels: usize) -> PathBuf {
    let labels: Vec<String> = (0..labels).map(|at| format!("class {at}")).collect();
    rewritten(folder, &format!("labelled-{}.pt", labels.len()), |name, bytes| {
        if !name.ends_with("extra/sconce.json") {
            return (bytes, CompressionMethod::Stored);
        }
        let mut said: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let outputs = said["outputs"].as_array_mut().expect("outputs");
        let labelled = outputs.iter_mut().find(|one| one["name"] == output).expect("the output");
        labelled["labels"] = labels.clone().into();
        (said.to_string().into_bytes(), CompressionMethod::Stored)
    })
}

/// The example with some entries replaced.
///
/// # Panics
/// As [`reads_a_file`].
pub fn rewritten(
    folder: &Path,
    name: &str,
    change: impl Fn(&str, Vec<u8>) -> (Vec<u8>, CompressionMethod),
) -> PathBuf {
    let mut source = ZipArchive::new(File::open(digits("v1")).expect("the example")).expect("a zip");
    let path = folder.join(name);
    let mut writer = ZipWriter::new(File::create(&path).expect("a file"));
    for at in 0..source.len() {
        let mut entry = source.by_index(at).expect("an entry");
        let (name, mut bytes) = (entry.name().expect("a name").into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).expect("readable");
        let (bytes, method) = change(&name, bytes);
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file(&name, options).expect("writable");
        writer.write_all(&bytes).expect("writable");
    }
    writer.finish().expect("writable");
    path
}
