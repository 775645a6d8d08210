//! An append of any bytes, as the body of a request or a message, can be read or is refused; what can be read says the same
//! when it is written anew.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use precedent_core::Append;
use precedent_core::wire::{parse_append, parse_binary_append, split_appends, write_append};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(append) = parse_append(bytes) {
        comes_back(&append);
    }
    let bytes = Bytes::copy_from_slice(bytes);
    read(bytes.clone());
    if let Ok(appends) = split_appends(bytes) {
        appends.into_iter().for_each(read);
    }
});

fn read(bytes: Bytes) {
    if let Ok(append) = parse_binary_append(bytes) {
        comes_back(&append);
    }
}

fn comes_back(append: &Append) {
    let again = parse_binary_append(write_append(append).into()).expect("what was written can be read");
    assert_eq!(&again, append);
}
