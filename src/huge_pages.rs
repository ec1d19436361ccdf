//! Huge pages of memory. A connection has buffers of eight kilobytes of which most never fill more than one page of four; in huge
//! pages, which the allocator asks the system for, all of it counts.

/// Has the system give this process, and what it starts, pages of the usual size. Only Linux knows this; where it can't be done,
/// streams of counts take more memory, and nothing else changes.
pub(crate) fn refuse() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
