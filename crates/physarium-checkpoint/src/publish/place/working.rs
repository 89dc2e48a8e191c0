/*!
Working directories beside an output: `.OUT.physarium-partial`, `-packing`, `-unpacking` and `-replaced`.

One that exists is removed only if a run made it: it holds the marker of an unfinished output or the manifest of a
finished one. An empty directory holds nothing to lose, so it counts as one too. Anything else of such a name (a link,
a file, a directory of the user's) is refused by name.
*/

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::open::unfinished::{NOTE_START, UNFINISHED_NAME};
use crate::publish::durable::{part_name, write_whole};
use crate::records::manifest::{self, Manifest};

/// Bytes of a marker that are searched for its note.
const MARKER_BYTES: u64 = 4096;

/// Creates a working directory with a marker, in place of one that an interrupted run left.
pub(in crate::publish) fn create(dir: &Path) -> Result<()> {
    remove(dir)?;
    fs::create_dir(dir).map_err(|e| Error::io(dir, "create the directory", e))?;
    mark(dir)
}

/// Puts a marker into a directory.
pub(in crate::publish) fn mark(dir: &Path) -> Result<()> {
    let note = format!("{{\n  \"note\": \"{NOTE_START}\"\n}}\n");
    write_whole(&dir.join(UNFINISHED_NAME), note.as_bytes())
}

/// Removes the marker of a directory.
pub(in crate::publish) fn unmark(dir: &Path) -> Result<()> {
    let marker = dir.join(UNFINISHED_NAME);
    fs::remove_file(&marker).map_err(|e| Error::io(&marker, "remove", e))
}

/// Removes a working directory, if there is one. Links in it are removed, not followed.
///
/// # Errors
/// `Output` for something that no run made; `Io`.
pub(in crate::publish) fn remove(dir: &Path) -> Result<()> {
    refuse_foreign(dir)?;
    let marker = dir.join(UNFINISHED_NAME);
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| Error::io(dir, "list", e))?,
    };
    let io = |e| Error::io(dir, "list", e);
    let entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    // The marker is there until everything else is gone, so that the next run can finish a removal.
    if !entries.is_empty() && !is_marker(&marker) {
        mark(dir)?;
    }
    for entry in entries {
        let path = entry.path();
        if path == marker {
            continue;
        }
        let is_dir = entry.file_type().map_err(io)?.is_dir();
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        ignore_absent(removed).map_err(|e| Error::io(&path, "remove", e))?;
    }
    ignore_absent(fs::remove_file(&marker)).map_err(|e| Error::io(&marker, "remove", e))?;
    fs::remove_dir(dir).map_err(|e| Error::io(dir, "remove", e))
}

fn ignore_absent(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Fails if something has the name of a working directory that no run made.
pub(in crate::publish) fn refuse_foreign(dir: &Path) -> Result<()> {
    let found = match dir.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(dir, "look at the working directory", e)),
        Ok(meta) if meta.is_symlink() => "a symbolic link",
        Ok(meta) if !meta.is_dir() => "a file",
        Ok(_) if is_ours(dir)? => return Ok(()),
        Ok(_) => "a directory that physarium did not make",
    };
    Err(foreign(dir, found))
}

fn foreign(path: &Path, found: &str) -> Error {
    Error::Output {
        path: path.to_owned(),
        what: "something has the name of a working directory",
        expected: "nothing there, or what an interrupted run left".to_owned(),
        found: format!("{found}\nhint: choose another name for the output, or move this away"),
    }
}

/// Fails if the entries of an unfinished run, or of a directory `inner` in it, include links, through which a resumed
/// run would write.
pub(in crate::publish) fn refuse_links(dir: &Path, inner: &str) -> Result<()> {
    if !dir.is_dir() || dir.is_symlink() {
        return refuse_foreign(dir);
    }
    for dir in [dir, &dir.join(inner)] {
        let io = |e| Error::io(dir, "list", e);
        let entries = match dir.symlink_metadata() {
            Ok(meta) if meta.is_dir() => fs::read_dir(dir).map_err(io)?,
            _ => continue,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_symlink() {
                return Err(Error::Output {
                    path: entry.path(),
                    what: "a link in an unfinished run",
                    expected: "files that physarium wrote".to_owned(),
                    found: "a symbolic link\n\
                            hint: --restart discards the unfinished run, not what the link leads to"
                        .to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Whether a run made a directory.
fn is_ours(dir: &Path) -> Result<bool> {
    let marker = dir.join(UNFINISHED_NAME);
    if is_marker(&marker) {
        return Ok(true);
    }
    // Not empty but for the first file of a run, which a kill may have left under a temporary name.
    let io = |e| Error::io(dir, "list", e);
    let part = part_name(Path::new(UNFINISHED_NAME)).into_os_string();
    let mut others = 0;
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let is_part = name.as_encoded_bytes().starts_with(part.as_encoded_bytes());
        others += usize::from(!is_part);
    }
    let manifest = dir.join(manifest::FILE_NAME);
    Ok(others == 0 || (is_file(&manifest) && Manifest::read(&manifest).is_ok()))
}

/// Whether a file is the marker of an unfinished output.
fn is_marker(path: &Path) -> bool {
    let mut text = Vec::new();
    let read = |file: fs::File| file.take(MARKER_BYTES).read_to_end(&mut text);
    is_file(path)
        && fs::File::open(path).and_then(read).is_ok()
        && String::from_utf8_lossy(&text).contains(NOTE_START)
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file())
}
