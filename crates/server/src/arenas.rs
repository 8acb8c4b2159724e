//! How the system's allocator is to keep memory, so that the memory of the process is what its budgets say.
//!
//! glibc gives threads arenas of their own, each of which keeps the buffers of megabytes that were freed in it; with a pool of
//! threads that come and go the process came to several times its budgets. One arena gives freed buffers to whoever asks next. It
//! also keeps them, where glibc by itself would fetch fresh pages for every buffer of a megabyte or more: in a fold that is
//! about a tenth of the CPU time; what is free at the end of the arena goes back from a bound on. Changes nothing elsewhere:
//! another C library has no such settings.
//!
//! Source: mallopt(3), `M_ARENA_MAX`, `M_MMAP_THRESHOLD`, `M_TRIM_THRESHOLD`.

/// Bounds the arenas and what they keep; to be called before the process has threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "settings of the C library")]
pub fn bound_arenas() {
    let settings = [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, KEPT_BUFFER_LEN_MAX),
        (libc::M_TRIM_THRESHOLD, KEPT_LEN_MAX),
    ];
    for (setting, value) in settings {
        // SAFETY: the call takes two numbers, and no other thread uses the allocator's settings.
        let set = unsafe { libc::mallopt(setting, value) };
        if set != 1 {
            tracing::warn!(setting, "the allocator does not take a setting; expect more resident memory");
        }
    }
}

/// A longer buffer, in bytes, goes back to the system as soon as it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BUFFER_LEN_MAX: libc::c_int = 32 * 1024 * 1024;
/// When this many bytes are free at the end of the arena, they go back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_LEN_MAX: libc::c_int = 64 * 1024 * 1024;

/// Bounds the arenas and what they keep; to be called before the process has threads.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound_arenas() {}
