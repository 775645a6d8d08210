//! SQLite: one table in WAL mode with `synchronous=FULL`, an index on the stream and one on the type.
//!
//! No versions, no unique keys, no hashes: less than the log does, on purpose in SQLite's favour.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::group::{Engine, Group};
use crate::peer::{Appender, Peer, Record, Result, Sink, What};

pub(crate) struct Sqlite(Group<Store>);

struct Store(Connection);

impl Sqlite {
    pub(crate) fn open(place: &Path) -> Result<Self> {
        let connection = Connection::open(place.join("events.sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let is: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        if is != 2 {
            return Err(format!("synchronous is {is}, not 2 (FULL)").into());
        }
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, id TEXT NOT NULL, stream TEXT NOT NULL,
                 type TEXT NOT NULL, data BLOB NOT NULL);
             CREATE INDEX IF NOT EXISTS events_stream ON events (stream);
             CREATE INDEX IF NOT EXISTS events_type ON events (type);",
        )?;
        Ok(Self(Group::new(Store(connection))))
    }
}

impl Engine for Store {
    fn commit(&mut self, records: Vec<Record>) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO events (id, stream, type, data) VALUES (?1, ?2, ?3, ?4)")?;
            for record in &records {
                insert.execute(params![record.id, record.stream, record.event_type, &record.data[..]])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Peer for Sqlite {
    fn appender(&self) -> Result<Box<dyn Appender + '_>> {
        Ok(Box::new(&self.0))
    }

    fn read(&self, what: What<'_>, sink: Sink<'_>) -> Result<()> {
        let store = self.0.engine();
        let all = "SELECT position, id, stream, type, data FROM events";
        let (filter, value) = match what {
            What::Stream(stream) => ("WHERE stream = ?1", Some(stream)),
            What::Type(event_type) => ("WHERE type = ?1", Some(event_type)),
            What::All { .. } => ("", None),
        };
        let mut select = store.0.prepare_cached(&format!("{all} {filter} ORDER BY position"))?;
        let mut rows = match value {
            Some(value) => select.query([value])?,
            None => select.query([])?,
        };
        while let Some(row) = rows.next()? {
            // Everything about the event is looked at, as whoever reads it would.
            let _: (i64, &str, &str) = (row.get(0)?, row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
            sink(row.get_ref(4)?.as_blob()?);
        }
        Ok(())
    }

    fn head(&self) -> Result<()> {
        let _: Option<i64> =
            self.0.engine().0.query_row("SELECT max(position) FROM events", [], |row| row.get(0))?;
        Ok(())
    }
}
