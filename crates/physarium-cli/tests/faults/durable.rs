//! The order of the commit protocol, read from the system calls of an undisturbed run: a name appears only once
//! its contents are on disk. Killing a run cannot reveal a missing `fsync`, because the page cache survives.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::syscalls::{strace, strace_works};
use super::{Fixture, JOURNAL, Ran, SHARDS, program, shard_name};

/// The effect of a call on paths. A change of a name is a change of its directory.
#[derive(Debug, PartialEq)]
enum Event {
    Open { path: PathBuf, flags: String },
    Write { path: PathBuf, text: String },
    Resize { path: PathBuf },
    Sync { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    MakeDir { path: PathBuf },
}

const CALLS: &str = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,\
                     unlink,unlinkat,mkdir,mkdirat,rmdir";

/// Runs under strace and reads the successful calls in order.
fn events(fixture: &Fixture, arguments: &[&str]) -> Vec<Event> {
    let log = fixture.path().join("order.log");
    let mut command = strace(fixture.path(), &log);
    command.args(["-y", "-s", "40", "-e", &format!("trace={CALLS}"), program()]);
    command.args(["prune", "model", "--out", "out", "--threads", "1", "--quiet"]).args(arguments);
    let ran = Ran::of(&mut command);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(log).unwrap();
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut events = Vec::new();
    for line in text.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        // A call that another thread's call interrupts is logged in two parts; it counts where it ends.
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, first);
        } else if call.starts_with("<... ") {
            let rest = call.split_once(" resumed>").unwrap().1;
            let whole = format!("{}{rest}", begun.remove(thread).unwrap());
            events.extend(event(&whole, fixture.path()));
        } else {
            events.extend(event(call, fixture.path()));
        }
    }
    events
}

/// One line of the log; `None` for a call that failed or is not traced here.
fn event(line: &str, root: &Path) -> Option<Event> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(" = "))?;
    if result.starts_with('-') {
        return None;
    }
    let open = |arguments: &str| {
        let inside = arguments.split_once('<')?.1.split_once('>')?.0;
        Some(PathBuf::from(inside))
    };
    let quoted = |n: usize| {
        let text = arguments.split('"').nth(2 * n + 1)?;
        Some(root.join(text))
    };
    let whole = |n: usize| {
        // `unlinkat(5</dir>, "name")`: relative to the open directory.
        let path = quoted(n)?;
        let relative = arguments.split('"').nth(2 * n + 1)?;
        let dir =
            arguments.split('"').nth(2 * n)?.rsplit_once('<').and_then(|(_, d)| d.split_once('>'));
        Some(match dir {
            Some((dir, _)) if !relative.starts_with('/') => Path::new(dir).join(relative),
            _ => path,
        })
    };
    Some(match name {
        "openat" => {
            let flags = arguments.rsplit('"').next()?.to_owned();
            Event::Open { path: whole(0)?, flags }
        }
        "write" | "pwrite64" => {
            let text = arguments.split_once(", ")?.1.to_owned();
            Event::Write { path: open(arguments)?, text }
        }
        "ftruncate" => Event::Resize { path: open(arguments)? },
        "fsync" | "fdatasync" => Event::Sync { path: open(arguments)? },
        "rename" | "renameat" | "renameat2" => Event::Rename { from: whole(0)?, to: whole(1)? },
        "unlink" | "unlinkat" | "rmdir" => Event::Unlink { path: whole(0)? },
        "mkdir" | "mkdirat" => Event::MakeDir { path: whole(0)? },
        _ => return None,
    })
}

/// What a power failure would lose: files and directories changed since their last sync.
#[derive(Default)]
struct Disk {
    unsynced: BTreeMap<PathBuf, &'static str>,
}

impl Disk {
    fn name_changed(&mut self, path: &Path, how: &'static str) {
        // The lock only concerns running processes; its name need not survive a power failure.
        if path.extension().is_some_and(|end| end == "lock") {
            return;
        }
        self.unsynced.insert(path.parent().unwrap().to_owned(), how);
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Open { path, flags } if flags.contains("O_CREAT") => {
                self.unsynced.insert(path.clone(), "created");
                self.name_changed(path, "has a new name in it");
            }
            Event::Open { .. } => {}
            Event::Write { path, .. } => {
                self.unsynced.insert(path.clone(), "written");
            }
            Event::Resize { path } => {
                self.unsynced.insert(path.clone(), "cut");
            }
            Event::Sync { path } => {
                self.unsynced.remove(path);
            }
            Event::Rename { from, to } => {
                let moved: Vec<_> =
                    self.unsynced.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    let how = self.unsynced.remove(&path).unwrap();
                    let rest = path.strip_prefix(from).unwrap();
                    let new = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    self.unsynced.insert(new, how);
                }
                self.name_changed(from, "lost a name");
                self.name_changed(to, "has a new name in it");
            }
            Event::Unlink { path } => {
                self.unsynced.retain(|changed, _| !changed.starts_with(path));
                self.name_changed(path, "lost a name");
            }
            Event::MakeDir { path } => {
                self.unsynced.insert(path.clone(), "made");
                self.name_changed(path, "has a new name in it");
            }
        }
    }

    /// Fails if anything at or below `path` would be lost.
    fn require(&self, path: &Path, when: &str) {
        let lost = self.unsynced.iter().find(|(changed, _)| changed.starts_with(path));
        assert!(lost.is_none(), "{when}: {lost:?} is not synced");
    }

    /// Fails if names in the directory would be lost.
    fn require_names(&self, dir: &Path, when: &str) {
        assert!(!self.unsynced.contains_key(dir), "{when}: {} is not synced", dir.display());
    }
}

/// Replays a run and checks the protocol at each step that makes something visible.
fn check_order(fixture: &Fixture, events: &[Event], shards_to_write: usize) {
    let root = fs::canonicalize(fixture.path()).unwrap();
    let (staging, out) = (root.join(".out.physarium-partial"), root.join("out"));
    let journal = staging.join(JOURNAL);
    let manifest = staging.join("physarium.manifest.json");
    let mut disk = Disk::default();
    let (mut journalled, mut published, mut reported) = (0, 0, 0);
    for event in events {
        match event {
            Event::Open { path, flags } => {
                let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"];
                let writes = writes.iter().any(|flag| flags.contains(flag));
                let input = path.starts_with(root.join("model"));
                assert!(!(input && writes), "the input is opened for writing: {event:?}");
                assert!(!(path.starts_with(&out) && writes), "the output is written: {event:?}");
                if path.extension().is_some_and(|end| end == "part") && writes {
                    // The next shard begins once the previous shard's journal line is durable.
                    disk.require_names(&journal, "next shard");
                }
            }
            Event::Rename { from, to } if *to == out => {
                assert_eq!(*from, staging);
                assert_eq!(journalled, shards_to_write, "published before all shards are written");
                disk.require(&staging, "publish");
                published += 1;
            }
            Event::Rename { from, to } => {
                disk.require(from, "rename");
                assert!(
                    !from.starts_with(root.join("model")) && !to.starts_with(root.join("model"))
                );
            }
            Event::Write { path, text }
                if *path == journal && text.contains("record\\\":\\\"shard") =>
            {
                disk.require_names(&staging, "journal line");
                // Only the journal may be unsynced.
                for number in 1..=SHARDS {
                    disk.require(&staging.join(shard_name(number)), "journal line");
                    let part = staging.join(format!("{}.part", shard_name(number)));
                    disk.require(&part, "journal line");
                }
                journalled += 1;
            }
            Event::Write { .. } => {}
            Event::Unlink { path } if path.ends_with("physarium.unfinished.json") => {
                disk.require(&manifest, "the marker goes");
                disk.require(&staging, "the marker goes");
            }
            _ => {}
        }
        // The summary is the first output on stdout.
        if matches!(event, Event::Write { text, .. } if text.starts_with("\"pruned ")) {
            assert_eq!(published, 1, "success is reported before the output exists");
            disk.require_names(&root, "success");
            reported += 1;
        }
        disk.apply(event);
    }
    assert_eq!((journalled, published, reported), (shards_to_write, 1, 1));
    disk.require(&out, "end");
    assert!(fixture.check("undisturbed"));
}

#[test]
fn names_appear_only_when_what_they_name_is_durable() {
    if !strace_works() {
        return;
    }
    let fixture = Fixture::new(32);
    let fresh = events(&fixture, &[]);
    assert!(fresh.len() > 60, "{} calls", fresh.len());
    check_order(&fixture, &fresh, SHARDS);
}

#[test]
fn a_resumed_run_keeps_the_same_order() {
    if !strace_works() {
        return;
    }
    let fixture = Fixture::new(128);
    fixture.killed_after(1);
    let left = SHARDS - fixture.journalled_shards();
    let continued = events(&fixture, &[]);
    check_order(&fixture, &continued, left);
}

/// The check detects a missing sync.
#[test]
fn a_missing_sync_is_detected() {
    let path = |name: &str| PathBuf::from(format!("/w/{name}"));
    let mut disk = Disk::default();
    let flags = "O_WRONLY|O_CREAT".to_owned();
    disk.apply(&Event::Open { path: path("s/a.part"), flags });
    disk.apply(&Event::Write { path: path("s/a.part"), text: String::new() });
    disk.apply(&Event::Sync { path: path("s") });
    let caught = |disk: &Disk, name: &str| {
        disk.unsynced.keys().any(|changed| changed.starts_with(path(name)))
    };
    assert!(caught(&disk, "s"));
    disk.apply(&Event::Rename { from: path("s/a.part"), to: path("s/a") });
    assert!(caught(&disk, "s/a") && !caught(&disk, "s/a.part"));
    disk.apply(&Event::Sync { path: path("s/a") });
    assert!(caught(&disk, "s"));
    disk.apply(&Event::Sync { path: path("s") });
    assert!(!caught(&disk, "s"));
    let line = "openat(AT_FDCWD</w>, \"m/x\", O_RDONLY|O_CLOEXEC) = 3</w/m/x>";
    let flags = ", O_RDONLY|O_CLOEXEC".to_owned();
    assert_eq!(event(line, Path::new("/w")), Some(Event::Open { path: path("m/x"), flags }));
}
