"""The embedder in the cache's own process, with the real library and a tiny model made here: `make test-semantic`.

Without the extra `semantic` these are skipped, in `make test` too; where TUTTI_REQUIRE_REAL names `semantic` that is a failure.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from services.cache.semantic.embedding import EmbedderAway
from services.cache.semantic.local import MOST_AT_ONCE, LocalEmbedder
from shared.errors import ConfigurationError
from tests.support.native import missing

WORDS = ("how", "what", "is", "the", "a", "do", "i", "reset", "my", "password", "height", "tall", "mount", "everest", "fuji", "of")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence model whose vector of a text is the mean of its words' random ones: 16 numbers, some kB."""
    if find_spec("sentence_transformers") is None:
        missing("semantic", "pip install 'tutti-cluster[semantic]'")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(1)
    tokenizer: Any = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("model") / "tiny"
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu").save(str(folder))
    return folder


async def test_it_is_away_until_it_is_loaded_and_then_embeds(model: Path) -> None:
    embedder = LocalEmbedder(str(model))
    troubles = [embedder.trouble]
    with pytest.raises(EmbedderAway):
        await embedder.embed("how tall")
    await embedder.run()
    assert [*troubles, embedder.trouble] == ["the embedder is still loading", None]
    one, same, other = [await embedder.embed(text) for text in ("how tall is everest", "everest is how tall", "reset my password")]
    assert one.cosine(same) == pytest.approx(1.0, abs=1e-5)
    assert (one.cosine(other) or 0.0) < 0.9
    assert one.cosine(one) == pytest.approx(1.0, abs=1e-5)
    await embedder.close()


async def test_too_many_at_once_are_refused_and_the_event_loop_is_not_held(model: Path) -> None:
    embedder = LocalEmbedder(str(model))
    await embedder.run()
    made = await asyncio.gather(*(embedder.embed(f"what is {number}") for number in range(MOST_AT_ONCE + 8)), return_exceptions=True)
    assert sum(isinstance(one, EmbedderAway) for one in made) == 8
    await embedder.close()


def changed(model: Path, other: Path) -> Path:
    """With another last weight."""
    copytree(model, other)
    for file in other.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x00\x3f")
    return other


async def test_another_model_is_another_version(model: Path, tmp_path: Path) -> None:
    """Files of one name and size with other bytes: its vectors are not compared with the first one's."""
    other = changed(model, tmp_path / "tiny")
    first, second = LocalEmbedder(str(model)), LocalEmbedder(str(other))
    await first.run()
    await second.run()
    one, another = await first.embed("tall"), await second.embed("tall")
    assert one.by != another.by
    assert one.cosine(another) is None
    await first.close()
    await second.close()


async def test_a_folder_that_is_no_model_is_said_and_every_text_is_a_miss(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("nonsense")
    embedder = LocalEmbedder(str(tmp_path))
    await embedder.run()
    assert embedder.trouble is not None
    assert embedder.trouble.startswith("the embedder does not load")
    with pytest.raises(EmbedderAway):
        await embedder.embed("tall")
    with pytest.raises(ConfigurationError):
        LocalEmbedder(str(tmp_path / "nothing"))
