//! What a run tells while it works. How it is shown is decided at the edge.

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work of this size begins.
    Started {
        /// What is done, as a verb: `prune`, `audit`, `verify`.
        task: &'static str,
        /// Bytes to go through.
        bytes: u64,
        /// Tensors to go through.
        tensors: u64,
    },
    /// Work on so many tokens begins.
    TokensStarted {
        /// What is done, as a verb: `eval`.
        task: &'static str,
        /// Tokens to go through.
        tokens: u64,
    },
    /// So many more tokens are done.
    Tokens(u64),
    /// Shards of an earlier run were proven and are kept.
    Resumed {
        /// How many.
        shards: usize,
        /// Of how many.
        of: usize,
    },
    /// A step before the counted work that may take long.
    Step(&'a str),
    /// So many more bytes are done.
    Bytes(u64),
    /// A tensor is done.
    Tensor(&'a str),
    /// A shard is durable.
    Shard(&'a str),
    /// All is done.
    Finished,
}

/// Is told what happens.
pub trait Progress {
    /// Something happened.
    fn event(&mut self, event: Event<'_>);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _: Event<'_>) {}
}
