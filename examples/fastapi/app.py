"""A FastAPI application with its own sign-in, and a chat room in it that knows who is there. Needs `fastapi`.

    uvicorn app:app

Sign in as ``ada`` (password ``lovelace``) or ``grace`` (``hopper``). No key is needed: scripts stand in for a model.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Cookie, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import HTTPConnection

from perdure import App, ChatMessage, ChatRoom, DurableObject, User, callable, tool

PASSWORDS = {"ada": "lovelace", "grace": "hopper"}  # yours are hashed, in a database
MANAGERS = {"grace"}
SCRIPTS = {
    "refund": "scripted:tool=refund&delay_ms=20",
    "order": "scripted:tool=find_order&delay_ms=20",
}
SIGN_IN_PAGE = (Path(__file__).parent / "sign_in.html").read_text()


class Sessions(DurableObject):
    """Who is signed in, by token. An object, so that a restart signs nobody out."""

    @callable
    async def begin(self, name: str) -> str:
        token = secrets.token_urlsafe()
        self.storage.put(token, name)
        return token

    @callable
    async def name_of(self, token: str) -> str | None:
        name: str | None = self.storage.get(token)
        return name

    @callable
    async def end(self, token: str) -> None:
        self.storage.delete(token)


class Office(ChatRoom):
    """For a real model: ``model = "anthropic:claude-haiku-4-5"``, without ``models`` and ``who_answers``."""

    instructions = "You help the clerks of a shop for outdoor clothes."
    model = "scripted:echo&delay_ms=20"
    models = SCRIPTS

    def who_answers(self, message: ChatMessage) -> Sequence[str]:
        """The script whose name is in the message."""
        return [name for name in SCRIPTS if name in message.text.lower()][:1] or [""]

    def may_answer(self, user: str | None, tool: str) -> bool:
        """Only a manager may let money go."""
        return user in MANAGERS

    @tool
    def find_order(self, order: int) -> dict[str, int | str]:
        """What became of an order."""
        return {"order": order, "status": "shipped"}

    @tool(approval=True)
    def refund(self, order: int) -> str:
        """Give a customer the money for an order back."""
        return f"Order {order} is refunded."


async def name_of(session: str | None) -> str | None:
    return await rooms.get(Sessions, "all").name_of(session) if session else None


async def authenticate(request: HTTPConnection) -> User | None:
    """The door to everything that perdure serves: the page, sockets, every API."""
    name = await name_of(request.cookies.get("session"))
    return User(name=name, rooms=["office", f"private-{name}"]) if name else None


rooms = App([Office, Sessions], authenticate=authenticate)
app = FastAPI(lifespan=rooms.lifespan)


async def signed_in(session: Annotated[str | None, Cookie()] = None) -> str:
    """The same for FastAPI's own routes."""
    name = await name_of(session)
    if name is None:
        raise HTTPException(401, "sign in to use this")
    return name


@app.get("/")
async def start(session: Annotated[str | None, Cookie()] = None) -> RedirectResponse:
    return RedirectResponse("/chat/office" if await name_of(session) else "/sign-in", 303)


@app.get("/sign-in", response_class=HTMLResponse)
async def ask_for_name() -> str:
    return SIGN_IN_PAGE.replace("{problem}", "")


@app.post("/sign-in")
async def sign_in(request: Request) -> Response:
    fields = dict(parse_qsl((await request.body()).decode()))
    name, password = fields.get("name", ""), fields.get("password", "")
    if not secrets.compare_digest(PASSWORDS.get(name, "").encode(), password.encode()) or not password:
        return HTMLResponse(SIGN_IN_PAGE.replace("{problem}", "Name or password is wrong."), 401)
    reply = RedirectResponse("/chat/office", 303)
    token = await rooms.get(Sessions, "all").begin(name)
    reply.set_cookie("session", token, httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return reply


@app.post("/sign-out")
async def sign_out(session: Annotated[str | None, Cookie()] = None) -> RedirectResponse:
    await rooms.get(Sessions, "all").end(session or "")
    return RedirectResponse("/sign-in", 303)


@app.post("/orders/{order}/returned")
async def returned(order: int, name: Annotated[str, Depends(signed_in)]) -> dict[str, str]:
    """A route of the application that speaks in the room; everyone there sees it, and the answer, at once."""
    submitted = await rooms.get(Office, "office").submit(f"Please refund order {order}, it came back.", user=name)
    return {"message": submitted.message_id}


app.mount("/", rooms)  # last, for it answers every path
