// What programs do with Node's `fetch`: `fetch_client.mjs URL...`, each URL that of `app.py`.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";

const BIG = Buffer.alloc(4_000_000);
for (let at = 0; at < BIG.length; at++) BIG[at] = at % 251;

async function* pieces(body) {
    for (let start = 0; start < body.length; start += 10_007) yield body.subarray(start, start + 10_007);
}

const bytes = async (answer) => Buffer.from(await answer.arrayBuffer());

async function exercise(url) {
    const echo = await fetch(`${url}/echo`);
    assert.equal((await echo.json()).method, "GET");
    assert.deepEqual(await bytes(await fetch(`${url}/mirror`, { method: "POST", body: BIG })), BIG);
    const upload = { method: "PUT", body: ReadableStream.from(pieces(BIG)), duplex: "half" };
    assert.deepEqual(await bytes(await fetch(`${url}/mirror`, upload)), BIG);
    const head = await fetch(`${url}/bytes/1000000`, { method: "HEAD" });
    assert.equal(head.headers.get("content-length"), "1000000");
    for (const query of ["", "?chunked"]) {
        const received = [];
        const answer = await fetch(`${url}/bytes/${BIG.length}${query}`);
        for await (const piece of answer.body) received.push(piece);
        assert.deepEqual(Buffer.concat(received), BIG);
    }
    assert.equal((await fetch(`${url}/nowhere`)).status, 404);

    const bodies = Array.from({ length: 100 }, () => randomBytes(20_000));
    const answers = bodies.map(async (body) => bytes(await fetch(`${url}/mirror`, { method: "POST", body })));
    assert.deepEqual(await Promise.all(answers), bodies);
}

for (const url of process.argv.slice(2)) await exercise(url);
console.log("all answered");
