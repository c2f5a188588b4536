use std::env;
use std::path::{Path, PathBuf};

/// Where guests are compiled: `guests` inside the target directory that this program itself was built in, so that build scripts and
/// tests share it; for a program installed elsewhere, `target/guests` beside the guest.
#[must_use]
pub fn target_dir(guest: &Path) -> PathBuf {
    let here = env::var_os("OUT_DIR").map(PathBuf::from).or_else(|| env::current_exe().ok());
    let ours = here.as_deref().and_then(|path| path.ancestors().skip(1).find(|dir| dir.join("CACHEDIR.TAG").is_file()));
    ours.map_or_else(|| guest.join("target"), Path::to_owned).join("guests")
}
