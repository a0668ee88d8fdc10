"""Makes the leader have what /muster/converge.json says: dynamic settings, users, databases, the write-path probe.

Runs as a callback of Patroni (arguments: event, role, scope) whenever this member becomes the leader or starts, and
by the agent (no arguments) when the file changed. Does nothing on a replica; doing it twice changes nothing.
"""
import base64
import json
import sys
import time
import urllib.request

import psycopg
from psycopg import sql

SOCKET = "host=/run/postgresql user=postgres connect_timeout=5"
REST = "http://127.0.0.1:8008/config"
TRIES = 60
# Made by Patroni when it makes the database; their passwords are the platform's all the same.
OWN = {"postgres": "superuser", "muster_replication": "replication", "muster_rewind": "rewind"}


def secret(name):
    with open(f"/muster/secrets/{name}") as file:
        return file.read().strip()


def connect(database="postgres"):
    # Never waits for a standby: it must also finish while there is none yet.
    return psycopg.connect(f"{SOCKET} dbname={database}", autocommit=True, options="-c synchronous_commit=local")


def exists(db, table, column, name):
    query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s").format(sql.Identifier(table), sql.Identifier(column))
    return db.execute(query, (name,)).fetchone() is not None


def user(db, name, password, extra=sql.SQL("")):
    role = sql.Identifier(name)
    if not exists(db, "pg_roles", "rolname", name):
        db.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    db.execute(sql.SQL("ALTER ROLE {} LOGIN NOSUPERUSER PASSWORD {} {}").format(role, hashed(db, name, password), extra))


def hashed(db, name, password):
    """As the server stores it, so that the password itself never reaches its log."""
    return sql.Literal(db.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode())


def own_passwords(db):
    for role, what in OWN.items():
        if exists(db, "pg_roles", "rolname", role):
            new = hashed(db, role, secret(what))
            db.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), new))


def database(db, name, owner):
    if not exists(db, "pg_database", "datname", name):
        db.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner)))
    else:
        db.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(owner)))


def probe(db):
    # Few connections: while no standby confirms, each probe leaves one behind that hangs.
    user(db, "muster_probe", secret("probe"), sql.SQL("CONNECTION LIMIT 4"))
    db.execute("CREATE SCHEMA IF NOT EXISTS muster")
    db.execute("CREATE TABLE IF NOT EXISTS muster.heartbeat (id int PRIMARY KEY, beats bigint NOT NULL, at timestamptz NOT NULL)")
    db.execute(
        """CREATE OR REPLACE FUNCTION muster.beat() RETURNS bigint LANGUAGE sql SECURITY DEFINER
           SET search_path = pg_catalog, muster, pg_temp AS $$
             INSERT INTO muster.heartbeat AS h VALUES (1, 1, now())
             ON CONFLICT (id) DO UPDATE SET beats = h.beats + 1, at = now() RETURNING beats $$"""
    )
    db.execute("REVOKE ALL ON FUNCTION muster.beat() FROM PUBLIC")
    db.execute("GRANT USAGE ON SCHEMA muster TO muster_probe")
    db.execute("GRANT EXECUTE ON FUNCTION muster.beat() TO muster_probe")


def metrics(db, wanted):
    """The login of the exporters; while there are none, nobody's."""
    if wanted:
        user(db, "muster_metrics", secret("metrics"), sql.SQL("CONNECTION LIMIT 5"))
        db.execute("GRANT pg_monitor TO muster_metrics")
    elif exists(db, "pg_roles", "rolname", "muster_metrics"):
        db.execute("ALTER ROLE muster_metrics NOLOGIN PASSWORD NULL")


def extension(name, database_name):
    with connect(database_name) as db:
        db.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(name)))


def settings(wanted):
    """The dynamic settings, as a whole; only an operator's pause is left as it is."""
    with urllib.request.urlopen(REST, timeout=5) as answer:
        present = json.load(answer)
    if "pause" in present:
        wanted = dict(wanted, pause=present["pause"])
    if present == wanted:
        return
    login = base64.b64encode(f"muster:{secret('restapi')}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    put = urllib.request.Request(REST, json.dumps(wanted).encode(), headers, method="PUT")
    urllib.request.urlopen(put, timeout=10).close()


def converge(wait):
    with open("/muster/converge.json") as file:
        wanted = json.load(file)
    with connect() as db:
        if db.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
            if wait:
                raise RuntimeError("not promoted yet")
            return
        db.execute("SELECT pg_advisory_lock(7237128)")
        own_passwords(db)
        probe(db)
        metrics(db, wanted.get("metrics", False))
        for name in wanted["users"]:
            user(db, name, secret(f"user-{name}"))
        for entry in wanted["databases"]:
            database(db, entry["name"], entry["owner"])
    settings(wanted["settings"])
    # Last: one that cannot be made must not keep back anything else.
    for entry in wanted.get("extensions", []):
        extension(entry["name"], entry["database"])


def main():
    called_back = len(sys.argv) > 2
    if called_back and sys.argv[2] not in ("primary", "master"):
        return
    for left in reversed(range(TRIES if called_back else 3)):
        try:
            return converge(wait=called_back)
        except Exception as error:  # the server may be starting, or be stopped again: tried until it is settled
            print(f"converge: {error}", file=sys.stderr, flush=True)
            if left == 0:
                sys.exit(1)
            time.sleep(1)


main()
