"""Speed and memory beside a peer, in one run: medians after warm-up, as ratios. `make bench` writes bench/results/DATE.md and .json.

    python bench/run.py                 all
    python bench/run.py contrastive     one, by name
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "recipes"), str(HERE)]
from drawing import DRAWING  # noqa: E402
from spoken import SPOKEN  # noqa: E402
from talk import TALK, in_turns, seconds  # noqa: E402


def paired(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each, taken in turns so that a noisy machine disturbs both alike."""
    times = in_turns({"ours": lambda: seconds(ours), "peer": lambda: seconds(peer)}, rounds)
    return {"ours_s": times["ours"], "peer_s": times["peer"], "ratio": times["peer"] / times["ours"]}


def clip_images() -> dict[str, float]:
    """CLIP ViT-B/32 image embedding, batch 16, bfloat16, beside transformers with the same weights."""
    import transformers

    import sensorium as sn
    from sensorium.zoo.clip import clip_b32

    config = transformers.CLIPVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                                           image_size=224, patch_size=32, projection_dim=512)
    peer = transformers.CLIPVisionModelWithProjection(config).eval().to(torch.bfloat16)
    model: sn.ModelNet = clip_b32().build(dtype=torch.bfloat16).eval()
    pixels = torch.randn(16, 3, 224, 224, dtype=torch.bfloat16)
    with torch.inference_mode():
        return paired(lambda: model.tower("image", pixels), lambda: peer(pixel_values=pixels).image_embeds)


def train_nano() -> dict[str, float]:
    """One training step of nano, 64 pictures, as the trainer makes it, beside a plain float32 loop (bench/plain.py) over the same samples."""
    from plain import plain_losses

    import sensorium as sn
    from sensorium.optim import native_bfloat16
    from sensorium.zoo.nano import nano

    packer = sn.Packer(places={"image": 4}, row=40, embed=1, say=2, end=3, axes=True)
    generator = torch.Generator().manual_seed(0)
    reading, writing = [], []
    for _ in range(64):
        picture = torch.randn(3, 64, 64, generator=generator)
        words = [torch.randint(4, 4096, (int(n),), generator=generator).tolist() for n in torch.randint(2, 9, (2,), generator=generator)]
        reading.append(packer.segment([sn.Arrays("image", picture), sn.Arrays("text", [10] * 5), sn.Arrays("text", words[0], target=True)]))
        writing.append(packer.segment([sn.Arrays("text", words[1]), sn.Arrays("image", picture, target=True)]))
    pairs = {"image": list(range(64)), "text": list(range(64, 128))}
    packed, padded = packer.pack(reading + writing, pairs), packer.pack(reading + writing, pairs, alone=True)

    def step(batch: sn.Batch, losses: Callable[..., dict[str, torch.Tensor]], mixed: bool) -> Callable[[], None]:
        model = nano().build(seed=0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def once() -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                total = model.total(losses(model, batch, torch.Generator().manual_seed(0)))
            total.backward()
            optimizer.step()

        return once

    mixed = native_bfloat16(torch.device("cpu"))  # what Run(mixed=True) does
    return paired(step(packed, sn.ModelNet.losses, mixed), step(padded, plain_losses, False))


def contrastive() -> dict[str, float]:
    """Peak memory of the contrastive loss and its gradients, batch 16,384 x 512, beside the plain form; gradients in float64."""
    out = {}
    for name in ("ours", "peer"):
        done = subprocess.run([sys.executable, __file__, "--memory", name], capture_output=True, text=True, check=True)
        out[f"{name}_MB"] = float(done.stdout.strip())
    out["ratio"] = out["peer_MB"] / out["ours_MB"]
    out["largest_gradient_difference_float64"] = _gradient_difference()
    return out


def _memory(which: str) -> None:
    """Print how many MB the resident peak rises by one loss with gradients."""
    from sensorium.objectives import Contrastive, contrastive_plain

    generator = torch.Generator().manual_seed(0)
    first, second = (torch.nn.functional.normalize(torch.randn(16_384, 512, generator=generator), dim=1).requires_grad_() for _ in range(2))
    net = Contrastive("image", "text", chunk=512).build()
    net(first[:64], second[:64]).backward()
    contrastive_plain(first[:64], second[:64], net.scale, torch.zeros(())).backward()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here; getrusage's is inherited from the parent
    before = _peak_kB()
    loss = net(first, second) if which == "ours" else contrastive_plain(first, second, net.scale, torch.zeros(()))
    loss.backward()
    print((_peak_kB() - before) / 1024)


def _peak_kB() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def _gradient_difference() -> float:
    from sensorium.objectives import Contrastive, contrastive_plain

    worst = 0.0
    for form in ("softmax", "sigmoid"):
        generator = torch.Generator().manual_seed(1)
        values = [torch.nn.functional.normalize(torch.randn(500, 64, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)]
        net = Contrastive("image", "text", form=form, chunk=64).build().double()
        ours, plain = ([v.clone().requires_grad_() for v in values] for _ in range(2))
        net(*ours).backward()
        bias = net.bias.detach() if net.bias is not None else torch.zeros((), dtype=torch.float64)
        contrastive_plain(*plain, net.scale.detach(), bias, softmax=form == "softmax").backward()
        worst = max([worst, *[float((a.grad - b.grad).abs().max()) for a, b in zip(ours, plain, strict=True)]])
    return worst


BENCHES = {"clip_images": clip_images, "train_nano": train_nano, "contrastive": contrastive, **TALK, **DRAWING, **SPOKEN}


def main() -> None:
    """Run what is asked and write the dated table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], help="which; all by default")
    parser.add_argument("--memory", choices=("ours", "peer"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory:
        _memory(chosen.memory)
        return
    today = datetime.date.today().isoformat()
    place = HERE / "results"
    place.mkdir(exist_ok=True)
    earlier = place / f"{today}.json"  # what was measured earlier in the day stays
    results = json.loads(earlier.read_text())["results"] if earlier.is_file() else {}
    for name in chosen.names or BENCHES:
        try:
            results[name] = BENCHES[name]()
        except (ImportError, ValueError) as error:  # a peer or a model that is not at hand
            print(f"{name}: left out ({error})", flush=True)
            continue
        print(name, json.dumps({k: round(v, 6) for k, v in results[name].items()}), flush=True)
    facts = {"date": today, "torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine(), "results": results}
    (place / f"{today}.json").write_text(json.dumps(facts, indent=1))
    rows = [f"| {name} | {BENCHES[name].__doc__.splitlines()[0]} | {' '.join(f'{k} {v:.4g}' for k, v in r.items())} |" for name, r in results.items()]
    header = [f"# Speed and memory, {today}", "", f"torch {torch.__version__}, {torch.get_num_threads()} threads.", "",
              "| name | what | figures |", "|---|---|---|"]
    (place / f"{today}.md").write_text("\n".join(header + rows) + "\n")


if __name__ == "__main__":
    main()
