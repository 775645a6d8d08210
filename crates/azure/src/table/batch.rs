//! Entity group transactions: several operations in one partition, all of them or none.
//!
//! A transaction is one `multipart/mixed` body with a change set in it, one part an operation; so is the answer. Its
//! outer status is 202 whatever came of it: when it failed, the only inner answer says why, and its message begins with
//! the index of the operation that failed. Source: *Performing entity group transactions*.
//!
//! *Invariant*: what reads an answer takes any bytes, and says either everything that was asked for or the one failure; an
//! answer that is cut short is neither.

use precedent_core::{Error, Result};
use url::Url;

use super::entity::Entity;

/// The most operations of a transaction.
pub const OPERATIONS_MAX: usize = 100;
/// The most bytes of a transaction's body.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// One operation of a transaction.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Writes an entity that is not there.
    Insert(Entity),
    /// Puts an entity in the place of the one that has this ETag.
    Replace(Entity, String),
}

impl Operation {
    /// The entity that is written.
    pub fn entity(&self) -> &Entity {
        match self {
            Self::Insert(entity) | Self::Replace(entity, _) => entity,
        }
    }
}

/// The body of a transaction, and its content type.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// Encodes a transaction. `url` answers where an operation goes.
///
/// # Errors
/// `invalid` and `limit_exceeded` for what the service does not take, or what the emulator takes and the service not.
pub(crate) fn encode(
    operations: &[Operation],
    mut url: impl FnMut(&Operation) -> Result<Url>,
) -> Result<Encoded> {
    let Some(first) = operations.first() else {
        return Err(Error::invalid("a transaction without operations"));
    };
    if operations.len() > OPERATIONS_MAX {
        let (count, max) = (operations.len() as u64, OPERATIONS_MAX as u64);
        return Err(Error::limit("the transaction", count, max, "operations"));
    }
    let partition = &first.entity().key.partition;
    for (index, operation) in operations.iter().enumerate() {
        let key = &operation.entity().key;
        if key.partition != *partition {
            return Err(Error::invalid(format!(
                "a transaction in two partitions, '{}' and '{}': the service takes one",
                partition.escape_debug(),
                key.partition.escape_debug()
            )));
        }
        if operations[..index].iter().any(|other| other.entity().key.row == key.row) {
            return Err(Error::invalid(format!("two operations of a transaction on the entity in {key}")));
        }
        operation.entity().check()?;
    }
    let id = uuid::Uuid::now_v7();
    let mut body = Vec::new();
    let mut line = |text: &str, more: &[u8]| {
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(more);
        body.extend_from_slice(b"\r\n");
    };
    line(&format!("--batch_{id}"), b"");
    line(&format!("Content-Type: multipart/mixed; boundary=changeset_{id}"), b"");
    line("", b"");
    for operation in operations {
        line(&format!("--changeset_{id}"), b"");
        line("Content-Type: application/http", b"");
        line("Content-Transfer-Encoding: binary", b"");
        line("", b"");
        let method = match operation {
            Operation::Insert(_) => "POST",
            Operation::Replace(..) => "PUT",
        };
        line(&format!("{method} {} HTTP/1.1", url(operation)?), b"");
        line("Accept: application/json;odata=minimalmetadata", b"");
        line("Content-Type: application/json", b"");
        line("Prefer: return-no-content", b"");
        line("DataServiceVersion: 3.0", b"");
        if let Operation::Replace(_, etag) = operation {
            line(&format!("If-Match: {etag}"), b"");
        }
        line("", b"");
        line("", &operation.entity().to_json());
    }
    line(&format!("--changeset_{id}--"), b"");
    line(&format!("--batch_{id}--"), b"");
    if body.len() > BODY_BYTES_MAX {
        let (length, max) = (body.len() as u64, BODY_BYTES_MAX as u64);
        return Err(Error::limit("the body of the transaction", length, max, "bytes"));
    }
    Ok(Encoded { content_type: format!("multipart/mixed; boundary=batch_{id}"), body })
}

/// What one operation, or the transaction as a whole, was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inner {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Reads the answer to a transaction of `count` operations: one inner answer each, or the one that failed.
///
/// # Errors
/// If it is neither. Then nobody can say from it whether the transaction was carried out.
pub(crate) fn parse(body: &[u8], count: usize) -> Result<Vec<Inner>> {
    let mut answers: Vec<Inner> = Vec::new();
    // Where the lines are: outside of an answer, in its headers, in its body.
    enum Place {
        Outside,
        Headers,
        Body,
    }
    let mut place = Place::Outside;
    let mut ended = false;
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"--") {
            ended = line.ends_with(b"--") && line.len() > 4;
            place = Place::Outside;
            continue;
        }
        match place {
            Place::Outside => {
                let Some(rest) = line.strip_prefix(b"HTTP/1.1 ") else { continue };
                let status = std::str::from_utf8(rest).ok().and_then(|rest| rest.get(..3)?.parse().ok());
                let Some(status) = status else {
                    return Err(Error::damaged("an inner answer without a status"));
                };
                if answers.len() == count {
                    return Err(Error::damaged(format!("more than {count} answers to {count} operations")));
                }
                answers.push(Inner { status, etag: None, body: Vec::new() });
                place = Place::Headers;
            }
            Place::Headers if line.is_empty() => place = Place::Body,
            Place::Headers => {
                let text = String::from_utf8_lossy(line);
                if let (Some((name, value)), Some(answer)) = (text.split_once(':'), answers.last_mut())
                    && name.eq_ignore_ascii_case("etag")
                {
                    answer.etag = Some(value.trim().to_owned());
                }
            }
            Place::Body => {
                if let Some(answer) = answers.last_mut() {
                    if !answer.body.is_empty() {
                        answer.body.push(b'\n');
                    }
                    answer.body.extend_from_slice(line);
                }
            }
        }
    }
    let succeeded = |answer: &Inner| (200..300).contains(&answer.status);
    let whole = answers.len() == count && answers.iter().all(succeeded);
    let failed = matches!(answers.as_slice(), [only] if !succeeded(only));
    if !ended || !(whole || failed) {
        return Err(Error::damaged(format!(
            "{} answers to {count} operations, or not to their end",
            answers.len()
        )));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::entity::Value;
    use crate::table::keys::Key;

    fn url(_: &Operation) -> Result<Url> {
        Ok("https://x.table.core.windows.net/t".parse().expect("a URL"))
    }

    fn insert(partition: &str, row: &str) -> Operation {
        Operation::Insert(Entity::new(Key::new(partition, row)).with("n", Value::Int32(1)))
    }

    #[test]
    fn what_the_service_refuses_is_refused_before_it_is_sent() {
        let refused =
            |operations: &[Operation]| encode(operations, url).expect_err("refused").message().to_owned();
        assert!(refused(&[]).contains("without operations"));
        let rows = |count: usize| (0..count).map(|i| insert("p", &i.to_string())).collect::<Vec<_>>();
        encode(&rows(100), url).expect("100 operations");
        let said = refused(&rows(101));
        assert!(said.contains("101") && said.contains("100"), "{said}");
        let said = refused(&[insert("p", "1"), insert("q", "1")]);
        assert!(said.contains("'p'") && said.contains("'q'"), "{said}");
        assert!(refused(&[insert("p", "1"), insert("p", "1")]).contains("row 1"));
        let large = |row: &str| {
            let entity = Entity::new(Key::new("p", row));
            let chunk = bytes::Bytes::from(vec![1; 65_536]);
            Operation::Insert((0..15).fold(entity, |entity, i| entity.with(format!("d{i}"), chunk.clone())))
        };
        encode(&[large("1"), large("2"), large("3")], url).expect("just under 4 MiB");
        let said = refused(&[large("1"), large("2"), large("3"), large("4")]);
        assert!(said.contains("4194304"), "{said}");
        refused(&[Operation::Insert(Entity::new(Key::new("p", "a/b")))]);
    }

    const OK: &str = "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_1\r\n\r\n\
        --changesetresponse_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n\
        HTTP/1.1 204 No Content\r\nETag: W/\"datetime'x%3A1'\"\r\nDataServiceVersion: 3.0;\r\n\r\n\r\n\
        --changesetresponse_1\r\nContent-Type: application/http\r\n\r\n\
        HTTP/1.1 204 No Content\r\netag: two\r\n\r\n\r\n--changesetresponse_1--\r\n--batchresponse_1--\r\n";

    const FAILED: &str = "--batchresponse_1\nContent-Type: multipart/mixed; boundary=changesetresponse_1\n\n\
        --changesetresponse_1\nContent-Type: application/http\n\nHTTP/1.1 412 Precondition Failed\n\
        Content-Type: application/json\n\n{\"odata.error\":{\"code\":\"UpdateConditionNotSatisfied\"}}\n\
        --changesetresponse_1--\n--batchresponse_1--";

    #[test]
    fn an_answer_is_one_for_each_operation_or_the_failure() {
        let answers = parse(OK.as_bytes(), 2).expect("two");
        assert_eq!(answers[0].etag.as_deref(), Some("W/\"datetime'x%3A1'\""));
        assert_eq!(answers[1].etag.as_deref(), Some("two"));
        let answers = parse(FAILED.as_bytes(), 2).expect("a failure");
        assert_eq!(answers[0].status, 412);
        assert!(answers[0].body.starts_with(b"{\"odata.error\""));
        parse(OK.as_bytes(), 3).expect_err("one is not answered");
        parse(OK.as_bytes(), 1).expect_err("one was not asked");
    }

    #[test]
    fn hostile_answers_are_neither_success_nor_a_panic() {
        for (text, count) in [(OK, 2), (FAILED, 2)] {
            // Whatever is cut off, a success is not seen before all of it was; the last line's end is nothing.
            for end in 0..text.trim_end().len() - "batchresponse_1--".len() - 2 {
                let answer = parse(&text.as_bytes()[..end], count);
                let shorter = answer.as_ref().is_ok_and(|all| all.iter().all(|one| one.status < 300));
                assert!(
                    !shorter || end > text.find("changesetresponse_1--").expect("its end"),
                    "{end}: {answer:?}"
                );
            }
            let mut bytes = text.as_bytes().to_vec();
            for at in 0..bytes.len() {
                for other in [0, b'\n', b'-', 0xff] {
                    let was = std::mem::replace(&mut bytes[at], other);
                    let _ = parse(&bytes, count);
                    bytes[at] = was;
                }
            }
        }
        for hostile in ["", "HTTP/1.1 ", "HTTP/1.1 2", "HTTP/1.1 ü04", "--\r\n--", "HTTP/1.1 204\r\n\r\n"] {
            assert!(parse(hostile.as_bytes(), 1).is_err(), "{hostile}");
        }
        let many = "HTTP/1.1 204 x\r\n--a\r\n".repeat(100_000);
        assert!(parse(many.as_bytes(), 100).is_err(), "bounded by what was asked");
    }
}
