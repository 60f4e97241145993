"""Let in only who may come in, and only where.

    perdure run authenticate:app --host 0.0.0.0

    curl -H 'authorization: Bearer ann-secret' http://127.0.0.1:8000/api/chat/team-red/messages

One hook serves every surface: pages, sockets, HTTP, RPC. Look the token up where yours are kept.
"""

from starlette.requests import HTTPConnection

from perdure import App, ChatRoom, User

USERS = {
    "ann-secret": User(name="Ann", rooms=["team-*"]),
    "ben-secret": User(name="Ben", rooms=["team-blue", "ben"]),
    "root-secret": User(name="Root"),  # every room
}


async def authenticate(request: HTTPConnection) -> User | None:
    # A browser's WebSocket cannot set headers, so that a cookie is the way there.
    header = request.headers.get("authorization", "")
    token = header.removeprefix("Bearer ") if header else request.cookies.get("token", "")
    return USERS.get(token)


class Team(ChatRoom):
    model = "scripted:echo"


app = App([Team], authenticate=authenticate)
