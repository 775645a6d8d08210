//! Every promise of a store, on Table Storage.

use std::sync::Arc;

use azure_core::http::Method;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use precedent_azure::remote::Remote;
use precedent_azure::table::entity::Value;
use precedent_azure::table::{Options, TableRemote};
use precedent_core::conformance::{Failure, assert_conforms};
use precedent_core::{LogName, Position, Result};

use crate::frames::copied;
use crate::support::azurite::Azurite;
use crate::support::conformance::{OnService, Service};
use crate::support::faults::{Fault, Faults};
use crate::{all_rows, azurite};

struct Table {
    azurite: &'static Azurite,
    name: String,
    faults: Arc<Faults>,
}

impl Table {
    fn remote(&self) -> TableRemote {
        let settings = self.azurite.settings(&self.name, Options::default());
        let remote = TableRemote::with_policies(&settings, vec![self.faults.clone()]);
        // Boundaries are crossed in the middle of everything.
        remote.expect("the settings of an emulator").with_bucket_bits(3)
    }
}

impl Service for Table {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Remote>>> {
        async move { Ok(Arc::new(self.remote()) as Arc<dyn Remote>) }.boxed()
    }

    fn fail_next(&self, failure: Failure) {
        match failure {
            Failure::Write => {
                self.faults.next(1, Some(Method::Post), "$batch", Fault::error(403, "AuthorizationFailure"));
            }
            Failure::Sync => {
                self.faults.next(1, Some(Method::Post), "$batch", Fault::LoseAnswer);
                self.faults.next(usize::MAX, None, "", Fault::NoConnection);
            }
        }
    }

    fn recover(&self) {
        self.faults.clear();
    }

    fn damage<'a>(&'a self, _log: &'a LogName, position: Position) -> BoxFuture<'a, ()> {
        async move {
            let remote = self.remote();
            let rows = all_rows(&remote).await;
            let of_event = |key: &str| key.starts_with(&format!("frame:{:020}:", position.0));
            let row = rows.iter().find(|row| of_event(&row.key.row)).expect("each frame has one event");
            let flipped = |name: &str| {
                (name == "d00").then(|| {
                    let mut bytes = row.binary("d00").expect("the frame begins here").to_vec();
                    bytes[40] ^= 0x10;
                    Value::Binary(bytes.into())
                })
            };
            let entity = copied(row, flipped, "");
            remote.client().delete(&row.key).await.expect("deleted");
            remote.client().insert(&entity).await.expect("another one in its place");
        }
        .boxed()
    }
}

#[test]
fn a_log_in_a_table_keeps_the_promises() {
    let azurite = azurite!();
    assert_conforms(&OnService::new(async || {
        let name = azurite.fresh_name();
        let table = Table { azurite, name, faults: Arc::default() };
        assert!(table.remote().client().create_table().await.expect("a table"), "the name is a new one");
        table
    }));
}
