//! Registers: one item each, swapped with If-Match. Each write carries an id of its own, so that one whose answer was
//! lost is recognised when it is read back.

use azure_data_cosmos::options::{ItemWriteOptions, Precondition};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use precedent_core::memory::next_revision;
use precedent_core::store::{ExpectedRegister, Register, RegisterName};
use precedent_core::{Durability, Error, ErrorKind, FrameId, Limits, Result};
use serde_json::{Value, json};

use super::{CosmosRemote, Tries};

const REGISTERS: &str = "~registers";

/// An id may hold no `/`; a name holds no `!`.
fn id(name: &RegisterName) -> String {
    name.as_str().replace('/', "!")
}

impl CosmosRemote {
    pub(super) async fn read_register(&self, name: &RegisterName) -> Result<Option<Register>> {
        let Some((item, _)) = self.read(REGISTERS, &id(name)).await? else { return Ok(None) };
        decode(name, &item).map(Some)
    }

    pub(super) async fn swap_register(
        &self,
        name: &RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> Result<Register> {
        let there = self.read(REGISTERS, &id(name)).await?;
        let register = there.as_ref().map(|(item, _)| decode(name, item)).transpose()?;
        let limits = Limits::new(Durability::RegionQuorum);
        let next = next_revision(name, register.as_ref(), expected, &value, &limits)?;
        // Somebody was quicker: what is there now is not what was expected.
        let conflict = |now: Option<&Register>| match next_revision(name, now, expected, &value, &limits) {
            Err(error) => error,
            Ok(_) => {
                Error::new(ErrorKind::Conflict, format!("register '{name}' is being set by somebody else"))
            }
        };
        let write = FrameId::random().to_string();
        let fields = json!({
            "kind": "register", "name": name.as_str(), "revision": next, "write": write,
            "value": BASE64_STANDARD.encode(&value),
        });
        let item = self.item(REGISTERS, &id(name), fields);
        let key = self.own_key(REGISTERS);
        let mut tries = Tries::new();
        let error = loop {
            let answer = match &there {
                None => self.container.create_item(key.clone(), &id(name), &item, None).await,
                Some((_, etag)) => {
                    let unchanged = Precondition::if_match(etag.clone());
                    let options = ItemWriteOptions::default().with_precondition(unchanged);
                    self.container.replace_item(key.clone(), &id(name), &item, Some(options)).await
                }
            };
            match answer {
                Ok(answer) => {
                    self.charge(answer.headers());
                    return Ok(Register { value, revision: next });
                }
                Err(error) if tries.again(self, &error).await => {}
                Err(error) => break error,
            }
        };
        let (status, told) = (error.status(), self.failed(&error, &format!("setting the register {name}")));
        let settled = status.is_conflict() || status.is_precondition_failed();
        if !settled && tries.nothing_written(&error) {
            return Err(told);
        }
        // Ours, from an attempt whose answer was lost, or somebody else's: the id of the write says which.
        let unknown = |error: Error| Error::new(ErrorKind::Unknown, error.message());
        let now = self.read(REGISTERS, &id(name)).await.map_err(unknown)?;
        match now {
            Some((item, _)) if item["write"].as_str() == Some(&write) => {
                Ok(Register { value, revision: next })
            }
            Some((item, _)) if settled => Err(conflict(decode(name, &item).ok().as_ref())),
            None if settled => Err(conflict(None)),
            _ => Err(unknown(told)),
        }
    }
}

fn decode(name: &RegisterName, item: &Value) -> Result<Register> {
    let value = item["value"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    match (value, item["revision"].as_u64()) {
        (Some(value), Some(revision)) => Ok(Register { value: value.into(), revision }),
        _ => Err(Error::damaged(format!("the register {name} has no value or no revision"))),
    }
}
