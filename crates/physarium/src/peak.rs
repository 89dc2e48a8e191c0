//! The most memory that this process had resident, as Linux tells.

/// Since the process began, or since [`reset`]; `None` where the system does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Counts anew. Where the system does not allow it, the next figure includes what was before.
pub(crate) fn reset() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
