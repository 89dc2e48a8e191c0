//! Which ranges of an object are requested.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use physarium::model::{Decoder, Residency};
use physarium_checkpoint::Source;
use physarium_fixtures::write_wide_model;

use crate::Store;
use crate::mirrors::files;
use crate::watched::Watched;

const MIB: usize = 1 << 20;
const NAME: &str = "model.safetensors";

/// An object of 64 MiB.
struct Object {
    bytes: Vec<u8>,
    link: PathBuf,
    watched: Arc<Watched>,
}

impl Object {
    fn new(bucket: &str) -> Object {
        let bytes: Vec<u8> = (0..16 * MIB as u32).flat_map(u32::to_le_bytes).collect();
        let store = Store::new(bucket);
        store.put(NAME, bytes.clone());
        store.put("config.json", "{}");
        let link = store.mirror().unwrap().join(NAME);
        Object { bytes, link, watched: Watched::before(&store) }
    }

    /// Opens the object for one read, as a thread does that gets one piece of work.
    fn read(&self, begin: usize, length: usize) {
        let mut found = vec![0; length];
        let source = Source::open(&self.link).unwrap();
        source.read_exact_at(&mut found, begin as u64).unwrap();
        assert!(found == self.bytes[begin..begin + length], "{length} bytes at {begin}");
    }

    /// Requests since the last call, and the bytes that they asked for.
    fn requests(&self) -> (usize, u64) {
        let ranges = self.watched.ranges();
        (ranges.len(), ranges.iter().map(|range| range.end - range.start).sum())
    }
}

#[test]
fn a_reader_that_goes_forward_takes_few_requests_and_each_byte_once() {
    let object = Object::new("forward");
    (0..64).for_each(|piece| object.read(piece * MIB, MIB));
    let (requests, bytes) = object.requests();
    assert_eq!(bytes, 64 * MIB as u64);
    assert!(requests <= 19, "{requests}");
}

#[test]
fn a_second_pass_over_the_last_bytes_takes_no_request() {
    let object = Object::new("passes");
    object.read(0, 100);
    assert_eq!(object.requests(), (1, 256 << 10));
    for tensor in 4..24 {
        (0..4).for_each(|_| object.read(tensor * MIB, MIB));
    }
    let (requests, bytes) = object.requests();
    assert!(bytes <= 28 * MIB as u64, "{bytes}");
    assert!(requests <= 10, "{requests}");
}

#[test]
fn threads_that_share_the_pieces_share_the_requests() {
    let object = Object::new("threads");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let piece @ 0..64 = next.fetch_add(1, Ordering::SeqCst) {
                    object.read(piece * MIB, MIB);
                }
            });
        }
    });
    let (requests, bytes) = object.requests();
    assert_eq!(bytes, 64 * MIB as u64);
    assert!(requests <= 64, "{requests}");
}

#[test]
fn rows_here_and_there_are_not_read_ahead() {
    let object = Object::new("rows");
    (0..20).for_each(|row| object.read(row * 7919 * 397 % (63 * MIB), 2048));
    let (requests, bytes) = object.requests();
    assert!(requests <= 20 && bytes <= 20 * (256 << 10), "{requests} {bytes}");
}

#[test]
fn tensors_that_are_read_in_another_order_are_requested_once() {
    let object = Object::new("order");
    for layer in 0..4 {
        [5, 6, 3, 7, 2, 4, 0, 1]
            .iter()
            .for_each(|tensor| object.read((layer * 8 + tensor) * MIB, MIB));
    }
    let (_, bytes) = object.requests();
    assert!(bytes <= 40 * MIB as u64, "{bytes}");
}

#[test]
fn a_read_larger_than_what_is_kept_requests_each_byte_once_and_none_beyond() {
    let object = Object::new("large");
    object.read(MIB, 50 * MIB);
    assert_eq!(object.requests(), (13, 50 * MIB as u64));
    object.read(0, object.bytes.len());
    object.read(object.bytes.len() - 1, 1);
    assert!(object.requests().1 <= 64 * MIB as u64);
}

#[test]
fn the_embedding_is_read_as_a_whole() {
    let (model, store) = (tempfile::tempdir().unwrap(), Store::new("embedding"));
    write_wide_model(model.path()).unwrap();
    files(model.path()).into_iter().for_each(|(path, bytes)| store.put(&path, bytes));
    let [here, there] = [model.path(), &store.mirror().unwrap()]
        .map(|dir| Decoder::open(dir, Residency::Streamed).unwrap());
    let watched = Watched::before(&store);
    let embedding = there.embedding().unwrap();
    let bytes: u64 = watched.ranges().iter().map(|range| range.end - range.start).sum();
    // More than a first request of one row.
    assert!(bytes >= 1024 * 256 * 2, "{bytes}");
    let tokens: Vec<u32> = (0..1024).rev().collect();
    let of_file = here.embedding().unwrap().of(&tokens).unwrap();
    assert!(embedding.of(&tokens).unwrap() == of_file);
}

#[test]
fn a_request_ahead_that_failed_is_made_again() {
    let object = Object::new("ahead");
    (0..2).for_each(|piece| object.read(piece * MIB, MIB));
    object.watched.fail_after_gets(0);
    (2..64).for_each(|piece| object.read(piece * MIB, MIB));
    assert!(object.requests().1 > 64 * MIB as u64);
}

#[test]
fn a_request_that_failed_is_an_error_and_is_made_again_by_the_next_read() {
    let object = Object::new("fails");
    object.watched.fail_after_gets(0);
    let source = Source::open(&object.link).unwrap();
    let error = source.read_exact_at(&mut [0; 2048], 1000).unwrap_err().to_string();
    assert!(error.starts_with("s3://fails/models/one/model.safetensors: cannot read: "), "{error}");
    assert!(error.contains("the store has failed"), "{error}");
    object.read(1000, 2048);
}
