//! The part of some work that one of several processes does.

/// Number `index` of `count` processes, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: usize,
    count: usize,
}

impl Share {
    /// All of the work.
    pub const ALL: Share = Share { index: 0, count: 1 };

    /// A share; `None` if there is no such one.
    pub fn new(index: usize, count: usize) -> Option<Share> {
        (index < count).then_some(Share { index, count })
    }

    /// Whether the piece of work with this number, from 0, is of the share.
    pub fn takes(self, number: usize) -> bool {
        number % self.count == self.index
    }

    /// What tells the files of this share from those of others; nothing if it is all.
    pub(crate) fn suffix(self) -> String {
        match self.count {
            1 => String::new(),
            count => format!("-{}-of-{count}", self.index),
        }
    }
}
