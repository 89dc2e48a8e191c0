/*!
The last states of a model on a text, kept in a file.

A comparison evaluates many models against one. The layers of that one run once: their last states are kept, and the
head makes the same logits of them again for each other model, bit for bit. In: states `[tokens, hidden]` of each
window, float32, in the order of the windows. Nothing here says which model and text they belong to.
*/

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use physarium_checkpoint::Source;

use crate::error::Result;

/// Bytes of an element.
const ELEMENT: usize = size_of::<f32>();

/// States that are written, window after window.
#[derive(Debug)]
pub(crate) struct StatesWriter {
    file: File,
    path: PathBuf,
}

impl StatesWriter {
    /// Begins a file, which must not exist.
    ///
    /// # Errors
    /// `Checkpoint`.
    pub(crate) fn create(path: &Path) -> Result<StatesWriter> {
        let io = |e| physarium_checkpoint::Error::io(path, "create", e);
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(io)?;
        Ok(StatesWriter { file, path: path.to_owned() })
    }

    /// Appends the states of the next window, `[tokens, hidden]`.
    ///
    /// # Errors
    /// `Checkpoint`.
    pub(crate) fn append(&mut self, states: &[f32]) -> Result<()> {
        let io = |e| physarium_checkpoint::Error::io(&self.path, "write", e);
        Ok(self.file.write_all(bytemuck::cast_slice(states)).map_err(io)?)
    }
}

/// States that were kept.
#[derive(Debug)]
pub(crate) struct KeptStates {
    source: Source,
}

impl KeptStates {
    /// Opens a file of states.
    ///
    /// # Errors
    /// `Checkpoint`.
    pub(crate) fn open(path: &Path) -> Result<KeptStates> {
        Ok(KeptStates { source: Source::open(path)? })
    }

    /// The states `[tokens, hidden]` of the window with this index, `len` elements, as are those of every window.
    ///
    /// # Errors
    /// `Checkpoint` if the file is shorter or cannot be read.
    pub(crate) fn of_window(&self, index: usize, len: usize) -> Result<Vec<f32>> {
        let mut states = vec![0.0f32; len];
        let offset = (index * len * ELEMENT) as u64;
        self.source.read_exact_at(bytemuck::cast_slice_mut(&mut states), offset)?;
        Ok(states)
    }
}

/// What an evaluation does with states.
pub(crate) enum States<'a> {
    /// Both models run.
    None,
    /// The last states of the model are kept.
    Keep(&'a mut StatesWriter),
    /// The other model does not run: its last states were kept.
    OfOther(&'a KeptStates),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("states");
        let windows = [[1.5f32, -0.0, f32::NAN, 3e-39], [4.0, 5.0, f32::INFINITY, 7.0]];
        let mut writer = StatesWriter::create(&path).unwrap();
        windows.iter().for_each(|window| writer.append(window).unwrap());
        assert!(StatesWriter::create(&path).is_err());
        let kept = KeptStates::open(&path).unwrap();
        for (index, window) in windows.iter().enumerate().rev() {
            let bits = |states: &[f32]| states.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&kept.of_window(index, 4).unwrap()), bits(window));
        }
        assert!(kept.of_window(2, 4).is_err());
    }
}
