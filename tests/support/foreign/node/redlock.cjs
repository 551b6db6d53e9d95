// npm `redlock` over the nodes whose URLs it is given, a command a line: `try KEY MS`, `extend KEY MS`, `release KEY`.
// Each is answered by a line: held, busy, extended, lost, released, gone.
const { default: Client } = require("redlock");
const { default: Redis } = require("ioredis");

const nodes = process.argv.slice(2).map((url) => new Redis(url));
const redlock = new Client(nodes, { retryCount: 0, automaticExtensionThreshold: 10 });
redlock.on("error", () => {});
const held = new Map();

async function obey([what, key, ms]) {
  switch (what) {
    case "try":
      return redlock.acquire([key], Number(ms)).then((lock) => (held.set(key, lock), "held"), () => "busy");
    case "extend":
      return held.get(key).extend(Number(ms)).then((lock) => (held.set(key, lock), "extended"), () => "lost");
    case "release":
      return held.get(key).release().then(() => "released", () => "gone");
  }
}

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => (queue = queue.then(() => obey(line.split(" "))).then((said) => console.log(said))))
  .on("close", () => process.exit(0));
let queue = Promise.all(nodes.map((node) => node.ping()));
