"""A room that answers.

    perdure run hello_room:app        then open http://127.0.0.1:8000

Type something, reload in the middle of the answer, open a second tab, or kill the server and start it again.
"""

from perdure import App, ChatRoom


class Hello(ChatRoom):
    model = "scripted:paced"  # needs no key; or "local:smollm2", "anthropic:claude-haiku-4-5", "openai:…"
    instructions = "You are friendly and brief."


app = App([Hello])
