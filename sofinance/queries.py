"""Every query file as a namespace: ``from sofinance import queries as q``; q.file.query(conn, ...).

The types are in queries.pyi, which `make generate` writes from the migrated database.
"""

from sofinance.infra import sql

globals().update(sql.load_all())
