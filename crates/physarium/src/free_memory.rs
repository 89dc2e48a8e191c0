/*!
The memory that this process can still take, as Linux tells it.

In: `/proc` and `/sys/fs/cgroup`. Out: bytes: what the machine has available, or less if a control group (of a container,
a batch system or systemd) allows less. Pages of files that the system can drop at any time count as free.
*/

use std::fs::read_to_string;
use std::path::Path;

/// Bytes that are free; `None` if the system does not tell.
pub(crate) fn free_memory() -> Option<u64> {
    below(Path::new("/"))
}

/// The same, of a system whose files are below `root`.
fn below(root: &Path) -> Option<u64> {
    let machine = read_to_string(root.join("proc/meminfo")).ok()?;
    let machine = field(&machine, "MemAvailable:")?.saturating_mul(1024);
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = root.join("sys/fs/cgroup");
    let allowed = groups.lines().filter_map(|line| {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else {
            return None;
        };
        match controllers.split(',').any(|name| name == "memory") {
            true => V1.free(&mounts.join("memory"), path),
            false if controllers.is_empty() => V2.free(&mounts, path),
            false => None,
        }
    });
    Some(allowed.fold(machine, u64::min))
}

/// The files of a version of control groups.
struct Version {
    limits: &'static [&'static str],
    usage: &'static str,
    /// Fields of `memory.stat`: pages of files.
    files: [&'static str; 2],
}

const V1: Version = Version {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};
const V2: Version = Version {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    files: ["inactive_file", "active_file"],
};

impl Version {
    /// Bytes that a group and all above it allow; `None` if none of them has a limit. In a container, the path of the
    /// group may be one outside of it: what is mounted is then the group itself.
    fn free(&self, mount: &Path, group: &str) -> Option<u64> {
        let group = Path::new(group.trim_start_matches('/'));
        group.ancestors().filter_map(|group| self.free_in(&mount.join(group))).min()
    }

    fn free_in(&self, dir: &Path) -> Option<u64> {
        let number = |name: &&str| read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = self.limits.iter().filter_map(number).min()?;
        let stat = read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let files: u64 = self.files.iter().filter_map(|name| field(&stat, name)).sum();
        let used = number(&self.usage)?.saturating_sub(files);
        Some(limit.saturating_sub(used))
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is free on a system with these files.
    fn free(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        below(root.path())
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable:    8000 kB\n");

    #[test]
    fn a_machine_without_control_groups() {
        assert_eq!(free(&[]), None);
        assert_eq!(free(&[("proc/meminfo", "MemTotal: 9000 kB\n")]), None);
        assert_eq!(free(&[MEMINFO]), Some(8_192_000));
        let group = ("proc/self/cgroup", "0::/\n");
        assert_eq!(free(&[MEMINFO, group]), Some(8_192_000));
        assert!(free_memory().is_none_or(|free| free > 0));
    }

    #[test]
    fn the_least_of_all_groups_above() {
        let slice = "sys/fs/cgroup/user.slice";
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "1:name=systemd:/user.slice\n0::/user.slice/run:1.scope\n"),
            (&format!("{slice}/memory.max"), "5000000\n"),
            (&format!("{slice}/memory.high"), "max\n"),
            (&format!("{slice}/memory.current"), "3000000\n"),
            (&format!("{slice}/memory.stat"), "anon 1\ninactive_file 900000\nactive_file 100000\n"),
            (&format!("{slice}/run:1.scope/memory.max"), "max\n"),
            (&format!("{slice}/run:1.scope/memory.high"), "4000000\n"),
            (&format!("{slice}/run:1.scope/memory.current"), "500000\n"),
        ];
        assert_eq!(free(&files), Some(3_000_000));
        assert_eq!(free(&files[..6]), Some(3_000_000));
        assert_eq!(free(&[&files[..2], &files[6..]].concat()), Some(3_500_000));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let v1 = "sys/fs/cgroup/memory";
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "4:cpu,memory:/docker/0123\n3:pids:/docker/0123\n0::/\n"),
            (&format!("{v1}/memory.limit_in_bytes"), "1000000\n"),
            (&format!("{v1}/memory.usage_in_bytes"), "1200000\n"),
            (&format!("{v1}/memory.stat"), "total_inactive_file 300000\ntotal_active_file 0\n"),
        ];
        assert_eq!(free(&files), Some(100_000));
        // No limit is a very large number.
        let mut unlimited = files;
        unlimited[2].1 = "9223372036854771712\n";
        assert_eq!(free(&unlimited), Some(8_192_000));
        // Used up.
        let mut full = files;
        full[3].1 = "9000000\n";
        assert_eq!(free(&full), Some(0));
    }
}
