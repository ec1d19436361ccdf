// A peer: streams of numbers by ws, one process a core. A connection to /USER is sent whatever Redis publishes on the channel USER.
// With the address of an API and its key, what is published is only a notice: the server asks there for the numbers and sends
// those; while it asks, it gathers the next notices, and then asks for all of their users at once.
// Usage: node ws.js PORT WORKERS REDIS_URL [API_URL KEY]

import cluster from "node:cluster";
import { createServer } from "node:http";
import { Redis } from "ioredis";
import { WebSocketServer } from "ws";

const [port, workers, redisUrl, api, key] = process.argv.slice(2);
const AT_ONCE = 1000;

if (cluster.isPrimary) {
  for (let i = 0; i < Number(workers); i++) cluster.fork();
} else {
  const redis = new Redis(redisUrl);
  const watchers = new Map();
  const noticed = new Set();
  let asking = false;

  const send = (user, text) => watchers.get(user)?.forEach((socket) => socket.send(text));

  const ask = async () => {
    asking = true;
    while (noticed.size > 0) {
      const users = [...noticed].slice(0, AT_ONCE);
      users.forEach((user) => noticed.delete(user));
      const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
      const answer = await fetch(`${api}/v1/unread`, { method: "POST", headers, body: JSON.stringify({ users }) });
      for (const [user, totals] of Object.entries((await answer.json()).users)) send(user, JSON.stringify(totals));
    }
    asking = false;
  };

  redis.on("message", (user, text) => {
    if (!api) return send(user, text);
    noticed.add(user);
    if (!asking) ask();
  });

  const server = createServer((_, response) => response.end());
  new WebSocketServer({ server }).on("connection", (socket, request) => {
    const user = request.url.slice(1);
    if (!watchers.has(user)) {
      watchers.set(user, new Set());
      redis.subscribe(user);
    }
    watchers.get(user).add(socket);
    socket.on("close", () => {
      watchers.get(user).delete(socket);
      if (watchers.get(user).size > 0) return;
      watchers.delete(user);
      redis.unsubscribe(user);
    });
  });
  server.listen(Number(port), "127.0.0.1");
}
