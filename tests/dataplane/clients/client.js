// SPDX-License-Identifier: Apache-2.0
// Node's http, with an agent that keeps connections, and its fetch.
"use strict";
const http = require("http");
const HOST = process.argv[2];
const BIG = 10000000;
const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });

const body = (size) => Buffer.from(Uint8Array.from({ length: size }, (_, i) => i % 256));

function ask(path, { method = "GET", data, chunked, expect } = {}) {
	return new Promise((resolve, reject) => {
		const headers = {};
		if (data && !chunked) headers["content-length"] = data.length;
		if (expect) headers.expect = "100-continue";
		const request = http.request({ host: HOST, path, method, agent, headers }, (answer) => {
			const parts = [];
			answer.on("data", (part) => parts.push(part));
			answer.on("error", reject);
			answer.on("end", () => resolve([answer.statusCode, answer.headers["x-backend"], Buffer.concat(parts)]));
		});
		request.on("error", reject);
		if (expect) request.on("continue", () => request.end(data));
		else request.end(data);
	});
}

async function check(name, path, want, extra) {
	const [status, who, got] = await ask(`/${name}/${path}`, extra);
	if (status !== 200 || who !== name || !got.equals(want))
		throw new Error(`${name}/${path}: ${status} ${who} ${got.length}`);
}

async function main() {
	for (let n = 0; n < 40; n++) await check("ab"[n % 2], `size/${n}`, body(n));
	const all = [];
	for (let n = 0; n < 160; n++) all.push(check("ab"[n % 2], "echo", body(n * 99), { method: "POST", data: body(n * 99) }));
	await Promise.all(all);
	for (const size of [10, 100000, BIG]) {
		await check("a", "echo", body(size), { method: "POST", data: body(size) });
		await check("b", "echo", body(size), { method: "POST", data: body(size), chunked: true });
		await check("a", `chunked/${size}`, body(size));
	}
	await check("a", "echo", body(9), { method: "POST", data: body(9), expect: true });
	await check("b", "size/50", body(0), { method: "HEAD" });
	for (let n = 0; n < 10; n++) {
		const answer = await fetch(`http://${HOST}/a/size/${n}`);
		if (!Buffer.from(await answer.arrayBuffer()).equals(body(n))) throw new Error("fetch");
	}
	agent.destroy();
	console.log("ok");
	process.exit(0);
}

main().catch((error) => {
	console.error(error);
	process.exit(1);
});
