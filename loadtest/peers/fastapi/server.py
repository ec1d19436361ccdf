"""A peer: the total of a user's unread direct messages, by FastAPI on granian (uvloop) with redis-py, hiredis and orjson.

Usage: REDIS_URL=... granian --interface asgi --loop uvloop --port PORT --workers WORKERS server:app
"""

import os

import orjson
import redis.asyncio
from fastapi import FastAPI, Response
from pydantic import BaseModel, Field

app = FastAPI()
client = redis.asyncio.from_url(os.environ["REDIS_URL"])


class Asked(BaseModel):
    """The body of the call."""

    user: str = Field(alias="To_Account", min_length=1)


@app.post("/v4/openim/get_c2c_unread_msg_num")
async def unread(asked: Asked) -> Response:
    """One HGET."""
    total = await client.hget(f"unread:v1:{{bench:u:{asked.user}}}:counts", "messages:direct")
    reply = {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "AllC2CUnreadMsgNum": int(total or 0)}
    return Response(orjson.dumps(reply), media_type="application/json")


@app.get("/")
async def ready() -> Response:
    """Up."""
    return Response()
