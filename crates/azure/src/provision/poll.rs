//! Waiting until Azure has done what it said it would do.
//!
//! Three styles are in use, and one answer may call for two of them:
//!
//! | the answer has | what is looked at | until |
//! |---|---|---|
//! | `Azure-AsyncOperation` | that URL | its `status` is `Succeeded`, `Failed` or `Canceled` |
//! | 202 and `Location` | that URL | it does not answer 202 |
//! | `properties.provisioningState` | the resource | the state is final, or there is none |
//!
//! The third follows the others: what counts is the resource. It also does for a URL that is not followed, because it leads
//! to another host, and for an operation that Azure has forgotten.

use std::time::Duration;

use azure_core::http::{Method, Url};
use precedent_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::arm::{Answer, Arm, explained, one_line};
use super::definition::Resource;

/// Making an account takes minutes. An operation that takes longer than this is left to itself, and that is said.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// How often is looked, where Azure does not say.
const EVERY: Duration = Duration::from_secs(10);

/// Called whenever there is still something to wait for.
pub(crate) type Waiting<'a> = &'a (dyn Fn(Duration) + Send + Sync);

/// Whether a state is one that changes by itself.
pub(crate) fn is_passing(state: &str) -> bool {
    !["succeeded", "failed", "canceled", "cancelled", "ready"].contains(&state.to_ascii_lowercase().as_str())
}

/// The state of a resource that is being made, changed or deleted; `None` if nothing is under way.
pub(crate) fn state(resource: &Value) -> Option<&str> {
    resource["properties"]["provisioningState"].as_str()
}

/// Waits until what the answer started has ended, and answers the resource as it is then; `None` if it is gone.
pub(crate) async fn finish(
    arm: &Arm,
    resource: &Resource,
    started: Answer,
    waiting: Waiting<'_>,
) -> Result<Option<Value>> {
    let started = started.ok()?;
    let wait = Wait { arm, began: arm.pace().elapsed(), waiting };
    let after = started.retry_after;
    let ours = |link: &Option<String>| link.as_deref().and_then(|link| arm.ours(link));
    if let Some(url) = ours(&started.operation) {
        wait.operation(url, after).await?;
    } else if let (202, Some(url)) = (started.status, ours(&started.location)) {
        wait.location(url, after).await?;
    } else if started.status == 202 {
        wait.pause(after).await?;
    }
    wait.resource(resource).await
}

/// Waits until nothing is under way with a resource any more.
pub(crate) async fn settled(arm: &Arm, resource: &Resource, waiting: Waiting<'_>) -> Result<Option<Value>> {
    Wait { arm, began: arm.pace().elapsed(), waiting }.resource(resource).await
}

/// Waits until a resource is gone.
pub(crate) async fn gone(
    arm: &Arm,
    resource: &Resource,
    started: Answer,
    waiting: Waiting<'_>,
) -> Result<()> {
    if started.is_absent() {
        return Ok(());
    }
    let started = started.ok()?;
    let wait = Wait { arm, began: arm.pace().elapsed(), waiting };
    if let Some(url) = started.operation.as_deref().and_then(|link| arm.ours(link)) {
        wait.operation(url, started.retry_after).await?;
    } else if let (202, Some(url)) = (started.status, started.location.as_deref().and_then(|l| arm.ours(l))) {
        wait.location(url, started.retry_after).await?;
    }
    loop {
        let answer = arm.resource(Method::Get, resource, &[], None).await?;
        if answer.is_absent() {
            return Ok(());
        }
        let after = answer.retry_after;
        let answer = answer.ok()?;
        if let Some(state) = state(&answer.body).filter(|state| !is_passing(state)) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("it is still there, and its state is {}", one_line(state)),
            ));
        }
        wait.pause(after).await?;
    }
}

struct Wait<'a> {
    arm: &'a Arm,
    began: Duration,
    waiting: Waiting<'a>,
}

impl Wait<'_> {
    async fn pause(&self, after: Option<Duration>) -> Result<()> {
        let waited = self.arm.pace().elapsed().saturating_sub(self.began);
        if waited > PATIENCE {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "Azure is still at it after {} minutes; doing the same again later goes on from there",
                    PATIENCE.as_secs() / 60
                ),
            ));
        }
        (self.waiting)(waited);
        let after = after.unwrap_or(EVERY).clamp(Duration::from_secs(1), Duration::from_secs(120));
        self.arm.pace().sleep(after).await;
        Ok(())
    }

    async fn operation(&self, url: Url, mut after: Option<Duration>) -> Result<()> {
        loop {
            self.pause(after).await?;
            let answer = self.arm.get(url.clone()).await?;
            // Azure keeps operations for a while only; the resource itself says how it ended.
            if answer.status == 404 {
                return Ok(());
            }
            after = answer.retry_after;
            let answer = answer.ok()?;
            let status = answer.body["status"].as_str().unwrap_or_default();
            match status.to_ascii_lowercase().as_str() {
                "succeeded" => return Ok(()),
                "failed" | "canceled" | "cancelled" => {
                    let error = &answer.body["error"];
                    let code = error["code"].as_str().unwrap_or(status);
                    let message = error["message"].as_str().unwrap_or_default();
                    return Err(explained(400, code, &one_line(message)));
                }
                _ => {}
            }
        }
    }

    async fn location(&self, url: Url, mut after: Option<Duration>) -> Result<()> {
        loop {
            self.pause(after).await?;
            let answer = self.arm.get(url.clone()).await?;
            match answer.status {
                202 => after = answer.retry_after,
                // As above.
                404 => return Ok(()),
                _ => return answer.ok().map(drop),
            }
        }
    }

    async fn resource(&self, resource: &Resource) -> Result<Option<Value>> {
        loop {
            let answer = self.arm.resource(Method::Get, resource, &[], None).await?;
            if answer.is_absent() {
                return Ok(None);
            }
            let after = answer.retry_after;
            let answer = answer.ok()?;
            match state(&answer.body) {
                Some(state) if is_passing(state) => self.pause(after).await?,
                _ => return Ok(Some(answer.body)),
            }
        }
    }
}
