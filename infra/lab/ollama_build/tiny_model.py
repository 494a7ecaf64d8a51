"""A llama of 0.5 MB with random weights: a real tokenizer, free text that is garbage, schema-constrained answers that are valid JSON.

For tests of a real Ollama's behaviour (loads, swaps, streams, schemas) at thousands of tokens per second. Two seeds give two models.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from random import Random

from infra.lab.ollama_build import gguf
from infra.lab.ollama_build.gguf import Tensor

WIDTH, FEED_FORWARD, BLOCKS, HEADS, CONTEXT = 64, 128, 2, 4, 4096
_SPREAD = 0.3
_UNKNOWN, _CONTROL, _NORMAL, _BYTE = 2, 3, 1, 6
"""Token types as llama.cpp numbers them."""
_WORDS = "the of and to in is was for on that with as it by at from be this are or an have not data job".split()  # noqa: SIM905
_SPACE = "\u2581"
_EOS = 2


def write(path: Path, seed: int, *, repeats: int = 1, ends: bool = True) -> None:
    """Write the model of `seed` as a GGUF file; the same seed gives the same file.

    `repeats`: its blocks come so often, for a model as slow as a large one. Without `ends` its texts go on until they are cut.
    """
    tokens = _tokens()
    texts = [text for text, _ in tokens]
    kinds = [kind for _, kind in tokens]
    values = _values(texts, kinds, seed) | {"llama.block_count": BLOCKS * repeats}
    gguf.write(path, values, _tensors(texts, kinds, Random(seed), repeats, -15.0 if not ends else 4.0))


def _tokens() -> list[tuple[str, int]]:
    """(text, type). Every prefix of a word too: sentencepiece merges pairwise, so a word is reached only through its parts."""
    tokens = [("<unk>", _UNKNOWN), ("<s>", _CONTROL), ("</s>", _CONTROL)]
    tokens += [(f"<0x{number:02X}>", _BYTE) for number in range(256)]
    tokens += [(_SPACE, _NORMAL)] + [(chr(number), _NORMAL) for number in range(33, 127)]
    tokens += [(_SPACE + word, _NORMAL) for word in _WORDS]
    prefixes = [(_SPACE + word[:length], _NORMAL) for word in _WORDS for length in range(1, len(word))]
    return list(dict.fromkeys(tokens + prefixes))


def _values(texts: list[str], kinds: list[int], seed: int) -> dict[str, gguf.Value]:
    return {
        "general.architecture": "llama",
        "general.name": f"tiny-random-{seed}",
        "general.file_type": 0,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": BLOCKS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(texts),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": [-float(rank) for rank in range(len(texts))],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": _EOS,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }


def _tensors(texts: list[str], kinds: list[int], random: Random, repeats: int, end: float) -> list[Tensor]:
    """Dimension 0 carries a constant that no layer writes to, so column 0 of the output matrix is a bias per token.

    The bias keeps raw bytes out (only valid UTF-8 comes out), makes JSON strings short, and lets texts end by themselves.
    """
    embedding, head = _matrix(random, len(texts), WIDTH), _matrix(random, len(texts), WIDTH)
    for token, kind in enumerate(kinds):
        embedding[token * WIDTH] = 6.0
        head[token * WIDTH] = 0.0 if kind == _NORMAL else -15.0
    for token, bias in ((_EOS, end), (texts.index('"'), 5.5)):
        head[token * WIDTH : (token + 1) * WIDTH] = array("f", [bias] + [0.0] * (WIDTH - 1))
    tensors = [_tensor("token_embd", embedding, WIDTH), _vector("output_norm"), _tensor("output", head, WIDTH)]
    blocks = [_block(random) for _ in range(BLOCKS)]
    for number in range(BLOCKS * repeats):
        tensors += [replace(tensor, name=f"blk.{number}.{tensor.name}") for tensor in blocks[number % BLOCKS]]
    return tensors


def _block(random: Random) -> list[Tensor]:
    attention = [_tensor(name, _matrix(random, WIDTH, WIDTH, 3.0), WIDTH) for name in ("attn_q", "attn_k", "attn_v")]
    output = _matrix(random, WIDTH, WIDTH, 3.0)
    output[:WIDTH] = array("f", bytes(4 * WIDTH))
    down = _matrix(random, WIDTH, FEED_FORWARD, 3.0)
    down[:FEED_FORWARD] = array("f", bytes(4 * FEED_FORWARD))
    return [
        _vector("attn_norm"),
        _vector("ffn_norm"),
        *attention,
        _tensor("attn_output", output, WIDTH),
        _tensor("ffn_gate", _matrix(random, FEED_FORWARD, WIDTH), WIDTH),
        _tensor("ffn_up", _matrix(random, FEED_FORWARD, WIDTH), WIDTH),
        _tensor("ffn_down", down, FEED_FORWARD),
    ]


def _matrix(random: Random, rows: int, columns: int, divisor: float = 1.0) -> array[float]:
    return array("f", (random.gauss(0.0, _SPREAD) / divisor for _ in range(rows * columns)))


def _tensor(name: str, data: array[float], columns: int) -> Tensor:
    return Tensor(f"{name}.weight", (len(data) // columns, columns), data)


def _vector(name: str) -> Tensor:
    return Tensor(f"{name}.weight", (WIDTH,), array("f", [1.0] * WIDTH))
