// What a program does with the types that `openapi-typescript` makes of the server's description.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };
const client = createClient<paths>({ baseUrl: process.argv[2] });

function check(so: boolean, what: string): asserts so {
  if (!so) throw new Error(what);
}

const asked: components["schemas"]["Acquire"] = { key: "typed:1", owner: "typescript", mode: "exclusive" };
const granted = await client.POST("/acquire", { body: asked });
check(granted.data !== undefined, `no lock: ${JSON.stringify(granted.error)}`);
const { key, token, fencing_token } = granted.data;
check(typeof fencing_token === "number" && granted.data.mode === "exclusive", "a lock with its fence");

const busy = await client.POST("/acquire", { body: { key, wait_ms: 0 } });
check(busy.error?.code === "held" && busy.error.holder?.owner === "typescript", "the second is told who holds it");

const beat = await client.POST("/heartbeat", { body: { key, token } });
check((beat.data?.refresh_count ?? 0) === 1, "it lasts longer");
const list = await client.GET("/locks", { params: { query: { prefix: "typed:", sort: "-age" } } });
check(list.data !== undefined && "locks" in list.data && list.data.locks.length === 1, "it is listed");
const released = await client.POST("/release", { body: { key, token } });
check(released.data?.outcome === "released", "it is free");
const event: components["schemas"]["Event"] = { kind: "missed", missed: 3 };
check(event.kind === "missed", "events have a type");
console.log("locked and released by TypeScript");
