//! The limit of a run's resident memory, and what it decides.

use crate::free_memory::free_memory;
use crate::peak::resident_bytes;

/// The part of free memory that is left to others: one in this many, 5 %.
const MARGIN_DIVISOR: u64 = 20;

/// Most resident memory of a run. It decides what is kept in a file and how many threads run, and never the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryLimit {
    /// What is free on this machine and in this process's control groups, less 5 %. No limit where the system does
    /// not tell.
    #[default]
    Free,
    /// So many bytes.
    Bytes(u64),
}

/// Where the residual streams of an activation-aware run are kept. It changes nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// In memory: at most so many bytes.
    Memory(u64),
    /// In a scratch file of so many bytes, in the unfinished output.
    File(u64),
}

/// A limit, and what it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub limit: MemoryLimit,
    /// Bytes, with those that the process has already; `None` for no limit.
    pub bytes: Option<u64>,
}

impl Allowed {
    /// What a limit comes to now.
    pub fn by(limit: MemoryLimit) -> Allowed {
        let bytes = match limit {
            MemoryLimit::Bytes(bytes) => Some(bytes),
            MemoryLimit::Free => {
                let free = free_memory().map(|free| free - free / MARGIN_DIVISOR);
                free.zip(resident_bytes()).map(|(free, own)| own.saturating_add(free))
            }
        };
        Allowed { limit, bytes }
    }

    /// Whether a run that needs `bytes` may begin.
    pub fn fits(self, bytes: u64) -> bool {
        self.bytes.is_none_or(|allowed| bytes <= allowed)
    }
}
