//! Table Storage for the tests of this crate: one Azurite for each test binary.

use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use azure_core::http::policies::Policy;
use precedent_azure::cloud::CLOUDS;
use precedent_azure::table::client::Retries;
use precedent_azure::table::{Options, Settings, TableRemote};
use precedent_emulators::azurite;

/// Tries of a call of a remote that was made here. On this machine nothing is worth a longer wait.
pub(crate) const TRIES: usize = 4;

/// A running emulator.
pub(crate) struct Azurite(azurite::Azurite);

/// The emulator of this test binary, or `None` after the reason was said.
pub(crate) fn azurite() -> Option<&'static Azurite> {
    static STARTED: OnceLock<Option<Azurite>> = OnceLock::new();
    let start = || azurite::Azurite::start(Path::new(env!("CARGO_TARGET_TMPDIR"))).map(Azurite);
    STARTED.get_or_init(start).as_ref()
}

impl Deref for Azurite {
    type Target = azurite::Azurite;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Azurite {
    /// The settings of a table. What this machine's environment says is left out.
    pub(crate) fn settings(&self, table: &str, options: Options) -> Settings {
        let settings = Settings::parse_with(&self.url(table), options, CLOUDS[0], |_| None);
        let retries = Retries {
            tries_max: TRIES as u32,
            first_wait: Duration::from_millis(1),
            wait_max: Duration::from_millis(2),
            ..Retries::default()
        };
        Settings { retries, ..settings.expect("the URL of an emulator") }
    }

    /// A new, empty table.
    pub(crate) async fn fresh(&self) -> TableRemote {
        self.fresh_with(Options::default(), Vec::new()).await
    }

    /// A new, empty table, with options and policies.
    pub(crate) async fn fresh_with(&self, options: Options, policies: Vec<Arc<dyn Policy>>) -> TableRemote {
        let settings = self.settings(&self.fresh_name(), options);
        let remote = TableRemote::with_policies(&settings, policies).expect("a remote");
        assert!(remote.client().create_table().await.expect("a table"), "the name is a new one");
        remote
    }
}
