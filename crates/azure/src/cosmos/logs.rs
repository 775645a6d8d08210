//! Which logs there are. The anchor of a log's first frame is written before the log's record: a crash in between
//! leaves an anchor of an id that nobody ever uses, and a record never stands without its anchor.

use azure_data_cosmos::{FeedScope, Query};
use futures_util::StreamExt;
use precedent_core::{Error, ErrorKind, Hash, LogId, LogName, Result};
use serde_json::{Value, json};

use super::frames::{link_id, partition};
use super::{CosmosRemote, Tries};
use crate::remote::LogRecord;

const LOGS: &str = "~logs";

impl CosmosRemote {
    pub(super) async fn list_logs(&self) -> Result<Vec<LogName>> {
        let mut tries = Tries::new();
        let mut names = loop {
            match self.ids_of_logs().await {
                Ok(names) => break names,
                Err(error) if tries.again(self, &error).await => {}
                Err(error) => return Err(self.failed(&error, "listing logs")),
            }
        }
        .into_iter()
        .map(|name| name.parse().map_err(|_| Error::damaged(format!("{LOGS} holds '{name:.64}', no name"))))
        .collect::<Result<Vec<LogName>>>()?;
        names.sort();
        Ok(names)
    }

    async fn ids_of_logs(&self) -> azure_data_cosmos::Result<Vec<String>> {
        let query = Query::from("SELECT VALUE c.id FROM c");
        let scope = FeedScope::partition(self.own_key(LOGS));
        let mut pages = self.container.query_items::<String>(query, scope, None).await?.into_pages();
        let mut ids = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page?;
            self.charge(page.headers());
            ids.extend(page.into_items());
        }
        Ok(ids)
    }

    pub(super) async fn read_log(&self, name: &LogName) -> Result<Option<LogRecord>> {
        let Some((item, _)) = self.read(LOGS, name.as_str()).await? else { return Ok(None) };
        self.record(name, &item).map(Some)
    }

    fn record(&self, name: &LogName, item: &Value) -> Result<LogRecord> {
        let id = item["log"].as_str().and_then(|id| id.parse().ok());
        let (Some(id), Some(copy), Some(home)) = (id, item["copy"].as_bool(), item["home"].as_str()) else {
            return Err(Error::damaged(format!("{LOGS}/{name} does not say which log it is")));
        };
        let record = LogRecord { id, copy, home: home.to_owned() };
        let mut homes = self.homes.lock().expect("nothing panics while it holds the homes");
        homes.insert(id, record.home.clone());
        Ok(record)
    }

    pub(super) async fn create_log(&self, name: &LogName, record: LogRecord) -> Result<LogRecord> {
        if let Some(there) = self.read_log(name).await? {
            return Ok(there);
        }
        self.create(&partition(record.id, 0), &link_id(None, Hash::ZERO), json!({ "kind": "link" })).await?;
        let fields =
            json!({ "kind": "log", "log": record.id.to_string(), "copy": record.copy, "home": record.home });
        self.create(LOGS, name.as_str(), fields).await?;
        let gone =
            || Error::new(ErrorKind::Unavailable, format!("the log {name} was made and is gone again"));
        self.read_log(name).await?.ok_or_else(gone)
    }

    pub(super) async fn promote_log(&self, name: &LogName, id: LogId) -> Result<()> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no log {name} of the id {id}"));
        loop {
            let (mut item, etag) = self.read(LOGS, name.as_str()).await?.ok_or_else(missing)?;
            let record = self.record(name, &item)?;
            if record.id != id {
                return Err(missing());
            }
            if !record.copy {
                return Ok(());
            }
            item["copy"] = false.into();
            // If not, somebody was quicker, or our own answer was lost: what is there now says which.
            if self.replace(LOGS, name.as_str(), &item, &etag).await? {
                return Ok(());
            }
        }
    }

    /// Refuses to write to a log whose home is another region: two regions would accept the same frame number, and one
    /// of the frames would vanish without an error.
    pub(super) fn check_home(&self, log: LogId) -> Result<()> {
        if !self.several_write_regions {
            return Ok(());
        }
        let homes = self.homes.lock().expect("nothing panics while it holds the homes");
        match homes.get(&log) {
            Some(home) if *home == self.region => Ok(()),
            Some(home) => Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "the home of the log is {home}, this handle writes to {}: open it with ?region=",
                    self.region
                ),
            )),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("the log {log} has not been read by this handle"),
            )),
        }
    }
}
