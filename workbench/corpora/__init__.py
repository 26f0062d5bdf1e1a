"""Running text: documents as a model's tokens, in batches that nothing is mixed in.

corpus = corpora.topics(model, length=128)          # on every machine, without a download
corpus = corpora.files(model, "notes/", length=128) # text, jsonl, csv, or a folder of them
hooks.store.write(model, corpus.batches(16), sites, path, key=corpus.digest)
"""

from workbench.corpora.corpus import Corpus, text
from workbench.corpora.reading import files, hub, named, topics
from workbench.corpora.written import PROSE, passages, prose

__all__ = ["PROSE", "Corpus", "files", "hub", "named", "passages", "prose", "text", "topics"]
