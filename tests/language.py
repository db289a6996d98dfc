"""A tokenizer and a chat template for tests: every byte is a token, and a few merges."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (("Ġ", "t"), ("h", "e"), ("Ġt", "he"))
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}<|im_start|>"


def vocabulary() -> list[str]:
    """262 tokens."""
    return [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(m) for m in MERGES)]


def byte_tokenizer() -> bytes:
    """A tokenizer.json."""
    names = {n: i for i, n in enumerate(vocabulary())}
    made = Tokenizer(models.BPE(vocab=names, merges=list(MERGES)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in SPECIAL])
    return made.to_str().encode()


def byte_tokens() -> list[int]:
    """The token of each byte. Byte-level alphabets write those without a printable form as U+0100 and on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
    tokens = {n: i for i, n in enumerate(vocabulary())}
    return [tokens[names[b]] for b in range(256)]
