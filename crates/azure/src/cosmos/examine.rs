//! What is to be said about a container: throughput, throttling, indexing, regions.

use std::sync::atomic::Ordering;

use azure_core::http::headers::{HeaderName, HeaderValue};
use azure_data_cosmos::models::ContainerProperties;
use azure_data_cosmos::options::{OperationOptionsBuilder, ReadContainerOptions};
use precedent_core::store::{Finding, Severity};
use precedent_core::{LogId, LogName, Result};
use serde_json::Value;

use super::CosmosRemote;
use super::settings::not_a_store;

/// The request header that has the service say how much a container holds.
const ASK_FOR_USAGE: &str = "x-ms-documentdb-populatequotainfo";
/// The request header that has the service say which logical partitions are large.
const ASK_FOR_STATISTICS: &str = "x-ms-documentdb-populatepartitionstatistics";
/// What a logical partition holds at most.
const PARTITION_BYTES_MAX: u64 = 20 << 30;

/// The bytes of all items, from what the service says of a container's usage: `name=value` pairs, sizes in KiB.
fn stored_bytes(usage: &str) -> Option<u64> {
    let documents = usage.split(';').find_map(|pair| pair.trim().strip_prefix("documentsSize="))?;
    documents.parse::<u64>().ok()?.checked_mul(1024)
}

/// The large logical partitions, the largest first, with their bytes, from what the service says of a container when it is
/// asked for statistics: it counts a sample now and then, and names those above about a gigabyte. `None` if it says nothing.
fn large_partitions(container: &Value) -> Option<Vec<(String, u64)>> {
    let ranges = container.get("statistics")?.as_array()?;
    let partitions = ranges.iter().filter_map(|range| range.get("partitionKeys")?.as_array()).flatten();
    let sized = |partition: &Value| {
        let name = partition.get("partitionKey")?.as_array()?;
        let name: Vec<&str> = name.iter().filter_map(Value::as_str).collect();
        Some((name.join("/"), partition.get("sizeInKB")?.as_u64()?.saturating_mul(1024)))
    };
    let mut sized: Vec<(String, u64)> = partitions.filter_map(sized).collect();
    sized.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Some(sized)
}

/// What is to be said of how full the container is.
fn fullness(stored: Option<u64>, large: Option<&[(String, u64)]>, hierarchical: bool) -> Vec<Finding> {
    let is_near = |bytes: u64| bytes > PARTITION_BYTES_MAX / 10 * 8;
    let grade = |near: bool| if near { Severity::Warning } else { Severity::Info };
    let mut findings = Vec::new();
    if let Some(stored) = stored {
        // No partition can hold more than the container does, so below the ceiling all is well whatever the events.
        let severity = grade(large.is_none() && !hierarchical && is_near(stored));
        let message = format!(
            "the items of the whole container take {stored} bytes; a logical partition holds at most \
             {PARTITION_BYTES_MAX}"
        );
        findings.push(Finding { code: "cosmos_size", severity, message });
    }
    let message = match large {
        None => "the service names no logical partition with its size: only the whole container can be seen"
            .to_owned(),
        Some([]) => {
            "the service names no logical partition, as far as it has counted: none is above a gigabyte"
                .to_owned()
        }
        Some([(name, bytes), ..]) => format!(
            "the largest logical partition is that of '{name}' with about {bytes} bytes of at most {PARTITION_BYTES_MAX}, \
             as last counted"
        ),
    };
    let severity = grade(large.and_then(<[_]>::first).is_some_and(|(_, bytes)| is_near(*bytes)));
    findings.push(Finding { code: "cosmos_partitions", severity, message });
    findings
}

impl CosmosRemote {
    pub(super) async fn look(&self, name: &LogName, log: LogId) -> Result<Vec<Finding>> {
        let what = "reading the container";
        // Without being asked for it, the service does not say how much there is.
        let ask = [ASK_FOR_USAGE, ASK_FOR_STATISTICS]
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("true")));
        let operation = OperationOptionsBuilder::new().with_custom_headers(ask.into()).build();
        let options = ReadContainerOptions::default().with_operation_options(operation);
        let answer = self.container.read(Some(options)).await.map_err(|e| self.failed(&e, what))?;
        self.charge(answer.headers());
        let stored = answer.headers().resource_usage().and_then(stored_bytes);
        let container: Value = answer.into_body().into_single().map_err(|e| self.failed(&e, what))?;
        let large = large_partitions(&container);
        let properties: ContainerProperties = serde_json::from_value(container)
            .map_err(|_| not_a_store(format!("{what}: it is not described")))?;
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
        fullness(stored, large.as_deref(), self.hierarchical)
            .into_iter()
            .for_each(|finding| say(finding.code, finding.severity, finding.message));
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
    use precedent_core::store::Severity;
    use serde_json::json;

    use super::{PARTITION_BYTES_MAX, fullness, large_partitions, stored_bytes};

    #[test]
    fn a_partition_near_its_ceiling_is_named_where_the_service_counts_and_else_only_the_container_is_seen() {
        let partition = |key: serde_json::Value, kib: u64| json!({ "partitionKey": key, "sizeInKB": kib });
        let container = json!({ "id": "c", "statistics": [
            { "id": "0", "sizeInKB": 1, "documentCount": 1, "partitionKeys": [partition(json!(["a"]), 2 << 20)] },
            { "id": "1", "sizeInKB": 1, "documentCount": 1, "partitionKeys": [
                partition(json!(["ai.tool.called", "2026-11"]), 18 << 20), partition(json!(["b"]), 1)
            ] },
        ]});
        let large = large_partitions(&container).expect("it says so");
        assert_eq!(large[0], ("ai.tool.called/2026-11".to_owned(), 18 << 30));
        assert_eq!(large.len(), 3);
        let severities = |stored, large, hierarchical| {
            let findings = fullness(stored, large, hierarchical);
            findings.into_iter().map(|finding| (finding.severity, finding.message)).collect::<Vec<_>>()
        };
        let said = severities(Some(30 << 30), Some(&large[..]), false);
        assert_eq!((said[0].0, said[1].0), (Severity::Info, Severity::Warning));
        assert!(
            said[1].1.contains("'ai.tool.called/2026-11'") && said[1].1.contains("19327352832 bytes"),
            "{}",
            said[1].1
        );
        let said = severities(Some(PARTITION_BYTES_MAX), Some(&[]), false);
        assert_eq!((said[0].0, said[1].0), (Severity::Info, Severity::Info));
        assert_eq!(large_partitions(&json!({ "id": "c" })), None);
        let said = severities(Some(PARTITION_BYTES_MAX), None, false);
        assert_eq!(said[0].0, Severity::Warning, "{}", said[0].1);
        assert!(said[1].1.contains("only the whole container"), "{}", said[1].1);
        assert_eq!(severities(Some(PARTITION_BYTES_MAX), None, true)[0].0, Severity::Info);
    }

    #[test]
    fn how_much_there_is_is_read_or_not_said() {
        let usage = "documentSize=0;documentsSize=2048;documentsCount=7;collectionSize=4096;";
        assert_eq!(stored_bytes(usage), Some(2 << 20));
        for other in ["", "documentSize=1;", "documentsSize=;", "documentsSize=-1;", "collectionSize=3;"] {
            assert_eq!(stored_bytes(other), None, "{other}");
        }
    }
}
