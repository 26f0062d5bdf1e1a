"""Chat models that are asked something and answer in words: a loaded one, or one that is served."""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import torch

from workbench.models.text import chat

Message = dict[str, str]
"""One turn of a conversation: {"role": "user", "content": ...}."""

Chat = Callable[[Sequence[Message]], str]
"""From a conversation to the assistant's next words."""

_LOCAL = ("localhost", "127.0.0.1", "::1")
_SHOWN = 300  # characters of a reply that an error quotes


@torch.no_grad()
def reply(model: Any, messages: Sequence[Message], *, tokens: int = 64) -> str:
    """What a loaded chat model answers, at most so many tokens, the likeliest one at each step."""
    prompts = chat(model, messages)
    device = next(model.original_model.parameters()).device
    ids = prompts.tokens.to(device)
    room = model.cfg.n_ctx - ids.shape[1]
    if tokens < 1 or room < 1:
        raise ValueError(f"{tokens} tokens were asked for, there is room for {room}: shorten it")
    found = model.original_model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=min(tokens, room),
        do_sample=False, pad_token_id=model.tokenizer.pad_token_id or 0,
    )  # fmt: skip
    return model.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True).strip()


@dataclass(frozen=True)
class Endpoint:
    """A served chat model with an OpenAI-compatible address: conversations in, words out.

    url      what stands before "/chat/completions", such as "http://127.0.0.1:8000/v1"
    name     which of the server's models
    key      the NAME of an environment variable that holds the key, read at every request and
             kept nowhere; where it is not set, no key is sent
    tokens   at most so many are answered
    seconds  how long an answer is waited for
    """

    url: str
    name: str
    key: str = "OPENAI_API_KEY"
    tokens: int = 256
    seconds: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url={self.url!r}: give one such as 'http://127.0.0.1:8000/v1'")
        if parts.username or parts.password:
            raise ValueError("no user or password in the url: put the key into a variable")
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key):
            # Not quoted: it may be a key.
            raise ValueError("key= takes the name of an environment variable, such as 'MY_KEY'")

    def __str__(self) -> str:
        return f"{self.name} at {self.url}"

    def __call__(self, messages: Sequence[Message]) -> str:
        """The assistant's answer; at temperature 0, which not every server makes reproducible."""
        asked = {
            "model": self.name, "messages": list(messages), "temperature": 0,
            "max_tokens": self.tokens,
        }  # fmt: skip
        answer = self._sent(json.dumps(asked).encode())
        try:
            text = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            shown = answer[:_SHOWN].decode(errors="replace")
            raise ValueError(f"{self} gave no choices[0].message.content but {shown!r}")
        return text.strip()

    def _sent(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if secret := os.environ.get(self.key):
            parts = urlsplit(self.url)
            if parts.scheme != "https" and parts.hostname not in _LOCAL:
                raise ValueError(f"the key in {self.key} is not sent unencrypted: use https")
            headers["Authorization"] = f"Bearer {secret}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, body, headers, method="POST")
        try:
            with _OPENER.open(request, timeout=self.seconds) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            said = error.read()[:_SHOWN].decode(errors="replace")
            raise ConnectionError(f"{self} answered {error.code}: {said!r}") from None
        except (urllib.error.URLError, TimeoutError) as error:
            why = getattr(error, "reason", error)
            raise ConnectionError(f"{self} did not answer: {why}. Is it running?") from error


class _Stay(urllib.request.HTTPRedirectHandler):
    """A key goes nowhere but where it was sent: redirections are errors."""

    def redirect_request(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None


_OPENER = urllib.request.build_opener(_Stay)
