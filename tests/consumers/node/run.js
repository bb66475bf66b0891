// Runs SQL statements by a Node driver: pg, mysql2 or node-sqlite3-wasm. Its input and its output are those of ../python/run.py.
'use strict';

async function postgres(url) {
    const client = new (require('pg').Client)(url);
    await client.connect();
    // The driver turns an object into JSON, and an array into an array of PostgreSQL.
    const json = (value) => (Array.isArray(value) ? JSON.stringify(value) : value);
    return {
        types: { uuid: String, json, time: (milliseconds) => new Date(milliseconds) },
        query: async (sql, params) => (await client.query(sql, params)).rows,
        close: () => client.end(),
    };
}

async function mysql(url) {
    const connection = await require('mysql2/promise').createConnection(url);
    return {
        types: { uuid: String, json: JSON.stringify, time: (milliseconds) => milliseconds * 1000 },
        query: async (sql, params) => {
            const [rows] = params ? await connection.execute(sql, params) : await connection.query(sql);
            return Array.isArray(rows) ? rows : [];
        },
        close: () => connection.end(),
    };
}

async function sqlite(path) {
    const database = new (require('node-sqlite3-wasm').Database)(path);
    // WebAssembly has no shared memory, which a database in WAL mode needs unless one program has it alone.
    database.exec('PRAGMA locking_mode = EXCLUSIVE');
    return {
        types: { uuid: String, json: JSON.stringify, time: Number },
        query: async (sql, params) => database.all(sql, params ?? []),
        close: () => database.close(),
    };
}

async function main() {
    let input = '';
    for await (const chunk of process.stdin.setEncoding('utf8')) {
        input += chunk;
    }
    const task = JSON.parse(input);
    const driver = await { postgres, mysql, sqlite }[task.database](task.url);
    const parameter = (value) => {
        if (value === null || typeof value !== 'object') {
            return value;
        }
        const [[kind, inner]] = Object.entries(value);
        return driver.types[kind](inner);
    };
    const text = (value) =>
        value === null ? null
        : value instanceof Date ? value.toISOString()
        : typeof value === 'object' ? JSON.stringify(value)
        : String(value);
    const results = [];
    for (const { sql, params } of task.steps) {
        try {
            const rows = await driver.query(sql, params?.map(parameter));
            results.push({
                rows: rows.map((row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, text(value)]))),
            });
        } catch (error) {
            results.push({ error: String(error.message), column: error.column ?? null });
        }
    }
    await driver.close();
    process.stdout.write(JSON.stringify(results));
}

main();
