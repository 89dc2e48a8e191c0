//! Large pages for memory that is read sequentially: fewer misses of the address translation cache.

/// Smallest allocation, in bytes, that is placed on large pages.
#[cfg(target_os = "linux")]
const SMALLEST: usize = 4 << 20;

/// `len` zeroed elements, on large pages where the system supports them.
///
/// Use it for the weights of a model only: the system may clear and reserve up to 2 MB more than `len` needs.
pub fn large_zeroed<T: bytemuck::Zeroable + Clone>(len: usize) -> Vec<T> {
    let memory = vec![T::zeroed(); len];
    #[cfg(target_os = "linux")]
    if size_of_val(&memory[..]) >= SMALLEST {
        let page = 4096;
        let begin = (memory.as_ptr() as usize).next_multiple_of(page);
        let end = (memory.as_ptr_range().end as usize) / page * page;
        // SAFETY: the range consists of whole pages of `memory`. The advice changes no contents; if it
        // fails, only speed is lost.
        unsafe {
            libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_HUGEPAGE);
        }
    }
    memory
}
