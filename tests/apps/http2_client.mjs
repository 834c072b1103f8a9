// What programs do with node:http2: `http2_client.mjs CA URL...`, each URL that of `app.py`, and of a mirror of trailers at
// `/trailers`.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const BIG = Buffer.alloc(4_000_000);
for (let at = 0; at < BIG.length; at++) BIG[at] = at % 251;

// Asks, and returns what came of it.
async function ask(session, headers, body = [], trailers) {
    const stream = session.request(headers, { endStream: false, waitForTrailers: trailers !== undefined });
    if (trailers) stream.on("wantTrailers", () => stream.sendTrailers(trailers));
    const answer = { pieces: [] };
    stream.on("response", (head) => (answer.head = head));
    stream.on("trailers", (fields) => (answer.trailers = fields));
    stream.on("data", (piece) => answer.pieces.push(piece));
    for (const piece of body) {
        if (!stream.write(piece)) await once(stream, "drain");
    }
    stream.end();
    await once(stream, "close");
    return { ...answer, body: Buffer.concat(answer.pieces), status: answer.head[":status"] };
}

function* pieces(body) {
    for (let start = 0; start < body.length; start += 10_007) yield body.subarray(start, start + 10_007);
}

async function exercise(url, ca) {
    const session = http2.connect(url, { ca });
    const echo = await ask(session, { ":path": "/echo" });
    assert.equal(JSON.parse(echo.body).method, "GET");
    const upload = { ":method": "POST", ":path": "/mirror" };
    assert.deepEqual((await ask(session, upload, pieces(BIG))).body, BIG);
    const head = await ask(session, { ":method": "HEAD", ":path": "/bytes/1000000" });
    assert.deepEqual([head.head["content-length"], head.body.length], ["1000000", 0]);
    for (const query of ["", "?chunked"]) {
        assert.deepEqual((await ask(session, { ":path": `/bytes/${BIG.length}${query}` })).body, BIG);
    }
    assert.equal((await ask(session, { ":path": "/nowhere" })).status, 404);

    const fields = { ":method": "POST", ":path": "/trailers", te: "trailers", trailer: "x-sum" };
    const mirrored = await ask(session, fields, [Buffer.from("hi")], { "x-sum": "7" });
    assert.equal(mirrored.trailers["x-sum"], "7");

    const bodies = Array.from({ length: 100 }, () => randomBytes(20_000));
    const answers = await Promise.all(bodies.map((body) => ask(session, upload, [body])));
    assert.deepEqual(answers.map((answer) => answer.body), bodies);
    session.close();
}

const [ca, ...urls] = process.argv.slice(2);
for (const url of urls) await exercise(url, readFileSync(ca));
console.log("all answered");
