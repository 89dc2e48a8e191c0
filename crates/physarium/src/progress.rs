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
        /// The task: `eval`, `choices`.
        task: &'static str,
        /// Tokens to process.
        tokens: u64,
    },
    /// This many more tokens are done.
    Tokens(u64),
    /// Work on the model's layers begins, one after another.
    LayersStarted {
        /// The task: `calibrate`, `gradients, forward`, `gradients, backward`.
        task: &'static str,
        /// Number of layers.
        layers: u64,
        /// Steps of the work, as many for each layer.
        steps: u64,
    },
    /// One more step of the work on layers is done.
    LayerStep,
    /// What an interrupted run has finished was verified and is kept.
    Resumed {
        /// What is kept.
        kept: Kept,
        /// How many of them.
        count: usize,
        /// Number of all.
        of: usize,
    },
    /// One of several runs begins.
    Run {
        /// Its name.
        name: &'a str,
        /// Its number, from 1.
        number: usize,
        /// Number of all runs.
        of: usize,
    },
    /// One of several runs was finished before; its result is kept.
    RunKept {
        /// Its name.
        name: &'a str,
        /// Its number, from 1.
        number: usize,
        /// Number of all runs.
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

/// Finished parts of an interrupted run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Shards of the output.
    Shards,
    /// Layers whose weights are solved.
    Layers,
    /// Parts of an evaluation.
    Parts,
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
