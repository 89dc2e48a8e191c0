//! Memory that the allocator keeps after it was freed.

/// Gives freed memory back to the system, where the allocator can: a peak that is measured from here on does not
/// include what earlier work has left.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` has no precondition, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
