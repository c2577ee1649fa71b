"""Walks from noise: where stops are, what changed media keep, how forecasts continue what was seen; and the two players of a GAN."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

import sensorium as sn
from sensorium.denoise import Change, Forecast, Solver, draw, looked_at, walk
from sensorium.paths import Diffusion, Stop, Straight, apart
from sensorium.zoo import ENTRIES
from sensorium.zoo.gan import dcgan, faces


@pytest.mark.parametrize(
    "path", [Straight(), Straight(shift=3.0, told="noise"), Diffusion(), Diffusion(curve="cosine", spacing="trailing", ends="first")])
def test_stops_lead_from_noise_to_clean(path: Straight | Diffusion) -> None:
    stops = path.stops(12)
    assert len(stops) == 13 and all(a.level > b.level and a.signal < b.signal for a, b in zip(stops[:-1], stops[1:], strict=True))
    assert stops[0].level > 0.95 and stops[-1].level < 0.02
    signal, level = path.at(torch.tensor([stop.time for stop in stops[:-1]]))
    torch.testing.assert_close(signal, torch.tensor([stop.signal for stop in stops[:-1]]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(level, torch.tensor([stop.level for stop in stops[:-1]]), rtol=1e-4, atol=1e-4)


def test_steps_that_do_not_fit_a_path_are_refused() -> None:
    """The last step of 1000 is 999; step 1000 was an IndexError."""
    assert Diffusion(offset=1).stops(999)[0].time == 0.999
    for path, steps, inner in ((Diffusion(offset=1), 1000, False), (Diffusion(offset=1), 999, True), (Diffusion(), 1000, True)):
        with pytest.raises(sn.ConfigError, match=f"{steps} steps with an offset of .* do not fit a path of 1000 trained steps; ask for fewer"):
            path.stops(steps, inner)


def test_a_path_names_its_solver() -> None:
    noise, wanted = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    look = lambda x, stop: apart(torch.sin(x) + wanted, x, stop, "noise")  # noqa: E731
    for kind in ("pndm", "unipc", "lms", "heun", "dpm++"):
        path = Diffusion(solver=kind)
        own, asked, other = ([x for _, x in walk(look, path, Solver(name, steps=6), noise)][-1] for name in (None, kind, "euler"))
        assert torch.equal(own, asked) and not torch.allclose(own, other)
    with pytest.raises(sn.ConfigError, match="heun or pndm where stops are left out"):
        Solver(steps=6, every=2).on(Diffusion(solver="pndm"))
    with pytest.raises(sn.ConfigError, match="of which this path has none at its first stop"):
        list(walk(look, Diffusion(zero=0.0, spacing="trailing"), Solver("heun", steps=6), noise))


@pytest.mark.parametrize("predict", ["noise", "sample", "turn", "velocity"])
def test_every_prediction_tells_the_same_apart(predict: str) -> None:
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    stop = Diffusion().stops(10)[4]
    said = {"noise": noise, "sample": clean, "velocity": clean - noise, "turn": stop.signal * noise - stop.level * clean}[predict]
    for found, wanted in zip(apart(said, stop.signal * clean + stop.level * noise, stop, predict), (clean, noise), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["euler", "heun", "dpm++", "ddpm", "dpm++sde", "pndm", "lms", "unipc"])
def test_a_model_that_knows_the_picture_ends_at_it(kind: str) -> None:
    wanted = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    look = lambda x, stop: apart(wanted, x, stop, "sample")  # noqa: E731
    for path in (Straight(), Diffusion()):
        last = list(walk(look, path, Solver(kind, steps=8), torch.randn(1, 3, 4, 4), lambda: torch.randn(1, 3, 4, 4), predict="sample"))[-1][1]
        torch.testing.assert_close(last, wanted, rtol=1e-4, atol=1e-4)


def test_a_forecast_of_what_changes_evenly_is_near_and_looks_less() -> None:
    slope = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))

    def look(x: torch.Tensor, stop: Stop) -> tuple[torch.Tensor, torch.Tensor]:
        clean = slope * stop.clean
        return clean, (x - stop.signal * clean) / stop.level

    noise = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    whole = list(walk(look, Straight(), Solver(steps=20), noise))[-2][1]  # before the last look, which would mend all
    far = []
    for order in (0, 1, 2):
        forecast = Forecast(look, looked_at(20, 3), order)
        fewer = list(walk(forecast, Straight(), Solver(steps=20), noise))[-2][1]
        far.append(float((fewer - whole).norm()))
        assert forecast.looks == 7 == len(looked_at(20, 3))
    assert far[0] > 1.5 * far[1] > 2.25 * far[2] > 0


@pytest.mark.parametrize("steps", (1, 2, 7, 24, 48, 1000))
@pytest.mark.parametrize("every", (1, 2, 3, 10))
def test_a_model_is_asked_often_first_and_at_last(steps: int, every: int) -> None:
    stops = sorted(looked_at(steps, every))
    assert len(stops) == max(round(steps / every), 1) and stops[0] == 0 and stops[-1] < steps
    gaps = [then - now for now, then in zip(stops, stops[1:], strict=False)]
    assert all(then >= now - 1 for now, then in zip(gaps, gaps[1:], strict=False)), "ever fewer, but for rounding"
    if len(stops) > 3:
        assert stops[-1] == steps - 1


def test_changed_pictures_keep_what_is_masked_and_all_of_it_at_strength_0() -> None:
    entry = ENTRIES["stable_diffusion"]
    model, batch, solver = entry.toy().build(seed=0).eval(), entry.batch([0, 1]), Solver("ddim", steps=6)
    clean = batch.written["image"].value_LCHW
    assert torch.equal(draw(model, batch, solver, change=Change(strength=0.0)), clean)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    out = draw(model, batch, solver, change=Change(strength=1.0, mask_L1HW=mask))
    end = model.spec.objectives[0].path.stops(6)[-1]
    assert float((out[:, :, 4:] - end.signal * clean[:, :, 4:]).abs().max()) < 5 * end.level + 1e-5  # but for the first step's noise
    assert not torch.allclose(out[:, :, :4], clean[:, :, :4], atol=0.1)
    with pytest.raises(sn.ConfigError, match="strength"):
        Change(strength=1.5)


def test_the_players_move_only_their_own_weights_and_the_critic_learns() -> None:
    model = dcgan(8, 4, 2).build(seed=0).train()
    batch = ENTRIES["gan"].batch(range(8))
    batch.written["image"].value_LCHW[:] = 0.7
    critic = {name for name, _ in model.named_parameters() if name.startswith("heads.critic")}
    for player in ("generator", "critic"):
        model.zero_grad()
        model.losses(batch, torch.Generator().manual_seed(0))[player].backward()
        moved = {name for name, value in model.named_parameters() if value.grad is not None}
        assert moved == (critic if player == "critic" else {name for name, _ in model.named_parameters()} - critic)
    optimizer = torch.optim.Adam([value for name, value in model.named_parameters() if name in critic], 1e-3)
    losses = []
    for step in range(20):
        optimizer.zero_grad()
        loss = model.losses(batch, torch.Generator().manual_seed(step))["critic"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_published_faces_stand_under_our_names(tmp_path: Path) -> None:
    """A row of layers as the published generator has them, saved as it is published: strictly loaded, the same pictures, and seeds that differ."""
    widths, layers = (16, 8), []
    for inside, outside in pairwise((6, *widths)):
        layers += [torch.nn.ConvTranspose2d(inside, outside, 4, 1 if not layers else 2, 0 if not layers else 1, bias=False),
                   torch.nn.BatchNorm2d(outside), torch.nn.ReLU()]
    theirs = torch.nn.Sequential(*layers, torch.nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False), torch.nn.Tanh())
    noise = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    theirs(noise[:, :, None, None])  # moves the norms' averages
    torch.save({"netG_state_dict": {f"main.{name}": value for name, value in theirs.state_dict().items()}}, tmp_path / "weights.tar")
    report = sn.Coverage()
    model = sn.load(tmp_path, report=report)
    assert len(report.used) == len(theirs.state_dict()) and not report.ignored
    torch.testing.assert_close(model.imagine(noise), theirs.eval()(noise[:, :, None, None]))
    assert model.spec == faces({"maps": [[6, 16], [16, 8], [8, 3]]}) and model.spec.writes == ("image",)
    one, same, other = (sn.respond(model, sn.Request([sn.user("a face")], want=("image",), seed=seed)).image for seed in (1, 1, 2))
    assert torch.equal(one.source, same.source) and not torch.equal(one.source, other.source) and one.source.shape == (3, 16, 16)
    assert one.info["seed"] == 1
    (tmp_path / "weights.tar").write_bytes((tmp_path / "weights.tar").read_bytes()[:900])
    with pytest.raises(sn.CheckpointError, match="fetch it again"):
        sn.load(tmp_path)


def test_what_runs_code_is_no_face(tmp_path: Path) -> None:
    torch.save({"netG_state_dict": Path("/")}, tmp_path / "weights.tar")
    with pytest.raises(sn.CheckpointError, match="no generator of faces"):
        sn.load(tmp_path)
