//! Gives memory back that only a rare piece of work needed.
//!
//! **Code.** Starting walks through most of the program once: migrations, templates, translations,
//! schemas. The kernel maps the pages around each step, sixteen at a time, and afterwards nothing
//! asks it to let go, so that an idle server seems to hold 20 MiB of program that it will not run
//! again. What is needed later comes back page by page from the page cache.
//!
//! **Heap.** An allocator keeps what a thread has freed for that thread's next request. Work that
//! is rare and large runs on a thread of its own, whose memory goes back when it ends.

use std::io;

use tokio::sync::oneshot;

/// Lets go of the mapped pages of this program's file. Does nothing where the system cannot do it.
#[cfg(target_os = "linux")]
pub(crate) fn give_back_code() {
    /// Called for the program first, then for each library; anything but 0 ends the walk.
    #[expect(unsafe_code, reason = "the loader's interface is a C callback")]
    unsafe extern "C" fn of_program(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        _data: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader hands out its own description of what it has mapped, and `dlpi_phnum`
        // headers lie at `dlpi_phdr` for as long as the program runs.
        let (base, headers) = unsafe {
            let info = &*info;
            let count = usize::from(info.dlpi_phnum);
            (
                info.dlpi_addr,
                std::slice::from_raw_parts(info.dlpi_phdr, count),
            )
        };
        headers
            .iter()
            .filter(|one| is_never_written(one))
            .for_each(|one| drop_pages(base, one));
        1
    }
    // SAFETY: the callback keeps nothing of what it is given.
    #[expect(unsafe_code, reason = "the loader's interface is a C callback")]
    unsafe {
        libc::dl_iterate_phdr(Some(of_program), std::ptr::null_mut());
    }
}

/// Code and constants: a part of the file that is loaded read-only. What the loader relocates is
/// in a writable part, and would be lost.
#[cfg(target_os = "linux")]
fn is_never_written(header: &libc::Elf64_Phdr) -> bool {
    header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
}

#[cfg(target_os = "linux")]
fn drop_pages(base: u64, header: &libc::Elf64_Phdr) {
    const PAGE: u64 = 4096;
    let start = (base + header.p_vaddr) / PAGE * PAGE;
    let end = (base + header.p_vaddr + header.p_memsz).next_multiple_of(PAGE);
    // SAFETY: the range is a private mapping of a file that is never written, so each page that is
    // dropped is read again, unchanged, when it is next touched.
    #[expect(unsafe_code, reason = "madvise has no safe form")]
    let refused = unsafe {
        libc::madvise(
            start as *mut libc::c_void,
            (end - start) as usize,
            libc::MADV_DONTNEED,
        ) != 0
    };
    if refused {
        tracing::debug!(error = %io::Error::last_os_error(), "the program's pages stay mapped");
    }
}

/// There is no such call here that would be worth it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_back_code() {}

/// Does rare and large work on a thread of its own.
///
/// # Errors
/// No thread can be started, or the work panicked.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("apart".to_owned())
        .spawn(move || {
            // A caller that went away does not want the result.
            let _ = done.send(work());
        })?;
    result.await.map_err(io::Error::other)
}
