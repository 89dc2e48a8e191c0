//! Files of the output that are its own: no path and no link leads out of it.

use std::fs;
use std::path::{Component, Path};

use physarium_checkpoint::{HubSource, Source, printable};

use super::findings::Verification;

/// Why a file is not the output's own, although it is listed: its path or a link leads out of the directory. What is
/// elsewhere can change without the output.
pub(super) fn leads_out(out: &Path, name: &str) -> Option<String> {
    let is_plain = |part| matches!(part, Component::Normal(_));
    if name.is_empty() || !Path::new(name).components().all(is_plain) {
        return Some("path leads out of the output".to_owned());
    }
    let resolved = [out, &out.join(name)].map(fs::canonicalize);
    let [Ok(root), Ok(target)] = resolved else { return None };
    // A downloaded output's files are links into the blobs of its hub cache.
    let is_blob = HubSource::blobs_of(out).is_some_and(|blobs| target.starts_with(blobs));
    let elsewhere = !target.starts_with(root) && !is_blob;
    elsewhere
        .then(|| format!("link out of the output, to {}", printable(&target.to_string_lossy())))
}

/// Opens a file of the output. A file that is elsewhere, or exists and cannot be opened (a dangling link, a FIFO, no
/// permission), is a finding here; a missing one is a finding of the file list.
pub(super) fn open_output(out: &Path, name: &str, result: &mut Verification) -> Option<Source> {
    if let Some(what) = leads_out(out, name) {
        result.report(name, None, what);
        return None;
    }
    let path = out.join(name);
    match Source::open(&path) {
        Ok(source) => Some(source),
        Err(e) => {
            if path.symlink_metadata().is_ok() {
                result.report(name, None, format!("cannot be read: {e}"));
            }
            None
        }
    }
}
