//! Events of a run while it works. The caller decides how they are shown.

/// An event of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work on bytes begins.
    Started {
        /// The task, as a verb: `prune`, `audit`, `verify`.
        task: &'static str,
        /// Bytes to process.
        bytes: u64,
        /// Tensors to process.
        tensors: u64,
    },
    /// Work on tokens begins.
    TokensStarted {
        /// The task: `calibrate`, `gradients`, `eval`.
        task: &'static str,
        /// Tokens to process; each counts once for every pass over it.
        tokens: u64,
    },
    /// This many more tokens are done.
    Tokens(u64),
    /// Shards of an interrupted run were verified and are kept.
    Resumed {
        /// Number of kept shards.
        shards: usize,
        /// Number of all shards.
        of: usize,
    },
    /// A step that may take long and is not counted, by its description.
    Step(&'a str),
    /// This many more bytes are done.
    Bytes(u64),
    /// A tensor is done, by its name.
    Tensor(&'a str),
    /// A shard is on disk, by its name.
    Shard(&'a str),
    /// The task is done.
    Finished,
}

/// A receiver of events.
pub trait Progress {
    /// Receives an event. A run calls this from the thread that it was called on.
    fn event(&mut self, event: Event<'_>);
}

/// Discards all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _: Event<'_>) {}
}
