//! Gives back what only starting needed.
//!
//! Starting walks through most of the program once: migrations, templates, translations, schemas.
//! The kernel maps the code around each step, sixteen pages at a time, and afterwards nothing asks
//! it to let go, so that an idle server seems to hold 20 MiB of code that it will not run again.
//! Code that is needed later comes back page by page from the page cache.

/// Lets go of the mapped pages of this program's code. Does nothing where the system cannot do it.
#[cfg(target_os = "linux")]
pub(crate) fn give_back_code() {
    let (Ok(own), Ok(maps)) = (
        std::env::current_exe(),
        std::fs::read_to_string("/proc/self/maps"),
    ) else {
        return;
    };
    let own = own.display().to_string();
    for (start, end) in maps.lines().filter_map(|line| code_of(line, &own)) {
        // SAFETY: the range is a private mapping of a file that this process maps read-only and
        // executable and never writes (code has no relocations), so each page that is dropped is
        // read again, unchanged, when it is next touched.
        #[expect(unsafe_code, reason = "madvise has no safe form")]
        let refused = unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) != 0
        };
        if refused {
            tracing::debug!(error = %std::io::Error::last_os_error(), "the code's pages stay mapped");
        }
    }
}

/// There is no such call here that would be worth it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_back_code() {}

/// First address and end of a line of `/proc/self/maps` that is executable code of this program.
#[cfg(target_os = "linux")]
fn code_of(line: &str, own: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()? != "r-xp" || !line.ends_with(own) {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_own_code_is_found() {
        let own = "/opt/meguri";
        let line = |rights: &str, path: &str| {
            format!("55d0c0a00000-55d0c0a01000 {rights} 00df0000 fe:00 1234    {path}")
        };
        assert_eq!(
            code_of(&line("r-xp", own), own),
            Some((0x55d0_c0a0_0000, 0x55d0_c0a0_1000))
        );
        assert_eq!(code_of(&line("r--p", own), own), None);
        assert_eq!(code_of(&line("rw-p", own), own), None);
        assert_eq!(code_of(&line("r-xp", "/lib/libc.so.6"), own), None);
        assert_eq!(code_of("nonsense", own), None);
    }

    #[test]
    fn this_program_runs_on_afterwards() {
        give_back_code();
        assert_eq!(format!("{}", 6 * 7), "42");
    }
}
