//! The directory everything that is measured lies in.

use std::io::Result;
use std::path::Path;
use std::time::{Duration, Instant};

/// It goes when the measurement ends, however that ends: what an interrupt leaves at work may make files for a
/// moment longer, so that one try to remove it is not enough.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes it beside what lies in `dir`.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        tempfile::Builder::new().prefix(".precedent-bench-").tempdir_in(dir).map(Self)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < deadline {
            // An error says little: a file that was renamed meanwhile is one. Whether it is gone, a look says.
            let _ = std::fs::remove_dir_all(self.path());
            if self.path().try_exists().is_ok_and(|there| !there) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
