"""Rooms inside a FastAPI application, and a room called from one of its routes. Needs `fastapi`.

    uvicorn fastapi_mount:api

    curl -d '{"order": "A-7", "status": "has shipped"}' -H 'content-type: application/json' \
        http://127.0.0.1:8000/orders
"""

from fastapi import FastAPI
from pydantic import BaseModel

from perdure import App, ChatRoom


class Support(ChatRoom):
    model = "scripted:echo"


rooms = App([Support])
api = FastAPI(lifespan=rooms.lifespan)


class OrderChange(BaseModel):
    order: str
    status: str


@api.post("/orders")
async def order_changed(change: OrderChange) -> dict[str, str]:
    """Tells the order's room; who looks at it sees the message and the answer come at once."""
    room = rooms.get(Support, f"order-{change.order}")
    submitted = await room.submit(f"Order {change.order} {change.status}.", user="Warehouse")
    return {"message": submitted.message_id}


api.mount("/", rooms)  # last, for it answers every path
