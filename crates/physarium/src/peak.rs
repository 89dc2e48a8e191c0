//! Peak memory of this process, as Linux reports it.

/// What [`reset`] reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peak {
    /// The next figure is that of the time since.
    New,
    /// The next figure includes earlier memory: the system does not allow a new peak.
    Old,
}

/// Peak resident bytes since the process began, or since the last row of a
/// comparison; `None` if the system does not report them.
pub fn peak_resident_bytes() -> Option<u64> {
    of_status("VmHWM:")
}

/// Resident bytes of the process now; `None` if the system does not report them.
pub(crate) fn resident_bytes() -> Option<u64> {
    of_status("VmRSS:")
}

fn of_status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Starts a new peak, from the memory that the process has now.
pub(crate) fn reset() -> Peak {
    physarium_model::release_memory();
    match std::fs::write("/proc/self/clear_refs", "5") {
        Ok(()) => Peak::New,
        Err(_) => Peak::Old,
    }
}
