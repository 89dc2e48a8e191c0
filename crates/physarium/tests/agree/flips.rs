//! Every flipped bit of an output is found.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use physarium_fixtures::{Kind, Noise, Tensor};

use super::{Work, copy_files, files, findings, flow, prune, tensors};

/// An output, copied for each thread, whose bits are flipped one at a time.
struct Flips {
    model: PathBuf,
    out: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Flips {
    fn new(work: &Work, tensors: &[Tensor], shards: usize) -> Flips {
        let (model, out) = (work.model("model", tensors, shards), work.path("out"));
        prune(&model, &out, flow(24), 2);
        assert_eq!(findings(&model, &out), [""; 0]);
        let files = files(&out).into_iter().collect();
        Flips { model, out, files }
    }

    fn bits(&self, file: usize) -> u64 {
        8 * self.files[file].1.len() as u64
    }

    /// Flips each bit (file, bit) by itself and asserts that it is found.
    fn assert_found(&self, flips: &[(usize, u64)]) {
        const THREADS: usize = 2;
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let mine = flips.iter().skip(thread).step_by(THREADS);
                scope.spawn(move || self.assert_found_in_copy(&format!("copy-{thread}"), mine));
            }
        });
    }

    fn assert_found_in_copy<'a>(&self, name: &str, flips: impl Iterator<Item = &'a (usize, u64)>) {
        let copy = self.out.with_file_name(name);
        copy_files(&self.out, &copy);
        let open = |(name, _): &(PathBuf, _)| {
            fs::OpenOptions::new().write(true).open(copy.join(name)).unwrap()
        };
        let handles: Vec<fs::File> = self.files.iter().map(open).collect();
        for &(file, bit) in flips {
            let (name, bytes) = &self.files[file];
            let at = bit / 8;
            let byte = bytes[at as usize];
            handles[file].write_all_at(&[byte ^ 1 << (bit % 8)], at).unwrap();
            assert_ne!(findings(&self.model, &copy), [""; 0], "{} bit {bit}", name.display());
            handles[file].write_all_at(&[byte], at).unwrap();
        }
        assert_eq!(findings(&self.model, &copy), [""; 0]);
    }
}

#[test]
fn every_bit_of_a_small_output_counts() {
    let work = Work::in_memory();
    let tensors = [
        Tensor::new("model.layers.0.mlp.up_proj.weight", Kind::Bf16, &[6, 8]),
        Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bytes("F8_E4M3"), &[3, 3]),
        Tensor::new("model.norm.weight", Kind::F32, &[4]),
    ];
    let flips = Flips::new(&work, &tensors, 2);
    let all: Vec<(usize, u64)> = (0..flips.files.len())
        .flat_map(|file| (0..flips.bits(file)).map(move |bit| (file, bit)))
        .collect();
    assert!(all.len() > 40_000, "{}", all.len());
    flips.assert_found(&all);
}

#[test]
fn random_flips_in_a_larger_output_are_found() {
    let work = Work::in_memory();
    let flips = Flips::new(&work, &tensors(), 2);
    let mut noise = Noise::new(42);
    let files = flips.files.len() as u64;
    let all: u64 = (0..flips.files.len()).map(|file| flips.bits(file)).sum();
    let mut anywhere = || {
        let mut bit = noise.below(all);
        let file = (0..flips.files.len()).find(|&file| {
            let here = bit < flips.bits(file);
            bit -= if here { 0 } else { flips.bits(file) };
            here
        });
        (file.unwrap(), bit)
    };
    // Half of the flips are chosen by size, so that most hit weights; half by file.
    let mut some: Vec<(usize, u64)> = (0..RANDOM_FLIPS / 2).map(|_| anywhere()).collect();
    some.extend((0..RANDOM_FLIPS / 2).map(|_| {
        let file = noise.below(files) as usize;
        (file, noise.below(flips.bits(file)))
    }));
    flips.assert_found(&some);
}

/// Number of flips in [`random_flips_in_a_larger_output_are_found`].
const RANDOM_FLIPS: usize = 4_000;
