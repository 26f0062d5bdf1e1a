"""A name, a folder or a model in memory, to a model that can be studied.

Knows where weights come from; does not know what will be asked of them.
"""

from workbench.models import planted, surgery
from workbench.models.bridge import Model, Origin, wrap
from workbench.models.encoder import Encoder, embed, wrap_encoder
from workbench.models.load import known, load
from workbench.models.surgery import save
from workbench.models.talking import Chat, Endpoint, reply
from workbench.models.text import chat, prompts, words
from workbench.models.untrained import redrawn, untrained

__all__ = [
    "Chat",
    "Encoder",
    "Endpoint",
    "Model",
    "Origin",
    "chat",
    "embed",
    "known",
    "load",
    "planted",
    "prompts",
    "redrawn",
    "reply",
    "save",
    "surgery",
    "untrained",
    "words",
    "wrap",
    "wrap_encoder",
]
