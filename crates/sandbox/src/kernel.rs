//! Three calls that have no safe form in the crates we use: two to the kernel, one to the runtime. The only `unsafe` of this crate.
//!
//! Source: close_range(2); landlock_create_ruleset(2); the safety section of tokio's `AsyncFd`.

#![expect(
    unsafe_code,
    reason = "two system calls on numbers alone, and a descriptor registered by its owner"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Marks every descriptor but 0, 1 and 2 to be closed when the program is executed.
///
/// They are not closed here: until then the confiner still reports through one of them.
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    let first: libc::c_uint = 3;
    // SAFETY: the call takes three numbers; with this flag it closes nothing, so no owner of a descriptor loses it.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The version of Landlock's interface that the kernel offers; none where it is not built in or not switched on.
pub(crate) fn landlock_abi() -> Option<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const ASK_VERSION: libc::c_uint = 1;
    let (nothing, no_bytes): (*const libc::c_void, libc::size_t) = (std::ptr::null(), 0);
    // SAFETY: with this flag the kernel wants a null pointer and the size 0; it reads and makes nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, no_bytes, ASK_VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// A descriptor whose readiness the runtime tells; to be called within the runtime.
pub(crate) fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor has one number for as long as it lives, and the result owns it until it is taken out again.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    watched.map_err(io::Error::from)
}
