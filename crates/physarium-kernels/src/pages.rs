//! Large pages for memory that is read from end to end: fewer misses when addresses are translated.

/// Memory that is smaller stays as it is.
#[cfg(target_os = "linux")]
const SMALLEST: usize = 4 << 20;

/// `len` elements of nought, on large pages where the system has them.
///
/// Only the weights of a model are worth it: the system may clear and keep up to 2 MB more.
pub fn large_zeroed<T: bytemuck::Zeroable + Clone>(len: usize) -> Vec<T> {
    let memory = vec![T::zeroed(); len];
    #[cfg(target_os = "linux")]
    if size_of_val(&memory[..]) >= SMALLEST {
        let page = 4096;
        let begin = (memory.as_ptr() as usize).next_multiple_of(page);
        let end = (memory.as_ptr_range().end as usize) / page * page;
        // SAFETY: whole pages of an allocation of ours; the advice changes nothing that a program can
        // see but its speed, which is why its failure is none either.
        unsafe {
            libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_HUGEPAGE);
        }
    }
    memory
}
