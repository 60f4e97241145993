"""Stands in for a provider: reads a number and an article from the question, calls a tool, tells its result."""

import re
from collections.abc import AsyncIterator

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel


async def _answer(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
    newest = messages[-1].parts[-1]
    if isinstance(newest, ToolReturnPart):
        for word in re.findall(r"\s*\S+", f"The tool {newest.tool_name} says: {newest.content}."):
            yield word
        return
    asked = [part.content for m in messages if isinstance(m, ModelRequest) for part in m.parts
             if isinstance(part, UserPromptPart)]  # fmt: skip
    text = str(asked[-1]).lower()
    article = next((name for name in ("bell", "pump") if name in text), None)
    if article is None:
        yield "Ask me about bells or pumps."
        return
    count = re.search(r"\d+", text)
    given = f'{{"article": "{article}"' + (f', "count": {count[0]}}}' if count else "}")
    yield {
        0: DeltaToolCall(name="order" if count else "stock", json_args=given, tool_call_id=f"call-{len(messages)}")
    }


stand_in = FunctionModel(stream_function=_answer, model_name="stand-in")
