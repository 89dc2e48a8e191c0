/*!
Residual streams, in memory or in a scratch file.

In: windows of float32, one after the other. Out: the same, one at a time, to look at and to change. A file holds the
bytes that memory would, so nothing that is computed from them depends on the place.
*/

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use physarium_checkpoint::{ScratchFile, ScratchPiece};
use physarium_kernels::Compute;

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
            let embed = |window: &&[u32]| decoder.embed(window);
            let pruned = windows.iter().map(embed).collect::<Result<Vec<_>>>()?;
            let dense = wanted.then(|| Stream::Memory(pruned.clone()));
            return Ok((Stream::Memory(pruned), dense));
        };
        let tokens: usize = windows.iter().map(|window| window.len()).sum();
        let each = (tokens * decoder.config().hidden * size_of::<f32>()) as u64;
        let streams = if wanted { 2 } else { 1 };
        let file = Arc::new(ScratchFile::create(path, streams * each)?);
        let mut pruned = StreamFile::new(&file, 0);
        let mut dense = wanted.then(|| StreamFile::new(&file, each));
        for window in windows {
            let hidden = decoder.embed(window)?;
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
    /// A window's stream.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be read.
    pub fn load(&mut self, window: usize) -> Result<&mut [f32]> {
        match self {
            Stream::Memory(windows) => Ok(&mut windows[window]),
            Stream::File(file) => file.load(window),
        }
    }

    /// Keeps what was changed in the window that was loaded last.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be written.
    pub fn store(&mut self) -> Result<()> {
        match self {
            Stream::Memory(_) => Ok(()),
            Stream::File(file) => file.store(),
        }
    }

    /// Changes the stream of every window, in parallel over windows.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be read or written.
    pub fn change_each(
        &mut self,
        compute: &Compute,
        change: impl Fn(&mut [f32]) + Sync + Send,
    ) -> Result<()> {
        match self {
            Stream::Memory(windows) => {
                compute.each_chunk(windows, 1, |_, hidden| change(&mut hidden[0]));
                Ok(())
            }
            Stream::File(file) => file.change_each(compute, change),
        }
    }
}

/// A stream in a part of a file, window by window.
pub(crate) struct StreamFile {
    file: Arc<ScratchFile>,
    windows: Vec<StoredWindow>,
    /// Where the next window begins.
    end: u64,
    /// The window that was loaded last.
    loaded: (usize, Vec<f32>),
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

    fn load(&mut self, window: usize) -> Result<&mut [f32]> {
        let (loaded, hidden) = &mut self.loaded;
        *loaded = window;
        self.windows[window].read(&self.file, hidden)?;
        Ok(hidden)
    }

    fn store(&mut self) -> Result<()> {
        let (window, hidden) = &self.loaded;
        self.windows[*window].write(&self.file, hidden)
    }

    fn change_each(
        &mut self,
        compute: &Compute,
        change: impl Fn(&mut [f32]) + Sync + Send,
    ) -> Result<()> {
        let (file, failed) = (&self.file, Mutex::new(None));
        let first_error = || failed.lock().unwrap_or_else(PoisonError::into_inner);
        compute.each_chunk(&mut self.windows, 1, |_, window| {
            if first_error().is_some() {
                return;
            }
            let mut hidden = Vec::new();
            let read = window[0].read(file, &mut hidden);
            let written = read.and_then(|()| {
                change(&mut hidden);
                window[0].write(file, &hidden)
            });
            if let Err(e) = written {
                first_error().get_or_insert(e);
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
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
