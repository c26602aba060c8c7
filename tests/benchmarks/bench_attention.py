"""Which registered attention trains faster here? Prints fused over plain, per shape and precision.

One process, one thread, both models interleaved in every round; the median of the rounds' ratios
with their quartiles. Run it on an idle machine:

    python tests/benchmarks/bench_attention.py
"""

import platform
import statistics
import time

import torch
from transformers import BertConfig, BertModel

import dsgkd.models.attention  # noqa: F401  (registers the attention functions)

SHAPES = [(128, 2), (256, 4)]
LENGTHS = [48, 128, 256]
ROUNDS = 9
BATCH = 16


def model(attention: str, width: int, layers: int) -> BertModel:
    """Return a BERT in training mode, with its usual dropout."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4000,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    config._attn_implementation = attention
    return BertModel(config, add_pooling_layer=False).train()


def seconds(encoder: BertModel, ids: torch.Tensor, mask: torch.Tensor, bf16: bool) -> float:
    """Time one forward and backward pass."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        states = encoder(ids, attention_mask=mask).last_hidden_state
    states.float().square().mean().backward()
    encoder.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, batch {BATCH}")
    print(f"{'model':>8} {'length':>6} {'':>5} {'fused / plain, median (quartiles)':>36}")
    for width, layers in SHAPES:
        pair = [model(name, width, layers) for name in ("dsgkd_fused", "dsgkd_plain")]
        for length in LENGTHS:
            ids = torch.randint(5, 4000, (BATCH, length))
            mask = torch.ones_like(ids)
            mask[::2, -length // 8 :] = 0
            for bf16 in (False, True):
                ratios = []
                for _ in range(ROUNDS + 1):
                    fused, plain = (seconds(encoder, ids, mask, bf16) for encoder in pair)
                    ratios.append(fused / plain)
                low, middle, high = statistics.quantiles(ratios[1:], n=4)
                kind = "bf16" if bf16 else "fp32"
                ratio = f"{middle:.2f} ({low:.2f} - {high:.2f})"
                print(f"{layers:>3} x {width} {length:>6} {kind:>5} {ratio:>36}", flush=True)


if __name__ == "__main__":
    main()
