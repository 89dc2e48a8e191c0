/*!
Residual streams, in memory or in a scratch file.

In: windows of float32, one after the other. Out: the same, a batch at a time, to look at and to change. A file holds the
bytes that memory would, so nothing that is computed from them depends on the place.
*/

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use physarium_checkpoint::{ScratchFile, ScratchPiece};

use crate::decoder::Decoder;
use crate::error::Result;

/// Where residual streams are kept. The results are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPlace<'a> {
    /// In memory.
    Memory,
    /// In a new file of this name, in a directory of the run's own. It is removed at the end.
    File(&'a Path),
}

impl StreamPlace<'_> {
    /// The pruned stream of `windows` before the first layer, and the dense one if it is `wanted`.
    ///
    /// # Errors
    /// Those of the decoder and of the file.
    pub(crate) fn begin(
        self,
        decoder: &Decoder,
        windows: &[&[u32]],
        wanted: bool,
    ) -> Result<(Stream, Option<Stream>)> {
        let StreamPlace::File(path) = self else {
            let pruned = decoder.embedding()?.of_each(windows)?;
            let dense = wanted.then(|| Stream::Memory(pruned.clone()));
            return Ok((Stream::Memory(pruned), dense));
        };
        let tokens: usize = windows.iter().map(|window| window.len()).sum();
        let each = (tokens * decoder.config().hidden * size_of::<f32>()) as u64;
        let streams = if wanted { 2 } else { 1 };
        let file = Arc::new(ScratchFile::create(path, streams * each)?);
        let mut pruned = StreamFile::new(&file, 0);
        let mut dense = wanted.then(|| StreamFile::new(&file, each));
        let embedding = decoder.embedding()?;
        for window in windows {
            let hidden = embedding.of(window)?;
            pruned.push(&hidden)?;
            if let Some(dense) = &mut dense {
                dense.push(&hidden)?;
            }
        }
        Ok((Stream::File(pruned), dense.map(Stream::File)))
    }

    /// A place for a stream before each of `layers` layers, each as large as `stream`.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn stack(self, layers: usize, stream: &[Vec<f32>]) -> Result<StreamStack> {
        let each: u64 = stream.iter().map(|window| size_of_val(&window[..]) as u64).sum();
        let file = match self {
            StreamPlace::Memory => None,
            StreamPlace::File(path) => {
                Some(Arc::new(ScratchFile::create(path, layers as u64 * each)?))
            }
        };
        Ok(StreamStack { streams: Vec::new(), each, file })
    }
}

/// Streams before several layers. The last is taken first.
pub(crate) struct StreamStack {
    streams: Vec<Stream>,
    /// Bytes of a stream.
    each: u64,
    /// Where they are, unless in memory.
    file: Option<Arc<ScratchFile>>,
}

impl StreamStack {
    /// Keeps a copy of a stream.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be written.
    pub fn push(&mut self, windows: &[Vec<f32>]) -> Result<()> {
        let stream = match &self.file {
            None => Stream::Memory(windows.to_vec()),
            Some(file) => {
                let mut stream = StreamFile::new(file, self.streams.len() as u64 * self.each);
                windows.iter().try_for_each(|hidden| stream.push(hidden))?;
                Stream::File(stream)
            }
        };
        self.streams.push(stream);
        Ok(())
    }

    /// The stream that was kept last.
    ///
    /// # Panics
    /// If there is none.
    pub fn pop(&mut self) -> Stream {
        self.streams.pop().expect("a stream was kept for each layer")
    }
}

/// One residual stream `[tokens, hidden]` of each window.
pub(crate) enum Stream {
    Memory(Vec<Vec<f32>>),
    File(StreamFile),
}

impl Stream {
    /// The streams of some windows.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be read.
    pub fn load(&mut self, windows: Range<usize>) -> Result<&mut [Vec<f32>]> {
        match self {
            Stream::Memory(all) => Ok(&mut all[windows]),
            Stream::File(file) => file.load(windows),
        }
    }

    /// The streams of all windows.
    ///
    /// # Panics
    /// If they are in a file.
    pub fn into_memory(self) -> Vec<Vec<f32>> {
        match self {
            Stream::Memory(all) => all,
            Stream::File(_) => panic!("streams of one group are in memory"),
        }
    }

    /// Keeps what was changed in the windows that were loaded last.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be written.
    pub fn store(&mut self) -> Result<()> {
        match self {
            Stream::Memory(_) => Ok(()),
            Stream::File(file) => file.store(),
        }
    }
}

/// A stream in a part of a file, window by window.
pub(crate) struct StreamFile {
    file: Arc<ScratchFile>,
    windows: Vec<StoredWindow>,
    /// Where the next window begins.
    end: u64,
    /// The windows that were loaded last: the first, and their streams.
    loaded: (usize, Vec<Vec<f32>>),
}

struct StoredWindow {
    begin: u64,
    len: usize,
    piece: ScratchPiece,
}

impl StreamFile {
    fn new(file: &Arc<ScratchFile>, begin: u64) -> StreamFile {
        StreamFile {
            file: Arc::clone(file),
            windows: Vec::new(),
            end: begin,
            loaded: (0, Vec::new()),
        }
    }

    fn push(&mut self, hidden: &[f32]) -> Result<()> {
        let (begin, len) = (self.end, hidden.len());
        let piece = self.file.write(begin, bytemuck::cast_slice(hidden))?;
        self.end += size_of_val(hidden) as u64;
        self.windows.push(StoredWindow { begin, len, piece });
        Ok(())
    }

    fn load(&mut self, windows: Range<usize>) -> Result<&mut [Vec<f32>]> {
        let (first, loaded) = &mut self.loaded;
        *first = windows.start;
        loaded.resize(windows.len(), Vec::new());
        for (window, hidden) in self.windows[windows].iter().zip(&mut *loaded) {
            window.read(&self.file, hidden)?;
        }
        Ok(loaded)
    }

    fn store(&mut self) -> Result<()> {
        let (first, loaded) = &self.loaded;
        for (window, hidden) in self.windows[*first..].iter_mut().zip(loaded) {
            window.write(&self.file, hidden)?;
        }
        Ok(())
    }
}

impl StoredWindow {
    fn read(&self, file: &ScratchFile, hidden: &mut Vec<f32>) -> Result<()> {
        hidden.resize(self.len, 0.0);
        Ok(file.read(&self.piece, bytemuck::cast_slice_mut(hidden))?)
    }

    fn write(&mut self, file: &ScratchFile, hidden: &[f32]) -> Result<()> {
        self.piece = file.write(self.begin, bytemuck::cast_slice(hidden))?;
        Ok(())
    }
}
