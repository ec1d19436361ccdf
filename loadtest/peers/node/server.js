// A peer: the total of a user's unread direct messages, by fastify and ioredis with auto-pipelining, one process a core.
// Usage: node server.js PORT WORKERS REDIS_URL

import cluster from "node:cluster";
import Fastify from "fastify";
import { Redis } from "ioredis";

const [port, workers, redisUrl] = process.argv.slice(2);

const body = {
  type: "object",
  required: ["To_Account"],
  properties: { To_Account: { type: "string", minLength: 1 } },
};
const reply = {
  type: "object",
  properties: {
    ActionStatus: { type: "string" },
    ErrorInfo: { type: "string" },
    ErrorCode: { type: "integer" },
    AllC2CUnreadMsgNum: { type: "integer" },
  },
};

if (cluster.isPrimary) {
  for (let i = 0; i < Number(workers); i++) cluster.fork();
} else {
  const redis = new Redis(redisUrl, { enableAutoPipelining: true });
  const app = Fastify();
  app.post("/v4/openim/get_c2c_unread_msg_num", { schema: { body, response: { 200: reply } } }, async (request) => {
    const key = `unread:v1:{bench:u:${request.body.To_Account}}:counts`;
    const total = await redis.hget(key, "messages:direct");
    return { ActionStatus: "OK", ErrorInfo: "", ErrorCode: 0, AllC2CUnreadMsgNum: Number(total ?? 0) };
  });
  app.get("/", async () => "");
  await app.listen({ host: "127.0.0.1", port: Number(port) });
}
