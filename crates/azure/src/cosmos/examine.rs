//! What is to be said about a container: throughput, throttling, indexing, regions.

use std::sync::atomic::Ordering;

use azure_core::http::headers::{HeaderName, HeaderValue};
use azure_data_cosmos::models::ContainerProperties;
use azure_data_cosmos::options::{OperationOptionsBuilder, ReadContainerOptions};
use precedent_core::store::{Finding, Severity};
use precedent_core::{LogId, LogName, Result};

use super::CosmosRemote;

/// The request header that has the service say how much a container holds.
const ASK_FOR_USAGE: &str = "x-ms-documentdb-populatequotainfo";
/// What a logical partition holds at most.
const PARTITION_BYTES_MAX: u64 = 20 << 30;

/// The bytes of all items, from what the service says of a container's usage: `name=value` pairs, sizes in KiB.
fn stored_bytes(usage: &str) -> Option<u64> {
    let documents = usage.split(';').find_map(|pair| pair.trim().strip_prefix("documentsSize="))?;
    documents.parse::<u64>().ok()?.checked_mul(1024)
}

impl CosmosRemote {
    pub(super) async fn look(&self, name: &LogName, log: LogId) -> Result<Vec<Finding>> {
        let what = "reading the container";
        // Without being asked for it, the service does not say how much there is.
        let ask = (HeaderName::from_static(ASK_FOR_USAGE), HeaderValue::from_static("true"));
        let operation = OperationOptionsBuilder::new().with_custom_headers([ask].into()).build();
        let options = ReadContainerOptions::default().with_operation_options(operation);
        let answer = self.container.read(Some(options)).await.map_err(|e| self.failed(&e, what))?;
        self.charge(answer.headers());
        let stored = answer.headers().resource_usage().and_then(stored_bytes);
        let properties: ContainerProperties = answer.into_model().map_err(|e| self.failed(&e, what))?;
        let mut findings = Vec::new();
        let mut say = |code, severity, message: String| findings.push(Finding { code, severity, message });
        match self.throughput {
            Some(units) => say(
                "cosmos_throughput",
                Severity::Info,
                format!(
                    "{} {units} request units a second; items of frames have at most {} bytes",
                    if self.autoscale { "up to" } else { "provisioned are" },
                    self.item_bytes
                ),
            ),
            None => say(
                "cosmos_throughput_unknown",
                Severity::Info,
                format!(
                    "the throughput cannot be read (serverless, or not with this credential); items of frames have at \
                     most {} bytes, ?item_bytes= chooses another size",
                    self.item_bytes
                ),
            ),
        }
        let throttled = self.throttled.load(Ordering::Relaxed);
        if throttled > 0 {
            let message =
                format!("{throttled} calls of this handle were throttled beyond the SDK's own retries");
            say("cosmos_throttled", Severity::Warning, message);
        }
        if !self.hierarchical {
            say(
                "cosmos_partition_key",
                Severity::Info,
                "the partition key is /eventType: all events of one type share a logical partition of at most 20 GB; \
                 /eventType with /period has no such ceiling"
                    .into(),
            );
        }
        if let Some(stored) = stored {
            // No partition can hold more than the container does, so below the ceiling all is well whatever the events.
            let is_near = !self.hierarchical && stored > PARTITION_BYTES_MAX / 10 * 8;
            let severity = if is_near { Severity::Warning } else { Severity::Info };
            let message = format!(
                "the items of the container take {stored} bytes; a logical partition holds at most \
                 {PARTITION_BYTES_MAX}"
            );
            say("cosmos_size", severity, message);
        }
        let regions = if self.several_write_regions { ", one of several that take writes" } else { "" };
        say("cosmos_region", Severity::Info, format!("this handle writes to {}{regions}", self.region));
        let policy = properties.indexing_policy;
        let excludes = |path: &str| {
            policy.as_ref().is_some_and(|policy| policy.excluded_paths.iter().any(|one| one.path == path))
        };
        let spared = excludes("/*") || (excludes("/data/*") && excludes("/body/?"));
        if !spared {
            say(
                "cosmos_indexing",
                Severity::Warning,
                "the indexing policy covers the data of events and the bodies of frames, which makes every write \
                 dearer: exclude /* and include /eventType/?, /sequence/?, /position/?, /stream/?, /time/? and \
                 /recordedtime/?"
                    .into(),
            );
        }
        let home = self.read_log(name).await?.filter(|record| record.id == log).map(|record| record.home);
        if let Some(home) = home.filter(|home| *home != self.region) {
            let severity = if self.several_write_regions { Severity::Warning } else { Severity::Info };
            let message = format!("the home of the log is {home}, this handle writes to {}", self.region);
            say("cosmos_home_region", severity, message);
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::stored_bytes;

    #[test]
    fn how_much_there_is_is_read_or_not_said() {
        let usage = "documentSize=0;documentsSize=2048;documentsCount=7;collectionSize=4096;";
        assert_eq!(stored_bytes(usage), Some(2 << 20));
        for other in ["", "documentSize=1;", "documentsSize=;", "documentsSize=-1;", "collectionSize=3;"] {
            assert_eq!(stored_bytes(other), None, "{other}");
        }
    }
}
