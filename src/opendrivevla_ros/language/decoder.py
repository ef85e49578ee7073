"""A decoder over the weights of a Qwen2 or Qwen2.5-VL language model, several times faster than `transformers`' own.

Key-value cache of fixed shape, fused projections (the model's parameters become views of the fused ones, nothing is
stored twice), rotary tables computed once, several tokens fed in one forward, and the key-value entries of a prompt's
unchanging beginning kept from call to call. On CUDA every step is replayed from a CUDA graph.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2ForCausalLM

from opendrivevla_ros.language.quantisation import embed, int8_parts, int8_tensor, linear

Check = Callable[[], None]


def _no_check() -> None:
    return None


@dataclass(frozen=True)
class _Layer:
    """One transformer layer's weights."""

    input_norm: Tensor  # [hidden]
    qkv: Tensor  # [(heads + 2 * key_value_heads) * head_size, hidden]
    qkv_bias: Tensor
    output: Tensor  # [hidden, heads * head_size]
    mlp_norm: Tensor  # [hidden]
    gate_up: Tensor  # [2 * intermediate, hidden]
    down: Tensor  # [hidden, intermediate]


class Decoder:
    """Runs a model over up to `rows` continuations of one prompt, of up to `max_length` positions each.

    Build it once the model is on its device and in its precision. The order of calls is `prefill`, then `fork` for
    more than one row, then `step` as often as wanted.
    """

    def __init__(
        self, model: Qwen2ForCausalLM | Qwen2_5_VLForConditionalGeneration, *, max_length: int = 2048, rows: int = 1
    ) -> None:
        # of a model with eyes, the language model is a part
        config = getattr(model.config, "text_config", model.config)
        language = getattr(model.model, "language_model", model.model)
        if config.rope_parameters["rope_type"] != "default":
            raise ValueError(f"the decoder knows plain rotary embeddings only, not {config.rope_parameters}")
        self.max_length, self.rows = max_length, rows
        self.embedding: Tensor = language.embed_tokens.weight.detach()
        self.head: Tensor = model.lm_head.weight.detach()
        self._final_norm: Tensor = language.norm.weight.detach()
        self._epsilon = config.rms_norm_eps
        self._layers = [_fuse(layer) for layer in language.layers]
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_size = config.hidden_size // self._heads
        device, dtype = self.embedding.device, self.embedding.dtype
        # A prompt's last position may be beyond its length: pictures are counted by time, row and column.
        tables = _rotary_tables(2 * max_length, self._head_size, config.rope_parameters["rope_theta"])
        self._cosine, self._sine = (table.to(device, dtype) for table in tables)
        self._sections: list[int] = list(config.rope_parameters.get("mrope_section", ()))
        shape = (rows, max_length, self._kv_heads, self._head_size)
        self._keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in self._layers]
        self._values = [torch.zeros(shape, device=device, dtype=dtype) for _ in self._layers]
        self._lengths = [0] * rows
        self._shift = 0  # from a text token's place in the cache to its rotary position
        self._shift_tensor = torch.zeros((), device=device, dtype=torch.long)
        self._prefix: tuple[int, ...] = ()
        self._graphs: dict[tuple[int, int], _Graph] = {}

    @property
    def lengths(self) -> tuple[int, ...]:
        """Positions in use, by row."""
        return tuple(self._lengths)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embeddings [L, hidden] of tokens."""
        return embed(torch.tensor(ids, device=self.embedding.device), self.embedding)

    @torch.inference_mode()
    def prefill(
        self,
        embeddings: Tensor,
        *,
        prefix: Sequence[int] = (),
        positions: Tensor | None = None,
        check: Check = _no_check,
    ) -> Tensor:
        """Reads a prompt [L, hidden] into row 0; returns the last position's normalised hidden state [1, hidden].

        prefix: the ids of the prompt's beginning, as far as it is plain text. It is read in a forward of its own, and
        not again while it stays the same, so that the outcome does not depend on the calls before; while weights
        change, give none.
        positions: [3, L] of time, row and column for the rotary embedding (Qwen2-VL, arXiv 2409.12191), where the
        prompt holds pictures; text after it goes on behind the largest. Without them tokens are counted from 0.
        check: called before every layer, may raise. Raises ValueError for a prompt that is too long or not finite.
        """
        count = len(embeddings)
        if not 0 < count <= self.max_length:
            raise ValueError(f"the prompt has {count} positions, the decoder takes 1 to {self.max_length}")
        shift = 0 if positions is None else int(positions.max()) + 1 - count
        if positions is not None and (not self._sections or not -count < shift <= self.max_length):
            raise ValueError("the prompt's positions of pictures do not fit this model")
        if not bool(embeddings.isfinite().all()):  # it would stay in the cache, where masks do not stop NaN
            raise ValueError("the prompt's embeddings are not finite: check the features and the weights")
        prefix = tuple(prefix[: count - 1])
        start = len(prefix)
        self._shift = 0  # a prefix is text from 0 on
        if start and prefix != self._prefix:
            self._prefix = ()  # until the cache holds all of the new one
            self._prefill(embeddings[None, :start], 0, None, check)
            self._prefix = prefix
        rotary = None if positions is None else self._picture_rotary(positions[:, start:].to(self.embedding.device))
        hidden = self._prefill(embeddings[None, start:], start, rotary, check)
        if not start:
            self._prefix = ()
        self._lengths[0] = count
        self._shift = shift
        self._shift_tensor.fill_(shift)
        return hidden[:, -1]

    def _picture_rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [L, head_size] of positions [3, L]: each of the sections turns by one of the three."""
        axis = torch.arange(len(self._sections)).repeat_interleave(torch.tensor(self._sections)) % len(positions)
        chosen = positions[axis.repeat(2).to(positions.device)].T  # [L, head_size]
        return self._cosine.gather(0, chosen), self._sine.gather(0, chosen)

    def _prefill(self, embeddings: Tensor, start: int, rotary: tuple[Tensor, Tensor] | None, check: Check) -> Tensor:
        end = start + embeddings.shape[1]
        return self._forward(
            embeddings,
            positions=slice(start, end),
            mask=self._causal_mask(start, end),
            end=end,
            rotary=rotary,
            check=check,
            last_only=True,
        )

    @torch.inference_mode()
    def fork(self, rows: int) -> None:
        """Continues row 0's prompt in rows 0 to `rows` - 1."""
        if not 0 < rows <= self.rows:
            raise ValueError(f"{rows} rows were asked of a decoder with {self.rows}")
        end = self._lengths[0]
        for cache in (*self._keys, *self._values):
            cache[1:rows, :end] = cache[:1, :end]
        self._lengths[:rows] = [end] * rows

    @torch.inference_mode()
    def step(self, tokens: Sequence[Sequence[int]], *, check: Check = _no_check) -> Tensor:
        """Feeds each row its tokens (as many as it has, none for a finished row) in one forward.

        Returns the normalised hidden state [rows, hidden] after each row's last token; a row without tokens gets one
        that means nothing.
        """
        rows, width = len(tokens), max(1, max(len(row) for row in tokens))
        end = max(self._lengths[:rows]) + width
        if end > self.max_length:
            raise ValueError(f"the text needs {end} positions, the decoder has {self.max_length}")
        starts = self._lengths[:rows]
        for row, new in enumerate(tokens):
            self._lengths[row] += len(new)
        # Filling tokens write behind their row's end, where the row's next tokens overwrite them before they are read.
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in tokens], device=self.embedding.device)
        last = [max(len(row), 1) - 1 for row in tokens]
        if self.embedding.device.type == "cuda":
            return self._graph(rows, width).replay(ids, starts, last, check)
        if rows == 1:
            positions = slice(starts[0], end)
            mask = self._causal_mask(starts[0], end) if width > 1 else None
            x = embed(ids, self.embedding)
            with _vector_kernels(width == 1 and x.dtype == torch.bfloat16):
                hidden = self._forward(x, positions=positions, mask=mask, end=end, check=check)
            return hidden[:, last[0]]
        return self._ragged(ids, torch.tensor(starts), torch.tensor(last), end, check)

    def _ragged(self, ids: Tensor, starts: Tensor, last: Tensor, end: int, check: Check) -> Tensor:
        """`step` for rows [B] that stand at different positions: ids [B, K] -> [B, hidden]."""
        rows, width = ids.shape
        positions = starts[:, None] + torch.arange(width, device=ids.device)  # [B, K]
        visible = torch.arange(end, device=ids.device) <= positions[..., None]  # [B, K, end]
        mask = self._additive(visible)[:, None].repeat(1, 1, self._heads // self._kv_heads, 1)
        row_index = torch.arange(rows, device=ids.device)
        x = embed(ids, self.embedding)
        hidden = self._forward(x, positions=positions, mask=mask, end=end, check=check)
        return hidden[row_index, last]

    def _forward(
        self,
        x: Tensor,
        *,
        positions: slice | Tensor,
        mask: Tensor | None,
        end: int,
        check: Check,
        rotary: tuple[Tensor, Tensor] | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Hidden states [B, K, hidden] of embeddings [B, K, hidden] at `positions`.

        positions: in the cache, a slice for the one row of a batch of one, or [B, K]. rotary: cosines and sines [K,
        head_size], where they are not those of the positions. last_only: what the last layer makes of other positions
        than the last is not computed, and [B, 1, hidden] returned.

        Query heads that share a key-value head are folded into the query length, [B, kv_heads, group * K, head_size],
        so that keys and values are never repeated; mask is [..., group * K, end], added to the scores.
        """
        batch, width, _ = x.shape
        heads, kv_heads, size = self._heads, self._kv_heads, self._head_size
        query_key = heads + kv_heads
        if rotary is None:
            if isinstance(positions, slice):
                turns: slice | Tensor = slice(positions.start + self._shift, positions.stop + self._shift)
            else:
                turns = positions + self._shift_tensor
            rotary = self._cosine[turns], self._sine[turns]
        cosine, sine = (table.unsqueeze(-2) for table in rotary)
        slots = None  # where the new keys and values go in the cache of all rows, one row after the other
        if isinstance(positions, Tensor):
            slots = (torch.arange(batch, device=x.device)[:, None] * self.max_length + positions).flatten()
        for layer, keys, values in zip(self._layers, self._keys, self._values, strict=True):
            check()
            qkv = linear(_rms_norm(x, layer.input_norm, self._epsilon), layer.qkv, layer.qkv_bias)
            qkv = qkv.view(batch, width, query_key + kv_heads, size)
            turned = qkv[:, :, :query_key]
            turned = turned * cosine + torch.roll(turned, size // 2, -1) * sine
            for cache, new in ((keys, turned[:, :, heads:]), (values, qkv[:, :, query_key:])):
                if slots is None:
                    cache[:1, positions] = new
                else:
                    cache.view(-1, kv_heads, size).index_copy_(0, slots, new.flatten(0, 1))
            query = turned[:, :, :heads].transpose(1, 2)
            if last_only and layer is self._layers[-1]:
                query, x, mask, width = query[:, :, -1:], x[:, -1:], None, 1
            query = query.reshape(batch, kv_heads, -1, size)
            seen = F.scaled_dot_product_attention(
                query, keys[:batch, :end].transpose(1, 2), values[:batch, :end].transpose(1, 2), attn_mask=mask
            )
            seen = seen.view(batch, heads, width, size).transpose(1, 2).reshape(batch, width, heads * size)
            x = x + linear(seen, layer.output)
            gate, up = linear(_rms_norm(x, layer.mlp_norm, self._epsilon), layer.gate_up).chunk(2, -1)
            x = x + linear(F.silu(gate) * up, layer.down)
        return _rms_norm(x, self._final_norm, self._epsilon)

    def _causal_mask(self, start: int, end: int) -> Tensor:
        """[group * K, end] for queries at start..end-1."""
        positions = torch.arange(end, device=self.embedding.device)
        return self._additive(positions <= positions[start:, None]).repeat(self._heads // self._kv_heads, 1)

    def _additive(self, visible: Tensor) -> Tensor:
        mask = torch.zeros(visible.shape, device=visible.device, dtype=self.embedding.dtype)
        return mask.masked_fill_(~visible, float("-inf"))

    def _graph(self, rows: int, width: int) -> "_Graph":
        key = (rows, width)
        if key not in self._graphs:
            self._graphs[key] = _Graph(self, rows, width)
        return self._graphs[key]


class _Graph:
    """A CUDA graph of one ragged step with `rows` x `width` tokens over the whole cache."""

    def __init__(self, decoder: Decoder, rows: int, width: int) -> None:
        device = decoder.embedding.device
        self._ids = torch.zeros((rows, width), dtype=torch.long, device=device)
        # Warming up and capturing write to the cache's last positions, which no text has reached.
        self._starts = torch.full((rows,), decoder.max_length - width, dtype=torch.long, device=device)
        self._last = torch.zeros(rows, dtype=torch.long, device=device)
        self._graph = torch.cuda.CUDAGraph()

        def run() -> Tensor:
            return decoder._ragged(self._ids, self._starts, self._last, decoder.max_length, _no_check)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph):
            self._hidden = run()

    def replay(self, ids: Tensor, starts: Sequence[int], last: Sequence[int], check: Check) -> Tensor:
        check()
        self._ids.copy_(ids)
        self._starts.copy_(torch.tensor(starts))
        self._last.copy_(torch.tensor(last))
        self._graph.replay()
        return self._hidden.clone()


@contextmanager
def _vector_kernels(wanted: bool) -> Iterator[None]:
    """Turns oneDNN off for the products of matrices with one bfloat16 vector on a CPU.

    PyTorch's own kernel reads the weights at 47 GB/s where oneDNN's reached 29 (two cores of an EPYC with AVX-512).
    """
    if not wanted or not torch.backends.mkldnn.is_available():
        yield
        return
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _fuse(layer: Any) -> _Layer:
    """A layer's weights with joint projections, of which the layer's own parameters become views."""
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        input_norm=layer.input_layernorm.weight.detach(),
        qkv=_join([projection.weight for projection in projections]),
        qkv_bias=_join([projection.bias for projection in projections]),
        output=attention.o_proj.weight.detach(),
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=_join([mlp.gate_proj.weight, mlp.up_proj.weight]),
        down=mlp.down_proj.weight.detach(),
    )


def _join(parameters: list[torch.nn.Parameter]) -> Tensor:
    """The parameters' concatenation; they become views of it."""
    parts = [int8_parts(parameter) for parameter in parameters]
    held = [part for part in parts if part is not None]
    if not held:
        whole, views = _concatenated([parameter.data for parameter in parameters])
        for parameter, view in zip(parameters, views, strict=True):
            parameter.data = view
        return whole
    values, value_views = _concatenated([part[0] for part in held])
    scales, scale_views = _concatenated([part[1] for part in held])
    for parameter, value_view, scale_view in zip(parameters, value_views, scale_views, strict=True):
        parameter.qdata, parameter.scale = value_view, scale_view  # type: ignore[attr-defined]
    return int8_tensor(values, scales)


def _concatenated(tensors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One tensor of all rows, and the given ones as views of it. Already joined ones are taken as they are."""
    first = tensors[0]
    counts = [len(tensor) for tensor in tensors]
    storage = first.untyped_storage().data_ptr()
    offsets = [tensor.storage_offset() for tensor in tensors]
    expected = [sum(tensor.numel() for tensor in tensors[:index]) for index in range(len(tensors))]
    if offsets == expected and all(tensor.untyped_storage().data_ptr() == storage for tensor in tensors):
        return first.as_strided((sum(counts), *first.shape[1:]), first.stride()), tensors
    joined = torch.cat(tensors)
    return joined, list(joined.split(counts))


def _rotary_tables(length: int, size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, size] of RoPE (arXiv 2104.09864); the sine's first half carries the minus sign."""
    frequencies = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float) / size)
    angles = torch.arange(length, dtype=torch.float)[:, None] * frequencies
    return torch.cat([angles.cos()] * 2, -1), torch.cat([-angles.sin(), angles.sin()], -1)


def _rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMSNorm (arXiv 1910.07467), in float32 inside, rounded where `transformers` rounds."""
    wide = x.float()
    normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight * normal.to(x.dtype)
