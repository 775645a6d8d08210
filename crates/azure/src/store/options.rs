//! How a log on a service is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use precedent_core::Time;
use precedent_core::memory::Clock;
use precedent_engine::MirrorOptions;

/// The environment variable that names the directory of local copies.
pub const CACHE_VARIABLE: &str = "PRECEDENT_CACHE";

/// Whether a store is opened to be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Any number of handles do, in any number of processes.
    #[default]
    ReadWrite,
    /// Appends, copies and registers are refused.
    ReadOnly,
}

/// Told how far catching up is, when it takes more than one step: events that are here by now, and whether that is all.
pub type CatchingUp = Arc<dyn Fn(u64, bool) + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Whether it may be written to.
    pub access: Access,
    /// Where the local copies of logs are kept. They can be deleted at any time. The default is the directory that
    /// [`CACHE_VARIABLE`] names, or `precedent` in the user's directory for caches.
    pub cache: PathBuf,
    /// Goes on although the clock is off by more than five minutes. The log records that.
    pub accept_clock: bool,
    /// What time it is.
    pub clock: Clock,
    /// Whether this machine's clock is held against the service's. A test that stops the clock switches it off.
    pub service_clock: bool,
    /// How long a frame is sent again whose answer was lost. Then its appends are `unknown` and the handle stops.
    pub settle_for: Duration,
    /// How long an append waits for its documents. They are written all the same afterwards.
    pub documents_wait: Duration,
    /// Data of more bytes than this is named in its document, with an excerpt, instead of standing there once more.
    pub inline_bytes_max: usize,
    /// How often somebody who follows a log looks for what other processes have recorded.
    pub poll: Duration,
    /// How a read waits for its [`at_least`](precedent_core::Read::at_least).
    pub at_least_wait: Duration,
    /// How the local copies are kept.
    pub mirror: MirrorOptions,
    /// Told how far catching up is.
    pub catching_up: Option<CatchingUp>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            cache: cache_directory(),
            accept_clock: false,
            clock: Arc::new(|| Time::from_system(std::time::SystemTime::now())),
            service_clock: true,
            settle_for: Duration::from_secs(60),
            documents_wait: Duration::from_secs(1),
            inline_bytes_max: 32 << 10,
            poll: Duration::from_millis(500),
            at_least_wait: Duration::from_secs(5),
            mirror: MirrorOptions::default(),
            catching_up: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("access", &self.access)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// The user's directory for caches, as the system's conventions have it.
fn cache_directory() -> PathBuf {
    let from =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = from(CACHE_VARIABLE) {
        return named;
    }
    let caches = match () {
        () if cfg!(windows) => from("LOCALAPPDATA"),
        () if cfg!(target_os = "macos") => from("HOME").map(|home| home.join("Library/Caches")),
        () => from("XDG_CACHE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| from("HOME").map(|home| home.join(".cache"))),
    };
    // Without a home (a service, a container) it is as good as lost at the next start, and is made anew.
    caches.unwrap_or_else(std::env::temp_dir).join("precedent")
}

/// Where the local copy of a log is kept: `place` counts those that several processes have open at once.
pub(super) fn mirror_directory(
    cache: &Path,
    identity: &str,
    log: impl std::fmt::Display,
    place: u32,
) -> PathBuf {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(identity);
    let store: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    cache.join(store).join(log.to_string()).join(place.to_string())
}
