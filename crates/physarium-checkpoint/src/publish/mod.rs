//! Writing outputs, which are absent, visibly unfinished, or complete.

pub(crate) mod durable;
pub(crate) mod inputs;
pub(crate) mod output;
pub(crate) mod part_file;
pub(crate) mod place;
pub(crate) mod request;
mod resume;
pub(crate) mod scratch;
pub(crate) mod sidecar;
pub(crate) mod solved_dir;
pub(crate) mod space;
pub(crate) mod staging;
pub(crate) mod units;
