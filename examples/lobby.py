"""A room of people only: no model, everyone sees everyone.

perdure run lobby:app

perdure chat ws://127.0.0.1:8000/ws/lobby --user Ann        in one terminal
perdure chat ws://127.0.0.1:8000/ws/lobby --user Ben        in another
"""

from perdure import App, ChatRoom


class Lobby(ChatRoom):
    model = None


app = App([Lobby])
