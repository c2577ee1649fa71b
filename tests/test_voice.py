"""A voice of one's own: alignment, objective, sampling, and the way from a spectrum back to sound."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import sensorium as sn
from sensorium.codecs.voice import wave_of
from sensorium.codecs.waves import log_mel
from sensorium.heads_voice import align, spread
from sensorium.voice import draw_speech

SPEC = sn.Voice(32, reads=1, writes=2, heads=2, symbols=12, mels=8)


def chirp(seconds: float = 0.5) -> torch.Tensor:
    """A tone that rises and swells, (T,)."""
    t = torch.arange(int(seconds * 16_000)) / 16_000
    return torch.sin(2 * math.pi * (300 * t + 900 * t * t)) * torch.sin(math.pi * t / seconds) * 0.5


def test_alignment_is_the_cheapest_way_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, place = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 7, 4, generator=generator)
    found = align(mean, place)
    for row in range(2):
        cost = torch.cdist(place[row], mean[row]).square()
        ways = [sorted([*range(3), *more]) for more in itertools.combinations_with_replacement(range(3), 4)]
        best = min(ways, key=lambda way: float(cost[torch.arange(7), way].sum()))
        assert found[row].tolist() == best


def test_alignment_finds_lengths_and_refuses_what_does_not_fit() -> None:
    mean = torch.eye(4)[None] * 3
    lengths = torch.tensor([3, 1, 2, 5])
    assert align(mean, mean.repeat_interleave(lengths, 1))[0].bincount().tolist() == lengths.tolist()
    with pytest.raises(sn.ShapeError, match="4 symbols do not fit in 3 places"):
        align(mean, mean[:, :3])


def test_places_and_spectra_are_the_same_numbers() -> None:
    voice, spectrum = SPEC.build(), torch.randn(2, 8, 10)
    assert torch.allclose(voice.spectrum(voice.places(spectrum)), spectrum)
    assert spread(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[0, 0, 1]])).flatten().tolist() == [1, 1, 2]


def test_a_voice_learns_two_words_and_says_them() -> None:
    """Each symbol sounds as a band of its own, for as long as its number says: the drawn spectra show band and length."""
    torch.manual_seed(0)
    voice, objective = SPEC.build(), sn.Speaking().build()
    said = torch.tensor([[0, 3, 5, 0], [0, 5, 2, 0]])

    def sound(symbols: list[int]) -> torch.Tensor:
        return torch.cat([torch.eye(8)[symbol][:, None].repeat(1, 2 * max(symbol, 1)) * (symbol > 0) for symbol in symbols], dim=1)

    rows = [sound(row) for row in said.tolist()]
    spectrum = torch.stack([torch.cat([row, torch.zeros(8, 30 - row.shape[1])], dim=1) for row in rows])
    optimizer, generator, losses = torch.optim.AdamW(voice.parameters(), lr=3e-3), torch.Generator().manual_seed(0), []
    for _ in range(250):
        loss = objective(voice, said, spectrum, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10]) / 8
    for row in said.tolist():
        drawn = draw_speech(voice.eval(), row, looks=8)
        heard = drawn.argmax(dim=0)[drawn.amax(dim=0) > 0.5].bincount(minlength=8)
        assert heard[row[1]] == pytest.approx(2 * row[1], abs=1) and heard[row[2]] == pytest.approx(2 * row[2], abs=2), heard
        assert heard.sum() - heard[row[1]] - heard[row[2]] <= 1


def test_the_seed_is_the_sound_and_speed_its_length() -> None:
    voice = SPEC.build().eval()
    voice.length[-1].bias.data.fill_(math.log(6))
    one, same, other = (draw_speech(voice, [0, 1, 2, 0], seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape[1] > 1.7 * draw_speech(voice, [0, 1, 2, 0], speed=2.0).shape[1]
    with pytest.raises(sn.ShapeError, match="U at least 1"):
        voice.read(torch.zeros(1, 0, dtype=torch.int64))


def test_samples_made_of_a_spectrum_have_that_spectrum() -> None:
    mel = log_mel(chirp())
    wave = wave_of(mel)
    assert len(wave) == mel.shape[1] * 160 and float(wave.abs().max()) == pytest.approx(0.9, abs=1e-3)
    loud = mel > mel.max() - 0.75  # within three decades of the loudest

    def apart(wave_T: torch.Tensor) -> float:
        """Mean difference, but for the gain."""
        difference = (log_mel(wave_T) - mel)[loud]
        return float((difference - difference.mean()).abs().mean())

    assert apart(wave) < 0.03 and apart(wave) < 0.7 * apart(wave_of(mel, rounds=0))
    assert torch.equal(wave, wave_of(mel))



def test_words_become_symbols_between_silence() -> None:
    codec = sn.VoiceCodec()
    for words in ("red apple", "红苹果"):
        symbols = codec.encode(words)
        assert symbols[0] == symbols[-1] == 0 and all(symbols[1:-1]) and codec.length(words) == len(symbols) - 2
    with pytest.raises(sn.MediaError, match="nothing to say"):
        codec.encode(" ... ")
    assert sn.from_dict(codec.to_dict()) == codec


def test_a_model_without_a_voice_says_so() -> None:
    from .toys import toy_nano

    model = toy_nano().build()
    with pytest.raises(sn.ModalityError, match="does not speak"):
        sn.own_voice(model, "toy", sn.Codecs())
    assert any("needs heads['audio']" in problem for problem in _problems(model.spec))


def _problems(spec: sn.Model) -> list[str]:
    from dataclasses import replace

    with pytest.raises(sn.ConfigError) as caught:
        replace(spec, objectives=(*spec.objectives, sn.Speaking()))
    return [str(caught.value)]
