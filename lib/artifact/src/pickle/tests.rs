//! Pickles made to harm.

use super::*;

#[test]
fn a_million_nested_tuples_are_refused_without_overflowing_anything() {
    let mut bytes = vec![0x80, 2, b')'];
    bytes.extend(std::iter::repeat_n(0x85, 1_000_000));
    bytes.push(b'.');
    assert_eq!(read(&bytes, 256).expect_err("too deep"), "its objects nest deeper than 256");
}

#[test]
fn nesting_from_the_outside_in_is_seen_too() {
    // Each list is put into the one before, which is already inside another.
    let mut bytes = vec![0x80, 2, b']'];
    for _ in 0..1_000 {
        bytes.extend_from_slice(&[b']', b'r', 0, 0, 0, 0, b'a', b'j', 0, 0, 0, 0]);
    }
    bytes.push(b'.');
    assert!(read(&bytes, 256).is_err());
}

#[test]
fn what_is_cut_short_or_unknown_is_refused() {
    for bytes in
        [&b""[..], b"\x80", b"\x80\x02X\xff\xff\xff\xffab", b"\x80\x02i.", b"a.", b"h\x01.", b"ctorch"]
    {
        assert!(read(bytes, 256).is_err(), "{bytes:?}");
    }
}
