//! One arena for the system's allocator, so that the memory of the process is what its budgets say.
//!
//! glibc gives threads arenas of their own, each of which keeps the buffers of megabytes that were freed in it; with a pool of
//! threads that come and go the process came to several times its budgets. One arena gives freed buffers to whoever asks next.
//! Changes nothing elsewhere: another C library has no such setting.
//!
//! Source: mallopt(3), `M_ARENA_MAX`.

/// Bounds the arenas; to be called before the process has threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a setting of the C library")]
pub fn bound_arenas() {
    // SAFETY: the call takes two numbers, and no other thread uses the allocator's settings.
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    if set != 1 {
        tracing::warn!("the allocator keeps its own number of arenas; expect more resident memory");
    }
}

/// Bounds the arenas; to be called before the process has threads.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound_arenas() {}
