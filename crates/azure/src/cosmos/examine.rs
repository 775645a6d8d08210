//! What is to be said about a container: throughput, throttling, indexing, regions.

use std::sync::atomic::Ordering;

use azure_data_cosmos::models::ContainerProperties;
use precedent_core::store::{Finding, Severity};
use precedent_core::{LogId, LogName, Result};

use super::CosmosRemote;

impl CosmosRemote {
    pub(super) async fn look(&self, name: &LogName, log: LogId) -> Result<Vec<Finding>> {
        let what = "reading the container";
        let answer = self.container.read(None).await.map_err(|e| self.failed(&e, what))?;
        self.charge(answer.headers());
        let properties: ContainerProperties = answer.into_model().map_err(|e| self.failed(&e, what))?;
        let mut findings = Vec::new();
        let mut say = |code, severity, message: String| findings.push(Finding { code, severity, message });
        match self.throughput {
            Some(units) => say(
                "cosmos_throughput",
                Severity::Info,
                format!(
                    "{units} request units a second; items of frames have at most {} bytes",
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
