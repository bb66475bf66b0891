"""Runs SQL statements by a Python driver: psycopg, PyMySQL or the standard library's sqlite3.

Reads one JSON object: {"database": "postgres" | "mysql" | "sqlite", "url": URL or path, "steps": [{"sql", "params"}]}. Prints a list with
{"rows": [{column: text}]} or {"error": text, "column": name} for each step. A parameter is a JSON scalar, or {"uuid": text}, {"json": value}
or {"time": milliseconds}, which become the type that a program would use with the driver.
"""

import datetime
import json
import sys
import urllib.parse
import uuid


def postgres(url):
    import psycopg
    from psycopg.types.json import Json

    def time(milliseconds):
        return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)

    connection = psycopg.connect(url, autocommit=True)
    placeholders = {f"${n}": "%s" for n in range(20, 0, -1)}
    return connection, placeholders, {"uuid": uuid.UUID, "json": Json, "time": time}


def mysql(url):
    import pymysql

    parts = urllib.parse.urlsplit(url)
    connection = pymysql.connect(
        host=parts.hostname, port=parts.port, user=parts.username, database=parts.path[1:], autocommit=True
    )
    return connection, {"?": "%s"}, {"uuid": str, "json": json.dumps, "time": lambda milliseconds: milliseconds * 1000}


def sqlite(path):
    import sqlite3

    connection = sqlite3.connect(path, isolation_level=None)
    return connection, {}, {"uuid": str, "json": json.dumps, "time": int}


def main():
    task = json.load(sys.stdin)
    connection, placeholders, types = globals()[task["database"]](task["url"])

    def parameter(value):
        if isinstance(value, dict):
            [(kind, value)] = value.items()
            return types[kind](value)
        return value

    def run(step):
        sql, params = step["sql"], step.get("params")
        cursor = connection.cursor()
        if params is None:
            cursor.execute(sql)
        else:
            for documented, own in placeholders.items():
                sql = sql.replace(documented, own)
            cursor.execute(sql, [parameter(value) for value in params])
        if cursor.description is None:
            return []
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, (None if v is None else str(v) for v in row))) for row in cursor.fetchall()]

    results = []
    for step in task["steps"]:
        try:
            results.append({"rows": run(step)})
        except Exception as error:  # the drivers have no common class
            column = getattr(getattr(error, "diag", None), "column_name", None)
            results.append({"error": str(error), "column": column})
    json.dump(results, sys.stdout)


main()
