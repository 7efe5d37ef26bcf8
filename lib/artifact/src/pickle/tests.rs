//! Pickles made to harm.

use super::*;

#[test]
fn a_million_nested_tuples_are_refused_without_overflowing_anything() {
    let mut bytes = vec![0x80, 2, b')'];
    bytes.extend(std::iter::repeat_n(0x85, 1_000_000));
    bytes.push(b'.');
    assert!(refusal(&bytes).contains("more than 500000 objects"));
    // As many as are allowed at all, and the depth of nothing is.
    bytes.truncate(400_000);
    bytes.push(b'.');
    assert_eq!(refusal(&bytes), "its objects nest deeper than 256");
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes, &Limits::default()).expect_err("it must be refused")
}

/// A tensor of `size` elements over a storage of four, made by what `callee` puts on the stack.
fn tensor(callee: &[u8], size: u8) -> Vec<u8> {
    let storage = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00(K";
    let rest = b"t(K\x01t\x89}tR.";
    [b"\x80\x02", callee, storage, &[size], rest].concat()
}

#[test]
fn a_tensor_stays_within_its_storage_whoever_makes_it() {
    let function = b"ctorch._utils\n_rebuild_tensor_v2\n";
    assert!(read(&tensor(function, 4), &Limits::default()).is_ok());
    for function in [&function[..], b"ctorch._utils\n_rebuild_qtensor\n"] {
        assert!(refusal(&tensor(function, 5)).contains("beyond its storage"));
    }
    // libtorch would call its function number 0.
    assert!(refusal(&tensor(b"K\x00", 5)).contains("no function"));
    assert!(refusal(&tensor(b"cos\nsystem\n", 4)).contains("os system"));
}

#[test]
fn what_two_readers_could_take_for_two_things_is_refused() {
    // A mark as a value, a memo with holes, a short integer, a tuple as a key.
    for bytes in [&b"\x80\x02((\x86."[..], b"\x80\x02Nq\x05.", b"\x80\x02\x8a\x01\x05.", b"\x80\x02})Ns."] {
        assert!(read(bytes, &Limits::default()).is_err(), "{bytes:?}");
    }
}

#[test]
fn the_name_of_a_type_nests_no_deeper_than_code() {
    let name = format!("{}Tensor{}", "List[".repeat(1_000), "]".repeat(1_000));
    let mut bytes = b"\x80\x02ctorch.jit._pickle\nrestore_type_tag\n]X".to_vec();
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(b"\x86R.");
    assert!(refusal(&bytes).contains("nest deeper"));
}

#[test]
fn nesting_from_the_outside_in_is_seen_too() {
    // Each list is put into the one before, which is already inside another.
    let mut bytes = vec![0x80, 2, b']'];
    for _ in 0..1_000 {
        bytes.extend_from_slice(&[b']', b'r', 0, 0, 0, 0, b'a', b'j', 0, 0, 0, 0]);
    }
    bytes.push(b'.');
    assert!(read(&bytes, &Limits::default()).is_err());
}

#[test]
fn what_is_cut_short_or_unknown_is_refused() {
    for bytes in
        [&b""[..], b"\x80", b"\x80\x02X\xff\xff\xff\xffab", b"\x80\x02i.", b"a.", b"h\x01.", b"ctorch"]
    {
        assert!(read(bytes, &Limits::default()).is_err(), "{bytes:?}");
    }
}
