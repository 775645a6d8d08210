"""Says with which settings a peer opens its SQLite database, by opening it as the peer does.

    python settings.py phoenix|mlflow DATABASE

Prints {"journal_mode", "synchronous", "sqlite"}, and empties the write-ahead log into the database: then the size of the
files is that of what they hold. To be called when the server has ended.
"""

import asyncio
import json
import sys

QUESTIONS = {
    "journal_mode": "PRAGMA journal_mode",
    "synchronous": "PRAGMA synchronous",
    "sqlite": "SELECT sqlite_version()",
}
CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"


async def phoenix(database):
    from phoenix.db.engines import create_engine
    from sqlalchemy import text

    engine = create_engine(f"sqlite:///{database}", migrate=False)
    async with engine.connect() as connection:
        found = {name: (await connection.execute(text(asked))).scalar() for name, asked in QUESTIONS.items()}
    await engine.dispose()
    return found


def mlflow(database):
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from sqlalchemy import text

    engine = create_sqlalchemy_engine(f"sqlite:///{database}")
    with engine.connect() as connection:
        found = {name: connection.execute(text(asked)).scalar() for name, asked in QUESTIONS.items()}
    engine.dispose()
    return found


def checkpoint(database):
    import sqlite3

    connection = sqlite3.connect(database)
    busy, *_ = connection.execute(CHECKPOINT).fetchone()
    connection.close()
    if busy:
        sys.exit(f"{database} is in use: its write-ahead log cannot be emptied")


if __name__ == "__main__":
    peer, database = sys.argv[1:]
    found = asyncio.run(phoenix(database)) if peer == "phoenix" else mlflow(database)
    checkpoint(database)
    print(json.dumps(found))
