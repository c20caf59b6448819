//! Gives memory back that only the start needed.
//!
//! **Code.** Starting walks through most of the program once: migrations, templates, translations,
//! schemas. The kernel maps the pages around each step, sixteen at a time, and afterwards nothing
//! asks it to let go, so that an idle server seems to hold 20 MiB of program that it will not run
//! again. What is needed later comes back page by page from the page cache.
//!
//! **Heap.** Our allocator keeps what a thread has freed for that thread's next request, and what
//! the start freed is several times what a server needs that has nothing to do. SQLite and other
//! C code use the C library's allocator, which gives each thread an arena of its own.

#[cfg(target_os = "linux")]
use std::io;

// Its library has `mi_collect`.
use mimalloc as _;

/// Before threads start: how many arenas the C library's allocator makes.
pub(crate) fn few_arenas() {
    // SAFETY: changes a number of the allocator, under its own lock.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library's interface")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// After the start, from the thread that did most of it.
pub(crate) fn give_back() {
    #[expect(unsafe_code, reason = "the allocator's interface is C")]
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: frees pages of this thread's heap in which nothing is left.
    #[expect(unsafe_code, reason = "the allocator's interface is C")]
    unsafe {
        mi_collect(true);
    }
    give_back_code();
}

/// Lets go of the mapped pages of this program's file. Does nothing where the system cannot do it.
#[cfg(target_os = "linux")]
fn give_back_code() {
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
fn give_back_code() {}
